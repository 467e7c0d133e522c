//! What a scheduler does, case by case.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::*;

#[test]
fn a_setting_out_of_bounds_is_named() {
    let error = |config: Config| config.validate().expect_err("refused").to_string();
    assert!(Config::default().validate().is_ok());
    assert!(error(Config { queue: 0, ..config() }).contains("queue"));
    assert!(error(Config { queue: usize::MAX, ..config() }).contains("queue"));
    assert!(error(Config { concurrency: 0, ..config() }).contains("concurrency"));
    assert!(error(Config { busy_pass_rate: 0, ..config() }).contains("pass rate"));
    assert!(error(Config { retries: -0.1, ..config() }).contains("from 0 to 1, not -0.1"));
    assert!(error(Config { hedges: f64::NAN, ..config() }).contains("not NaN"));
    assert!(error(Config { key_load: 0.5, ..config() }).contains("from 1 to 100"));
    assert!(error(Config { slow_start: ms(601_000), ..config() }).contains("601s"));
    let hasty = Config { responsiveness: Some(ms(499)), ..config() };
    assert!(error(hasty).contains("at least 500ms, not 499ms"));
    assert!(Config { responsiveness: None, ..config() }.validate().is_ok());
}

#[test]
fn requests_start_while_there_is_room_then_wait_then_are_turned_away() {
    let (mut pool, now) = pool(config(), 1);
    let later = now + ms(1000);
    let (first, worker) = started(ask(&mut pool, now, later));
    started(ask(&mut pool, now, later));
    let waiting: Vec<_> = (0..4).map(|_| queued(ask(&mut pool, now, later))).collect();
    let Decision::Rejected(Rejection::Overloaded { pending, retry_after }) =
        ask(&mut pool, now, later)
    else {
        panic!("the queue holds four")
    };
    assert_eq!(pending, 4);
    assert!((ms(100)..=Duration::from_secs(30)).contains(&retry_after), "{retry_after:?}");

    // The one that came first starts first.
    assert_eq!(pool.done(first, Outcome::Answered, now), starts(&[(waiting[0], worker)]));
    assert_eq!((pool.pending(), pool.in_flight(), pool.totals().overloaded), (3, 2, 1));
}

#[test]
fn without_workers_requests_wait_only_where_some_are_expected() {
    let (mut pool, now) = pool(config(), 0);
    let later = now + ms(1000);
    assert_eq!(ask(&mut pool, now, later), Decision::Rejected(Rejection::Unavailable));
    assert_eq!(pool.set_expecting(true, now), Moves::default());
    let ticket = queued(ask(&mut pool, now, later));
    assert_eq!(pool.join(WorkerId(5), info(), now), starts(&[(ticket, WorkerId(5))]));

    // One that only finishes its work is no worker for new requests.
    let _ = pool.drain(WorkerId(5), now);
    let waiting = queued(ask(&mut pool, now, later));
    let away = Moves { starts: vec![], ends: vec![(waiting, Some(Rejection::Unavailable))] };
    assert_eq!(pool.set_expecting(false, now), away);
    assert_eq!(ask(&mut pool, now, later), Decision::Rejected(Rejection::Unavailable));
    assert_eq!(pool.in_flight_of(WorkerId(5)), 1);
    assert_eq!(pool.join(WorkerId(5), info(), now), Moves::default());
    started(ask(&mut pool, now, later));
}

#[test]
fn whose_deadline_has_passed_is_told_and_never_started() {
    let (mut pool, now) = pool(Config { concurrency: 1, ..config() }, 1);
    let (busy, worker) = started(ask(&mut pool, now, now + ms(900)));
    let hasty = queued(ask(&mut pool, now, now + ms(10)));
    let patient = queued(ask(&mut pool, now, now + ms(900)));
    assert_eq!(pool.next_deadline(), Some(now + ms(10)));

    let moves = pool.done(busy, Outcome::Answered, now + ms(20));
    assert_eq!(moves, Moves { starts: vec![(patient, worker)], ends: vec![(hasty, None)] });
    assert_eq!(pool.expire(now + ms(20)), Moves::default());
    assert_eq!(pool.next_deadline(), None);
    assert_eq!(pool.totals().expired, 1);
}

#[test]
fn a_withdrawn_request_is_not_started() {
    let (mut pool, now) = pool(Config { concurrency: 1, ..config() }, 1);
    let (busy, worker) = started(ask(&mut pool, now, now + ms(900)));
    let gone = queued(ask(&mut pool, now, now + ms(900)));
    let next = queued(ask(&mut pool, now, now + ms(900)));
    assert!(pool.cancel(gone));
    assert!(!pool.cancel(gone) && !pool.cancel(busy));
    assert_eq!(pool.done(busy, Outcome::Cancelled, now), starts(&[(next, worker)]));
}

#[test]
fn the_requests_of_a_lost_worker_are_forgotten() {
    let (mut pool, now) = pool(config(), 1);
    let (ticket, worker) = started(ask(&mut pool, now, now + ms(900)));
    assert_eq!(pool.leave(worker, now), Moves::default());
    assert_eq!(pool.in_flight(), 0);
    assert_eq!(pool.done(ticket, Outcome::Failed, now), Moves::default());
    assert_eq!((pool.totals().orphaned, pool.totals().failed), (1, 0));
    assert_eq!(ask(&mut pool, now, now), Decision::Rejected(Rejection::Unavailable));
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
            assert_eq!(next, Moves::default(), "nobody waits: there is more room than work");
        }
        let (ticket, worker) = started(ask(&mut pool, now, now + ms(60_000)));
        *got.entry(worker).or_default() += 1;
        ends.insert((now + service(worker).0, ticket, worker));
    }
    got
}

#[test]
fn equal_workers_get_equal_shares() {
    let (pool, now) = pool(wide(), 10);
    let got = simulate(pool, now, 10_000, ms(1), |_| (ms(20), Outcome::Answered));
    for (worker, count) in &got {
        assert!((850..1150).contains(count), "{worker:?} got {count}");
    }
    assert_eq!(got.len(), 10);
}

#[test]
fn a_worker_ten_times_slower_gets_much_less() {
    let (pool, now) = pool(Config { adaptive: false, ..Config::default() }, 4);
    let slow = WorkerId(2);
    let got = simulate(pool, now, 10_000, ms(5), |worker| {
        (if worker == slow { ms(200) } else { ms(20) }, Outcome::Answered)
    });
    let others = (10_000 - got[&slow]) / 3;
    assert!(got[&slow] * 4 < others, "{got:?}");
    assert!(got[&slow] > 0, "it is tried now and then, to notice that it has recovered");
}

#[test]
fn a_worker_that_fails_at_once_is_left_out_but_for_a_trial_now_and_then() {
    let (pool, now) = pool(wide(), 10);
    let bad = WorkerId(3);
    let got = simulate(pool, now, 20_000, ms(1), |worker| {
        if worker == bad { (ms(1), Outcome::Failed) } else { (ms(20), Outcome::Answered) }
    });
    assert!((7..30).contains(&got[&bad]), "five, then one after 1, 2, 4, 8 s: {got:?}");
}

#[test]
fn what_fails_everywhere_is_no_fault_of_a_worker() {
    let (mut pool, mut now) = pool(Config::default(), 4);
    for _ in 0..1000 {
        now += ms(1);
        let (ticket, _) = started(ask(&mut pool, now, now + ms(900)));
        let _ = pool.done(ticket, Outcome::Failed, now);
    }
    assert_eq!(pool.totals().ejected, 0);
}

/// Gives each worker all that it takes, so often, and lets some fail. Returns how many are left out then.
fn rounds(pool: &mut Scheduler, now: &mut Instant, failing: &[WorkerId], rounds: usize) -> usize {
    for _ in 0..rounds {
        let mut running = Vec::new();
        while pool.has_room() {
            running.push(started(ask(pool, *now, *now + ms(900))));
        }
        *now += ms(20);
        for (ticket, worker) in running {
            let failed = failing.contains(&worker);
            let outcome = if failed { Outcome::Failed } else { Outcome::Answered };
            assert_eq!(pool.done(ticket, outcome, *now), Moves::default());
        }
    }
    pool.workers(*now).filter(|worker| worker.state == WorkerState::Failing).count()
}

#[test]
fn never_more_than_half_of_the_workers_are_left_out_and_a_trial_brings_one_back() {
    let (mut pool, mut now) = pool(Config::default(), 4);
    let failing = [WorkerId(0), WorkerId(1), WorkerId(2)];
    assert_eq!(rounds(&mut pool, &mut now, &failing[..1], 20), 1);
    assert_eq!(rounds(&mut pool, &mut now, &failing, 200), 2, "the third is needed");
    assert_eq!(rounds(&mut pool, &mut now, &[], 1000), 0);
}

#[test]
fn when_the_others_go_one_that_was_left_out_is_used_again() {
    let (mut pool, mut now) = pool(Config::default(), 2);
    assert_eq!(rounds(&mut pool, &mut now, &[WorkerId(0)], 20), 1);
    let _ = pool.leave(WorkerId(1), now);
    assert_eq!(started(ask(&mut pool, now, now + ms(900))).1, WorkerId(0));
}

#[test]
fn a_worker_that_falls_silent_loses_its_work_although_it_never_answers() {
    let (mut pool, mut now) = pool(wide(), 4);
    let silent = WorkerId(1);
    let mut kept = 0;
    let mut first = None;
    for n in 0..3000 {
        now += ms(1);
        let (ticket, worker) = started(ask(&mut pool, now, now + ms(60_000)));
        if worker == silent && n > 1000 {
            kept += 1;
            first.get_or_insert(ticket);
        } else {
            let _ = pool.done(ticket, Outcome::Answered, now);
        }
    }
    assert!((1..=4).contains(&kept), "it got {kept} that it never answers");
    let state = |pool: &Scheduler| pool.workers(now).find(|w| w.worker == silent).map(|w| w.state);
    assert_eq!(state(&pool), Some(WorkerState::Silent));
    // One word from it is enough.
    let _ = pool.done(first.expect("it had one"), Outcome::Answered, now);
    assert_eq!(state(&pool), Some(WorkerState::Serving));
}

#[test]
fn a_worker_that_refuses_is_spared_for_a_moment_and_is_no_failure() {
    let (mut pool, now) = pool(config(), 2);
    let (ticket, refusing) = started(ask(&mut pool, now, now + ms(900)));
    let _ = pool.done(ticket, Outcome::Refused, now);
    for _ in 0..2 {
        assert_ne!(started(ask(&mut pool, now, now + ms(900))).1, refusing);
    }
    let waits = queued(ask(&mut pool, now, now + ms(900)));
    let wake = pool.next_wake().expect("it is tried again");
    assert!(wake <= now + ms(13), "{:?}", wake - now);
    assert_eq!(pool.expire(wake), starts(&[(waits, refusing)]));
    assert_eq!(pool.totals().ejected, 0);
}

#[test]
fn a_newcomer_is_credited_with_the_mean_of_the_others_and_gets_little_at_first() {
    let (mut pool, now) = pool(Config::default(), 1);
    let (ticket, _) = started(ask(&mut pool, now, now + ms(900)));
    let _ = pool.done(ticket, Outcome::Answered, now + ms(80));
    let now = now + ms(5000);
    let _ = pool.join(WorkerId(9), info(), now);
    let newcomer = pool.workers(now).find(|w| w.worker == WorkerId(9)).expect("joined");
    assert!((ms(79)..ms(81)).contains(&newcomer.expected_latency), "{newcomer:?}");
    // Beside an idle one that is known, a new one gets little; later half.
    let mut share = |now: Instant| {
        (0..100)
            .filter(|n| {
                let now = now + ms(n / 10);
                let (ticket, worker) = started(ask(&mut pool, now, now + ms(900)));
                let _ = pool.done(ticket, Outcome::Cancelled, now);
                worker == WorkerId(9)
            })
            .count()
    };
    assert_eq!(share(now), 0);
    assert!(share(now + ms(1000)) > 20);
}

#[test]
fn near_workers_are_preferred_until_they_are_slower() {
    let count = |near: u64| {
        let now = Instant::now();
        let mut pool = Scheduler::new(Config::default(), 3);
        for (worker, distance) in [(0, Distance::Process), (1, Distance::Lan), (2, Distance::Lan)] {
            let _ = pool.join(WorkerId(worker), WorkerInfo { distance, ..info() }, now);
        }
        let got = simulate(pool, now, 2000, ms(50), |worker| {
            (if worker == WorkerId(0) { ms(near) } else { ms(10) }, Outcome::Answered)
        });
        got[&WorkerId(0)]
    };
    assert!(count(10) > 1990 && count(15) > 1990, "but for the first answers");
    assert!(count(40) < 400, "{}", count(40));
}

#[test]
fn requests_of_a_key_go_to_one_worker_until_it_has_more_than_its_share() {
    let (mut pool, now) = pool(wide(), 8);
    let keyed = |pool: &mut Scheduler, key| {
        let request = Request { key: Some(key), ..Request::by(now + ms(900)) };
        started(pool.request(now, request).0)
    };
    let mut homes = BTreeSet::new();
    let first: Vec<_> = (0..64)
        .map(|key| {
            let (ticket, worker) = keyed(&mut pool, key);
            let _ = pool.done(ticket, Outcome::Answered, now);
            homes.insert(worker);
            worker
        })
        .collect();
    assert_eq!(homes.len(), 8, "keys are spread");
    // One leaves: only its keys move.
    let _ = pool.leave(WorkerId(3), now);
    for (key, before) in first.iter().enumerate() {
        let (ticket, after) = keyed(&mut pool, key as u64);
        let _ = pool.done(ticket, Outcome::Answered, now);
        assert_eq!(*before == after, *before != WorkerId(3), "key {key}");
    }
    // A key that everybody wants does not fill one worker while the others are idle.
    let mut load = HashMap::<_, usize>::new();
    (0..14).for_each(|_| *load.entry(keyed(&mut pool, 1).1).or_default() += 1);
    assert!(load.len() >= 4 && load.values().all(|load| *load <= 3), "{load:?}");
}

/// Who got each of so many requests that come at once, in a pool of four on so many processors whose workers
/// take so long for each.
fn at_once(requests: usize, processors: usize, takes: Duration) -> Vec<WorkerId> {
    let (pool, mut now) = pool(wide(), 4);
    let mut pool = pool.with_processors(processors);
    for _ in 0..100 {
        let (ticket, _) = started(ask(&mut pool, now, now + ms(1000)));
        now += takes;
        assert_eq!(pool.done(ticket, Outcome::Answered, now), Moves::default());
    }
    (0..requests).map(|_| started(ask(&mut pool, now, now + ms(1000))).1).collect()
}

#[test]
fn short_requests_go_to_one_worker_in_a_row_where_there_is_no_processor_for_all() {
    let short = Duration::from_micros(20);
    let each = |got: &[WorkerId]| {
        let mut each: Vec<_> =
            (0..4).map(|id| got.iter().filter(|worker| **worker == WorkerId(id)).count()).collect();
        each.sort_unstable();
        each
    };
    let rows = |got: &[WorkerId]| got.chunk_by(|one, two| one == two).count();

    // With a processor for each, all are at work, however short it is.
    let few = each(&at_once(8, 8, short));
    assert!(few[0] >= 1 && few[3] <= 3, "{few:?}");
    // With two, two are.
    let many = at_once(80, 2, short);
    assert!(rows(&many) <= 12, "{many:?}");
    assert!(each(&many)[2] >= 24, "{many:?}");
    // Not so what takes time.
    let long = at_once(80, 2, ms(10));
    assert!(rows(&long) >= 50 && each(&long)[0] >= 18, "{long:?}");
}

#[test]
fn callers_that_wait_are_served_in_turn() {
    let (mut pool, now) = pool(Config { concurrency: 1, queue: 100, ..config() }, 1);
    let by = |pool: &mut Scheduler, caller| {
        pool.request(now, Request { caller, ..Request::by(now + ms(900)) }).0
    };
    let (mut running, _) = started(by(&mut pool, 1));
    let loud: Vec<_> = (0..10).map(|_| queued(by(&mut pool, 1))).collect();
    let quiet = [queued(by(&mut pool, 2)), queued(by(&mut pool, 2))];
    let mut order = Vec::new();
    for _ in 0..5 {
        running = pool.done(running, Outcome::Answered, now).starts[0].0;
        order.push(running);
    }
    assert_eq!(order, [loud[0], quiet[0], loud[1], quiet[1], loud[2]]);
}

#[test]
fn a_full_queue_takes_a_place_from_who_has_most() {
    let (mut pool, now) = pool(Config { concurrency: 1, ..config() }, 1);
    let by = |pool: &mut Scheduler, caller, priority| {
        pool.request(now, Request { caller, priority, ..Request::by(now + ms(900)) })
    };
    started(by(&mut pool, 1, Priority::Normal).0);
    let loud: Vec<_> = (0..4).map(|_| queued(by(&mut pool, 1, Priority::Normal).0)).collect();
    let (decision, moves) = by(&mut pool, 2, Priority::Normal);
    queued(decision);
    assert!(
        matches!(moves.ends[..], [(ticket, Some(Rejection::Overloaded { .. }))] if ticket == loud[3])
    );
    let (decision, _) = by(&mut pool, 1, Priority::Normal);
    assert!(matches!(decision, Decision::Rejected(Rejection::Overloaded { .. })));
    let (decision, _) = by(&mut pool, 3, Priority::Low);
    assert!(matches!(decision, Decision::Rejected(Rejection::Overloaded { .. })));
    // The urgent take a place from the less urgent.
    let (decision, moves) = by(&mut pool, 1, Priority::High);
    queued(decision);
    assert_eq!(moves.ends.len(), 1);
    assert_eq!((pool.pending(), pool.totals().displaced), (4, 2));
}

#[test]
fn the_urgent_come_first_and_the_others_do_not_starve() {
    let (mut pool, now) = pool(Config { concurrency: 1, queue: 100, ..config() }, 1);
    let by = |pool: &mut Scheduler, priority| {
        pool.request(now, Request { priority, ..Request::by(now + ms(900)) }).0
    };
    let (mut running, _) = started(by(&mut pool, Priority::Normal));
    let low: Vec<_> = (0..2).map(|_| queued(by(&mut pool, Priority::Low))).collect();
    (0..40).for_each(|_| {
        queued(by(&mut pool, Priority::High));
    });
    let mut turns = Vec::new();
    for turn in 1..=25 {
        running = pool.done(running, Outcome::Answered, now).starts[0].0;
        if low.contains(&running) {
            turns.push(turn);
        }
    }
    assert_eq!(turns, [10, 20]);
}

#[test]
fn a_pool_that_is_late_serves_the_fresh_first_and_gives_up_the_stale() {
    let config = Config { concurrency: 1, queue: 100, responsiveness: Some(ms(500)), ..config() };
    let (mut pool, now) = pool(config, 1);
    let (running, worker) = started(ask(&mut pool, now, now + ms(60_000)));
    let old: Vec<_> = (0..3).map(|_| queued(ask(&mut pool, now, now + ms(60_000)))).collect();
    // The worker hangs for a while; then it is late for those that have waited.
    let later = now + ms(2100);
    let fresh = queued(ask(&mut pool, later, later + ms(60_000)));
    let moves = pool.done(running, Outcome::Answered, later);
    assert_eq!(moves.starts, [(fresh, worker)]);
    assert!(matches!(moves.ends[..], [(stale, Some(Rejection::Busy { .. }))] if stale == old[0]));
    // Where none is fresh, nobody gives way.
    let moves = pool.done(fresh, Outcome::Answered, later);
    assert_eq!(moves, starts(&[(old[2], worker)]));
}

#[test]
fn a_slow_pool_is_busy_lets_each_tenth_through_and_recovers() {
    let (mut pool, now) = pool(Config { queue: 100, concurrency: 32, ..config() }, 1);
    let answer_in = |pool: &mut Scheduler, at: Instant, took: Duration| {
        let (ticket, _) = started(ask(pool, at, at + ms(60_000)));
        let _ = pool.done(ticket, Outcome::TimedOut, at + took);
    };
    answer_in(&mut pool, now, ms(6000));
    let now = now + ms(6000);
    let decisions: Vec<_> = (0..20).map(|_| ask(&mut pool, now, now + ms(60_000))).collect();
    let passed: Vec<_> = (0..20).filter(|n| !is_busy(decisions[*n])).collect();
    assert_eq!(passed, [9, 19]);
    let Decision::Rejected(Rejection::Busy { expected, .. }) = decisions[0] else { panic!("busy") };
    assert_eq!(expected, ms(6000));
    assert_eq!(pool.totals().busy, 18);

    // The two that passed are answered at once: so will others be.
    for decision in [decisions[9], decisions[19]] {
        let _ = pool.done(started(decision).0, Outcome::Answered, now);
    }
    assert!(is_busy(ask(&mut pool, now, now + ms(1000))), "two fast ones are no trend");
    for _ in 0..30 {
        if let Decision::Start(ticket, _) = ask(&mut pool, now, now + ms(1000)) {
            let _ = pool.done(ticket, Outcome::Answered, now);
        }
    }
    assert!(!is_busy(ask(&mut pool, now, now + ms(1000))));

    // Where nobody asks, it is forgotten after twice the responsiveness.
    answer_in(&mut pool, now, ms(600_000));
    let now = now + ms(600_000);
    assert!(is_busy(ask(&mut pool, now, now + ms(1000))));
    assert!(is_busy(ask(&mut pool, now + ms(10_000), now + ms(11_000))));
    assert!(!is_busy(ask(&mut pool, now + ms(10_001), now + ms(11_000))));
}

#[test]
fn what_would_be_in_vain_is_turned_away_at_once() {
    let (mut pool, mut now) = pool(Config { concurrency: 1, queue: 100, ..config() }, 1);
    let (mut running, _) = started(ask(&mut pool, now, now + ms(60_000)));
    (0..40).for_each(|_| {
        queued(ask(&mut pool, now, now + ms(60_000)));
    });
    for _ in 0..10 {
        now += ms(10);
        running = pool.done(running, Outcome::Answered, now).starts[0].0;
    }
    // Thirty wait, each for 10 ms.
    assert!(is_busy(ask(&mut pool, now, now + ms(250))));
    queued(ask(&mut pool, now, now + ms(400)));
    let expected = pool.expected_wait(now);
    assert!((ms(300)..ms(340)).contains(&expected), "{expected:?}");
}

#[test]
fn a_request_that_takes_long_is_given_to_a_second_worker_within_the_budget() {
    let (mut pool, mut now) = pool(Config { hedges: 0.05, ..Config::default() }, 4);
    for _ in 0..200 {
        now += ms(20);
        let (ticket, _) = started(ask(&mut pool, now, now + ms(900)));
        now += ms(10);
        let _ = pool.done(ticket, Outcome::Answered, now);
    }
    let after = pool.hedge_after().expect("the usual time is known");
    assert!((ms(9)..ms(12)).contains(&after), "{after:?}");
    let (first, worker) = started(ask(&mut pool, now, now + ms(900)));
    let (second, other) = pool.hedge(first, now + after).expect("there is room");
    assert_ne!(worker, other);
    let _ = pool.done(second, Outcome::Answered, now + ms(20));
    let _ = pool.done(first, Outcome::Outrun, now + ms(20));
    assert_eq!(pool.hedge(first, now), None, "it has ended");
    let (third, _) = started(ask(&mut pool, now, now + ms(900)));
    let extra = (0..1000).filter_map(|_| pool.hedge(third, now)).map(|(ticket, _)| ticket);
    let extra: Vec<_> = extra.collect();
    assert!(extra.len() < 60, "{}", extra.len());
}

#[test]
fn a_worker_that_handles_one_at_a_time_is_not_given_what_would_wait_there() {
    let (mut pool, start) =
        pool(Config { responsiveness: None, queue: 9999, ..Config::default() }, 1);
    // One worker that takes 20 ms for each, one after the other, and always has more to do.
    let limit = |pool: &Scheduler, now| pool.workers(now).next().expect("one").limit;
    let mut now = start;
    let mut has = VecDeque::<Ticket>::new();
    for _ in 0..2000 {
        if let Decision::Start(ticket, _) = ask(&mut pool, now, now + ms(600_000)) {
            has.push_back(ticket);
        }
    }
    for _ in 0..500 {
        now += ms(20);
        let ended = has.pop_front().expect("it has work");
        has.extend(pool.done(ended, Outcome::Answered, now).starts.iter().map(|(t, _)| *t));
    }
    assert!(limit(&pool, now) <= 2, "{}", limit(&pool, now));
    assert!(!has.is_empty(), "and it never runs dry");
}

#[test]
fn a_worker_that_waits_for_many_at_a_time_gets_as_many_as_it_may() {
    for service in [ms(0), ms(20)] {
        let config = Config { responsiveness: None, queue: 99_999, ..Config::default() };
        let (mut pool, start) = pool(config, 1);
        let mut ends: BTreeSet<(Instant, Ticket)> = BTreeSet::new();
        for _ in 0..5000 {
            if let Decision::Start(ticket, _) = ask(&mut pool, start, start + ms(600_000)) {
                ends.insert((start + service, ticket));
            }
        }
        let mut n = 0_u64;
        while let Some((at, ticket)) = ends.pop_first() {
            for (next, _) in pool.done(ticket, Outcome::Answered, at).starts {
                n += 1;
                // From half to one and a half times as long.
                let takes = service / 2 + service * (n * 7919 % 100) as u32 / 100;
                ends.insert((at + takes, next));
            }
        }
        let limit = pool.workers(start + ms(600_000)).next().expect("one").limit;
        assert!(limit >= 24, "{service:?}: {limit}");
    }
}

#[test]
fn before_the_first_answer_the_wait_is_what_somebody_has_waited() {
    let (mut pool, now) = pool(config(), 1);
    let later = now + ms(60_000);
    while let Decision::Start(..) = pool.request(now, Request::by(later)).0 {}
    assert_eq!(pool.expected_wait(now + ms(2000)), ms(2000));
}
