//! Exclusive names between hosts: who is next, who stays, and what number it has.

use super::*;

const NAME: &str = "leader";

impl World {
    /// Gets in line for the name.
    fn claim(&mut self, peer: PeerId) -> Instance {
        let name = Name::new(NAME).unwrap();
        let draft =
            Draft { name, scope: Scope::Lan, exclusive: true, actor: 1, meta: Bytes::new() };
        let wall = self.wall();
        let serial =
            self.agent(peer, |agent, out| agent.publish(draft, true, addr(peer), wall, out));
        instance(peer, serial)
    }

    fn give_up(&mut self, claim: Instance) {
        self.agent(claim.peer(), |agent, out| agent.withdraw(claim.serial, out));
    }

    /// The holder that everybody sees.
    fn holder(&mut self) -> Option<Arc<Record>> {
        let seed = self.seed;
        let mut seen: Vec<_> = self
            .everybody()
            .into_iter()
            .map(|peer| {
                let live = self.told(peer).live.values();
                live.filter(|r| r.name.as_str() == NAME).cloned().collect::<Vec<_>>()
            })
            .collect();
        seen.dedup();
        assert_eq!(seen.len(), 1, "all see the same, seed {seed}: {seen:?}");
        assert!(seen[0].len() <= 1, "one holder at most, seed {seed}: {seen:?}");
        seen.remove(0).pop()
    }

    fn cut(&mut self, host: u64, cut: bool) {
        self.machines.get_mut(&HostId::from_bits(host)).unwrap().cut = cut;
    }

    /// Hosts that have met, with a process or three each.
    fn acquainted(hosts: u64, processes: u64, seed: u64) -> Self {
        let mut world = Self::new(hosts, processes, seed);
        world.run(secs(5.0));
        world
    }
}

#[test]
fn the_line_moves_up_when_the_host_of_the_holder_is_lost_and_back_when_it_returns() {
    for seed in 0..6 {
        let mut world = World::acquainted(3, 2, seed);
        let holder = world.claim(id(1, 2));
        world.run(secs(0.1));
        let line = [id(3, 1), id(2, 2), id(2, 1)].map(|peer| {
            let claim = world.claim(peer);
            world.run(secs(0.1));
            claim
        });
        let before = world.holder().unwrap();
        assert_eq!(before.instance, holder);
        world.cut(1, true);
        world.run(secs(2.5));
        assert_eq!(world.told(id(3, 1)).granted, [line[0].serial], "seed {seed}");
        let between = world.told(id(2, 1)).live[&line[0]].clone();
        assert!(between.fence > before.fence);
        world.cut(1, false);
        world.run(secs(3.0));
        let after = world.holder().unwrap();
        assert_eq!(after.instance, holder, "the older claim, seed {seed}");
        assert!(after.fence > between.fence, "seed {seed}");
        assert_eq!(world.told(id(3, 1)).lost, [line[0].serial]);
        world.give_up(holder);
        world.run(secs(0.1));
        assert_eq!(world.holder().unwrap().instance, line[1], "the loser lost its place");
    }
}

#[test]
fn the_holder_may_die_together_with_the_directory_of_its_host() {
    for seed in 0..6 {
        let mut world = World::acquainted(2, 3, seed);
        let holder = world.claim(id(1, 1));
        world.run(secs(0.1));
        let line = [id(1, 3), id(2, 2)].map(|peer| {
            let claim = world.claim(peer);
            world.run(secs(0.1));
            claim
        });
        let before = world.holder().unwrap();
        assert_eq!(before.instance, holder);
        world.kill(id(1, 1));
        world.run(secs(1.0));
        let after = world.holder().unwrap();
        assert_eq!(after.instance, line[0], "seed {seed}");
        assert!(after.fence > before.fence, "seed {seed}");
        assert!(world.told(id(2, 2)).granted.is_empty(), "nobody pushed in, seed {seed}");
        // Nor while its directory dies once more.
        world.kill(id(1, 2));
        world.run(secs(1.0));
        assert_eq!(world.holder().unwrap().instance, line[0], "seed {seed}");
        world.kill(id(1, 3));
        world.run(secs(4.0));
        assert_eq!(world.holder().unwrap().instance, line[1], "seed {seed}");
    }
}

#[test]
fn a_holder_that_came_and_went_on_the_other_side_has_not_the_highest_number() {
    let mut world = World::acquainted(2, 1, 4);
    let holder = world.claim(id(1, 1));
    world.run(secs(0.1));
    world.cut(1, true);
    world.run(secs(3.0));
    let other = world.claim(id(2, 1));
    let passing = world.told(id(2, 1)).live[&other].fence;
    world.give_up(other);
    world.run(secs(0.1));
    world.cut(1, false);
    world.run(secs(3.0));
    let after = world.holder().unwrap();
    assert!(after.instance == holder && after.fence > passing);
}

#[test]
fn one_holds_the_name_after_any_trouble() {
    for seed in 0..15 {
        let mut world = World::acquainted(4, 2, seed);
        world.loss = 0.05;
        let mut rng = SmallRng::seed_from_u64(seed ^ 0xc1a1);
        let mut claims: Vec<Instance> = Vec::new();
        for _ in 0..40 {
            let everybody = world.everybody();
            let somebody = everybody[rng.random_range(0..everybody.len())];
            match rng.random_range(0..10) {
                0..5 => claims.push(world.claim(somebody)),
                5 | 6 if !claims.is_empty() => {
                    let which = claims.swap_remove(rng.random_range(0..claims.len()));
                    world.give_up(which);
                }
                7 if world.machines[&somebody.host].processes.len() > 1 => {
                    world.kill(somebody);
                    claims.retain(|claim| claim.peer() != somebody);
                }
                8 => {
                    let host = somebody.host.to_bits();
                    let cut = world.machines[&somebody.host].cut;
                    world.cut(host, !cut);
                }
                _ => {}
            }
            world.run(Duration::from_millis(rng.random_range(1..1500)));
        }
        (1..=4).for_each(|host| world.cut(host, false));
        world.loss = 0.0;
        world.run(secs(6.0));
        let lost: Vec<_> = world
            .everybody()
            .into_iter()
            .flat_map(|peer| {
                let lost = world.told(peer).lost.clone();
                lost.into_iter().map(move |serial| instance(peer, serial))
            })
            .collect();
        claims.retain(|claim| !lost.contains(claim));
        let holder = world.holder();
        assert_eq!(holder.is_some(), !claims.is_empty(), "nobody waits in vain, seed {seed}");
        // Whoever is left is served, one after the other.
        let mut last = 0;
        while let Some(holder) = world.holder() {
            assert!(claims.contains(&holder.instance) && holder.fence > last, "seed {seed}");
            last = holder.fence;
            claims.retain(|claim| *claim != holder.instance);
            world.give_up(holder.instance);
            world.run(secs(0.1));
        }
        assert!(claims.is_empty(), "seed {seed}: {claims:?}");
    }
}
