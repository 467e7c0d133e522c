//! A network in memory: nodes without a socket, a file or a thread, and faults between them at will.
//!
//! An endpoint that is [started in](crate::Endpoint::start_in) a [`Network`] dials and accepts as any
//! other, with the same hello and the same link code; only the bytes flow through pipes within the
//! process, and its tasks run on the runtime that it was started on. Everything there goes by tokio's
//! clock ([`crate::clock`]): with `tokio::time::pause` a deadline of thirty seconds passes in a
//! moment. For that, all endpoints of a network should live on one runtime.
//!
//! It is for tests, ours and those of users. What it does not imitate: bandwidth, lost or doubled
//! datagrams, certificates on the wire, and a process on another host that dies unnoticed.
//!
//! `pipe` is one direction of a connection, `faults` what is wrong between which places; here is who
//! takes part, and what a host offers its nodes instead of files: names for sockets, locks, and a
//! list of who announces itself.
//!
//! # What always holds
//! - A fault holds for the connections that are there and for those to come, in both directions.
//! - Bytes arrive in order or not at all; what was cut never flows again.
//! - While the network's state is locked nothing is called but pipes, which wake tasks and call nothing.
//!
//! Checked by `wire/tests/memory.rs` and beside the code.

mod faults;
mod pipe;

use std::{
    collections::HashMap,
    fmt,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::faults::Place;
pub(crate) use self::pipe::{ReadHalf, WriteHalf};
use self::{
    faults::{Fault, Faults},
    pipe::Pipe,
};
use crate::{
    clock,
    endpoint::{DIAL_TIME, DialError, StartError},
    id::{HostId, NodeAddr, NodeId, PeerId},
    trust::{Authority, Mesh, TrustError},
};

/// The port in the addresses of listening nodes. Any would do.
const PORT: u16 = 54_195;

/// Nodes that reach each other in memory, and what stands between them. A clone is another handle.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    announced: watch::Sender<Vec<NodeAddr>>,
    /// The two clocks when it was made.
    started: (Instant, SystemTime),
}

#[derive(Default)]
struct State {
    authority: Option<Authority>,
    hosts: HashMap<HostId, Mesh>,
    nodes: HashMap<NodeId, Joined>,
    faults: Faults,
    wires: Vec<Wire>,
    names: HashMap<(HostId, PathBuf), Served>,
    locks: HashMap<(HostId, PathBuf), (NodeId, u64)>,
    rising: HashMap<HostId, u64>,
    /// Tells uses of the same thing apart.
    next: u64,
}

struct Joined {
    peer: PeerId,
    member: Weak<dyn Member>,
    ticket: u64,
}

/// A connection: who dialled, who was dialled, and the pipes in that order.
struct Wire {
    ends: [PeerId; 2],
    pipes: [Weak<Pipe>; 2],
}

struct Served {
    node: NodeId,
    /// Its process was killed: the name stays, as a socket in a folder would.
    left: bool,
}

/// What an endpoint is to its network.
pub(crate) trait Member: Send + Sync {
    /// Answers a connection that another member made; never waits.
    fn accept(
        self: Arc<Self>,
        from: PeerId,
        reader: ReadHalf,
        writer: WriteHalf,
    ) -> Result<(), DialError>;
    /// Ends everything at once, without a goodbye.
    fn die(&self);
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Network {
    /// A network without anybody in it, and a mesh of its own.
    #[must_use]
    pub fn new() -> Self {
        let started = (clock::now(), SystemTime::now());
        let announced = watch::channel(Vec::new()).0;
        Self(Arc::new(Inner { state: Mutex::default(), announced, started }))
    }

    /// The nodes that are in it, in no order.
    #[must_use]
    pub fn nodes(&self) -> Vec<PeerId> {
        let state = self.0.state.lock();
        state.nodes.values().map(|joined| joined.peer).collect()
    }

    /// Pulls the cable between two places, and both sides notice: the links between them end as soon as
    /// their tasks run again, what was under way is lost, dials fail as [`DialError::Unreachable`] until [`heal`](Self::heal).
    pub fn cut(&self, a: impl Into<Place>, b: impl Into<Place>) {
        self.change(a.into(), b.into(), |fault| fault.cut = true);
    }

    /// Stops the flow between two places, and nobody notices: links stay up and nothing arrives, in
    /// either direction, until [`heal`](Self::heal); then what was sent meanwhile goes on. New dials
    /// get no answer until their time is over. What is sent waits as far as there is room
    /// (`docs/limits.md`), and its senders wait beyond that.
    pub fn stall(&self, a: impl Into<Place>, b: impl Into<Place>) {
        self.change(a.into(), b.into(), |fault| fault.stalled = true);
    }

    /// From now on bytes between two places take that long, in each direction and in order; so the
    /// answer to an ask takes twice that. Set anew, it replaces the delay before; zero takes it away.
    /// A shorter delay holds at once for what is under way, too. Of several delays on one way the
    /// longest counts.
    pub fn delay(&self, a: impl Into<Place>, b: impl Into<Place>, delay: Duration) {
        self.change(a.into(), b.into(), |fault| fault.delay = delay);
    }

    /// Takes away everything that was set between exactly these two places. Links that a cut has ended
    /// do not come back; the next dial makes new ones.
    pub fn heal(&self, a: impl Into<Place>, b: impl Into<Place>) {
        let mut state = self.0.state.lock();
        state.faults.heal(a.into(), b.into());
        state.apply();
    }

    /// Kills a node, or every node of a host, as `kill -9` would: its links end for the others without
    /// a goodbye, dials to it say [`DialError::Gone`], and its own endpoint is closed, together with
    /// the tasks that were spawned there ([`spawn_io`](crate::Endpoint::spawn_io)), its directory
    /// among them. Tasks that somebody else has spawned go on, cut off from the network.
    pub fn kill(&self, place: impl Into<Place>) {
        let place = place.into();
        let mut pipes = Vec::new();
        let members: Vec<_> = {
            let mut state = self.0.state.lock();
            let state = &mut *state;
            let victims = state.nodes.extract_if(|_, joined| place.holds(joined.peer));
            let victims: Vec<_> = victims.map(|(_, joined)| joined).collect();
            let is_victim = |node| victims.iter().any(|joined| joined.peer.node == node);
            for wire in &state.wires {
                let dead = wire.ends.map(|end| is_victim(end.node));
                let held = wire.pipes.each_ref().map(Weak::upgrade);
                pipes.push((dead, held));
            }
            for served in state.names.values_mut() {
                served.left |= is_victim(served.node);
            }
            state.locks.retain(|_, (node, _)| !is_victim(*node));
            victims.iter().filter_map(|joined| joined.member.upgrade()).collect()
        };
        for ([from_dead, to_dead], [there, back]) in pipes {
            for (pipe, writer_dead, reader_dead) in
                [(there, from_dead, to_dead), (back, to_dead, from_dead)]
            {
                let Some(pipe) = pipe else { continue };
                if writer_dead {
                    pipe.writer_died();
                }
                if reader_dead {
                    pipe.reader_died();
                }
            }
        }
        for member in members {
            member.die();
        }
    }

    /// The wall clock of the network: it starts with the system's and then follows tokio's clock, also
    /// where that is paused.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        let (instant, wall) = self.0.started;
        wall + clock::now().saturating_duration_since(instant)
    }

    /// A number of a host that only rises: at least `least`, and above every one before. For the
    /// directory of that host.
    #[must_use]
    pub fn rise(&self, host: HostId, least: u64) -> u64 {
        let mut state = self.0.state.lock();
        let last = state.rising.entry(host).or_default();
        *last = least.max(last.saturating_add(1));
        *last
    }

    /// Announces a node to the whole network, as mDNS would, until the guard is dropped. For host
    /// directories. Faults do not hide it: who cannot reach it finds out by dialling.
    #[must_use]
    pub fn announce(&self, addr: NodeAddr) -> Announcement {
        let peer = addr.peer;
        self.0.announced.send_modify(|all| {
            all.retain(|other| other.peer != peer);
            all.push(addr);
        });
        Announcement { network: self.clone(), peer }
    }

    /// All nodes that announce themselves, now and later.
    #[must_use]
    pub fn announced(&self) -> watch::Receiver<Vec<NodeAddr>> {
        self.0.announced.subscribe()
    }

    fn change(&self, a: Place, b: Place, change: impl FnOnce(&mut Fault)) {
        let mut state = self.0.state.lock();
        state.faults.change(a, b, change);
        state.apply();
    }

    /// What a node of that host is a member of.
    pub(crate) fn mesh(&self, host: HostId) -> Result<Mesh, TrustError> {
        let mut state = self.0.state.lock();
        if let Some(mesh) = state.hosts.get(&host) {
            return Ok(mesh.clone());
        }
        let authority = match &mut state.authority {
            Some(authority) => authority,
            none => none.insert(Authority::new()?),
        };
        let mesh = authority.admit(host)?;
        state.hosts.insert(host, mesh.clone());
        Ok(mesh)
    }

    /// Enters a node. The ticket is for [`Self::leave`].
    pub(crate) fn join(&self, peer: PeerId, member: Weak<dyn Member>) -> Result<u64, StartError> {
        let mut state = self.0.state.lock();
        if state.nodes.contains_key(&peer.node) {
            return Err(StartError::Taken(peer.node));
        }
        let ticket = state.ticket();
        state.nodes.insert(peer.node, Joined { peer, member, ticket });
        Ok(ticket)
    }

    pub(crate) fn leave(&self, node: NodeId, ticket: u64) {
        let mut state = self.0.state.lock();
        if state.nodes.get(&node).is_some_and(|joined| joined.ticket == ticket) {
            state.nodes.remove(&node);
        }
    }

    /// Connects a node with another one.
    pub(crate) async fn connect(
        &self,
        from: PeerId,
        to: PeerId,
    ) -> Result<(ReadHalf, WriteHalf), DialError> {
        let stalled = match self.try_connect(from, to)? {
            Some((member, near, (reader, writer))) => {
                member.accept(from, reader, writer)?;
                return Ok(near);
            }
            None => tokio::time::sleep(DIAL_TIME),
        };
        // Nobody is there, but who should say so?
        stalled.await;
        Err(DialError::Unreachable(format!("no answer from {to}")))
    }

    #[expect(clippy::type_complexity, reason = "the halves of both ends, used once")]
    fn try_connect(
        &self,
        from: PeerId,
        to: PeerId,
    ) -> Result<Option<(Arc<dyn Member>, (ReadHalf, WriteHalf), (ReadHalf, WriteHalf))>, DialError>
    {
        let mut state = self.0.state.lock();
        let joined = state.nodes.get(&to.node);
        let to = joined.map_or(to, |joined| joined.peer);
        let fault = state.faults.between(from, to);
        if fault.cut {
            return Err(DialError::Unreachable(format!("the network to {to} is cut")));
        }
        let Some(member) = joined.and_then(|joined| joined.member.upgrade()) else {
            return if fault.stalled { Ok(None) } else { Err(DialError::Gone(to.node)) };
        };
        let (there, near_writer, far_reader) = pipe::pipe(fault);
        let (back, far_writer, near_reader) = pipe::pipe(fault);
        state.wires.retain(|wire| wire.pipes.iter().any(|pipe| pipe.strong_count() > 0));
        let pipes = [Arc::downgrade(&there), Arc::downgrade(&back)];
        state.wires.push(Wire { ends: [from, to], pipes });
        Ok(Some((member, (near_reader, near_writer), (far_reader, far_writer))))
    }

    /// Who listens at an address of this network.
    pub(crate) fn at(&self, addr: SocketAddr) -> Option<PeerId> {
        let state = self.0.state.lock();
        let joined = node_at(addr).and_then(|node| state.nodes.get(&node));
        joined.map(|joined| joined.peer)
    }

    /// Gives a node a further, well-known name on its host, in place of whoever had it.
    pub(crate) fn serve(&self, peer: PeerId, name: &Path) -> NameGuard {
        let key = (peer.host, name.to_owned());
        let served = Served { node: peer.node, left: false };
        self.0.state.lock().names.insert(key.clone(), served);
        NameGuard { network: self.clone(), key, node: peer.node }
    }

    /// Who has a well-known name of a host, or had it when it was killed.
    pub(crate) fn served(&self, host: HostId, name: &Path) -> Option<NodeId> {
        let state = self.0.state.lock();
        state.names.get(&(host, name.to_owned())).map(|served| served.node)
    }

    /// Takes a lock of a host for one of its nodes, if it is free and the node is alive.
    pub(crate) fn lock(&self, peer: PeerId, name: &Path) -> Option<KeyGuard> {
        let mut state = self.0.state.lock();
        let key = (peer.host, name.to_owned());
        if state.locks.contains_key(&key) || !state.nodes.contains_key(&peer.node) {
            return None;
        }
        let ticket = state.ticket();
        state.locks.insert(key.clone(), (peer.node, ticket));
        Some(KeyGuard { network: self.clone(), key, ticket })
    }
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Brings the weather to all connections.
    fn apply(&mut self) {
        for wire in &self.wires {
            let fault = self.faults.between(wire.ends[0], wire.ends[1]);
            for pipe in wire.pipes.iter().filter_map(Weak::upgrade) {
                pipe.set(fault);
            }
        }
    }
}

/// Where a listening node may be reached: an address for documentation, with the node's id in it.
pub(crate) fn addr_of(node: NodeId) -> SocketAddr {
    let bits = u128::from(node.to_bits());
    (Ipv6Addr::from_bits((0x2001_0db8 << 96) | bits), PORT).into()
}

fn node_at(addr: SocketAddr) -> Option<NodeId> {
    let SocketAddr::V6(v6) = addr else { return None };
    // Its lower half.
    let node = NodeId::from_bits(v6.ip().to_bits() as u64);
    (addr_of(node) == addr).then_some(node)
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({} nodes)", self.0.state.lock().nodes.len())
    }
}

/// Ends an announcement when dropped.
#[derive(Debug)]
pub struct Announcement {
    network: Network,
    peer: PeerId,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let peer = self.peer;
        self.network.0.announced.send_modify(|all| all.retain(|addr| addr.peer != peer));
    }
}

/// Takes a well-known name away when dropped, unless somebody else has it now or its node was killed.
#[derive(Debug)]
pub(crate) struct NameGuard {
    network: Network,
    key: (HostId, PathBuf),
    node: NodeId,
}

impl Drop for NameGuard {
    fn drop(&mut self) {
        let names = &mut self.network.0.state.lock().names;
        if names.get(&self.key).is_some_and(|served| served.node == self.node && !served.left) {
            names.remove(&self.key);
        }
    }
}

/// Frees a lock when dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard {
    network: Network,
    key: (HostId, PathBuf),
    ticket: u64,
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let locks = &mut self.network.0.state.lock().locks;
        if locks.get(&self.key).is_some_and(|(_, ticket)| *ticket == self.ticket) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_back_to_its_node() {
        let node = NodeId::random();
        assert_eq!(node_at(addr_of(node)), Some(node));
        assert_eq!(node_at("[2001:db8::1]:1".parse().unwrap()), None);
        assert_eq!(node_at("127.0.0.1:54195".parse().unwrap()), None);
    }

    #[test]
    fn numbers_of_a_host_only_rise() {
        let (network, host) = (Network::new(), HostId::random());
        assert_eq!([10, 3, 20].map(|least| network.rise(host, least)), [10, 11, 20]);
        assert_eq!(network.rise(HostId::random(), 5), 5);
    }
}
