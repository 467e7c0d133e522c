//! The clock of this crate: tokio's, so that a test's paused time holds for deadlines, timers and
//! restarts alike.

use std::time::Instant;

/// The present moment.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The moment after so long. A time that no clock shows is one that nobody lives to see.
pub(crate) fn after(time: std::time::Duration) -> Instant {
    const FAR: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 24 * 3600);
    let now = now();
    now.checked_add(time.min(FAR)).unwrap_or(now)
}
