//! How long a request that comes now will wait, and how long its answer will take.
//!
//! Little's law, with what was measured: while requests wait, each ending lets one start, so the wait is
//! the number of those ahead times the mean time between endings. Right after the queue began, it is the
//! latency over the requests in flight.

use std::time::{Duration, Instant};

/// Endings that the mean time between them is taken over.
const ENDINGS: f64 = 64.0;
/// Answers that the mean latency is taken over.
const ANSWERS: f64 = 16.0;
/// A step towards the median: as often up as down is where it stays.
const USUAL_STEP: f64 = 1.05;

#[derive(Debug)]
pub(super) struct Pace {
    /// Seconds from start to answer; 0 before the first.
    latency: f64,
    latency_at: Option<Instant>,
    /// About the median of the same.
    usual: f64,
    /// Seconds between two endings while requests wait; 0: not known.
    gap: f64,
    gaps: f64,
    /// The last ending, if requests waited then.
    last: Option<Instant>,
    gap_at: Option<Instant>,
    /// Older knowledge says nothing about now, so that an idle pool recovers.
    max_age: Duration,
}

impl Pace {
    pub(super) fn new(max_age: Duration) -> Self {
        Self {
            latency: 0.0,
            latency_at: None,
            usual: 0.0,
            gap: 0.0,
            gaps: 0.0,
            last: None,
            gap_at: None,
            max_age,
        }
    }

    /// A worker answered, or has not until the deadline.
    pub(super) fn took(&mut self, seconds: f64, now: Instant) {
        let known = self.is_fresh(self.latency_at, now);
        self.latency =
            if known { self.latency + (seconds - self.latency) / ANSWERS } else { seconds };
        self.latency_at = Some(now);
        self.usual = match self.usual {
            0.0 => seconds,
            known if seconds > known => (known * USUAL_STEP).min(seconds),
            known => (known / USUAL_STEP).max(seconds),
        };
    }

    /// A place has become free, and whether requests waited for it.
    pub(super) fn ended(&mut self, waited_for: bool, now: Instant) {
        if let (Some(last), true) = (self.last, waited_for) {
            let gap = now.saturating_duration_since(last).as_secs_f64();
            if !self.is_fresh(self.gap_at, now) {
                self.gaps = 0.0;
            }
            self.gaps = (self.gaps + 1.0).min(ENDINGS);
            self.gap += (gap - self.gap) / self.gaps;
            self.gap_at = Some(now);
        }
        self.last = waited_for.then_some(now);
    }

    /// The queue has become empty: the next ending follows no other.
    pub(super) fn drained(&mut self) {
        self.last = None;
    }

    /// There are more or fewer workers now.
    pub(super) fn scaled(&mut self, before: usize, after: usize) {
        if before > 0 && after > 0 {
            self.gap *= before as f64 / after as f64;
        }
    }

    fn is_fresh(&self, at: Option<Instant>, now: Instant) -> bool {
        at.is_some_and(|at| now.saturating_duration_since(at) <= self.max_age)
    }

    /// The mean time from start to answer, in seconds, as far as that is of today.
    pub(super) fn latency(&self, now: Instant) -> f64 {
        if self.is_fresh(self.latency_at, now) { self.latency } else { 0.0 }
    }

    /// About the median of the same, however old; 0 before the first answer.
    pub(super) fn usual(&self) -> f64 {
        self.usual
    }

    /// The mean, however old; 0 before the first answer.
    pub(super) fn last_latency(&self) -> f64 {
        self.latency
    }

    /// How long one waits that comes after so many, in seconds.
    pub(super) fn wait(&self, ahead: usize, in_flight: usize, now: Instant) -> f64 {
        let known = self.gaps >= 8.0 && self.is_fresh(self.gap_at, now);
        let gap = if known { self.gap } else { self.latency(now) / in_flight.max(1) as f64 };
        let wait = (ahead + 1) as f64 * gap;
        // Where nothing ends any more, the wait is at least as long as that has lasted.
        let still = self.last.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        wait.max(still)
    }
}
