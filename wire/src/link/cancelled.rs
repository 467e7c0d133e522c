//! Which asks of one link nobody waits for any more: shared by the link's task, which learns of it, and
//! by the responders, which look (often, so without the lock) or wait.
//!
//! What is kept is bounded: cancellations that nobody has looked for by [`MAX_CANCELLED`], those who
//! wait by the responders in hand (one entry each, gone when the ask is answered).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How many cancelled asks a link remembers; the oldest are forgotten and run in vain. Who waited for
/// its cancellation before it came has heard of it.
const MAX_CANCELLED: usize = 4096;
/// Instead of a count: the link has ended, so nobody waits for anything.
const ENDED: usize = usize::MAX;

/// Ids of asks of one link that nobody waits for any more, until their handlers notice.
#[derive(Debug, Default)]
pub(crate) struct Cancelled {
    /// Of `set`, or [`ENDED`]; read for each answer without the lock.
    count: AtomicUsize,
    ids: Mutex<Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    set: HashSet<u64>,
    /// Oldest first: a cancellation that crossed its answer is never asked for and must not stay.
    order: VecDeque<u64>,
    /// Who wants to hear of the cancellation of an ask.
    waiting: HashMap<u64, CancellationToken>,
    ended: bool,
}

impl Cancelled {
    /// The peer has cancelled an ask.
    pub(crate) fn insert(&self, id: u64) {
        let waiting = {
            let mut ids = self.ids.lock();
            if ids.ended {
                return;
            }
            if ids.order.len() >= MAX_CANCELLED
                && let Some(oldest) = ids.order.pop_front()
            {
                ids.set.remove(&oldest);
            }
            ids.set.insert(id);
            ids.order.push_back(id);
            self.count.store(ids.set.len(), Ordering::Release);
            ids.waiting.remove(&id)
        };
        if let Some(waiting) = waiting {
            waiting.cancel();
        }
    }

    /// The link has ended: whatever was asked over it, nobody waits any more.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut ids = self.ids.lock();
            ids.ended = true;
            self.count.store(ENDED, Ordering::Release);
            (ids.set, ids.order) = Default::default();
            std::mem::take(&mut ids.waiting)
        };
        for waiting in waiting.into_values() {
            waiting.cancel();
        }
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        match self.count.load(Ordering::Acquire) {
            0 => false,
            ENDED => true,
            _ => self.ids.lock().set.contains(&id),
        }
    }

    /// What becomes cancelled with the ask. To be called once for an ask, and followed by
    /// [`forget`](Self::forget) with `waited` when it has been answered.
    pub(crate) fn wait(&self, id: u64) -> CancellationToken {
        let token = CancellationToken::new();
        let mut ids = self.ids.lock();
        if ids.ended || ids.set.contains(&id) {
            token.cancel();
        } else {
            ids.waiting.insert(id, token.clone());
        }
        token
    }

    /// The ask has been answered; `waited` says whether somebody waited for its cancellation.
    pub(crate) fn forget(&self, id: u64, waited: bool) {
        if waited || !matches!(self.count.load(Ordering::Acquire), 0 | ENDED) {
            let mut ids = self.ids.lock();
            ids.waiting.remove(&id);
            if !ids.ended {
                ids.set.remove(&id);
                self.count.store(ids.set.len(), Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ask_hears_of_its_own_cancellation_only() {
        let cancelled = Cancelled::default();
        let (one, two) = (cancelled.wait(1), cancelled.wait(2));
        cancelled.insert(1);
        assert!(one.is_cancelled() && !two.is_cancelled());
        assert!(cancelled.contains(1) && !cancelled.contains(2));
        assert!(cancelled.wait(1).is_cancelled(), "it came before the wait");
        cancelled.forget(1, true);
        assert!(!cancelled.contains(1), "answered, so it is not kept");
    }

    #[test]
    fn with_the_link_nobody_waits_any_more() {
        let cancelled = Cancelled::default();
        let before = cancelled.wait(1);
        cancelled.end();
        assert!(before.is_cancelled() && cancelled.wait(2).is_cancelled());
        cancelled.insert(3);
        cancelled.forget(3, true);
        assert!((0..5).all(|id| cancelled.contains(id)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let cancelled = Cancelled::default();
        for id in 0..3 * MAX_CANCELLED as u64 {
            cancelled.insert(id);
            cancelled.wait(id);
            let kept = cancelled.wait(id + 1_000_000);
            cancelled.forget(id + 1_000_000, true);
            assert!(!kept.is_cancelled());
        }
        let ids = cancelled.ids.lock();
        assert_eq!((ids.set.len(), ids.order.len()), (MAX_CANCELLED, MAX_CANCELLED));
        assert!(ids.waiting.is_empty());
    }
}
