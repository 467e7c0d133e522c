//! A pool that is being described, and its start.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use layercake_directory::Scope;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    Inner, MAX_WORKERS, Pool, State,
    scheduler::{Config, ConfigError, Scheduler},
    workers,
};
use crate::{actor::Actor, names::SubscribeError, node::Node, report::ReportsPool};

/// Where the workers live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Tasks(usize),
    Threads(usize),
    Processes(usize),
    Hosts { pattern: String, scope: Scope },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tasks(n) => write!(f, "{n} tasks"),
            Self::Threads(n) => write!(f, "{n} threads"),
            Self::Processes(n) => write!(f, "{n} processes"),
            Self::Hosts { pattern, scope } => write!(f, "hosts {pattern} ({scope})"),
        }
    }
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
            kind: self.kind.to_string(),
            restarts: AtomicU64::new(0),
            state: Mutex::new(state),
            size: watch::channel(0).0,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        }));
        let noted: Weak<dyn ReportsPool> = Arc::<Inner<A>>::downgrade(&pool.0);
        self.node.note_pool(noted);
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
