//! Pools that know no type: what a front door is that serves whatever is published.

extern crate layercake_node as layercake;

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use common::{Host, SOON, until};
use layercake::{
    AnyPool, AskError, Message,
    directory::Scope,
    service::{Call, Service},
    testing::{self, HostId, Network, NodeId},
    wire::payload::{Encoding, Fingerprint, Payload},
};
use layercake_macros::{actor, message};
use serde_json::{Value, json};

#[message(reply = u64, idempotent)]
struct Square {
    n: u64,
}

#[message(reply = u64)]
struct Cube {
    n: u64,
}

#[derive(Default)]
struct Old;

#[actor]
impl Old {
    async fn square(&mut self, Square { n }: Square) -> u64 {
        n * n
    }
}

/// The next release of it.
#[derive(Default)]
struct New;

#[actor]
impl New {
    async fn square(&mut self, Square { n }: Square) -> u64 {
        n * n
    }

    async fn cube(&mut self, Cube { n }: Cube) -> u64 {
        n * n * n
    }
}

/// Asks as a gateway does: JSON in, JSON out.
async fn ask<M: Message>(pool: &AnyPool, body: Value) -> Result<Value, AskError> {
    let bytes = serde_json::to_vec(&body).expect("JSON").into();
    let payload = Payload { tag: M::TAG, encoding: Encoding::Json, bytes };
    let deadline = Instant::now() + SOON;
    let reply = pool.call(Call::new(payload, Fingerprint::NONE, deadline)).await?;
    assert_eq!(reply.encoding, Encoding::Json);
    Ok(serde_json::from_slice(&reply.bytes).expect("JSON"))
}

fn names(pool: &AnyPool) -> Vec<String> {
    pool.api().messages.iter().map(|message| message.name.clone()).collect()
}

#[tokio::test]
async fn a_request_goes_only_to_members_that_advertise_its_message() {
    let host = Host::new();
    let (front, old, new) = (host.node().await, host.node().await, host.node().await);
    let pool = front.pool_of("powers:.*", Scope::Host).start().await.expect("starts");
    assert!(!pool.is_ready() && pool.api().messages.is_empty());
    assert_eq!(ask::<Square>(&pool, json!({"n": 3})).await, Err(AskError::Unavailable));

    let workers = old.pool::<Old>().tasks(3).publish("powers:old", Scope::Host).start().await;
    let _workers = workers.expect("starts");
    tokio::time::timeout(SOON, pool.wait_for(3)).await.expect("found");
    assert_eq!(names(&pool), ["Square"]);
    assert_eq!(ask::<Square>(&pool, json!({"n": 3})).await, Ok(json!(9)));
    assert_eq!(ask::<Cube>(&pool, json!({"n": 3})).await, Err(AskError::Unavailable));

    let workers = new.pool::<New>().tasks(1).publish("powers:new", Scope::Host).start().await;
    let workers = workers.expect("starts");
    tokio::time::timeout(SOON, pool.wait_for(4)).await.expect("found");
    assert_eq!(names(&pool), ["Square", "Cube"]);
    for n in 0..50 {
        // Three of four members do not know it.
        assert_eq!(ask::<Cube>(&pool, json!({ "n": n })).await, Ok(json!(n * n * n)));
        assert_eq!(ask::<Square>(&pool, json!({ "n": n })).await, Ok(json!(n * n)));
    }

    workers.stop().await;
    until("the new member leaves", || pool.size() == 3).await;
    until("and its message with it", || names(&pool) == ["Square"]).await;
    pool.stop().await;
    assert_eq!(ask::<Square>(&pool, json!({"n": 3})).await, Err(AskError::Unavailable));
    for node in [front, old, new] {
        node.close().await;
    }
}

/// Works until it is stopped.
#[derive(Default)]
struct Endless;

#[actor]
impl Endless {
    async fn square(&mut self, _: Square) -> u64 {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_members_that_have_gone() {
    let (network, host) = (Network::new(), HostId::random());
    let node = async || testing::start_in(&network, host, NodeId::random()).await.expect("starts");
    let (front, one, other) = (node().await, node().await, node().await);
    let pool = front.pool_of("powers", Scope::Host).concurrency(1).start().await.expect("starts");
    for node in [&one, &other] {
        let workers = node.pool::<Endless>().tasks(1).publish("powers", Scope::Host);
        workers.start().await.expect("starts");
    }
    pool.wait_for(2).await;
    let begun = tokio::time::Instant::now();
    let asks: Vec<_> = (0..3)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move { ask::<Square>(&pool, json!({ "n": n })).await })
        })
        .collect();
    let waiting = || pool.status().iter().map(|class| class.waiting).sum::<usize>();
    until("two are begun and one waits", || waiting() == 1).await;
    // One leaves and has not finished, the other is lost.
    let leaving = tokio::spawn(async move { one.close().await });
    until("it is to finish", || pool.size() == 1).await;
    network.kill(other.peer());
    until("nobody waits", || waiting() == 0).await;
    assert!(!leaving.is_finished() && begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    asks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_upgrade_of_all_members_under_load_fails_nothing() {
    let host = Host::new();
    let (front, old, new) = (host.node().await, host.node().await, host.node().await);
    let pool = front.pool_of("powers", Scope::Host).concurrency(2).start().await.expect("starts");
    let olds = old.pool::<Old>().tasks(2).publish("powers", Scope::Host).start().await;
    let olds = olds.expect("starts");
    tokio::time::timeout(SOON, pool.wait_for(2)).await.expect("found");

    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // More askers than places, so that some wait in the queue of the old ones when these leave.
    let askers: Vec<_> = (0..16)
        .map(|n: u64| {
            let (pool, over, answered) = (pool.clone(), over.clone(), answered.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(ask::<Square>(&pool, json!({ "n": n })).await, Ok(json!(n * n)));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("they are under load", || answered.load(Ordering::Relaxed) > 100).await;
    let news = new.pool::<New>().tasks(2).publish("powers", Scope::Host).start().await;
    let _news = news.expect("starts");
    tokio::time::timeout(SOON, pool.wait_for(4)).await.expect("found");
    olds.stop().await;
    until("the old ones are gone", || pool.size() == 2).await;
    let so_far = answered.load(Ordering::Relaxed);
    until("it goes on", || answered.load(Ordering::Relaxed) > so_far + 100).await;
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.expect("every request was answered");
    }
    assert_eq!(names(&pool), ["Square", "Cube"]);
    for node in [front, old, new] {
        node.close().await;
    }
}
