//! Messages in hand: taken from links and not finished with. What a node that leaves waits for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Counts the messages from other nodes that are in hand.
#[derive(Debug, Default)]
pub struct InHand {
    count: AtomicUsize,
    arrivals: AtomicU64,
    none: Notify,
}

impl InHand {
    /// One more message. It is in hand until what is returned is dropped.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Held {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::AcqRel);
        Held(self.clone())
    }

    /// How many have come so far.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// How many are in hand.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until none is in hand.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn none(&self) {
        loop {
            let mut none = std::pin::pin!(self.none.notified());
            // From here on nothing is missed.
            none.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

/// One message in hand.
#[derive(Debug)]
pub struct Held(Arc<InHand>);

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
