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
    sync::Arc,
    time::{Duration, Instant},
};

use layercake_directory::Scope;
use layercake_wire::payload::{Fingerprint, Payload};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::scheduler::{
    Config, ConfigError, Decision, Outcome, Rejection, Scheduler, Ticket, WorkerId,
};
use crate::{
    actor::{Accepts, Actor},
    address::{ASK_DEADLINE, Address},
    clock,
    error::AskError,
    message::{Api, Message},
    names::SubscribeError,
    node::Node,
    service::{self, Call, Service},
};

pub mod scheduler;
mod workers;

/// Workers that one pool may be asked to start.
pub const MAX_WORKERS: usize = 1024;
/// How long a pool waits for its first worker at its start, and for requests in flight at its end.
const GRACE: Duration = Duration::from_secs(10);
/// Workers that one request is given to, one after the other, while it surely has not run, or may
/// run twice. Four: one that dies with it, the same found dead, and two more.
const ATTEMPTS: usize = 4;

/// Where the workers live.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Tasks(usize),
    Threads(usize),
    Processes(usize),
    Hosts { pattern: String, scope: Scope },
}

/// Why a pool does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A setting is improbable.
    #[error("the pool cannot be started: {0}")]
    Config(#[from] ConfigError),
    /// The number of workers is out of bounds.
    #[error("the pool cannot be started: {0} workers, and 1 to {MAX_WORKERS} are possible")]
    Count(usize),
    /// No worker came up. The workers' own errors are in the log.
    #[error("no worker became ready: {0}")]
    NoWorker(String),
    /// The directory does not take the subscription.
    #[error(transparent)]
    Directory(#[from] SubscribeError),
}

/// A pool that is being described. Without a word about its kind it has eight tasks.
#[must_use = "a pool begins with `start`"]
pub struct PoolBuilder<A: Actor> {
    node: Node,
    kind: Kind,
    config: Config,
    stand_down: Duration,
    publish: Option<(String, Scope)>,
    actor: std::marker::PhantomData<fn(A)>,
}

impl<A: Actor> PoolBuilder<A> {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            kind: Kind::Tasks(8),
            config: Config::default(),
            stand_down: Duration::from_millis(200),
            publish: None,
            actor: std::marker::PhantomData,
        }
    }

    /// `n` workers as tasks on the node's runtime: for handlers that wait more than they compute.
    pub fn tasks(self, n: usize) -> Self {
        Self { kind: Kind::Tasks(n), ..self }
    }

    /// `n` workers with a thread each: their handlers may block or burn CPU.
    pub fn threads(self, n: usize) -> Self {
        Self { kind: Kind::Threads(n), ..self }
    }

    /// `n` workers as processes of this same binary on this host: one that dies takes nothing along.
    pub fn processes(self, n: usize) -> Self {
        Self { kind: Kind::Processes(n), ..self }
    }

    /// Whatever workers publish a name that matches the pattern, up to the scope, as they come and go.
    pub fn hosts(self, pattern: &str, scope: Scope) -> Self {
        Self { kind: Kind::Hosts { pattern: pattern.to_owned(), scope }, ..self }
    }

    /// How many requests may wait for a worker (1024). One more is answered `Overloaded`.
    pub fn queue(mut self, length: usize) -> Self {
        self.config.queue = length;
        self
    }

    /// How many requests one worker is given at a time (32). It handles them one after the other; the
    /// others are on their way.
    pub fn concurrency(mut self, each: usize) -> Self {
        self.config.concurrency = each;
        self
    }

    /// The mean response time (5 s) above which requests are answered `Busy`; `None`: never.
    pub fn responsiveness(mut self, target: Option<Duration>) -> Self {
        self.config.responsiveness = target;
        self
    }

    /// Of so many requests to a busy pool one passes (10), so that it notices its recovery.
    pub fn busy_pass_rate(mut self, one_of: u32) -> Self {
        self.config.busy_pass_rate = one_of;
        self
    }

    /// How long the first restart of an ended worker waits (200 ms ± a quarter); in a crash loop it
    /// doubles up to 30 s.
    pub fn stand_down(self, first: Duration) -> Self {
        Self { stand_down: first, ..self }
    }

    /// Publishes each worker under a name, up to a scope, so that pools elsewhere find it. Of no
    /// effect on [`hosts`](Self::hosts), whose workers are published already.
    pub fn publish(self, name: &str, scope: Scope) -> Self {
        Self { publish: Some((name.to_owned(), scope)), ..self }
    }
}

impl<A: Actor + Default> PoolBuilder<A> {
    /// Starts the workers and waits until the first is ready (of hosts: until the directory has taken
    /// the subscription; workers may come later).
    ///
    /// # Errors
    /// [`PoolError`] says what is improbable or what kept the workers from starting.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    pub async fn start(self) -> Result<Pool<A>, PoolError> {
        self.config.validate()?;
        if let Kind::Tasks(n) | Kind::Threads(n) | Kind::Processes(n) = self.kind
            && !(1..=MAX_WORKERS).contains(&n)
        {
            return Err(PoolError::Count(n));
        }
        let mut scheduler = Scheduler::new(self.config, rand::random());
        scheduler.set_expecting(!matches!(self.kind, Kind::Hosts { .. }));
        let state = State { scheduler, waiting: HashMap::new(), workers: HashMap::new(), next: 0 };
        let stop = self.node.stop_token().child_token();
        let pool = Pool(Arc::new(Inner {
            node: self.node.clone(),
            api: A::api(),
            state: Mutex::new(state),
            size: watch::channel(0).0,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        }));
        // Until the start has succeeded, ending it ends the workers.
        let guard = stop.drop_guard();
        let plan =
            workers::Plan { kind: self.kind, stand_down: self.stand_down, publish: self.publish };
        workers::start(&pool, plan).await?;
        // The workers outlive the builder: they end with the pool's `stop`, or with the node.
        guard.disarm();
        let closing = pool.clone();
        self.node.tasks().spawn(async move {
            closing.0.stop.cancelled().await;
            closing.0.tasks.close();
            closing.0.tasks.wait().await;
        });
        Ok(pool)
    }
}

/// Distributes requests over workers. A clone is another handle. The workers live until
/// [`stop`](Self::stop), or until the node closes, and not with the handles.
pub struct Pool<A: Actor>(Arc<Inner<A>>);

struct Inner<A: Actor> {
    node: Node,
    api: Api,
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

impl<A: Actor> State<A> {
    /// Hands workers to requests that waited for one.
    fn assign(&mut self, starts: Vec<(Ticket, WorkerId)>) {
        let mut starts = std::collections::VecDeque::from(starts);
        while let Some((ticket, worker)) = starts.pop_front() {
            let (Some(slot), Some(address)) =
                (self.waiting.remove(&ticket), self.workers.get(&worker))
            else {
                continue;
            };
            if slot.send((worker, address.clone())).is_err() {
                // Its asker went away in this very moment.
                starts.extend(self.scheduler.done(ticket, Outcome::Cancelled, clock::now()));
            }
        }
    }
}

/// A request that a worker has, or that waits for one; gives its place back when dropped.
struct InFlight<'a, A: Actor> {
    pool: &'a Inner<A>,
    ticket: Ticket,
    queued: bool,
    outcome: Outcome,
}

impl<A: Actor> Drop for InFlight<'_, A> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        if self.queued && state.waiting.remove(&self.ticket).is_some() {
            // Whose time is over counts as a slow answer, so that the pool learns that it is late;
            // who went away before does not.
            for expired in state.scheduler.expire(clock::now()) {
                state.waiting.remove(&expired);
            }
            state.scheduler.cancel(self.ticket);
            return;
        }
        let starts = state.scheduler.done(self.ticket, self.outcome, clock::now());
        state.assign(starts);
    }
}

impl<A: Actor> Pool<A> {
    /// Asks whichever worker will answer soonest, for at most [`ASK_DEADLINE`].
    ///
    /// # Errors
    /// [`AskError`]: `Busy`, `Overloaded` and `Unavailable` are the pool's own, the rest the worker's.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request: what no worker has begun is not begun.
    pub async fn ask<M: Message>(&self, message: M) -> Result<M::Reply, AskError>
    where
        A: Accepts<M>,
    {
        self.ask_within(message, ASK_DEADLINE).await
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
        A: Accepts<M>,
    {
        let deadline = crate::address::deadline_in(limit);
        let ask = move |worker: Address<A>, message| async move {
            worker.ask_or_return(message, deadline).await
        };
        self.dispatch(deadline, message, || M::IDEMPOTENT, ask).await
    }

    /// Sends an encoded message to a worker and waits for its encoded reply; the pool does not decode
    /// either.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<Payload, AskError> {
        let tag = payload.tag;
        let idempotent = || self.0.api.message(tag).is_some_and(|message| message.idempotent);
        let ask = move |worker: Address<A>, payload: Payload| async move {
            let answer = worker.ask_encoded(payload.clone(), accept, deadline).await;
            answer.map_err(|error| (error, Some(payload)))
        };
        self.dispatch(deadline, payload, idempotent, ask).await
    }

    /// Gives a request to workers until one answers, or it may not be repeated.
    async fn dispatch<R, T, Fut>(
        &self,
        deadline: Instant,
        mut request: T,
        idempotent: impl Fn() -> bool,
        ask: impl Fn(Address<A>, T) -> Fut,
    ) -> Result<R, AskError>
    where
        Fut: Future<Output = Result<R, (AskError, Option<T>)>>,
    {
        let mut attempt = 1;
        loop {
            let (worker, address, mut flight) = self.admit(deadline).await?;
            let (error, back) = match ask(address, request).await {
                Ok(reply) => {
                    flight.outcome = Outcome::Answered;
                    return Ok(reply);
                }
                Err(failed) => failed,
            };
            flight.outcome = match error {
                AskError::Deadline => Outcome::TimedOut,
                _ => Outcome::Failed,
            };
            drop(flight);
            if matches!(error, AskError::Stopped { .. }) {
                // It never comes back; whoever keeps it alive will notice, too.
                self.leave(worker);
            }
            let again = match error {
                AskError::Stopped { .. } | AskError::Unreachable { .. } => true,
                AskError::Lost { .. } => idempotent(),
                _ => false,
            };
            match back {
                Some(back) if again && attempt < ATTEMPTS && clock::now() < deadline => {
                    request = back;
                    attempt += 1;
                }
                _ => return Err(error),
            }
        }
    }

    /// Waits for a worker.
    async fn admit(
        &self,
        deadline: Instant,
    ) -> Result<(WorkerId, Address<A>, InFlight<'_, A>), AskError> {
        let pool = &*self.0;
        if pool.stop.is_cancelled() {
            return Err(AskError::Unavailable);
        }
        let (mut flight, turn) = {
            let mut state = pool.state.lock();
            let outcome = Outcome::Cancelled;
            match state.scheduler.request(clock::now(), deadline) {
                Decision::Start(ticket, worker) => {
                    let address = state.workers.get(&worker).cloned();
                    let flight = InFlight { pool, ticket, queued: false, outcome };
                    drop(state);
                    return match address {
                        Some(address) => Ok((worker, address, flight)),
                        None => Err(AskError::Unavailable),
                    };
                }
                Decision::Queued(ticket) => {
                    let (slot, turn) = oneshot::channel();
                    state.waiting.insert(ticket, slot);
                    (InFlight { pool, ticket, queued: true, outcome }, turn)
                }
                Decision::Rejected(rejection) => return Err(rejection.into()),
            }
        };
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok((worker, address))) => {
                flight.queued = false;
                Ok((worker, address, flight))
            }
            Ok(Err(_)) | Err(_) => Err(AskError::Deadline),
        }
    }

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

impl From<Rejection> for AskError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Unavailable => Self::Unavailable,
            Rejection::Busy { mean, retry_after } => Self::Busy { mean, retry_after },
            Rejection::Overloaded { pending, retry_after } => {
                Self::Overloaded { pending, retry_after }
            }
        }
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
