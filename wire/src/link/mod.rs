//! Links: one authenticated connection between two nodes, carrying many lanes.
//!
//! A [`Link`] is a handle that any thread may use; the connection itself lives on the I/O thread in
//! [`driver`], and what the frames mean is decided in [`core`], which has no I/O. Handles speak to it
//! by commands in a queue. That queue has no bound of its own: it is bounded by what a command needs
//! before it may be queued (see `docs/limits.md`):
//! - a tell or an ask holds units of its [`Lane`] (granted back by the receiver, so that a slow actor
//!   slows those who send to it) and of the link's budget (granted back once written, so that a slow
//!   connection slows everybody who uses it);
//! - a reply answers an ask that the peer holds units for;
//! - a part of an answer holds units of its stream's window ([`parts`]), granted back when the asker
//!   takes it;
//! - control messages are counted, and a peer that does not read them is lost.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::{courier::Courier, parts::Inlet};
use crate::{
    clock,
    id::{ActorSerial, NodeAddr, PeerId},
    inbound::{AnswerSlot, AskFailure, Failure},
    payload::{Fingerprint, MAX_MESSAGE, Payload},
    trace::Trace,
};

pub(crate) mod cancelled;
pub(crate) mod core;
mod courier;
pub(crate) mod driver;
pub(crate) mod parts;

pub use self::parts::{PART_UNITS, Parts};

/// Units of one lane: what may be under way to one actor over one link before senders wait. A
/// message takes one unit and one more for each [`UNIT`] bytes, so that the largest takes them all.
pub const LANE_UNITS: usize = MAX_MESSAGE / UNIT;
/// Bytes that one further unit stands for.
pub const UNIT: usize = 32 << 10;
/// Units of one link: what may wait to be written before senders wait.
pub const LINK_UNITS: usize = 2 * LANE_UNITS;
/// Control messages that may wait to be written; a link that exceeds it is closed.
pub const MAX_POSTS: usize = 65_536;
/// Lanes of one link that are kept at hand before unused ones are swept.
const LANES_SWEEP: usize = 1024;

/// Which part of a node agent a control message is for. The numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Service {
    /// From a node to its host directory.
    Directory = 1,
    /// From a host directory to a node of its host.
    Agent = 2,
    /// Between host directories.
    Peer = 3,
}

impl Service {
    pub(crate) const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Directory),
            2 => Some(Self::Agent),
            3 => Some(Self::Peer),
            _ => None,
        }
    }
}

/// The link is closed; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link is closed")]
pub struct Closed;

/// What a handle asks the connection to do.
pub(crate) enum Command {
    Tell { lane: Arc<Lane>, from: u64, payload: Payload, units: u32 },
    // In place: a box would be freed by the I/O thread, which then waits for the allocator of the asker's.
    Ask(AskCommand),
    Reply { id: u64, payload: Payload },
    Fail { id: u64, failure: Failure },
    Part { id: u64, payload: Payload },
    More { id: u64, units: u32 },
    Credit { to: ActorSerial, units: u32 },
    Post { service: Service, body: Bytes },
    Datagram(Bytes),
    Types(Vec<Fingerprint>),
    Close(String),
}

pub(crate) struct AskCommand {
    pub(crate) lane: Arc<Lane>,
    pub(crate) from: u64,
    pub(crate) payload: Payload,
    pub(crate) accept: Fingerprint,
    pub(crate) deadline: Instant,
    pub(crate) trace: Option<Arc<Trace>>,
    pub(crate) waiting: Waiting,
    pub(crate) units: u32,
}

/// Where the answer to an ask goes.
pub(crate) enum Waiting {
    One { slot: AnswerSlot, courier: Option<Courier> },
    Parts(Inlet),
}

impl Waiting {
    /// Whether the asker has gone.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::One { slot, .. } => slot.is_closed(),
            Self::Parts(inlet) => inlet.is_closed(),
        }
    }

    /// Gives the answer here and now; where nobody waits any more it is dropped.
    pub(crate) fn give(self, answer: Result<Payload, AskFailure>) {
        match self {
            Self::One { slot, .. } => {
                let _ = slot.send(answer);
            }
            Self::Parts(inlet) => inlet.end(answer),
        }
    }
}

/// What one flush has written.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    pub(crate) units: usize,
    pub(crate) posts: usize,
    pub(crate) messages: usize,
}

/// One authenticated connection to a node. A clone is another handle to the same connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

pub(crate) struct Inner {
    addr: NodeAddr,
    /// Drawn by the side that dialled; tells two links between the same nodes apart.
    nonce: u64,
    dialled: bool,
    remote: Option<SocketAddr>,
    up: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    messages_sent: AtomicU64,
    messages_received: AtomicU64,
    commands: mpsc::UnboundedSender<Command>,
    budget: Semaphore,
    posts: AtomicUsize,
    closed: AtomicBool,
    /// Why it is to be closed, from the moment that somebody wants it.
    closing: watch::Sender<Option<String>>,
    /// Why it is to be cut, likewise.
    cut: watch::Sender<Option<String>>,
    lanes: Mutex<HashMap<ActorSerial, Weak<Lane>>>,
    /// What the peer can decode from bincode.
    known: papaya::HashSet<Fingerprint>,
}

impl Link {
    /// The largest datagram, in bytes.
    pub const MAX_DATAGRAM: usize = 1100;

    pub(crate) fn new(
        addr: NodeAddr,
        nonce: u64,
        dialled: bool,
        remote: Option<SocketAddr>,
    ) -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, queue) = mpsc::unbounded_channel();
        let inner = Inner {
            addr,
            nonce,
            dialled,
            remote,
            up: clock::now(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            messages_sent: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            commands,
            budget: Semaphore::new(LINK_UNITS),
            posts: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            closing: watch::channel(None).0,
            cut: watch::channel(None).0,
            lanes: Mutex::default(),
            known: papaya::HashSet::new(),
        };
        (Self(Arc::new(inner)), queue)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0.addr.peer
    }

    /// The peer, with the addresses that it says it has.
    #[must_use]
    pub fn addr(&self) -> &NodeAddr {
        &self.0.addr
    }

    /// Whether it runs over a Unix socket, within this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.remote.is_none()
    }

    /// The address at the other end of a QUIC connection.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.0.remote
    }

    /// Whether this end made the connection.
    #[must_use]
    pub fn is_dialled(&self) -> bool {
        self.0.dialled
    }

    /// Whether the connection has ended. It never comes back; ask the endpoint for another one.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// How long it has been up, or was made ago where it has ended.
    #[must_use]
    pub fn age(&self) -> Duration {
        clock::now().saturating_duration_since(self.0.up)
    }

    /// Bytes written to the connection and read from it so far. What comes before the first frame,
    /// datagrams, and what encryption adds are not counted.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.sent.load(Ordering::Relaxed), self.0.received.load(Ordering::Relaxed))
    }

    /// Messages written to the connection and read from it so far: tells, asks, answers and their
    /// parts. They are counted in batches, as they are written and read.
    #[must_use]
    pub fn messages(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.0.messages_sent), of(&self.0.messages_received))
    }

    /// Tells links to the same node apart.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.0.nonce
    }

    /// Queues a control message; never waits. Messages of one service arrive in order.
    ///
    /// # Errors
    /// [`Closed`] when the link has ended; also when [`MAX_POSTS`] control messages wait already, in
    /// which case the link is closed, since a peer that reads none of them is lost.
    pub fn post(&self, service: Service, body: Bytes) -> Result<(), Closed> {
        if self.is_closed() {
            return Err(Closed);
        }
        if self.0.posts.fetch_add(1, Ordering::Relaxed) >= MAX_POSTS {
            self.close("the peer does not read its control messages");
            return Err(Closed);
        }
        self.0.commands.send(Command::Post { service, body }).map_err(|_| Closed)
    }

    /// Sends a datagram: it may be lost, doubled or late. Above [`Self::MAX_DATAGRAM`] bytes it is
    /// dropped.
    pub fn datagram(&self, body: Bytes) {
        if body.len() <= Self::MAX_DATAGRAM
            && self.0.posts.fetch_add(1, Ordering::Relaxed) < MAX_POSTS
        {
            let _ = self.0.commands.send(Command::Datagram(body));
        }
    }

    /// The lane to an actor of the peer.
    #[must_use]
    pub fn lane(&self, actor: ActorSerial) -> Arc<Lane> {
        let mut lanes = self.0.lanes.lock();
        if let Some(lane) = lanes.get(&actor).and_then(Weak::upgrade) {
            return lane;
        }
        if lanes.len() >= LANES_SWEEP && lanes.len().is_power_of_two() {
            lanes.retain(|_, lane| lane.strong_count() > 0);
        }
        let credit = Semaphore::new(LANE_UNITS);
        let lane = Arc::new(Lane { link: self.clone(), actor, credit });
        lanes.insert(actor, Arc::downgrade(&lane));
        lane
    }

    /// Whether the peer can decode a type of that structure from bincode.
    #[must_use]
    pub fn knows(&self, fingerprint: Fingerprint) -> bool {
        self.0.known.pin().contains(&fingerprint)
    }

    /// Ends the link: asks in flight fail at once, what was queued has a moment to leave.
    pub(crate) fn close(&self, reason: &str) {
        self.0.closing.send_replace(Some(reason.to_owned()));
        let _ = self.0.commands.send(Command::Close(reason.to_owned()));
    }

    /// Ends the link without a goodbye, for a peer that is dead.
    pub(crate) fn cut(&self, reason: &str) {
        self.0.cut.send_replace(Some(reason.to_owned()));
    }

    /// Waits until somebody wants the link closed.
    pub(crate) async fn closing(&self) -> String {
        wanted(&self.0.closing).await
    }

    /// Waits until somebody wants the link cut.
    pub(crate) async fn being_cut(&self) -> String {
        wanted(&self.0.cut).await
    }

    pub(crate) fn announce(&self, types: Vec<Fingerprint>) {
        let _ = self.0.commands.send(Command::Types(types));
    }

    pub(crate) fn learn(&self, types: Vec<Fingerprint>) {
        let known = self.0.known.pin();
        for fingerprint in types {
            if known.len() < MAX_KNOWN {
                known.insert(fingerprint);
            }
        }
    }

    pub(crate) fn commands(&self) -> &mpsc::UnboundedSender<Command> {
        &self.0.commands
    }

    pub(crate) fn has_read(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn has_read_messages(&self, messages: usize) {
        if messages > 0 {
            self.0.messages_received.fetch_add(messages as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn written(&self, written: Written) {
        let Written { bytes, units, posts, messages } = written;
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        if messages > 0 {
            self.0.messages_sent.fetch_add(messages as u64, Ordering::Relaxed);
        }
        if units > 0 {
            self.0.budget.add_permits(units);
        }
        if posts > 0 {
            self.0.posts.fetch_sub(posts, Ordering::Relaxed);
        }
    }

    /// After this no sender waits on the link any more.
    pub(crate) fn mark_closed(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.budget.close();
        for lane in self.0.lanes.lock().drain().filter_map(|(_, lane)| lane.upgrade()) {
            lane.credit.close();
        }
    }

    pub(crate) fn credit(&self, actor: ActorSerial, units: u32) {
        if let Some(lane) = self.0.lanes.lock().get(&actor).and_then(Weak::upgrade) {
            lane.give_back(units);
        }
    }
}

/// Waits for a reason. The sender lives as long as the link.
async fn wanted(reason: &watch::Sender<Option<String>>) -> String {
    let mut reason = reason.subscribe();
    let given = reason.wait_for(Option::is_some).await;
    given.ok().and_then(|reason| reason.clone()).unwrap_or_default()
}

/// Types of a peer that are remembered; of more it gets the self-describing encoding.
const MAX_KNOWN: usize = 65_536;

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, {:08x})", self.peer(), self.nonce() >> 32)
    }
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Link {}

/// The way to one actor over one link. What one task sends on it arrives in order.
pub struct Lane {
    link: Link,
    actor: ActorSerial,
    credit: Semaphore,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({:?}, {})", self.link, self.actor)
    }
}

/// Why a message did not go onto a lane. It is handed back.
#[derive(Debug)]
pub enum LaneError {
    /// The units of the lane or of the link are used up.
    Full(Payload),
    /// The link has ended.
    Closed(Payload),
}

/// Stands for the task that sends: what one task sends to one actor stays in order, even where a
/// large message of it is still on its way in pieces.
fn sender() -> u64 {
    /// What is hashed is a number already.
    #[derive(Default)]
    struct Number(u64);
    impl Hasher for Number {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }
        fn write_u64(&mut self, number: u64) {
            self.0 ^= number;
        }
    }
    let mut hasher = Number::default();
    match tokio::task::try_id() {
        Some(task) => task.hash(&mut hasher),
        None => {
            // Threads and tasks are counted apart.
            std::thread::current().id().hash(&mut hasher);
            hasher.0 = !hasher.0;
        }
    }
    hasher.finish()
}

fn units_of(payload: &Payload) -> u32 {
    u32::try_from(1 + payload.bytes.len() / UNIT).unwrap_or(u32::MAX).min(LANE_UNITS as u32)
}

impl Lane {
    /// The link it runs on.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn actor(&self) -> ActorSerial {
        self.actor
    }

    pub(crate) fn give_back(&self, units: u32) {
        // A peer that grants more than it was sent must not overflow the semaphore.
        let room = LANE_UNITS.saturating_sub(self.credit.available_permits());
        self.credit.add_permits((units as usize).min(room));
    }

    fn try_take(&self, units: u32) -> bool {
        let Ok(credit) = self.credit.try_acquire_many(units) else { return false };
        let Ok(budget) = self.link.0.budget.try_acquire_many(units) else { return false };
        credit.forget();
        budget.forget();
        true
    }

    /// Waits for units of the lane and of the link. Cancel safe: nothing is kept.
    async fn take(&self, units: u32) -> bool {
        if self.try_take(units) {
            return true;
        }
        let Ok(credit) = self.credit.acquire_many(units).await else { return false };
        let Ok(budget) = self.link.0.budget.acquire_many(units).await else { return false };
        credit.forget();
        budget.forget();
        true
    }

    /// Sends a tell; waits for room. It is on its way when this returns, not handled.
    ///
    /// # Errors
    /// [`LaneError::Closed`] hands the message back. Once sent, a message may still be lost with the link.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn tell(self: &Arc<Self>, payload: Payload) -> Result<(), LaneError> {
        let units = units_of(&payload);
        if !self.take(units).await {
            return Err(LaneError::Closed(payload));
        }
        self.push_tell(payload, units)
    }

    /// Sends a tell if there is room now.
    ///
    /// # Errors
    /// [`LaneError`] hands the message back.
    pub fn try_tell(self: &Arc<Self>, payload: Payload) -> Result<(), LaneError> {
        let units = units_of(&payload);
        if self.link.is_closed() {
            return Err(LaneError::Closed(payload));
        }
        if !self.try_take(units) {
            return Err(LaneError::Full(payload));
        }
        self.push_tell(payload, units)
    }

    fn push_tell(self: &Arc<Self>, payload: Payload, units: u32) -> Result<(), LaneError> {
        let command = Command::Tell { lane: self.clone(), from: sender(), payload, units };
        self.link.0.commands.send(command).map_err(|back| match back.0 {
            Command::Tell { payload, .. } => LaneError::Closed(payload),
            _ => unreachable!("a channel hands back what it was given"),
        })
    }

    /// Sends an ask, part of a trace or not, and waits for its answer; waits for room first.
    ///
    /// # Errors
    /// [`AskFailure`]; after `Unbegun` the caller may use another link.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the ask: the peer does not begin it if it has not begun it yet.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
    pub fn ask(
        self: &Arc<Self>,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
        trace: Option<Arc<Trace>>,
    ) -> impl Future<Output = Result<Payload, AskFailure>> + Send {
        async move {
            let units = self.room_for(&payload, deadline).await?;
            let (slot, answer) = oneshot::channel();
            let waiting = Waiting::One { slot, courier: Courier::here() };
            let (lane, from) = (self.clone(), sender());
            let command =
                AskCommand { lane, from, payload, accept, deadline, trace, waiting, units };
            self.push_ask(command)?;
            answer.await.unwrap_or_else(|_| Err(AskFailure::Lost("the link ended".to_owned())))
        }
    }

    /// Sends an ask that is answered in parts; waits for room first, as [`ask`](Self::ask) does. Its
    /// units of the lane come back when the last part has come, so that at most [`LANE_UNITS`]
    /// streams are open to one actor over one link.
    ///
    /// # Errors
    /// [`AskFailure`] where nothing was sent: `Unbegun`, and the caller may use another link, or
    /// `Deadline`. What fails later comes out of [`Parts`].
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent. Dropping the [`Parts`] cancels the ask.
    pub async fn ask_stream(
        self: &Arc<Self>,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
        trace: Option<Arc<Trace>>,
    ) -> Result<Parts, AskFailure> {
        let units = self.room_for(&payload, deadline).await?;
        let (inlet, parts) = Inlet::over_link(self.link.0.commands.clone());
        let (lane, from, waiting) = (self.clone(), sender(), Waiting::Parts(inlet));
        self.push_ask(AskCommand { lane, from, payload, accept, deadline, trace, waiting, units })?;
        Ok(parts)
    }

    /// Takes what an ask needs, and says how much that was.
    async fn room_for(&self, payload: &Payload, deadline: Instant) -> Result<u32, AskFailure> {
        let units = units_of(payload);
        if !self.try_take(units) {
            // Boxed, since each ask would have room for it.
            let taken = Box::pin(tokio::time::timeout_at(deadline.into(), self.take(units)));
            match taken.await {
                Ok(true) => {}
                Ok(false) => return Err(AskFailure::unsent()),
                Err(_) => return Err(AskFailure::Deadline),
            }
        }
        Ok(units)
    }

    fn push_ask(&self, ask: AskCommand) -> Result<(), AskFailure> {
        let sent = self.link.0.commands.send(Command::Ask(ask));
        sent.map_err(|_| AskFailure::unsent())
    }
}
