//! Directories of an in-memory network under a paused clock: the same stories as over real endpoints,
//! with cables to be cut and processes to be killed at will.

mod common;

use std::time::Duration;

use common::{Node, available, dropped, eventually};
use layercake_directory::{DropReason, NotPublished, Scope};
use layercake_wire::{clock, id::HostId, memory::Network};

#[tokio::test(start_paused = true)]
async fn names_within_a_process_and_within_a_host() {
    let (network, host) = (Network::new(), HostId::random());
    let (one, two) = (Node::within(&network, host), Node::within(&network, host));
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
    let first = Node::within(&network, host);
    let _lost = first.publish("w:lost", Scope::Host).await;
    assert!(first.directory.is_host_directory());
    let (one, two) = (Node::within(&network, host), Node::within(&network, host));
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
    let (embeds, far) = (Node::within(&network, here), Node::within(&network, there));
    let held = embeds.claim("leader", Scope::Lan, true).await.expect("is free");
    let fence = held.record().fence;
    let mut seen = far.subscribe(".*", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "leader");
    let daemons = [Node::within(&network, here), Node::within(&network, here)];
    for daemon in &daemons {
        let waits = daemon.directory.clone();
        tokio::spawn(async move { waits.serve_host().await });
    }
    let held_by = || daemons.iter().filter(|node| node.directory.is_host_directory()).count();
    eventually("a daemon has taken over", || {
        held_by() > 0 && !embeds.directory.is_host_directory()
    })
    .await;
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
    let (near, far) = (Node::within(&network, here), Node::within(&network, there));
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
        (Node::within(&network, HostId::random()), Node::within(&network, HostId::random()));
    let mut seen = near.subscribe(".*", Scope::Lan).await;
    let _name = far.publish("w:1", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:1");
    far.directory.close().await;
    far.endpoint.close().await;
    assert_eq!(dropped(&mut seen).await, ("w:1".to_owned(), DropReason::Withdrawn));
    near.directory.close().await;
    assert!(seen.next().await.is_none());
}
