use super::*;

mod properties;
mod stories;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Small, and without what changes by itself.
fn config() -> Config {
    Config { queue: 4, concurrency: 2, adaptive: false, ..Config::default() }
}

/// The usual settings, with all places from the beginning.
fn wide() -> Config {
    Config { adaptive: false, ..Config::default() }
}

fn info() -> WorkerInfo {
    WorkerInfo::default()
}

/// A scheduler with so many workers, and the time.
fn pool(config: Config, workers: u64) -> (Scheduler, Instant) {
    let now = Instant::now();
    let mut pool = Scheduler::new(config, 7);
    for worker in 0..workers {
        let info = WorkerInfo { identity: worker * 7919, ..info() };
        assert_eq!(pool.join(WorkerId(worker), info, now), Moves::default());
    }
    (pool, now)
}

/// A request by nobody in particular.
fn ask(pool: &mut Scheduler, now: Instant, deadline: Instant) -> Decision {
    let (decision, moves) = pool.request(now, Request::by(deadline));
    assert_eq!(moves, Moves::default());
    decision
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

fn is_busy(decision: Decision) -> bool {
    matches!(decision, Decision::Rejected(Rejection::Busy { .. }))
}

fn starts(starts: &[(Ticket, WorkerId)]) -> Moves {
    Moves { starts: starts.to_vec(), ends: Vec::new() }
}
