//! What a pool shows of itself.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    Scheduler,
    histogram::{Histogram, Quantiles},
    terms::{Distance, WorkerId},
    worker::{Health, Why, Worker},
};

/// Counts since the pool began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Totals {
    /// Requests given to workers, hedges and repetitions included.
    pub started: u64,
    /// Of these, how many were answered.
    pub answered: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Of these, how many the worker would not take.
    pub refused: u64,
    /// Of these, how many ran into their deadline.
    pub timed_out: u64,
    /// Of these, how many another worker answered sooner.
    pub outrun: u64,
    /// Of these, how many were given up by their askers.
    pub cancelled: u64,
    /// Of these, how many were with a worker when it left.
    pub orphaned: u64,
    /// Requests whose deadline passed while they waited.
    pub expired: u64,
    /// Requests given up by their askers while they waited.
    pub withdrawn: u64,
    /// Requests that had waited, and gave way to fresh ones as `Busy`.
    pub shed: u64,
    /// Requests that had waited, and gave way to those of other callers as `Overloaded`.
    pub displaced: u64,
    /// Requests turned away as `Unavailable`.
    pub unavailable: u64,
    /// Requests turned away as `Busy`.
    pub busy: u64,
    /// Requests turned away as `Overloaded`.
    pub overloaded: u64,
    /// Requests that came again because their worker was lost or refused them.
    pub repeated: u64,
    /// Requests that were not repeated because the budget for that was used up.
    pub not_repeated: u64,
    /// Requests given to a second worker because the first took long.
    pub hedged: u64,
    /// Workers left out for a while.
    pub ejected: u64,
}

impl Totals {
    /// How requests that workers were given have ended.
    #[must_use]
    pub fn requests(&self) -> [(&'static str, u64); 7] {
        [
            ("answered", self.answered),
            ("failed", self.failed),
            ("refused", self.refused),
            ("timed_out", self.timed_out),
            ("outrun", self.outrun),
            ("cancelled", self.cancelled),
            ("orphaned", self.orphaned),
        ]
    }

    /// Requests that no worker was given, by the reason.
    #[must_use]
    pub fn rejections(&self) -> [(&'static str, u64); 7] {
        [
            ("unavailable", self.unavailable),
            ("busy", self.busy),
            ("overloaded", self.overloaded),
            ("shed", self.shed),
            ("displaced", self.displaced),
            ("expired", self.expired),
            ("withdrawn", self.withdrawn),
        ]
    }

    /// Requests that a second worker was given, and those that were not, for want of budget.
    #[must_use]
    pub fn repetitions(&self) -> [(&'static str, u64); 3] {
        [("repeated", self.repeated), ("hedged", self.hedged), ("not_repeated", self.not_repeated)]
    }
}

/// Whether a worker is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerState {
    /// It gets requests.
    Serving,
    /// It refused a request, and is spared for a moment.
    Resting,
    /// It fails, and is left out but for one request now and then.
    Failing,
    /// It does not answer, and is left out but for one request now and then.
    Silent,
    /// It gets no new requests, because it is about to leave.
    Draining,
}

/// How one worker is now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerView {
    /// Which one.
    pub worker: WorkerId,
    /// How far away it is.
    pub distance: Distance,
    /// Whether it is used.
    pub state: WorkerState,
    /// How many requests it has.
    pub in_flight: usize,
    /// How many it is given at a time at present.
    pub limit: usize,
    /// Its latency of late, as dispatch sees it.
    pub expected_latency: Duration,
    /// For how long it has answered nothing although it has requests; zero where it has none.
    pub silent_for: Duration,
    /// From the start of its requests to the answers.
    pub latency: Quantiles,
    /// The share of failures among its last answers.
    pub failing: f64,
    /// How many requests it was given.
    pub started: u64,
    /// Of these, how many it answered.
    pub answered: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Of these, how many it would not take.
    pub refused: u64,
    /// How often it was left out for a while.
    pub ejected: u64,
}

impl Scheduler {
    /// The counts since the beginning.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// From start to answer, since the beginning.
    #[must_use]
    pub fn latencies(&self) -> &Histogram {
        &self.times
    }

    /// From arrival to start, since the beginning.
    #[must_use]
    pub fn queue_delays(&self) -> &Histogram {
        &self.queue_delay
    }

    /// How many requests a worker has answered.
    #[must_use]
    pub fn answered_by(&self, worker: WorkerId) -> u64 {
        let known = self.ids.get(&worker).and_then(|at| self.worker(*at));
        known.map_or(0, |known| known.counts.answered)
    }

    /// What is known of each worker, in no order.
    pub fn workers(&self, now: Instant) -> impl Iterator<Item = WorkerView> {
        let mean = self.mean();
        let silence = move |worker: &Worker| {
            let oldest = worker.requests.first().map(|oldest| self.slots[oldest].started);
            Duration::try_from_secs_f64(worker.silence(oldest, now)).unwrap_or_default()
        };
        self.workers.iter().flatten().map(move |worker| WorkerView {
            silent_for: silence(worker),
            worker: worker.id,
            distance: worker.distance,
            state: match worker.health {
                _ if worker.draining => WorkerState::Draining,
                Health::Well => WorkerState::Serving,
                Health::Resting(_) => WorkerState::Resting,
                Health::Out(_, why) | Health::Due(why) | Health::Probed(why) => match why {
                    Why::Fails => WorkerState::Failing,
                    Why::Silent => WorkerState::Silent,
                },
            },
            in_flight: worker.in_flight(),
            limit: worker.limit.get(),
            expected_latency: Duration::try_from_secs_f64(worker.latency(mean, now))
                .unwrap_or_default(),
            latency: worker.times.quantiles(),
            failing: worker.failing(),
            started: worker.counts.started,
            answered: worker.counts.answered,
            failed: worker.counts.failed,
            refused: worker.counts.refused,
            ejected: worker.counts.ejected,
        })
    }
}
