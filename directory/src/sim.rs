//! Whole hosts in one address space: agents, host directories and membership as they are, under a
//! hand-moved clock and a seeded network that loses, cuts, kills and takes over.
//!
//! Links are modelled as they are: reliable and in order, silent when the cable is out, noticed as
//! dead only when somebody closes them. A failure names its seed.

use std::{
    collections::{BTreeMap, VecDeque},
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
    host::{self, HostConfig, HostCore},
    message::{self, ToHost, ToNode, ToPeer},
    name::{Name, Pattern, Scope},
    network::{Network, NetworkEvent},
    presence::{NodeGone, Watches},
    record::{DropReason, Instance, Record},
    registry,
    testing::peer,
};

mod names;
mod network;
mod presences;
mod stories;

const STEP: Duration = Duration::from_millis(2);
/// The epoch of the simulated wall clock, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

/// What the one subscription of a node (everything, LAN-wide) has been told.
#[derive(Default)]
struct Told {
    live: BTreeMap<Instance, Arc<Record>>,
    log: Vec<(Duration, Instance, Option<DropReason>)>,
    lost: Vec<u64>,
    refused: Vec<u64>,
    granted: Vec<u64>,
    waiting: Vec<u64>,
    /// What its watches were told, by the number of the watched process.
    gone: Vec<(Duration, u64, NodeGone)>,
    /// What operators were shown, and what they have of the next picture.
    networks: Vec<Network>,
    network: Vec<u8>,
    events: Vec<NetworkEvent>,
}

struct Process {
    agent: Agent,
    told: Told,
    watches: Watches,
}

struct Machine {
    processes: BTreeMap<NodeId, Process>,
    directory: Option<(NodeId, HostCore)>,
    incarnation: u64,
    /// What the runtime folder remembers.
    peers: Vec<(HostId, Vec<SocketAddr>)>,
    cut: bool,
}

#[derive(Clone, Copy)]
enum Move {
    TakeOver(HostId, NodeId),
    Register(PeerId),
}

enum Parcel {
    Post(Bytes),
    Datagram(Bytes),
}

struct World {
    machines: BTreeMap<HostId, Machine>,
    /// Links between nodes of different hosts, both ways, with what is under way.
    links: BTreeMap<(PeerId, PeerId), VecDeque<(Duration, Parcel)>>,
    dials: Vec<(Duration, PeerId, Target, Option<PeerId>)>,
    /// Processes that have noticed the end of their directory and will act.
    moves: Vec<(Duration, Move)>,
    loss: f64,
    rng: SmallRng,
    now: Duration,
    seed: u64,
}

fn addr(peer: PeerId) -> NodeAddr {
    let host = u8::try_from(peer.host.to_bits()).unwrap();
    let port = u16::try_from(peer.node.to_bits()).unwrap();
    NodeAddr::new(peer, &[([10, 0, 0, host], port).into()])
}

impl World {
    /// Hosts 1..=n with so many processes each, numbered host * 100 + 1 and so on; the first one of
    /// each embeds the directory. Everybody subscribes to everything.
    fn new(hosts: u64, processes: u64, seed: u64) -> Self {
        let mut world = Self {
            machines: BTreeMap::new(),
            links: BTreeMap::new(),
            dials: Vec::new(),
            moves: Vec::new(),
            loss: 0.0,
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            seed,
        };
        for host in 1..=hosts {
            let machine = Machine {
                processes: BTreeMap::new(),
                directory: None,
                incarnation: 0,
                // The seeds: every host knows the first process of every other.
                peers: (1..=hosts)
                    .filter(|other| *other != host)
                    .map(|other| (HostId::from_bits(other), addr(id(other, 1)).hints.to_vec()))
                    .collect(),
                cut: false,
            };
            world.machines.insert(HostId::from_bits(host), machine);
            for process in 1..=processes {
                world.start(id(host, process));
            }
        }
        world
    }

    fn wall(&self) -> u64 {
        EPOCH + u64::try_from(self.now.as_millis()).unwrap()
    }

    fn start(&mut self, peer: PeerId) {
        let mut process =
            Process { agent: Agent::new(peer), told: Told::default(), watches: Watches::default() };
        let mut out = Vec::new();
        assert!(process.agent.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out));
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.processes.insert(peer.node, process);
        if machine.directory.is_none() {
            self.embed(peer, None);
        } else {
            self.register(peer);
        }
    }

    fn embed(&mut self, peer: PeerId, departed: Option<NodeId>) {
        let (now, seed) = (self.now, self.seed);
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.incarnation += 1;
        let config = HostConfig {
            addr: addr(peer),
            host_name: format!("host{}", peer.host.to_bits()),
            incarnation: machine.incarnation,
            departed,
            seed: seed ^ peer.node.to_bits(),
        };
        let mut core = HostCore::new(config, now);
        for (host, addrs) in machine.peers.clone() {
            core.on_hint(Target::Host(host), &addrs, now);
        }
        machine.directory = Some((peer.node, core));
        let nodes: Vec<_> = machine.processes.keys().copied().collect();
        self.register(peer);
        for node in nodes.into_iter().filter(|node| *node != peer.node) {
            let takes = Duration::from_millis(self.rng.random_range(5..150));
            self.moves.push((self.now + takes, Move::Register(PeerId { node, ..peer })));
        }
    }

    fn register(&mut self, peer: PeerId) {
        self.agent(peer, Agent::on_host_up);
    }

    fn publish(&mut self, peer: PeerId, name: &str, scope: Scope, exclusive: bool) -> u64 {
        let name = Name::new(name).unwrap();
        let draft = Draft { name, scope, exclusive, actor: 1, meta: Bytes::new() };
        let wall = self.wall();
        self.agent(peer, |agent, out| agent.publish(draft, false, addr(peer), wall, out))
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

    /// Lets a node act, and carries out what follows on its host.
    fn agent<T>(
        &mut self,
        peer: PeerId,
        act: impl FnOnce(&mut Agent, &mut Vec<agent::Effect>) -> T,
    ) -> T {
        let machine = self.machines.get_mut(&peer.host).unwrap();
        let process = machine.processes.get_mut(&peer.node).expect("it runs");
        let mut out = Vec::new();
        let result = act(&mut process.agent, &mut out);
        self.agent_effects(peer, out);
        result
    }

    fn agent_effects(&mut self, peer: PeerId, effects: Vec<agent::Effect>) {
        let now = self.now;
        for effect in effects {
            let machine = self.machines.get_mut(&peer.host).unwrap();
            let Some(process) = machine.processes.get_mut(&peer.node) else { return };
            let told = &mut process.told;
            match effect {
                agent::Effect::ToHost(message) => {
                    let message: ToHost = recode(&message);
                    let wall = self.wall();
                    self.directory(peer.host, |core, out| {
                        core.on_node(peer.node, message, now, wall, out);
                    });
                }
                agent::Effect::Tell(registry::Effect::Available {
                    subscription: PRESENCES,
                    record,
                }) => {
                    process.watches.on_available(record.instance);
                }
                agent::Effect::Tell(registry::Effect::Dropped {
                    subscription: PRESENCES,
                    record,
                    reason,
                }) => {
                    for ended in process.watches.on_dropped(record.instance, reason, now) {
                        told.gone.push((now, ended.watch, ended.gone));
                    }
                }
                agent::Effect::Tell(registry::Effect::Available { record, .. }) => {
                    told.log.push((now, record.instance, None));
                    told.live.insert(record.instance, record);
                }
                agent::Effect::Tell(registry::Effect::Dropped { record, reason, .. }) => {
                    told.log.push((now, record.instance, Some(reason)));
                    assert!(told.live.remove(&record.instance).is_some(), "dropped twice");
                }
                agent::Effect::CloseProcess(gone) => self.close(&|a, b| a == gone && b == peer),
                agent::Effect::CloseHost(gone) => self.close(&|a, b| a.host == gone && b == peer),
                agent::Effect::Lost { serial, .. } => told.lost.push(serial),
                agent::Effect::Refused { serial, .. } => told.refused.push(serial),
                agent::Effect::Granted(record) => told.granted.push(record.instance.serial),
                agent::Effect::Told { round, answer } => {
                    let (message, wall) = (ToHost::Told { round, answer }, self.wall());
                    self.directory(peer.host, |core, out| {
                        core.on_node(peer.node, message, now, wall, out);
                    });
                }
                agent::Effect::Network { part, last, .. } => {
                    told.network.extend_from_slice(&part);
                    if last {
                        let bytes = std::mem::take(&mut told.network);
                        told.networks.push(payload::decode(Encoding::Bincode, &bytes).unwrap());
                    }
                }
                agent::Effect::NetworkEvents(events) => told.events.extend(events),
                agent::Effect::Waiting(record) => told.waiting.push(record.instance.serial),
                agent::Effect::Hosts { .. }
                | agent::Effect::Pong { .. }
                | agent::Effect::Reseat
                | agent::Effect::Synced(_) => {}
            }
        }
    }

    fn directory(&mut self, host: HostId, act: impl FnOnce(&mut HostCore, &mut Vec<host::Effect>)) {
        if let Some((node, core)) = &mut self.machines.get_mut(&host).unwrap().directory {
            let me = PeerId { host, node: *node };
            let mut out = Vec::new();
            act(core, &mut out);
            self.directory_effects(me, out);
        }
    }

    fn directory_effects(&mut self, me: PeerId, out: Vec<host::Effect>) {
        let (host, now) = (me.host, self.now);
        for effect in out {
            match effect {
                host::Effect::ToNode { node, message } => {
                    let message: ToNode = recode(&message);
                    if self.machines[&host].processes.contains_key(&node) {
                        self.agent(PeerId { host, node }, |agent, out| agent.on_host(message, out));
                    }
                }
                host::Effect::ToPeer { peer, message } => {
                    self.send(me, peer, Parcel::Post(message::encode(&message).unwrap()));
                }
                host::Effect::Datagram { peer, packet } => {
                    assert!(packet.len() <= 1100);
                    self.send(me, peer, Parcel::Datagram(packet));
                }
                host::Effect::StartLan => {
                    let directory = &mut self.machines.get_mut(&host).unwrap().directory;
                    directory.as_mut().unwrap().1.start_lan(addr(me), now);
                }
                host::Effect::ClosePeer(peer) => self.close(&|a, b| a == peer && b == me),
                host::Effect::Etcd(_) => {}
                host::Effect::CloseNode(node) => panic!("{node} says too much"),
            }
        }
    }

    fn send(&mut self, from: PeerId, to: PeerId, parcel: Parcel) {
        if matches!(parcel, Parcel::Datagram(_)) && self.rng.random_bool(self.loss) {
            return;
        }
        let delay = Duration::from_micros(self.rng.random_range(200..2000));
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.push_back((self.now + delay, parcel));
        }
    }

    /// Takes down the links that a test on both ends (there, here) picks, from here. The far end
    /// notices unless the cable is out.
    fn close(&mut self, which: &dyn Fn(PeerId, PeerId) -> bool) {
        let doomed: Vec<_> = self.links.keys().filter(|(a, b)| which(*b, *a)).copied().collect();
        for (here, there) in doomed {
            let cut = self.machines[&here.host].cut || self.machines[&there.host].cut;
            self.end_link(here, there);
            if !cut {
                self.end_link(there, here);
            }
        }
    }

    /// One end of a link is no more.
    fn end_link(&mut self, here: PeerId, there: PeerId) {
        let now = self.now;
        let embeds = |m: &Machine| m.directory.as_ref().is_some_and(|(node, _)| *node == here.node);
        if self.links.remove(&(here, there)).is_some() && embeds(&self.machines[&here.host]) {
            self.directory(here.host, |core, _| core.on_peer_down(there, now));
        }
    }

    /// Kills a process; another one of its host takes over if it embedded the directory.
    fn kill(&mut self, peer: PeerId) {
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.processes.remove(&peer.node).expect("it runs");
        // Other hosts do not notice that its links are dead.
        self.links.retain(|(_, b), _| *b != peer);
        if machine.directory.as_ref().is_some_and(|(node, _)| *node == peer.node) {
            let (_, core) = machine.directory.take().unwrap();
            machine.peers = core.known_hosts();
            let takes = Duration::from_millis(self.rng.random_range(1..20));
            self.moves.push((self.now + takes, Move::TakeOver(peer.host, peer.node)));
            for node in machine.processes.keys().copied().collect::<Vec<_>>() {
                let survivor = PeerId { node, ..peer };
                self.agent(survivor, |agent, out| agent.on_host_down(Some(peer), out));
            }
        } else {
            self.directory(peer.host, |core, out| core.on_node_down(peer.node, true, out));
        }
    }

    fn act(&mut self, next: Move) {
        match next {
            Move::TakeOver(host, departed) => {
                let machine = &self.machines[&host];
                if let Some(node) = machine.processes.keys().next().copied() {
                    self.embed(PeerId { host, node }, Some(departed));
                }
            }
            Move::Register(peer) => {
                let machine = &self.machines[&peer.host];
                if machine.processes.contains_key(&peer.node) && machine.directory.is_some() {
                    self.register(peer);
                }
            }
        }
    }

    fn dial(&mut self, from: PeerId, target: Target, addrs: &[SocketAddr]) {
        let answer = addrs.iter().find_map(|addr| {
            let std::net::IpAddr::V4(ip) = addr.ip() else { return None };
            let host = HostId::from_bits(u64::from(ip.octets()[3]));
            let node = NodeId::from_bits(u64::from(addr.port()));
            let machine = self.machines.get(&host)?;
            machine.processes.contains_key(&node).then_some(PeerId { host, node })
        });
        let reachable =
            answer.filter(|to| !self.machines[&to.host].cut && !self.machines[&from.host].cut);
        let takes = if reachable.is_some() { 6 } else { 3000 };
        self.dials.push((self.now + Duration::from_millis(takes), from, target, reachable));
    }

    fn dialled(&mut self, from: PeerId, target: Target, to: Option<PeerId>) {
        let alive = |p: PeerId| self.machines[&p.host].processes.contains_key(&p.node);
        let to = to.filter(|to| alive(*to));
        if let Some(to) = to
            && !(self.links.contains_key(&(from, to)) && self.links.contains_key(&(to, from)))
        {
            // A new link replaces what one end still takes for one.
            self.end_link(from, to);
            self.end_link(to, from);
            self.links.insert((from, to), VecDeque::new());
            self.links.insert((to, from), VecDeque::new());
        }
        let directory = self.machines[&from.host].directory.as_ref().map(|(node, _)| *node);
        if directory == Some(from.node) {
            self.directory(from.host, |core, out| core.on_dialled(target, to, out));
        }
    }

    fn deliver(&mut self, from: PeerId, to: PeerId, parcel: Parcel) {
        let now = self.now;
        let machine = &self.machines[&to.host];
        let Some(process) = machine.processes.get(&to.node) else { return };
        let embeds = machine.directory.as_ref().is_some_and(|(node, _)| *node == to.node);
        match parcel {
            Parcel::Datagram(packet) if embeds => {
                self.directory(to.host, |core, out| core.on_datagram(from, &packet, now, out));
            }
            Parcel::Post(bytes) if embeds => {
                let message: ToPeer = message::decode(&bytes).unwrap();
                self.directory(to.host, |core, out| core.on_peer(from, message, now, out));
            }
            Parcel::Post(_) => {
                if let Some(addr) = process.agent.directory().cloned() {
                    let reply = message::encode(&ToPeer::Elsewhere(addr)).unwrap();
                    self.send(to, from, Parcel::Post(reply));
                }
            }
            Parcel::Datagram(_) => {}
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            let ends: Vec<_> = self.links.keys().copied().collect();
            for (from, to) in ends {
                let cut = self.machines[&from.host].cut || self.machines[&to.host].cut;
                while let Some(link) = self.links.get_mut(&(from, to))
                    && let Some((at, parcel)) = link.front()
                {
                    if *at > now || (cut && matches!(parcel, Parcel::Post(_))) {
                        break;
                    }
                    let (_, parcel) = link.pop_front().unwrap();
                    if !cut && self.links.contains_key(&(to, from)) {
                        self.deliver(from, to, parcel);
                    }
                }
            }
            let moves = std::mem::take(&mut self.moves);
            let (due, later): (Vec<_>, Vec<_>) = moves.into_iter().partition(|m| m.0 <= now);
            self.moves = later;
            due.into_iter().for_each(|(_, next)| self.act(next));
            let dials = std::mem::take(&mut self.dials);
            let (due, later): (Vec<_>, Vec<_>) = dials.into_iter().partition(|d| d.0 <= now);
            self.dials = later;
            for (_, from, target, to) in due {
                self.dialled(from, target, to);
            }
            for host in self.machines.keys().copied().collect::<Vec<_>>() {
                let Some((node, core)) = &mut self.machines.get_mut(&host).unwrap().directory
                else {
                    continue;
                };
                let from = PeerId { host, node: *node };
                let due = core.next_deadline().is_some_and(|at| at <= now);
                for attempt in core.dials(now) {
                    self.dial(from, attempt.target, &attempt.addrs);
                }
                if due {
                    self.directory(host, |core, out| core.on_time(now, out));
                }
            }
        }
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

/// Through the codec, as on a link.
fn recode<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> T {
    message::decode(&message::encode(message).unwrap()).unwrap()
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
