//! Messages and what is known of them without their Rust type: names, schemas, fingerprints.
//!
//! `#[message]` implements [`Message`]; an [`Api`] is the list of what an actor answers, and travels
//! with its record in the directory, so that a gateway can check input that it never decodes.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use layercake_wire::payload::{self, Encoding, Fingerprint, Payload, Tag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::http::HttpApi;

/// What may be a reply or a field of a message. Implemented for every type that has these traits;
/// `#[layercake::data]` derives them.
pub trait Data: Serialize + DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: Serialize + DeserializeOwned + JsonSchema + Send + 'static> Data for T {}

/// A message: a serde type with a name, a schema and a type of reply. Implement it with `#[message]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    note = "put `#[message]` or `#[message(reply = …)]` on the struct"
)]
pub trait Message: Data {
    /// What an ask of it is answered with.
    type Reply: Data;
    /// Its name in the mesh. Two types of one name are versions of one message.
    const NAME: &'static str;
    /// The name in eight bytes.
    const TAG: Tag = Tag::of(Self::NAME);
    /// Whether handling it twice is as good as once, so that a pool may send it to another worker
    /// when the first one died with it.
    const IDEMPOTENT: bool = false;
    /// Whether it is answered in any number of parts of type [`Reply`](Self::Reply), by
    /// [`Address::stream`](crate::Address::stream).
    const STREAM: bool = false;
    /// Whether its reply is a `Result`, and so may say that the handler failed.
    const FALLIBLE: bool = false;
    /// Whether this reply says so. A pool sends less to a worker that fails more than the others do.
    fn is_failure(reply: &Self::Reply) -> bool {
        let _ = reply;
        false
    }
    /// How long a request from outside of the mesh may take where the client asks for no other time;
    /// without one, what the gateway allows.
    const DEADLINE: Option<Duration> = None;
    /// How it is reached over HTTP, besides by its name.
    #[must_use]
    fn http() -> HttpApi {
        HttpApi::default()
    }
    /// Its description, made once.
    fn describe() -> &'static Arc<MessageApi>;
}

/// A message type as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageApi {
    /// [`Message::NAME`].
    pub name: String,
    /// JSON Schema (2020-12) of the message, always an object.
    pub schema: Value,
    /// The fingerprint of the message's structure.
    pub fingerprint: Fingerprint,
    /// JSON Schema of the reply.
    pub reply_schema: Value,
    /// The fingerprint of the reply's structure.
    pub reply_fingerprint: Fingerprint,
    /// [`Message::IDEMPOTENT`].
    pub idempotent: bool,
    /// [`Message::STREAM`].
    #[serde(default)]
    pub stream: bool,
    /// [`Message::FALLIBLE`].
    #[serde(default)]
    pub fallible: bool,
    /// [`Message::DEADLINE`], in milliseconds.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// [`Message::http`].
    #[serde(default)]
    pub http: HttpApi,
}

impl MessageApi {
    /// The tag of the name.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag::of(&self.name)
    }

    /// Whether an encoded reply says that the handler failed: told from its first bytes, for nothing
    /// between sender and receiver decodes it.
    #[must_use]
    pub fn is_failure(&self, reply: &Payload) -> bool {
        self.fallible
            && match reply.encoding {
                // The number of the variant.
                Encoding::Bincode => reply.bytes.first() == Some(&1),
                Encoding::Json => is_error(&reply.bytes),
                Encoding::Parts => {
                    payload::split(&reply.bytes).is_ok_and(|(json, _)| is_error(&json))
                }
            }
    }
}

/// Whether JSON is the error of a `Result`.
fn is_error(json: &[u8]) -> bool {
    json.starts_with(br#"{"Err":"#)
}

/// What an actor answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Api {
    /// The name of the actor's type.
    pub actor: String,
    /// Its messages, in the order of its handlers.
    pub messages: Vec<Arc<MessageApi>>,
}

impl Api {
    /// The description of the message of that tag.
    #[must_use]
    pub fn message(&self, tag: Tag) -> Option<&Arc<MessageApi>> {
        self.messages.iter().find(|m| m.tag() == tag)
    }
}

/// The names of the messages that this program has described, by tag.
static NAMES: OnceLock<papaya::HashMap<Tag, &'static str>> = OnceLock::new();

/// Notes the name of a message type; as many as the program has types.
pub(crate) fn note_name(tag: Tag, name: &'static str) {
    NAMES.get_or_init(papaya::HashMap::new).pin().insert(tag, name);
}

/// The name of a message, where this program has described a type of that name.
pub(crate) fn name_of(tag: Tag) -> Option<&'static str> {
    NAMES.get()?.pin().get(&tag).copied()
}
