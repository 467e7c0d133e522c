//! Trouble at random, from a seed: 5 to 20 hosts, and everything that may happen to them.
//!
//! `LAYERCAKE_SIM_SEED` replays one seed, `LAYERCAKE_SIM_SEEDS` says how many are tried, and
//! `LAYERCAKE_SIM_FROM` where they begin. `cargo xtask soak directory` tries ten thousand.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;

/// Seeds that every run of the tests tries.
const SEEDS: u64 = if cfg!(debug_assertions) { 12 } else { 200 };
/// How long it takes until everybody agrees once all is well: dead links are noticed after ten
/// seconds, hosts that are long gone are dialled every few seconds.
const QUIET: Duration = Duration::from_secs(16);

/// What may happen, and how often.
const DEEDS: [(u32, Deed); 21] = [
    (24, Deed::Publish),
    (6, Deed::Claim),
    (12, Deed::Wait),
    (8, Deed::Withdraw),
    (4, Deed::Subscribe),
    (6, Deed::Start),
    (6, Deed::Kill),
    (3, Deed::KillDirectory),
    (3, Deed::Leave),
    (2, Deed::PowerOff),
    (3, Deed::Boot),
    (2, Deed::Split),
    (3, Deed::OneWay),
    (3, Deed::Cut),
    (6, Deed::Heal),
    (4, Deed::Stop),
    (3, Deed::StopHost),
    (3, Deed::Clock),
    (3, Deed::Close),
    (4, Deed::Weather),
    (2, Deed::Storm),
];

#[derive(Debug, Clone, Copy)]
enum Deed {
    Publish,
    Claim,
    Wait,
    Withdraw,
    Subscribe,
    Start,
    Kill,
    KillDirectory,
    Leave,
    PowerOff,
    Boot,
    Split,
    OneWay,
    Cut,
    Heal,
    Stop,
    StopHost,
    Clock,
    Close,
    Weather,
    Storm,
}

/// The whole story of a seed; ends early at the first thing that must not be. Returns the number of
/// events.
fn play(seed: u64, loud: bool) -> u64 {
    let mut chaos = Chaos::new(seed);
    chaos.world.loud = loud;
    for _ in 0..2 {
        let deeds = chaos.world.rng.random_range(15..45);
        for _ in 0..deeds {
            chaos.act();
            let pause = if chaos.world.rng.random_bool(0.2) { 1..2500 } else { 1..500 };
            let pause = chaos.world.millis(pause);
            chaos.world.run(pause);
        }
        chaos.calm();
        chaos.world.run(QUIET);
        chaos.world.check_all();
    }
    chaos.world.serve_all();
    chaos.world.check_all();
    chaos.world.events
}

struct Chaos {
    world: World,
    /// The number of the last process of each host.
    last: BTreeMap<HostId, u64>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut world = World::empty(seed);
        let hosts = world.rng.random_range(5..=20);
        let all: Vec<_> = (1..=hosts).map(HostId::from_bits).collect();
        for host in &all {
            let peers = all.iter().filter(|other| *other != host);
            let first = |host: &HostId| peer(host.to_bits(), host.to_bits() * 1000 + 1);
            let peers = peers.map(|other| (*other, addr(first(other)).hints.to_vec()));
            let mut machine = Machine::new(peers.collect());
            machine.clock = world.rng.random_range(-100_000..100_000);
            world.machines.insert(*host, machine);
        }
        let mut chaos = Self { world, last: BTreeMap::new() };
        for host in all {
            for _ in 0..chaos.world.rng.random_range(1..=2) {
                chaos.start(host);
            }
        }
        chaos.weather();
        chaos.world.run(secs(1.5));
        chaos
    }

    fn start(&mut self, host: HostId) {
        let last = self.last.entry(host).or_default();
        *last += 1;
        let peer = peer(host.to_bits(), host.to_bits() * 1000 + *last);
        let groups = [None, Some("red"), Some("blue")];
        let group = groups[self.world.rng.random_range(0..groups.len())];
        self.world.start_in(peer, group.map(|group| Group::new(group).unwrap()));
        self.world.agent(peer, Agent::be_present);
        if self.world.rng.random_bool(0.5) {
            self.world.watch_others(peer);
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.world.rng.random_range(0..from.len())])
    }

    fn host(&mut self) -> HostId {
        let all: Vec<_> = self.world.machines.keys().copied().collect();
        self.pick(&all).expect("there are hosts")
    }

    /// A process that runs and does not leave.
    fn somebody(&mut self) -> Option<PeerId> {
        let mut all = self.world.everybody();
        all.retain(|peer| !self.world.process(*peer).leaving);
        self.pick(&all)
    }

    /// One that is not stopped, either: only that one can do anything.
    fn somebody_awake(&mut self) -> Option<PeerId> {
        self.somebody().filter(|peer| !self.world.is_stopped(*peer))
    }

    fn act(&mut self) {
        let total = DEEDS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.world.rng.random_range(0..total);
        for (weight, deed) in DEEDS {
            if at < weight {
                self.do_it(deed);
                return;
            }
            at -= weight;
        }
    }

    fn do_it(&mut self, deed: Deed) -> Option<()> {
        self.world.note(|| format!("{deed:?}"));
        match deed {
            Deed::Publish | Deed::Claim | Deed::Wait => self.publish(deed)?,
            Deed::Withdraw => {
                let peer = self.somebody_awake()?;
                let own: Vec<_> = self.world.told(peer).own.keys().copied().collect();
                let serial = self.pick(&own)?;
                self.world.withdraw(peer, serial);
            }
            Deed::Subscribe => {
                let peer = self.somebody_awake()?;
                let pattern = self.pick(&["n:1", "n:[0-3]", ".*", "x.*"])?;
                let scope = self.scope(peer);
                let id = self.world.rng.random_range(2..1000);
                self.world.subscribe(peer, id, pattern, scope);
            }
            Deed::Start => {
                let host = self.host();
                if self.world.machines[&host].processes.len() < 4 {
                    self.start(host);
                }
            }
            Deed::Kill => {
                let peer = self.somebody()?;
                self.world.kill(peer);
            }
            Deed::KillDirectory => {
                let host = self.host();
                let holder = self.world.holder(host)?;
                self.world.kill(holder);
            }
            Deed::Leave => {
                let peer = self.somebody_awake()?;
                self.world.leave(peer);
            }
            Deed::PowerOff => {
                let host = self.host();
                self.world.power_off(host);
            }
            Deed::Boot => {
                let host = self.host();
                if self.world.machines[&host].processes.is_empty() {
                    self.start(host);
                }
            }
            Deed::Split => {
                let all: Vec<_> = self.world.machines.keys().copied().collect();
                let side: BTreeSet<_> =
                    all.iter().filter(|_| self.world.rng.random_bool(0.4)).copied().collect();
                for one in &all {
                    for other in all.iter().filter(|o| side.contains(o) != side.contains(one)) {
                        self.world.block(*one, *other);
                    }
                }
            }
            Deed::OneWay => {
                let (from, to) = (self.host(), self.host());
                if from != to {
                    self.world.block(from, to);
                }
            }
            Deed::Cut => {
                let host = self.host();
                self.world.machines.get_mut(&host)?.cut = true;
            }
            Deed::Heal => {
                if self.world.rng.random_bool(0.6) {
                    self.world.unblock_all();
                } else {
                    let blocked = self.world.blocked();
                    let (from, to) = self.pick(&blocked)?;
                    self.world.unblock(from, to);
                }
            }
            Deed::Stop => {
                let (peer, time) = (self.somebody()?, self.world.millis(50..4000));
                self.world.stop(peer, time);
            }
            Deed::StopHost => {
                let (host, time) = (self.host(), self.world.millis(50..4000));
                self.world.stop_host(host, time);
            }
            Deed::Clock => {
                let host = self.host();
                let clock = self.world.rng.random_range(-3_600_000..3_600_000);
                self.world.machines.get_mut(&host)?.clock = clock;
            }
            Deed::Close => {
                let (one, other) = (self.host(), self.host());
                self.world.close(&|a, b| a.host == one && b.host == other);
                self.world.truth.pair_trouble(one, other, self.world.now);
            }
            Deed::Weather => self.weather(),
            Deed::Storm => self.storm(),
        }
        Some(())
    }

    /// A host starts again and again, while the way to others is slow now and then.
    fn storm(&mut self) {
        let host = self.host();
        for _ in 0..self.world.rng.random_range(2..8) {
            self.world.power_off(host);
            self.world.net.slow.clear();
            for other in self.world.machines.keys().copied().collect::<Vec<_>>() {
                if other != host && self.world.rng.random_bool(0.3) {
                    let slower = self.world.millis(10..400);
                    self.world.net.slow.insert((host, other), slower);
                }
            }
            self.start(host);
            let life = self.world.millis(30..700);
            self.world.run(life / 2);
            if let Some(peer) = self.world.holder(host) {
                self.world.publish(peer, "n:0", Scope::Lan, false);
            }
            self.world.run(life / 2);
        }
        self.world.net.slow.clear();
    }

    /// Mostly the mesh; a group only where the process is in one.
    fn scope(&mut self, of: PeerId) -> Scope {
        let scopes =
            [Scope::Process, Scope::Group, Scope::Host, Scope::Lan, Scope::Lan, Scope::Lan];
        let grouped = self.world.process(of).here.group.is_some();
        match scopes[self.world.rng.random_range(0..scopes.len())] {
            Scope::Group if !grouped => Scope::Host,
            scope => scope,
        }
    }

    fn publish(&mut self, deed: Deed) -> Option<()> {
        let peer = self.somebody_awake()?;
        let number = self.world.rng.random_range(0..6);
        let scope = self.scope(peer);
        match deed {
            Deed::Wait => {
                self.world.claim(peer, &format!("x:{number}"), scope);
            }
            Deed::Claim => {
                self.world.publish(peer, &format!("x:{number}"), scope, true);
            }
            _ => {
                self.world.publish(peer, &format!("n:{number}"), scope, false);
            }
        }
        Some(())
    }

    /// How much is lost, doubled, late and slow.
    fn weather(&mut self) {
        let (one, other) = (self.host(), self.host());
        let world = &mut self.world;
        world.loss = [0.0, 0.0, 0.02, 0.1, 0.2][world.rng.random_range(0..5)];
        world.net.doubled = [0.0, 0.02][world.rng.random_range(0..2)];
        world.net.overtaken = [0.0, 0.1][world.rng.random_range(0..2)];
        world.net.slow.clear();
        if one != other && world.rng.random_bool(0.5) {
            let slower = world.millis(5..1500);
            world.net.slow.insert((one, other), slower);
            if slower > Duration::from_millis(60) {
                world.truth.pair_trouble(one, other, world.now + Duration::from_secs(60));
            }
        }
    }

    /// All is well from here on.
    fn calm(&mut self) {
        let world = &mut self.world;
        world.unblock_all();
        world.loss = 0.0;
        (world.net.doubled, world.net.overtaken) = (0.0, 0.0);
        world.net.slow.clear();
        for peer in world.everybody() {
            if let Some(until) = world.process(peer).stopped {
                world.resume(peer, until);
            }
        }
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number of seeds"))
}

/// The first seed from here on that goes wrong, and how.
fn first_failure(seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let failures = std::sync::Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || !failures.lock().unwrap().is_empty() {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(seed, false))) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.unwrap_or_else(|| "a panic".to_owned());
                failures.lock().unwrap().push((seed, text));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap().into_iter().min()
}

#[test]
fn nothing_that_must_not_be_is_seen_in_any_trouble() {
    if let Ok(seed) = std::env::var("LAYERCAKE_SIM_SEED") {
        play(seed.parse().expect("a seed"), true);
        return;
    }
    let from = number("LAYERCAKE_SIM_FROM", 0);
    let seeds = from..from + number("LAYERCAKE_SIM_SEEDS", SEEDS);
    if let Some((seed, text)) = first_failure(seeds) {
        panic!("{text}\nreplay it with LAYERCAKE_SIM_SEED={seed}");
    }
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    assert_eq!(play(3, false), play(3, false));
}
