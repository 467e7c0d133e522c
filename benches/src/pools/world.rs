//! A world of clients and workers in simulated time, with whatever balancer between them.
//!
//! Clients ask at random times whether or not they were answered before (an open loop); the same seed
//! gives each balancer the same requests. A worker handles one request after the other, and what it has
//! been given waits in its mailbox; each way takes from 0.2 to 0.5 ms, as on a busy host.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Simulated time, in nanoseconds.
pub(super) type Time = u64;
pub(super) const MILLI: Time = 1_000_000;
pub(super) const SECOND: Time = 1_000 * MILLI;
/// The way to a worker, or back: at least, and at most.
const WAY: (Time, Time) = (MILLI / 5, MILLI / 2);
/// How long a worker takes that only says that it cannot.
const FAIL_TIME: Time = MILLI;

/// What a balancer has done.
pub(super) enum Act {
    /// It sends a request to a worker; `token` is its own name for that.
    Send { request: usize, worker: usize, token: u64 },
    /// It turns a request away.
    Reject { request: usize },
    /// It says that a request has failed.
    Fail { request: usize },
    /// It wants to hear of a request at that time.
    Timer { request: usize, at: Time },
}

/// How a request that was sent to a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    /// The worker says that it failed.
    Failed,
    /// The worker died with it.
    Lost,
    /// Its client went away at the deadline.
    TimedOut,
    /// Another worker was faster.
    Outrun,
}

/// Something that gives requests to workers.
pub(super) trait Balancer {
    fn arrives(&mut self, now: Time, request: usize, of: &Request, acts: &mut Vec<Act>);
    /// Returns whether the request goes on, by one of the acts or at another worker.
    fn ended(&mut self, now: Time, sent: &Sent, end: End, acts: &mut Vec<Act>) -> bool;
    /// The client of a request went away before it was sent anywhere.
    fn withdrawn(&mut self, _now: Time, _request: usize, _acts: &mut Vec<Act>) {}
    fn timer(&mut self, _now: Time, _request: usize, _acts: &mut Vec<Act>) {}
    fn up(&mut self, now: Time, worker: usize, acts: &mut Vec<Act>);
    fn down(&mut self, now: Time, worker: usize, acts: &mut Vec<Act>);
    /// When it wants to be woken.
    fn wake_at(&self) -> Option<Time> {
        None
    }
    fn wake(&mut self, _now: Time, _acts: &mut Vec<Act>) {}
    /// How many requests it holds back.
    fn waiting(&self) -> usize {
        0
    }
    /// Whether deadlines travel with requests, so that a worker begins none that is late.
    fn tells_deadlines(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Result {
    Answered,
    /// An error of the worker.
    Failed,
    /// Turned away.
    Rejected,
    /// No answer before the deadline.
    TimedOut,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) arrives: Time,
    pub(super) deadline: Time,
    pub(super) caller: u64,
    /// What it takes of a worker that is not slow.
    work: Time,
    pub(super) ended: Option<(Time, Result)>,
}

/// A request with a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) request: usize,
    pub(super) worker: usize,
    pub(super) token: u64,
    over: bool,
}

#[derive(Default)]
struct Worker {
    down: bool,
    /// It does nothing, and nobody knows.
    stopped: bool,
    fails: bool,
    slow: f64,
    mailbox: VecDeque<usize>,
    works_on: Option<usize>,
    /// What it had finished when it was stopped.
    held: Option<usize>,
    life: u32,
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Slow(f64),
    Fails,
    Dies,
    Returns,
    Stops,
    GoesOn,
}

/// Clients of one kind.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    pub(super) caller: u64,
    /// From, to, and how many a second.
    pub(super) rates: Vec<(Time, Time, f64)>,
}

/// The time a request takes of a worker.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// From half to one and a half of the mean.
    Even { mean: Time },
    /// The second for so many of a hundred.
    Either { short: Time, long: Time, long_of_hundred: u32 },
}

impl Work {
    pub(super) fn mean(self) -> Time {
        match self {
            Self::Even { mean } => mean,
            Self::Either { short, long, long_of_hundred } => {
                let long_share = u64::from(long_of_hundred);
                (short * (100 - long_share) + long * long_share) / 100
            }
        }
    }

    fn draw(self, dice: &mut StdRng) -> Time {
        match self {
            Self::Even { mean } => mean / 2 + dice.random_range(0..=mean),
            Self::Either { short, long, long_of_hundred } => {
                let mean = if dice.random_range(0..100) < long_of_hundred { long } else { short };
                mean / 2 + dice.random_range(0..=mean)
            }
        }
    }
}

/// What is simulated.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) workers: usize,
    pub(super) work: Work,
    pub(super) clients: Vec<Clients>,
    pub(super) patience: Time,
    pub(super) fates: Vec<(Time, usize, Fate)>,
    /// Of so many requests one pauses its worker for so long, as collectors of garbage do.
    pub(super) pauses: Option<(u32, Time)>,
    pub(super) seed: u64,
}

/// What came of it.
pub(super) struct History {
    pub(super) requests: Vec<Request>,
    /// When a request was sent, and to whom.
    pub(super) sent: Vec<(Time, usize)>,
    /// The most that waited at the balancer and in mailboxes.
    pub(super) most_held: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Fate(usize),
    Reaches(usize),
    Finishes { sent: usize, life: u32 },
    Replies { sent: usize, end: u8 },
    Arrives(usize),
    Deadline(usize),
    Timer(usize),
    Wake,
}

const ENDS: [End; 3] = [End::Answered, End::Failed, End::Lost];

struct World<'a> {
    plan: &'a Plan,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    order: u64,
    requests: Vec<Request>,
    sent: Vec<Sent>,
    /// The sendings of each request.
    sendings: Vec<Vec<usize>>,
    log: Vec<(Time, usize)>,
    workers: Vec<Worker>,
    held: usize,
    most_held: usize,
    dice: StdRng,
}

/// Lets a plan happen.
pub(super) fn run(plan: &Plan, balancer: &mut dyn Balancer) -> History {
    let mut dice = StdRng::seed_from_u64(plan.seed);
    let mut requests = Vec::new();
    for clients in &plan.clients {
        for &(from, to, rate) in &clients.rates {
            let mut at = from as f64;
            loop {
                at += -(1.0 - dice.random::<f64>()).ln() / rate * SECOND as f64;
                if at >= to as f64 {
                    break;
                }
                let arrives = at as Time;
                let (deadline, caller) = (arrives + plan.patience, clients.caller);
                let work = plan.work.draw(&mut dice);
                requests.push(Request { arrives, deadline, caller, work, ended: None });
            }
        }
    }
    requests.sort_by_key(|request| request.arrives);
    let workers = (0..plan.workers).map(|_| Worker { slow: 1.0, ..Worker::default() }).collect();
    let sendings = vec![Vec::new(); requests.len()];
    let mut world = World {
        plan,
        now: 0,
        events: BinaryHeap::new(),
        order: 0,
        requests,
        sent: Vec::new(),
        sendings,
        log: Vec::new(),
        workers,
        held: 0,
        most_held: 0,
        dice,
    };
    for (at, fate) in plan.fates.iter().enumerate() {
        world.at(fate.0, Event::Fate(at));
    }
    for at in 0..world.requests.len() {
        world.at(world.requests[at].arrives, Event::Arrives(at));
        world.at(world.requests[at].deadline, Event::Deadline(at));
    }
    let mut acts = Vec::new();
    for worker in 0..plan.workers {
        balancer.up(0, worker, &mut acts);
    }
    let mut armed = None;
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now = at;
        if event == Event::Wake {
            armed = None;
        }
        world.happens(event, balancer, &mut acts);
        for act in acts.drain(..) {
            world.carry_out(act);
        }
        world.most_held = world.most_held.max(world.held + balancer.waiting());
        if let Some(wake) = balancer.wake_at().map(|wake| wake.max(at + 1))
            && armed.is_none_or(|armed| wake < armed)
        {
            armed = Some(wake);
            world.at(wake, Event::Wake);
        }
    }
    History { requests: world.requests, sent: world.log, most_held: world.most_held }
}

impl World<'_> {
    fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn after_way(&mut self) -> Time {
        self.now + self.dice.random_range(WAY.0..=WAY.1)
    }

    fn carry_out(&mut self, act: Act) {
        match act {
            Act::Send { request, worker, token } => {
                self.log.push((self.now, worker));
                self.sendings[request].push(self.sent.len());
                let reaches = self.after_way();
                self.at(reaches, Event::Reaches(self.sent.len()));
                self.sent.push(Sent { request, worker, token, over: false });
            }
            Act::Reject { request } => self.end(request, Result::Rejected),
            Act::Fail { request } => self.end(request, Result::Failed),
            Act::Timer { request, at } => self.at(at, Event::Timer(request)),
        }
    }

    fn end(&mut self, request: usize, result: Result) {
        self.requests[request].ended.get_or_insert((self.now, result));
    }

    fn happens(&mut self, event: Event, balancer: &mut dyn Balancer, acts: &mut Vec<Act>) {
        let now = self.now;
        match event {
            Event::Arrives(at) => balancer.arrives(now, at, &self.requests[at], acts),
            Event::Timer(at) => {
                if self.requests[at].ended.is_none() {
                    balancer.timer(now, at, acts);
                }
            }
            Event::Wake => balancer.wake(now, acts),
            Event::Reaches(at) => {
                let worker = self.sent[at].worker;
                if self.workers[worker].down {
                    let replies = self.after_way();
                    return self.at(replies, Event::Replies { sent: at, end: 2 });
                }
                self.workers[worker].mailbox.push_back(at);
                self.held += 1;
                self.begin(worker, balancer.tells_deadlines());
            }
            Event::Finishes { sent, life } => {
                let worker = &mut self.workers[self.sent[sent].worker];
                if worker.life != life {
                    return;
                }
                if worker.stopped {
                    worker.held = Some(sent);
                    return;
                }
                self.finish(sent, balancer.tells_deadlines());
            }
            Event::Replies { sent: at, end } => {
                let sent = &mut self.sent[at];
                // Who was cancelled has told the balancer already.
                if std::mem::replace(&mut sent.over, true) {
                    return;
                }
                let (sent, end) = (*sent, ENDS[usize::from(end)]);
                let goes_on = balancer.ended(now, &sent, end, acts);
                if !goes_on {
                    let good = end == End::Answered;
                    self.end(sent.request, if good { Result::Answered } else { Result::Failed });
                }
                if end == End::Answered {
                    self.cancel(sent.request, End::Outrun, balancer, acts);
                }
            }
            Event::Deadline(at) => {
                if self.requests[at].ended.is_some() {
                    return;
                }
                self.end(at, Result::TimedOut);
                balancer.withdrawn(now, at, acts);
                self.cancel(at, End::TimedOut, balancer, acts);
            }
            Event::Fate(at) => {
                let (_, worker, fate) = self.plan.fates[at];
                self.meets(worker, fate, balancer, acts);
            }
        }
    }

    /// Nobody waits for a request any more.
    fn cancel(
        &mut self,
        request: usize,
        end: End,
        balancer: &mut dyn Balancer,
        acts: &mut Vec<Act>,
    ) {
        for at in self.sendings[request].clone() {
            if !self.sent[at].over && balancer.tells_deadlines() {
                self.sent[at].over = true;
                let sent = self.sent[at];
                balancer.ended(self.now, &sent, end, acts);
            }
        }
    }

    fn meets(&mut self, at: usize, fate: Fate, balancer: &mut dyn Balancer, acts: &mut Vec<Act>) {
        let worker = &mut self.workers[at];
        match fate {
            Fate::Slow(times) => worker.slow = times,
            Fate::Fails => worker.fails = true,
            Fate::Stops => worker.stopped = true,
            Fate::GoesOn => {
                worker.stopped = false;
                match worker.held.take() {
                    Some(sent) => self.finish(sent, balancer.tells_deadlines()),
                    None => self.begin(at, balancer.tells_deadlines()),
                }
            }
            Fate::Dies => {
                worker.down = true;
                worker.life += 1;
                let had: Vec<_> =
                    worker.works_on.take().into_iter().chain(worker.mailbox.drain(..)).collect();
                self.held -= had.len();
                for sent in had {
                    let replies = self.after_way();
                    self.at(replies, Event::Replies { sent, end: 2 });
                }
                balancer.down(self.now, at, acts);
            }
            Fate::Returns => {
                worker.down = false;
                balancer.up(self.now, at, acts);
            }
        }
    }

    fn begin(&mut self, at: usize, knows_deadlines: bool) {
        let (now, pauses) = (self.now, self.plan.pauses);
        let worker = &mut self.workers[at];
        if worker.works_on.is_some() || worker.stopped {
            return;
        }
        let next = loop {
            let Some(next) = worker.mailbox.pop_front() else { return };
            let sent = &self.sent[next];
            let late = sent.over || self.requests[sent.request].deadline <= now;
            if !late || !knows_deadlines {
                break next;
            }
            self.held -= 1;
        };
        worker.works_on = Some(next);
        let work = self.requests[self.sent[next].request].work as f64 * worker.slow;
        let mut time = if worker.fails { FAIL_TIME } else { work as Time };
        if let Some((one_of, pause)) = pauses
            && self.dice.random_range(0..one_of) == 0
        {
            time += pause;
        }
        let life = worker.life;
        self.at(now + time, Event::Finishes { sent: next, life });
    }

    fn finish(&mut self, sent: usize, knows_deadlines: bool) {
        let at = self.sent[sent].worker;
        let worker = &mut self.workers[at];
        worker.works_on = None;
        let end = u8::from(worker.fails);
        self.held -= 1;
        let replies = self.after_way();
        self.at(replies, Event::Replies { sent, end });
        self.begin(at, knows_deadlines);
    }
}
