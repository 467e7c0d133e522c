//! A host that starts again and again: nothing of its former lives comes back.

use super::*;

const LIVES: u64 = 100;

/// The host 1 starts a hundred times within 20 s, each time as another process that publishes the same
/// name, while the way to some hosts is slow now and then, so that what a former life sent comes
/// late.
fn restarts(seed: u64, planted: bool) {
    let mut world = World::empty(seed);
    world.planted = planted;
    let life = |number: u64| peer(1, 1000 + number);
    for host in 1..=5 {
        let others = (1..=5).filter(|other| *other != host);
        let peers = others.map(|o| (HostId::from_bits(o), addr(id(o, 1)).hints.to_vec()));
        world.machines.insert(HostId::from_bits(host), Machine::new(peers.collect()));
    }
    for host in 2..=5 {
        world.start(id(host, 1));
        world.publish(id(host, 1), &format!("n:{host}"), Scope::Lan, false);
    }
    world.run(secs(3.0));
    for number in 1..=LIVES {
        let host = HostId::from_bits(1);
        if number > 1 {
            world.power_off(host);
        }
        world.net.slow.clear();
        if number % 3 == 1 {
            for other in 2..=3 {
                let slower = world.millis(60..300);
                world.net.slow.insert((host, HostId::from_bits(other)), slower);
            }
        }
        world.start(life(number));
        world.publish(life(number), "phoenix", Scope::Lan, false);
        world.run(secs(0.2));
    }
    world.net.slow.clear();
    world.run(secs(1.5));
    for viewer in 2..=5 {
        let told = world.told(id(viewer, 1));
        let lives: Vec<_> = told.live.keys().filter(|i| i.host == HostId::from_bits(1)).collect();
        assert_eq!(lives, [&instance(life(LIVES), 1)], "seed {seed}, host {viewer}");
        let seen = told.log.iter().filter(|(_, i, why)| i.host.to_bits() == 1 && why.is_none());
        let seen: Vec<_> = seen.map(|(_, i, _)| i.node).collect();
        assert!(seen.is_sorted(), "seed {seed}, host {viewer}: a former life came back: {seen:?}");
    }
    world.run(secs(15.0));
    world.check_all();
}

#[test]
fn a_host_without_memory_whose_clock_was_set_back_is_heard_all_the_same() {
    let mut world = World::new(3, 1, 21);
    let (host, reborn) = (HostId::from_bits(1), id(1, 2));
    world.publish(id(1, 1), "former", Scope::Lan, false);
    world.run(secs(3.0));
    world.power_off(host);
    world.machines.get_mut(&host).unwrap().clock = -3_600_000;
    world.run(secs(1.0));
    world.start(reborn);
    let serial = world.publish(reborn, "present", Scope::Lan, false);
    world.run(secs(2.0));
    world.assert_all_see(&[instance(reborn, serial)]);
    world.forget_logs();
    world.run(secs(10.0));
    for peer in world.everybody() {
        assert!(world.log(peer).is_empty(), "{peer:?}: {:?}", world.log(peer));
    }
}

#[test]
fn nothing_of_a_hundred_former_lives_comes_back() {
    for seed in 1..=5 {
        restarts(seed, false);
    }
}

#[test]
fn it_would_if_incarnations_were_not_looked_at() {
    let fails = |seed| std::panic::catch_unwind(|| restarts(seed, true)).is_err();
    assert!((1..=5).any(fails), "the planted bug goes unseen");
}
