//! Names as the author of a program meets them: groups, exclusive names, and who comes next.

extern crate layercake_node as layercake;

mod common;

use std::time::Duration;

use common::{soon, until};
use layercake::{
    Address, Node, PublishError, SubscribeError,
    directory::{
        Claim, DropReason, Event, FenceGuard, Group, Name, NotPublished, NotSubscribed,
        Publication, Scope, Subscription,
    },
    testing::{start_in, start_in_group},
    wire::{
        id::{HostId, NodeId},
        memory::Network,
    },
};
use layercake_macros::{actor, message};

#[message(reply = ())]
struct Ping {}

#[derive(Default)]
struct Cook;

#[actor]
impl Cook {
    async fn ping(&mut self, Ping {}: Ping) {}
}

async fn node(network: &Network, host: HostId) -> Node {
    start_in(network, host, NodeId::random()).await.expect("starts")
}

async fn node_in(network: &Network, host: HostId, group: &str) -> Node {
    let group = Group::new(group).expect("a good name");
    start_in_group(network, host, NodeId::random(), group).await.expect("starts")
}

async fn publish(node: &Node, name: &str, scope: Scope) -> Publication {
    let cook: Address<Cook> = node.spawn(Cook);
    node.publish_exclusive(name, &cook, scope).await.expect("publishes")
}

async fn claim(node: &Node, name: &str) -> Claim {
    let cook: Address<Cook> = node.spawn(Cook);
    node.claim(name, &cook, Scope::Lan).await.expect("gets in line")
}

/// Three hosts of one node each, which have found each other.
async fn three_hosts(network: &Network) -> [Node; 3] {
    let hosts = [1, 2, 3].map(HostId::from_bits);
    let [a, b, c] = hosts.map(|host| node(network, host));
    let nodes = [a.await, b.await, c.await];
    for (node, name) in nodes.iter().zip(["bell:1", "bell:2", "bell:3"]) {
        let ringing = publish(node, name, Scope::Lan).await;
        for other in &nodes {
            let mut seen = other.subscribe_to(name, Scope::Lan).await.expect("subscribes");
            next(&mut seen).await;
        }
        drop(ringing);
    }
    nodes
}

async fn next(subscription: &mut Subscription) -> Event {
    soon(subscription.next()).await.expect("open")
}

#[tokio::test(start_paused = true)]
async fn groups_side_by_side_have_names_of_their_own_and_fall_back_on_those_of_the_host() {
    let (network, host) = (Network::new(), HostId::random());
    let kitchen = node_in(&network, host, "kitchen").await;
    let apprentice = node_in(&network, host, "kitchen").await;
    let cellar = node_in(&network, host, "cellar").await;
    let outside = node(&network, host).await;
    let common = publish(&outside, "chef", Scope::Host).await;
    let ours = publish(&kitchen, "chef", Scope::Group).await;
    let theirs = publish(&cellar, "chef", Scope::Group).await;
    // Who looks up to the host sees the chef of its own group, nobody else's, and else the common one.
    for (node, chef) in [(&apprentice, &ours), (&cellar, &theirs), (&outside, &common)] {
        let mut seen = node.subscribe("chef", Scope::Host).await.expect("subscribes");
        while next(&mut seen).await != Event::Available(chef.record()) {}
    }
    let mut seen = apprentice.subscribe("chef", Scope::Host).await.expect("subscribes");
    while next(&mut seen).await != Event::Available(ours.record()) {}
    drop(ours);
    assert!(matches!(next(&mut seen).await, Event::Dropped(..)));
    assert_eq!(next(&mut seen).await, Event::Available(common.record()), "fallback");
    let again = publish(&kitchen, "chef", Scope::Group).await;
    assert!(matches!(next(&mut seen).await, Event::Dropped(..)));
    assert_eq!(next(&mut seen).await, Event::Available(again.record()), "upgrade");
}

#[tokio::test(start_paused = true)]
async fn who_is_in_no_group_is_told_so() {
    let network = Network::new();
    let node = node(&network, HostId::random()).await;
    let published = node.publish("chef", &node.spawn(Cook), Scope::Group).await;
    let Err(PublishError::Directory { cause: NotPublished::Group, .. }) = &published else {
        panic!("{published:?}")
    };
    let subscribed = node.subscribe("chef", Scope::Group).await;
    let Err(SubscribeError::Directory { cause: NotSubscribed::Group, .. }) = &subscribed else {
        panic!("{subscribed:?}")
    };
}

#[tokio::test(start_paused = true)]
async fn who_claimed_first_is_next_when_the_holder_goes_however_it_goes() {
    let network = Network::new();
    let [first, second, third] = three_hosts(&network).await;
    let held = publish(&second, "chef", Scope::Lan).await;
    let mut seen = first.subscribe_to("chef", Scope::Lan).await.expect("subscribes");
    assert_eq!(next(&mut seen).await, Event::Available(held.record()));
    let mut line = Vec::new();
    for node in [&third, &first, &third] {
        line.push(claim(node, "chef").await);
        // The clocks of hosts are only so exact: who is first should be clear.
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    assert!(line.iter().all(Claim::is_waiting));
    assert!(seen.try_next().is_none(), "who waits is not shown");
    // A holder that is killed, one that leaves the line, one that withdraws.
    let mut line = line.into_iter();
    let [next_one, leaves, last] = std::array::from_fn(|_| line.next().expect("three of them"));
    let fence = held.record().fence;
    network.kill(second.peer());
    let killed = tokio::time::Instant::now();
    let granted = soon(next_one.granted()).await.expect("granted");
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    assert!(granted.record().fence > fence);
    assert!(matches!(next(&mut seen).await, Event::Dropped(..)));
    assert_eq!(next(&mut seen).await, Event::Available(granted.record()));
    leaves.withdraw().await;
    let (fence, withdrawn) = (granted.record().fence, tokio::time::Instant::now());
    granted.withdraw().await;
    let granted = soon(last.granted()).await.expect("granted");
    assert!(withdrawn.elapsed() < Duration::from_millis(100), "{:?}", withdrawn.elapsed());
    assert!(granted.record().fence > fence);
}

#[tokio::test(start_paused = true)]
async fn the_younger_of_two_holders_is_told_when_a_partition_heals_and_when_it_may_have_the_name_again()
 {
    let network = Network::new();
    let [first, second, third] = three_hosts(&network).await;
    let mut store = FenceGuard::default();
    let name = Name::new("chef").expect("a good name");
    let mut older = publish(&first, "chef", Scope::Lan).await;
    store.check(&name, older.record().fence).expect("the only holder");
    let waits = claim(&second, "chef").await;
    let before = older.record().fence;
    // The first host is cut off from the two others, and does not know it.
    for other in [&second, &third] {
        network.stall(first.peer().host, other.peer().host);
    }
    let mut younger = soon(waits.granted()).await.expect("as far as these two hosts know");
    store.check(&name, younger.record().fence).expect("it was granted last");
    let stale = store.check(&name, before).expect_err("the former holder is refused");
    assert_eq!(stale.lowest, younger.record().fence);
    assert_eq!(older.record().fence, before);
    for other in [&second, &third] {
        network.heal(first.peer().host, other.peer().host);
    }
    let healed = tokio::time::Instant::now();
    let holder = soon(younger.lost()).await;
    assert!(healed.elapsed() < Duration::from_secs(3), "{:?}", healed.elapsed());
    assert_eq!(holder.instance, older.record().instance, "the older claim stays");
    let again = claim(&second, "chef").await;
    assert!(again.is_waiting());
    until("it has a higher number", || older.record().fence > younger.record().fence).await;
    store.check(&name, older.record().fence).expect("it has a higher number now");
    assert!(store.check(&name, younger.record().fence).is_err());
    for node in [&first, &second, &third] {
        let mut seen = node.subscribe_to("chef", Scope::Lan).await.expect("subscribes");
        assert_eq!(next(&mut seen).await, Event::Available(older.record()), "all hosts agree");
    }
    let never = tokio::time::timeout(Duration::from_secs(5), older.lost()).await;
    assert!(never.is_err(), "{never:?}");
    let fence = older.record().fence;
    drop(older);
    let granted = soon(again.granted()).await.expect("now it may have it");
    assert!(granted.record().fence > fence);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_withdrawn_is_free_at_once_and_nothing_else_ends() {
    let (network, host) = (Network::new(), HostId::random());
    let (one, two) = (node(&network, host).await, node(&network, host).await);
    let (chef, porter) =
        (publish(&one, "chef", Scope::Host).await, publish(&one, "porter", Scope::Host).await);
    let mut all = two.subscribe(".*", Scope::Host).await.expect("subscribes");
    let some = two.subscribe("c.*", Scope::Host).await.expect("subscribes");
    for _ in 0..2 {
        next(&mut all).await;
    }
    let cook: Address<Cook> = two.spawn(Cook);
    let held = two.publish_exclusive("chef", &cook, Scope::Host).await;
    assert!(matches!(held, Err(PublishError::Directory { cause: NotPublished::Held(_), .. })));
    chef.withdraw().await;
    some.end().await;
    let chef = two.publish_exclusive("chef", &cook, Scope::Host).await.expect("it is free");
    let dropped = next(&mut all).await;
    assert!(matches!(dropped, Event::Dropped(_, DropReason::Withdrawn)), "{dropped:?}");
    assert_eq!(next(&mut all).await, Event::Available(chef.record()));
    let mut seen = two.subscribe_to("porter", Scope::Host).await.expect("subscribes");
    assert_eq!(next(&mut seen).await, Event::Available(porter.record()), "it is still there");
}

#[tokio::test(start_paused = true)]
async fn one_name_has_a_holder_at_each_scope_and_the_nearest_is_found() {
    let (network, host) = (Network::new(), HostId::random());
    let near = node_in(&network, host, "kitchen").await;
    let group = node_in(&network, host, "kitchen").await;
    let same = node(&network, host).await;
    let far = node(&network, HostId::random()).await;
    let lan = publish(&far, "chef", Scope::Lan).await;
    let mut seen = near.subscribe_to("chef", Scope::Lan).await.expect("subscribes");
    assert_eq!(next(&mut seen).await, Event::Available(lan.record()));
    let host = publish(&same, "chef", Scope::Host).await;
    let ours = publish(&group, "chef", Scope::Group).await;
    let own = publish(&near, "chef", Scope::Process).await;
    // Nearer and nearer, and back again; each as a drop and what takes its place.
    let nearer = [&host, &ours, &own];
    for now in nearer {
        let dropped = next(&mut seen).await;
        assert!(matches!(dropped, Event::Dropped(_, DropReason::Replaced)), "{dropped:?}");
        assert_eq!(next(&mut seen).await, Event::Available(now.record()));
    }
    let further = [(own, ours.record()), (ours, host.record()), (host, lan.record())];
    for (gone, next_one) in further {
        drop(gone);
        let dropped = next(&mut seen).await;
        assert!(matches!(dropped, Event::Dropped(_, DropReason::Withdrawn)), "{dropped:?}");
        assert_eq!(next(&mut seen).await, Event::Available(next_one));
    }
    // One at a scope is the only one there, and does not mind the others.
    let cook: Address<Cook> = same.spawn(Cook);
    let held = same.publish_exclusive("chef", &cook, Scope::Lan).await;
    assert!(matches!(held, Err(PublishError::Directory { cause: NotPublished::Held(_), .. })));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_publishes_in_a_tight_loop_waits_and_the_others_do_not() {
    let (network, host) = (Network::new(), HostId::random());
    // The embedded directory is in a third node, as it may be.
    let (_directory, runaway, other) = (
        publish(&node(&network, host).await, "bell", Scope::Host).await,
        node(&network, host).await,
        node(&network, host).await,
    );
    let cook: Address<Cook> = runaway.spawn(Cook);
    let started = tokio::time::Instant::now();
    let looping = async {
        for _ in 0..12_000 {
            drop(runaway.publish("noise", &cook, Scope::Host).await.expect("publishes"));
        }
        started.elapsed()
    };
    let working = async {
        let cook: Address<Cook> = other.spawn(Cook);
        let mut slowest = Duration::ZERO;
        let mut now_and_then = tokio::time::interval(Duration::from_millis(30));
        for _ in 0..100 {
            now_and_then.tick().await;
            let asked = tokio::time::Instant::now();
            drop(other.publish("order", &cook, Scope::Host).await.expect("publishes"));
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (looped, slowest) = tokio::join!(looping, working);
    // 24,000 changes: a burst of 8,192, and 4,096 each second.
    assert!(looped > Duration::from_secs(3), "{looped:?}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    // Subscriptions are delayed as well, not refused.
    let started = tokio::time::Instant::now();
    for _ in 0..8_000 {
        drop(runaway.subscribe_to("order", Scope::Host).await.expect("subscribes"));
    }
    assert!(started.elapsed() > Duration::from_secs(2), "{:?}", started.elapsed());
}
