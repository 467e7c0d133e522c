//! Nodes of an in-memory network under a paused clock: what a user's own tests may look like.

extern crate layercake_node as layercake;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use layercake::{
    Address, AskError, Exit, Node,
    directory::{Event, Scope, Subscription},
    testing::start_in,
    wire::{
        id::{HostId, NodeId},
        memory::Network,
    },
};
use layercake_macros::{actor, message};
use tokio::sync::Notify;

#[message(reply = u64)]
struct Add {
    amount: u64,
}

#[message(reply = u64)]
struct AddTo {
    whom: Address<Counter>,
    amount: u64,
}

/// Is never answered.
#[message(reply = ())]
struct Brood {}

#[derive(Default)]
struct Counter {
    total: u64,
    /// Told when it broods.
    broods: Arc<Notify>,
}

#[actor]
impl Counter {
    async fn add(&mut self, Add { amount }: Add) -> u64 {
        self.total += amount;
        self.total
    }

    async fn add_to(&mut self, AddTo { whom, amount }: AddTo) -> u64 {
        whom.ask(Add { amount }).await.expect("answers")
    }

    async fn brood(&mut self, Brood {}: Brood) {
        self.broods.notify_one();
        std::future::pending::<()>().await;
    }
}

async fn node(network: &Network, host: HostId) -> Node {
    start_in(network, host, NodeId::random()).await.expect("starts")
}

async fn found(subscription: &mut Subscription, by: &Node) -> Address<Counter> {
    let next = tokio::time::timeout(Duration::from_secs(60), subscription.next()).await;
    match next.expect("in time").expect("open") {
        Event::Available(record) => by.bind(record.address.clone()),
        other => panic!("{other:?}"),
    }
}

/// A counter of one node, as another one finds it by its name.
async fn introduced(
    from: &Node,
    to: &Node,
    counter: Counter,
) -> (Address<Counter>, Address<Counter>) {
    let there = from.spawn(counter);
    let _name = from.publish("counter", &there, Scope::Host).await.expect("publishes");
    let mut seen = to.subscribe_to("counter", Scope::Host).await.expect("subscribes");
    let remote = found(&mut seen, to).await;
    (there, remote)
}

#[tokio::test(start_paused = true)]
async fn nodes_of_two_hosts_find_and_ask_each_others_actors() {
    let network = Network::new();
    let (near, far) =
        (node(&network, HostId::random()).await, node(&network, HostId::random()).await);
    let (here, there) = (near.spawn(Counter::default()), far.spawn(Counter::default()));
    let _name = far.publish("counter", &there, Scope::Lan).await.expect("publishes");
    let mut seen = near.subscribe_to("counter", Scope::Lan).await.expect("subscribes");
    let remote = found(&mut seen, &near).await;
    assert_eq!(remote.ask(Add { amount: 2 }).await.expect("answers"), 2);
    // And back: the address of an actor here travels there, and is asked from there.
    let total = remote.ask(AddTo { whom: here.clone(), amount: 40 }).await;
    assert_eq!(total.expect("answers"), 40);
    assert_eq!(here.ask(Add { amount: 1 }).await.expect("answers"), 41);
    near.close().await;
    far.close().await;
    assert!(network.nodes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn deadlines_pass_in_a_moment_also_behind_a_stall() {
    let (network, real) = (Network::new(), Instant::now());
    let host = HostId::random();
    let (near, far) = (node(&network, host).await, node(&network, host).await);
    let (_there, remote) = introduced(&far, &near, Counter::default()).await;
    assert!(matches!(remote.ask(Brood {}).await, Err(AskError::Deadline)));
    // Behind a stall nobody hears anything, and the ask ends all the same.
    network.stall(near.peer(), far.peer());
    let asked = tokio::time::Instant::now();
    let lost = remote.ask(Add { amount: 1 }).await;
    assert!(matches!(lost, Err(AskError::Deadline)), "{lost:?}");
    assert!(asked.elapsed() > Duration::from_secs(1));
    network.heal(near.peer(), far.peer());
    assert!(real.elapsed() < Duration::from_secs(10), "{:?}", real.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_ends_its_actors_and_those_elsewhere_hear_of_it() {
    let network = Network::new();
    let host = HostId::random();
    let (near, far) = (node(&network, host).await, node(&network, host).await);
    let counter = Counter::default();
    let broods = counter.broods.clone();
    let (there, remote) = introduced(&far, &near, counter).await;
    let asking = remote.ask(Brood {});
    let kill = async {
        broods.notified().await;
        network.kill(far.peer());
    };
    let (lost, ()) = tokio::join!(asking, kill);
    assert!(lost.is_err(), "{lost:?}");
    let ended = tokio::time::timeout(Duration::from_secs(60), near.watch(&remote)).await;
    assert!(matches!(ended.expect("in time"), Exit::ProcessDied(_)));
    let ended = tokio::time::timeout(Duration::from_secs(60), far.watch(&there)).await;
    ended.expect("the actor fell with its node");
    assert_eq!(network.nodes(), [near.peer()]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_stands_in_for_whom_an_actor_talks_to() {
    use layercake::testing::{Probe, alone};
    let node = alone().await.expect("starts");
    let counter = node.spawn(Counter::default());
    let mut probe = Probe::<Add>::start(&node);
    let whom = probe.address().cast();
    let asking = tokio::spawn(async move { counter.ask(AddTo { whom, amount: 7 }).await });
    let (add, reply) = probe.expect().await;
    assert_eq!(add.amount, 7);
    reply.send(70);
    assert_eq!(asking.await.expect("no panic"), Ok(70));
    // A minute of nothing, in no time.
    let start = Instant::now();
    probe.expect_nothing(Duration::from_secs(60)).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    node.close().await;
}
