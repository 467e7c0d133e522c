//! Work that takes more than a moment, on a thread for such work, so that the requests of others do not
//! wait for it.

use std::{sync::LazyLock, thread::available_parallelism};

use tokio::sync::Semaphore;

/// Bodies of so many bytes and more are worked on aside.
pub(crate) const LONG: usize = 32 << 10;

/// How many are worked on at a time: more would not be done sooner.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(2, usize::from)));

/// Does it, when it is its turn. `None` where it panics. Work that has begun is done to its end, also when
/// nobody waits for it any more.
pub(crate) async fn run<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    let place = PLACES.acquire().await.ok()?;
    let work = move || {
        let _place = place;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}
