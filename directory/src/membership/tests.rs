//! Hosts in one address space, with a hand-moved clock, a seeded network and nothing else.

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::testing::peer;

const STEP: Duration = Duration::from_millis(5);

struct Net {
    hosts: Vec<Option<Membership>>,
    /// What each host was told: times of `Up` and `Down`.
    log: Vec<Vec<(Duration, bool, u64)>>,
    flying: Vec<(Duration, usize, usize, Bytes)>,
    cut: Vec<bool>,
    /// Hosts whose process gets no time.
    starved: Vec<bool>,
    loss: f64,
    rng: SmallRng,
    now: Duration,
}

impl Net {
    fn new(hosts: usize, loss: f64, seed: u64) -> Self {
        let mut net = Self {
            hosts: (0..hosts).map(|at| Some(member(at, seed))).collect(),
            log: vec![Vec::new(); hosts],
            flying: Vec::new(),
            cut: vec![false; hosts],
            starved: vec![false; hosts],
            loss,
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
        };
        net.introduce();
        net
    }

    /// What links do: each tells each who it is, again and again.
    fn introduce(&mut self) {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                let Some(them) = self.hosts[to].as_ref().map(|m| m.me().clone()) else { continue };
                let Some(us) = self.hosts[from].as_mut() else { continue };
                let known = us.members().any(|m| *m == them);
                if from != to && !known && !self.starved[from] {
                    let mut out = Vec::new();
                    us.meet(them, self.now, &mut out);
                    self.carry_out(from, out);
                }
            }
        }
    }

    fn carry_out(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => {
                    let to = usize::try_from(to.host.to_bits()).unwrap() - 1;
                    let lost = self.rng.random_bool(self.loss) || self.cut[from] || self.cut[to];
                    if !lost {
                        let delay = Duration::from_micros(self.rng.random_range(200..3000));
                        self.flying.push((self.now + delay, from, to, packet));
                    }
                }
                Effect::Up(m) => self.log[from].push((self.now, true, m.host.to_bits())),
                Effect::Down(m) => self.log[from].push((self.now, false, m.host.to_bits())),
                Effect::Renewed(_) => {}
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            let (due, later) = std::mem::take(&mut self.flying)
                .into_iter()
                .partition(|(at, _, to, _)| *at <= now && !self.starved[*to]);
            self.flying = later;
            let mut due: Vec<_> = due;
            due.sort_by_key(|(at, ..)| *at);
            for (_, from, to, packet) in due {
                let mut out = Vec::new();
                if let Some(us) = self.hosts[to].as_mut() {
                    us.on_packet(HostId::from_bits(from as u64 + 1), &packet, now, &mut out);
                }
                self.carry_out(to, out);
            }
            for at in 0..self.hosts.len() {
                let Some(us) = self.hosts[at].as_mut().filter(|_| !self.starved[at]) else {
                    continue;
                };
                if us.next_deadline().is_some_and(|due| due <= now) {
                    let mut out = Vec::new();
                    us.on_time(now, &mut out);
                    self.carry_out(at, out);
                }
            }
            if now.as_millis().is_multiple_of(250) {
                self.introduce();
            }
        }
    }

    fn all_see_all(&self) -> bool {
        self.hosts.iter().flatten().all(|m| m.members().count() == self.hosts.len() - 1)
    }

    fn downs(&self) -> usize {
        self.log.iter().flatten().filter(|(_, up, _)| !up).count()
    }
}

fn member(at: usize, seed: u64) -> Membership {
    let addr = NodeAddr::new(peer(at as u64 + 1, at as u64 + 100), &[]);
    Membership::new(
        Identity::new(&addr, 1, 0),
        seed ^ at as u64,
        Patience::default(),
        Duration::ZERO,
    )
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_pulled_cable_is_noticed_within_two_seconds_on_both_ends_and_heals() {
    for (hosts, seed) in [(2, 1), (3, 2), (4, 3), (5, 4), (5, 5), (12, 6)] {
        let mut net = Net::new(hosts, 0.0, seed);
        net.run(secs(3.0));
        assert!(net.all_see_all() && net.downs() == 0, "{hosts} hosts, seed {seed}");
        let pulled = net.now;
        net.cut[0] = true;
        net.run(secs(1.8));
        for (at, log) in net.log.iter().enumerate() {
            let expected = if at == 0 { hosts - 1 } else { 1 };
            let downs: Vec<_> = log.iter().filter(|(_, up, _)| !up).collect();
            assert_eq!(downs.len(), expected, "host {at} of {hosts}, seed {seed}: {downs:?}");
            assert!(downs.iter().all(|(t, ..)| *t > pulled));
        }
        net.run(secs(8.0));
        net.cut[0] = false;
        net.run(secs(1.5));
        assert!(net.all_see_all(), "healed: {hosts} hosts, seed {seed}");
    }
}

#[test]
fn loss_of_a_fifth_raises_no_alarm() {
    for (hosts, seed) in [(2, 1), (3, 2), (4, 3), (5, 4)] {
        let mut net = Net::new(hosts, 0.2, seed);
        net.run(secs(60.0));
        assert!(net.all_see_all() && net.downs() == 0, "{hosts} hosts, seed {seed}: {:?}", net.log);
    }
}

#[test]
fn a_host_that_leaves_is_gone_at_once() {
    let mut net = Net::new(3, 0.0, 7);
    net.run(secs(2.0));
    let mut out = Vec::new();
    let mut leaver = net.hosts[0].take().unwrap();
    leaver.leave(net.now, &mut out);
    net.carry_out(0, out);
    net.run(secs(0.3));
    assert_eq!(net.downs(), 2, "{:?}", net.log);
}

#[test]
fn a_starved_host_doubts_itself_and_not_the_others() {
    let mut net = Net::new(3, 0.0, 8);
    net.run(secs(2.0));
    // Half of the time it gets no time: its probes seem to fail again and again.
    for _ in 0..10 {
        net.starved[0] = true;
        net.run(secs(0.4));
        net.starved[0] = false;
        net.run(secs(0.2));
    }
    let accused: Vec<_> = net.log[0].iter().filter(|(_, up, _)| !up).collect();
    assert!(accused.is_empty(), "{accused:?}");
    assert_eq!(net.downs(), 0, "{:?}", net.log);
}

#[test]
fn a_stopped_host_comes_back_without_declaring_everybody_dead() {
    let mut net = Net::new(3, 0.0, 9);
    net.run(secs(2.0));
    net.starved[0] = true;
    net.run(secs(5.0));
    assert_eq!(net.downs(), 2, "the others notice: {:?}", net.log);
    net.starved[0] = false;
    net.run(secs(2.0));
    assert!(net.all_see_all());
    let accused = net.log[0].iter().filter(|(_, up, _)| !up).count();
    assert_eq!(accused, 0, "{:?}", net.log[0]);
}

#[test]
fn a_host_cannot_speak_for_another() {
    let (mut one, mut out) = (member(0, 1), Vec::new());
    let mut other = member(1, 1);
    other.meet(one.me().clone(), Duration::ZERO, &mut out);
    let Effect::Send { packet, .. } = out.remove(0) else { panic!() };
    out.clear();
    one.on_packet(HostId::from_bits(3), &packet, Duration::ZERO, &mut out);
    assert!(out.is_empty() && one.members().count() == 0);
    one.on_packet(HostId::from_bits(2), &packet, Duration::ZERO, &mut out);
    assert_eq!(one.members().count(), 1);
}

#[test]
fn a_host_that_restarts_again_and_again_leaves_one_timer_behind() {
    let (mut one, mut out) = (member(0, 1), Vec::new());
    for incarnation in 1..200 {
        let addr = NodeAddr::new(peer(2, 100 + incarnation), &[]);
        let them = Identity::new(&addr, incarnation, 0);
        let down = Member::new(them, 0, State::Down);
        one.act(Duration::ZERO, &mut out, |foca, shell| {
            foca.apply_many(std::iter::once(down), false, shell)
        });
    }
    assert_eq!((one.timers(), one.forgets.len()), (1, 1));
    one.on_time(secs(601.0), &mut out);
    one.on_time(secs(700.0), &mut out);
    assert_eq!((one.timers(), one.forgets.len()), (0, 0));
}

#[test]
fn patience_stretches_every_time() {
    let usual = Patience::default();
    assert_eq!(usual.of(SUSPICION), SUSPICION);
    assert_eq!(Patience::new(secs(4.0)).of(SUSPICION), SUSPICION * 2);
    assert_eq!(Patience::new(secs(0.0)).of(PROBE_PERIOD), PROBE_PERIOD / 4);
    assert_eq!(Patience::new(secs(1e6)).of(PATIENCE), MAX_PATIENCE);
}

proptest! {
    #[test]
    fn any_packet_is_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (mut one, mut out) = (member(0, 1), Vec::new());
        let mut packet = vec![PACKET];
        packet.extend(&bytes);
        one.on_packet(HostId::from_bits(2), &packet, Duration::ZERO, &mut out);
        one.on_packet(HostId::from_bits(2), &bytes, Duration::ZERO, &mut out);
    }
}
