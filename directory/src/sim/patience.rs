//! Failure detection: no false alarm among the healthy, whatever one or some of them suffer, and a
//! real loss that is still seen in time.

use super::*;

/// How long each story goes on: ten minutes where that does not take long.
const LENGTH: f64 = if cfg!(debug_assertions) { 10.0 } else { 600.0 };

/// So many hosts of one process, each of which publishes a name, settled.
fn hosts(count: u64, seed: u64) -> World {
    let mut world = World::new(count, 1, seed);
    for peer in world.everybody() {
        world.publish(peer, &format!("n:{}", peer.host.to_bits()), Scope::Lan, false);
    }
    world.run(secs(5.0));
    for peer in world.everybody() {
        assert_eq!(world.told(peer).live.len(), usize::try_from(count).unwrap(), "{peer:?}");
    }
    world.forget_logs();
    world
}

/// What hosts outside `sick` were told about the loss of hosts outside `sick`.
fn false_alarms(world: &mut World, sick: &[u64]) -> Vec<(Duration, u64, u64)> {
    let healthy = |host: HostId| !sick.contains(&host.to_bits());
    let mut alarms = Vec::new();
    for peer in world.everybody().into_iter().filter(|peer| healthy(peer.host)) {
        for (at, instance, reason) in world.log(peer) {
            if reason.is_some() && healthy(instance.host) {
                alarms.push((at, peer.host.to_bits(), instance.host.to_bits()));
            }
        }
    }
    alarms
}

/// The power of a host fails: by when has every healthy one dropped what it had?
fn time_to_notice(world: &mut World, victim: u64, sick: &[u64]) -> Duration {
    let (host, begin) = (HostId::from_bits(victim), world.now);
    world.power_off(host);
    let sees = |world: &mut World| {
        let mut viewers = world.everybody();
        viewers.retain(|peer| !sick.contains(&peer.host.to_bits()));
        viewers.into_iter().any(|peer| world.told(peer).live.keys().any(|i| i.host == host))
    };
    while sees(world) && world.now < begin + secs(9.0) {
        world.run(secs(0.01));
    }
    world.now - begin
}

/// Some hosts suffer in a way that `suffer` keeps up step by step; the others must not be doubted.
fn story(count: u64, seed: u64, sick: &[u64], mut suffer: impl FnMut(&mut World, f64)) -> Duration {
    let mut world = hosts(count, seed);
    for host in sick {
        world.truth.host_trouble(HostId::from_bits(*host), secs(10_000.0));
    }
    let end = world.now + secs(LENGTH);
    while world.now < end {
        let step = world.rng.random_range(0.2..1.0);
        suffer(&mut world, step);
        world.run(secs(step));
    }
    let alarms = false_alarms(&mut world, sick);
    assert!(alarms.is_empty(), "seed {seed}: {} alarms: {alarms:?}", alarms.len());
    time_to_notice(&mut world, count, sick)
}

#[test]
fn a_loss_in_calm_is_noticed_within_two_seconds() {
    for (count, seed) in [(2, 1), (3, 2), (5, 3), (12, 4), (20, 5), (20, 6)] {
        let took = time_to_notice(&mut hosts(count, seed), count, &[]);
        eprintln!("calm, {count} hosts: {took:?}");
        assert!(took < secs(2.0), "{count} hosts, seed {seed}: {took:?}");
    }
}

#[test]
fn a_fifth_of_all_packets_lost_raises_no_alarm() {
    for (count, seed) in [(2, 1), (3, 2), (5, 3), (5, 4), (20, 5)] {
        let took = story(count, seed, &[], |world, _| world.loss = 0.2);
        eprintln!("20 % loss, {count} hosts: {took:?}");
        assert!(took < secs(5.0), "{count} hosts, seed {seed}: {took:?}");
    }
}

/// A process that gets the processor only now and then.
fn starve(world: &mut World, hosts: &[u64], longest: u64) {
    for host in hosts {
        let host = HostId::from_bits(*host);
        let Some(holder) = world.holder(host) else { continue };
        if !world.is_stopped(holder) && world.rng.random_bool(0.7) {
            let time = world.millis(20..longest);
            world.stop_host(host, time);
        }
    }
}

#[test]
fn starved_hosts_raise_no_alarm_and_are_not_given_up() {
    for seed in 1..=2 {
        // Those who starve for less than it takes to lose a host are not even given up themselves.
        let took = story(20, seed, &[], |world, _| starve(world, &[1, 2, 3, 4, 5], 700));
        eprintln!("starved: {took:?}");
        assert!(took < secs(5.0), "seed {seed}: {took:?}");
        let worse = [1, 2, 3, 4, 5];
        let took = story(20, seed, &worse, |world, _| starve(world, &worse, 4000));
        eprintln!("starved badly: {took:?}");
        assert!(took < secs(5.0), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_host_that_loses_half_of_its_packets_makes_nobody_doubt_the_others() {
    for (seed, inward, outward) in [(1, 0.5, 0.5), (2, 0.0, 0.5), (3, 0.5, 0.0), (4, 0.8, 0.2)] {
        let took = story(20, seed, &[1], |world, _| {
            for other in 2..=20 {
                let (sick, other) = (HostId::from_bits(1), HostId::from_bits(other));
                world.net.lossy.insert((other, sick), inward);
                world.net.lossy.insert((sick, other), outward);
            }
        });
        eprintln!("sick {inward}/{outward}: {took:?}");
        assert!(took < secs(5.0), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_host_that_is_stopped_and_continued_makes_nobody_doubt_the_others() {
    for seed in 1..=2 {
        let mut next = Duration::ZERO;
        let took = story(20, seed, &[1], |world, _| {
            if world.now >= next {
                world.stop_host(HostId::from_bits(1), secs(3.0));
                next = world.now + secs(6.0);
            }
        });
        eprintln!("stopped and continued: {took:?}");
        assert!(took < secs(5.0), "seed {seed}: {took:?}");
    }
}

#[test]
fn all_of_it_at_once_makes_nobody_doubt_the_healthy() {
    for seed in 1..=2 {
        let mut next = Duration::ZERO;
        let took = story(20, seed, &[1, 2], |world, _| {
            world.loss = 0.1;
            for other in 2..=20 {
                world.net.lossy.insert((HostId::from_bits(1), HostId::from_bits(other)), 0.5);
            }
            if world.now >= next {
                world.stop_host(HostId::from_bits(2), secs(3.0));
                next = world.now + secs(6.0);
            }
            starve(world, &[3, 4, 5, 6], 500);
        });
        eprintln!("all at once: {took:?}");
        assert!(took < secs(5.0), "seed {seed}: {took:?}");
    }
}
