//! A large body that is read while it comes: a field of a message that holds the address of where its
//! bytes are.
//!
//! Behind it is an actor in the node of the one who sends, which lives until the bytes are read or the
//! sender has gone. Bytes come in parts, so that a slow reader holds the sender back.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use crate::{
    actor::{Accepts, Actor, Context},
    address::Address,
    error::AskError,
    http::UPLOAD,
    message::{Message, MessageApi},
    node::Node,
    packet::Packet,
    schema,
    stream::{Outlet, Replies},
};

/// Asks for the bytes of an upload, in parts. There is one who gets them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ReadUpload {}

impl Message for ReadUpload {
    type Reply = Bytes;
    const NAME: &'static str = "layercake.ReadUpload";
    const STREAM: bool = true;

    fn describe() -> &'static Arc<MessageApi> {
        static API: OnceLock<Arc<MessageApi>> = OnceLock::new();
        API.get_or_init(|| Arc::new(schema::describe::<Self>()))
    }
}

impl Accepts<Self> for ReadUpload {}

/// Bytes that are read while they come, as the body field of a message (`#[arg(body)]`). There is no
/// limit to their number but the gateway's.
///
/// A handler reads them by [`next`](Self::next). They are there as long as whoever sent the message waits
/// for its answer, and are read once: a pool that gives the message to a second worker after the first
/// one died over it gives it an upload that cannot be read any more.
pub struct Upload {
    /// The media type: `video/mp4`.
    pub media_type: String,
    /// How many bytes there are, where the sender says it.
    pub length: Option<u64>,
    from: Address<ReadUpload>,
    parts: Option<Replies<Bytes>>,
}

impl Upload {
    /// Makes one, and the end by which its bytes are sent. Dropping that end takes the upload back.
    pub fn new(
        node: &Node,
        media_type: impl Into<String>,
        length: Option<u64>,
    ) -> (Self, UploadSender) {
        let (reader, outlet) = oneshot::channel();
        let actor = node.spawn(Source { reader: Some(reader) });
        let (media_type, from) = (media_type.into(), actor.cast());
        (Self { media_type, length, from, parts: None }, UploadSender { actor, outlet })
    }

    /// The next bytes; `None` after the last ones.
    ///
    /// # Errors
    /// [`AskError`]: the sender has gone or broke off, the upload was read before, or the deadline of the
    /// message at hand has passed.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, AskError>> {
        if self.parts.is_none() {
            match self.from.stream(ReadUpload {}).await {
                Ok(parts) => self.parts = Some(parts),
                Err(error) => return Some(Err(error)),
            }
        }
        self.parts.as_mut()?.next().await
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({}, {:?})", self.media_type, self.length)
    }
}

/// Where the bytes of an [`Upload`] go in.
pub struct UploadSender {
    actor: Address<Source>,
    outlet: oneshot::Receiver<Outlet<Bytes>>,
}

impl UploadSender {
    /// Waits until somebody reads, and gives the way there; `None` when nobody will any more.
    ///
    /// # Cancel safety
    /// May be called again until it was ready.
    pub async fn wanted(&mut self) -> Option<Outlet<Bytes>> {
        (&mut self.outlet).await.ok()
    }
}

impl Drop for UploadSender {
    fn drop(&mut self) {
        self.actor.stop();
    }
}

/// The actor behind an upload.
struct Source {
    reader: Option<oneshot::Sender<Outlet<Bytes>>>,
}

impl Actor for Source {
    const NAME: &'static str = "Upload";
    type Mail = Packet<ReadUpload>;
    type Output = ();

    async fn handle(&mut self, packet: Packet<ReadUpload>, _: &mut Context<Self>) {
        let Some((_, outlet)) = packet.into_stream() else { return };
        match self.reader.take() {
            // Where nobody sends any more, dropping it says that the stream broke off.
            Some(reader) => drop(reader.send(outlet)),
            None => outlet.fail("the upload was read before"),
        }
    }
}

impl Accepts<ReadUpload> for Source {}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Upload")]
struct Written {
    media_type: String,
    length: Option<u64>,
    from: Address<ReadUpload>,
}

impl Serialize for Upload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (media_type, from) = (self.media_type.clone(), self.from.clone());
        Written { media_type, length: self.length, from }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Upload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { media_type, length, from } = Written::deserialize(deserializer)?;
        Ok(Self { media_type, length, from, parts: None })
    }
}

impl JsonSchema for Upload {
    fn schema_name() -> Cow<'static, str> {
        "Upload".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Upload").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Bytes that are read while they come.",
            "properties": {
                "media_type": { "type": "string" },
                "length": { "type": ["integer", "null"], "format": "uint64" },
                "from": { "type": "object", "description": "Where they are." },
            },
            "required": ["media_type", "length", "from"],
            UPLOAD: true,
        })
    }
}
