//! Messages with the means to answer them, typed ([`Packet`]) and encoded ([`Parcel`]).
//!
//! # What always holds
//! - Every ask is answered once: by [`Reply::send`], or by what its `Drop` says (`Stopped` where no
//!   handler had begun, `Panicked` while unwinding, `NoReply` otherwise).
//! - A handler does not begin a message that nobody waits for any more.

use std::{any::Any, future::poll_fn, sync::Arc, task::Context, time::Instant};

use layercake_wire::{
    CreditReturn, Failure, FailureCode, Inbound, InboundKind, Responder,
    id::PeerId,
    payload::{self, Encoding, Payload, Tag},
    trace::Trace,
};

use crate::{
    address::Address,
    dead::Why,
    error::AskError,
    here,
    message::{Data, Message, name_of},
    slot::Answering,
    stream::PartSender,
};

/// Why an ask within this process was not answered; with the message where no handler began it, so
/// that a pool can give it to another worker.
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    pub(crate) message: Option<Box<dyn Any + Send>>,
}

/// Where an answer goes.
pub(crate) enum Back<R> {
    /// A tell: nobody waits. Its credit goes back when it has been handled.
    Nobody { _credit: Option<CreditReturn> },
    /// An ask within this process.
    Here(Answering<R>),
    /// An ask for parts within this process.
    Stream { sender: PartSender<R>, deadline: Instant, trace: Option<Arc<Trace>> },
    /// An ask that came encoded.
    Away { responder: Responder, fingerprint: payload::Fingerprint, tag: Tag },
}

impl<R: Data> Back<R> {
    pub(crate) fn is_wanted(&self) -> bool {
        match self {
            Self::Nobody { .. } => true,
            Self::Here(slot) => slot.is_wanted(),
            Self::Stream { sender, deadline, .. } => {
                !sender.is_closed() && *deadline > crate::clock::now()
            }
            Self::Away { responder, .. } => {
                responder.is_wanted() && responder.deadline() > crate::clock::now()
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Nobody { .. } => None,
            Self::Here(slot) => Some(slot.deadline()),
            Self::Stream { deadline, .. } => Some(*deadline),
            Self::Away { responder, .. } => Some(responder.deadline()),
        }
    }

    pub(crate) fn trace(&self) -> Option<&Arc<Trace>> {
        match self {
            Self::Nobody { .. } => None,
            Self::Here(slot) => slot.trace(),
            Self::Stream { trace, .. } => trace.as_ref(),
            Self::Away { responder, .. } => responder.trace(),
        }
    }

    /// The slot and its deadline, where somebody waits.
    pub(crate) fn into_reply(self) -> Option<(Reply<R>, Instant)> {
        let deadline = self.deadline()?;
        Some((Reply(Some(self)), deadline))
    }

    pub(crate) fn fail(
        self,
        code: FailureCode,
        detail: &str,
        message: Option<Box<dyn Any + Send>>,
    ) {
        match self {
            Self::Nobody { .. } => {}
            Self::Here(slot) => {
                slot.send(Err(Unanswered { failure: Failure::new(code, detail), message }));
            }
            Self::Stream { sender, .. } => {
                // Nothing was sent before, so there is room.
                let _ = sender
                    .try_send(Err(Unanswered { failure: Failure::new(code, detail), message }));
            }
            Self::Away { responder, .. } => responder.fail(Failure::new(code, detail)),
        }
    }
}

/// A message with what is needed to answer it.
pub struct Packet<M: Message>(Option<(M, Back<M::Reply>)>);

impl<M: Message> Packet<M> {
    pub(crate) fn new(message: M, back: Back<M::Reply>) -> Self {
        Self(Some((message, back)))
    }

    pub(crate) fn tell(message: M) -> Self {
        Self::new(message, Back::Nobody { _credit: None })
    }

    /// The trace that the message is part of.
    pub(crate) fn trace(&self) -> Option<Arc<Trace>> {
        self.0.as_ref().and_then(|(_, back)| back.trace()).cloned()
    }

    /// The message and its answer slot; `None` when nobody waits any more, because the asker has gone
    /// or the deadline has passed.
    #[must_use]
    pub fn into_parts(mut self) -> Option<(M, Reply<M::Reply>)> {
        let (message, back) = self.0.take()?;
        if back.is_wanted() {
            return Some((message, Reply(Some(back))));
        }
        back.fail(FailureCode::Deadline, "", None);
        None
    }

    /// The message that nobody has begun, put together again from its parts.
    #[must_use]
    pub fn from_parts(message: M, mut reply: Reply<M::Reply>) -> Self {
        Self(reply.0.take().map(|back| (message, back)))
    }

    /// As [`into_parts`](Self::into_parts), for a handler: what it asks from here on ends by this
    /// message's deadline.
    #[doc(hidden)]
    #[must_use]
    pub fn begin(self) -> Option<(M, Reply<M::Reply>)> {
        let parts = self.into_parts()?;
        here::begin(parts.1.deadline(), parts.1.trace());
        Some(parts)
    }

    /// Ends it, not begun, with a reason for the asker.
    pub(crate) fn refuse(mut self, failure: Failure) {
        match self.0.take() {
            Some((_, Back::Nobody { .. })) => here::node(|node| {
                if let Some(node) = node {
                    node.dead_letter(M::TAG, Some(M::NAME), Why::Refused(failure.detail));
                }
            }),
            Some((message, Back::Here(slot))) => {
                slot.send(Err(Unanswered { failure, message: Some(Box::new(message)) }));
            }
            Some((_, Back::Away { responder, .. })) => responder.fail(failure),
            Some((_, Back::Stream { sender, .. })) => {
                let _ = sender.try_send(Err(Unanswered { failure, message: None }));
            }
            None => {}
        }
    }

    /// The message, when it was not accepted.
    pub(crate) fn into_message(mut self) -> Option<M> {
        self.0.take().map(|(message, _)| message)
    }

    /// The message and the way back, when it was not accepted.
    pub(crate) fn take(mut self) -> Option<(M, Back<M::Reply>)> {
        self.0.take()
    }
}

impl<M: Message> Drop for Packet<M> {
    fn drop(&mut self) {
        if let Some((message, back)) = self.0.take() {
            if let Back::Nobody { .. } = back {
                here::node(|node| {
                    if let Some(node) = node {
                        node.dead_letter(M::TAG, Some(M::NAME), Why::Stopped);
                    }
                });
            }
            back.fail(FailureCode::Stopped, "", Some(Box::new(message)));
        }
    }
}

/// The answer slot of a message: used once, also later and by somebody else than the handler.
///
/// A handler that takes it as its last argument answers when it likes: it may keep it, hand it to a
/// task, or [`forward`](Self::forward) the question. Dropped unused it tells the asker that there is no
/// reply.
pub struct Reply<R: Data>(Option<Back<R>>);

impl<R: Data> Reply<R> {
    /// Answers. Where nobody waits any more the answer is dropped.
    pub fn send(mut self, answer: R) {
        match self.0.take() {
            Some(Back::Here(slot)) => slot.send(Ok(answer)),
            Some(Back::Away { responder, fingerprint, tag }) => {
                match encode_reply(responder.accept(), fingerprint, &answer) {
                    Ok((encoding, bytes)) => responder.reply(Payload { tag, encoding, bytes }),
                    Err(error) => {
                        responder.fail(Failure::new(FailureCode::BadReply, error.to_string()));
                    }
                }
            }
            // A reply in one part.
            Some(Back::Stream { sender, .. }) => {
                let _ = sender.try_send(Ok(answer));
            }
            Some(Back::Nobody { .. }) | None => {}
        }
    }

    /// Answers with what somebody else has answered, be it a reply or an error.
    pub fn settle(mut self, answer: Result<R, AskError>) {
        match answer {
            Ok(answer) => self.send(answer),
            Err(error) => match self.0.take() {
                Some(Back::Here(slot)) => {
                    let (failure, message) = (error.into_failure(), None);
                    slot.send(Err(Unanswered { failure, message }));
                }
                Some(Back::Away { responder, .. }) => responder.fail(error.into_failure()),
                Some(Back::Stream { sender, .. }) => {
                    let (failure, message) = (error.into_failure(), None);
                    let _ = sender.try_send(Err(Unanswered { failure, message }));
                }
                Some(Back::Nobody { .. }) | None => {}
            },
        }
    }

    /// Says that there will be no answer, and why.
    pub fn fail(mut self, reason: &str) {
        if let Some(back) = self.0.take() {
            back.fail(FailureCode::NoReply, reason, None);
        }
    }

    /// Hands the question on, as another message with the same reply: whoever it goes to answers the
    /// one who asked, within the same deadline. Waits for room in the other's mailbox; what becomes of
    /// it is told to the asker alone.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the asker is told that there is no reply.
    pub async fn forward<T, M>(mut self, to: &Address<T>, message: M)
    where
        T: crate::actor::Accepts<M> + ?Sized,
        M: Message<Reply = R>,
    {
        if let Some(back) = self.0.take() {
            to.hand_on(message, back).await;
        }
    }

    /// Whether somebody still waits for the answer; of use to handlers that take long.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.as_ref().is_some_and(Back::is_wanted)
    }

    /// When nobody waits any more; `None` for a message that was told.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(Back::deadline)
    }

    /// The trace that the message is part of.
    pub(crate) fn trace(&self) -> Option<Arc<Trace>> {
        self.0.as_ref().and_then(Back::trace).cloned()
    }

    /// Becomes ready when nobody waits for the answer any more: the asker has gone, or its deadline
    /// has passed. For a message that was told, never.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn unwanted(&self) {
        match &self.0 {
            Some(Back::Here(slot)) => poll_fn(|cx: &mut Context<'_>| slot.poll_unwanted(cx)).await,
            Some(Back::Away { responder, .. }) => responder.cancelled().await,
            Some(Back::Stream { sender, .. }) => sender.closed().await,
            Some(Back::Nobody { .. }) => std::future::pending().await,
            None => {}
        }
    }
}

/// bincode where the asker knows the very structure of the reply; else what describes itself, for who asks
/// for no more than that as JSON alone.
pub(crate) fn encode_reply<R: Data>(
    accept: payload::Fingerprint,
    fingerprint: payload::Fingerprint,
    answer: &R,
) -> Result<(Encoding, bytes::Bytes), payload::CodecError> {
    // A type that only travels as JSON has no fingerprint.
    let known = fingerprint != payload::Fingerprint::NONE;
    match accept {
        accept if known && accept == fingerprint => {
            Ok((Encoding::Bincode, payload::encode(Encoding::Bincode, answer)?))
        }
        payload::Fingerprint::NONE => {
            Ok((Encoding::Json, payload::encode(Encoding::Json, answer)?))
        }
        _ => payload::describe(answer),
    }
}

impl<R: Data> Drop for Reply<R> {
    fn drop(&mut self) {
        if let Some(back) = self.0.take() {
            if std::thread::panicking() {
                back.fail(FailureCode::Panicked, "the handler panicked", None);
            } else if back.deadline().is_some_and(|at| at <= crate::clock::now()) {
                // That nobody waits any more is why there is no reply.
                back.fail(FailureCode::Deadline, "", None);
            } else {
                back.fail(FailureCode::NoReply, "the handler gave no reply", None);
            }
        }
    }
}

/// An encoded message that came over a link or from a pool.
pub struct Parcel {
    inner: Option<(Payload, InboundKind)>,
    from: Option<PeerId>,
}

impl Parcel {
    pub(crate) fn new(payload: Payload, kind: InboundKind, from: Option<PeerId>) -> Self {
        Self { inner: Some((payload, kind)), from }
    }

    pub(crate) fn inbound(inbound: Inbound) -> Self {
        Self::new(inbound.payload, inbound.kind, Some(inbound.from))
    }

    /// Which message it is.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.inner.as_ref().map_or(Tag(0), |(payload, _)| payload.tag)
    }

    /// Decodes it. A payload that is no such message is answered with what is wrong with it.
    #[must_use]
    pub fn unpack<M: Message>(mut self) -> Option<Packet<M>> {
        let (payload, kind) = self.inner.take()?;
        let decoded: Result<M, _> = here::from_node(self.from, || payload.decode());
        match (decoded, kind) {
            (Ok(message), InboundKind::Tell(credit)) => {
                Some(Packet::new(message, Back::Nobody { _credit: credit }))
            }
            (Ok(message), InboundKind::Ask(responder)) => {
                let (fingerprint, tag) = (M::describe().reply_fingerprint, payload.tag);
                Some(Packet::new(message, Back::Away { responder, fingerprint, tag }))
            }
            (Err(error), kind) => {
                let detail = format!("`{}`: {error}", M::NAME);
                Self::new(payload, kind, self.from).end(FailureCode::Malformed, &detail);
                None
            }
        }
    }

    /// Ends it: the actor has no handler for it.
    pub fn refuse(self) {
        let detail = match name_of(self.tag()) {
            Some(name) => name.to_owned(),
            None => format!("{:016x}", self.tag().0),
        };
        self.end(FailureCode::NotHandled, &detail);
    }

    /// Takes it as it is, whatever it is.
    #[must_use]
    pub fn into_unknown(self) -> Unknown {
        Unknown(self)
    }

    /// Ends it with a reason.
    pub(crate) fn end(mut self, code: FailureCode, detail: &str) {
        self.finish(code, detail);
    }

    fn finish(&mut self, code: FailureCode, detail: &str) {
        match self.inner.take() {
            Some((payload, InboundKind::Tell(_))) => here::node(|node| {
                if let Some(node) = node {
                    let why = match code {
                        FailureCode::NotHandled => Why::NotHandled,
                        FailureCode::Malformed => Why::Malformed(detail.to_owned()),
                        _ => Why::Stopped,
                    };
                    node.dead_letter(payload.tag, name_of(payload.tag), why);
                }
            }),
            Some((_, InboundKind::Ask(responder))) => responder.fail(Failure::new(code, detail)),
            None => {}
        }
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.finish(FailureCode::Stopped, "the actor has stopped");
    }
}

/// A message of a type that the receiver does not know: it can be looked at, logged and handed on.
///
/// An actor with a handler `async fn unknown(&mut self, message: Unknown)` is given all that it has no
/// other handler for. Dropped, an ask is answered with "no reply".
pub struct Unknown(Parcel);

impl Unknown {
    /// Makes it a message that nobody has begun.
    #[doc(hidden)]
    #[must_use]
    pub fn into_parcel(mut self) -> Parcel {
        Parcel { inner: self.0.inner.take(), from: self.0.from }
    }

    /// The message as it came, and the way back.
    pub(crate) fn into_inner(mut self) -> Option<(Payload, InboundKind)> {
        self.0.inner.take()
    }

    /// The name of the message in eight bytes.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.0.tag()
    }

    /// The name of the message, where this program has a type of that name.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        name_of(self.tag())
    }

    /// The node that it came from; `None` for one of this process.
    #[must_use]
    pub fn from(&self) -> Option<PeerId> {
        self.0.from
    }

    /// Whether somebody waits for an answer.
    #[must_use]
    pub fn is_ask(&self) -> bool {
        matches!(self.0.inner, Some((_, InboundKind::Ask(_))))
    }

    /// The message as it came.
    #[must_use]
    pub fn payload(&self) -> Option<&Payload> {
        self.0.inner.as_ref().map(|(payload, _)| payload)
    }

    /// The message as JSON, where it came self-describing: always from a node that cannot know that
    /// this one has the type.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        let payload = self.payload().filter(|payload| payload.encoding == Encoding::Json)?;
        payload::decode(Encoding::Json, &payload.bytes).ok()
    }

    /// The message as one of a type that this program has after all; `None` where it is none, and
    /// whoever asked is told so.
    #[must_use]
    pub fn unpack<M: Message>(self) -> Option<Packet<M>> {
        let mut this = self;
        let (payload, kind) = this.0.inner.take()?;
        let parcel = Parcel::new(payload, kind, this.0.from);
        if parcel.tag() == M::TAG {
            return parcel.unpack();
        }
        parcel.refuse();
        None
    }

    /// Hands it on as it is: whoever it goes to answers the one who asked, within the same deadline.
    /// Waits for room; what becomes of it is told to the asker, or counted as a dead letter.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the asker is told that there is no reply.
    pub async fn forward<T: ?Sized>(mut self, to: &Address<T>) {
        if let Some((payload, kind)) = self.0.inner.take() {
            to.hand_on_encoded(payload, kind, self.0.from).await;
        }
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        // It was handled, if only by being dropped: no dead letter, and no answer.
        match self.0.inner.take() {
            Some((_, InboundKind::Ask(responder))) => {
                responder.fail(Failure::new(FailureCode::NoReply, "the handler gave no reply"));
            }
            Some((_, InboundKind::Tell(_))) | None => {}
        }
    }
}

/// Handles until it is done, or nobody waits for the answer any more. What a handler marked `#[cancel]` is
/// called by.
#[doc(hidden)]
pub async fn while_wanted<R: Data, F: Future>(reply: &Reply<R>, handler: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        done = handler => Some(done),
        () = reply.unwanted() => None,
    }
}
