//! A pool that is being described, and its start.

use std::{sync::Arc, time::Duration};

use layercake_directory::Scope;

use super::{
    AnyPool, Anything, MAX_WORKERS, Pool,
    elastic::{Bounds, MOST_LOAD},
    scheduler::{Config, ConfigError},
    workers::{self, Workers},
};
use crate::{actor::Actor, names::SubscribeError, node::Node, pools::Shown};

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
    /// The bounds of the number of workers are not such.
    #[error(
        "the pool cannot be started: between {min} and {max} workers, and 1 to {MAX_WORKERS} are possible"
    )]
    Bounds {
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// The pool starts no workers itself: they come and go as they are published.
    #[error("the pool starts no workers itself, so it has no size that could be set")]
    Foreign,
    /// The pool was stopped.
    #[error("the pool was stopped")]
    Stopped,
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
    /// Where the workers come from; none: eight tasks.
    sources: Vec<Workers>,
    bounds: Option<(usize, usize)>,
    most_load: f64,
    name: Option<String>,
    config: Config,
    stand_down: Duration,
    publish: Option<(String, Scope)>,
    actor: std::marker::PhantomData<fn(A)>,
}

impl<A: Actor + Default> PoolBuilder<A> {
    /// `n` workers as tasks on the node's runtime: for handlers that wait more than they compute.
    pub fn tasks(self, n: usize) -> Self {
        Self { sources: vec![Workers::Tasks(n)], ..self }
    }

    /// `n` workers with a thread each: their handlers may block or burn CPU.
    pub fn threads(self, n: usize) -> Self {
        Self { sources: vec![Workers::Threads(n)], ..self }
    }

    /// `n` workers as processes of this same binary on this host: one that dies takes nothing along.
    pub fn processes(self, n: usize) -> Self {
        Self { sources: vec![Workers::Processes(n)], ..self }
    }

    /// Further workers, beside those that were asked for before: a pool may have some of each kind.
    ///
    /// ```
    /// # extern crate layercake_node as layercake;
    /// # use layercake::{Actor, Node, PoolError, pool::Workers, directory::Scope};
    /// # async fn mixed<Worker: Actor + Default>(node: Node) -> Result<(), PoolError> {
    /// let pool = node.pool::<Worker>().threads(2).and(Workers::hosts("textures:.*", Scope::Lan));
    /// let pool = pool.start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn and(mut self, workers: Workers) -> Self {
        self.sources.push(workers);
        self
    }

    /// Lets the pool choose how many workers it has of the kind that was asked for first: it starts with
    /// the number given there, or the nearest within the bounds, has more while requests wait for more
    /// than a tenth of a second, as long as the machine has processors and memory to spare, and fewer
    /// when they have had little to do for ten seconds.
    pub fn between(self, min: usize, max: usize) -> Self {
        Self { bounds: Some((min, max)), ..self }
    }

    /// How many threads may want to run for each processor (1.5) while a pool with bounds
    /// [between](Self::between) which it chooses still grows: with more, its workers would only take
    /// turns. Workers that wait more than they compute bear a higher number.
    pub fn most_load(self, threads: f64) -> Self {
        Self { most_load: threads, ..self }
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

impl<A: Actor> PoolBuilder<A> {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            sources: Vec::new(),
            bounds: None,
            most_load: MOST_LOAD,
            name: None,
            config: Config::default(),
            stand_down: Duration::from_millis(200),
            publish: None,
            actor: std::marker::PhantomData,
        }
    }

    /// Whatever workers publish a name that matches the pattern, up to the scope, as they come and go.
    pub fn hosts(self, pattern: &str, scope: Scope) -> Self {
        Self { sources: vec![Workers::hosts(pattern, scope)], ..self }
    }

    /// The name under which the pool is shown to operators, by default that of its actor type; of a pool of
    /// any type the pattern. With a name the node joins the directory of its host, so that the pool is seen
    /// from everywhere in the mesh even where it has nothing else to do there.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    // Dispatch settings.

    /// How many requests may wait for a worker (1024). One more is answered `Overloaded`, or takes the place
    /// of one of a caller that has more of them waiting.
    pub fn queue(mut self, length: usize) -> Self {
        self.config.queue = length;
        self
    }

    /// How many requests one worker is given at a time at most (32). Unless
    /// [`adaptive`](Self::adaptive) is off it gets fewer where more would wait for each other.
    pub fn concurrency(mut self, each: usize) -> Self {
        self.config.concurrency = each;
        self
    }

    /// Whether a worker is given fewer requests at a time than [`concurrency`](Self::concurrency) where more
    /// would only wait in its mailbox (on).
    pub fn adaptive(mut self, on: bool) -> Self {
        self.config.adaptive = on;
        self
    }

    /// The response time (5 s), queue included, above which requests are answered `Busy`; `None`: never.
    pub fn responsiveness(mut self, target: Option<Duration>) -> Self {
        self.config.responsiveness = target;
        self
    }

    /// Of so many requests to a busy pool one passes (10), so that it notices its recovery.
    pub fn busy_pass_rate(mut self, one_of: u32) -> Self {
        self.config.busy_pass_rate = one_of;
        self
    }

    /// How long a worker that is new or was left out gets fewer requests than the others (1 s); zero: it
    /// gets its share at once.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.config.slow_start = time;
        self
    }

    /// Whether a worker that fails more than the others, or is silent, is left out for a while (on).
    pub fn ejection(mut self, on: bool) -> Self {
        self.config.ejection = on;
        self
    }

    /// Which share of the requests may be given to another worker after theirs was lost with them (0.2, and
    /// three each second): only messages that are idempotent are, and those that surely have not run, which
    /// do not count.
    pub fn retries(mut self, share: f64) -> Self {
        self.config.retries = share;
        self
    }

    /// Whether an idempotent message whose answer takes longer than 975 of 1000 is given to a second worker
    /// too, at most one of twenty (off). The first good answer counts, the other is cancelled. Each such
    /// message is encoded once more, to have a copy.
    pub fn hedge(mut self, on: bool) -> Self {
        self.config.hedges = if on { 0.05 } else { 0.0 };
        self
    }

    /// How much more than its share of the requests a worker may have before requests with its keys go to
    /// another one (1.25).
    pub fn key_load(mut self, times: f64) -> Self {
        self.config.key_load = times;
        self
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
        let sources = self.sources()?;
        let own: usize = sources.iter().filter_map(Workers::own).sum();
        let stop = self.node.stop_token().child_token();
        if self.name.is_some() {
            self.node.directory().join();
        }
        let name = self.name.unwrap_or_else(|| A::NAME.to_owned());
        let pool = Pool::empty(&self.node, name, A::api(), self.config, own > 0, stop.clone());
        // Until the start has succeeded, ending it ends the workers.
        let guard = stop.drop_guard();
        let bounds = self.bounds.map(|(min, max)| Bounds { min, max, most_load: self.most_load });
        workers::start(&pool, sources, bounds, self.stand_down, self.publish).await?;
        let shown: Arc<dyn Shown> = pool.0.clone();
        self.node.pool_registry().add(Arc::downgrade(&shown));
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

    /// Where the workers come from, where that is possible.
    fn sources(&self) -> Result<Vec<Workers>, PoolError> {
        let mut sources = self.sources.clone();
        if sources.is_empty() {
            sources.push(Workers::Tasks(8));
        }
        if let Some((min, max)) = self.bounds {
            if min < 1 || min > max || max > MAX_WORKERS {
                return Err(PoolError::Bounds { min, max });
            }
            let first = sources.iter_mut().find(|source| source.own().is_some());
            let first = first.ok_or(PoolError::Foreign)?;
            let within = first.own().unwrap_or(min).clamp(min, max);
            *first = first.clone().with(within);
        }
        // What the first kind may grow to, and the others.
        let mut own = self.bounds.map_or(0, |(_, max)| max);
        let grown = self.bounds.and_then(|_| sources.iter().find_map(Workers::own)).unwrap_or(0);
        for n in sources.iter().filter_map(Workers::own) {
            if n == 0 {
                return Err(PoolError::Count(0));
            }
            own = own.saturating_add(n);
        }
        own -= grown;
        if own > MAX_WORKERS { Err(PoolError::Count(own)) } else { Ok(sources) }
    }
}

impl PoolBuilder<Anything> {
    /// Subscribes, and takes in whatever members there are and come.
    ///
    /// # Errors
    /// [`PoolError`] says what is improbable, or why the directory does not take the subscription.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(self) -> Result<AnyPool, PoolError> {
        self.config.validate()?;
        // Nothing else can be asked for.
        let Some(Workers::Hosts { pattern, scope }) = self.sources.first() else {
            return Err(PoolError::Foreign);
        };
        let name = self.name.unwrap_or_else(|| pattern.clone());
        AnyPool::start(&self.node, name, pattern, *scope, self.config).await
    }
}
