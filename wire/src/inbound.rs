//! What a link hands up: messages with the means to answer them.
//!
//! A [`Responder`] answers an ask exactly once: used, it sends the reply; dropped, it says that there
//! will be none. Before that it may send parts, where the asker takes them. The same type answers asks that never crossed a link, so that an actor cannot tell.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    id::{ActorSerial, PeerId},
    in_hand::Held,
    link::{
        Command, Link, Parts, Service,
        cancelled::Cancelled,
        parts::{LocalInlet, Window, end, part_units},
    },
    payload::{Fingerprint, Payload},
    trace::Trace,
};

/// Why an ask was not answered, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: FailureCode,
    /// When to try again, in milliseconds; 0 where that is not known.
    pub retry_after_ms: u32,
    /// For people.
    pub detail: String,
}

/// Kinds of failures. The numbers are the wire's; a retired number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum FailureCode {
    /// There is no such actor (any more).
    Stopped = 1,
    /// The actor has no handler for the message.
    NotHandled = 2,
    /// The payload could not be decoded.
    Malformed = 3,
    /// The handler panicked.
    Panicked = 4,
    /// The handler gave no reply.
    NoReply = 5,
    /// The deadline passed.
    Deadline = 6,
    /// A pool lets only a share through.
    Busy = 7,
    /// A pool's queue is full.
    Overloaded = 8,
    /// No worker is there.
    Unavailable = 9,
    /// The reply could not be encoded.
    BadReply = 10,
    /// The actor ended with the message in its hands.
    Lost = 11,
    /// The actor does not take the message in its present state.
    NotNow = 12,
    /// Whoever was to hand the message on could not reach the actor.
    Unreachable = 13,
    /// A kind that this version does not know.
    Unknown = 255,
}

impl FailureCode {
    /// Reads the wire's number.
    #[must_use]
    pub const fn from_wire(number: u8) -> Self {
        match number {
            1 => Self::Stopped,
            2 => Self::NotHandled,
            3 => Self::Malformed,
            4 => Self::Panicked,
            5 => Self::NoReply,
            6 => Self::Deadline,
            7 => Self::Busy,
            8 => Self::Overloaded,
            9 => Self::Unavailable,
            10 => Self::BadReply,
            11 => Self::Lost,
            12 => Self::NotNow,
            13 => Self::Unreachable,
            _ => Self::Unknown,
        }
    }
}

impl Failure {
    /// A failure without a time to try again.
    #[must_use]
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, retry_after_ms: 0, detail: detail.into() }
    }
}

/// How an ask over a link ended without a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskFailure {
    /// The other side said why.
    Failed(Failure),
    /// The link went away with the ask in flight: the peer may have begun it.
    Lost(String),
    /// The link went away, and the peer has not begun it and never will.
    Unbegun(String),
    /// The deadline passed.
    Deadline,
}

impl AskFailure {
    /// The link ended before the ask was sent.
    pub(crate) fn unsent() -> Self {
        Self::Unbegun("the link has ended".to_owned())
    }
}

/// Where the answer to an ask goes.
pub type AnswerSlot = oneshot::Sender<Result<Payload, AskFailure>>;

enum Back {
    /// To the peer that asked.
    Link {
        commands: mpsc::UnboundedSender<Command>,
        cancelled: Arc<Cancelled>,
        id: u64,
        /// Where the answer may come in parts.
        window: Option<Arc<Window>>,
        /// From the first wait for the cancellation on.
        wait: OnceLock<CancellationToken>,
    },
    /// To an asker in this process.
    Here(Here),
    /// To an asker in this process that takes parts.
    Parts(LocalInlet),
}

struct Here {
    slot: Mutex<AnswerSlot>,
    /// A slot tells one task only that it was closed: of those who wait, each in turn. Made by the first.
    turn: OnceLock<Box<tokio::sync::Mutex<()>>>,
}

impl Here {
    async fn closed(&self) {
        let _turn = self.turn.get_or_init(Box::default).lock().await;
        poll_fn(|cx| self.slot.lock().poll_closed(cx)).await;
    }
}

/// Nobody takes the parts of an answer (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes the parts of the answer any more")]
pub struct Gone;

/// Answers one ask. Dropping it answers [`FailureCode::NoReply`], after the deadline
/// [`FailureCode::Deadline`].
///
/// An ask that [takes parts](Self::takes_parts) is answered by any number of [`part`](Self::part)s and
/// then [`finish`](Self::finish), [`reply`](Self::reply) (one more part and the end) or
/// [`fail`](Self::fail).
pub struct Responder {
    back: Option<Back>,
    accept: Fingerprint,
    deadline: Instant,
    /// Lets go when it has been answered.
    held: Option<Held>,
    trace: Option<Arc<Trace>>,
}

impl Responder {
    /// A responder for an ask made in this process.
    #[must_use]
    pub fn local(slot: AnswerSlot, accept: Fingerprint, deadline: Instant) -> Self {
        let here = Here { slot: Mutex::new(slot), turn: OnceLock::new() };
        Self { back: Some(Back::Here(here)), accept, deadline, held: None, trace: None }
    }

    /// A responder for an ask made in this process that takes parts, and where they come out. The
    /// window is the same as over a link.
    #[must_use]
    pub fn local_stream(accept: Fingerprint, deadline: Instant) -> (Self, Parts) {
        let (inlet, parts) = LocalInlet::new(deadline);
        (Self { back: Some(Back::Parts(inlet)), accept, deadline, held: None, trace: None }, parts)
    }

    pub(crate) fn over_link(
        commands: mpsc::UnboundedSender<Command>,
        cancelled: Arc<Cancelled>,
        id: u64,
        window: Option<Arc<Window>>,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Self {
        let back = Back::Link { commands, cancelled, id, window, wait: OnceLock::new() };
        Self { back: Some(back), accept, deadline, held: None, trace: None }
    }

    /// The same for an ask that is part of that trace.
    #[must_use]
    pub fn traced(mut self, trace: Option<Arc<Trace>>) -> Self {
        self.trace = trace;
        self
    }

    /// The trace that the ask is part of.
    #[must_use]
    pub const fn trace(&self) -> Option<&Arc<Trace>> {
        self.trace.as_ref()
    }

    /// The structure that the asker knows for the reply, or for each part.
    #[must_use]
    pub fn accept(&self) -> Fingerprint {
        self.accept
    }

    /// When nobody waits any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the asker takes an answer in parts.
    #[must_use]
    pub fn takes_parts(&self) -> bool {
        matches!(&self.back, Some(Back::Link { window: Some(_), .. } | Back::Parts(_)))
    }

    /// Whether somebody still waits for the answer: false once the asker has gone or cancelled, or the
    /// link has ended. The deadline is not looked at.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        match &self.back {
            Some(Back::Link { cancelled, id, .. }) => !cancelled.contains(*id),
            Some(Back::Here(here)) => !here.slot.lock().is_closed(),
            Some(Back::Parts(inlet)) => !inlet.is_closed(),
            None => false,
        }
    }

    /// Waits until nobody waits for the answer any more: the asker has gone or cancelled, the link has
    /// ended, or the deadline has passed. Any number of tasks may wait; needs a tokio runtime with time.
    ///
    /// A link remembers a limited number of cancellations that nobody waits for. One that came before
    /// the first wait and was forgotten is not heard of before the deadline.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn cancelled(&self) {
        let gone = async {
            match &self.back {
                Some(Back::Link { cancelled, id, wait, .. }) => {
                    wait.get_or_init(|| cancelled.wait(*id)).cancelled().await;
                }
                Some(Back::Here(here)) => here.closed().await,
                Some(Back::Parts(inlet)) => inlet.closed().await,
                None => {}
            }
        };
        let _ = tokio::time::timeout_at(self.deadline.into(), gone).await;
    }

    /// Sends a part of the answer; waits while the asker has [`PART_UNITS`](crate::PART_UNITS) of parts
    /// that it has not taken. Parts arrive in the order in which this returned. Needs a tokio runtime
    /// with time.
    ///
    /// # Errors
    /// [`Gone`]: the asker has gone or cancelled, the deadline has passed, the link has ended, or the ask
    /// never [took parts](Self::takes_parts). There is no use in going on.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn part(&self, payload: Payload) -> Result<(), Gone> {
        let window = match &self.back {
            Some(Back::Link { window: Some(window), .. }) => window,
            Some(Back::Parts(inlet)) => inlet.window(),
            _ => return Err(Gone),
        };
        let units = part_units(&payload);
        // The window of a link's stream is closed a moment after its cancellation is told of.
        if !self.is_wanted() || clock::now() >= self.deadline {
            return Err(Gone);
        }
        if !window.try_take(units) {
            let room = tokio::time::timeout_at(self.deadline.into(), window.take(units)).await;
            if !room.unwrap_or(false) {
                return Err(Gone);
            }
        }
        let sent = match &self.back {
            Some(Back::Link { commands, id, .. }) => {
                commands.send(Command::Part { id: *id, payload }).is_ok()
            }
            Some(Back::Parts(inlet)) => inlet.part(payload, units),
            _ => false,
        };
        if sent { Ok(()) } else { Err(Gone) }
    }

    /// Answers. Of an ask that takes parts this is the last one, which needs no room, and the end.
    /// Where nobody waits any more the answer is dropped.
    pub fn reply(mut self, payload: Payload) {
        self.answer(Ok(payload));
    }

    /// Ends an answer in parts in order. An ask that takes none gets [`FailureCode::NoReply`], as by
    /// dropping this.
    pub fn finish(mut self) {
        if self.takes_parts() {
            self.answer(Ok(end()));
        }
    }

    /// Says why there is no answer, or why its parts end early.
    pub fn fail(mut self, failure: Failure) {
        self.answer(Err(failure));
    }

    fn answer(&mut self, answer: Result<Payload, Failure>) {
        match self.back.take() {
            Some(Back::Link { commands, cancelled, id, wait, .. }) => {
                cancelled.forget(id, wait.get().is_some());
                let _ = commands.send(match answer {
                    Ok(payload) => Command::Reply { id, payload },
                    Err(failure) => Command::Fail { id, failure },
                });
            }
            Some(Back::Here(here)) => {
                let _ = here.slot.into_inner().send(answer.map_err(AskFailure::Failed));
            }
            Some(Back::Parts(inlet)) => inlet.end(answer.map_err(AskFailure::Failed)),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.back.is_some() {
            // Who gives up because of the deadline says so.
            self.answer(Err(if clock::now() >= self.deadline {
                Failure::new(FailureCode::Deadline, "the deadline passed without a reply")
            } else {
                Failure::new(FailureCode::NoReply, "the handler gave no reply")
            }));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("wanted", &self.is_wanted()).finish_non_exhaustive()
    }
}

/// Gives a lane its units back when the message it came with has been handled, that is, on drop.
pub struct CreditReturn {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) to: ActorSerial,
    pub(crate) units: u32,
    /// Lets go when the message has been handled.
    pub(crate) held: Option<Held>,
}

impl Drop for CreditReturn {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Credit { to: self.to, units: self.units });
    }
}

/// A message that came over a link.
pub struct Inbound {
    /// The node that sent it.
    pub from: PeerId,
    /// The actor that it is for.
    pub to: ActorSerial,
    /// The message.
    pub payload: Payload,
    /// How it is to be ended.
    pub kind: InboundKind,
}

/// A tell or an ask.
pub enum InboundKind {
    /// Nobody waits; the sender's credit, where there is any, comes back when this is dropped.
    Tell(Option<CreditReturn>),
    /// Somebody waits.
    Ask(Responder),
}

impl InboundKind {
    /// Counts the message as in hand until it has been handled or answered.
    pub fn hold(&mut self, held: Held) {
        match self {
            Self::Tell(Some(credit)) => credit.held = Some(held),
            Self::Ask(responder) => responder.held = Some(held),
            Self::Tell(None) => {}
        }
    }
}

/// Why a link is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkDown {
    /// The peer said goodbye.
    Closed(String),
    /// End of file, a reset, an idle time-out, a breach of the protocol.
    Lost(String),
    /// We closed it.
    Ours(String),
}

impl fmt::Display for LinkDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => write!(f, "the peer left: {reason}"),
            Self::Lost(reason) => write!(f, "connection lost: {reason}"),
            Self::Ours(reason) => write!(f, "closed here: {reason}"),
        }
    }
}

/// What an endpoint calls as things happen on its links.
///
/// Every call comes from what carries the links and must return at once: push into a channel, never wait.
pub trait Receive: Send + Sync + 'static {
    /// A link is up.
    fn on_up(&self, link: Link);
    /// A link is gone; exactly one call for each `on_up` of that link, after it.
    fn on_down(&self, link: &Link, down: LinkDown);
    /// A control message.
    fn on_post(&self, from: &Link, service: Service, body: Bytes);
    /// A datagram: it may be lost, doubled or late.
    fn on_datagram(&self, from: &Link, body: Bytes);
    /// A tell or an ask.
    fn on_message(&self, message: Inbound);
}
