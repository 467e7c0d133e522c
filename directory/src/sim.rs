//! The whole directory of many hosts in one address space: agents, host directories, membership,
//! dialling and watches as they are, under a seeded network and a virtual clock that jumps from one
//! event to the next.
//!
//! Links are modelled as they are: posts are reliable and in order, and wait while the cable is out;
//! datagrams are lost, doubled and overtake each other; the end of a link is noticed when it is closed,
//! when the other end answers that it knows nothing of it, or after ten silent seconds. Hosts and
//! processes are killed, stopped and continued; wall clocks differ and jump. What came while a process
//! was stopped it finds all at once.
//!
//! `net` is the network, `life` what happens to processes and hosts, `truth` what must hold and the
//! naive model of what everybody should see, `chaos` trouble at random from a seed; `stories`,
//! `names`,
//! `network`, `presences`, `patience` and `scale` are told on it. A failure names its seed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use layercake_wire::{
    id::{HostId, NodeAddr, NodeId, PeerId},
    payload::{self, Encoding},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    agent::{self, Agent, Draft, PRESENCES},
    dial::Target,
    group::Group,
    host::{self, HostConfig, HostCore},
    message::{self, ToHost, ToNode, ToPeer},
    name::{Name, Pattern, Scope},
    network::{Network, NetworkEvent},
    presence::{NodeGone, Watches},
    record::{DropReason, Instance, Record, Title},
    registry::{self, Here},
    testing::peer,
};

use self::{
    life::{Machine, Process, Seat},
    net::{Net, Parcel},
    truth::{Told, Truth},
};

mod chaos;
mod life;
mod names;
mod net;
mod network;
mod patience;
mod presences;
mod restarts;
mod scale;
mod stories;
mod truth;

/// The epoch of the simulated wall clocks, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;
/// The number of the subscription that every process has: everything, LAN-wide.
const ALL: u64 = 1;

/// What will happen.
#[derive(Debug)]
enum Event {
    /// Something arrives over a link, or what was held up on it.
    Arrive(net::Arrival),
    Flush {
        link: u64,
        from: PeerId,
        to: PeerId,
    },
    /// The timers of a host's directory, and of a process's watches.
    Wake(HostId),
    Watch(PeerId),
    Dialled {
        from: PeerId,
        target: Target,
        to: Option<PeerId>,
    },
    /// A process notices that another one of its host is gone.
    Noticed {
        by: PeerId,
        gone: PeerId,
        died: bool,
    },
    /// A process looks for the directory of its host, or becomes it.
    Seek(PeerId),
    /// A stopped process goes on, unless it was stopped for longer since.
    Resume(PeerId, Duration),
    /// A process that leaves in order ends.
    End(PeerId),
    /// A directory shows itself on the network, as by mDNS.
    Announce(PeerId),
    /// Links that are dead are noticed as such.
    Reap,
    /// What is gone must have been forgotten.
    Forgotten(Vec<PeerId>),
}

struct Scheduled {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct World {
    machines: BTreeMap<HostId, Machine>,
    net: Net,
    truth: Truth,
    queue: BinaryHeap<Reverse<Scheduled>>,
    events: u64,
    /// The share of datagrams that is lost everywhere.
    loss: f64,
    rng: SmallRng,
    now: Duration,
    seed: u64,
    /// What every process subscribes to, LAN-wide.
    interest: &'static str,
    /// The planted bug that every directory has.
    planted: bool,
    /// Tells what happens, for a seed that is replayed.
    loud: bool,
}

/// Where a process is reached.
fn addr(peer: PeerId) -> NodeAddr {
    let [.., a, b, c] = peer.host.to_bits().to_be_bytes();
    NodeAddr::new(peer, &[([10, a, b, c], port(peer.node)).into()])
}

fn port(node: NodeId) -> u16 {
    u16::try_from(node.to_bits() & 0xffff).unwrap()
}

impl World {
    /// Hosts 1..=n with so many processes each, numbered host * 100 + 1 and so on; the first one of
    /// each embeds the directory. Everybody subscribes to everything, and every host knows where the
    /// first process of every other is.
    fn new(hosts: u64, processes: u64, seed: u64) -> Self {
        let mut world = Self::empty(seed);
        for host in 1..=hosts {
            let others = (1..=hosts).filter(|other| *other != host);
            let peers = others.map(|o| (HostId::from_bits(o), addr(id(o, 1)).hints.to_vec()));
            let machine = Machine::new(peers.collect());
            world.machines.insert(HostId::from_bits(host), machine);
            for process in 1..=processes {
                world.start(id(host, process));
            }
        }
        world
    }

    fn empty(seed: u64) -> Self {
        let mut world = Self {
            machines: BTreeMap::new(),
            net: Net::default(),
            truth: Truth::default(),
            queue: BinaryHeap::new(),
            events: 0,
            loss: 0.0,
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            seed,
            interest: ".*",
            planted: false,
            loud: false,
        };
        world.at(Duration::from_secs(1), Event::Reap);
        world
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.queue.push(Reverse(Scheduled { at, number: self.events, event }));
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    /// Lets so much time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.reopen();
        while let Some(Reverse(next)) = self.queue.peek()
            && next.at <= end
        {
            let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else { return };
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = end;
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.loud {
            eprintln!("{:9.3} {}", self.now.as_secs_f64(), what());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(arrival) => self.arrive(arrival),
            Event::Flush { link, from, to } => self.flush(link, from, to),
            Event::Wake(host) => self.wake(host),
            Event::Watch(peer) => self.on_watches(peer),
            Event::Dialled { from, target, to } => self.dialled(from, target, to),
            Event::Noticed { by, gone, died } => self.notice(by, gone, died),
            Event::Seek(peer) => self.seek(peer),
            Event::Resume(peer, until) => self.resume(peer, until),
            Event::End(peer) => self.end(peer),
            Event::Announce(peer) => self.announce(peer),
            Event::Reap => self.reap(),
            Event::Forgotten(gone) => self.check_forgotten(gone),
        }
    }

    fn wall(&self, host: HostId) -> u64 {
        let since = i64::try_from(self.now.as_millis()).unwrap();
        EPOCH.saturating_add_signed(since + self.machines[&host].clock)
    }

    fn publish(&mut self, peer: PeerId, name: &str, scope: Scope, exclusive: bool) -> u64 {
        self.put_up(peer, (name, scope, exclusive), false)
    }

    /// Gets in line for a name.
    fn claim(&mut self, peer: PeerId, name: &str, scope: Scope) -> Instance {
        instance(peer, self.put_up(peer, (name, scope, true), true))
    }

    fn put_up(
        &mut self,
        peer: PeerId,
        (name, scope, exclusive): (&str, Scope, bool),
        waits: bool,
    ) -> u64 {
        let name = Name::new(name).unwrap();
        let draft = Draft { name, scope, exclusive, actor: 1, meta: Bytes::new() };
        let wall = self.wall(peer.host);
        let serial =
            self.agent(peer, |agent, out| agent.publish(draft, waits, addr(peer), wall, out));
        self.told(peer).on_published(serial);
        serial
    }

    fn withdraw(&mut self, peer: PeerId, serial: u64) {
        self.process(peer).told.on_withdrawn(serial);
        self.truth.withdrawn.insert(instance(peer, serial));
        self.agent(peer, |agent, out| agent.withdraw(serial, out));
    }

    /// Everybody says that it is there and watches everybody else, under the number of that process.
    fn watch_all(&mut self) {
        for peer in self.everybody() {
            self.agent(peer, Agent::be_present);
        }
        for peer in self.everybody() {
            self.watch_others(peer);
        }
    }

    fn watch_others(&mut self, peer: PeerId) {
        let (now, everybody) = (self.now, self.everybody());
        let watches = &mut self.process(peer).watches;
        for other in everybody.into_iter().filter(|other| *other != peer) {
            assert_eq!(watches.watch(other.node.to_bits(), other, now), None);
        }
        self.agent(peer, Agent::watch_presences);
    }

    fn process(&mut self, peer: PeerId) -> &mut Process {
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.processes.get_mut(&peer.node).expect("it runs")
    }

    fn told(&mut self, peer: PeerId) -> &mut Told {
        &mut self.process(peer).told
    }

    fn everybody(&self) -> Vec<PeerId> {
        let hosts = self.machines.iter();
        hosts
            .flat_map(|(host, m)| {
                m.processes.keys().map(|node| PeerId { host: *host, node: *node })
            })
            .collect()
    }

    /// Every process sees the shared names in `present` and nothing else of that kind.
    fn assert_all_see(&mut self, present: &[Instance]) {
        let seed = self.seed;
        for peer in self.everybody() {
            let seen: Vec<_> = self.told(peer).live.keys().copied().collect();
            let mut expected = present.to_vec();
            expected.sort();
            assert_eq!(seen, expected, "seen by {peer:?}, seed {seed}");
        }
    }

    fn forget_logs(&mut self) {
        for peer in self.everybody() {
            self.told(peer).log.clear();
            self.told(peer).gone.clear();
        }
    }

    fn log(&mut self, peer: PeerId) -> Vec<(Duration, Instance, Option<DropReason>)> {
        self.told(peer).log.clone()
    }
}

fn id(host: u64, process: u64) -> PeerId {
    peer(host, host * 100 + process)
}

fn instance(peer: PeerId, serial: u64) -> Instance {
    Instance { host: peer.host, node: peer.node, serial }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
