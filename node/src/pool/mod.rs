//! Pools: requests spread over workers, wherever these live.
//!
//! The kind of worker is one argument of [`PoolBuilder`]; everything else is the same for all. What is
//! decided (who gets a request, who waits, who is turned away) is in [`scheduler`]; this module
//! carries it out: it holds the askers, sends to the workers, and in `workers` keeps these alive.
//!
//! A request passes from the asker's own task to the worker and back: the pool has no task in between.

use std::{collections::HashSet, fmt, num::NonZero, sync::Arc, time::Instant};

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    dispatch::Turn,
    scheduler::{Config, Scheduler, Ticket, WorkerId},
    seats::Seats,
    workers::Crew,
};
use crate::{
    actor::Actor,
    address::Address,
    clock,
    message::Api,
    node::Node,
    pools::Shown,
    service::{self, Call, Service},
};

mod any;
mod builder;
mod dispatch;
mod elastic;
mod follow;
mod member;
mod publish;
pub mod scheduler;
mod seats;
mod status;
mod stream;
mod workers;

pub use any::{AnyFeed, AnyPool, Anything, MAX_APIS};
pub use builder::{PoolBuilder, PoolError};
pub use dispatch::PoolRequest;
pub use member::Member;
pub use publish::PublishedPool;
pub use seats::Place;
pub use status::{BUCKETS_MS, MAX_SHOWN, PoolStatus, Times, WorkerState, WorkerStatus};
pub use workers::Workers;

/// Workers that one pool may be asked to start.
pub const MAX_WORKERS: usize = 1024;
/// How long what was published in this process goes on when its name was withdrawn.
const NOTICE: std::time::Duration = std::time::Duration::from_millis(250);
/// How long a pool waits for its first worker at its start, and for requests in flight at its end.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Distributes requests over workers. A clone is another handle. The workers live until
/// [`stop`](Self::stop), or until the node closes, and not with the handles.
pub struct Pool<A: Actor>(Arc<Inner<A>>);

struct Inner<A: Actor> {
    node: Node,
    name: String,
    api: Api,
    state: Mutex<State<A>>,
    crews: Mutex<Vec<Crew>>,
    /// How many workers take new requests.
    size: watch::Sender<usize>,
    /// Told when a request has ended while somebody waits for that.
    ended: Notify,
    /// Told when a worker is to be used again at another time than was known.
    clock: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Behind one lock, held for a few hundred nanoseconds and never across a wait.
struct State<A: Actor> {
    scheduler: Scheduler,
    waiting: HashMap<Ticket, oneshot::Sender<Turn<A>>>,
    workers: HashMap<WorkerId, Address<A>>,
    seats: Seats,
    /// Those that finish what they have.
    draining: HashSet<WorkerId>,
    next: u64,
    /// How many wait for requests to end.
    watchers: usize,
    /// When a worker is to be used again for those that wait.
    wake: Option<Instant>,
}

impl<A: Actor> Pool<A> {
    /// A pool without workers, which ends with the node or by `stop`.
    fn empty(
        node: &Node,
        name: String,
        api: Api,
        config: Config,
        expecting: bool,
        stop: CancellationToken,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut scheduler = Scheduler::new(config, rand::random()).with_processors(processors);
        // Nobody waits yet.
        let _ = scheduler.set_expecting(expecting, clock::now());
        let state = State {
            scheduler,
            waiting: HashMap::default(),
            workers: HashMap::default(),
            seats: Seats::default(),
            draining: HashSet::new(),
            next: 0,
            watchers: 0,
            wake: None,
        };
        let pool = Self(Arc::new(Inner {
            node: node.clone(),
            name,
            api,
            state: Mutex::new(state),
            crews: Mutex::new(Vec::new()),
            size: watch::channel(0).0,
            ended: Notify::new(),
            clock: Notify::new(),
            stop,
            tasks: TaskTracker::new(),
        }));
        let clock = pool.clone();
        pool.0.tasks.spawn(async move { clock.0.keep_time().await });
        pool
    }

    /// How it is now, as operators see it.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.0.status()
    }

    /// Its name, as it is shown.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many workers there are now; those that are leaving are not counted.
    #[must_use]
    pub fn size(&self) -> usize {
        *self.0.size.borrow()
    }

    /// Waits until there are at least so many workers.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn wait_for(&self, workers: usize) {
        // The sender lives as long as the pool.
        let _ = self.0.size.subscribe().wait_for(|size| *size >= workers).await;
    }

    /// Takes no new requests, waits up to 10 s for those in flight, and ends its own workers.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn join(&self, address: Address<A>) -> WorkerId {
        let mut state = self.0.state.lock();
        state.next += 1;
        let worker = WorkerId(state.next);
        let info = dispatch::info(&address);
        state.workers.insert(worker, address);
        let moves = state.scheduler.join(worker, info, clock::now());
        self.0.carry_out(&mut state, moves);
        self.0.size.send_replace(state.able());
        worker
    }

    /// Gives a worker no new requests.
    fn drain(&self, worker: WorkerId) {
        let mut state = self.0.state.lock();
        if state.workers.contains_key(&worker) {
            state.draining.insert(worker);
            let moves = state.scheduler.drain(worker, clock::now());
            self.0.carry_out(&mut state, moves);
            self.0.size.send_replace(state.able());
        }
    }

    fn leave(&self, worker: WorkerId) {
        let mut state = self.0.state.lock();
        state.workers.remove(&worker);
        state.draining.remove(&worker);
        let moves = state.scheduler.leave(worker, clock::now());
        self.0.carry_out(&mut state, moves);
        self.0.size.send_replace(state.able());
        // Whoever waits for its requests need not any longer.
        self.0.ended.notify_waiters();
    }

    /// Gives a worker no new requests, waits until it has answered what it has, within the grace, and
    /// lets it go.
    async fn retire(&self, worker: WorkerId) {
        self.drain(worker);
        self.idle(worker).await;
        self.leave(worker);
    }

    /// Waits until a worker has answered what it has, within the grace.
    async fn idle(&self, worker: WorkerId) {
        let idle = self.until(|state| state.in_flight_of(worker) == 0);
        if tokio::time::timeout(GRACE, idle).await.is_err() {
            tracing::warn!(
                worker = A::NAME,
                "a worker still had requests {GRACE:?} after it was to finish; letting it go"
            );
        }
    }

    /// Waits until something is so that changes when requests end or workers leave.
    async fn until(&self, is_so: impl Fn(&State<A>) -> bool) {
        /// Counts who waits, also where the wait is given up.
        struct Watcher<'a, A: Actor>(&'a Inner<A>);
        impl<A: Actor> Drop for Watcher<'_, A> {
            fn drop(&mut self) {
                self.0.state.lock().watchers -= 1;
            }
        }
        self.0.state.lock().watchers += 1;
        let watcher = Watcher(&self.0);
        loop {
            let mut ended = std::pin::pin!(watcher.0.ended.notified());
            // From here on nothing is missed.
            ended.as_mut().enable();
            if is_so(&watcher.0.state.lock()) {
                return;
            }
            ended.await;
        }
    }

    /// Waits until no request is in flight, within the grace.
    async fn finish(&self) {
        let idle = self.until(|state| state.scheduler.in_flight() == 0);
        if tokio::time::timeout(GRACE, idle).await.is_err() {
            tracing::warn!("requests were still in flight {GRACE:?} after the pool was stopped");
        }
    }
}

impl<A: Actor> State<A> {
    /// How many workers take new requests.
    fn able(&self) -> usize {
        self.workers.len() - self.draining.len()
    }

    fn in_flight_of(&self, worker: WorkerId) -> usize {
        self.scheduler.in_flight_of(worker)
    }
}

impl<A: Actor> Shown for Inner<A> {
    fn show(&self) -> Vec<PoolStatus> {
        if self.stop.is_cancelled() { Vec::new() } else { vec![self.status()] }
    }
}

impl<A: Actor> Service for Pool<A> {
    fn api(&self) -> Api {
        self.0.api.clone()
    }

    fn is_ready(&self) -> bool {
        self.size() > 0 && !self.0.stop.is_cancelled()
    }

    fn call(&self, call: Call) -> service::Reply<'_> {
        Box::pin(self.answer(call))
    }

    fn stream(&self, call: Call) -> service::Stream<'_> {
        Box::pin(self.stream_call(call))
    }
}

impl<A: Actor> Clone for Pool<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> fmt::Debug for Pool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}, {} workers)", A::NAME, self.size())
    }
}
