//! Decides which worker gets a request, which requests wait, and which are turned away.
//!
//! A plain value: `now` and the seed of its dice are arguments, and [`super`] carries out what it
//! says. It knows neither messages nor addresses; a request is a [`Ticket`], a worker a [`WorkerId`].
//! `docs/pools.md` says why each part is as it is, and shows it at work.
//!
//! - `choice`: the worker that will answer soonest; workers that fail or are silent are left out.
//! - `limit`: how many requests each worker has at a time.
//! - `queue`: who waits, and who is next.
//! - `pace`: how long a newcomer would wait; here it is admitted or not.
//!
//! # What always holds
//! - A ticket is started at most once, and ends by [`Scheduler::done`], [`Scheduler::cancel`], by
//!   [`Moves::ends`] or by the leaving of its worker, whichever is first. Later reports on it change
//!   nothing.
//! - A worker is given a request only while it has fewer than its limit, which is at most
//!   [`Config::concurrency`], or to see whether it is well again; at most [`Config::queue`] wait.
//! - Nobody waits while a worker that is used has room, unless that is so slow that waiting for another one
//!   is sooner; nor where no worker is there or expected. At least half of the workers are used.
//! - What is started has not reached its deadline.
//!
//! Every operation takes time in the logarithm of the queue's length, for each request it moves; one with a
//! key in the number of workers.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use self::{
    budget::Budget,
    limit::Limit,
    pace::Pace,
    queue::Queue,
    slots::{Place, Slots},
    worker::{Health, Room, Why, Worker},
};

mod budget;
mod chain;
mod choice;
mod config;
mod histogram;
mod limit;
mod pace;
mod queue;
mod slots;
mod terms;
mod view;
mod worker;

pub use config::{Config, ConfigError};
pub use histogram::{Histogram, Quantiles};
pub use terms::{
    Decision, Distance, Moves, Outcome, Priority, Rejection, Request, Ticket, WorkerId, WorkerInfo,
};
pub use view::{Totals, WorkerState, WorkerView};

/// What a newcomer is credited with while the pool has answered nothing yet.
const FIRST_LATENCY: Duration = Duration::from_millis(1);
/// The bounds of the advice when to come back.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Knowledge is of today for twice the responsiveness, or without one for so long.
const MAX_AGE: Duration = Duration::from_secs(10);
/// The shares of the responsiveness for which requests may have to wait: in a burst, and always.
const BURST: f64 = 0.75;
const STANDING: f64 = 0.5;
/// So many times the responsiveness is late: then what was expected is not so any more.
const LATE: u32 = 2;
/// Retries and hedges that are always allowed, each second.
const RETRIES_A_SECOND: f64 = 3.0;
const HEDGES_A_SECOND: f64 = 1.0;
/// Answers between two looks at the tail, and after which the older ones weigh half.
const TAIL_LOOK: u64 = 64;
const TAIL_FADE: u64 = 4096;

/// The scheduler of one pool. See the module's documentation.
///
/// Inputs are [`join`](Self::join), [`drain`](Self::drain), [`leave`](Self::leave),
/// [`set_expecting`](Self::set_expecting), [`request`](Self::request), [`done`](Self::done),
/// [`cancel`](Self::cancel), [`hedge`](Self::hedge) and [`expire`](Self::expire), the last of these to be
/// called when [`next_deadline`](Self::next_deadline) has come. [`Moves`] name the waiting requests that
/// start or end now. `now` must not run backwards.
pub struct Scheduler {
    config: Config,
    dice: StdRng,
    expecting: bool,
    workers: Vec<Option<Worker>>,
    /// Places in `workers` that are free.
    vacant: Vec<u32>,
    ids: HashMap<WorkerId, u32>,
    /// The workers with room, by distance and by how much they have, otherwise in no order, so that one is
    /// picked in constant time.
    open: [[Vec<u32>; Room::COUNT]; Distance::COUNT],
    /// Workers that are not draining, and how many of them are left out.
    able: usize,
    out: usize,
    /// Workers to be given one request each.
    due: VecDeque<u32>,
    /// When something changes for a worker that is spared or left out.
    wakes: BTreeSet<(Instant, u32)>,
    slots: Slots,
    queue: Queue,
    /// Since when somebody has waited.
    standing: Option<Instant>,
    /// Whether that is for longer than a passing crowd takes.
    crowded: bool,
    /// When somebody who waits for a better worker takes what there is.
    reconsider: Option<Instant>,
    in_flight: usize,
    pace: Pace,
    /// Requests since the pool became busy.
    while_busy: u32,
    retries: Budget,
    hedges: Budget,
    /// What answers took of late, and what one takes that is late.
    recent: Histogram,
    tail: Option<Duration>,
    /// The worker that was last given a request.
    last: Option<u32>,
    /// How many workers of this host can be at work at a time.
    processors: usize,
    times: Histogram,
    queue_delay: Histogram,
    totals: Totals,
}

impl Scheduler {
    /// A pool without workers. The settings are taken as they are: see [`Config::validate`].
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let max_age = config.responsiveness.map_or(MAX_AGE, |target| target.saturating_mul(2));
        Self {
            dice: StdRng::seed_from_u64(seed),
            expecting: false,
            workers: Vec::new(),
            vacant: Vec::new(),
            ids: HashMap::new(),
            open: Default::default(),
            able: 0,
            out: 0,
            due: VecDeque::new(),
            wakes: BTreeSet::new(),
            slots: Slots::default(),
            queue: Queue::new(config.responsiveness.map(|target| target.saturating_mul(LATE))),
            standing: None,
            crowded: false,
            reconsider: None,
            in_flight: 0,
            pace: Pace::new(max_age),
            while_busy: 0,
            retries: Budget::new(config.retries, RETRIES_A_SECOND),
            hedges: Budget::new(config.hedges, HEDGES_A_SECOND),
            recent: Histogram::default(),
            tail: None,
            last: None,
            processors: usize::MAX,
            times: Histogram::default(),
            queue_delay: Histogram::default(),
            totals: Totals::default(),
            config,
        }
    }

    /// On a host with so many processors. More of its workers than these need not be at work at a time: short
    /// requests are then given to fewer, several in a row. As many as there are workers, unless it is said.
    #[must_use]
    pub fn with_processors(self, processors: usize) -> Self {
        Self { processors, ..self }
    }

    /// Whether workers are being started or restarted: requests then wait where there is none.
    pub fn set_expecting(&mut self, expecting: bool, now: Instant) -> Moves {
        self.expecting = expecting;
        self.moves(now)
    }

    /// A worker is ready. One that is known already is no longer drained.
    pub fn join(&mut self, worker: WorkerId, info: WorkerInfo, now: Instant) -> Moves {
        let able = self.able;
        if let Some(&at) = self.ids.get(&worker) {
            if let Some(known) = self.worker_mut(at)
                && std::mem::take(&mut known.draining)
            {
                let (out, health) = (known.is_out(), known.health);
                self.able += 1;
                self.out += usize::from(out);
                // Where it was due, it is again.
                self.set_health(at, health);
                self.relent(now);
            }
        } else {
            let most = info.concurrency.unwrap_or(self.config.concurrency).max(1);
            let limit = Limit::new(most, self.config.adaptive, now);
            let known = Worker::new(worker, info, limit, self.mean(), now);
            let at = match self.vacant.pop() {
                Some(at) => {
                    self.workers[at as usize] = Some(known);
                    at
                }
                None => {
                    self.workers.push(Some(known));
                    (self.workers.len() - 1) as u32
                }
            };
            self.ids.insert(worker, at);
            self.able += 1;
            self.update_open(at);
        }
        self.pace.scaled(able, self.able);
        self.moves(now)
    }

    /// A worker gets no new requests; those it has go on.
    pub fn drain(&mut self, worker: WorkerId, now: Instant) -> Moves {
        let Some(&at) = self.ids.get(&worker) else { return Moves::default() };
        if let Some(known) = self.worker_mut(at)
            && !std::mem::replace(&mut known.draining, true)
        {
            let out = known.is_out();
            self.pace.scaled(self.able, self.able - 1);
            self.able -= 1;
            self.out -= usize::from(out);
            self.due.retain(|due| *due != at);
            self.update_open(at);
            self.relent(now);
        }
        self.moves(now)
    }

    /// A worker is gone. Its requests are forgotten: their asks fail by themselves.
    pub fn leave(&mut self, worker: WorkerId, now: Instant) -> Moves {
        let mut moves = self.drain(worker, now);
        let Some(at) = self.ids.remove(&worker) else { return moves };
        self.set_health(at, Health::Well);
        while let Some(slot) = self.worker(at).and_then(|known| known.requests.first()) {
            self.take_back(at, slot);
            self.totals.orphaned += 1;
        }
        self.close(at);
        self.workers[at as usize] = None;
        self.vacant.push(at);
        let more = self.moves(now);
        moves.starts.extend(more.starts);
        moves.ends.extend(more.ends);
        moves
    }

    /// A request arrives.
    pub fn request(&mut self, now: Instant, request: Request) -> (Decision, Moves) {
        self.wake(now);
        let mut moves = Moves::default();
        if !self.queue.is_empty() {
            self.fill(now, &mut moves);
        }
        if request.again.is_none() {
            self.retries.on_request();
            self.hedges.on_request();
        } else {
            self.totals.repeated += 1;
        }
        let decision = self.decide(now, &request, &mut moves);
        (decision, moves)
    }

    fn decide(&mut self, now: Instant, request: &Request, moves: &mut Moves) -> Decision {
        if self.able == 0 && !self.expecting {
            self.totals.unavailable += 1;
            return Decision::Rejected(Rejection::Unavailable);
        }
        if request.again.is_none()
            && let Some(expected) = self.too_late(now, request)
        {
            self.totals.busy += 1;
            return Decision::Rejected(self.busy(expected, now));
        }
        // Those that have waited come first; none does where a worker has room.
        if self.queue.is_empty()
            && let Some(worker) = self.pick(request, Duration::ZERO, now)
        {
            let slot = self.slots.keep(request, now);
            return self.start(slot, worker, now);
        }
        if self.queue.len() >= self.config.queue {
            self.pass_over(now, moves);
        }
        let pending = self.queue.len();
        if pending >= self.config.queue {
            let overloaded = Rejection::Overloaded { pending, retry_after: self.retry_after(now) };
            let (priority, caller) = (request.priority, request.caller);
            match self.queue.victim(&self.slots, priority, caller, now) {
                Some(slot) => {
                    self.totals.displaced += 1;
                    let ticket = self.give_up(slot);
                    moves.ends.push((ticket, Some(overloaded)));
                }
                None => {
                    self.totals.overloaded += 1;
                    return Decision::Rejected(overloaded);
                }
            }
        }
        let slot = self.slots.keep(request, now);
        self.slots[slot].place = Place::Waiting;
        self.queue.push(&mut self.slots, slot);
        self.standing.get_or_insert(now);
        Decision::Queued(self.slots[slot].ticket(slot))
    }

    /// Whether the answer would come too late, and if so, after how long.
    fn too_late(&mut self, now: Instant, request: &Request) -> Option<Duration> {
        let wait = if self.queue.is_empty() && self.has_room() {
            0.0
        } else {
            let ahead = self.queue.ahead(request.priority, request.caller);
            self.pace.wait(ahead, self.in_flight, now)
        };
        let response = wait + self.pace.latency(now);
        let expected = Duration::try_from_secs_f64(response).unwrap_or(Duration::MAX);
        if wait > request.deadline.saturating_duration_since(now).as_secs_f64() {
            return Some(expected);
        }
        let target = self.config.responsiveness?.as_secs_f64();
        // A burst may use up most of the time there is; a queue that never ends helps nobody, so it is
        // kept shorter: long enough that no worker runs dry.
        let stood = self.standing.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        let longest = if stood > target / 2.0 { STANDING } else { BURST };
        if wait < target * longest && response < target {
            self.while_busy = 0;
            return None;
        }
        // Where those that wait are late themselves, they are what recovery is noticed by.
        if wait < target {
            self.while_busy += 1;
            if self.while_busy >= self.config.busy_pass_rate {
                self.while_busy = 0;
                return None;
            }
        }
        Some(expected)
    }

    /// A started request has ended.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Moves {
        let Place::With(worker) = self.slots.place(ticket) else { return Moves::default() };
        let known = self.slots[ticket.slot];
        self.take_back(worker, ticket.slot);
        self.pace.ended(!self.queue.is_empty(), now);
        let took = now.saturating_duration_since(known.started);
        self.learn(worker, outcome, &known, took, now);
        self.update_open(worker);
        self.moves(now)
    }

    /// Takes the end of a request into what is known of its worker and of the pool.
    fn learn(
        &mut self,
        at: u32,
        outcome: Outcome,
        request: &slots::Slot,
        took: Duration,
        now: Instant,
    ) {
        let (mean, wanted) = (self.mean(), !self.queue.is_empty());
        let Some(worker) = self.workers.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let probed = match worker.health {
            Health::Probed(why) => Some(why),
            _ => None,
        };
        if !matches!(outcome, Outcome::Refused | Outcome::Cancelled) {
            worker.accepts();
        }
        match outcome {
            Outcome::Answered => {
                self.totals.answered += 1;
                worker.on_answer(took, mean, now);
                worker.limit.answered(took.as_secs_f64(), request.sample, wanted, now);
                let silent =
                    matches!(worker.health, Health::Out(_, Why::Silent) | Health::Due(Why::Silent));
                if probed.is_some() {
                    worker.restore(now);
                }
                if probed.is_some() || silent {
                    self.set_health(at, Health::Well);
                }
                self.pace.took(took.as_secs_f64(), now);
                self.note_time(took);
            }
            Outcome::Failed => {
                self.totals.failed += 1;
                worker.on_failure(took, mean, now);
                match probed {
                    Some(_) => self.keep_out(at, Why::Fails, now),
                    None => self.judge(at, now),
                }
            }
            Outcome::Refused => {
                self.totals.refused += 1;
                let rest = worker.on_refusal(now);
                if probed.is_some() || worker.health == Health::Well {
                    let jitter = self.dice.random_range(0.75..1.25);
                    self.set_health(at, Health::Resting(now + rest.mul_f64(jitter)));
                }
            }
            Outcome::TimedOut | Outcome::Outrun => {
                worker.on_silence(request.started, mean, now);
                if outcome == Outcome::TimedOut {
                    self.totals.timed_out += 1;
                    self.pace.took(took.as_secs_f64(), now);
                } else {
                    self.totals.outrun += 1;
                }
                if probed.is_some() {
                    self.keep_out(at, Why::Silent, now);
                }
            }
            Outcome::Cancelled => {
                self.totals.cancelled += 1;
                if let Some(why) = probed
                    && worker.in_flight() == 0
                {
                    self.set_health(at, Health::Due(why));
                }
            }
        }
    }

    fn note_time(&mut self, took: Duration) {
        self.times.add(took);
        if self.config.hedges > 0.0 {
            self.recent.add(took);
            let count = self.recent.count();
            if count.is_multiple_of(TAIL_LOOK) {
                self.tail = Some(self.recent.quantile(1.0 - self.config.hedges / 2.0));
            }
            if count >= TAIL_FADE {
                self.recent.fade();
            }
        }
    }

    /// Withdraws a waiting request. `false` if it does not wait (any more).
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let waits = self.slots.place(ticket) == Place::Waiting;
        if waits {
            self.give_up(ticket.slot);
            self.totals.withdrawn += 1;
        }
        waits
    }

    /// The time has come for what was to happen at [`next_deadline`](Self::next_deadline).
    pub fn expire(&mut self, now: Instant) -> Moves {
        self.moves(now)
    }

    /// When to call [`expire`](Self::expire) next; it may be past. Nothing is to be done before, while
    /// nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.queue.first_deadline()?;
        Some(self.next_wake().map_or(deadline, |wake| deadline.min(wake)))
    }

    /// The same for who sees to the deadlines by other means: when a worker is used again for those that
    /// wait.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        let wake = self.wakes.first().map(|(wake, _)| *wake);
        wake.into_iter().chain(self.reconsider).min()
    }

    /// Whether the budget allows that a request is repeated that may have run already; it is counted.
    pub fn may_repeat(&mut self, now: Instant) -> bool {
        let may = self.retries.take(now);
        self.totals.not_repeated += u64::from(!may);
        may
    }

    /// After how long without an answer a second worker may be asked, where that is wanted and the usual
    /// time is known.
    #[must_use]
    pub fn hedge_after(&self) -> Option<Duration> {
        self.tail
    }

    /// A second worker for a request that takes long, if one has room and the budget allows it.
    pub fn hedge(&mut self, first: Ticket, now: Instant) -> Option<(Ticket, WorkerId)> {
        let Place::With(worker) = self.slots.place(first) else { return None };
        let id = self.worker(worker)?.id;
        let request = Request { key: None, again: Some(id), ..self.slots[first.slot].request() };
        if !self.queue.is_empty() || request.deadline <= now {
            return None;
        }
        let second = self.pick(&request, Duration::MAX, now).filter(|second| *second != worker)?;
        if !self.hedges.take(now) {
            return None;
        }
        self.totals.hedged += 1;
        let slot = self.slots.keep(&request, now);
        match self.start(slot, second, now) {
            Decision::Start(ticket, worker) => Some((ticket, worker)),
            Decision::Queued(_) | Decision::Rejected(_) => None,
        }
    }

    /// How many requests wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// How many requests workers have.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many requests one worker has.
    #[must_use]
    pub fn in_flight_of(&self, worker: WorkerId) -> usize {
        let known = self.ids.get(&worker).and_then(|at| self.worker(*at));
        known.map_or(0, Worker::in_flight)
    }

    /// How long a request of a new caller would wait that came now.
    #[must_use]
    pub fn expected_wait(&self, now: Instant) -> Duration {
        if self.queue.is_empty() {
            return Duration::ZERO;
        }
        let wait = self.pace.wait(self.queue.len(), self.in_flight, now);
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
        // Before the first answer nothing is known but for how long somebody has waited.
        match self.pace.last_latency() {
            0.0 => wait.max(self.standing.map_or(wait, |at| now.saturating_duration_since(at))),
            _ => wait,
        }
    }

    fn worker(&self, at: u32) -> Option<&Worker> {
        self.workers.get(at as usize)?.as_ref()
    }

    fn worker_mut(&mut self, at: u32) -> Option<&mut Worker> {
        self.workers.get_mut(at as usize)?.as_mut()
    }

    /// What an answer takes, in seconds.
    fn mean(&self) -> f64 {
        let mean = self.pace.last_latency();
        if mean > 0.0 { mean } else { FIRST_LATENCY.as_secs_f64() }
    }

    fn busy(&self, expected: Duration, now: Instant) -> Rejection {
        Rejection::Busy { expected, retry_after: self.retry_after(now) }
    }

    /// About when what is here now will have been worked off.
    fn retry_after(&self, now: Instant) -> Duration {
        let wait = self.pace.wait(self.queue.len(), self.in_flight, now);
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(RETRY_AFTER.1);
        wait.clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }

    fn start(&mut self, slot: u32, at: u32, now: Instant) -> Decision {
        let Some(worker) = self.workers.get_mut(at as usize).and_then(Option::as_mut) else {
            self.slots.release(slot);
            return Decision::Rejected(Rejection::Unavailable);
        };
        let request = &mut self.slots[slot];
        request.place = Place::With(at);
        request.started = now;
        request.sample = worker.limit.sample(worker.in_flight());
        let (ticket, id) = (request.ticket(slot), worker.id);
        self.queue_delay.add(now.saturating_duration_since(request.arrived));
        worker.requests.push(&mut self.slots.links, slot);
        worker.counts.started += 1;
        self.last = Some(at);
        self.in_flight += 1;
        self.totals.started += 1;
        if let Health::Due(why) = worker.health {
            self.set_health(at, Health::Probed(why));
        }
        self.update_open(at);
        Decision::Start(ticket, id)
    }

    /// Takes a started request from its worker.
    fn take_back(&mut self, at: u32, slot: u32) {
        if let Some(worker) = self.workers.get_mut(at as usize).and_then(Option::as_mut) {
            worker.requests.remove(&mut self.slots.links, slot);
        }
        self.slots.release(slot);
        self.in_flight -= 1;
    }

    /// Takes a waiting request out.
    fn give_up(&mut self, slot: u32) -> Ticket {
        let ticket = self.slots[slot].ticket(slot);
        self.queue.remove(&mut self.slots, slot);
        self.slots.release(slot);
        self.rest();
        ticket
    }

    fn rest(&mut self) {
        if self.queue.is_empty() {
            self.standing = None;
            self.crowded = false;
            self.reconsider = None;
            self.pace.drained();
        }
    }

    fn moves(&mut self, now: Instant) -> Moves {
        let mut moves = Moves::default();
        self.wake(now);
        if !self.queue.is_empty() {
            self.fill(now, &mut moves);
        }
        if self.able == 0 && !self.expecting {
            self.turn_away(&mut moves);
        }
        moves
    }

    /// Ends all that waits: nobody is there for it.
    fn turn_away(&mut self, moves: &mut Moves) {
        while let Some(ticket) = self.queue.most_urgent() {
            self.give_up(ticket.slot);
            self.totals.unavailable += 1;
            moves.ends.push((ticket, Some(Rejection::Unavailable)));
        }
    }

    /// Starts what waits, as far as there is room.
    fn fill(&mut self, now: Instant, moves: &mut Moves) {
        self.pass_over(now, moves);
        while self.has_room()
            && let Some(slot) = self.queue.next(&self.slots, now)
        {
            let request = self.slots[slot].request();
            let waited = now.saturating_duration_since(self.slots[slot].arrived);
            let Some(worker) = self.pick(&request, waited, now) else { break };
            if let Some(stale) = self.queue.start(&mut self.slots, slot, now) {
                self.totals.shed += 1;
                let expected = now.saturating_duration_since(self.slots[stale].arrived);
                let ticket = self.give_up(stale);
                moves.ends.push((ticket, Some(self.busy(expected, now))));
            }
            if let Decision::Start(ticket, worker) = self.start(slot, worker, now) {
                moves.starts.push((ticket, worker));
            }
        }
        self.rest();
    }

    /// Ends the waiting requests whose deadline has passed.
    fn pass_over(&mut self, now: Instant, moves: &mut Moves) {
        while let Some(ticket) = self.queue.overdue(now) {
            self.give_up(ticket.slot);
            self.totals.expired += 1;
            moves.ends.push((ticket, None));
        }
    }

    /// Brings back those whose time has come.
    fn wake(&mut self, now: Instant) {
        let stood = self.standing.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.crowded = stood > self.pace.last_latency() * 2.0;
        self.reconsider = self.reconsider.filter(|at| *at > now);
        while let Some(&(wake, at)) = self.wakes.first()
            && wake <= now
        {
            let Some(worker) = self.worker(at) else {
                self.wakes.pop_first();
                continue;
            };
            let next = match worker.health {
                // What it has is trial enough.
                Health::Out(_, Why::Silent) if worker.in_flight() > 0 => {
                    Health::Out(now + MAX_AGE / 10, Why::Silent)
                }
                Health::Out(_, why) if !worker.draining => Health::Due(why),
                _ => Health::Well,
            };
            self.set_health(at, next);
        }
    }

    /// Uses a worker again where more than half would be left out.
    fn relent(&mut self, now: Instant) {
        while self.out * 2 > self.able {
            let out = |known: &Worker| known.is_out() && !known.draining;
            let found = self.workers.iter().position(|known| known.as_ref().is_some_and(out));
            let Some(at) = found.and_then(|at| u32::try_from(at).ok()) else { return };
            if let Some(known) = self.worker_mut(at) {
                known.restore(now);
            }
            self.set_health(at, Health::Well);
        }
    }

    /// Changes whether a worker is used, and what depends on it.
    fn set_health(&mut self, at: u32, health: Health) {
        let Some(known) = self.workers.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let was_out = known.is_out();
        let before = std::mem::replace(&mut known.health, health);
        if !known.draining {
            self.out = self.out + usize::from(known.is_out()) - usize::from(was_out);
        }
        match before {
            Health::Resting(until) | Health::Out(until, _) => {
                self.wakes.remove(&(until, at));
            }
            Health::Due(_) => self.due.retain(|due| *due != at),
            Health::Well | Health::Probed(_) => {}
        }
        match health {
            Health::Resting(until) | Health::Out(until, _) => {
                self.wakes.insert((until, at));
            }
            Health::Due(_) if !known.draining => self.due.push_back(at),
            Health::Due(_) | Health::Well | Health::Probed(_) => {}
        }
        self.update_open(at);
    }

    /// Keeps `open` right after a worker's load or state has changed.
    fn update_open(&mut self, at: u32) {
        let Some(known) = self.workers.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let (before, room) = (known.open.map(|(room, _)| room), known.room());
        if before == room {
            return;
        }
        self.close(at);
        let Some(known) = self.workers.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        if let Some(room) = room {
            let open = &mut self.open[known.distance as usize][room as usize];
            known.open = Some((room, open.len()));
            open.push(at);
        }
    }

    /// Takes a worker from those with room.
    fn close(&mut self, at: u32) {
        let Some(known) = self.workers.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some((room, place)) = known.open.take() else { return };
        let open = &mut self.open[known.distance as usize][room as usize];
        open.swap_remove(place);
        let moved = open.get(place).copied();
        if let Some(moved) = moved.and_then(|moved| self.worker_mut(moved)) {
            moved.open = Some((room, place));
        }
    }
}

#[cfg(test)]
mod tests;
