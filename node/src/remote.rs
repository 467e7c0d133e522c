//! The way to an actor of another node: the lane over a link, found on first use and kept; where no link
//! can be made, a relay by the node that the address came from.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use layercake_wire::{
    AskFailure, DialError, Lane, LaneError,
    id::{ActorAddr, PeerId},
    payload::{self, CodecError, Encoding, Fingerprint, Payload, Tag},
};
use parking_lot::Mutex;

use crate::{
    address::{ASK_DEADLINE, deadline_in, from_ask_failure},
    clock,
    dead::Why,
    error::{AskError, TellError},
    here::within,
    message::Message,
    node::Node,
    relay,
};

/// How long a relay is used before the direct way is tried again.
const RELAY_TIME: Duration = Duration::from_secs(30);

pub(crate) struct Remote {
    pub(crate) addr: ActorAddr,
    /// Absent where the address was read outside of any node.
    pub(crate) node: Option<Node>,
    /// Who the address came from: it can reach the actor, or knows who can.
    via: Option<PeerId>,
    /// The lane that was used last.
    lane: ArcSwapOption<Lane>,
    /// Until when the direct way is not tried.
    relayed: Mutex<Option<Instant>>,
}

/// How a message gets to the actor.
pub(crate) enum Way {
    Direct(Arc<Lane>),
    By(PeerId),
}

/// How an encoder is told what it encodes for; `None`: for somebody of whom nothing is known.
pub(crate) type For<'a> = Option<&'a Lane>;

impl Remote {
    pub(crate) fn new(addr: ActorAddr, node: Option<Node>, via: Option<PeerId>) -> Self {
        let own = node.as_ref().map(Node::peer);
        let via = via.filter(|via| *via != addr.node.peer && Some(*via) != own);
        Self { addr, node, via, lane: ArcSwapOption::empty(), relayed: Mutex::new(None) }
    }

    fn ready_lane(&self) -> Option<Arc<Lane>> {
        self.lane.load_full().filter(|lane| !lane.link().is_closed())
    }

    fn node(&self) -> Result<&Node, AskError> {
        self.node.as_ref().ok_or_else(|| AskError::Unbound { to: self.addr.clone() })
    }

    pub(crate) fn dead_letter(&self, tag: Tag, name: Option<&'static str>, why: Why) {
        if let Some(node) = &self.node {
            node.dead_letter(tag, name, why);
        }
    }

    /// The way to the actor: over the link that is up, a new one, or by a relay.
    pub(crate) async fn way(&self) -> Result<Way, AskError> {
        if let Some(lane) = self.ready_lane() {
            return Ok(Way::Direct(lane));
        }
        let node = self.node()?;
        if let Some(via) = self.via
            && self.relayed.lock().is_some_and(|until| clock::now() < until)
        {
            return Ok(Way::By(via));
        }
        match node.endpoint().link(&self.addr.node).await {
            Ok(link) => {
                let lane = link.lane(self.addr.serial);
                self.lane.store(Some(lane.clone()));
                Ok(Way::Direct(lane))
            }
            Err(DialError::Gone(_) | DialError::Ourselves) => {
                Err(AskError::Stopped { to: self.addr.clone() })
            }
            Err(error) => match self.via.filter(|via| node.endpoint().existing(via.node).is_some())
            {
                Some(via) => {
                    tracing::info!(to = %self.addr, %via, %error, "no direct way; relayed");
                    *self.relayed.lock() = Some(clock::now() + RELAY_TIME);
                    Ok(Way::By(via))
                }
                None => {
                    let (to, reason) = (self.addr.clone(), error.to_string());
                    Err(AskError::Unreachable { to, reason })
                }
            },
        }
    }

    /// One ask: once more on another link where the first had ended before it was begun.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
    fn exchange<R>(
        &self,
        encode: impl Fn(For<'_>) -> Result<Payload, AskError>,
        accept: Fingerprint,
        deadline: Instant,
        decode: impl FnOnce(Payload) -> Result<R, AskError>,
    ) -> impl Future<Output = Result<R, AskError>> {
        async move {
            // What is seldom is boxed: its size would be carried by each ask.
            let mut again = true;
            loop {
                let way = match self.ready_lane() {
                    Some(lane) => Way::Direct(lane),
                    None => {
                        let way = Box::pin(tokio::time::timeout_at(deadline.into(), self.way()));
                        way.await.unwrap_or(Err(AskError::Deadline))?
                    }
                };
                let lane = match way {
                    Way::Direct(lane) => lane,
                    Way::By(via) => {
                        let payload = encode(None)?;
                        let node = self.node()?;
                        let to = self.addr.clone();
                        let asked = relay::ask(node, via, to, payload, accept, deadline);
                        return decode(Box::pin(asked).await?);
                    }
                };
                let payload = encode(Some(&lane))?;
                match lane.ask(payload, accept, deadline, crate::here::trace()).await {
                    Ok(payload) => return decode(payload),
                    Err(AskFailure::Unbegun(_)) if again => again = false,
                    Err(failure) => return Err(from_ask_failure(|| self.addr.clone(), failure)),
                }
            }
        }
    }

    /// Asks; the message comes back with the error.
    pub(crate) async fn ask<M: Message>(
        &self,
        message: M,
        deadline: Instant,
    ) -> Result<M::Reply, (AskError, M)> {
        let message = Mutex::new(message);
        let encode = |lane: For<'_>| {
            encode_for(lane, &*message.lock())
                .map_err(|error| AskError::Unsendable { reason: error.to_string() })
        };
        let decode = |payload: Payload| self.decode(&payload);
        let asked = self.exchange(encode, M::describe().reply_fingerprint, deadline, decode).await;
        asked.map_err(|error| (error, message.into_inner()))
    }

    /// Decodes what came back; addresses in it belong to this node.
    pub(crate) fn decode<R: serde::de::DeserializeOwned>(
        &self,
        payload: &Payload,
    ) -> Result<R, AskError> {
        let read = || crate::here::from_node(Some(self.addr.node.peer), || payload.decode());
        let decoded = match &self.node {
            Some(node) => within(node, read),
            None => read(),
        };
        decoded.map_err(|error| AskError::BadReply { reason: error.to_string() })
    }

    pub(crate) fn ask_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> impl Future<Output = Result<Payload, AskError>> {
        self.exchange(move |_| Ok(payload.clone()), accept, deadline, Ok)
    }

    /// One tell: once more on another link where the first had ended before anything was sent.
    async fn send(
        &self,
        encode: impl Fn(For<'_>) -> Result<Payload, CodecError>,
    ) -> Result<(), NotSent> {
        let mut again = true;
        loop {
            let lane = match self.way().await {
                Ok(Way::Direct(lane)) => lane,
                Ok(Way::By(via)) => {
                    let payload = encode(None).map_err(NotSent::Codec)?;
                    let (node, to) = (self.node().map_err(NotSent::Way)?, self.addr.clone());
                    let deadline = deadline_in(ASK_DEADLINE);
                    return relay::tell(node, via, to, payload, deadline)
                        .await
                        .map_err(NotSent::Way);
                }
                Err(error) => return Err(NotSent::Way(error)),
            };
            match lane.tell(encode(Some(&lane)).map_err(NotSent::Codec)?).await {
                Ok(()) => return Ok(()),
                Err(_) if again => again = false,
                Err(_) => return Err(NotSent::Ended),
            }
        }
    }

    pub(crate) async fn tell<M: Message>(&self, message: M) -> Result<(), TellError<M>> {
        let sent = self.send(|lane| encode_for(lane, &message)).await;
        sent.map_err(|error| error.with(self.addr.clone(), message))
    }

    pub(crate) async fn tell_encoded(&self, payload: Payload) -> Result<(), TellError<Payload>> {
        let sent = self.send(|_| Ok(payload.clone())).await;
        sent.map_err(|error| error.with(self.addr.clone(), payload))
    }

    pub(crate) fn try_tell<M: Message>(&self, message: M) -> Result<(), TellError<M>> {
        let to = self.addr.clone();
        let Some(lane) = self.ready_lane() else { return Err(TellError::Full { to, message }) };
        match encode_for(Some(&lane), &message).map(|payload| lane.try_tell(payload)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(LaneError::Full(_) | LaneError::Closed(_))) => {
                Err(TellError::Full { to, message })
            }
            Err(error) => Err(TellError::Unsendable { to, reason: error.to_string(), message }),
        }
    }
}

/// Why a tell was not sent.
enum NotSent {
    Way(AskError),
    Codec(CodecError),
    Ended,
}

impl NotSent {
    fn with<M>(self, to: ActorAddr, message: M) -> TellError<M> {
        match self {
            Self::Way(AskError::Stopped { to }) => TellError::Stopped { to, message },
            Self::Way(error) => TellError::Unreachable { to, reason: error.to_string(), message },
            Self::Codec(error) => TellError::Unsendable { to, reason: error.to_string(), message },
            Self::Ended => {
                TellError::Unreachable { to, reason: "the link ended".to_owned(), message }
            }
        }
    }
}

/// bincode where the peer knows the very structure of the type, else what describes itself.
pub(crate) fn encode_for<M: Message>(lane: For<'_>, message: &M) -> Result<Payload, CodecError> {
    let known = lane.is_some_and(|lane| lane.link().knows(M::describe().fingerprint));
    let (encoding, bytes) = match known {
        true => (Encoding::Bincode, payload::encode(Encoding::Bincode, message)?),
        false => payload::describe(message)?,
    };
    Ok(Payload { tag: M::TAG, encoding, bytes })
}
