//! Directories of an in-memory network under a paused clock: the same stories as over real endpoints,
//! with cables to be cut and processes to be killed at will.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use layercake_directory::{
    Directory, DirectoryConfig, DropReason, Event, Inlet, Name, NotPublished, Pattern, Publication,
    Publish, Scope, Subscription, inlet,
};
use layercake_wire::{
    Endpoint, Inbound, Link, LinkDown, Receive, Service, clock,
    id::{HostId, NodeId},
    memory::Network,
};

/// By the clock of the test, which costs nothing to wait for.
const SOON: Duration = Duration::from_secs(60);

struct Forward(Inlet);

impl Receive for Forward {
    fn on_up(&self, link: Link) {
        self.0.on_up(link);
    }
    fn on_down(&self, link: &Link, down: LinkDown) {
        self.0.on_down(link, down);
    }
    fn on_post(&self, from: &Link, service: Service, body: Bytes) {
        self.0.on_post(from, service, body);
    }
    fn on_datagram(&self, from: &Link, body: Bytes) {
        self.0.on_datagram(from, body);
    }
    fn on_message(&self, _: Inbound) {}
}

struct Node {
    endpoint: Endpoint,
    directory: Directory,
}

impl Node {
    fn start(network: &Network, host: HostId) -> Self {
        let (inlet, outlet) = inlet();
        let receive = Arc::new(Forward(inlet));
        let endpoint = Endpoint::start_in(network, host, NodeId::random(), receive);
        let endpoint = endpoint.expect("starts");
        let directory = Directory::start(endpoint.clone(), outlet, DirectoryConfig::in_memory());
        Self { endpoint, directory }
    }

    async fn claim(
        &self,
        name: &str,
        scope: Scope,
        exclusive: bool,
    ) -> Result<Publication, NotPublished> {
        let name = Name::new(name).expect("a good name");
        let publish = Publish { name, scope, exclusive, actor: 1, meta: Bytes::new() };
        self.directory.publish(publish).await
    }

    async fn publish(&self, name: &str, scope: Scope) -> Publication {
        self.claim(name, scope, false).await.expect("publishes")
    }

    async fn subscribe(&self, pattern: &str, scope: Scope) -> Subscription {
        let pattern = Pattern::new(pattern).expect("a good pattern");
        self.directory.subscribe(pattern, scope).await.expect("subscribes")
    }
}

async fn next(subscription: &mut Subscription) -> Event {
    tokio::time::timeout(SOON, subscription.next()).await.expect("in time").expect("not closed")
}

async fn available(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Event::Available(record) => record.name.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn dropped(subscription: &mut Subscription) -> (String, DropReason) {
    match next(subscription).await {
        Event::Dropped(record, reason) => (record.name.to_string(), reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn names_within_a_process_and_within_a_host() {
    let (network, host) = (Network::new(), HostId::random());
    let (one, two) = (Node::start(&network, host), Node::start(&network, host));
    let mut own = one.subscribe("p:.*", Scope::Process).await;
    let private = one.publish("p:private", Scope::Process).await;
    assert_eq!(available(&mut own).await, "p:private");
    drop(private);
    assert_eq!(dropped(&mut own).await, ("p:private".to_owned(), DropReason::Withdrawn));
    assert!(!one.directory.is_host_directory(), "nothing beyond the process was asked for");

    let mut seen = two.subscribe(".*", Scope::Host).await;
    let held = one.claim("leader", Scope::Host, true).await.expect("is free");
    assert_eq!(available(&mut seen).await, "leader");
    let refused = two.claim("leader", Scope::Host, true).await.expect_err("is held");
    assert!(matches!(refused, NotPublished::Held(_)), "{refused}");
    assert!(one.directory.is_host_directory() != two.directory.is_host_directory());
    drop(held);
    assert_eq!(dropped(&mut seen).await, ("leader".to_owned(), DropReason::Withdrawn));
}

#[tokio::test(start_paused = true)]
async fn a_killed_directory_is_followed_by_another_and_its_names_are_dropped() {
    let (network, host) = (Network::new(), HostId::random());
    let first = Node::start(&network, host);
    let _lost = first.publish("w:lost", Scope::Host).await;
    assert!(first.directory.is_host_directory());
    let (one, two) = (Node::start(&network, host), Node::start(&network, host));
    let mut seen = one.subscribe(".*", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:lost");
    let _kept = two.publish("w:kept", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:kept");
    let killed = clock::now();
    network.kill(first.endpoint.peer());
    assert_eq!(dropped(&mut seen).await, ("w:lost".to_owned(), DropReason::ProcessDied));
    let _fresh = two.publish("w:fresh", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:fresh");
    let took = clock::now() - killed;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(one.directory.is_host_directory() != two.directory.is_host_directory());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_takes_over_and_a_lease_holder_keeps_its_fence() {
    let network = Network::new();
    let (here, there) = (HostId::random(), HostId::random());
    let (embeds, far) = (Node::start(&network, here), Node::start(&network, there));
    let held = embeds.claim("leader", Scope::Lan, true).await.expect("is free");
    let fence = held.record().fence;
    let mut seen = far.subscribe(".*", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "leader");
    let daemons = [Node::start(&network, here), Node::start(&network, here)];
    for daemon in &daemons {
        let waits = daemon.directory.clone();
        tokio::spawn(async move { waits.serve_host().await });
    }
    let held_by = || daemons.iter().filter(|node| node.directory.is_host_directory()).count();
    while held_by() == 0 || embeds.directory.is_host_directory() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = tokio::time::timeout(Duration::from_secs(5), seen.next()).await;
    assert!(told.is_err(), "nothing has happened: {told:?}");
    assert_eq!(held_by(), 1);
    assert_eq!(held.record().fence, fence);
    let refused = far.claim("leader", Scope::Lan, true).await.expect_err("is held");
    assert!(matches!(refused, NotPublished::Held(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn hosts_find_each_other_part_and_meet_again() {
    let network = Network::new();
    let (here, there) = (HostId::random(), HostId::random());
    let (near, far) = (Node::start(&network, here), Node::start(&network, there));
    let mut seen = near.subscribe("w:.*", Scope::Lan).await;
    let _private = far.publish("w:private", Scope::Host).await;
    let _shown = far.publish("w:shown", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:shown");
    assert_eq!(near.directory.hosts().await.len(), 2);

    let cut = clock::now();
    network.cut(here, there);
    assert_eq!(dropped(&mut seen).await.0, "w:shown");
    let took = clock::now() - cut;
    assert!(took < Duration::from_secs(3), "{took:?}");
    network.heal(here, there);
    assert_eq!(available(&mut seen).await, "w:shown");

    let stalled = clock::now();
    network.stall(here, there);
    assert_eq!(dropped(&mut seen).await.0, "w:shown");
    let took = clock::now() - stalled;
    assert!(took < Duration::from_secs(3), "nobody says anything, and yet: {took:?}");
    network.heal(here, there);
    assert_eq!(available(&mut seen).await, "w:shown");

    network.kill(there);
    assert_eq!(dropped(&mut seen).await.0, "w:shown");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_leaves_says_so_and_ends_its_subscriptions() {
    let network = Network::new();
    let (near, far) =
        (Node::start(&network, HostId::random()), Node::start(&network, HostId::random()));
    let mut seen = near.subscribe(".*", Scope::Lan).await;
    let _name = far.publish("w:1", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:1");
    far.directory.close().await;
    far.endpoint.close().await;
    assert_eq!(dropped(&mut seen).await, ("w:1".to_owned(), DropReason::Withdrawn));
    near.directory.close().await;
    assert!(seen.next().await.is_none());
}
