use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config() -> Config {
    Config { queue: 4, concurrency: 2, ..Config::default() }
}

/// A scheduler with so many workers, and the time.
fn pool(config: Config, workers: u64) -> (Scheduler, Instant) {
    let now = Instant::now();
    let mut pool = Scheduler::new(config, 7);
    for worker in 0..workers {
        assert_eq!(pool.join(WorkerId(worker), now), []);
    }
    (pool, now)
}

fn started(decision: Decision) -> (Ticket, WorkerId) {
    match decision {
        Decision::Start(ticket, worker) => (ticket, worker),
        other => panic!("not started: {other:?}"),
    }
}

fn queued(decision: Decision) -> Ticket {
    match decision {
        Decision::Queued(ticket) => ticket,
        other => panic!("not queued: {other:?}"),
    }
}

#[test]
fn a_setting_out_of_bounds_is_named() {
    let error = |config: Config| config.validate().expect_err("refused").to_string();
    assert!(Config::default().validate().is_ok());
    assert!(error(Config { queue: 0, ..config() }).contains("queue"));
    assert!(error(Config { concurrency: 0, ..config() }).contains("concurrency"));
    assert!(error(Config { busy_pass_rate: 0, ..config() }).contains("pass rate"));
    let hasty = Config { responsiveness: Some(ms(499)), ..config() };
    assert!(error(hasty).contains("at least 500ms, not 499ms"));
    assert!(Config { responsiveness: None, ..config() }.validate().is_ok());
}

#[test]
fn requests_start_while_there_is_room_then_wait_then_are_turned_away() {
    let (mut pool, now) = pool(config(), 1);
    let later = now + ms(1000);
    let (first, worker) = started(pool.request(now, later));
    started(pool.request(now, later));
    let waiting: Vec<_> = (0..4).map(|_| queued(pool.request(now, later))).collect();
    let Decision::Rejected(Rejection::Overloaded { pending, retry_after }) =
        pool.request(now, later)
    else {
        panic!("the queue holds four")
    };
    assert_eq!(pending, 4);
    assert!((ms(100)..=Duration::from_secs(30)).contains(&retry_after), "{retry_after:?}");

    // The one that came first starts first.
    assert_eq!(pool.done(first, Outcome::Answered, now), [(waiting[0], worker)]);
    assert_eq!((pool.pending(), pool.in_flight(), pool.totals().overloaded), (3, 2, 1));
}

#[test]
fn without_workers_requests_wait_only_where_some_are_expected() {
    let (mut pool, now) = pool(config(), 0);
    let later = now + ms(1000);
    assert_eq!(pool.request(now, later), Decision::Rejected(Rejection::Unavailable));
    pool.set_expecting(true);
    let ticket = queued(pool.request(now, later));
    assert_eq!(pool.join(WorkerId(5), now), [(ticket, WorkerId(5))]);

    // One that only finishes its work is no worker for new requests.
    pool.set_expecting(false);
    pool.drain(WorkerId(5));
    assert_eq!(pool.request(now, later), Decision::Rejected(Rejection::Unavailable));
    assert_eq!(pool.join(WorkerId(5), now), []);
    started(pool.request(now, later));
}

#[test]
fn who_waits_too_long_is_passed_over_and_reported_once() {
    let (mut pool, now) = pool(Config { concurrency: 1, ..config() }, 1);
    let (busy, worker) = started(pool.request(now, now + ms(900)));
    let hasty = queued(pool.request(now, now + ms(10)));
    let patient = queued(pool.request(now, now + ms(900)));
    assert_eq!(pool.next_deadline(), Some(now + ms(10)));

    assert_eq!(pool.done(busy, Outcome::Answered, now + ms(20)), [(patient, worker)]);
    assert_eq!(pool.next_deadline(), Some(now + ms(10)), "somebody is still to be told");
    assert_eq!(pool.expire(now + ms(20)), [hasty]);
    assert_eq!(pool.expire(now + ms(20)), []);
    assert_eq!(pool.next_deadline(), None);
    assert_eq!(pool.totals().expired, 1);
}

#[test]
fn a_withdrawn_request_is_not_started() {
    let (mut pool, now) = pool(Config { concurrency: 1, ..config() }, 1);
    let (busy, worker) = started(pool.request(now, now + ms(900)));
    let gone = queued(pool.request(now, now + ms(900)));
    let next = queued(pool.request(now, now + ms(900)));
    assert!(pool.cancel(gone));
    assert!(!pool.cancel(gone) && !pool.cancel(busy));
    assert_eq!(pool.done(busy, Outcome::Cancelled, now), [(next, worker)]);
}

#[test]
fn the_requests_of_a_lost_worker_are_forgotten() {
    let (mut pool, now) = pool(config(), 1);
    let (ticket, worker) = started(pool.request(now, now + ms(900)));
    assert_eq!(pool.leave(worker, now), []);
    assert_eq!(pool.in_flight(), 0);
    assert_eq!(pool.done(ticket, Outcome::Failed, now), []);
    assert_eq!((pool.totals().orphaned, pool.totals().failed), (1, 0));
    assert_eq!(pool.request(now, now), Decision::Rejected(Rejection::Unavailable));
}

/// Offers a request every `every`, to workers that take what `service` says, for a while. Returns
/// how many requests each got.
fn simulate(
    mut pool: Scheduler,
    mut now: Instant,
    requests: usize,
    every: Duration,
    service: impl Fn(WorkerId) -> (Duration, Outcome),
) -> HashMap<WorkerId, usize> {
    let mut got: HashMap<WorkerId, usize> = HashMap::new();
    let mut ends: BTreeSet<(Instant, Ticket, WorkerId)> = BTreeSet::new();
    for _ in 0..requests {
        now += every;
        while let Some(&(at, ticket, worker)) = ends.first()
            && at <= now
        {
            ends.pop_first();
            let next = pool.done(ticket, service(worker).1, at);
            assert_eq!(next, [], "nobody waits: there is more room than work");
        }
        let (ticket, worker) = started(pool.request(now, now + ms(60_000)));
        *got.entry(worker).or_default() += 1;
        ends.insert((now + service(worker).0, ticket, worker));
    }
    got
}

#[test]
fn equal_workers_get_equal_shares() {
    let (pool, now) = pool(Config::default(), 10);
    let got = simulate(pool, now, 10_000, ms(1), |_| (ms(20), Outcome::Answered));
    for (worker, count) in &got {
        assert!((850..1150).contains(count), "{worker:?} got {count}");
    }
    assert_eq!(got.len(), 10);
}

#[test]
fn a_worker_ten_times_slower_gets_much_less() {
    let (pool, now) = pool(Config::default(), 4);
    let slow = WorkerId(2);
    let got = simulate(pool, now, 10_000, ms(5), |worker| {
        (if worker == slow { ms(200) } else { ms(20) }, Outcome::Answered)
    });
    let others = (10_000 - got[&slow]) / 3;
    assert!(got[&slow] * 4 < others, "{got:?}");
    assert!(got[&slow] > 0, "it is tried now and then, to notice that it has recovered");
}

#[test]
fn a_worker_that_fails_at_once_does_not_attract_the_others_work() {
    let (pool, now) = pool(Config::default(), 10);
    let bad = WorkerId(3);
    let got = simulate(pool, now, 10_000, ms(1), |worker| {
        if worker == bad { (ms(0), Outcome::Failed) } else { (ms(20), Outcome::Answered) }
    });
    assert!(got[&bad] <= 1000, "its share is a tenth: {got:?}");
    assert!(got[&bad] > 0, "it is tried now and then");
}

#[test]
fn a_newcomer_is_credited_with_the_mean_of_the_others() {
    let (mut pool, now) = pool(config(), 1);
    let (ticket, _) = started(pool.request(now, now + ms(900)));
    pool.done(ticket, Outcome::Answered, now + ms(80));
    pool.join(WorkerId(9), now + ms(80));
    let newcomer = pool.workers(now + ms(80)).find(|w| w.worker == WorkerId(9)).expect("joined");
    assert!((ms(79)..ms(81)).contains(&newcomer.latency), "{newcomer:?}");
}

#[test]
fn a_slow_pool_is_busy_lets_each_tenth_through_and_recovers() {
    let (mut pool, now) = pool(Config { queue: 100, ..Config::default() }, 1);
    let answer_in = |pool: &mut Scheduler, at: Instant, took: Duration| {
        let (ticket, _) = started(pool.request(at, at + ms(60_000)));
        pool.done(ticket, Outcome::TimedOut, at + took);
    };
    answer_in(&mut pool, now, ms(6000));
    let now = now + ms(6000);
    let decisions: Vec<_> = (0..20).map(|_| pool.request(now, now + ms(60_000))).collect();
    let passed: Vec<_> = (0..20).filter(|n| !is_busy(decisions[*n])).collect();
    assert_eq!(passed, [9, 19]);
    let Decision::Rejected(Rejection::Busy { mean, .. }) = decisions[0] else { panic!("busy") };
    assert_eq!(mean, ms(6000));
    assert_eq!(pool.totals().busy, 18);

    // The two that passed are answered at once: the mean is 2 s.
    for decision in [decisions[9], decisions[19]] {
        pool.done(started(decision).0, Outcome::Answered, now);
    }
    assert!(!is_busy(pool.request(now, now + ms(1000))));

    // Where nobody asks, it is forgotten after twice the responsiveness.
    answer_in(&mut pool, now, ms(60_000));
    let now = now + ms(60_000);
    assert!(is_busy(pool.request(now, now + ms(1000))));
    assert!(is_busy(pool.request(now + ms(10_000), now + ms(11_000))));
    assert!(!is_busy(pool.request(now + ms(10_001), now + ms(11_000))));
}

fn is_busy(decision: Decision) -> bool {
    matches!(decision, Decision::Rejected(Rejection::Busy { .. }))
}

#[derive(Debug, Clone)]
enum Step {
    Join(u64),
    Drain(u64),
    Leave(u64),
    Expect(bool),
    Request { patience_ms: u64 },
    Done(prop::sample::Index, u8),
    Cancel(prop::sample::Index),
    Expire,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..5_u64).prop_map(Step::Join),
        1 => (0..5_u64).prop_map(Step::Drain),
        1 => (0..5_u64).prop_map(Step::Leave),
        1 => any::<bool>().prop_map(Step::Expect),
        8 => (0..400_u64).prop_map(|patience_ms| Step::Request { patience_ms }),
        6 => (any::<prop::sample::Index>(), 0..4_u8).prop_map(|(i, o)| Step::Done(i, o)),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => Just(Step::Expire),
        2 => (0..300_u64).prop_map(Step::Wait),
    ]
}

/// What the outside believes.
#[derive(Default)]
struct Model {
    workers: HashMap<WorkerId, bool>,
    waiting: BTreeMap<Ticket, Instant>,
    running: BTreeMap<Ticket, WorkerId>,
    ever: HashSet<Ticket>,
}

impl Model {
    fn start(&mut self, starts: Vec<(Ticket, WorkerId)>, now: Instant) {
        for (ticket, worker) in starts {
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
        let mut room = false;
        for stats in pool.workers(now) {
            let load = self.running.values().filter(|w| **w == stats.worker).count();
            assert_eq!(stats.in_flight, load);
            assert!(load <= pool.config.concurrency);
            room |= !stats.draining && load < pool.config.concurrency;
        }
        let overdue = self.waiting.values().all(|deadline| *deadline <= now);
        assert!(!room || overdue, "somebody waits while a worker has room");
        let t = pool.totals();
        let ended = t.answered + t.failed + t.timed_out + t.cancelled + t.orphaned;
        assert_eq!(t.started, ended + pool.in_flight() as u64);
        let known = t.started + t.expired + t.withdrawn + pool.pending() as u64;
        assert_eq!(self.ever.len() as u64, known, "a ticket is lost");
    }
}

proptest! {
    #[test]
    fn no_ticket_is_lost_or_started_twice(
        steps in prop::collection::vec(step(), 1..300),
        seed: u64,
        responsive: bool,
    ) {
        let responsiveness = responsive.then_some(ms(500));
        let mut pool = Scheduler::new(Config { responsiveness, ..config() }, seed);
        let mut model = Model::default();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Join(n) => {
                    model.workers.insert(WorkerId(n), false);
                    let starts = pool.join(WorkerId(n), now);
                    model.start(starts, now);
                }
                Step::Drain(n) => {
                    model.workers.entry(WorkerId(n)).and_modify(|drained| *drained = true);
                    pool.drain(WorkerId(n));
                }
                Step::Leave(n) => {
                    model.workers.remove(&WorkerId(n));
                    model.running.retain(|_, worker| *worker != WorkerId(n));
                    let starts = pool.leave(WorkerId(n), now);
                    model.start(starts, now);
                }
                Step::Expect(expecting) => pool.set_expecting(expecting),
                Step::Request { patience_ms } => {
                    let deadline = now + ms(patience_ms);
                    match pool.request(now, deadline) {
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
                        }
                        Decision::Rejected(Rejection::Busy { .. }) => prop_assert!(responsive),
                    }
                }
                Step::Done(index, outcome) => {
                    if model.running.is_empty() { continue }
                    let ticket = *index.get(&model.running.keys().copied().collect::<Vec<_>>());
                    model.running.remove(&ticket);
                    let outcome = [
                        Outcome::Answered, Outcome::Failed, Outcome::TimedOut, Outcome::Cancelled,
                    ][usize::from(outcome)];
                    let starts = pool.done(ticket, outcome, now);
                    model.start(starts, now);
                    prop_assert_eq!(pool.done(ticket, outcome, now), []);
                }
                Step::Cancel(index) => {
                    if model.waiting.is_empty() { continue }
                    let ticket = *index.get(&model.waiting.keys().copied().collect::<Vec<_>>());
                    model.waiting.remove(&ticket);
                    prop_assert!(pool.cancel(ticket));
                }
                Step::Expire => {
                    for ticket in pool.expire(now) {
                        let deadline = model.waiting.remove(&ticket).expect("it waited");
                        prop_assert!(deadline <= now);
                    }
                    prop_assert!(model.waiting.values().all(|deadline| *deadline > now));
                    prop_assert_eq!(pool.next_deadline(), model.waiting.values().min().copied());
                }
                Step::Wait(span) => now += ms(span),
            }
            model.check(&pool, now);
        }
    }
}
