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

use futures_util::FutureExt;
use layercake_wire::{
    AskFailure, Failure, FailureCode, InboundKind, Responder,
    id::{ActorAddr, PeerId},
    payload::{self, Encoding, Fingerprint, Payload},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use crate::{
    actor::Accepts,
    clock,
    dead::Why,
    error::{AskError, TellError},
    here,
    mailbox::{Inlet, Offered, path, room},
    message::{Message, name_of},
    node::Node,
    packet::{Back, Packet, Parcel, Unanswered},
    pool::scheduler::Distance,
    remote::Remote,
    slot::{Answer, slot},
    stream::EncodedReplies,
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

/// Until when an ask waits that is given so long: no longer than the message at hand may take.
pub(crate) fn deadline_in(limit: Duration) -> Instant {
    let own = clock::after(limit);
    here::deadline().map_or(own, |callers| callers.min(own))
}

impl<T: ?Sized> Address<T> {
    pub(crate) fn here(inlet: Arc<dyn Inlet>) -> Self {
        Self { target: Target::Here(inlet), takes: PhantomData }
    }

    /// An address within a node: its own actors are found in its table, others over a link, or by way
    /// of the node that the address came from.
    pub(crate) fn bound(addr: ActorAddr, node: Option<&Node>, via: Option<PeerId>) -> Self {
        if let Some(node) = node
            && addr.node.peer == node.peer()
            && let Some(inlet) = node.find(addr.serial)
        {
            return Self::here(inlet);
        }
        let remote = Remote::new(addr, node.cloned(), via);
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

    /// The node that it lives in.
    pub(crate) fn peer(&self) -> PeerId {
        match &self.target {
            Target::Here(inlet) => inlet.node().peer(),
            Target::There(remote) => remote.addr.node.peer,
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

    /// How far away the actor is, and a number that is the same wherever it is asked for.
    pub(crate) fn whereabouts(&self) -> (Distance, u64) {
        let (peer, serial) = self.key();
        let identity = peer.node.to_bits() ^ serial.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let distance = match &self.target {
            Target::Here(_) => Distance::Process,
            Target::There(remote) => match &remote.node {
                Some(node) if node.peer().host == peer.host => Distance::Host,
                _ => Distance::Lan,
            },
        };
        (distance, identity)
    }

    pub(crate) fn remote(&self) -> Option<&Arc<Remote>> {
        match &self.target {
            Target::Here(_) => None,
            Target::There(remote) => Some(remote),
        }
    }

    /// Where the actor is in the tree of its node, for logs: `7f3a/Manager.12/Worker.13`; of one that
    /// lives elsewhere the host, the node and the number.
    #[must_use]
    pub fn path(&self) -> String {
        match &self.target {
            Target::Here(inlet) => path(&**inlet),
            Target::There(remote) => remote.addr.to_string(),
        }
    }

    /// Sends a message and waits for its reply, for at most [`ASK_DEADLINE`]; inside of a handler for
    /// no longer than the one who waits for that handler.
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
        self.ask_by(message, deadline_in(ASK_DEADLINE)).await
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
        self.ask_by(message, deadline_in(limit)).await
    }

    /// As [`ask`](Self::ask), until a point in time, whatever the deadline of a message at hand.
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
        const { assert!(!M::STREAM, "this message is answered in parts: use `stream`") };
        match &self.target {
            Target::Here(inlet) => {
                ask_here(inlet, message, deadline).await.map_err(|(error, _)| error)
            }
            Target::There(remote) => {
                // Boxed: its size would be carried by asks within the process, too.
                Box::pin(remote.ask(message, deadline)).await.map_err(|(error, _)| error)
            }
        }
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
                remote.ask(message, deadline).await.map_err(|(error, back)| (error, Some(back)))
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
        let inlet = match &self.target {
            Target::Here(inlet) => inlet,
            Target::There(remote) => return remote.tell(message).await,
        };
        let mut packet = Some(Packet::tell(message));
        let mut offered = match inlet.offer(&mut packet, false) {
            Offered::Full => match room(inlet).await {
                Ok(()) => inlet.offer(&mut packet, true),
                Err(()) => Offered::Stopped,
            },
            other => other,
        };
        if let Offered::NotHandled = offered
            && inlet.takes_unknown()
        {
            match room(inlet).await {
                Ok(()) => return told_unknown(inlet, packet),
                Err(()) => offered = Offered::Stopped,
            }
        }
        told(inlet, offered, packet)
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
            Target::Here(inlet) => {
                let mut packet = Some(Packet::tell(message));
                let mut offered = inlet.offer(&mut packet, false);
                if let Offered::NotHandled = offered
                    && inlet.takes_unknown()
                {
                    offered = match room(inlet).now_or_never() {
                        Some(Ok(())) => return told_unknown(inlet, packet),
                        Some(Err(())) => Offered::Stopped,
                        None => Offered::Full,
                    };
                }
                told(inlet, offered, packet)
            }
            Target::There(remote) => remote.try_tell(message),
        }
    }

    /// Sends an encoded message and waits for its encoded reply.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
    pub fn ask_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> impl Future<Output = Result<Payload, AskError>> + Send {
        async move {
            match &self.target {
                Target::Here(inlet) => ask_encoded_here(inlet, payload, accept, deadline).await,
                Target::There(remote) => remote.ask_encoded(payload, accept, deadline).await,
            }
        }
    }

    /// Sends an encoded message that is answered in parts, each of them encoded. Ready when it is on its
    /// way.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub async fn stream_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<EncodedReplies, AskError> {
        let parts = match &self.target {
            Target::Here(inlet) => {
                match tokio::time::timeout_at(deadline.into(), room(inlet)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(())) => return Err(AskError::Stopped { to: self.id() }),
                    Err(_) => return Err(AskError::Deadline),
                }
                let (responder, parts) = Responder::local_stream(accept, deadline);
                let responder = responder.traced(here::trace());
                inlet.deliver(Parcel::new(payload, InboundKind::Ask(responder), None), true);
                parts
            }
            Target::There(remote) => remote.stream_encoded(payload, accept, deadline).await?,
        };
        Ok(EncodedReplies::new(parts, self.any()))
    }

    /// Sends an encoded message that is not answered; waits for room.
    pub(crate) async fn tell_encoded(&self, payload: Payload) -> Result<(), AskError> {
        match &self.target {
            Target::Here(inlet) => {
                if room(inlet).await.is_err() {
                    return Err(AskError::Stopped { to: self.id() });
                }
                inlet.deliver(Parcel::new(payload, InboundKind::Tell(None), None), true);
                Ok(())
            }
            Target::There(remote) => match remote.tell_encoded(payload).await {
                Ok(()) => Ok(()),
                Err(TellError::Stopped { to, .. }) => Err(AskError::Stopped { to }),
                Err(error) => {
                    Err(AskError::Unreachable { to: self.id(), reason: error.to_string() })
                }
            },
        }
    }

    /// Gives a message, with the way back to whoever asked it, to this actor.
    pub(crate) async fn hand_on<M: Message>(&self, message: M, back: Back<M::Reply>)
    where
        T: Accepts<M>,
    {
        match &self.target {
            Target::Here(inlet) => {
                let mut packet = Some(Packet::new(message, back));
                let offered = match inlet.offer(&mut packet, false) {
                    Offered::Full if room(inlet).await.is_ok() => inlet.offer(&mut packet, true),
                    other => other,
                };
                if matches!(offered, Offered::NotHandled)
                    && inlet.takes_unknown()
                    && let Some((message, back)) = packet.take().and_then(Packet::take)
                {
                    return hand_on_unknown(inlet, message, back).await;
                }
                // On behalf of the node, for the task may work for none.
                here::within(inlet.node(), || match (offered, packet) {
                    (Offered::NotHandled, Some(packet)) => {
                        packet.refuse(Failure::new(FailureCode::NotHandled, M::NAME));
                    }
                    // Where it was not taken this says `Stopped`.
                    (_, packet) => drop(packet),
                });
            }
            Target::There(remote) => match back.into_reply() {
                None => {
                    if let Err(error) = remote.tell(message).await {
                        let why = Why::NotForwarded(error.to_string());
                        remote.dead_letter(M::TAG, Some(M::NAME), why);
                    }
                }
                Some((reply, deadline)) => {
                    let remote = remote.clone();
                    // The one who hands on does not wait for the answer.
                    tokio::spawn(async move {
                        let answer = tokio::select! {
                            answer = remote.ask(message, deadline) => answer,
                            () = reply.unwanted() => return,
                        };
                        reply.settle(answer.map_err(|(error, _)| error));
                    });
                }
            },
        }
    }

    /// As [`hand_on`](Self::hand_on), for an encoded one.
    pub(crate) async fn hand_on_encoded(
        &self,
        payload: Payload,
        kind: InboundKind,
        from: Option<PeerId>,
    ) {
        match (&self.target, kind) {
            (Target::Here(inlet), kind) => {
                let parcel = Parcel::new(payload, kind, from);
                match room(inlet).await {
                    Ok(()) => inlet.deliver(parcel, true),
                    // Which says that it has stopped.
                    Err(()) => here::within(inlet.node(), || drop(parcel)),
                }
            }
            (Target::There(remote), InboundKind::Tell(_credit)) => {
                let tag = payload.tag;
                if let Err(error) = remote.tell_encoded(payload).await {
                    let why = Why::NotForwarded(error.to_string());
                    remote.dead_letter(tag, name_of(tag), why);
                }
            }
            (Target::There(remote), InboundKind::Ask(responder)) => {
                let remote = remote.clone();
                tokio::spawn(async move {
                    let (accept, deadline) = (responder.accept(), responder.deadline());
                    let answer = tokio::select! {
                        answer = remote.ask_encoded(payload, accept, deadline) => answer,
                        () = responder.cancelled() => return,
                    };
                    match answer {
                        Ok(payload) => responder.reply(payload),
                        Err(error) => responder.fail(error.into_failure()),
                    }
                });
            }
        }
    }
}

/// What has become of a tell that was offered to a mailbox of this process.
fn told<M: Message>(
    inlet: &Arc<dyn Inlet>,
    offered: Offered,
    packet: Option<Packet<M>>,
) -> Result<(), TellError<M>> {
    let to = || AnyAddress::here(inlet.clone()).id();
    let Some(message) = packet.and_then(Packet::into_message) else { return Ok(()) };
    match offered {
        Offered::Taken => Ok(()),
        Offered::Full => Err(TellError::Full { to: to(), message }),
        Offered::Stopped => Err(TellError::Stopped { to: to(), message }),
        Offered::NotHandled => {
            let reason = format!("it does not handle `{}`", M::NAME);
            Err(TellError::Unsendable { to: to(), reason, message })
        }
    }
}

/// Tells an actor that takes what it does not know, in room that was granted.
fn told_unknown<M: Message>(
    inlet: &Arc<dyn Inlet>,
    packet: Option<Packet<M>>,
) -> Result<(), TellError<M>> {
    let Some(message) = packet.and_then(Packet::into_message) else { return Ok(()) };
    match encode_unknown(&message) {
        Ok(payload) => {
            inlet.deliver(Parcel::new(payload, InboundKind::Tell(None), None), true);
            Ok(())
        }
        Err(error) => {
            inlet.give_room_back();
            let to = AnyAddress::here(inlet.clone()).id();
            Err(TellError::Unsendable { to, reason: error.to_string(), message })
        }
    }
}

async fn ask_here<M: Message>(
    inlet: &Arc<dyn Inlet>,
    message: M,
    deadline: Instant,
) -> Result<M::Reply, (AskError, Option<M>)> {
    let to = || AnyAddress::here(inlet.clone()).id();
    let deadlines = inlet.node().deadlines();
    let (answering, waiting) = slot(deadline, deadlines);
    let mut packet = Some(Packet::new(message, Back::Here(answering)));
    let mut offered = inlet.offer(&mut packet, false);
    if let Offered::Full = offered {
        // What is seldom is boxed here: its size would be carried by each ask.
        match Box::pin(tokio::time::timeout_at(deadline.into(), room(inlet))).await {
            Ok(Ok(())) => offered = inlet.offer(&mut packet, true),
            Ok(Err(())) => offered = Offered::Stopped,
            Err(_) => return Err((AskError::Deadline, packet.and_then(Packet::into_message))),
        }
    }
    match offered {
        Offered::Taken => {}
        Offered::NotHandled if inlet.takes_unknown() => {
            let Some(message) = packet.and_then(Packet::into_message) else {
                return Err((AskError::NoReply, None));
            };
            let asked = Box::pin(ask_unknown::<M>(inlet, encode_unknown(&message), deadline)).await;
            return asked.map_err(|error| (error, Some(message)));
        }
        Offered::NotHandled => {
            let error = AskError::NotHandled { to: to(), message: M::NAME.to_owned() };
            return Err((error, packet.and_then(Packet::into_message)));
        }
        Offered::Stopped | Offered::Full => {
            return Err((AskError::Stopped { to: to() }, packet.and_then(Packet::into_message)));
        }
    }
    Answer { waiting, deadlines }.await.map_err(|Unanswered { failure, message }| {
        let message = message.and_then(|message| message.downcast().ok()).map(|message| *message);
        (AskError::from_failure(to, failure), message)
    })
}

/// A message for an actor that takes what it does not know.
fn encode_unknown<M: Message>(message: &M) -> Result<Payload, payload::CodecError> {
    let bytes = payload::encode(Encoding::Json, message)?;
    Ok(Payload { tag: M::TAG, encoding: Encoding::Json, bytes })
}

/// Asks an actor that takes what it does not know.
async fn ask_unknown<M: Message>(
    inlet: &Arc<dyn Inlet>,
    payload: Result<Payload, payload::CodecError>,
    deadline: Instant,
) -> Result<M::Reply, AskError> {
    let payload = payload.map_err(|error| AskError::Unsendable { reason: error.to_string() })?;
    let accept = M::describe().reply_fingerprint;
    let reply = ask_encoded_here(inlet, payload, accept, deadline).await?;
    // Addresses in it belong to this node, whoever asks.
    here::within(inlet.node(), || reply.decode())
        .map_err(|error| AskError::BadReply { reason: error.to_string() })
}

/// Gives a message with the way back to an actor that takes what it does not know.
async fn hand_on_unknown<M: Message>(inlet: &Arc<dyn Inlet>, message: M, back: Back<M::Reply>) {
    match back.into_reply() {
        None => {
            let told = match room(inlet).await {
                Ok(()) => told_unknown(inlet, Some(Packet::tell(message))),
                Err(()) => {
                    Err(TellError::Stopped { to: AnyAddress::here(inlet.clone()).id(), message })
                }
            };
            if let Err(error) = told {
                let why = Why::NotForwarded(error.to_string());
                inlet.node().dead_letter(M::TAG, Some(M::NAME), why);
            }
        }
        Some((reply, deadline)) => {
            let (inlet, payload) = (inlet.clone(), encode_unknown(&message));
            // The one who hands on does not wait for the answer.
            tokio::spawn(async move {
                let answer = tokio::select! {
                    answer = ask_unknown::<M>(&inlet, payload, deadline) => answer,
                    () = reply.unwanted() => return,
                };
                reply.settle(answer);
            });
        }
    }
}

#[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
fn ask_encoded_here(
    inlet: &Arc<dyn Inlet>,
    payload: Payload,
    accept: Fingerprint,
    deadline: Instant,
) -> impl Future<Output = Result<Payload, AskError>> + Send {
    async move {
        let to = || AnyAddress::here(inlet.clone()).id();
        match tokio::time::timeout_at(deadline.into(), room(inlet)).await {
            Ok(Ok(())) => {}
            Ok(Err(())) => return Err(AskError::Stopped { to: to() }),
            Err(_) => return Err(AskError::Deadline),
        }
        let (slot, answer) = oneshot::channel();
        let kind = InboundKind::Ask(Responder::local(slot, accept, deadline).traced(here::trace()));
        inlet.deliver(Parcel::new(payload, kind, None), true);
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer
                .unwrap_or(Err(AskFailure::Lost("the actor has ended".to_owned())))
                .map_err(|failure| from_ask_failure(to, failure)),
            Err(_) => Err(AskError::Deadline),
        }
    }
}

pub(crate) fn from_ask_failure(to: impl FnOnce() -> ActorAddr, failure: AskFailure) -> AskError {
    match failure {
        AskFailure::Failed(failure) => AskError::from_failure(to, failure),
        AskFailure::Deadline => AskError::Deadline,
        AskFailure::Lost(reason) => AskError::Lost { to: to(), reason },
        AskFailure::Unbegun(reason) => AskError::Unreachable { to: to(), reason },
    }
}

impl<T: ?Sized> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self { target: self.target.clone(), takes: PhantomData }
    }
}

impl<T: ?Sized> Address<T> {
    /// What two addresses of the same actor have in common.
    fn key(&self) -> (PeerId, u64) {
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
        Ok(here::node(|node| Self::bound(addr, node, here::via())))
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
