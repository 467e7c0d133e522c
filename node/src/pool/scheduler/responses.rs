//! How long the pool took to answer, of late.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many answers the response time is averaged over.
const WINDOW: usize = 32;

/// The response times of late.
pub(super) struct Responses {
    /// When, and how long it had taken.
    last: VecDeque<(Instant, Duration)>,
    sum: Duration,
    /// Older ones say nothing about now, so that an idle pool recovers.
    max_age: Option<Duration>,
}

impl Responses {
    pub(super) fn new(responsiveness: Option<Duration>) -> Self {
        let max_age = responsiveness.map(|r| r.saturating_mul(2));
        Self { last: VecDeque::with_capacity(WINDOW), sum: Duration::ZERO, max_age }
    }

    pub(super) fn push(&mut self, now: Instant, took: Duration) {
        if self.last.len() == WINDOW {
            self.drop_oldest();
        }
        self.last.push_back((now, took));
        self.sum += took;
    }

    fn drop_oldest(&mut self) {
        if let Some((_, took)) = self.last.pop_front() {
            self.sum -= took;
        }
    }

    pub(super) fn mean(&mut self, now: Instant) -> Duration {
        while let (Some(max_age), Some((at, _))) = (self.max_age, self.last.front())
            && now.saturating_duration_since(*at) > max_age
        {
            self.drop_oldest();
        }
        let count = u32::try_from(self.last.len()).unwrap_or(u32::MAX);
        self.sum.checked_div(count).unwrap_or_default()
    }
}
