//! Messages with the means to answer them, typed ([`Packet`]) and encoded ([`Parcel`]).
//!
//! # What always holds
//! - Every ask is answered once: by [`Reply::send`], or by what its `Drop` says (`Stopped` where no
//!   handler had begun, `Panicked` while unwinding, `NoReply` otherwise).
//! - A handler does not begin a message that nobody waits for any more.

use std::{any::Any, time::Instant};

use layercake_wire::{
    CreditReturn, Failure, FailureCode, Inbound, InboundKind, Responder,
    payload::{self, Encoding, Payload, Tag},
};
use tokio::sync::oneshot;

use crate::{
    error::AskError,
    message::{Data, Message},
    node::{Node, current_node, within},
};

impl AskError {
    /// What a failure means to the one who asked.
    pub(crate) fn from_failure(
        to: impl FnOnce() -> layercake_wire::id::ActorAddr,
        failure: Failure,
    ) -> Self {
        let Failure { code, retry_after_ms, detail } = failure;
        let retry_after = std::time::Duration::from_millis(retry_after_ms.into());
        match code {
            FailureCode::Stopped => Self::Stopped { to: to() },
            FailureCode::NotHandled => Self::NotHandled { to: to(), message: detail },
            FailureCode::Malformed => Self::Malformed { reason: detail },
            FailureCode::Panicked => Self::Panicked,
            FailureCode::NoReply => Self::NoReply,
            FailureCode::Deadline => Self::Deadline,
            FailureCode::Busy => Self::Busy { mean: retry_after, retry_after },
            FailureCode::Overloaded => {
                Self::Overloaded { pending: detail.parse().unwrap_or(0), retry_after }
            }
            FailureCode::Unavailable => Self::Unavailable,
            FailureCode::BadReply => Self::BadReply { reason: detail },
            // A kind of a later version: nothing may be promised.
            _ => Self::Lost { to: to(), reason: detail },
        }
    }
}

/// Why an ask within this process was not answered; with the message where no handler began it, so
/// that a pool can give it to another worker.
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    pub(crate) message: Option<Box<dyn Any + Send>>,
}

type HereSlot<R> = oneshot::Sender<Result<R, Unanswered>>;

/// Where an answer goes.
enum Slot<R> {
    /// A tell: nobody waits. Its credit goes back when it has been handled.
    Nobody { _credit: Option<CreditReturn> },
    /// An ask within this process.
    Here { slot: HereSlot<R>, deadline: Instant },
    /// An ask that came encoded.
    Away { responder: Responder, fingerprint: payload::Fingerprint, tag: Tag },
}

impl<R: Data> Slot<R> {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Nobody { .. } => true,
            Self::Here { slot, deadline } => !slot.is_closed() && *deadline > Instant::now(),
            Self::Away { responder, .. } => {
                responder.is_wanted() && responder.deadline() > Instant::now()
            }
        }
    }

    fn fail(self, code: FailureCode, detail: &str, message: Option<Box<dyn Any + Send>>) {
        match self {
            Self::Nobody { .. } => {}
            Self::Here { slot, .. } => {
                let failure = Failure::new(code, detail);
                let _ = slot.send(Err(Unanswered { failure, message }));
            }
            Self::Away { responder, .. } => responder.fail(Failure::new(code, detail)),
        }
    }
}

/// A message with what is needed to answer it.
pub struct Packet<M: Message>(Option<(M, Slot<M::Reply>)>);

impl<M: Message> Packet<M> {
    pub(crate) fn tell(message: M) -> Self {
        Self(Some((message, Slot::Nobody { _credit: None })))
    }

    pub(crate) fn ask(message: M, slot: HereSlot<M::Reply>, deadline: Instant) -> Self {
        Self(Some((message, Slot::Here { slot, deadline })))
    }

    /// The message and its answer slot; `None` when nobody waits any more, because the asker has gone
    /// or the deadline has passed.
    #[must_use]
    pub fn into_parts(mut self) -> Option<(M, Reply<M::Reply>)> {
        let (message, slot) = self.0.take()?;
        if slot.is_wanted() {
            return Some((message, Reply(Some(slot))));
        }
        slot.fail(FailureCode::Deadline, "", None);
        None
    }

    /// The message, when it was not accepted.
    pub(crate) fn into_message(mut self) -> Option<M> {
        self.0.take().map(|(message, _)| message)
    }
}

impl<M: Message> Drop for Packet<M> {
    fn drop(&mut self) {
        if let Some((message, slot)) = self.0.take() {
            if let Slot::Nobody { .. } = slot {
                let why = format!("`{}`: the actor stopped before it was handled", M::NAME);
                current_node(|node| {
                    if let Some(node) = node {
                        node.dead_letter(&why);
                    }
                });
            }
            slot.fail(FailureCode::Stopped, "", Some(Box::new(message)));
        }
    }
}

/// The answer slot of a message: used once, also later and by somebody else than the handler.
pub struct Reply<R: Data>(Option<Slot<R>>);

impl<R: Data> Reply<R> {
    /// Answers. Where nobody waits any more the answer is dropped.
    pub fn send(mut self, answer: R) {
        match self.0.take() {
            Some(Slot::Here { slot, .. }) => {
                let _ = slot.send(Ok(answer));
            }
            Some(Slot::Away { responder, fingerprint, tag }) => {
                // A type that only travels as JSON has no fingerprint.
                let known = fingerprint != payload::Fingerprint::NONE;
                let encoding = if known && responder.accept() == fingerprint {
                    Encoding::Bincode
                } else {
                    Encoding::Json
                };
                match payload::encode(encoding, &answer) {
                    Ok(bytes) => responder.reply(Payload { tag, encoding, bytes }),
                    Err(error) => {
                        responder.fail(Failure::new(FailureCode::BadReply, error.to_string()));
                    }
                }
            }
            Some(Slot::Nobody { .. }) | None => {}
        }
    }

    /// Whether somebody still waits for the answer; of use to handlers that take long.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.as_ref().is_some_and(Slot::is_wanted)
    }
}

impl<R: Data> Drop for Reply<R> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            if std::thread::panicking() {
                slot.fail(FailureCode::Panicked, "the handler panicked", None);
            } else {
                slot.fail(FailureCode::NoReply, "the handler gave no reply", None);
            }
        }
    }
}

/// An encoded message that came over a link or from a pool.
pub struct Parcel {
    pub(crate) payload: Payload,
    pub(crate) kind: InboundKind,
    pub(crate) node: Node,
}

impl Parcel {
    pub(crate) fn new(inbound: Inbound, node: Node) -> Self {
        Self { payload: inbound.payload, kind: inbound.kind, node }
    }

    /// Which message it is.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.payload.tag
    }

    /// Decodes it. A payload that is no such message is answered with what is wrong with it.
    #[must_use]
    pub fn unpack<M: Message>(self) -> Option<Packet<M>> {
        let Self { payload, kind, node } = self;
        let decoded: Result<M, _> =
            within(&node, || payload::decode(payload.encoding, &payload.bytes));
        match (decoded, kind) {
            (Ok(message), InboundKind::Tell(credit)) => {
                Some(Packet(Some((message, Slot::Nobody { _credit: Some(credit) }))))
            }
            (Ok(message), InboundKind::Ask(responder)) => {
                let (fingerprint, tag) = (M::describe().reply_fingerprint, payload.tag);
                Some(Packet(Some((message, Slot::Away { responder, fingerprint, tag }))))
            }
            (Err(error), kind) => {
                match kind {
                    InboundKind::Tell(_) => {
                        node.dead_letter(&format!("`{}`: {error}", M::NAME));
                    }
                    InboundKind::Ask(responder) => {
                        let detail = format!("`{}`: {error}", M::NAME);
                        responder.fail(Failure::new(FailureCode::Malformed, detail));
                    }
                }
                None
            }
        }
    }

    /// Ends it: the actor has no handler for it.
    pub fn refuse(self) {
        let detail = format!("{:016x}", self.payload.tag.0);
        self.end(FailureCode::NotHandled, &detail);
    }

    /// Ends it with a reason.
    pub(crate) fn end(self, code: FailureCode, detail: &str) {
        match self.kind {
            InboundKind::Tell(_) => self.node.dead_letter(detail),
            InboundKind::Ask(responder) => responder.fail(Failure::new(code, detail)),
        }
    }
}
