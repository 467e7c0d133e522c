//! Addresses: who to tell and ask, wherever it lives.
//!
//! An [`Address`] of an actor in this process holds its mailbox; one of another node holds the lane to
//! it, found on first use and kept. Both look the same, compare equal when they mean the same actor, and
//! travel inside messages: what is written is an [`ActorAddr`], and what is read belongs to the node
//! that reads it.

use std::{
    any::Any,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use layercake_wire::{
    AskFailure, DialError, InboundKind, Lane, LaneError, Responder,
    id::ActorAddr,
    payload::{self, Encoding, Fingerprint, Payload},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use crate::{
    actor::Accepts,
    error::{AskError, TellError},
    mailbox::{Accepted, Inlet},
    message::Message,
    node::{Node, current_node, within},
    packet::{Packet, Parcel, Unanswered},
};

/// How long an ask waits where no deadline is given.
pub const ASK_DEADLINE: Duration = Duration::from_secs(30);

/// The identity of an actor and the way to it. `T` says what it takes: an actor type or a message.
pub struct Address<T: ?Sized> {
    target: Target,
    takes: PhantomData<fn(&T)>,
}

/// An address that is known to take nothing in particular.
pub type AnyAddress = Address<dyn Any>;

#[derive(Clone)]
enum Target {
    Here(Arc<dyn Inlet>),
    There(Arc<Remote>),
}

struct Remote {
    addr: ActorAddr,
    /// Absent where the address was read outside of any node.
    node: Option<Node>,
    /// The lane that was used last.
    lane: ArcSwapOption<Lane>,
}

impl<T: ?Sized> Address<T> {
    pub(crate) fn here(inlet: Arc<dyn Inlet>) -> Self {
        Self { target: Target::Here(inlet), takes: PhantomData }
    }

    /// An address within a node: its own actors are found in its table, others over a link.
    pub(crate) fn bound(addr: ActorAddr, node: Option<&Node>) -> Self {
        if let Some(node) = node
            && addr.node.peer == node.peer()
            && let Some(inlet) = node.find(addr.serial)
        {
            return Self::here(inlet);
        }
        let remote = Remote { addr, node: node.cloned(), lane: ArcSwapOption::empty() };
        Self { target: Target::There(Arc::new(remote)), takes: PhantomData }
    }

    /// The same actor as one that takes `U`. Nothing is checked here; a message that the actor does
    /// not handle is answered with [`AskError::NotHandled`].
    #[must_use]
    pub fn cast<U: ?Sized>(&self) -> Address<U> {
        Address { target: self.target.clone(), takes: PhantomData }
    }

    /// The same actor, whatever it takes.
    #[must_use]
    pub fn any(&self) -> AnyAddress {
        self.cast()
    }

    /// What identifies the actor in the whole mesh. An actor whose address was read once can be
    /// reached from other nodes from then on.
    #[must_use]
    pub fn id(&self) -> ActorAddr {
        match &self.target {
            Target::Here(inlet) => {
                inlet.node().export(inlet);
                ActorAddr { node: inlet.node().addr(), serial: inlet.serial() }
            }
            Target::There(remote) => remote.addr.clone(),
        }
    }

    /// Whether the actor lives in this process.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.target, Target::Here(_))
    }

    /// Asks a local actor to end after its present message; of an actor elsewhere it is no
    /// business of ours, and nothing happens.
    pub fn stop(&self) {
        if let Target::Here(inlet) = &self.target {
            inlet.stop();
        }
    }

    pub(crate) fn inlet(&self) -> Option<&Arc<dyn Inlet>> {
        match &self.target {
            Target::Here(inlet) => Some(inlet),
            Target::There(_) => None,
        }
    }

    /// Sends a message and waits for its reply, for at most [`ASK_DEADLINE`].
    ///
    /// # Errors
    /// [`AskError`] tells whether it may have run and whether to try again.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the ask: what has not begun does not begin.
    pub async fn ask<M: Message>(&self, message: M) -> Result<M::Reply, AskError>
    where
        T: Accepts<M>,
    {
        self.ask_by(message, Instant::now() + ASK_DEADLINE).await
    }

    /// As [`ask`](Self::ask), with another time limit.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_within<M: Message>(
        &self,
        message: M,
        limit: Duration,
    ) -> Result<M::Reply, AskError>
    where
        T: Accepts<M>,
    {
        self.ask_by(message, Instant::now() + limit).await
    }

    /// As [`ask`](Self::ask), until a point in time.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_by<M: Message>(
        &self,
        message: M,
        deadline: Instant,
    ) -> Result<M::Reply, AskError>
    where
        T: Accepts<M>,
    {
        self.ask_or_return(message, deadline).await.map_err(|(error, _)| error)
    }

    /// Asks, and hands the message back with the error where it is still at hand: always from
    /// another node, and from this one where no handler began it.
    pub(crate) async fn ask_or_return<M: Message>(
        &self,
        message: M,
        deadline: Instant,
    ) -> Result<M::Reply, (AskError, Option<M>)>
    where
        T: Accepts<M>,
    {
        match &self.target {
            Target::Here(inlet) => ask_here(inlet, message, deadline).await,
            Target::There(remote) => {
                remote.ask(&message, deadline).await.map_err(|error| (error, Some(message)))
            }
        }
    }

    /// Sends a message that is not answered; waits for room. Messages of one task to one actor
    /// arrive in order.
    ///
    /// # Errors
    /// [`TellError`] hands the message back. A message on its way to another node may still be lost
    /// with the link; who must know asks instead.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn tell<M: Message>(&self, message: M) -> Result<(), TellError<M>>
    where
        T: Accepts<M>,
    {
        match &self.target {
            Target::Here(inlet) => match inlet.room().acquire().await {
                Ok(permit) => {
                    permit.forget();
                    put(inlet, message)
                }
                Err(_) => Err(TellError::Stopped { to: self.id(), message }),
            },
            Target::There(remote) => remote.tell(message).await,
        }
    }

    /// Sends a message that is not answered, if there is room now and the way is known.
    ///
    /// # Errors
    /// [`TellError`] hands the message back; `Full` also when the link has to be made first.
    pub fn try_tell<M: Message>(&self, message: M) -> Result<(), TellError<M>>
    where
        T: Accepts<M>,
    {
        match &self.target {
            Target::Here(inlet) => match inlet.room().try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    put(inlet, message)
                }
                Err(tokio::sync::TryAcquireError::NoPermits) => {
                    Err(TellError::Full { to: self.id(), message })
                }
                Err(tokio::sync::TryAcquireError::Closed) => {
                    Err(TellError::Stopped { to: self.id(), message })
                }
            },
            Target::There(remote) => remote.try_tell(message),
        }
    }

    /// Sends an encoded message and waits for its encoded reply.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<Payload, AskError> {
        match &self.target {
            Target::Here(inlet) => {
                let room = tokio::time::timeout_at(deadline.into(), inlet.room().acquire()).await;
                match room {
                    Ok(Ok(permit)) => permit.forget(),
                    Ok(Err(_)) => return Err(AskError::Stopped { to: self.id() }),
                    Err(_) => return Err(AskError::Deadline),
                }
                let (slot, answer) = oneshot::channel();
                let kind = InboundKind::Ask(Responder::local(slot, accept, deadline));
                let node = inlet.node().clone();
                inlet.deliver(Parcel { payload, kind, node }, true);
                match tokio::time::timeout_at(deadline.into(), answer).await {
                    Ok(answer) => answer
                        .unwrap_or(Err(AskFailure::Lost("the actor has ended".to_owned())))
                        .map_err(|failure| from_ask_failure(|| self.id(), failure)),
                    Err(_) => Err(AskError::Deadline),
                }
            }
            Target::There(remote) => {
                let (encode, decode) = (|_: &Lane| Ok(payload.clone()), Ok);
                remote.exchange(encode, accept, deadline, decode).await
            }
        }
    }
}

/// Puts a tell into a local mailbox, for which room was taken.
fn put<M: Message>(inlet: &Arc<dyn Inlet>, message: M) -> Result<(), TellError<M>> {
    let mut packet = Some(Packet::tell(message));
    let accepted = inlet.accept(&mut packet);
    let to = || Address::<dyn Any>::here(inlet.clone()).id();
    match (accepted, packet.and_then(Packet::into_message)) {
        (Accepted::NotHandled, Some(message)) => {
            inlet.room().add_permits(1);
            let reason = format!("it does not handle `{}`", M::NAME);
            Err(TellError::Unsendable { to: to(), reason, message })
        }
        // Accepted, or ended in the same moment: the mailbox has it and counts it.
        _ => Ok(()),
    }
}

async fn ask_here<M: Message>(
    inlet: &Arc<dyn Inlet>,
    message: M,
    deadline: Instant,
) -> Result<M::Reply, (AskError, Option<M>)> {
    let to = || Address::<dyn Any>::here(inlet.clone()).id();
    if let Ok(permit) = inlet.room().try_acquire() {
        permit.forget();
    } else {
        match tokio::time::timeout_at(deadline.into(), inlet.room().acquire()).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err((AskError::Stopped { to: to() }, Some(message))),
            Err(_) => return Err((AskError::Deadline, Some(message))),
        }
    }
    let (slot, answer) = oneshot::channel();
    let mut packet = Some(Packet::ask(message, slot, deadline));
    if let Accepted::NotHandled = inlet.accept(&mut packet) {
        inlet.room().add_permits(1);
        let error = AskError::NotHandled { to: to(), message: M::NAME.to_owned() };
        return Err((error, packet.and_then(Packet::into_message)));
    }
    // An actor that has stopped meanwhile answers too: by dropping the packet.
    match tokio::time::timeout_at(deadline.into(), answer).await {
        Ok(Ok(Ok(reply))) => Ok(reply),
        Ok(Ok(Err(Unanswered { failure, message }))) => {
            let message = message.and_then(|message| message.downcast().ok()).map(|boxed| *boxed);
            Err((AskError::from_failure(to, failure), message))
        }
        Ok(Err(_)) => Err((AskError::NoReply, None)),
        Err(_) => Err((AskError::Deadline, None)),
    }
}

fn from_ask_failure(to: impl FnOnce() -> ActorAddr, failure: AskFailure) -> AskError {
    match failure {
        AskFailure::Failed(failure) => AskError::from_failure(to, failure),
        AskFailure::Deadline => AskError::Deadline,
        AskFailure::Lost(reason) => AskError::Lost { to: to(), reason },
    }
}

impl Remote {
    /// The lane to the actor, over the link that is up or a new one.
    async fn lane(&self) -> Result<Arc<Lane>, AskError> {
        if let Some(lane) = &*self.lane.load()
            && !lane.link().is_closed()
        {
            return Ok(lane.clone());
        }
        let to = || self.addr.clone();
        let node = self.node.as_ref().ok_or_else(|| AskError::Unbound { to: to() })?;
        match node.endpoint().link(&self.addr.node).await {
            Ok(link) => {
                let lane = link.lane(self.addr.serial);
                self.lane.store(Some(lane.clone()));
                Ok(lane)
            }
            Err(DialError::Gone(_) | DialError::Ourselves) => Err(AskError::Stopped { to: to() }),
            Err(error) => Err(AskError::Unreachable { to: to(), reason: error.to_string() }),
        }
    }

    /// One ask: once more on another link where the first had ended before anything was sent.
    async fn exchange<R>(
        &self,
        encode: impl Fn(&Lane) -> Result<Payload, AskError>,
        accept: Fingerprint,
        deadline: Instant,
        decode: impl FnOnce(Payload) -> Result<R, AskError>,
    ) -> Result<R, AskError> {
        let mut again = true;
        loop {
            let lane = match &*self.lane.load() {
                Some(lane) if !lane.link().is_closed() => lane.clone(),
                _ => match tokio::time::timeout_at(deadline.into(), self.lane()).await {
                    Ok(lane) => lane?,
                    Err(_) => return Err(AskError::Deadline),
                },
            };
            let payload = encode(&lane)?;
            match lane.ask(payload, accept, deadline).await {
                Ok(payload) => return decode(payload),
                Err(AskFailure::Lost(reason)) if again && reason == layercake_wire::CLOSED => {
                    again = false;
                }
                Err(failure) => return Err(from_ask_failure(|| self.addr.clone(), failure)),
            }
        }
    }

    async fn ask<M: Message>(&self, message: &M, deadline: Instant) -> Result<M::Reply, AskError> {
        let encode = |lane: &Lane| {
            encode_for(lane, message)
                .map_err(|error| AskError::Unsendable { reason: error.to_string() })
        };
        let decode = |payload: Payload| {
            let read = || payload::decode(payload.encoding, &payload.bytes);
            let decoded = match &self.node {
                Some(node) => within(node, read),
                None => read(),
            };
            decoded.map_err(|error| AskError::BadReply { reason: error.to_string() })
        };
        self.exchange(encode, M::describe().reply_fingerprint, deadline, decode).await
    }

    async fn tell<M: Message>(&self, message: M) -> Result<(), TellError<M>> {
        let to = self.addr.clone();
        let mut again = true;
        loop {
            let lane = match self.lane().await {
                Ok(lane) => lane,
                Err(AskError::Stopped { to }) => return Err(TellError::Stopped { to, message }),
                Err(error) => {
                    let reason = error.to_string();
                    return Err(TellError::Unreachable { to, reason, message });
                }
            };
            let payload = match encode_for(&lane, &message) {
                Ok(payload) => payload,
                Err(error) => {
                    let reason = error.to_string();
                    return Err(TellError::Unsendable { to, reason, message });
                }
            };
            match lane.tell(payload).await {
                Ok(()) => return Ok(()),
                Err(_) if again => again = false,
                Err(_) => {
                    let reason = "the link ended".to_owned();
                    return Err(TellError::Unreachable { to, reason, message });
                }
            }
        }
    }

    fn try_tell<M: Message>(&self, message: M) -> Result<(), TellError<M>> {
        let to = self.addr.clone();
        let lane = self.lane.load_full().filter(|lane| !lane.link().is_closed());
        let Some(lane) = lane else { return Err(TellError::Full { to, message }) };
        match encode_for(&lane, &message).map(|payload| lane.try_tell(payload)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(LaneError::Full(_) | LaneError::Closed(_))) => {
                Err(TellError::Full { to, message })
            }
            Err(error) => Err(TellError::Unsendable { to, reason: error.to_string(), message }),
        }
    }
}

/// bincode where the peer knows the very structure of the type, JSON otherwise.
fn encode_for<M: Message>(lane: &Lane, message: &M) -> Result<Payload, payload::CodecError> {
    let known = lane.link().knows(M::describe().fingerprint);
    let encoding = if known { Encoding::Bincode } else { Encoding::Json };
    Ok(Payload { tag: M::TAG, encoding, bytes: payload::encode(encoding, message)? })
}

impl<T: ?Sized> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self { target: self.target.clone(), takes: PhantomData }
    }
}

impl<T: ?Sized> Address<T> {
    /// What two addresses of the same actor have in common.
    fn key(&self) -> (layercake_wire::id::PeerId, u64) {
        match &self.target {
            Target::Here(inlet) => (inlet.node().peer(), inlet.serial()),
            Target::There(remote) => (remote.addr.node.peer, remote.addr.serial),
        }
    }
}

impl<T: ?Sized> PartialEq for Address<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T: ?Sized> Eq for Address<T> {}

impl<T: ?Sized> Hash for Address<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for Address<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, serial) = self.key();
        write!(f, "Address({peer}.{serial})")
    }
}

impl<T: ?Sized> Serialize for Address<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id().serialize(serializer)
    }
}

impl<'de, T: ?Sized> Deserialize<'de> for Address<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let addr = ActorAddr::deserialize(deserializer)?;
        Ok(current_node(|node| Self::bound(addr, node)))
    }
}

impl<T: ?Sized> JsonSchema for Address<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "The address of an actor.",
        })
    }
}
