//! A pool as a worker of another pool, and what pools show of themselves to the mesh.

extern crate layercake_node as layercake;

mod common;
#[path = "common/squares.rs"]
mod squares;

use std::time::Instant;

use common::{Host, SOON, soon, until};
use layercake::{
    AskError, Message, Node, Outlet, Pool,
    directory::Scope,
    pool::{Place, WorkerState},
    service::{Call, Service},
    wire::payload::{Encoding, Fingerprint, Payload},
};
use layercake_macros::{actor, message};
use squares::{Block, Gate, Square};

#[message(reply = ())]
struct Note {}

#[message(stream = u64)]
struct Upto {
    n: u64,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn square(&mut self, Square { n }: Square) -> u64 {
        n * n
    }

    async fn block(&mut self, block: Block) {
        block.wait();
    }

    async fn note(&mut self, _: Note) {}

    async fn upto(&mut self, Upto { n }: Upto, outlet: &mut Outlet<u64>) {
        for part in 0..n {
            if outlet.send(part).await.is_err() {
                return;
            }
        }
    }
}

async fn pool_of_pools(node: &Node) -> Pool<Worker> {
    node.pool::<Worker>().hosts("racks:.*", Scope::Host).start().await.expect("starts")
}

#[tokio::test]
async fn a_pool_of_pools_serves_as_one_of_workers_does() {
    let host = Host::new();
    let (rack, front) = (host.node().await, host.node().await);
    let upper = pool_of_pools(&front).await;
    let lower = rack.pool::<Worker>().tasks(3).start().await.expect("starts");
    let published = lower.publish("racks:one", Scope::Host).await.expect("published");
    soon(upper.wait_for(1)).await;
    for n in 0..50 {
        assert_eq!(upper.ask(Square { n }).await, Ok(n * n));
    }
    let answered = lower.status().totals.answered;
    assert_eq!(answered, 50, "all of them went through the lower pool");
    // Its address takes tells, and answers asks, as a worker's does; here and from elsewhere.
    published.address().tell(Note {}).await.expect("taken");
    assert_eq!(published.address().ask(Square { n: 7 }).await, Ok(49));
    until("the tell has reached a worker", || lower.status().totals.answered == 52).await;
    // Withdrawn, it is no worker any more, and the pool lives on.
    drop(published);
    until("it has left", || upper.size() == 0).await;
    assert_eq!(upper.ask(Square { n: 2 }).await, Err(AskError::Unavailable));
    assert_eq!(lower.ask(Square { n: 2 }).await, Ok(4));
    rack.close().await;
    front.close().await;
}

#[tokio::test]
async fn an_answer_in_parts_passes_through_pools_of_any_type_and_of_pools() {
    let host = Host::new();
    let (rack, front) = (host.node().await, host.node().await);
    let lower = rack.pool::<Worker>().tasks(2).start().await.expect("starts");
    let _published = lower.publish("racks:one", Scope::Host).await.expect("published");
    let any = front.pool_of("racks:.*", Scope::Host).start().await.expect("starts");
    soon(any.wait_for(1)).await;
    let payload =
        Payload { tag: Upto::TAG, encoding: Encoding::Json, bytes: r#"{"n":300}"#.into() };
    let call = Call::new(payload, Fingerprint::NONE, Instant::now() + SOON);
    let mut parts = any.stream(call).await.expect("taken");
    let mut got = Vec::new();
    while let Some(part) = soon(parts.next()).await {
        let part = part.expect("a part");
        got.push(serde_json::from_slice::<u64>(&part.bytes).expect("a number"));
    }
    assert_eq!(got, (0..300).collect::<Vec<_>>());
    until("its place is given back", || lower.status().in_flight == 0).await;
    rack.close().await;
    front.close().await;
}

#[tokio::test]
async fn what_one_pool_turns_away_another_one_answers() {
    let host = Host::new();
    let (small, large, front) = (host.node().await, host.node().await, host.node().await);
    let upper = pool_of_pools(&front).await;
    // One that is full with a single request, and one with room.
    let full = small.pool::<Worker>().threads(1).concurrency(1).queue(1).start().await;
    let full = full.expect("starts");
    let roomy = large.pool::<Worker>().tasks(4).start().await.expect("starts");
    let _one = full.publish("racks:full", Scope::Host).await.expect("published");
    soon(upper.wait_for(1)).await;
    let gate = Gate::shut();
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (full, block) = (full.clone(), gate.block());
            tokio::spawn(async move { full.ask(block).await })
        })
        .collect();
    until("it is full", || gate.come() == 1 && full.status().waiting == 1).await;
    // Alone, its push-back comes through as what it is.
    let answer = upper.ask(Square { n: 3 }).await;
    assert!(
        matches!(answer, Err(AskError::Overloaded { .. } | AskError::Busy { .. })),
        "{answer:?}"
    );
    let _other = roomy.publish("racks:roomy", Scope::Host).await.expect("published");
    soon(upper.wait_for(2)).await;
    for n in 0..20 {
        assert_eq!(upper.ask(Square { n }).await, Ok(n * n));
    }
    gate.open();
    for ask in busy {
        assert_eq!(ask.await.expect("no panic"), Ok(()));
    }
    for node in [small, large, front] {
        node.close().await;
    }
}

#[tokio::test]
async fn every_pool_of_the_mesh_is_seen_with_its_workers() {
    let host = Host::new();
    let (rack, front) = (host.node().await, host.node().await);
    let own = rack.pool::<Worker>().threads(2).publish("squares:worker", Scope::Host);
    let own = own.named("squares").start().await.expect("starts");
    let found = front.pool::<Worker>().hosts("squares:.*", Scope::Host).named("found");
    let found = found.start().await.expect("starts");
    soon(found.wait_for(2)).await;
    for n in 0..10 {
        assert_eq!(found.ask(Square { n }).await, Ok(n * n));
    }
    let pools = front.pools().await.expect("a directory");
    let named: Vec<_> = pools.iter().map(|pool| (&*pool.pool.name, pool.node)).collect();
    assert_eq!(named, [("found", front.peer().node), ("squares", rack.peer().node)]);
    let (seen, theirs) = (&pools[0].pool, &pools[1].pool);
    assert_eq!((seen.ready, seen.totals.answered, &*seen.actor), (2, 10, "Worker"));
    assert_eq!(seen.latency.count, 10);
    assert_eq!(seen.latency.buckets.last(), Some(&10));
    assert_eq!(seen.workers.iter().map(|worker| worker.answered).sum::<u64>(), 10);
    for worker in &seen.workers {
        assert_eq!((worker.place, worker.state), (Place::Member, WorkerState::Serving));
        assert_eq!(worker.name.as_deref(), Some("squares:worker"));
    }
    assert!(theirs.workers.iter().all(|worker| worker.place == Place::Thread), "{theirs:?}");
    assert_eq!(theirs.totals.answered, 0, "they were asked past their own pool");
    own.stop().await;
    let pools = front.pools().await.expect("a directory");
    assert_eq!(pools.len(), 1, "one that was stopped is not shown");
    rack.close().await;
    front.close().await;
}
