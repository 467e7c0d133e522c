//! The clock of this crate: tokio's, so that a test's paused time holds for deadlines, timers and
//! restarts alike.

use std::time::Instant;

/// The present moment.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
