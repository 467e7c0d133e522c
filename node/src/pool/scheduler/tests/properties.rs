//! What always holds, whatever happens.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Join(u64),
    Drain(u64),
    Leave(u64),
    Expect(bool),
    Request { patience_ms: u64, priority: u8, caller: u64, key: Option<u64>, again: Option<u64> },
    Done(prop::sample::Index, u8),
    Hedge(prop::sample::Index),
    Cancel(prop::sample::Index),
    Expire,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let request = (
        0..2000_u64,
        0..3_u8,
        0..4_u64,
        prop::option::weighted(0.2, 0..9_u64),
        prop::option::weighted(0.2, 0..5_u64),
    );
    prop_oneof![
        2 => (0..5_u64).prop_map(Step::Join),
        1 => (0..5_u64).prop_map(Step::Drain),
        1 => (0..5_u64).prop_map(Step::Leave),
        1 => any::<bool>().prop_map(Step::Expect),
        8 => request.prop_map(|(patience_ms, priority, caller, key, again)| Step::Request {
            patience_ms, priority, caller, key, again,
        }),
        8 => (any::<prop::sample::Index>(), 0..9_u8).prop_map(|(i, o)| Step::Done(i, o)),
        1 => any::<prop::sample::Index>().prop_map(Step::Hedge),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => Just(Step::Expire),
        2 => (0..300_u64).prop_map(Step::Wait),
        1 => (0..20_000_u64).prop_map(Step::Wait),
    ]
}

/// What the outside believes.
#[derive(Default)]
struct Model {
    /// Whether each drains.
    workers: HashMap<WorkerId, bool>,
    waiting: BTreeMap<Ticket, Instant>,
    running: BTreeMap<Ticket, WorkerId>,
    ever: HashSet<Ticket>,
    displaced: u64,
    turned_away: u64,
    expecting: bool,
}

impl Model {
    fn carry_out(&mut self, moves: Moves, now: Instant) {
        for (ticket, why) in moves.ends {
            let deadline = self.waiting.remove(&ticket).expect("it waited");
            assert_eq!(why.is_none(), deadline <= now, "told the wrong reason: {why:?}");
            let away = why == Some(Rejection::Unavailable);
            self.turned_away += u64::from(away);
            self.displaced += u64::from(why.is_some() && !away);
        }
        for (ticket, worker) in moves.starts {
            let deadline = self.waiting.remove(&ticket).expect("it waited");
            assert!(deadline > now, "an overdue request starts");
            self.run(ticket, worker);
        }
    }

    fn run(&mut self, ticket: Ticket, worker: WorkerId) {
        assert_eq!(self.workers.get(&worker), Some(&false), "a worker that takes no requests");
        assert!(self.running.insert(ticket, worker).is_none(), "started twice");
    }

    fn check(&self, pool: &Scheduler, now: Instant) {
        assert_eq!(pool.pending(), self.waiting.len());
        assert!(pool.pending() <= pool.config.queue);
        assert_eq!(pool.in_flight(), self.running.len());
        let (mut room, mut able, mut used) = (false, 0, 0);
        for view in pool.workers(now) {
            let load = self.running.values().filter(|w| **w == view.worker).count();
            assert_eq!(view.in_flight, load);
            // What was given before the limit fell is still there; one more is a trial.
            assert!(load <= pool.config.concurrency + 1);
            let out = matches!(view.state, WorkerState::Failing | WorkerState::Silent);
            able += usize::from(view.state != WorkerState::Draining);
            used += usize::from(view.state != WorkerState::Draining && !out);
            room |= view.state == WorkerState::Serving && load < view.limit;
        }
        assert!(used * 2 >= able, "{used} of {able} workers are used");
        assert_eq!((pool.able, pool.out), (able, able - used));
        let overdue = self.waiting.values().all(|deadline| *deadline <= now);
        // Which of them are too slow is known only where limits adapt.
        assert!(!room || overdue || pool.config.adaptive, "somebody waits while a worker has room");
        assert!(self.waiting.is_empty() || pool.next_deadline().is_some());
        assert!(self.waiting.is_empty() || able > 0 || self.expecting, "somebody waits for nobody");
        let t = pool.totals();
        let ended =
            t.answered + t.failed + t.refused + t.timed_out + t.outrun + t.cancelled + t.orphaned;
        assert_eq!(t.started, ended + pool.in_flight() as u64);
        assert_eq!(t.shed + t.displaced, self.displaced);
        let waited = t.expired + t.withdrawn + t.shed + t.displaced + self.turned_away;
        let known = t.started + waited + pool.pending() as u64;
        assert_eq!(self.ever.len() as u64, known, "a ticket is lost");
    }
}

proptest! {
    #[test]
    fn no_ticket_is_lost_or_started_twice(
        steps in prop::collection::vec(step(), 1..300),
        seed: u64,
        responsive: bool,
        adaptive: bool,
    ) {
        let responsiveness = responsive.then_some(ms(500));
        let config = Config { responsiveness, adaptive, hedges: 0.5, ..config() };
        let mut pool = Scheduler::new(config, seed);
        let mut model = Model::default();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Join(n) => {
                    model.workers.insert(WorkerId(n), false);
                    let distance =
                        [Distance::Process, Distance::Host, Distance::Lan][n as usize % 3];
                    let info = WorkerInfo { distance, identity: n, concurrency: None };
                    let moves = pool.join(WorkerId(n), info, now);
                    model.carry_out(moves, now);
                }
                Step::Drain(n) => {
                    model.workers.entry(WorkerId(n)).and_modify(|drained| *drained = true);
                    let moves = pool.drain(WorkerId(n), now);
                    model.carry_out(moves, now);
                }
                Step::Leave(n) => {
                    // Those that wait may start on others, but not on this one.
                    model.workers.remove(&WorkerId(n));
                    let moves = pool.leave(WorkerId(n), now);
                    model.running.retain(|_, worker| *worker != WorkerId(n));
                    model.carry_out(moves, now);
                }
                Step::Expect(expecting) => {
                    model.expecting = expecting;
                    let moves = pool.set_expecting(expecting, now);
                    model.carry_out(moves, now);
                }
                Step::Request { patience_ms, priority, caller, key, again } => {
                    let deadline = now + ms(patience_ms);
                    let priority =
                        [Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
                    let again = again.map(WorkerId);
                    let request = Request { deadline, priority, caller, key, again };
                    let (decision, moves) = pool.request(now, request);
                    model.carry_out(moves, now);
                    match decision {
                        Decision::Start(ticket, worker) => {
                            prop_assert!(model.ever.insert(ticket));
                            model.run(ticket, worker);
                        }
                        Decision::Queued(ticket) => {
                            prop_assert!(model.ever.insert(ticket));
                            model.waiting.insert(ticket, deadline);
                        }
                        Decision::Rejected(Rejection::Unavailable) => {
                            prop_assert!(model.workers.values().all(|drained| *drained));
                        }
                        Decision::Rejected(Rejection::Overloaded { pending, .. }) => {
                            prop_assert_eq!(pending, model.waiting.len());
                            prop_assert_eq!(pending, pool.config.queue);
                        }
                        Decision::Rejected(Rejection::Busy { .. }) => {
                            prop_assert!(again.is_none());
                        }
                    }
                }
                Step::Done(index, outcome) => {
                    if model.running.is_empty() { continue }
                    let ticket = *index.get(&model.running.keys().copied().collect::<Vec<_>>());
                    model.running.remove(&ticket);
                    let outcome = [
                        Outcome::Answered, Outcome::Failed, Outcome::TimedOut, Outcome::Cancelled,
                        Outcome::Refused, Outcome::Outrun, Outcome::Failed, Outcome::Failed,
                        Outcome::Answered,
                    ][usize::from(outcome)];
                    let moves = pool.done(ticket, outcome, now);
                    model.carry_out(moves, now);
                    prop_assert_eq!(pool.done(ticket, outcome, now), Moves::default());
                }
                Step::Hedge(index) => {
                    if model.running.is_empty() { continue }
                    let first = *index.get(&model.running.keys().copied().collect::<Vec<_>>());
                    if let Some((ticket, worker)) = pool.hedge(first, now) {
                        prop_assert!(model.ever.insert(ticket));
                        prop_assert_ne!(worker, model.running[&first]);
                        model.run(ticket, worker);
                    }
                }
                Step::Cancel(index) => {
                    if model.waiting.is_empty() { continue }
                    let ticket = *index.get(&model.waiting.keys().copied().collect::<Vec<_>>());
                    model.waiting.remove(&ticket);
                    prop_assert!(pool.cancel(ticket));
                }
                Step::Expire => {
                    let moves = pool.expire(now);
                    model.carry_out(moves, now);
                    prop_assert!(model.waiting.values().all(|deadline| *deadline > now));
                }
                Step::Wait(span) => {
                    // The shell calls `expire` when it has said that it should be called.
                    let end = now + ms(span);
                    while let Some(at) = pool.next_deadline().filter(|at| *at <= end) {
                        now = now.max(at);
                        let moves = pool.expire(now);
                        model.carry_out(moves, now);
                    }
                    now = end;
                }
            }
            model.check(&pool, now);
        }
    }
}
