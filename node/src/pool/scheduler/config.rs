//! The settings of a pool's dispatch, and which of them cannot be.

use std::time::Duration;

/// The settings of a pool's dispatch.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many requests may wait for a worker. One more is `Overloaded`. Default 1024.
    pub queue: usize,
    /// How many requests one worker is given at a time at most. Default 32.
    pub concurrency: usize,
    /// Whether a worker is given fewer than that where more would only wait in its mailbox. Default true.
    pub adaptive: bool,
    /// The response time, queue included, from which on the pool is busy; `None` for never. Default 5 s.
    pub responsiveness: Option<Duration>,
    /// Of so many requests to a busy pool one passes, so that it notices its recovery. Default 10.
    pub busy_pass_rate: u32,
    /// How long a worker that came (back) is preferred less and less little. Default 1 s; zero: not at all.
    pub slow_start: Duration,
    /// Whether workers that fail or are silent are left out for a while. Default true.
    pub ejection: bool,
    /// Which share of the requests may be given to a second worker after the first was lost with them
    /// (and some each second besides). Default 0.2.
    pub retries: f64,
    /// Which share of the requests may be given to a second worker as well, when they may run twice and the
    /// answer takes longer than others do, but for half that share; zero: none, the default.
    pub hedges: f64,
    /// How much more than its share a worker may have of requests with keys, before another worker gets
    /// some of them. Default 1.25.
    pub key_load: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue: 1024,
            concurrency: 32,
            adaptive: true,
            responsiveness: Some(Duration::from_secs(5)),
            busy_pass_rate: 10,
            slow_start: Duration::from_secs(1),
            ejection: true,
            retries: 0.2,
            hedges: 0.0,
            key_load: 1.25,
        }
    }
}

impl Config {
    /// The least [`responsiveness`](Self::responsiveness).
    pub const MIN_RESPONSIVENESS: Duration = Duration::from_millis(500);
    /// The most [`queue`](Self::queue) holds.
    pub const MAX_QUEUE: usize = 1 << 20;
    /// The most [`concurrency`](Self::concurrency).
    pub const MAX_CONCURRENCY: usize = 4096;
    /// The longest [`slow_start`](Self::slow_start).
    pub const MAX_SLOW_START: Duration = Duration::from_secs(600);

    /// Whether a pool can work with these settings.
    ///
    /// # Errors
    /// The first setting that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=Self::MAX_QUEUE).contains(&self.queue) {
            return Err(ConfigError::Queue { given: self.queue });
        }
        if !(1..=Self::MAX_CONCURRENCY).contains(&self.concurrency) {
            return Err(ConfigError::Concurrency { given: self.concurrency });
        }
        if let Some(given) = self.responsiveness.filter(|r| *r < Self::MIN_RESPONSIVENESS) {
            return Err(ConfigError::Responsiveness { given });
        }
        if self.busy_pass_rate == 0 {
            return Err(ConfigError::BusyPassRate);
        }
        if self.slow_start > Self::MAX_SLOW_START {
            return Err(ConfigError::SlowStart { given: self.slow_start });
        }
        // NaN is in no range.
        if !(0.0..=1.0).contains(&self.retries) {
            return Err(ConfigError::Retries { given: self.retries.to_string() });
        }
        if !(0.0..=0.5).contains(&self.hedges) {
            return Err(ConfigError::Hedges { given: self.hedges.to_string() });
        }
        if !(1.0..=100.0).contains(&self.key_load) {
            return Err(ConfigError::KeyLoad { given: self.key_load.to_string() });
        }
        Ok(())
    }
}

/// Which setting of a pool cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Without a queue, no request could wait for a worker that restarts.
    #[error("the queue must hold from 1 to {} requests, not {given}", Config::MAX_QUEUE)]
    Queue {
        /// What was given.
        given: usize,
    },
    /// With nothing in flight, no worker would ever get a request.
    #[error(
        "a worker must be allowed from 1 to {} requests at a time (concurrency), not {given}",
        Config::MAX_CONCURRENCY
    )]
    Concurrency {
        /// What was given.
        given: usize,
    },
    /// Below half a second, ordinary hiccups would make the pool busy.
    #[error("responsiveness must be at least 500ms, not {}ms: ordinary delays would make the pool busy", .given.as_millis())]
    Responsiveness {
        /// What was given.
        given: Duration,
    },
    /// One of zero requests: a busy pool would never notice its recovery.
    #[error("the busy pass rate must be at least 1 (one of so many requests passes)")]
    BusyPassRate,
    /// A worker that is a newcomer for so long is hardly used.
    #[error("the slow start must be at most {}s, not {}s", Config::MAX_SLOW_START.as_secs(), .given.as_secs())]
    SlowStart {
        /// What was given.
        given: Duration,
    },
    /// More retries than requests make a failure worse.
    #[error("the share of retries must be from 0 to 1, not {given}")]
    Retries {
        /// What was given.
        given: String,
    },
    /// More than half of the requests twice is not the tail any more.
    #[error("the share of hedged requests must be from 0 to 0.5, not {given}")]
    Hedges {
        /// What was given.
        given: String,
    },
    /// Below its share, no worker could have the requests of its keys.
    #[error("the load by keys must be from 1 to 100 times a worker's share, not {given}")]
    KeyLoad {
        /// What was given.
        given: String,
    },
}
