//! Relaying: an ask or a tell by way of the agent of a third node, where no link can be made to the one
//! that it is for. The payload passes as bytes; the introducer sees neither type nor content.

use std::{pin::Pin, time::Instant};

use bytes::Bytes;
use layercake_wire::{
    Failure, FailureCode,
    id::{ActorAddr, PeerId},
    payload::{Encoding, Fingerprint, Payload, Tag},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    address::{Address, AnyAddress},
    agent::Agent,
    dead::Why,
    error::AskError,
    node::Node,
    packet::Reply,
};

/// Relayed asks and tells that one node has under way for others at a time; more are `Overloaded`.
pub(crate) const MAX_RELAYS: usize = 256;

/// Asks a node to hand a message on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Relay {
    #[schemars(with = "AnyAddress")]
    to: ActorAddr,
    tag: u64,
    encoding: u8,
    body: Bytes,
    accept: u64,
    /// Whether an answer is waited for.
    ask: bool,
}

/// What a relay brings back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub enum Relayed {
    /// The reply, or nothing for a tell.
    Reply {
        /// How it is encoded.
        encoding: u8,
        /// It.
        body: Bytes,
    },
    /// Why there is none.
    Failed {
        /// The kind of failure.
        code: u8,
        /// When to try again; 0 where that is not known.
        retry_after_ms: u32,
        /// For people.
        detail: String,
    },
}

type Outcome = Pin<Box<dyn Future<Output = Result<Payload, AskError>> + Send>>;

/// Boxed, for asking the agent is an ask like any other.
fn by(node: &Node, via: PeerId, relay: Relay, to: ActorAddr, deadline: Instant) -> Outcome {
    let agent: Address<Agent> = node.bind(Agent::address(via));
    Box::pin(async move {
        let tag = Tag(relay.tag);
        match agent.ask_by(relay, deadline).await? {
            Relayed::Reply { encoding, body } => match Encoding::from_wire(encoding) {
                Some(encoding) => Ok(Payload { tag, encoding, bytes: body }),
                None => Err(AskError::BadReply { reason: format!("unknown encoding {encoding}") }),
            },
            Relayed::Failed { code, retry_after_ms, detail } => {
                let code = FailureCode::from_wire(code);
                Err(AskError::from_failure(|| to, Failure { code, retry_after_ms, detail }))
            }
        }
    })
}

/// Asks by way of another node.
pub(crate) async fn ask(
    node: &Node,
    via: PeerId,
    to: ActorAddr,
    payload: Payload,
    accept: Fingerprint,
    deadline: Instant,
) -> Result<Payload, AskError> {
    let relay = Relay::new(&to, payload, accept, true);
    by(node, via, relay, to, deadline).await
}

/// Tells by way of another node; ready when that one has told it.
pub(crate) async fn tell(
    node: &Node,
    via: PeerId,
    to: ActorAddr,
    payload: Payload,
    deadline: Instant,
) -> Result<(), AskError> {
    let relay = Relay::new(&to, payload, Fingerprint::NONE, false);
    by(node, via, relay, to, deadline).await.map(drop)
}

impl Relay {
    fn new(to: &ActorAddr, payload: Payload, accept: Fingerprint, ask: bool) -> Self {
        Self {
            to: to.clone(),
            tag: payload.tag.0,
            encoding: payload.encoding as u8,
            body: payload.bytes,
            accept: accept.0,
            ask,
        }
    }

    /// Hands it on, on behalf of the one who asked.
    pub(crate) async fn carry_out(self, node: Node, reply: Reply<Relayed>) {
        let Some(deadline) = reply.deadline() else { return };
        let Some(encoding) = Encoding::from_wire(self.encoding) else {
            let why = format!("unknown encoding {}", self.encoding);
            return node.dead_letter(Tag(self.tag), None, Why::Malformed(why));
        };
        // From here only directly: an address that came over the mesh twice is not relayed twice.
        let to: AnyAddress = node.bind(self.to);
        let payload = Payload { tag: Tag(self.tag), encoding, bytes: self.body };
        let done = async {
            if self.ask {
                return to.ask_encoded(payload, Fingerprint(self.accept), deadline).await;
            }
            let tag = payload.tag;
            to.tell_encoded(payload).await?;
            Ok(Payload { tag, encoding: Encoding::Json, bytes: Bytes::new() })
        };
        let result = tokio::select! {
            result = done => result,
            () = reply.unwanted() => return,
        };
        reply.send(match result {
            Ok(Payload { encoding, bytes, .. }) => {
                Relayed::Reply { encoding: encoding as u8, body: bytes }
            }
            Err(error) => {
                let Failure { code, retry_after_ms, detail } = error.into_failure();
                Relayed::Failed { code: code as u8, retry_after_ms, detail }
            }
        });
    }
}
