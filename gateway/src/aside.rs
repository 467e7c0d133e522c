//! Work that takes more than a moment, on a thread for such work, so that the requests of others do not
//! wait for it.

use std::{sync::LazyLock, thread::available_parallelism, time::Instant};

use layercake_node::AskError;
use tokio::{sync::Semaphore, time::timeout_at};

use crate::{
    answer,
    problem::{Kind, Problem},
};

/// Bodies of so many bytes and more are worked on aside.
pub(crate) const LONG: usize = 32 << 10;

/// How many are worked on at a time: more would not be done sooner.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(2, usize::from)));

/// Does it, when it is its turn, and waits for it until then. Work that has begun is done to its end,
/// and keeps its place, also when nobody waits for it any more.
pub(crate) async fn run<R: Send + 'static>(
    until: Instant,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Problem> {
    let working = async {
        let place = PLACES.acquire().await.ok()?;
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    };
    match timeout_at(until.into(), working).await {
        Ok(Some(done)) => Ok(done),
        Ok(None) => {
            let mut problem = Problem::new(Kind::Internal, "the body could not be worked on");
            problem.cause = Some("what works on bodies has panicked, as written to stderr".into());
            Err(problem)
        }
        Err(_) => Err(answer::problem(&AskError::Deadline)),
    }
}
