//! Pools as a user meets them: the same requests whatever the workers are.

extern crate layercake_node as layercake;

mod common;
#[path = "common/squares.rs"]
mod squares;

use std::{pin::pin, time::Duration};

use common::{Host, SOON, soon, until};
use futures_util::{
    future::{join, join_all},
    stream::{FuturesUnordered, StreamExt},
};
use layercake::{AskError, Pool, PoolError, directory::Scope, pool::Workers};
use layercake_macros::{actor, message};
use squares::{Block, Gate, Square};
use tokio::task::JoinHandle;

#[message(reply = ())]
struct Fall {}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn square(&mut self, Square { n }: Square) -> u64 {
        n * n
    }

    async fn block(&mut self, block: Block) {
        // A handler that has its thread for itself, as handlers do that burn CPU.
        block.wait();
    }

    async fn fall(&mut self, _: Fall) {
        panic!("it falls, as it was told to");
    }
}

/// Asks for something that takes until the gate opens.
fn asked(pool: &Pool<Worker>, gate: &Gate) -> JoinHandle<Result<(), AskError>> {
    let (pool, block) = (pool.clone(), gate.block());
    tokio::spawn(async move { pool.ask(block).await })
}

async fn squares(pool: &Pool<Worker>) {
    let asks = (0..100).map(|n| async move { (n, pool.ask(Square { n }).await) });
    for (n, answer) in join_all(asks).await {
        assert_eq!(answer, Ok(n * n));
    }
}

#[tokio::test]
async fn tasks_and_threads_answer_the_same() {
    let host = Host::new();
    let node = host.node().await;
    for threads in [false, true] {
        let pool = node.pool::<Worker>();
        let pool = if threads { pool.threads(3) } else { pool.tasks(3) };
        let pool = pool.start().await.expect("starts");
        pool.wait_for(3).await;
        squares(&pool).await;
        pool.stop().await;
        assert_eq!(pool.ask(Square { n: 1 }).await, Err(AskError::Unavailable));
    }
    node.close().await;
}

#[tokio::test]
async fn a_worker_that_burns_cpu_in_a_thread_stalls_nobody() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node.pool::<Worker>().threads(2).start().await.expect("starts");
    pool.wait_for(2).await;
    let (gate, other) = (Gate::shut(), node.spawn(Worker));
    let blocked = join(pool.ask(gate.block()), pool.ask(gate.block()));
    // Both threads are busy; this one runtime thread of the test goes on all the while.
    let meanwhile = async {
        until("both are busy", || gate.come() == 2).await;
        for n in 0..20 {
            assert_eq!(other.ask(Square { n }).await, Ok(n * n));
        }
        gate.open();
    };
    let (answers, ()) = join(blocked, meanwhile).await;
    assert_eq!(answers, (Ok(()), Ok(())));
    node.close().await;
}

#[tokio::test]
async fn published_workers_are_found_by_name_from_another_node() {
    let host = Host::new();
    let (there, here) = (host.node().await, host.node().await);
    let pool = here.pool::<Worker>().hosts("square:.*", Scope::Host).start().await.expect("starts");
    assert_eq!(pool.ask(Square { n: 3 }).await, Err(AskError::Unavailable));
    let workers = there.pool::<Worker>().tasks(2).publish("square:worker", Scope::Host);
    let workers = workers.start().await.expect("starts");
    soon(pool.wait_for(2)).await;
    squares(&pool).await;
    workers.stop().await;
    until("they leave", || pool.size() == 0).await;
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn a_full_queue_says_overloaded_and_a_worker_that_panics_is_replaced() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node
        .pool::<Worker>()
        .threads(1)
        .concurrency(1)
        .queue(2)
        .stand_down(Duration::from_millis(10))
        .start()
        .await
        .expect("starts");
    let gate = Gate::shut();
    let mut asks: FuturesUnordered<_> = (0..6).map(|_| pool.ask(gate.block())).collect();
    for _ in 0..3 {
        let answer = soon(asks.next()).await.expect("one of six");
        assert!(matches!(answer, Err(AskError::Overloaded { .. })), "{answer:?}");
    }
    let status = pool.status();
    assert_eq!((status.in_flight, status.waiting), (1, 2), "one runs, two wait");
    gate.open();
    let answers: Vec<_> = asks.collect().await;
    assert_eq!(answers, [Ok(()), Ok(()), Ok(())]);
    assert_eq!(pool.ask(Fall {}).await, Err(AskError::Panicked));
    // It is expected back, so the next request waits for it.
    assert_eq!(pool.ask(Square { n: 4 }).await, Ok(16));
    node.close().await;
}

#[tokio::test]
async fn a_pool_that_answers_too_slowly_is_busy_and_lets_a_share_through() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node
        .pool::<Worker>()
        .threads(1)
        .responsiveness(Some(Duration::from_millis(500)))
        .busy_pass_rate(3)
        .start()
        .await
        .expect("starts");
    let gate = Gate::shut();
    {
        let mut slow = pin!(pool.ask(gate.block()));
        let early = tokio::time::timeout(Duration::from_millis(600), &mut slow).await;
        assert!(early.is_err(), "it is too slow");
        gate.open();
        assert_eq!(slow.await, Ok(()));
    }
    let mut answers = Vec::new();
    for n in 0..6 {
        answers.push(pool.ask(Square { n }).await);
    }
    let busy = answers.iter().filter(|a| matches!(a, Err(AskError::Busy { .. }))).count();
    assert!((2..=4).contains(&busy), "most are turned away, some pass: {answers:?}");
    // The answers that pass are quick, so the pool recovers.
    let recovers = async {
        while pool.ask(Square { n: 2 }).await != Ok(4) || pool.ask(Square { n: 3 }).await != Ok(9) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, recovers).await.expect("it recovers");
    node.close().await;
}

#[tokio::test]
async fn who_waits_in_vain_gives_the_place_in_the_queue_back() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node.pool::<Worker>().threads(1).concurrency(1).queue(2).start().await;
    let pool = pool.expect("starts");
    let gate = Gate::shut();
    let blocked = asked(&pool, &gate);
    until("it is busy", || gate.come() == 1).await;
    let brief = Duration::from_millis(20);
    for round in 0..4 {
        // One more than there is room for would be `Overloaded`.
        let both =
            join(pool.ask_within(Square { n: 1 }, brief), pool.ask_within(Square { n: 2 }, brief));
        let answers = both.await;
        let full =
            |answer: &Result<u64, AskError>| matches!(answer, Err(AskError::Overloaded { .. }));
        assert!(!full(&answers.0) && !full(&answers.1), "round {round}: {answers:?}");
    }
    gate.open();
    assert_eq!(blocked.await.expect("no panic"), Ok(()));
    assert_eq!(pool.ask(Square { n: 5 }).await, Ok(25));
    node.close().await;
}

#[tokio::test]
async fn improbable_settings_are_refused_with_a_reason() {
    let host = Host::new();
    let node = host.node().await;
    let none = node.pool::<Worker>().tasks(0).start().await.expect_err("no workers");
    assert!(matches!(none, PoolError::Count(0)), "{none}");
    let queue = node.pool::<Worker>().queue(0).start().await.expect_err("no queue");
    assert!(queue.to_string().contains("queue"), "{queue}");
    let hasty = node.pool::<Worker>().responsiveness(Some(Duration::from_millis(1)));
    let hasty = hasty.start().await.expect_err("too hasty");
    assert!(hasty.to_string().contains("responsiveness"), "{hasty}");
    node.close().await;
}

#[tokio::test]
async fn a_pool_is_resized_mixed_and_given_further_workers_while_it_works() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node.pool::<Worker>().tasks(2).and(Workers::Threads(1)).named("squares");
    let pool = pool.start().await.expect("starts");
    assert_eq!(pool.name(), "squares");
    until("all are there", || pool.size() == 3).await;
    squares(&pool).await;

    pool.resize(5).expect("more tasks");
    until("it has grown", || pool.size() == 6).await;
    pool.resize(1).expect("fewer tasks");
    until("it has shrunk", || pool.size() == 2).await;
    squares(&pool).await;

    let extra = node.spawn(Worker);
    let member = pool.add(&extra);
    assert_eq!(pool.size(), 3);
    squares(&pool).await;
    member.remove().await;
    assert_eq!(pool.size(), 2);
    assert_eq!(extra.ask(Square { n: 2 }).await, Ok(4), "it lives on");
    let member = pool.add(&extra);
    extra.stop();
    until("it has ended", || pool.size() == 2).await;
    member.remove().await;
    squares(&pool).await;

    assert!(matches!(pool.resize(0), Err(PoolError::Count(0))));
    let more = pool.resize(layercake::pool::MAX_WORKERS);
    assert!(matches!(more, Err(PoolError::Count(_))), "the other kind counts: {more:?}");
    let none = node.pool::<Worker>().hosts("nobody", Scope::Host).start().await.expect("starts");
    assert!(matches!(none.resize(2), Err(PoolError::Foreign)));
    pool.stop().await;
    assert!(matches!(pool.resize(2), Err(PoolError::Stopped)));
    let wrong = node.pool::<Worker>().tasks(2).between(3, 2).start().await;
    assert!(matches!(wrong, Err(PoolError::Bounds { min: 3, max: 2 })));
    node.close().await;
}

#[tokio::test]
async fn nobody_waits_where_the_last_worker_leaves() {
    let host = Host::new();
    let (front, back) = (host.node().await, host.node().await);
    let pool = front.pool::<Worker>().hosts("workers", Scope::Host).concurrency(1);
    let pool = pool.start().await.expect("starts");
    let workers = back.pool::<Worker>().threads(1).publish("workers", Scope::Host);
    let workers = workers.start().await.expect("starts");
    soon(pool.wait_for(1)).await;
    let gate = Gate::shut();
    let busy = asked(&pool, &gate);
    until("it has something", || gate.come() == 1).await;
    let waiting = asked(&pool, &gate);
    until("and another waits", || pool.status().waiting == 1).await;
    let leaving = tokio::spawn(async move { workers.stop().await });
    let told = soon(waiting).await.expect("no panic");
    assert_eq!(told, Err(AskError::Unavailable));
    // What was begun is finished.
    gate.open();
    assert_eq!(busy.await.expect("no panic"), Ok(()));
    leaving.await.expect("no panic");
    front.close().await;
    back.close().await;
}

#[tokio::test]
async fn a_worker_that_is_removed_finishes_what_it_has() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node.pool::<Worker>().threads(1).start().await.expect("starts");
    let gate = Gate::shut();
    let busy = asked(&pool, &gate);
    pool.resize(2).expect("another");
    until("it is there", || pool.size() == 2).await;
    let ahead: Vec<_> = (0..4).map(|_| asked(&pool, &gate)).collect();
    until("both have something", || gate.come() == 2).await;
    pool.resize(1).expect("one less");
    until("it is on its way out", || pool.size() == 1).await;
    gate.open();
    for ask in ahead.into_iter().chain([busy]) {
        assert_eq!(ask.await.expect("no panic"), Ok(()));
    }
    node.close().await;
}

#[tokio::test]
async fn a_pool_within_bounds_grows_under_load() {
    let host = Host::new();
    let node = host.node().await;
    let pool = node
        .pool::<Worker>()
        .threads(1)
        .between(1, 4)
        .most_load(f64::MAX)
        .start()
        .await
        .expect("starts");
    let gate = Gate::shut();
    // Sixteen at any time. All at once and then none would look idle whenever the pool looks then.
    let load = join_all((0..16).map(|_| async {
        loop {
            let answer = pool.ask(gate.block()).await;
            assert!(answer.is_ok(), "{answer:?}");
        }
    }));
    // How fast a worker is, is up to the test: an answer each 25 ms.
    let pace = async {
        let mut pace = tokio::time::interval(Duration::from_millis(25));
        loop {
            pace.tick().await;
            gate.let_one_pass();
        }
    };
    tokio::select! {
        _ = load => {}
        () = pace => {}
        () = soon(pool.wait_for(2)) => {}
    }
    gate.open();
    node.close().await;
}
