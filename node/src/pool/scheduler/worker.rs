//! What is known of one worker: its load, its latency of late, and whether it is well.

use std::time::{Duration, Instant};

use super::{
    chain::Chain,
    histogram::Histogram,
    limit::Limit,
    terms::{Distance, WorkerId, WorkerInfo},
};

/// A worker's latency returns to the pool's mean with this time constant: long enough to spare a slow
/// worker, short enough to notice that it has recovered.
const FORGET: Duration = Duration::from_secs(10);
/// Answers that the time from one to the next is a mean of.
const STEPS: f64 = 16.0;
/// For so long a latency is news.
const FRESH: Duration = Duration::from_millis(1);
/// A worker that fails `n` times in a row counts as `n + 1` times as slow as the mean, up to this.
const WORST_STREAK: u32 = 64;
/// The share of the last answers that a failure counts for.
const FAILURE_WEIGHT: f64 = 1.0 / 8.0;
/// Of so many answers a rate of failures is made.
const RATED: u32 = 20;
/// Failures in a row, or the rate of failures, from which on a worker is suspect.
const STREAK: u32 = 5;
const RATE: f64 = 0.5;
/// By so much its rate of failures must be above that of the others: what fails everywhere is no fault
/// of the worker.
const ABOVE_OTHERS: f64 = 0.3;
/// The shortest and the longest time for which a worker is left out.
const OUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// After so long in service, the next time begins at the shortest again.
const FORGIVEN: Duration = Duration::from_secs(60);
/// How long a worker is spared that refused a request; twice as long each time in a row.
const REST: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The share of a newcomer's latency that is believed at first.
const FIRST_SHARE: f64 = 0.1;

/// Whether a worker is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// It refused a request, and is spared until then.
    Resting(Instant),
    /// It fails or is silent, and is left out until then.
    Out(Instant, Why),
    /// It is to be given one request, to see how it is.
    Due(Why),
    /// It has that request.
    Probed(Why),
}

/// What room a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It has nothing to do.
    Idle,
    /// It has less than its limit.
    Some,
    /// It may have one more while others wait anyway.
    Ahead,
}

impl Room {
    pub(super) const COUNT: usize = 3;
}

/// Why a worker is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Fails,
    Silent,
}

pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) distance: Distance,
    pub(super) identity: u64,
    pub(super) limit: Limit,
    /// Its requests, in the order in which they were started.
    pub(super) requests: Chain,
    pub(super) draining: bool,
    pub(super) health: Health,
    /// Where it stands among those with room, if it has some.
    pub(super) open: Option<(Room, usize)>,
    /// Since when it is (again) in service.
    pub(super) since: Instant,
    /// Seconds.
    latency: f64,
    /// Whether that was ever measured; it is a credit before.
    known: bool,
    /// When `latency` was last brought up to date.
    seen: Instant,
    /// When it last gave any answer.
    pub(super) answered_at: Instant,
    /// Seconds from one answer to the next while it has something to do, a mean of late; 0: not known.
    pub(super) step: f64,
    /// Seconds for which requests waited in vain since then, those not counted that wait now.
    in_vain: f64,
    /// Failures in a row.
    failures: u32,
    /// The share of failures of late.
    failing: f64,
    rated: u32,
    refusals: u32,
    /// How often it was left out without a long time in service between.
    ejections: u32,
    pub(super) times: Histogram,
    pub(super) counts: Counts,
}

/// What one worker has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) started: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) ejected: u64,
}

impl Worker {
    pub(super) fn new(
        id: WorkerId,
        info: WorkerInfo,
        limit: Limit,
        latency: f64,
        now: Instant,
    ) -> Self {
        Self {
            id,
            distance: info.distance,
            identity: info.identity,
            limit,
            requests: Chain::default(),
            draining: false,
            health: Health::Well,
            open: None,
            since: now,
            latency,
            known: false,
            seen: now,
            answered_at: now,
            step: 0.0,
            in_vain: 0.0,
            failures: 0,
            failing: 0.0,
            rated: 0,
            refusals: 0,
            ejections: 0,
            times: Histogram::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn room(&self) -> Option<Room> {
        let (has, limit) = (self.in_flight(), self.limit.get());
        match has {
            _ if self.draining || self.health != Health::Well => None,
            0 => Some(Room::Idle),
            _ if has < limit => Some(Room::Some),
            _ if has < limit + self.limit.ahead() => Some(Room::Ahead),
            _ => None,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        matches!(self.health, Health::Out(..) | Health::Due(_) | Health::Probed(_))
    }

    /// Its latency now, in seconds: without news, it comes closer to the mean of the pool. Before its first
    /// answer it is at most that, or it might never be tried.
    pub(super) fn latency(&self, mean: f64, now: Instant) -> f64 {
        if !self.known {
            return self.latency.min(mean);
        }
        if now < self.seen + FRESH {
            return self.latency;
        }
        let idle = now.saturating_duration_since(self.seen).as_secs_f64();
        mean + (self.latency - mean) * (-idle / FORGET.as_secs_f64()).exp()
    }

    /// How long an answer may take: the requests that it has, this one, and what it takes for each. One
    /// that has kept a request for longer than it takes otherwise will not be faster with the next.
    pub(super) fn cost(
        &self,
        oldest: Option<Instant>,
        mean: f64,
        slow_start: Duration,
        now: Instant,
    ) -> f64 {
        let age = oldest.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let each = self.latency(mean, now).max(age);
        let until = self.since.checked_add(slow_start);
        let share = if until.is_none_or(|until| now < until) {
            let served = now.saturating_duration_since(self.since);
            (served.as_secs_f64() / slow_start.as_secs_f64()).max(FIRST_SHARE)
        } else {
            1.0
        };
        (self.in_flight() + 1) as f64 * each * self.distance.bias() / share
    }

    /// For how many seconds requests have waited without any answer.
    pub(super) fn silence(&self, oldest: Option<Instant>, now: Instant) -> f64 {
        let since = oldest.map(|oldest| oldest.max(self.answered_at));
        let waits = since.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.in_vain + waits
    }

    /// Takes a time from start to answer into the latency: up at once, down slowly.
    fn learn(&mut self, took: f64, mean: f64, now: Instant) {
        let before = self.latency(mean, now);
        let at_once = took > before || !self.known;
        self.latency = if at_once { took } else { before + (took - before) / 4.0 };
        self.known = true;
        self.seen = now;
    }

    pub(super) fn on_answer(&mut self, took: Duration, mean: f64, now: Instant) {
        self.counts.answered += 1;
        let step = now.saturating_duration_since(self.answered_at).min(took).as_secs_f64();
        self.step = if self.step == 0.0 { step } else { self.step + (step - self.step) / STEPS };
        self.heard(now);
        self.failures = 0;
        self.rate(0.0);
        self.learn(took.as_secs_f64(), mean, now);
        self.times.add(took);
    }

    pub(super) fn on_failure(&mut self, took: Duration, mean: f64, now: Instant) {
        self.counts.failed += 1;
        self.heard(now);
        self.failures = self.failures.saturating_add(1);
        self.rate(1.0);
        // One that fails at once must not look like one that answers at once.
        let streak = f64::from(self.failures.min(WORST_STREAK) + 1);
        self.learn(took.as_secs_f64().max(mean * streak), mean, now);
    }

    /// A request has waited in vain: until its deadline, or until another worker answered it.
    pub(super) fn on_silence(&mut self, since: Instant, mean: f64, now: Instant) {
        let since = since.max(self.answered_at);
        self.in_vain += now.saturating_duration_since(since).as_secs_f64();
        let took = now.saturating_duration_since(since).as_secs_f64();
        self.learn(took.max(self.latency(mean, now)), mean, now);
    }

    /// It would not take a request. Returns for how long it is spared.
    pub(super) fn on_refusal(&mut self, now: Instant) -> Duration {
        self.counts.refused += 1;
        self.heard(now);
        self.refusals = (self.refusals + 1).min(16);
        self.limit.refused();
        (REST.0 * (1 << (self.refusals - 1))).min(REST.1)
    }

    /// It took the request after all.
    pub(super) fn accepts(&mut self) {
        self.refusals = 0;
    }

    fn heard(&mut self, now: Instant) {
        self.answered_at = now;
        self.in_vain = 0.0;
    }

    fn rate(&mut self, failed: f64) {
        self.failing += (failed - self.failing) * FAILURE_WEIGHT;
        self.rated = (self.rated + 1).min(RATED);
    }

    /// The share of failures of late.
    pub(super) fn failing(&self) -> f64 {
        self.failing
    }

    /// Whether it fails so often that the others are worth a look.
    pub(super) fn is_failing(&self) -> bool {
        self.failures >= STREAK || self.rated == RATED && self.failing >= RATE
    }

    /// Whether it fails more than the others do.
    pub(super) fn is_worse_than(&self, others: f64) -> bool {
        self.failing >= others + ABOVE_OTHERS
    }

    /// It is to be left out for a while; `jitter` is from 0 to 1.
    pub(super) fn eject(&mut self, why: Why, jitter: f64, now: Instant) -> Health {
        if now.saturating_duration_since(self.since) > FORGIVEN {
            self.ejections = 0;
        }
        let time = OUT.0.saturating_mul(1 << self.ejections.min(10)).min(OUT.1);
        let until = now + time.mul_f64(0.75 + jitter / 2.0);
        self.ejections += 1;
        self.counts.ejected += 1;
        Health::Out(until, why)
    }

    /// Forgets why it was left out: it is in service again, with little at first.
    pub(super) fn restore(&mut self, now: Instant) {
        self.since = now;
        self.answered_at = now;
        self.in_vain = 0.0;
        self.failures = 0;
        self.failing = 0.0;
        self.rated = 0;
    }
}
