//! Workers that are added to a pool by hand, and leave it again.

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Pool, seats::Place};
use crate::{actor::Actor, address::Address};

/// A worker that was added to a pool by [`Pool::add`]. Dropped, the worker gets no new requests, finishes
/// what it has from this pool, and is let go; it is not stopped, for the pool has not started it.
#[must_use = "dropped, it takes the worker out of the pool again"]
#[derive(Debug)]
pub struct Member {
    out: DropGuard,
    gone: watch::Receiver<bool>,
}

impl Member {
    /// Takes the worker out of the pool: it gets no new requests, and this waits until it has answered
    /// those that it has, for at most 10 s.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the worker leaves all the same.
    pub async fn remove(self) {
        let Self { out, mut gone } = self;
        drop(out);
        // An error says the same: who would tell has ended.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Leaves the worker in the pool until it ends, or the pool does.
    pub fn keep(self) {
        self.out.disarm();
    }
}

impl<A: Actor> Pool<A> {
    /// Adds a worker that lives somewhere already: an actor of this node, of another process or host, or
    /// another pool that was published. It belongs to the pool until it ends or what is returned is
    /// dropped. Of one that was added twice each counts.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn add(&self, worker: &Address<A>) -> Member {
        let out = CancellationToken::new();
        let (told, gone) = watch::channel(false);
        let (pool, asked, address) = (self.clone(), out.clone(), worker.clone());
        let seat = self.seat(Place::Added, None);
        let worker = seat.join(&address, None);
        self.0.tasks.spawn(async move {
            let ended = tokio::select! {
                exit = pool.0.node.watch(&address) => {
                    tracing::info!(pool = pool.name(), worker = address.path(), %exit, "a worker left");
                    true
                }
                () = asked.cancelled() => false,
                () = pool.0.stop.cancelled() => false,
            };
            if ended {
                pool.leave(worker);
            } else if pool.0.stop.is_cancelled() {
                pool.finish().await;
                pool.leave(worker);
            } else {
                pool.retire(worker).await;
            }
            drop(seat);
            told.send_replace(true);
        });
        Member { out: out.drop_guard(), gone }
    }
}
