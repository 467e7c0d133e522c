//! What a pool shows of itself: to operators, as `layer-cake pool` and the mesh page have it, and to
//! Prometheus. Plain values: whoever has one may keep, compare and print it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Inner, Place, State,
    scheduler::{self, Histogram, Quantiles, Totals, WorkerId},
    seats::Seat,
};
use crate::{actor::Actor, clock};

/// Workers that a pool shows; of more only the number.
pub const MAX_SHOWN: usize = 256;

/// Upper bounds of the buckets in which times are shown, in milliseconds.
pub const BUCKETS_MS: [f64; 14] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4];

/// One pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// The type of its actors; of a pool of any type, what the members advertise.
    pub actor: String,
    /// How many workers take new requests.
    pub ready: usize,
    /// Its workers, and the seats of those that are to come back.
    pub workers: Vec<WorkerStatus>,
    /// Workers beyond [`MAX_SHOWN`].
    pub omitted: usize,
    /// How many requests wait in the pool.
    pub waiting: usize,
    /// How many requests workers have.
    pub in_flight: usize,
    /// How long a request would wait in the pool that came now.
    pub expected_wait_ms: f64,
    /// From the start on a worker to its answer.
    pub latency: Times,
    /// From arrival to start.
    pub queue_delay: Times,
    /// Counts since the pool began.
    pub totals: Totals,
    /// How many times a worker was replaced.
    pub restarts: u64,
}

/// How long something took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Times {
    /// How many times it was measured.
    pub count: u64,
    /// All of them together.
    pub sum_ms: f64,
    /// Half were not longer.
    pub p50_ms: f64,
    /// 95 of 100 were not longer.
    pub p95_ms: f64,
    /// 99 of 100 were not longer.
    pub p99_ms: f64,
    /// How many were not longer than each of [`BUCKETS_MS`], as far as buckets of an eighth can tell; empty
    /// where that is not kept.
    pub buckets: Vec<u64>,
}

/// One worker, or a seat that waits for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The number of its seat within the pool.
    #[serde(default)]
    pub seat: u64,
    /// The host and the node that it lives in, in hexadecimal digits; none while nobody has the seat.
    #[serde(default)]
    pub lives_in: Option<(String, String)>,
    /// What kind of worker it is.
    pub place: Place,
    /// The name under which it was found.
    pub name: Option<String>,
    /// Where it is: its path within this process, or its host, node and number.
    pub at: String,
    /// Its process, where the pool has started it.
    pub pid: Option<u32>,
    /// How it is.
    pub state: WorkerState,
    /// How many requests it has from this pool.
    pub in_flight: usize,
    /// How many it is given at a time at present.
    pub limit: usize,
    /// From the start of its requests to the answers.
    pub latency: Times,
    /// How many requests it was given, as all counts since it joined.
    pub started: u64,
    /// Of these, how many it answered.
    pub answered: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Of these, how many it would not take.
    pub refused: u64,
    /// How often it was left out for a while.
    pub ejected: u64,
    /// How many times its seat was filled again.
    pub restarts: u64,
    /// How many times in a row the worker of this seat has ended early.
    pub early_ends: u32,
    /// How the last one ended.
    pub last_end: Option<String>,
    /// When the next one is started.
    pub back_in_ms: Option<u64>,
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// It gets no new requests, and finishes those that it has.
    Draining,
    /// It is being started.
    Starting,
    /// It has ended, and is started again after a while.
    StandingDown,
}

impl std::fmt::Display for WorkerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::Resting => "resting",
            Self::Failing => "failing",
            Self::Silent => "silent",
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::StandingDown => "standing down",
        })
    }
}

impl From<scheduler::WorkerState> for WorkerState {
    fn from(state: scheduler::WorkerState) -> Self {
        match state {
            scheduler::WorkerState::Serving => Self::Serving,
            scheduler::WorkerState::Resting => Self::Resting,
            scheduler::WorkerState::Failing => Self::Failing,
            scheduler::WorkerState::Silent => Self::Silent,
            scheduler::WorkerState::Draining => Self::Draining,
        }
    }
}

fn ms(time: Duration) -> f64 {
    // In steps of a microsecond, so that it reads well.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl From<Quantiles> for Times {
    fn from(of: Quantiles) -> Self {
        Self {
            count: of.count,
            sum_ms: ms(of.sum),
            p50_ms: ms(of.p50),
            p95_ms: ms(of.p95),
            p99_ms: ms(of.p99),
            buckets: Vec::new(),
        }
    }
}

impl Times {
    fn with_buckets(of: &Histogram) -> Self {
        let bound = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let buckets = BUCKETS_MS.iter().map(|ms| of.up_to(bound(*ms))).collect();
        Self { buckets, ..of.quantiles().into() }
    }
}

impl<A: Actor> Inner<A> {
    pub(super) fn status(&self) -> PoolStatus {
        let now = clock::now();
        let state = self.state.lock();
        let mut status = state.status(now);
        drop(state);
        status.name.clone_from(&self.name);
        self.api.actor.clone_into(&mut status.actor);
        status
    }
}

impl<A: Actor> State<A> {
    fn status(&self, now: Instant) -> PoolStatus {
        let known: HashMap<WorkerId, _> =
            self.scheduler.workers(now).map(|worker| (worker.worker, worker)).collect();
        let workers = self.seats.all.iter().take(MAX_SHOWN).map(|(number, seat)| {
            let worker = seat.worker.and_then(|worker| known.get(&worker));
            seat.status(*number, worker, now)
        });
        PoolStatus {
            name: String::new(),
            actor: String::new(),
            ready: self.able(),
            workers: workers.collect(),
            omitted: self.seats.all.len().saturating_sub(MAX_SHOWN),
            waiting: self.scheduler.pending(),
            in_flight: self.scheduler.in_flight(),
            expected_wait_ms: ms(self.scheduler.expected_wait(now)),
            latency: Times::with_buckets(self.scheduler.latencies()),
            queue_delay: Times::with_buckets(self.scheduler.queue_delays()),
            totals: self.scheduler.totals(),
            restarts: self.seats.restarts,
        }
    }
}

impl Seat {
    fn status(
        &self,
        seat: u64,
        worker: Option<&scheduler::WorkerView>,
        now: Instant,
    ) -> WorkerStatus {
        let left = self.back.map(|back| back.saturating_duration_since(now).as_millis());
        let state = match worker {
            Some(worker) => worker.state.into(),
            None if self.back.is_some() => WorkerState::StandingDown,
            None => WorkerState::Starting,
        };
        WorkerStatus {
            seat,
            lives_in: self.peer.map(|peer| (peer.host.to_string(), peer.node.to_string())),
            place: self.place,
            name: self.name.clone(),
            at: self.at.clone(),
            pid: self.pid.filter(|_| worker.is_some()),
            state,
            in_flight: worker.map_or(0, |worker| worker.in_flight),
            limit: worker.map_or(0, |worker| worker.limit),
            latency: worker.map(|worker| worker.latency.into()).unwrap_or_default(),
            started: worker.map_or(0, |worker| worker.started),
            answered: worker.map_or(0, |worker| worker.answered),
            failed: worker.map_or(0, |worker| worker.failed),
            refused: worker.map_or(0, |worker| worker.refused),
            ejected: worker.map_or(0, |worker| worker.ejected),
            restarts: self.restarts,
            early_ends: self.early_ends,
            last_end: self.last_end.clone(),
            back_in_ms: left.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
        }
    }
}
