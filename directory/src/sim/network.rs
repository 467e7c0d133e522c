//! What an operator is shown, on any host and whatever has happened to the others.

use super::*;
use crate::network::{HostState, NetworkChange};

/// Asks on a node, and returns what it is shown.
fn network(world: &mut World, by: PeerId) -> Network {
    world.told(by).networks.clear();
    world.say(by, &ToHost::Network(1));
    world.run(secs(1.1));
    let seed = world.seed;
    world.told(by).networks.pop().unwrap_or_else(|| panic!("an answer, seed {seed}"))
}

fn states(network: &Network) -> Vec<(String, HostState)> {
    network.hosts.iter().map(|host| (host.name.clone(), host.state)).collect()
}

/// Three hosts of three processes, the second of which publishes near and far.
fn three_hosts(seed: u64) -> World {
    let mut world = World::new(3, 3, seed);
    world.run(secs(3.0));
    for host in 1..=3 {
        world.publish(id(host, 2), "far", Scope::Lan, false);
        world.publish(id(host, 2), "near", Scope::Host, false);
        world.publish(id(host, 2), "own", Scope::Process, true);
    }
    world.run(secs(1.0));
    world
}

#[test]
fn from_any_host_and_any_process_the_whole_mesh_is_seen() {
    let mut world = three_hosts(1);
    for by in [id(1, 1), id(1, 3), id(3, 2)] {
        let network = network(&mut world, by);
        assert_eq!(network.here, by.host);
        assert!(network.missing().next().is_none(), "{:?}", states(&network));
        assert_eq!(network.hosts[0].host, by.host, "its own comes first");
        let nodes: Vec<_> = network.nodes().collect();
        assert_eq!(nodes.len(), 9);
        for (host, node) in nodes {
            let peer = PeerId { host: host.host, node: node.node };
            assert!(node.answered, "{peer}");
            assert_eq!(node.subscribed.len(), 1, "{peer}");
            assert_eq!(node.directory, peer == id(host.host.to_bits(), 1), "{peer}");
            let names: Vec<_> = node.published.iter().map(|r| r.name.as_str()).collect();
            let publishes = peer == id(host.host.to_bits(), 2);
            let expected: &[&str] = if publishes { &["far", "near", "own"] } else { &[] };
            assert_eq!(names, expected, "{peer}");
        }
        // Everybody finds the three that reach far; on its host the near one; itself its own.
        assert_eq!(network.routes().len(), 9 * 3 + 9 + 3);
        assert!(network.at.abs_diff(world.wall(by.host)) < 1200, "by the clock of the host");
    }
}

#[test]
fn a_partition_shows_who_is_missing_and_since_when_and_heals() {
    for seed in 0..20 {
        let mut world = three_hosts(seed);
        world.cut(2, true);
        let since = world.wall(id(1, 1).host);
        world.run(secs(5.0));
        let shown = network(&mut world, id(1, 3));
        let two = shown.hosts.iter().find(|host| host.name == "host2").unwrap();
        assert_eq!(two.state, HostState::Lost, "seed {seed}");
        assert!((since..since + 2500).contains(&two.since), "seed {seed}: {}", two.since);
        assert!(two.nodes.is_empty());
        assert_eq!(shown.missing().count(), 1, "seed {seed}");
        // On the other side both others are missing.
        let shown = network(&mut world, id(2, 2));
        let states: Vec<_> = shown.hosts.iter().map(|host| host.state).collect();
        assert_eq!(states, [HostState::Here, HostState::Lost, HostState::Lost], "seed {seed}");
        assert_eq!(shown.nodes().count(), 3, "seed {seed}");
        world.cut(2, false);
        world.run(secs(8.0));
        for by in [id(1, 3), id(2, 2)] {
            let shown = network(&mut world, by);
            assert!(shown.missing().next().is_none(), "seed {seed}: {:?}", self::states(&shown));
            assert_eq!(shown.nodes().count(), 9, "seed {seed}");
        }
    }
}

#[test]
fn a_host_that_was_just_cut_off_delays_nobody_and_shows_what_it_published() {
    let mut silent = 0;
    for seed in 0..20 {
        let mut world = three_hosts(seed);
        world.cut(2, true);
        // Well before anybody has noticed.
        let shown = network(&mut world, id(1, 1));
        let two = shown.hosts.iter().find(|host| host.name == "host2").unwrap();
        assert!(two.state.is_missing(), "seed {seed}: {:?}", two.state);
        if two.state == HostState::Silent {
            silent += 1;
            let names: Vec<_> =
                two.nodes.iter().flat_map(|n| &n.published).map(|r| r.name.as_str()).collect();
            assert_eq!(names, ["far"], "what it told all hosts is known here");
        }
        let three = shown.hosts.iter().find(|host| host.name == "host3").unwrap();
        assert_eq!((three.state, three.nodes.len()), (HostState::Up, 3), "seed {seed}");
    }
    assert!(silent > 0, "it takes longer to find out than to ask");
}

#[test]
fn who_watches_is_told_what_happens() {
    let mut world = three_hosts(5);
    let by = id(1, 3);
    world.agent(by, |agent, out| agent.watch_network(true, out));
    let told = |world: &mut World| -> Vec<_> {
        let events = std::mem::take(&mut world.told(by).events);
        events
            .into_iter()
            .map(|e| (e.event, e.host.to_bits(), e.node.map_or(0, NodeId::to_bits)))
            .collect()
    };
    world.publish(id(2, 3), "late", Scope::Lan, false);
    world.publish(id(2, 3), "near", Scope::Host, false);
    world.run(secs(0.05));
    let expected = [(NetworkChange::NodeUp, 2, 203), (NetworkChange::Published, 2, 203)];
    assert_eq!(told(&mut world), expected);
    world.kill(id(2, 3));
    world.run(secs(0.05));
    let expected = [(NetworkChange::Withdrawn, 2, 203), (NetworkChange::NodeGone, 2, 203)];
    assert_eq!(told(&mut world), expected);
    world.kill(id(1, 2));
    world.run(secs(0.05));
    let expected = [(NetworkChange::Withdrawn, 1, 102), (NetworkChange::NodeGone, 1, 102)];
    assert_eq!(told(&mut world), expected);
    world.cut(3, true);
    world.run(secs(4.0));
    let events = told(&mut world);
    assert_eq!(events.last(), Some(&(NetworkChange::HostLost, 3, 0)), "{events:?}");
    world.cut(3, false);
    world.run(secs(8.0));
    let events = told(&mut world);
    let ups = events.iter().filter(|e| **e == (NetworkChange::HostUp, 3, 0)).count();
    assert_eq!(ups, 1, "{events:?}");
    assert!(events.contains(&(NetworkChange::Published, 3, 302)), "{events:?}");
    // Another process becomes the directory: something may have been missed.
    world.kill(id(1, 1));
    world.run(secs(2.0));
    let events = told(&mut world);
    assert_eq!(events.first(), Some(&(NetworkChange::Missed, 1, 0)), "{events:?}");
    world.publish(id(2, 2), "later", Scope::Lan, false);
    world.run(secs(0.05));
    assert_eq!(told(&mut world).last(), Some(&(NetworkChange::Published, 2, 202)));
}
