//! The host directory: what the nodes of a host publish and ask for, and what other hosts offer.
//!
//! It decides and does nothing: inputs are methods, [`Effect`]s are carried out in order by the
//! shell. Time comes in as the span since the process started (`now`) and as the wall clock in
//! milliseconds (`wall_ms`, only for grants). It is embedded in one node of the host at a time;
//! that node registers like any other.
//!
//! # What always holds
//! - Each host is the only writer of its records: what a link brings is taken for the host that the
//!   link proves, and for no other.
//! - A remote host's records stay while its link is merely re-established or its directory moves to
//!   another process. They go when membership declares the host down and it does not answer us either,
//!   when nothing connects the two for [`LINKLESS`], or when a complete snapshot lacks them.
//! - A directory that has just taken over only adds until it has [settled](SETTLE): what it does not
//!   know yet is not gone.
//! - A directory that leaves grants nothing more and meets nobody: its nodes would not hear of it.
//!
//! Stories in `host/tests.rs`; several of these with membership under loss, partition, crash and
//! take-over in `sim.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use layercake_wire::id::{HostId, NodeAddr, NodeId, PeerId};

use crate::{
    dial::{Attempt, Dialer, Missing, Target},
    etcd::core::{Ask, EtcdCore},
    index::Patterns,
    membership::{self, Identity, Membership, Patience},
    message::{self, HostView, ToNode, ToPeer},
    name::Scope,
    record::{DropReason, Instance, Record},
};

use self::{claims::Claims, grants::Grants, locals::Local, peers::Remote, ping::Pings, view::View};

#[cfg(test)]
mod audit;
mod claims;
mod grants;
mod locals;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "nobody meets there"))]
mod meeting;
pub(crate) mod pace;
mod peers;
mod ping;
#[cfg(test)]
mod tests;
mod view;

#[cfg(test)]
pub(crate) use self::{audit::Audit, tests::filled};

/// How long a directory that takes over waits for the surviving nodes to register before it says
/// what is gone. What is there it says at once.
pub(crate) const SETTLE: Duration = Duration::from_millis(400);
/// How long a host without a link keeps its records, where the usual patience is had with it.
pub(crate) const LINKLESS: Duration = Duration::from_secs(2);
/// How long after its start a directory tells its nodes which hosts there are: whatever they
/// remember of others has gone.
pub(crate) const KNOWN_AFTER: Duration = Duration::from_secs(3);
/// How long a linked host may fail to become a member before the link is given up; likewise.
const MEETING: Duration = Duration::from_secs(3);
/// How often introductions are repeated while they are needed.
const ROUND: Duration = Duration::from_millis(200);
/// How often hosts compare what they have with what they should have.
pub(crate) const DIGEST_PERIOD: Duration = Duration::from_secs(10);

/// What the shell should do.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Post to a node of this host.
    ToNode { node: NodeId, message: ToNode },
    /// Post to the directory of another host.
    ToPeer { peer: PeerId, message: ToPeer },
    /// Post the same to the directories of several other hosts.
    ToPeers { peers: Vec<PeerId>, message: ToPeer },
    /// Send a datagram to the directory of another host.
    Datagram { peer: PeerId, packet: Bytes },
    /// Somebody on this host needs the mesh: listen, announce, browse, and call
    /// [`HostCore::start_lan`].
    StartLan,
    /// Give up a link to another host's directory.
    ClosePeer(PeerId),
    /// Ask etcd, and give what it says to [`HostCore::on_etcd`].
    Etcd(Ask),
    /// Give up the link to a node of this host that says more than can be dealt with.
    CloseNode(NodeId),
}

/// What the directory is made of.
pub(crate) struct HostConfig {
    pub(crate) addr: NodeAddr,
    pub(crate) host_name: String,
    /// Higher than that of any directory of this host before.
    pub(crate) incarnation: u64,
    /// The node that embedded the directory before and has died.
    pub(crate) departed: Option<NodeId>,
    /// Decides the order of probes and the jitter of dials.
    pub(crate) seed: u64,
}

/// See the module.
pub(crate) struct HostCore {
    me: PeerId,
    config: HostConfig,
    nodes: BTreeMap<NodeId, Local>,
    remotes: BTreeMap<HostId, Remote>,
    claims: Claims,
    grants: Grants,
    /// What the nodes ask for.
    patterns: Patterns<(NodeId, u64)>,
    /// The latest time that was heard of.
    now: Duration,
    /// Whether a node says that there was a directory before this one.
    successor: bool,
    /// The number of the last delta.
    sequence: u64,
    settles: Option<Duration>,
    known: Option<Duration>,
    lan_wanted: bool,
    membership: Option<Membership>,
    patience: Patience,
    /// In place of membership and of links to other directories.
    etcd: Option<EtcdCore>,
    dialer: Dialer,
    next_round: Duration,
    next_digest: Duration,
    /// How often its incarnation was raised above one that others remember.
    raised: u32,
    /// Whether it has told its nodes that it leaves: they do not hear it any more.
    leaves: bool,
    /// Peers that have not yet said that they heard this directory leave.
    leaving: BTreeSet<PeerId>,
    view: View,
    pings: Pings,
    /// A bug for the simulation to find: incarnations are not looked at.
    #[cfg(test)]
    planted: bool,
}

/// Records that came and went, on their way to everybody concerned.
#[derive(Default)]
struct Change {
    put: Vec<Arc<Record>>,
    dropped: Vec<(Arc<Record>, DropReason)>,
}

impl HostCore {
    pub(crate) fn new(config: HostConfig, now: Duration) -> Self {
        let me = config.addr.peer;
        Self {
            me,
            dialer: Dialer::new(me.host, config.seed),
            config,
            nodes: BTreeMap::new(),
            remotes: BTreeMap::new(),
            claims: Claims::default(),
            grants: Grants::default(),
            patterns: Patterns::default(),
            now,
            successor: false,
            sequence: 0,
            settles: Some(now + SETTLE),
            known: Some(now + KNOWN_AFTER),
            lan_wanted: false,
            membership: None,
            patience: Patience::default(),
            etcd: None,
            next_round: now,
            next_digest: now + DIGEST_PERIOD,
            raised: 0,
            leaves: false,
            leaving: BTreeSet::new(),
            view: View::new(me.host, now),
            pings: Pings::default(),
            #[cfg(test)]
            planted: false,
        }
    }

    /// How patient it is with other hosts; to be said before [`Self::start_lan`].
    pub(crate) const fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Begins to look for other hosts; `addr` is where they reach this one.
    pub(crate) fn start_lan(&mut self, addr: NodeAddr, now: Duration) {
        self.config.addr = addr;
        if let Some(etcd) = &mut self.etcd {
            etcd.start(self.config.addr.clone());
        } else if self.membership.is_none() {
            let me = Identity::new(&self.config.addr, self.config.incarnation, 0);
            self.membership = Some(Membership::new(me, self.config.seed, self.patience, now));
        }
    }

    /// Makes sure that the mesh is looked for, also when no node needs it.
    pub(crate) fn want_lan(&mut self, out: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.lan_wanted, true) {
            out.push(Effect::StartLan);
        }
    }

    /// This host is reached at other addresses now: those who come are told the new ones.
    pub(crate) fn set_addr(&mut self, addr: NodeAddr) {
        if let Some(etcd) = &mut self.etcd {
            etcd.set_addr(addr.clone());
        }
        self.config.addr = addr;
    }

    /// Tells the nodes of this host where this directory is reached now: other hosts may come to them
    /// instead, as where one of them has the usual port.
    pub(crate) fn tell_addr(&self, out: &mut Vec<Effect>) {
        for node in self.nodes.keys() {
            let message = ToNode::Welcome { addr: self.config.addr.clone() };
            out.push(Effect::ToNode { node: *node, message });
        }
    }

    /// Somebody says that a host may be reached there.
    pub(crate) fn on_hint(&mut self, target: Target, addrs: &[SocketAddr], now: Duration) {
        self.dialer.hint(target, addrs, now);
    }

    /// Anybody on the network says that a host may be reached there.
    pub(crate) fn on_heard(&mut self, host: HostId, addrs: &[SocketAddr], now: Duration) {
        self.dialer.heard(host, addrs, now);
    }

    /// Other interfaces or addresses of this host are up: whoever could not be reached is tried again.
    pub(crate) fn on_network_change(&mut self, now: Duration) {
        self.dialer.wake(now);
    }

    /// The dials to be made now. None before [`Self::start_lan`].
    pub(crate) fn dials(&mut self, now: Duration) -> Vec<Attempt> {
        if self.membership.is_some() { self.dialer.due(now) } else { Vec::new() }
    }

    /// Who it is that a failed dial misses.
    pub(crate) fn misses(&self, target: Target) -> Option<Missing> {
        self.dialer.misses(target)
    }

    /// A dial has ended at this very host.
    pub(crate) fn on_dialled_self(&mut self, target: Target) {
        self.dialer.done(target, Some(self.me.host));
    }

    /// A dial has ended, maybe with a link to a node.
    pub(crate) fn on_dialled(
        &mut self,
        target: Target,
        peer: Option<PeerId>,
        out: &mut Vec<Effect>,
    ) {
        self.dialer.done(target, peer.map(|peer| peer.host));
        if let Some(peer) = peer {
            self.greet(peer, out);
        }
    }

    /// Known hosts and their addresses, the most recent first.
    pub(crate) fn known_hosts(&self) -> Vec<(HostId, Vec<SocketAddr>)> {
        self.dialer.known()
    }

    /// A datagram came over the link to a peer.
    pub(crate) fn on_datagram(
        &mut self,
        from: PeerId,
        datagram: &[u8],
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        self.heard(from, now);
        self.in_membership(now, out, |m, out| m.on_packet(from.host, datagram, now, out));
    }

    /// When [`Self::on_time`] is to be called next. Dials have [`Self::next_dial`].
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let membership = self.membership.as_ref();
        // One walk: with a thousand hosts it is what most inputs cost most.
        let (mut linked, mut unsettled) = (false, false);
        let mut due: Option<Duration> = None;
        for remote in self.remotes.values() {
            linked |= remote.link.is_some();
            unsettled |= remote.is_unsettled();
            due = [due, remote.challenged, remote.settles].into_iter().flatten().min();
        }
        [
            membership.and_then(Membership::next_deadline),
            self.settles,
            self.known,
            due,
            linked.then_some(self.next_digest),
            (unsettled && membership.is_some()).then_some(self.next_round),
            self.view.deadline(),
            self.etcd.as_ref().and_then(EtcdCore::next_deadline),
            self.nodes.values().filter_map(Local::ready).min(),
            self.next_dispute(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When [`Self::dials`] is to be called next.
    pub(crate) fn next_dial(&self) -> Option<Duration> {
        self.membership.as_ref().and_then(|_| self.dialer.next_deadline())
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.now = now;
        self.in_membership(now, out, |m, out| m.on_time(now, out));
        self.bury(now, out);
        self.work_off(out);
        self.end_disputes(out);
        self.view_on_time(now, out);
        self.settle_remotes(now, out);
        if self.settles.is_some_and(|at| at <= now) {
            self.settles = None;
            if let Some(etcd) = &mut self.etcd {
                etcd.settle(&self.nodes.keys().copied().collect());
            }
            self.grant_held_back(out);
            for node in self.registered() {
                self.view(node, self.me.host, out);
            }
            for peer in self.linked() {
                self.snapshot(peer, out);
            }
        }
        self.in_etcd(now, out, |etcd, out| etcd.on_time(now, out));
        if self.lan_wanted && self.etcd.as_ref().is_some_and(|etcd| !etcd.is_known()) {
            // Not known yet: what the nodes remember of other hosts stays.
            self.known = self.known.map(|at| at.max(now + ROUND));
        }
        if self.known.is_some_and(|at| at <= now) {
            self.known = None;
            for node in self.registered() {
                out.push(Effect::ToNode { node, message: self.known_message() });
            }
        }
        // Where hosts meet in etcd there are no links to miss.
        if self.membership.is_some() && self.next_round <= now {
            self.next_round = now + ROUND;
            self.round(now, out);
        }
        if self.next_digest <= now {
            self.next_digest = now + DIGEST_PERIOD;
            let peers = self.linked();
            if !peers.is_empty() {
                let (count, sum) = self.digest();
                let (incarnation, sequence) = (self.config.incarnation, self.sequence);
                let message = ToPeer::Digest { incarnation, sequence, count, sum };
                out.push(Effect::ToPeers { peers, message });
            }
        }
    }

    /// The node that embeds this directory stops. Where other nodes of the host live on, one of them
    /// takes over and nobody should forget what they published; otherwise the host leaves.
    pub(crate) fn leave(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.on_node_down(self.me.node, false, out);
        self.tell_all(&ToNode::Leaving, out);
        self.leaves = true;
        let last = self.nodes.is_empty();
        for peer in self.linked() {
            if last {
                out.push(Effect::ToPeer { peer, message: ToPeer::Bye });
            }
            out.push(Effect::ToPeer { peer, message: ToPeer::Flush });
            self.leaving.insert(peer);
        }
        if last {
            self.in_membership(now, out, |m, out| m.leave(now, out));
        }
        if let Some(etcd) = &mut self.etcd {
            etcd.leave(last);
        }
        self.flush(now, out);
    }

    /// Another node of this host has become the directory: all nodes are to turn to that one. To other
    /// hosts the new one speaks for itself.
    pub(crate) fn step_down(&mut self, out: &mut Vec<Effect>) {
        let me = self.me.node;
        for node in self.registered().into_iter().filter(|node| *node != me) {
            out.push(Effect::ToNode { node, message: ToNode::Leaving });
        }
    }

    /// Whether everybody who is there has heard it leave.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving.is_empty() && self.etcd.as_ref().is_none_or(EtcdCore::has_left)
    }

    /// This host and all others that are known.
    pub(crate) fn hosts(&self) -> Vec<HostView> {
        let ours = HostView {
            host: self.me.host,
            host_name: self.config.host_name.clone(),
            directory: Some(self.config.addr.clone()),
            linked: true,
            alive: true,
            nodes: self.nodes.len(),
            records: self.lan_records().filter(|r| r.is_offer()).count(),
        };
        let others = self.remotes.iter().map(|(host, remote)| remote.view(*host));
        std::iter::once(ours).chain(others).collect()
    }

    /// Carries a change to the nodes that asked for it and, as far as it is about records of this
    /// host for the mesh, to the other hosts.
    fn spread(&mut self, mut change: Change, out: &mut Vec<Effect>) {
        self.settle_claims(&mut change, out);
        self.note_disputes(&change);
        self.serve_waiting(&mut change, out);
        for (record, reason) in &change.dropped {
            self.view.journal.dropped(record, *reason);
        }
        self.tell_events(out);
        let ours = self.me.host;
        let is_ours = |r: &Record| r.instance.host == ours && r.scope == Scope::Lan;
        let put: Vec<_> = change.put.iter().filter(|r| is_ours(r)).cloned().collect();
        let dropped: Vec<_> = change
            .dropped
            .iter()
            .filter(|(r, _)| is_ours(r))
            .map(|(r, reason)| (r.instance, *reason))
            .collect();
        if !put.is_empty() || !dropped.is_empty() {
            self.delta(put, dropped, out);
        }
        let mut news: BTreeMap<NodeId, (Vec<_>, Vec<_>)> = BTreeMap::new();
        for (record, reason) in change.dropped {
            for (node, _) in self.patterns.candidates(&record.name, ..) {
                let local = self.nodes.get_mut(&node);
                if local.is_some_and(|local| local.sent.remove(&record.instance)) {
                    news.entry(node).or_default().1.push((record.instance, reason));
                }
            }
        }
        for record in change.put {
            for node in self.wanted_by(&record) {
                if let Some(local) = self.nodes.get_mut(&node) {
                    local.sent.insert(record.instance);
                    news.entry(node).or_default().0.push(record.clone());
                }
            }
        }
        for (node, (put, dropped)) in news {
            if self.nodes.get(&node).is_some_and(|local| local.registered) {
                changed(node, put, dropped, out);
            }
        }
    }

    /// Tells the other hosts, in numbered parts.
    fn delta(
        &mut self,
        put: Vec<Arc<Record>>,
        mut dropped: Vec<(Instance, DropReason)>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(etcd) = &mut self.etcd {
            etcd.offer(&put, dropped.into_iter().map(|(instance, _)| instance));
            return;
        }
        let peers = self.linked();
        if peers.is_empty() {
            // Whoever comes is sent everything.
            self.sequence += 1;
            return;
        }
        for put in message::parts(put) {
            self.sequence += 1;
            let (incarnation, sequence) = (self.config.incarnation, self.sequence);
            let dropped = std::mem::take(&mut dropped);
            let message = ToPeer::Delta { incarnation, sequence, put, dropped };
            out.push(Effect::ToPeers { peers: peers.clone(), message });
        }
    }

    /// Stores a record where it belongs, in the place of what was there of the same instance.
    fn keep(&mut self, record: &Arc<Record>) {
        self.note(record);
        let Instance { host, node, serial } = record.instance;
        let old = if host == self.me.host {
            let Some(local) = self.nodes.get_mut(&node) else { return };
            local.records.insert(serial, record.clone())
        } else {
            let Some(remote) = self.remotes.get_mut(&host) else { return };
            remote.records.insert(record.instance, record.clone())
        };
        self.view.journal.put(old.as_deref(), record);
        if let Some(old) = old {
            self.claims.remove(&old);
        }
        self.claims.put(record.clone());
    }

    fn forget(&mut self, record: &Record) {
        self.claims.remove(record);
        let Instance { host, node, serial } = record.instance;
        if host == self.me.host {
            if let Some(local) = self.nodes.get_mut(&node) {
                local.records.remove(&serial);
            }
        } else if let Some(remote) = self.remotes.get_mut(&host) {
            remote.records.remove(&record.instance);
        }
    }

    fn registered(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, local)| local.registered).map(|(node, _)| *node).collect()
    }

    fn linked(&self) -> Vec<PeerId> {
        self.remotes.values().filter_map(|remote| remote.link).collect()
    }

    fn lan_records(&self) -> impl Iterator<Item = &Arc<Record>> {
        let all = self.nodes.values().flat_map(|local| local.records.values());
        all.filter(|r| r.scope == Scope::Lan)
    }

    fn digest(&self) -> (u64, u64) {
        digest(self.lan_records())
    }

    fn records_of(&self, host: HostId) -> Vec<Arc<Record>> {
        if host == self.me.host {
            self.nodes.values().flat_map(|local| local.records.values().cloned()).collect()
        } else {
            let remote = self.remotes.get(&host);
            remote.map(|r| r.records.values().cloned().collect()).unwrap_or_default()
        }
    }

    fn known_message(&self) -> ToNode {
        let alive = self.remotes.iter().filter(|(_, remote)| remote.is_known());
        ToNode::Known(alive.map(|(host, _)| *host).collect())
    }

    fn in_membership(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Membership, &mut Vec<membership::Effect>),
    ) {
        let Some(membership) = &mut self.membership else { return };
        let mut effects = Vec::new();
        act(membership, &mut effects);
        for effect in effects {
            self.on_membership(effect, now, out);
        }
    }
}

/// Tells a node in parts; nothing when there is nothing to tell.
fn changed(
    node: NodeId,
    put: Vec<Arc<Record>>,
    mut dropped: Vec<(Instance, DropReason)>,
    out: &mut Vec<Effect>,
) {
    if put.is_empty() && dropped.is_empty() {
        return;
    }
    for put in message::parts(put) {
        let message = ToNode::Changed { put, dropped: std::mem::take(&mut dropped) };
        out.push(Effect::ToNode { node, message });
    }
}

/// A count and a sum that are equal for equal sets of records, whatever their order.
fn digest<'a>(records: impl Iterator<Item = &'a Arc<Record>>) -> (u64, u64) {
    let mut count = 0_u64;
    let mut sum = 0_u64;
    for record in records {
        count += 1;
        sum ^= fingerprint(record);
    }
    (count, sum)
}

/// FNV-1a over what tells two states of a record apart.
fn fingerprint(record: &Record) -> u64 {
    let Instance { host, node, serial } = record.instance;
    let numbers = [host.to_bits(), node.to_bits(), serial, record.claimed, record.fence];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for number in numbers {
        eat(&number.to_le_bytes());
    }
    eat(record.name.as_str().as_bytes());
    for hint in record.address.node.hints.iter() {
        eat(hint.to_string().as_bytes());
    }
    hash
}
