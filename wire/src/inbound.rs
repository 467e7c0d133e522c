//! What a link hands up: messages with the means to answer them.
//!
//! A [`Responder`] answers an ask exactly once: used, it sends the reply; dropped, it says that there
//! will be none. The same type answers asks that never crossed a link, so that an actor cannot tell.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{
    id::{ActorSerial, PeerId},
    link::{Command, Link, Service},
    payload::{Fingerprint, Payload},
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
    /// The link went away with the ask in flight.
    Lost(String),
    /// The deadline passed.
    Deadline,
}

/// Where the answer to an ask goes.
pub type AnswerSlot = oneshot::Sender<Result<Payload, AskFailure>>;

/// Ids of asks of one link that nobody waits for any more, until their handlers notice.
#[derive(Debug, Default)]
pub(crate) struct Cancelled {
    /// Of `ids`; read for each answer without the lock.
    count: AtomicUsize,
    ids: Mutex<CancelledIds>,
}

#[derive(Debug, Default)]
struct CancelledIds {
    set: HashSet<u64>,
    /// Oldest first: a cancellation that crossed its answer is never asked for and must not stay.
    order: VecDeque<u64>,
}

/// How many cancelled asks a link remembers; the oldest are forgotten and run in vain.
const MAX_CANCELLED: usize = 4096;

impl Cancelled {
    pub(crate) fn insert(&self, id: u64) {
        let mut ids = self.ids.lock();
        if ids.order.len() >= MAX_CANCELLED
            && let Some(oldest) = ids.order.pop_front()
        {
            ids.set.remove(&oldest);
        }
        ids.set.insert(id);
        ids.order.push_back(id);
        self.count.store(ids.set.len(), Ordering::Release);
    }

    fn contains(&self, id: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.ids.lock().set.contains(&id)
    }

    fn remove(&self, id: u64) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut ids = self.ids.lock();
            ids.set.remove(&id);
            self.count.store(ids.set.len(), Ordering::Release);
        }
    }
}

enum Back {
    Link { commands: mpsc::UnboundedSender<Command>, cancelled: Arc<Cancelled>, id: u64 },
    Here(AnswerSlot),
}

/// Answers one ask. Dropping it answers [`FailureCode::NoReply`].
pub struct Responder {
    back: Option<Back>,
    accept: Fingerprint,
    deadline: Instant,
}

impl Responder {
    /// A responder for an ask made in this process.
    #[must_use]
    pub fn local(slot: AnswerSlot, accept: Fingerprint, deadline: Instant) -> Self {
        Self { back: Some(Back::Here(slot)), accept, deadline }
    }

    pub(crate) fn over_link(
        commands: mpsc::UnboundedSender<Command>,
        cancelled: Arc<Cancelled>,
        id: u64,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Self {
        Self { back: Some(Back::Link { commands, cancelled, id }), accept, deadline }
    }

    /// The structure that the asker knows for the reply.
    #[must_use]
    pub fn accept(&self) -> Fingerprint {
        self.accept
    }

    /// When nobody waits any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether somebody still waits for the answer.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        match &self.back {
            Some(Back::Link { cancelled, id, .. }) => !cancelled.contains(*id),
            Some(Back::Here(slot)) => !slot.is_closed(),
            None => false,
        }
    }

    /// Answers. Where nobody waits any more the answer is dropped.
    pub fn reply(mut self, payload: Payload) {
        match self.back.take() {
            Some(Back::Link { commands, cancelled, id }) => {
                cancelled.remove(id);
                let _ = commands.send(Command::Reply { id, payload });
            }
            Some(Back::Here(slot)) => {
                let _ = slot.send(Ok(payload));
            }
            None => {}
        }
    }

    /// Says why there is no answer.
    pub fn fail(mut self, failure: Failure) {
        self.fail_once(failure);
    }

    fn fail_once(&mut self, failure: Failure) {
        match self.back.take() {
            Some(Back::Link { commands, cancelled, id }) => {
                cancelled.remove(id);
                let _ = commands.send(Command::Fail { id, failure });
            }
            Some(Back::Here(slot)) => {
                let _ = slot.send(Err(AskFailure::Failed(failure)));
            }
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.back.is_some() {
            self.fail_once(Failure::new(FailureCode::NoReply, "the handler gave no reply"));
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
/// Every call comes from the I/O thread and must return at once: push into a channel, never wait.
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
