//! Who hears how a node ended: presences and watches between hosts.

use super::*;

/// Three hosts of three processes, each of which is present and watches all others.
fn watching(seed: u64) -> World {
    let mut world = World::new(3, 3, seed);
    world.run(secs(1.0));
    world.watch_all();
    world.run(secs(4.0));
    for peer in world.everybody() {
        let everybody = world.everybody().into_iter().collect();
        assert_eq!(world.process(peer).watches.present(), everybody, "seed {seed}");
        assert!(world.log(peer).is_empty(), "`.*` sees nothing of it");
        assert!(world.process(peer).watches.on_time(secs(60.0)).is_empty());
    }
    world
}

impl World {
    fn gone(&mut self, peer: PeerId) -> Vec<(u64, NodeGone)> {
        self.told(peer).gone.iter().map(|(_, node, gone)| (*node, *gone)).collect()
    }
}

#[test]
fn the_death_of_a_process_is_known_to_all_who_watch_it_within_milliseconds() {
    let mut world = watching(1);
    world.kill(id(1, 2));
    world.run(secs(0.01));
    for peer in world.everybody() {
        assert_eq!(world.gone(peer), [(102, NodeGone::Died)], "{peer:?}");
    }
}

#[test]
fn a_take_over_is_the_end_of_the_dead_process_and_of_no_other() {
    for seed in 0..10 {
        let mut world = watching(seed);
        world.kill(id(1, 1));
        world.run(secs(0.1));
        for peer in world.everybody() {
            assert_eq!(world.gone(peer), [(101, NodeGone::Died)], "{peer:?}, seed {seed}");
        }
        world.forget_logs();
        world.run(secs(8.0));
        for peer in world.everybody() {
            assert!(world.gone(peer).is_empty(), "{peer:?}, seed {seed}: {:?}", world.gone(peer));
        }
    }
}

#[test]
fn who_leaves_in_order_has_left() {
    let mut world = watching(2);
    let peer = id(2, 3);
    world.directory(peer.host, |core, out| core.on_node_down(peer.node, false, out));
    world.machines.get_mut(&peer.host).unwrap().processes.remove(&peer.node);
    world.run(secs(0.01));
    for peer in world.everybody() {
        assert_eq!(world.gone(peer), [(203, NodeGone::Left)], "{peer:?}");
    }
}

#[test]
fn a_pulled_cable_loses_the_host_and_its_nodes_can_be_watched_again() {
    let mut world = watching(3);
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = true;
    world.run(secs(2.0));
    let lost = [(101, NodeGone::HostLost), (102, NodeGone::HostLost), (103, NodeGone::HostLost)];
    for peer in [id(2, 1), id(3, 3)] {
        assert_eq!(world.gone(peer), lost, "{peer:?}");
    }
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = false;
    world.run(secs(3.0));
    world.forget_logs();
    // Only those of which the old watches have ended are new.
    let now = world.now;
    for node in [101, 102, 103] {
        let again = peer(1, node);
        assert_eq!(world.process(id(2, 1)).watches.watch(node, again, now), None);
    }
    world.run(secs(1.0));
    world.kill(id(1, 2));
    world.run(secs(0.01));
    assert_eq!(world.gone(id(2, 1)), [(102, NodeGone::Died)]);
}

#[test]
fn a_short_break_and_lost_links_end_no_watch() {
    let mut world = watching(4);
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = true;
    world.run(secs(0.4));
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = false;
    world.run(secs(2.0));
    world.close(&|_, _| true);
    world.run(secs(5.0));
    for peer in world.everybody() {
        assert!(world.gone(peer).is_empty(), "{peer:?}: {:?}", world.gone(peer));
    }
}

#[test]
fn a_node_may_be_watched_before_it_is_there() {
    let mut world = World::new(2, 1, 5);
    let late = id(2, 2);
    let now = world.now;
    world.process(id(1, 1)).watches.watch(202, late, now);
    world.agent(id(1, 1), Agent::watch_presences);
    world.run(secs(1.0));
    world.start(late);
    world.agent(late, Agent::be_present);
    world.run(secs(1.0));
    world.kill(late);
    world.run(secs(0.01));
    assert_eq!(world.gone(id(1, 1)), [(202, NodeGone::Died)]);
}
