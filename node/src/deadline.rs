//! The watch over the deadlines of asks within one process.
//!
//! A timer for each ask would be set and cleared millions of times a second and hardly ever ring. Here
//! an ask that has to wait puts itself on a list of its thread's shard, and is taken off in bulk some
//! time after it was answered: whenever a list has doubled. One task of the node sleeps until the
//! earliest deadline it has seen and ends what is due. The cost for an ask is one push under a lock that
//! nobody else holds.
//!
//! A list holds at most twice the asks that were open at its last sweep, and [`SWEEP`] more.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;

/// Lists; threads share them in turn.
const SHARDS: usize = 8;
/// A list shorter than this is not swept.
const SWEEP: usize = 64;

/// What has a deadline.
pub(crate) trait Expire: Send + Sync {
    fn deadline(&self) -> Instant;
    /// Whether it still waits.
    fn is_open(&self) -> bool;
    /// Ends it, where it still waits.
    fn expire(&self);
}

struct Shard {
    list: Vec<Arc<dyn Expire>>,
    sweep_at: usize,
}

/// The deadlines of one node.
pub(crate) struct Deadlines {
    epoch: Instant,
    shards: [Mutex<Shard>; SHARDS],
    /// When the task wakes, in microseconds since `epoch`; the maximum while it sleeps without a time.
    armed: AtomicU64,
    earlier: Notify,
}

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self {
            epoch: clock::now(),
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard { list: Vec::new(), sweep_at: SWEEP })
            }),
            armed: AtomicU64::new(u64::MAX),
            earlier: Notify::new(),
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// Watches over something until it is no longer open.
    pub(crate) fn watch(&self, what: Arc<dyn Expire>) {
        let due = self.micros(what.deadline());
        {
            let mut shard = self.shards[shard()].lock();
            if shard.list.len() >= shard.sweep_at {
                shard.list.retain(|other| other.is_open());
                shard.sweep_at = SWEEP.max(2 * shard.list.len());
            }
            shard.list.push(what);
        }
        // Behind the push, so that the task either sees the entry or is told.
        if due < self.armed.load(Ordering::SeqCst) {
            self.armed.fetch_min(due, Ordering::SeqCst);
            self.earlier.notify_one();
        }
    }

    /// Ends what is due, and says when the next is.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for shard in &self.shards {
            let due = {
                let mut shard = shard.lock();
                shard.list.retain(|entry| entry.is_open());
                let due: Vec<_> = shard.list.extract_if(.., |e| e.deadline() <= now).collect();
                shard.sweep_at = SWEEP.max(2 * shard.list.len());
                if shard.list.is_empty() {
                    shard.list.shrink_to(SWEEP);
                }
                let rest = shard.list.iter().map(|entry| entry.deadline()).min();
                next = [next, rest].into_iter().flatten().min();
                due
            };
            // Outside of the lock, for it wakes the asker.
            for entry in due {
                entry.expire();
            }
        }
        next
    }

    /// Sweeps until it is certain that whoever came meanwhile is either seen or will tell: once the
    /// time is written down, a second look finds no earlier one.
    fn arm(&self) -> Option<Instant> {
        let mut next = self.sweep(clock::now());
        loop {
            self.armed.store(next.map_or(u64::MAX, |next| self.micros(next)), Ordering::SeqCst);
            let again = self.sweep(clock::now());
            let earlier = match (again, next) {
                (Some(again), Some(next)) => again < next,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if !earlier {
                return next;
            }
            next = again;
        }
    }

    /// Keeps watch for as long as it is polled.
    pub(crate) async fn keep(&self) {
        loop {
            match self.arm() {
                None => self.earlier.notified().await,
                Some(next) => {
                    tokio::select! {
                        () = self.earlier.notified() => {}
                        () = tokio::time::sleep_until(next.into()) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, time::Duration};

    use super::*;

    struct Entry {
        at: Instant,
        open: AtomicBool,
    }

    impl Expire for Entry {
        fn deadline(&self) -> Instant {
            self.at
        }
        fn is_open(&self) -> bool {
            self.open.load(Ordering::SeqCst)
        }
        fn expire(&self) {
            self.open.store(false, Ordering::SeqCst);
        }
    }

    fn entry(after: Duration) -> Arc<Entry> {
        Arc::new(Entry { at: clock::now() + after, open: AtomicBool::new(true) })
    }

    #[test]
    fn what_is_due_is_ended_and_what_was_answered_is_let_go() {
        let deadlines = Deadlines::new();
        let (soon, late) = (entry(Duration::ZERO), entry(Duration::from_secs(60)));
        for entry in [&soon, &late] {
            deadlines.watch(entry.clone());
        }
        let next = deadlines.sweep(clock::now());
        assert!(!soon.is_open() && late.is_open());
        assert_eq!(next, Some(late.at));
        late.expire();
        assert_eq!(deadlines.sweep(clock::now()), None);
        assert_eq!(Arc::strong_count(&late), 1, "nothing is kept");
    }

    #[test]
    fn a_list_is_swept_when_it_has_doubled() {
        let deadlines = Deadlines::new();
        for _ in 0..10 * SWEEP {
            let answered = entry(Duration::from_secs(60));
            deadlines.watch(answered.clone());
            answered.expire();
        }
        let kept: usize = deadlines.shards.iter().map(|shard| shard.lock().list.len()).sum();
        assert!(kept <= SWEEP, "{kept}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_ask_with_a_shorter_time_wakes_the_watch() {
        let deadlines = Arc::new(Deadlines::new());
        let keeping = deadlines.clone();
        let task = tokio::spawn(async move { keeping.keep().await });
        let late = entry(Duration::from_secs(60));
        deadlines.watch(late.clone());
        tokio::task::yield_now().await;
        let soon = entry(Duration::from_secs(1));
        deadlines.watch(soon.clone());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!soon.is_open() && late.is_open());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!late.is_open());
        task.abort();
    }
}
