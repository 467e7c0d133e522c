//! The watch over the deadlines of asks within one process.
//!
//! A timer for each ask would be set and cleared millions of times a second and hardly ever ring. Here
//! the slots of asks are on lists, each from its making to its end, however many asks it serves; slots
//! that nobody else holds any more are taken off in bulk, whenever a list has doubled. One task of the
//! node sleeps until the earliest deadline it has heard of and ends what is due. The cost for an ask is a
//! look at that time.
//!
//! A list holds at most twice the slots that were in use at its last sweep, and [`SWEEP`] more.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;

/// Lists; threads share them in turn.
const SHARDS: usize = 8;
/// The shortest time between two looks: so much later an ask may end that is not answered in time.
const PAUSE: Duration = Duration::from_millis(2);
/// A list shorter than this is not swept.
const SWEEP: usize = 64;

/// What has a deadline.
pub(crate) trait Expire: Send + Sync {
    /// Ends it where it waits and its time has come; where it waits on, until when.
    fn expire(&self, now: Instant) -> Option<Instant>;
}

struct Shard {
    list: Vec<Arc<dyn Expire>>,
    sweep_at: usize,
}

/// The deadlines of one node.
pub(crate) struct Deadlines {
    id: u64,
    epoch: Instant,
    shards: [Mutex<Shard>; SHARDS],
    /// When the task wakes, in nanoseconds since `epoch`; the maximum while it sleeps without a time.
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
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            epoch: clock::now(),
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard { list: Vec::new(), sweep_at: SWEEP })
            }),
            armed: AtomicU64::new(u64::MAX),
            earlier: Notify::new(),
        }
    }

    /// Tells it from those of other nodes of this process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn nanos(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.epoch);
        let whole = after.as_secs().saturating_mul(1_000_000_000);
        whole.saturating_add(u64::from(after.subsec_nanos())).min(u64::MAX - 1)
    }

    /// Keeps something on the list for as long as anybody else holds it.
    pub(crate) fn list(&self, what: Arc<dyn Expire>) {
        let mut shard = self.shards[shard()].lock();
        if shard.list.len() >= shard.sweep_at {
            shard.list.retain(|other| Arc::strong_count(other) > 1);
            shard.sweep_at = SWEEP.max(2 * shard.list.len());
        }
        shard.list.push(what);
    }

    /// Something on the list waits until then.
    pub(crate) fn watch(&self, deadline: Instant) {
        let due = self.nanos(deadline);
        // What waits has been written down before, so that the task either sees it or is told.
        if due < self.armed.load(Ordering::SeqCst) {
            self.armed.fetch_min(due, Ordering::SeqCst);
            self.earlier.notify_one();
        }
    }

    /// Ends what is due, and says when the next is.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for shard in &self.shards {
            // A copy, for to end something wakes its asker, which may come back here.
            let list = {
                let mut shard = shard.lock();
                shard.list.retain(|entry| Arc::strong_count(entry) > 1);
                shard.sweep_at = SWEEP.max(2 * shard.list.len());
                if shard.list.is_empty() {
                    shard.list.shrink_to(SWEEP);
                }
                shard.list.clone()
            };
            let rest = list.iter().filter_map(|entry| entry.expire(now)).min();
            next = [next, rest].into_iter().flatten().min();
        }
        next
    }

    /// Sweeps until it is certain that whoever came meanwhile is either seen or will tell: once the
    /// time is written down, a second look finds no earlier one.
    fn arm(&self) -> Option<Instant> {
        let mut next = self.sweep(clock::now());
        loop {
            self.armed.store(next.map_or(u64::MAX, |next| self.nanos(next)), Ordering::SeqCst);
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
                    // Each look is at everything: those that follow closely are served together.
                    let next = next.max(clock::after(PAUSE));
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
    use std::time::Duration;

    use super::*;

    /// What waits until a time; `None` once it has ended.
    struct Entry(Mutex<Option<Instant>>);

    impl Expire for Entry {
        fn expire(&self, now: Instant) -> Option<Instant> {
            let mut at = self.0.lock();
            at.take_if(|at| *at <= now);
            *at
        }
    }

    impl Entry {
        fn is_open(&self) -> bool {
            self.0.lock().is_some()
        }
    }

    fn listed(deadlines: &Deadlines, after: Duration) -> Arc<Entry> {
        let at = clock::now() + after;
        let entry = Arc::new(Entry(Mutex::new(Some(at))));
        deadlines.list(entry.clone());
        deadlines.watch(at);
        entry
    }

    #[test]
    fn what_is_due_is_ended_and_what_nobody_holds_is_let_go() {
        let deadlines = Deadlines::new();
        let soon = listed(&deadlines, Duration::ZERO);
        let late = listed(&deadlines, Duration::from_secs(60));
        let next = deadlines.sweep(clock::now());
        assert!(!soon.is_open() && late.is_open());
        assert_eq!(next, *late.0.lock());
        let gone = Arc::downgrade(&late);
        drop(late);
        assert_eq!(deadlines.sweep(clock::now()), None);
        assert!(gone.upgrade().is_none(), "nothing is kept");
    }

    #[test]
    fn a_list_is_swept_when_it_has_doubled() {
        let deadlines = Deadlines::new();
        for _ in 0..10 * SWEEP {
            drop(listed(&deadlines, Duration::from_secs(60)));
        }
        let kept: usize = deadlines.shards.iter().map(|shard| shard.lock().list.len()).sum();
        assert!(kept <= SWEEP, "{kept}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_ask_with_a_shorter_time_wakes_the_watch() {
        let deadlines = Arc::new(Deadlines::new());
        let keeping = deadlines.clone();
        let task = tokio::spawn(async move { keeping.keep().await });
        let late = listed(&deadlines, Duration::from_secs(60));
        tokio::task::yield_now().await;
        let soon = listed(&deadlines, Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::task::yield_now().await;
        assert!(!soon.is_open() && late.is_open());
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::task::yield_now().await;
        assert!(!late.is_open());
        task.abort();
    }
}
