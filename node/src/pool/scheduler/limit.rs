//! How many requests a worker is given at a time: enough to keep it at work, and no more.
//!
//! What a worker is given waits in its mailbox, where neither urgency nor fairness nor another worker
//! reaches it. So the limit follows what the worker can do side by side: where answers take twice as long
//! as those to requests that it had to itself, they wait for each other, and it gets fewer; otherwise more,
//! at first twice as many each time (TCP Vegas, with the slow start of TCP). Medians are compared, because
//! one slow request in a hundred moves a mean at will, and a minimum says nothing of what is usual.

use std::time::{Duration, Instant};

/// The most answers that one judgement is made from; four for each place where there are fewer.
const WINDOW: usize = 16;
/// Answers to wait for before the next rise, over the limit; twice as many each time that it was too much.
const HOLD: u32 = 256;
/// How much longer than alone may an answer take: by this share of it, and this time. So long a wait hurts
/// nobody; and what is short is carried in batches, which are the larger the more a worker may have.
const SHARE: f64 = 0.35;
const TOLERANCE: Duration = Duration::from_millis(3);
/// From this time on a worker gets the next request only after its answer, unless others wait: the way
/// there and back is short beside it.
const SLOW: Duration = Duration::from_millis(5);
/// Where no request had the worker to itself for so long, some are given to it one by one.
const STALE: Duration = Duration::from_secs(10);
/// So many.
const ALONE: u32 = 4;

/// Under which conditions a request was started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// The worker had nothing else.
    alone: bool,
    /// It had at least half of what it may have.
    near: bool,
    /// Of the limit; answers to what started under another one say nothing about it.
    epoch: u32,
}

#[derive(Debug)]
pub(super) struct Limit {
    most: usize,
    adaptive: bool,
    limit: usize,
    /// It doubles until it has been too much once.
    rising: bool,
    /// Answers to wait for before the next rise.
    hold: u32,
    /// How often that was in a row.
    failed: u32,
    /// About the median of what an answer takes that nothing else delays, in seconds; 0: not known.
    alone: f64,
    alone_seen: u32,
    alone_at: Instant,
    /// How many are still to be given one by one.
    measuring: u32,
    window: [f64; WINDOW],
    filled: usize,
    /// Somebody waited for a place at some time in the window.
    wanted: bool,
    epoch: u32,
}

impl Limit {
    pub(super) fn new(most: usize, adaptive: bool, now: Instant) -> Self {
        Self {
            most,
            adaptive,
            limit: if adaptive { 1 } else { most },
            rising: true,
            hold: 0,
            failed: 0,
            alone: 0.0,
            alone_seen: 0,
            alone_at: now,
            measuring: 0,
            window: [0.0; WINDOW],
            filled: 0,
            wanted: false,
            epoch: 0,
        }
    }

    pub(super) fn get(&self) -> usize {
        if self.measuring > 0 { 1 } else { self.limit }
    }

    /// How many more it may have while others wait anyway: where the limit is one, the next request is
    /// on its way before the answer to the last is back, so that the worker does not wait for it.
    pub(super) fn ahead(&self) -> usize {
        usize::from(self.limit == 1 && self.most > 1 && self.measuring == 0)
    }

    /// About the median of what an answer takes that nothing else delays, in seconds; 0: not known.
    pub(super) fn usual(&self) -> f64 {
        self.alone
    }

    /// What an answer will say of a request that starts while the worker has so many.
    pub(super) fn sample(&self, has: usize) -> Sample {
        // What is given ahead says nothing about the limit.
        let near = (has + 1) * 2 > self.limit && has < self.limit;
        Sample { alone: has == 0, near, epoch: self.epoch }
    }

    /// The worker answered after `took` seconds what was `sample`, and somebody waits for a place.
    pub(super) fn answered(&mut self, took: f64, sample: Sample, wanted: bool, now: Instant) {
        let Sample { alone, near, epoch } = sample;
        self.hold = self.hold.saturating_sub(1);
        if !self.adaptive || self.most == 1 {
            return;
        }
        if alone {
            self.learn(took, now);
            if self.measuring > 0 {
                self.measuring -= 1;
                if self.measuring == 0 {
                    self.rising = true;
                    self.set(self.limit);
                }
                return;
            }
        }
        self.wanted |= wanted;
        if epoch != self.epoch || self.measuring > 0 || !near {
            return;
        }
        self.window[self.filled] = took;
        self.filled += 1;
        if self.filled == WINDOW.min(4 * self.limit) {
            self.judge(now);
        }
    }

    /// The worker itself says that it has too much.
    pub(super) fn refused(&mut self) {
        if self.adaptive {
            self.rising = false;
            self.set((self.limit / 2).max(1));
        }
    }

    /// Steps towards the median: as often up as down is where it stays.
    fn learn(&mut self, took: f64, now: Instant) {
        let step = if self.alone_seen < WINDOW as u32 { 1.25 } else { 1.1 };
        self.alone = match self.alone {
            0.0 => took,
            known if took > known => (known * step).min(took),
            known => (known / step).max(took),
        };
        self.alone_seen = self.alone_seen.saturating_add(1);
        self.alone_at = now;
    }

    fn judge(&mut self, now: Instant) {
        let mut sorted = self.window;
        let sorted = &mut sorted[..self.filled];
        sorted.sort_unstable_by(f64::total_cmp);
        let usual = sorted[sorted.len() / 2];
        let wanted = self.wanted;
        self.renew();
        // Others can only delay an answer.
        if self.alone == 0.0 || usual < self.alone {
            self.alone = usual;
        }
        let bearable = self.alone * (1.0 + SHARE) + TOLERANCE.as_secs_f64();
        if usual <= bearable {
            if self.limit > 1 {
                self.failed = 0;
            }
            if wanted && self.limit < self.most {
                self.rise();
            }
            return;
        }
        self.rising = false;
        let least = if self.alone >= SLOW.as_secs_f64() { 1 } else { 2 };
        let fewer = (self.limit as f64 * (bearable / usual).max(0.5)) as usize;
        self.hold = (HOLD / self.limit as u32) << self.failed;
        self.failed = (self.failed + 1).min(4);
        self.set(fewer.clamp(least, self.most.max(least)).min(self.limit));
        if now.saturating_duration_since(self.alone_at) > STALE {
            self.measuring = ALONE;
            self.set(self.limit);
        }
    }

    fn rise(&mut self) {
        if self.rising {
            self.set((self.limit * 2).min(self.most));
        } else if self.hold == 0 {
            self.set(self.limit + 1);
        }
    }

    fn set(&mut self, limit: usize) {
        self.limit = limit;
        self.epoch = self.epoch.wrapping_add(1);
        self.renew();
    }

    fn renew(&mut self) {
        self.filled = 0;
        self.wanted = false;
    }
}
