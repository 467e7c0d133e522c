//! The one clock of links: tokio's, so that a test may stop it.

use std::time::Instant;

/// Now, by the clock of the present tokio runtime; outside of any, and wherever nobody has paused it,
/// that is the system's monotonic clock. Deadlines that are given to a link, and everything that is
/// computed from them, go by it: under `tokio::time::pause` thirty seconds pass in no time.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
