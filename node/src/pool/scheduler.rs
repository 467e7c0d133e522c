//! Decides which worker gets a request, which requests wait, and which are turned away.
//!
//! A plain value: `now` and the seed of its dice are arguments, and [`super`] carries out what it
//! says. It knows neither messages nor addresses; a request is a [`Ticket`], a worker a [`WorkerId`].
//!
//! Of two random workers with room, the one that will answer sooner gets the request: the one with
//! the smaller product of requests in flight (this one included) and its latency of late, which rises
//! at once with a slow answer and falls slowly ("power of two choices" over a peak-sensitive average:
//! nearly as good as asking all, in constant time, and two pools with the same view do not all run to
//! the same worker).
//!
//! # What always holds
//! - A ticket is started at most once, and ends by [`Scheduler::done`], [`Scheduler::cancel`],
//!   [`Scheduler::expire`] or the leaving of its worker, whichever is first. Later reports on it
//!   change nothing.
//! - A worker has at most [`Config::concurrency`] requests in flight, and at most [`Config::queue`]
//!   wait, those overdue but not yet collected by `expire` included.
//! - Nobody waits while a worker has room.
//!
//! Every operation takes time in the logarithm of the queue's length, for each request it moves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use self::responses::Responses;

mod config;
mod responses;

pub use config::{Config, ConfigError};

/// A worker's latency returns to the pool's mean with this time constant: long enough to spare a slow
/// worker, short enough to notice that it has recovered.
const FORGET: Duration = Duration::from_secs(10);
/// What a newcomer is credited with while the pool has answered nothing yet.
const FIRST_LATENCY: Duration = Duration::from_millis(1);
/// A worker that fails `n` times in a row counts as `n + 1` times as slow as the mean, up to this:
/// the queue of a good worker never looks worse than that.
const WORST_STREAK: u32 = 64;
/// The bounds of the advice when to come back.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// One request. Tickets of one scheduler are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// One worker, as its owner numbers it. A worker that comes back has a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// What becomes of a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It starts at once, on this worker.
    Start(Ticket, WorkerId),
    /// It waits.
    Queued(Ticket),
    /// It is turned away.
    Rejected(Rejection),
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No worker is there, and none is expected.
    Unavailable,
    /// The pool answers too slowly.
    Busy {
        /// The mean response time of late.
        mean: Duration,
        /// When to come back.
        retry_after: Duration,
    },
    /// The queue is full.
    Overloaded {
        /// How many requests wait.
        pending: usize,
        /// When to come back.
        retry_after: Duration,
    },
}

/// How a started request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The worker answered.
    Answered,
    /// The worker, or the way to it, failed.
    Failed,
    /// The deadline passed.
    TimedOut,
    /// The asker went away. Says nothing about the worker.
    Cancelled,
}

/// Counts since the pool began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Requests given to workers.
    pub started: u64,
    /// Of these, how many were answered.
    pub answered: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Of these, how many ran into their deadline.
    pub timed_out: u64,
    /// Of these, how many were given up by their askers.
    pub cancelled: u64,
    /// Of these, how many were with a worker when it left.
    pub orphaned: u64,
    /// Requests whose deadline passed while they waited.
    pub expired: u64,
    /// Requests given up by their askers while they waited.
    pub withdrawn: u64,
    /// Requests turned away as [`Rejection::Unavailable`].
    pub unavailable: u64,
    /// Requests turned away as [`Rejection::Busy`].
    pub busy: u64,
    /// Requests turned away as [`Rejection::Overloaded`].
    pub overloaded: u64,
}

/// What is known of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Which one.
    pub worker: WorkerId,
    /// How many requests it has now.
    pub in_flight: usize,
    /// Its latency of late, as dispatch sees it.
    pub latency: Duration,
    /// Whether it gets no new requests.
    pub draining: bool,
    /// How many requests it was given.
    pub started: u64,
    /// Of these, how many it answered.
    pub answered: u64,
}

struct Worker {
    tickets: HashSet<Ticket>,
    /// Seconds.
    latency: f64,
    /// When `latency` was last brought up to date.
    seen: Instant,
    /// Failures in a row.
    failures: u32,
    draining: bool,
    /// Where it stands in `Scheduler::open`, if it has room.
    open: Option<usize>,
    started: u64,
    answered: u64,
}

impl Worker {
    /// Its latency now: without news, it comes closer to the mean of the pool.
    fn latency(&self, mean: f64, now: Instant) -> f64 {
        let idle = now.saturating_duration_since(self.seen).as_secs_f64();
        mean + (self.latency - mean) * (-idle / FORGET.as_secs_f64()).exp()
    }

    fn cost(&self, mean: f64, now: Instant) -> f64 {
        (self.tickets.len() + 1) as f64 * self.latency(mean, now)
    }
}

struct InFlight {
    worker: WorkerId,
    arrived: Instant,
    started: Instant,
}

#[derive(Clone, Copy)]
struct Queued {
    arrived: Instant,
    deadline: Instant,
}

/// The scheduler of one pool. See the module's documentation.
///
/// Inputs are [`join`](Self::join), [`drain`](Self::drain), [`leave`](Self::leave),
/// [`set_expecting`](Self::set_expecting), [`request`](Self::request), [`done`](Self::done),
/// [`cancel`](Self::cancel) and [`expire`](Self::expire), the last of these to be called when
/// [`next_deadline`](Self::next_deadline) has come. Those that return pairs of a ticket and a worker
/// name the waiting requests that start now. `now` must not run backwards.
pub struct Scheduler {
    config: Config,
    dice: StdRng,
    expecting: bool,
    workers: HashMap<WorkerId, Worker>,
    /// The workers with room, in no order, so that one is picked in constant time.
    open: Vec<WorkerId>,
    draining: usize,
    in_flight: HashMap<Ticket, InFlight>,
    /// In the order of arrival, which is that of the tickets.
    queue: BTreeMap<Ticket, Queued>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// Passed over because their deadline had passed; to be collected by `expire`.
    overdue: BTreeMap<Ticket, Instant>,
    next_ticket: u64,
    responses: Responses,
    /// Seconds from start to answer, over all workers; 0 before the first answer.
    mean_latency: f64,
    /// Requests since the pool became busy.
    while_busy: u32,
    totals: Totals,
}

impl Scheduler {
    /// A pool without workers. The settings are taken as they are: see [`Config::validate`].
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            responses: Responses::new(config.responsiveness),
            config,
            dice: StdRng::seed_from_u64(seed),
            expecting: false,
            workers: HashMap::new(),
            open: Vec::new(),
            draining: 0,
            in_flight: HashMap::new(),
            queue: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            overdue: BTreeMap::new(),
            next_ticket: 0,
            mean_latency: 0.0,
            while_busy: 0,
            totals: Totals::default(),
        }
    }

    /// Whether workers are being started or restarted: requests then wait where there is none.
    pub fn set_expecting(&mut self, expecting: bool) {
        self.expecting = expecting;
    }

    /// A worker is ready. One that is known already is no longer drained.
    pub fn join(&mut self, worker: WorkerId, now: Instant) -> Vec<(Ticket, WorkerId)> {
        let mean = self.mean();
        let known = self.workers.entry(worker).or_insert_with(|| Worker {
            tickets: HashSet::new(),
            latency: mean,
            seen: now,
            failures: 0,
            draining: false,
            open: None,
            started: 0,
            answered: 0,
        });
        if std::mem::take(&mut known.draining) {
            self.draining -= 1;
        }
        self.update_open(worker);
        self.fill(now)
    }

    /// A worker gets no new requests; those it has go on.
    pub fn drain(&mut self, worker: WorkerId) {
        if let Some(known) = self.workers.get_mut(&worker)
            && !std::mem::replace(&mut known.draining, true)
        {
            self.draining += 1;
            self.update_open(worker);
        }
    }

    /// A worker is gone. Its requests are forgotten: their asks fail by themselves.
    pub fn leave(&mut self, worker: WorkerId, now: Instant) -> Vec<(Ticket, WorkerId)> {
        self.drain(worker);
        if let Some(gone) = self.workers.remove(&worker) {
            self.draining -= 1;
            self.totals.orphaned += gone.tickets.len() as u64;
            for ticket in gone.tickets {
                self.in_flight.remove(&ticket);
            }
        }
        self.fill(now)
    }

    /// A request arrives, of use until its deadline.
    pub fn request(&mut self, now: Instant, deadline: Instant) -> Decision {
        if self.is_without_workers() && !self.expecting {
            self.totals.unavailable += 1;
            return Decision::Rejected(Rejection::Unavailable);
        }
        if let Some(mean) = self.busy(now) {
            self.while_busy = self.while_busy.saturating_add(1);
            if self.while_busy < self.config.busy_pass_rate {
                self.totals.busy += 1;
                let retry_after = self.retry_after();
                return Decision::Rejected(Rejection::Busy { mean, retry_after });
            }
        }
        // Those that have waited come first; none has where a worker has room.
        if let Some(worker) = self.pick(now) {
            self.while_busy = 0;
            let ticket = self.new_ticket();
            self.start(ticket, worker, now, now);
            return Decision::Start(ticket, worker);
        }
        let pending = self.queue.len() + self.overdue.len();
        if pending >= self.config.queue {
            self.totals.overloaded += 1;
            let retry_after = self.retry_after();
            return Decision::Rejected(Rejection::Overloaded { pending, retry_after });
        }
        self.while_busy = 0;
        let ticket = self.new_ticket();
        self.queue.insert(ticket, Queued { arrived: now, deadline });
        self.deadlines.insert((deadline, ticket));
        Decision::Queued(ticket)
    }

    /// A started request has ended.
    pub fn done(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) -> Vec<(Ticket, WorkerId)> {
        let Some(InFlight { worker, arrived, started }) = self.in_flight.remove(&ticket) else {
            return Vec::new();
        };
        let total = match outcome {
            Outcome::Answered => &mut self.totals.answered,
            Outcome::Failed => &mut self.totals.failed,
            Outcome::TimedOut => &mut self.totals.timed_out,
            Outcome::Cancelled => &mut self.totals.cancelled,
        };
        *total += 1;
        if matches!(outcome, Outcome::Answered | Outcome::TimedOut) {
            self.responses.push(now, now.saturating_duration_since(arrived));
        }
        self.learn(worker, outcome, now, now.saturating_duration_since(started));
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.tickets.remove(&ticket);
        }
        self.update_open(worker);
        self.fill(now)
    }

    /// Withdraws a waiting request. `false` if it does not wait (any more).
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let deadline = match self.queue.remove(&ticket) {
            Some(queued) => Some(queued.deadline),
            None => self.overdue.remove(&ticket),
        };
        let Some(deadline) = deadline else { return false };
        self.deadlines.remove(&(deadline, ticket));
        self.totals.withdrawn += 1;
        true
    }

    /// Takes out the waiting requests whose deadline has passed.
    pub fn expire(&mut self, now: Instant) -> Vec<Ticket> {
        self.pass_over(now);
        let expired: Vec<_> = std::mem::take(&mut self.overdue).into_keys().collect();
        self.totals.expired += expired.len() as u64;
        expired
    }

    /// When to call [`expire`](Self::expire) next; it may be past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.deadlines.first().map(|(deadline, _)| *deadline);
        let overdue = self.overdue.first_key_value().map(|(_, deadline)| *deadline);
        waiting.into_iter().chain(overdue).min()
    }

    /// How many requests wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len() + self.overdue.len()
    }

    /// How many requests workers have.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The mean response time of late, from arrival to answer; zero where there was none.
    pub fn mean_response(&mut self, now: Instant) -> Duration {
        self.responses.mean(now)
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The counts since the beginning.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What is known of each worker, in no order.
    pub fn workers(&self, now: Instant) -> impl Iterator<Item = WorkerStats> {
        let mean = self.mean();
        self.workers.iter().map(move |(worker, state)| WorkerStats {
            worker: *worker,
            in_flight: state.tickets.len(),
            latency: Duration::from_secs_f64(state.latency(mean, now).max(0.0)),
            draining: state.draining,
            started: state.started,
            answered: state.answered,
        })
    }

    fn is_without_workers(&self) -> bool {
        self.workers.len() == self.draining
    }

    fn mean(&self) -> f64 {
        if self.mean_latency > 0.0 { self.mean_latency } else { FIRST_LATENCY.as_secs_f64() }
    }

    /// The mean response time, if it is too long.
    fn busy(&mut self, now: Instant) -> Option<Duration> {
        let mean = self.responses.mean(now);
        if self.config.responsiveness.is_some_and(|limit| mean >= limit) {
            return Some(mean);
        }
        self.while_busy = 0;
        None
    }

    /// About when what is here now will have been worked off.
    fn retry_after(&self) -> Duration {
        let able = self.workers.len() - self.draining;
        let places = (able * self.config.concurrency).max(1) as f64;
        let ahead = (self.pending() + self.in_flight.len()) as f64;
        let seconds = (ahead * self.mean() / places)
            .clamp(RETRY_AFTER.0.as_secs_f64(), RETRY_AFTER.1.as_secs_f64());
        Duration::from_secs_f64(seconds)
    }

    fn new_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// The better of two random workers with room.
    fn pick(&mut self, now: Instant) -> Option<WorkerId> {
        let count = self.open.len();
        if count < 2 {
            return self.open.first().copied();
        }
        let first = self.dice.random_range(0..count);
        // Any but the first.
        let second = (first + self.dice.random_range(1..count)) % count;
        let (first, second) = (self.open[first], self.open[second]);
        let mean = self.mean();
        let cost = |id: &WorkerId| self.workers.get(id).map_or(f64::MAX, |w| w.cost(mean, now));
        Some(if cost(&second) < cost(&first) { second } else { first })
    }

    fn start(&mut self, ticket: Ticket, worker: WorkerId, arrived: Instant, now: Instant) {
        self.in_flight.insert(ticket, InFlight { worker, arrived, started: now });
        self.totals.started += 1;
        if let Some(known) = self.workers.get_mut(&worker) {
            known.tickets.insert(ticket);
            known.started += 1;
        }
        self.update_open(worker);
    }

    /// Starts what waits, as far as there is room.
    fn fill(&mut self, now: Instant) -> Vec<(Ticket, WorkerId)> {
        let mut starts = Vec::new();
        if self.queue.is_empty() || self.open.is_empty() {
            return starts;
        }
        self.pass_over(now);
        while let Some((&ticket, &Queued { arrived, deadline })) = self.queue.first_key_value() {
            let Some(worker) = self.pick(now) else { break };
            self.queue.remove(&ticket);
            self.deadlines.remove(&(deadline, ticket));
            self.start(ticket, worker, arrived, now);
            starts.push((ticket, worker));
        }
        starts
    }

    /// Sets aside the waiting requests whose deadline has passed.
    fn pass_over(&mut self, now: Instant) {
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.remove(&(deadline, ticket));
            if let Some(queued) = self.queue.remove(&ticket) {
                self.overdue.insert(ticket, deadline);
                self.responses.push(now, now.saturating_duration_since(queued.arrived));
            }
        }
    }

    /// Keeps `open` right after a worker's load or state has changed.
    fn update_open(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        let has_room = !known.draining && known.tickets.len() < self.config.concurrency;
        match (known.open, has_room) {
            (None, true) => {
                known.open = Some(self.open.len());
                self.open.push(worker);
            }
            (Some(at), false) => {
                known.open = None;
                self.open.swap_remove(at);
                let moved = self.open.get(at).and_then(|moved| self.workers.get_mut(moved));
                if let Some(moved) = moved {
                    moved.open = Some(at);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Takes the end of a request into the latency of its worker and of the pool.
    fn learn(&mut self, worker: WorkerId, outcome: Outcome, now: Instant, took: Duration) {
        let mean = self.mean();
        let Some(worker) = self.workers.get_mut(&worker) else { return };
        let took = took.as_secs_f64();
        let (sample, weight) = match outcome {
            Outcome::Cancelled => return,
            Outcome::Answered => {
                worker.answered += 1;
                worker.failures = 0;
                let first = self.mean_latency == 0.0;
                self.mean_latency +=
                    (took - self.mean_latency) * if first { 1.0 } else { 1.0 / 16.0 };
                (took, 1.0 / 4.0)
            }
            // A worker that fails at once must not look like one that answers at once.
            Outcome::Failed | Outcome::TimedOut => {
                worker.failures = (worker.failures + 1).min(WORST_STREAK);
                (took.max(mean * f64::from(worker.failures + 1)), 1.0 / 4.0)
            }
        };
        let before = worker.latency(mean, now);
        worker.latency = if sample > before { sample } else { before + (sample - before) * weight };
        worker.seen = now;
    }
}

#[cfg(test)]
mod tests;
