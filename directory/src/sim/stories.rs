//! What must hold between hosts, whatever happens to them.

use super::*;

/// Three hosts of three processes, each of which publishes one shared name LAN-wide.
fn three_hosts(seed: u64) -> (World, Vec<Instance>) {
    let mut world = World::new(3, 3, seed);
    let mut present = Vec::new();
    for peer in world.everybody() {
        let name = format!("worker:{}", peer.node.to_bits());
        present.push(instance(peer, world.publish(peer, &name, Scope::Lan, false)));
    }
    world.run(secs(1.0));
    world.assert_all_see(&present);
    world.run(secs(4.0));
    (world, present)
}

#[test]
fn names_are_known_everywhere_within_milliseconds_of_a_link() {
    let (mut world, mut present) = three_hosts(1);
    let serial = world.publish(id(2, 2), "late", Scope::Lan, false);
    world.run(secs(0.006));
    present.push(instance(id(2, 2), serial));
    world.assert_all_see(&present);
}

#[test]
fn a_killed_process_is_dropped_everywhere_at_once() {
    let (mut world, present) = three_hosts(2);
    world.forget_logs();
    world.kill(id(1, 2));
    world.run(secs(0.01));
    let gone = present.iter().find(|i| i.peer() == id(1, 2)).copied().unwrap();
    for peer in world.everybody() {
        let log = world.log(peer);
        assert!(
            matches!(log[..], [(_, i, Some(DropReason::ProcessDied))] if i == gone),
            "{peer:?}: {log:?}"
        );
    }
}

#[test]
fn a_take_over_drops_the_dead_process_and_nothing_else() {
    for seed in 0..10 {
        let (mut world, present) = three_hosts(seed);
        world.forget_logs();
        world.kill(id(1, 1));
        world.run(secs(0.1));
        let gone = present.iter().find(|i| i.peer() == id(1, 1)).copied().unwrap();
        for peer in world.everybody() {
            let log = world.log(peer);
            assert!(
                matches!(log[..], [(_, i, Some(DropReason::ProcessDied))] if i == gone),
                "{peer:?}, seed {seed}: {log:?}"
            );
        }
        world.forget_logs();
        world.run(secs(8.0));
        for peer in world.everybody() {
            assert!(world.log(peer).is_empty(), "{peer:?}, seed {seed}: {:?}", world.log(peer));
        }
    }
}

#[test]
fn a_pulled_cable_is_noticed_in_two_seconds_and_forgotten_in_three() {
    for (seed, out) in [(1, 1.9), (2, 4.0), (3, 20.0), (4, 60.0), (5, 2.5)] {
        let (mut world, present) = three_hosts(seed);
        world.forget_logs();
        world.machines.get_mut(&id(1, 1).host).unwrap().cut = true;
        world.run(secs(1.9));
        for peer in world.everybody() {
            let far = |i: &Instance| (i.host == id(1, 1).host) != (peer.host == id(1, 1).host);
            let expected = present.iter().filter(|i| far(i)).count();
            let log = world.log(peer);
            assert_eq!(log.len(), expected, "{peer:?}, seed {seed}: {log:?}");
            assert!(log.iter().all(|(_, i, why)| far(i) && *why == Some(DropReason::HostLost)));
        }
        world.run(secs(out - 1.9));
        world.forget_logs();
        world.machines.get_mut(&id(1, 1).host).unwrap().cut = false;
        world.run(secs(2.5));
        world.assert_all_see(&present);
        // What the host believed while it was cut off must not spread to the others.
        for peer in world.everybody() {
            let log = world.log(peer);
            assert!(log.iter().all(|(_, _, why)| why.is_none()), "{peer:?}, seed {seed}: {log:?}");
        }
        world.forget_logs();
        world.run(secs(6.0));
        for peer in world.everybody() {
            assert!(world.log(peer).is_empty(), "{peer:?}, seed {seed}: {:?}", world.log(peer));
        }
    }
}

#[test]
fn a_short_break_is_not_noticed_at_all() {
    let (mut world, _) = three_hosts(6);
    world.forget_logs();
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = true;
    world.run(secs(0.4));
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = false;
    world.run(secs(5.0));
    for peer in world.everybody() {
        assert!(world.log(peer).is_empty(), "{peer:?}: {:?}", world.log(peer));
    }
}

#[test]
fn links_that_are_only_re_established_drop_nothing() {
    let (mut world, _) = three_hosts(7);
    world.forget_logs();
    world.close(&|_, _| true);
    world.run(secs(5.0));
    for peer in world.everybody() {
        assert!(world.log(peer).is_empty(), "{peer:?}: {:?}", world.log(peer));
    }
}

#[test]
fn two_hosts_that_only_others_can_reach_have_lost_their_link_and_not_each_other() {
    let (mut world, present) = three_hosts(12);
    world.forget_logs();
    let (one, other) = (id(1, 1).host, id(2, 1).host);
    world.block(one, other);
    world.block(other, one);
    world.run(secs(20.0));
    for peer in world.everybody() {
        let log = world.log(peer);
        let far = if peer.host == one { other } else { one };
        let expected = if peer.host == id(3, 1).host { 0 } else { 3 };
        assert_eq!(log.len(), expected, "{peer:?}: {log:?}");
        let lost =
            |(_, i, why): &(_, Instance, _)| i.host == far && *why == Some(DropReason::LinkLost);
        assert!(log.iter().all(lost), "{peer:?}: {log:?}");
    }
    world.unblock_all();
    world.run(secs(3.0));
    world.assert_all_see(&present);
}

#[test]
fn both_sides_of_a_partition_may_claim_a_name_and_the_older_claim_stays() {
    let (mut world, _) = three_hosts(8);
    let first = world.publish(id(1, 2), "leader", Scope::Lan, true);
    world.run(secs(0.1));
    let second = world.publish(id(2, 1), "leader", Scope::Lan, true);
    assert_eq!(world.told(id(2, 1)).refused, [second], "it is held");
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = true;
    world.run(secs(2.0));
    let third = world.publish(id(2, 1), "leader", Scope::Lan, true);
    world.run(secs(0.1));
    assert!(world.told(id(2, 1)).granted.contains(&third));
    let fence = world.told(id(3, 1)).live[&instance(id(2, 1), third)].fence;
    world.machines.get_mut(&id(1, 1).host).unwrap().cut = false;
    world.run(secs(3.0));
    assert_eq!(world.told(id(2, 1)).lost, [third]);
    for peer in world.everybody() {
        let live = &world.told(peer).live;
        let leaders: Vec<_> = live.values().filter(|r| r.name.as_str() == "leader").collect();
        assert_eq!(leaders.len(), 1);
        assert_eq!(leaders[0].instance, instance(id(1, 2), first));
        assert!(leaders[0].fence > fence, "the number only rises");
    }
}

#[test]
fn a_host_that_leaves_is_withdrawn_and_not_lost() {
    let (mut world, present) = three_hosts(9);
    world.forget_logs();
    for process in [3, 2, 1] {
        let (peer, now) = (id(3, process), world.now);
        let embeds = process == 1;
        if embeds {
            world.directory(peer.host, |core, out| core.leave(now, out));
            world.run(secs(0.01));
            world.machines.get_mut(&peer.host).unwrap().directory = None;
        } else {
            world.directory(peer.host, |core, out| core.on_node_down(peer.node, false, out));
        }
        world.machines.get_mut(&peer.host).unwrap().processes.remove(&peer.node);
    }
    world.run(secs(4.0));
    for peer in world.everybody() {
        let log = world.log(peer);
        let reasons: Vec<_> = log.iter().filter_map(|(_, _, why)| *why).collect();
        assert_eq!(reasons, [DropReason::Withdrawn; 3], "{peer:?}: {log:?}");
    }
    let rest: Vec<_> = present.into_iter().filter(|i| i.host != id(3, 1).host).collect();
    world.assert_all_see(&rest);
}
