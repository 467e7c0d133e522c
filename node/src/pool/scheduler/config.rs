//! The settings of a pool's dispatch, and which of them cannot be.

use std::time::Duration;

/// The settings of a pool's dispatch.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many requests may wait for a worker. One more is `Overloaded`. Default 1024.
    pub queue: usize,
    /// How many requests one worker is given at a time. More hides the way there and back; less keeps
    /// more of them where another worker can still take them. Default 32.
    pub concurrency: usize,
    /// The mean response time, queue included, from which on the pool is busy; `None` for never.
    /// Default 5 s.
    pub responsiveness: Option<Duration>,
    /// Of so many requests to a busy pool one passes, so that it notices its recovery. Default 10.
    pub busy_pass_rate: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue: 1024,
            concurrency: 32,
            responsiveness: Some(Duration::from_secs(5)),
            busy_pass_rate: 10,
        }
    }
}

impl Config {
    /// The least [`responsiveness`](Self::responsiveness).
    pub const MIN_RESPONSIVENESS: Duration = Duration::from_millis(500);

    /// Whether a pool can work with these settings.
    ///
    /// # Errors
    /// The first setting that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.queue == 0 {
            return Err(ConfigError::Queue);
        }
        if self.concurrency == 0 {
            return Err(ConfigError::Concurrency);
        }
        if let Some(given) = self.responsiveness.filter(|r| *r < Self::MIN_RESPONSIVENESS) {
            return Err(ConfigError::Responsiveness { given });
        }
        if self.busy_pass_rate == 0 {
            return Err(ConfigError::BusyPassRate);
        }
        Ok(())
    }
}

/// Which setting of a pool cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Without a queue, no request could wait for a worker that restarts.
    #[error("the queue must hold at least 1 request")]
    Queue,
    /// With nothing in flight, no worker would ever get a request.
    #[error("a worker must be allowed at least 1 request at a time (concurrency)")]
    Concurrency,
    /// Below half a second, ordinary hiccups would make the pool busy.
    #[error("responsiveness must be at least 500ms, not {}ms: ordinary delays would make the pool busy", .given.as_millis())]
    Responsiveness {
        /// What was given.
        given: Duration,
    },
    /// One of zero requests: a busy pool would never notice its recovery.
    #[error("the busy pass rate must be at least 1 (one of so many requests passes)")]
    BusyPassRate,
}
