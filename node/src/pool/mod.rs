//! Pools: requests spread over workers, wherever these live.
//!
//! The kind of worker is one argument of [`PoolBuilder`]; everything else is the same for all. What is
//! decided (who gets a request, who waits, who is turned away) is in [`scheduler`]; this module
//! carries it out: it holds the askers, sends to the workers, and in `workers` keeps these alive.
//!
//! A request passes from the asker's own task to the worker and back: the pool has no task in between.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::scheduler::{Scheduler, Ticket, WorkerId};
use crate::{
    actor::Actor,
    address::Address,
    clock,
    message::Api,
    node::Node,
    service::{self, Call, Service},
};

mod builder;
mod dispatch;
mod report;
pub mod scheduler;
mod workers;

pub use builder::{PoolBuilder, PoolError};

/// Workers that one pool may be asked to start.
pub const MAX_WORKERS: usize = 1024;
/// How long a pool waits for its first worker at its start, and for requests in flight at its end.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Distributes requests over workers. A clone is another handle. The workers live until
/// [`stop`](Self::stop), or until the node closes, and not with the handles.
pub struct Pool<A: Actor>(Arc<Inner<A>>);

struct Inner<A: Actor> {
    node: Node,
    api: Api,
    /// Where its workers live, for people.
    kind: String,
    /// Workers that were started anew.
    restarts: AtomicU64,
    state: Mutex<State<A>>,
    /// How many workers there are.
    size: watch::Sender<usize>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Behind one lock, held for a few hundred nanoseconds and never across a wait.
struct State<A: Actor> {
    scheduler: Scheduler,
    waiting: HashMap<Ticket, oneshot::Sender<(WorkerId, Address<A>)>>,
    workers: HashMap<WorkerId, Address<A>>,
    next: u64,
}

impl<A: Actor> Pool<A> {
    /// How many workers there are now.
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
        state.workers.insert(worker, address);
        let starts = state.scheduler.join(worker, clock::now());
        state.assign(starts);
        self.0.size.send_replace(state.workers.len());
        worker
    }

    fn leave(&self, worker: WorkerId) {
        let mut state = self.0.state.lock();
        state.workers.remove(&worker);
        let starts = state.scheduler.leave(worker, clock::now());
        state.assign(starts);
        self.0.size.send_replace(state.workers.len());
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
        Box::pin(self.ask_encoded(call.payload, call.accept, call.deadline))
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
