//! Names as the author of a program meets them: groups, exclusive names, and who comes next.

extern crate layercake_node as layercake;

use layercake::{
    Address, Node, PublishError, SubscribeError,
    directory::{Event, Group, NotPublished, NotSubscribed, Publication, Scope, Subscription},
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

async fn next(subscription: &mut Subscription) -> Event {
    let next = tokio::time::timeout(std::time::Duration::from_secs(60), subscription.next()).await;
    next.expect("in time").expect("open")
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
