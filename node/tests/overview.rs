//! What a program can learn of its mesh: who is there, what happens, and who answers how fast.

extern crate layercake_node as layercake;

use std::time::Duration;

use layercake::{
    Node, PingError,
    directory::{HostState, NetworkChange, NetworkEvent, NetworkEvents, NoNetwork, NoPong, Scope},
    testing::start_in,
    wire::{
        id::{HostId, NodeId},
        memory::Network,
    },
};
use layercake_macros::{actor, message};

#[message(reply = ())]
struct Nothing {}

#[derive(Default)]
struct Idle;

#[actor]
impl Idle {
    async fn nothing(&mut self, _: Nothing) {}
}

async fn node(network: &Network, host: HostId) -> Node {
    start_in(network, host, NodeId::random()).await.expect("starts")
}

/// The next event of a kind.
async fn next(events: &mut NetworkEvents, wanted: NetworkChange) -> NetworkEvent {
    let found = async {
        loop {
            let event = events.next().await.expect("open");
            if event.event == wanted {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("in time")
}

#[tokio::test(start_paused = true)]
async fn a_program_sees_the_mesh_and_what_happens_in_it() {
    let network = Network::new();
    let (here, there) = (HostId::random(), HostId::random());
    let (near, far) = (node(&network, here).await, node(&network, there).await);
    let quiet = node(&network, there).await;
    let mut events = near.network_events();
    let actor = far.spawn(Idle);
    let name = far.publish("idle", &actor, Scope::Lan).await.expect("publishes");
    let _near = quiet.publish("near", &quiet.spawn(Idle), Scope::Host).await.expect("publishes");
    // Who only looks is enough of a reason to look for other hosts.
    let alone = near.network().await.expect("answers");
    assert_eq!(alone.here, here);
    let published = next(&mut events, NetworkChange::Published).await;
    assert_eq!(published.instance(), Some(name.record().instance));

    let seen = near.network().await.expect("answers");
    assert!(seen.missing().next().is_none(), "{seen:?}");
    let of = |node: &Node| {
        let peer = node.peer();
        let found = seen.nodes().find(|(_, shown)| shown.node == peer.node);
        found.unwrap_or_else(|| panic!("{peer} in {seen:?}")).1
    };
    assert_eq!(of(&far).published[0].name.as_str(), "idle");
    assert_eq!(of(&quiet).published[0].name.as_str(), "near", "what only its host knows");
    assert_eq!(of(&quiet).about.pid, std::process::id());
    assert!(of(&quiet).sessions.iter().any(|session| session.node == far.peer().node));

    // Hop by hop.
    assert!(near.directory().ping(here).await.is_ok());
    assert!(near.directory().ping(there).await.is_ok());
    assert!(near.directory().ping_node(quiet.peer()).await.is_ok());
    let record = name.record();
    assert!(near.ping(&record.address).await.is_ok());
    let mut gone = record.address.clone();
    gone.serial = 99;
    assert!(matches!(near.ping(&gone).await, Err(PingError::NoActor(_))));
    let stranger = HostId::random();
    assert_eq!(near.directory().ping(stranger).await, Err(NoPong::NoLink(stranger)));

    network.cut(here, there);
    let lost = next(&mut events, NetworkChange::HostLost).await;
    assert_eq!(lost.host, there);
    let seen = near.network().await.expect("answers");
    let missing: Vec<_> = seen.missing().map(|host| (host.host, host.state)).collect();
    assert_eq!(missing, [(there, HostState::Lost)]);
    assert!(seen.hosts[1].since.abs_diff(lost.at) < 100, "{} and {}", seen.hosts[1].since, lost.at);
    network.heal(here, there);
    next(&mut events, NetworkChange::HostUp).await;
    drop(name);
    let withdrawn = next(&mut events, NetworkChange::Withdrawn).await;
    assert_eq!(withdrawn.reason.as_deref(), Some("withdrawn"));

    far.close().await;
    near.close().await;
    assert_eq!(near.network().await, Err(NoNetwork::Closed));
    while events.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn who_looks_at_the_mesh_sees_actors_and_how_much_they_had_to_do() {
    let network = Network::new();
    let here = HostId::random();
    let (looking, working) = (node(&network, here).await, node(&network, here).await);
    let actor = working.spawn(Idle);
    let _name = working.publish("idle", &actor, Scope::Host).await.expect("publishes");
    for _ in 0..200 {
        let _unknown = working.spawn(Idle);
    }
    for _ in 0..3 {
        actor.ask(Nothing {}).await.expect("answers");
    }
    let seen = looking.network().await.expect("answers");
    let shown = seen.nodes().find(|(_, shown)| shown.node == working.peer().node).expect("there").1;
    let story = layercake::story_of(shown);
    assert_eq!(story.actor_count, 201);
    assert_eq!(story.actors.len(), 64, "some of them");
    let busiest = &story.actors[0];
    let told = (busiest.kind.as_str(), busiest.serial, busiest.taken, busiest.waiting);
    assert_eq!(told, ("Idle", shown.published[0].actor, 3, 0), "those that others know come first");
}
