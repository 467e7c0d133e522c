//! Who is compared: ours, what load balancers usually do, and the ancestor.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use layercake_node::pool::scheduler::{
    Config, Decision, Moves, Outcome, Request as Ask, Scheduler, Ticket, WorkerId, WorkerInfo,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::world::{Act, Balancer, End, Request, SECOND, Sent, Time};

/// Sends each request at once, by a rule; no queue, no push-back, no memory of failures.
pub(super) struct Simple {
    rule: Rule,
    workers: Vec<usize>,
    load: HashMap<usize, usize>,
    next: usize,
    dice: StdRng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    RoundRobin,
    Random,
    LeastConnections,
}

impl Simple {
    pub(super) fn new(rule: Rule) -> Self {
        let dice = StdRng::seed_from_u64(5);
        Self { rule, workers: Vec::new(), load: HashMap::new(), next: 0, dice }
    }
}

impl Balancer for Simple {
    fn arrives(&mut self, _: Time, request: usize, _: &Request, acts: &mut Vec<Act>) {
        self.next += 1;
        let count = self.workers.len();
        if count == 0 {
            return acts.push(Act::Reject { request });
        }
        let worker = match self.rule {
            Rule::RoundRobin => self.workers[self.next % count],
            Rule::Random => self.workers[self.dice.random_range(0..count)],
            // Equal ones in turn.
            Rule::LeastConnections => {
                let turn = (0..count).map(|at| self.workers[(self.next + at) % count]);
                turn.min_by_key(|worker| self.load.get(worker).copied().unwrap_or(0)).unwrap_or(0)
            }
        };
        *self.load.entry(worker).or_default() += 1;
        acts.push(Act::Send { request, worker, token: 0 });
    }

    fn ended(&mut self, _: Time, sent: &Sent, _: End, _: &mut Vec<Act>) -> bool {
        self.load.entry(sent.worker).and_modify(|load| *load -= 1);
        false
    }

    fn up(&mut self, _: Time, worker: usize, _: &mut Vec<Act>) {
        self.workers.push(worker);
    }

    fn down(&mut self, _: Time, worker: usize, _: &mut Vec<Act>) {
        self.workers.retain(|known| *known != worker);
    }
}

/// The ancestor's spool: one request for each worker, first in first out; `Busy` by the mean of the last 32
/// response times; a worker that has left is not noticed, and answers nothing until a timer says so.
pub(super) struct Ancestor {
    responsiveness: Time,
    queue: VecDeque<(usize, Time)>,
    idle: VecDeque<usize>,
    /// What each worker has.
    with: HashMap<usize, (usize, Time, usize)>,
    window: VecDeque<Time>,
    while_busy: u32,
    known: Vec<usize>,
}

impl Ancestor {
    pub(super) fn new(responsiveness: Time) -> Self {
        Self {
            responsiveness,
            queue: VecDeque::new(),
            idle: VecDeque::new(),
            with: HashMap::new(),
            window: VecDeque::new(),
            while_busy: 0,
            known: Vec::new(),
        }
    }

    fn submit(&mut self, now: Time, request: usize, presented: Time, acts: &mut Vec<Act>) {
        let mean = self.window.iter().sum::<Time>() / (self.window.len() as Time).max(1);
        if mean >= self.responsiveness {
            self.while_busy += 1;
            if !self.while_busy.is_multiple_of(10) {
                return acts.push(Act::Reject { request });
            }
        }
        let Some(worker) = self.idle.pop_front() else { return };
        self.with.insert(request, (worker, presented, request));
        acts.push(Act::Send { request, worker, token: 0 });
        acts.push(Act::Timer { request, at: now + 5 * self.responsiveness });
    }

    fn free(&mut self, now: Time, worker: usize, acts: &mut Vec<Act>) {
        self.idle.push_back(worker);
        if let Some((request, presented)) = self.queue.pop_front() {
            self.submit(now, request, presented, acts);
        }
    }
}

impl Balancer for Ancestor {
    fn arrives(&mut self, now: Time, request: usize, _: &Request, acts: &mut Vec<Act>) {
        if self.idle.is_empty() {
            self.queue.push_back((request, now));
        } else {
            self.submit(now, request, now, acts);
        }
    }

    fn ended(&mut self, now: Time, sent: &Sent, end: End, acts: &mut Vec<Act>) -> bool {
        // It hears nothing of a worker that has died.
        if end == End::Lost {
            return true;
        }
        if let Some((worker, presented, _)) = self.with.remove(&sent.request) {
            if self.window.len() == 32 {
                self.window.pop_front();
            }
            self.window.push_back(now - presented);
            self.free(now, worker, acts);
        }
        false
    }

    fn timer(&mut self, now: Time, request: usize, acts: &mut Vec<Act>) {
        if let Some((worker, ..)) = self.with.remove(&request) {
            acts.push(Act::Fail { request });
            self.free(now, worker, acts);
        }
    }

    fn up(&mut self, now: Time, worker: usize, acts: &mut Vec<Act>) {
        // A worker that was replaced comes beside the old one, which is still thought to live.
        self.known.push(worker);
        self.free(now, worker, acts);
    }

    fn down(&mut self, _: Time, _: usize, _: &mut Vec<Act>) {}

    fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn tells_deadlines(&self) -> bool {
        false
    }
}

/// The scheduler of this library, with what its shell does.
pub(super) struct Ours {
    scheduler: Scheduler,
    epoch: Instant,
    tickets: HashMap<u64, (usize, Ticket)>,
    waiting: HashMap<Ticket, usize>,
    /// Attempts, and the sendings that are under way.
    tries: HashMap<usize, (usize, Ask, Vec<u64>)>,
    /// The present number of each worker.
    ids: Vec<Option<WorkerId>>,
    numbers: HashMap<WorkerId, usize>,
    count: u64,
}

impl Ours {
    pub(super) fn new(config: Config) -> Self {
        assert!(config.validate().is_ok(), "the settings of a plan are probable");
        let mut scheduler = Scheduler::new(config, 11);
        let epoch = Instant::now();
        // Nobody waits yet.
        let _ = scheduler.set_expecting(true, epoch);
        Self {
            scheduler,
            epoch,
            tickets: HashMap::new(),
            waiting: HashMap::new(),
            tries: HashMap::new(),
            ids: Vec::new(),
            numbers: HashMap::new(),
            count: 0,
        }
    }

    fn instant(&self, now: Time) -> Instant {
        self.epoch + Duration::from_nanos(now)
    }

    fn decide(&mut self, now: Time, request: usize, ask: Ask, acts: &mut Vec<Act>) {
        let at = self.instant(now);
        let (decision, moves) = self.scheduler.request(at, ask);
        self.carry_out(now, moves, acts);
        match decision {
            Decision::Start(ticket, worker) => self.send(now, request, ticket, worker, acts),
            Decision::Queued(ticket) => {
                self.waiting.insert(ticket, request);
            }
            Decision::Rejected(_) => acts.push(Act::Reject { request }),
        }
    }

    fn send(
        &mut self,
        now: Time,
        request: usize,
        ticket: Ticket,
        worker: WorkerId,
        acts: &mut Vec<Act>,
    ) {
        self.count += 1;
        let token = self.count;
        self.tickets.insert(token, (request, ticket));
        if let Some((_, _, sent)) = self.tries.get_mut(&request) {
            sent.push(token);
        }
        acts.push(Act::Send { request, worker: self.numbers[&worker], token });
        if let Some(after) = self.scheduler.hedge_after() {
            acts.push(Act::Timer { request, at: now + after.as_nanos() as Time });
        }
    }

    fn carry_out(&mut self, now: Time, moves: Moves, acts: &mut Vec<Act>) {
        for (ticket, why) in moves.ends {
            if let Some(request) = self.waiting.remove(&ticket)
                && why.is_some()
            {
                acts.push(Act::Reject { request });
            }
        }
        for (ticket, worker) in moves.starts {
            if let Some(request) = self.waiting.remove(&ticket) {
                self.send(now, request, ticket, worker, acts);
            }
        }
    }
}

impl Balancer for Ours {
    fn arrives(&mut self, now: Time, request: usize, of: &Request, acts: &mut Vec<Act>) {
        let ask = Ask { caller: of.caller, ..Ask::by(self.instant(of.deadline)) };
        self.tries.insert(request, (1, ask, Vec::new()));
        self.decide(now, request, ask, acts);
    }

    fn ended(&mut self, now: Time, sent: &Sent, end: End, acts: &mut Vec<Act>) -> bool {
        let Some((request, ticket)) = self.tickets.remove(&sent.token) else { return false };
        let at = self.instant(now);
        let outcome = match end {
            End::Answered => Outcome::Answered,
            End::Failed | End::Lost => Outcome::Failed,
            End::TimedOut => Outcome::TimedOut,
            End::Outrun => Outcome::Outrun,
        };
        let moves = self.scheduler.done(ticket, outcome, at);
        self.carry_out(now, moves, acts);
        let Some((attempts, ask, under_way)) = self.tries.get_mut(&request) else { return false };
        under_way.retain(|token| *token != sent.token);
        if end == End::Answered || end == End::TimedOut {
            return false;
        }
        if !under_way.is_empty() {
            return true;
        }
        if end != End::Lost || *attempts >= 4 || !self.scheduler.may_repeat(at) {
            return false;
        }
        *attempts += 1;
        ask.again = self.ids[sent.worker];
        let ask = *ask;
        self.decide(now, request, ask, acts);
        true
    }

    fn withdrawn(&mut self, now: Time, _: usize, acts: &mut Vec<Act>) {
        let moves = self.scheduler.expire(self.instant(now));
        self.carry_out(now, moves, acts);
    }

    fn timer(&mut self, now: Time, request: usize, acts: &mut Vec<Act>) {
        let Some((_, _, under_way)) = self.tries.get(&request) else { return };
        let [token] = under_way[..] else { return };
        let ticket = self.tickets[&token].1;
        if let Some((ticket, worker)) = self.scheduler.hedge(ticket, self.instant(now)) {
            self.send(now, request, ticket, worker, acts);
        }
    }

    fn up(&mut self, now: Time, worker: usize, acts: &mut Vec<Act>) {
        self.count += 1;
        let id = WorkerId(self.count);
        if self.ids.len() <= worker {
            self.ids.resize(worker + 1, None);
        }
        self.ids[worker] = Some(id);
        self.numbers.insert(id, worker);
        let info = WorkerInfo { identity: worker as u64, ..WorkerInfo::default() };
        let moves = self.scheduler.join(id, info, self.instant(now));
        self.carry_out(now, moves, acts);
    }

    fn down(&mut self, now: Time, worker: usize, acts: &mut Vec<Act>) {
        if let Some(id) = self.ids[worker] {
            let moves = self.scheduler.leave(id, self.instant(now));
            self.carry_out(now, moves, acts);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        let wake = self.scheduler.next_wake()?;
        Some(wake.saturating_duration_since(self.epoch).as_nanos() as Time)
    }

    fn wake(&mut self, now: Time, acts: &mut Vec<Act>) {
        let moves = self.scheduler.expire(self.instant(now));
        self.carry_out(now, moves, acts);
    }

    fn waiting(&self) -> usize {
        self.scheduler.pending()
    }
}

/// All who are compared, by name; the responsiveness is that of ours and of the ancestor.
pub(super) fn all(responsiveness: Time) -> Vec<(&'static str, Box<dyn Balancer>)> {
    let config = Config {
        responsiveness: Some(Duration::from_nanos(responsiveness)),
        queue: 4096,
        ..Config::default()
    };
    debug_assert!(responsiveness >= SECOND / 2);
    vec![
        ("layer-cake", Box::new(Ours::new(config))),
        ("round robin", Box::new(Simple::new(Rule::RoundRobin))),
        ("random", Box::new(Simple::new(Rule::Random))),
        ("least connections", Box::new(Simple::new(Rule::LeastConnections))),
        ("the ancestor", Box::new(Ancestor::new(responsiveness))),
    ]
}
