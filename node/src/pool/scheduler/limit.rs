//! How many requests a worker is given at a time: enough to keep it at work, and no more.
//!
//! What a worker is given waits in its mailbox, where neither urgency nor fairness nor another worker
//! reaches it. So the limit follows what the worker can do side by side: where answers take twice as long
//! as those to requests that it had to itself, they wait for each other, and it gets fewer; otherwise more,
//! at first twice as many each time (TCP Vegas, with the slow start of TCP). Medians are compared, because
//! one slow request in a hundred moves a mean at will, and a minimum says nothing of what is usual.

use std::time::{Duration, Instant};

/// Answers that one judgement is made from.
const WINDOW: usize = 16;
/// How much longer than alone may an answer take: half of it, and this.
const TOLERANCE: Duration = Duration::from_millis(1);
/// From this time on a worker gets the next request only after its answer: the way there and back is
/// short beside it.
const SLOW: Duration = Duration::from_millis(5);
/// Where no request had the worker to itself for so long, some are given to it one by one.
const STALE: Duration = Duration::from_secs(10);
/// So many.
const ALONE: u32 = 4;
/// What a new worker is given before anything is known of it.
const FIRST: usize = 4;

#[derive(Debug)]
pub(super) struct Limit {
    most: usize,
    adaptive: bool,
    limit: usize,
    /// It doubles until it has been too much once.
    rising: bool,
    /// Windows to wait before the next rise.
    hold: u32,
    /// About the median of what an answer takes that nothing else delays, in seconds; 0: not known.
    alone: f64,
    alone_seen: u32,
    alone_at: Instant,
    /// How many are still to be given one by one.
    measuring: u32,
    window: [f64; WINDOW],
    filled: usize,
    /// All places were taken at some time in the window.
    full: bool,
    epoch: u32,
}

impl Limit {
    pub(super) fn new(most: usize, adaptive: bool, now: Instant) -> Self {
        Self {
            most,
            adaptive,
            limit: if adaptive { most.min(FIRST) } else { most },
            rising: true,
            hold: 0,
            alone: 0.0,
            alone_seen: 0,
            alone_at: now,
            measuring: 0,
            window: [0.0; WINDOW],
            filled: 0,
            full: false,
            epoch: 0,
        }
    }

    pub(super) fn get(&self) -> usize {
        if self.measuring > 0 { 1 } else { self.limit }
    }

    /// Of the present limit; answers to what started under another one say nothing about it.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The worker has as many requests as it may have.
    pub(super) fn reached(&mut self) {
        self.full = true;
    }

    /// The worker answered after `took` seconds.
    pub(super) fn answered(&mut self, took: f64, alone: bool, epoch: u32, now: Instant) {
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
        if epoch != self.epoch || self.measuring > 0 {
            return;
        }
        self.window[self.filled] = took;
        self.filled += 1;
        if self.filled == WINDOW {
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
        sorted.sort_unstable_by(f64::total_cmp);
        let usual = sorted[WINDOW / 2];
        let full = self.full;
        self.renew();
        // Others can only delay an answer.
        if self.alone == 0.0 || usual < self.alone {
            self.alone = usual;
        }
        let bearable = self.alone * 1.5 + TOLERANCE.as_secs_f64();
        if usual <= bearable {
            if full && self.limit < self.most {
                self.rise();
            }
            return;
        }
        self.rising = false;
        let least = if self.alone >= SLOW.as_secs_f64() { 1 } else { 2 };
        let fewer = (self.limit as f64 * (bearable / usual).max(0.5)) as usize;
        self.hold = (WINDOW / self.limit.clamp(1, WINDOW)) as u32;
        self.set(fewer.clamp(least, self.most.max(least)).min(self.limit));
        if now.saturating_duration_since(self.alone_at) > STALE {
            self.measuring = ALONE;
            self.set(self.limit);
        }
    }

    fn rise(&mut self) {
        if self.rising {
            self.set((self.limit * 2).min(self.most));
        } else if self.hold > 0 {
            self.hold -= 1;
        } else {
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
        self.full = false;
    }
}
