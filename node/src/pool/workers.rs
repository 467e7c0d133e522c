//! Keeps a pool's own workers alive: one task for each seat, in crews of one kind each.

use std::time::Duration;

use layercake_directory::{Publication, Scope};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    GRACE, MAX_WORKERS, NOTICE, Pool, PoolError, elastic,
    elastic::{Advice, Bounds, Seen, Sizer},
    follow::follow,
    scheduler::{WorkerId, WorkerState, WorkerView},
    seats::{Place, SeatGuard},
};
use crate::{
    actor::Actor,
    address::Address,
    clock, entry,
    node::STOP_GRACE,
    process::{Spec, WorkerProcess},
    restart::StandDown,
    watch::Watch,
};

/// How long a process may take that was asked to end by somebody else; then it is killed.
const LEAVE_TIME: Duration = Duration::from_secs(15);
/// A worker that leaves in order is replaced at once, unless it has lived for less than this.
const BRIEF: Duration = Duration::from_secs(1);

/// Where workers come from. A pool may have several of these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// So many tasks on the node's runtime.
    Tasks(usize),
    /// So many threads of this process.
    Threads(usize),
    /// So many processes of this same binary on this host.
    Processes(usize),
    /// Whatever publishes a name that matches the pattern, up to the scope.
    Hosts {
        /// The pattern.
        pattern: String,
        /// The scope.
        scope: Scope,
    },
}

impl Workers {
    /// Whatever publishes a name that matches a pattern, up to a scope.
    #[must_use]
    pub fn hosts(pattern: &str, scope: Scope) -> Self {
        Self::Hosts { pattern: pattern.to_owned(), scope }
    }

    /// How many the pool starts itself.
    pub(super) fn own(&self) -> Option<usize> {
        match self {
            Self::Tasks(n) | Self::Threads(n) | Self::Processes(n) => Some(*n),
            Self::Hosts { .. } => None,
        }
    }

    pub(super) fn with(self, n: usize) -> Self {
        match self {
            Self::Tasks(_) => Self::Tasks(n),
            Self::Threads(_) => Self::Threads(n),
            Self::Processes(_) => Self::Processes(n),
            hosts @ Self::Hosts { .. } => hosts,
        }
    }
}

/// How the seats of a crew are filled.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) place: Place,
    pub(super) stand_down: Duration,
    pub(super) publish: Option<(String, Scope)>,
}

/// Workers of one kind that the pool keeps alive.
#[derive(Debug)]
pub(super) struct Crew {
    plan: Plan,
    /// What ends each seat; the last one in is the first to go.
    seats: Vec<CancellationToken>,
}

/// A worker that runs: its address, its end, and its name while it has one here.
struct Running<A: Actor> {
    address: Address<A>,
    life: Life,
    publication: Option<Publication>,
}

enum Life {
    Here(Watch),
    Process(Box<WorkerProcess>),
}

/// How a worker's time in its seat has ended.
enum End {
    /// The seat is not to be filled any more.
    Over,
    /// It leaves in order, and finishes what it has.
    Left,
    /// It has ended by itself, and had been of use before or not.
    Died { reason: String, useful: bool },
}

/// Each seat says once how its first start went.
type First = mpsc::Sender<Result<(), String>>;

/// Starts the workers of a pool, and waits until the first is ready where it has any of its own.
pub(super) async fn start<A: Actor + Default>(
    pool: &Pool<A>,
    sources: Vec<Workers>,
    bounds: Option<Bounds>,
    stand_down: Duration,
    publish: Option<(String, Scope)>,
) -> Result<(), PoolError> {
    let (first, mut firsts) = mpsc::channel(MAX_WORKERS);
    let mut any_of_its_own = false;
    for source in sources {
        let (place, count) = match source {
            Workers::Tasks(n) => (Place::Task, n),
            Workers::Threads(n) => (Place::Thread, n),
            Workers::Processes(n) => (Place::Process, n),
            Workers::Hosts { pattern, scope } => {
                let subscription = pool.0.node.subscribe(&pattern, scope).await?;
                let follower = pool.clone();
                pool.0.tasks.spawn(async move {
                    let stop = follower.0.stop.clone();
                    follow(subscription, &stop, |change| follower.on_change(change)).await;
                    follower.finish().await;
                });
                continue;
            }
        };
        if place == Place::Process {
            stay_with(pool, publish.as_ref()).await?;
        }
        any_of_its_own = true;
        let plan = Plan { place, stand_down, publish: publish.clone() };
        let mut crews = pool.0.crews.lock();
        crews.push(Crew { plan, seats: Vec::new() });
        let crew = crews.len() - 1;
        pool.fill(&mut crews[crew], count, Some(&first));
    }
    drop(first);
    if !any_of_its_own {
        return Ok(());
    }
    let mut failure = "every worker kept silent".to_owned();
    let ready = tokio::time::timeout(GRACE, async {
        while let Some(started) = firsts.recv().await {
            match started {
                Ok(()) => return true,
                Err(reason) => failure = reason,
            }
        }
        false
    });
    if !ready.await.unwrap_or(false) {
        return Err(PoolError::NoWorker(failure));
    }
    if let Some(bounds) = bounds {
        let pool = pool.clone();
        pool.0.tasks.clone().spawn(async move { pool.keep_size(Sizer::new(bounds)).await });
    }
    Ok(())
}

/// Sees to it that this process is a member of the host's directory before its workers are, and after: so
/// it sees them die, also where it is alone with them on its host.
async fn stay_with<A: Actor>(
    pool: &Pool<A>,
    publish: Option<&(String, Scope)>,
) -> Result<(), PoolError> {
    if let Some((name, scope)) = publish.filter(|(_, scope)| *scope > Scope::Process) {
        let subscription = pool.0.node.subscribe_to(name, *scope).await?;
        let stop = pool.0.stop.clone();
        pool.0.tasks.spawn(async move {
            stop.cancelled().await;
            drop(subscription);
        });
    }
    Ok(())
}

impl<A: Actor + Default> Pool<A> {
    /// Changes how many workers the pool keeps of the kind that it was started with first. More are
    /// started, and expected from here on; of those that are too many, each finishes what it has, and
    /// goes. Returns at once. (A pool that was started with [`between`](super::PoolBuilder::between)
    /// goes on to judge for itself.)
    ///
    /// # Errors
    /// [`PoolError::Count`] where the number is out of bounds, [`PoolError::Foreign`] where the pool has
    /// no workers of its own, [`PoolError::Stopped`] when it was stopped.
    pub fn resize(&self, workers: usize) -> Result<(), PoolError> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(PoolError::Count(workers));
        }
        if self.0.stop.is_cancelled() {
            return Err(PoolError::Stopped);
        }
        let mut crews = self.0.crews.lock();
        let (crew, others) = crews.split_first_mut().ok_or(PoolError::Foreign)?;
        let all = others.iter().map(|other| other.seats.len()).sum::<usize>() + workers;
        if all > MAX_WORKERS {
            return Err(PoolError::Count(all));
        }
        self.fill(crew, workers, None);
        Ok(())
    }

    /// Gives a crew so many seats.
    fn fill(&self, crew: &mut Crew, count: usize, first: Option<&First>) {
        while crew.seats.len() > count
            && let Some(last) = crew.seats.pop()
        {
            last.cancel();
        }
        while crew.seats.len() < count {
            let over = self.0.stop.child_token();
            crew.seats.push(over.clone());
            let (pool, plan, first) = (self.clone(), crew.plan.clone(), first.cloned());
            self.0.tasks.spawn(async move { keep(&pool, &plan, over, first).await });
        }
    }

    /// Makes the pool as large as it should be, until it stops.
    async fn keep_size(&self, mut sizer: Sizer) {
        let mut clock = tokio::time::interval(elastic::TICK);
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                _ = clock.tick() => {}
            }
            let Some(workers) = self.0.crews.lock().first().map(|crew| crew.seats.len()) else {
                return;
            };
            // Files are read before the lock that every request takes.
            let machine = elastic::machine();
            let seen = self.0.state.lock().seen(workers, machine);
            if let Advice::Resize(to) = sizer.step(clock::now(), &seen) {
                tracing::info!(pool = self.name(), from = workers, to, "a pool changes its size");
                if self.resize(to).is_err() {
                    return;
                }
            }
        }
    }
}

impl<A: Actor> super::State<A> {
    fn seen(&self, workers: usize, machine: elastic::Machine) -> Seen {
        let now = clock::now();
        let (mut in_flight, mut busy, mut ready, mut latency) = (0, 0, 0, Duration::ZERO);
        let draining = |worker: &WorkerView| worker.state == WorkerState::Draining;
        for worker in self.scheduler.workers(now).filter(|worker| !draining(worker)) {
            ready += 1;
            in_flight += worker.in_flight;
            if worker.in_flight > 0 {
                busy += 1;
                latency += worker.expected_latency;
            }
        }
        latency /= u32::try_from(busy.max(1)).unwrap_or(u32::MAX);
        let queued = match self.scheduler.pending() {
            0 => Duration::ZERO,
            _ => self.scheduler.expected_wait(now),
        };
        Seen { workers, ready, in_flight, busy, queued, latency, machine }
    }
}

/// Keeps one seat filled until it is not wanted any more.
async fn keep<A: Actor + Default>(
    pool: &Pool<A>,
    plan: &Plan,
    over: CancellationToken,
    mut first: Option<First>,
) {
    let seat = pool.seat(plan.place, None);
    let mut restart = StandDown::new(plan.stand_down);
    loop {
        let born = clock::now();
        let begun = tokio::select! {
            () = over.cancelled() => return,
            begun = begin::<A>(pool, plan) => begun,
        };
        if let Some(first) = first.take() {
            let _ = first.try_send(begun.as_ref().map(drop).map_err(Clone::clone));
        }
        let end = match begun {
            Ok(running) => serve(pool, &seat, running, &over).await,
            Err(reason) => End::Died { reason, useful: false },
        };
        let (reason, useful) = match end {
            End::Over => return,
            End::Left if born.elapsed() >= BRIEF => {
                seat.ended("left in order", 0, None);
                continue;
            }
            End::Left => ("left in order".to_owned(), false),
            End::Died { reason, useful } => (reason, useful),
        };
        let wait = restart.next(born.elapsed(), useful, rand::random());
        seat.ended(&reason, restart.early_ends(), Some(clock::after(wait)));
        tracing::warn!(
            pool = pool.name(),
            worker = A::NAME,
            reason,
            in_a_row = restart.early_ends(),
            "a worker ended; starting another in {wait:?}"
        );
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn begin<A: Actor + Default>(pool: &Pool<A>, plan: &Plan) -> Result<Running<A>, String> {
    let node = &pool.0.node;
    let (address, life): (Address<A>, _) = match plan.place {
        Place::Thread => {
            let address = node.spawn_thread(A::default()).map_err(|e| e.to_string())?;
            let ended = node.watch(&address);
            (address, Life::Here(ended))
        }
        Place::Process => {
            let (entry, publish) = (entry::entry_name::<A>().to_owned(), plan.publish.clone());
            let spec = Spec { entry, publish, ..Spec::default() };
            let process = WorkerProcess::start(node, spec).await;
            let process = process.map_err(|e| crate::run::chain(&e))?;
            (node.bind(process.addr.clone()), Life::Process(Box::new(process)))
        }
        Place::Task | Place::Member | Place::Added => {
            let address = node.spawn(A::default());
            let ended = node.watch(&address);
            (address, Life::Here(ended))
        }
    };
    // A process publishes itself: its name must end with it.
    let publication = match (&life, &plan.publish) {
        (Life::Here(_), Some((name, scope))) => {
            let published = node.publish(name, &address, *scope).await;
            Some(published.inspect_err(|_| address.stop()).map_err(|e| crate::run::chain(&e))?)
        }
        _ => None,
    };
    Ok(Running { address, life, publication })
}

/// Lets a worker work until it ends or leaves, or its seat is not wanted any more.
async fn serve<A: Actor>(
    pool: &Pool<A>,
    seat: &SeatGuard<A>,
    running: Running<A>,
    over: &CancellationToken,
) -> End {
    let Running { address, life, publication } = running;
    match life {
        Life::Here(mut ended) => {
            let worker = seat.join(&address, None);
            let end = tokio::select! {
                exit = &mut ended => {
                    End::Died { reason: exit.to_string(), useful: pool.answered(worker) > 0 }
                }
                () = over.cancelled() => End::Over,
            };
            if let End::Over = end {
                let published = publication.is_some();
                drop(publication);
                pool.let_finish(worker).await;
                if published {
                    // Until others have noticed; what comes later was surely not begun.
                    tokio::time::sleep(NOTICE).await;
                }
                address.stop();
                ended.await;
            }
            pool.leave(worker);
            end
        }
        Life::Process(mut process) => {
            let worker = seat.join(&address, process.pid());
            let leaves = tokio::select! {
                leaves = process.leaving() => leaves,
                () = over.cancelled() => {
                    pool.let_finish(worker).await;
                    process.stop(STOP_GRACE + Duration::from_secs(1)).await;
                    pool.leave(worker);
                    return End::Over;
                }
            };
            if leaves {
                // Its seat is free: its successor need not wait until it has finished.
                pool.drain(worker);
                let leaver = pool.clone();
                pool.0.tasks.spawn(async move {
                    if tokio::time::timeout(LEAVE_TIME, process.ended()).await.is_err() {
                        process.stop(Duration::ZERO).await;
                    }
                    leaver.leave(worker);
                });
                return End::Left;
            }
            let pid = process.pid().unwrap_or(0);
            let useful = pool.answered(worker) > 0;
            // It takes nothing more, and what it has is lost.
            pool.leave(worker);
            let end = process.ended().await;
            End::Died { reason: format!("process {pid}: {}", end.exit), useful }
        }
    }
}

impl<A: Actor> Pool<A> {
    /// How many requests a worker has answered.
    fn answered(&self, worker: WorkerId) -> u64 {
        self.0.state.lock().scheduler.answered_by(worker)
    }

    /// Waits, within the grace, until a worker has answered what it has: of a pool that stops, until all
    /// have, for those that wait still need workers.
    async fn let_finish(&self, worker: WorkerId) {
        if self.0.stop.is_cancelled() {
            self.finish().await;
        } else {
            self.drain(worker);
            self.idle(worker).await;
        }
    }
}
