//! The other hosts: introductions and replication of their records. What becomes of them is in `fate`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use layercake_wire::id::{HostId, NodeAddr, NodeId, PeerId};

use super::{Change, Effect, HostCore, KNOWN_AFTER, digest, grants::Acquaintance};
use crate::{
    dial::Target,
    membership::Identity,
    message::{self, HostView, ToNode, ToPeer},
    name::Scope,
    record::{DropReason, Instance, Record},
};

mod fate;

/// Records of one other host that are kept; what exceeds it is not seen here.
const MAX_HOST_RECORDS: usize = 262_144;
/// Heard so recently, a host is alive whatever others say. Shorter than any way to find out that one
/// is dead: a failed probe and a suspicion take longer.
const FRESH: Duration = Duration::from_millis(600);
/// How long a host that is said to be dead may take to answer: many round trips, also with loss.
const CHALLENGE: Duration = Duration::from_millis(200);
/// How often a directory rises above an incarnation that others remember: one that has to do it again
/// and again is not alone in speaking for its host.
const MAX_RAISES: u32 = 8;
/// The longest name of a host that is kept, in bytes.
const MAX_HOST_NAME: usize = 255;
/// How often others are asked where a member is to which there is no link, and how many of them.
const ASK_PERIOD: Duration = Duration::from_secs(1);
const ASKED: usize = 3;

/// Another host.
#[derive(Default)]
pub(super) struct Remote {
    host_name: String,
    pub(super) addr: Option<NodeAddr>,
    /// The node that embeds its directory, while there is a link and it has said hello.
    pub(super) link: Option<PeerId>,
    /// To whom we have said hello over the present link.
    greeted: Option<PeerId>,
    identity: Option<Identity>,
    incarnation: u64,
    sequence: u64,
    /// Whether a snapshot of the present incarnation has come, so that deltas make sense.
    primed: bool,
    pub(super) acquaintance: Acquaintance,
    /// Whether a complete snapshot has ever come to this directory.
    pub(super) synced: bool,
    /// Whether a snapshot is on its way because of a gap.
    pulled: bool,
    part: Vec<Arc<Record>>,
    pub(super) records: BTreeMap<Instance, Arc<Record>>,
    /// By when the present incarnation has to say what is complete, and what it has said so far.
    pub(super) settles: Option<Duration>,
    confirmed: BTreeSet<Instance>,
    /// The digest that what is kept here did not agree with.
    differs: Option<(u64, u64)>,
    /// Whether membership says it is there.
    member: bool,
    /// When the link or the membership changed last.
    pub(super) since: Duration,
    /// When its directory was heard last, over the present link.
    pub(super) heard: Duration,
    /// Until when it has to be heard, since somebody says that it is dead.
    pub(super) challenged: Option<Duration>,
    lost: bool,
    /// Since when it is there, as far as operators are concerned.
    pub(super) up: Option<Duration>,
    /// When it went, and why, after it was there.
    pub(super) gone: Option<(Duration, DropReason)>,
    /// When others were asked last where it is.
    asked: Option<Duration>,
}

impl Remote {
    pub(super) fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Where its directory is reached, or was.
    pub(super) fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.addr.as_ref().map(|addr| addr.hints.to_vec()).unwrap_or_default()
    }

    /// Whether somebody has to look after it until it is a member with a link, or lost.
    pub(super) const fn is_unsettled(&self) -> bool {
        !self.lost && (self.link.is_some() != self.member || (self.link.is_none() && !self.member))
    }

    /// Whether its records are kept, also while it is out of reach for a moment: nodes are told when
    /// they go.
    pub(super) const fn is_known(&self) -> bool {
        !self.lost
    }

    pub(super) fn view(&self, host: HostId) -> HostView {
        let nodes: BTreeSet<_> = self.records.keys().map(|instance| instance.node).collect();
        HostView {
            host,
            host_name: self.host_name.clone(),
            directory: self.addr.clone(),
            linked: self.link.is_some(),
            alive: self.member,
            nodes: nodes.len(),
            records: self.records.values().filter(|r| r.is_offer()).count(),
        }
    }
}

impl HostCore {
    /// Says hello to a node of another host, which may be its directory.
    pub(super) fn greet(&mut self, peer: PeerId, out: &mut Vec<Effect>) {
        if peer.host == self.me.host || self.membership.is_none() || !self.make_room(peer.host) {
            return;
        }
        let remote = self.remotes.entry(peer.host).or_insert_with(|| Remote {
            // Nothing to lose before it has said hello.
            lost: true,
            ..Remote::default()
        });
        if remote.link == Some(peer) {
            return;
        }
        remote.greeted = Some(peer);
        let hello = self.hello(peer);
        out.push(Effect::ToPeer { peer, message: hello });
    }

    /// The link to a node of another host is down.
    pub(crate) fn on_peer_down(&mut self, peer: PeerId, now: Duration) {
        self.leaving.remove(&peer);
        let Some(remote) = self.remotes.get_mut(&peer.host) else { return };
        if remote.greeted == Some(peer) {
            remote.greeted = None;
        }
        if remote.link == Some(peer) {
            remote.link = None;
            remote.part.clear();
            remote.since = now;
            self.dialer.unlinked(peer.host, false, now);
            self.view.host_gone(peer.host);
        }
    }

    /// A node of another host speaks for its host's directory.
    pub(crate) fn on_peer(
        &mut self,
        from: PeerId,
        message: ToPeer,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        if from.host == self.me.host {
            tracing::warn!(
                node = %from.node,
                "another directory claims to be this host: are two machines using one mesh folder?"
            );
            return;
        }
        self.now = now;
        self.heard(from, now);
        match message {
            ToPeer::Hello { incarnation, renewal, addr, host_name, met } => {
                self.on_hello(from, (incarnation, renewal), addr, (host_name, met), now, out);
                return;
            }
            ToPeer::Elsewhere(addr) => {
                if addr.peer.host == from.host {
                    self.dialer.hint(Target::Host(from.host), &addr.hints, now);
                }
                return;
            }
            ToPeer::Later(known) => {
                self.rise_above(known, now, out);
                return;
            }
            // Also from and to those who have just left.
            ToPeer::Flush => {
                out.push(Effect::ToPeer { peer: from, message: ToPeer::Flushed });
                return;
            }
            ToPeer::Flushed => {
                self.leaving.remove(&from);
                return;
            }
            _ => {}
        }
        let checked = self.looks_at_incarnations();
        let Some(remote) = self.remotes.get_mut(&from.host) else { return };
        if remote.link != Some(from) {
            tracing::debug!(%from, "a former directory still speaks");
            return;
        }
        match message {
            ToPeer::Snapshot { incarnation, sequence, complete, nodes, records, last } => {
                if checked && incarnation != remote.incarnation {
                    return;
                }
                remote.part.extend(records);
                remote.part.truncate(MAX_HOST_RECORDS);
                if last {
                    remote.sequence = sequence;
                    remote.primed = true;
                    remote.pulled = false;
                    let records = std::mem::take(&mut remote.part);
                    self.on_snapshot(from.host, complete.then_some(&nodes), records, out);
                }
            }
            ToPeer::Delta { incarnation, sequence, put, dropped } => {
                if (checked && incarnation != remote.incarnation) || !remote.primed {
                    return;
                }
                if sequence == remote.sequence + 1 {
                    remote.sequence = sequence;
                    self.on_delta(from.host, put, &dropped, out);
                } else if sequence > remote.sequence {
                    self.pull(from, out);
                }
            }
            ToPeer::Digest { incarnation, sequence, count, sum } => {
                if incarnation != remote.incarnation || sequence < remote.sequence {
                    return;
                }
                let same = digest(remote.records.values()) == (count, sum);
                let differs = (!same).then_some((count, sum));
                let before = std::mem::replace(&mut remote.differs, differs);
                // What is not kept here another snapshot would not bring either.
                let is_new = !same && before != differs;
                if !remote.primed || sequence > remote.sequence || is_new {
                    tracing::warn!(host = %from.host, "records differ; asking for all of them");
                    self.pull(from, out);
                }
            }
            ToPeer::Pull => self.snapshot(from, out),
            ToPeer::Where(host) => {
                let linked = self.remotes.get(&host).filter(|remote| remote.link.is_some());
                if let Some(addr) = linked.and_then(|remote| remote.addr.clone()) {
                    out.push(Effect::ToPeer { peer: from, message: ToPeer::There(addr) });
                }
            }
            ToPeer::There(addr) => {
                let target = Target::Host(addr.peer.host);
                if self.dialer.misses(target).is_some() {
                    self.dialer.hint(target, &addr.hints, now);
                }
            }
            ToPeer::ProcessGone(node) => self.on_process_gone(PeerId { node, ..from }, out),
            ToPeer::Fence(above) => self.on_fence(above, out),
            ToPeer::Bye => {
                remote.link = None;
                remote.member = false;
                self.lose(from.host, DropReason::Withdrawn, now, out);
            }
            ToPeer::Survey { .. }
            | ToPeer::Surveyed { .. }
            | ToPeer::Ping { .. }
            | ToPeer::Pong { .. } => self.on_peer_view(from, message, out),
            ToPeer::Hello { .. }
            | ToPeer::Elsewhere(_)
            | ToPeer::Later(_)
            | ToPeer::Flush
            | ToPeer::Flushed => {}
        }
    }

    /// Something came from a node of another host.
    pub(super) fn heard(&mut self, from: PeerId, now: Duration) {
        if let Some(remote) = self.remotes.get_mut(&from.host)
            && remote.link == Some(from)
        {
            remote.heard = now;
            remote.challenged = None;
        }
    }

    /// Sends all records of this host for the mesh.
    pub(super) fn snapshot(&self, peer: PeerId, out: &mut Vec<Effect>) {
        let parts = message::parts(self.lan_records().cloned());
        let count = parts.len();
        let nodes: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        for (at, records) in parts.into_iter().enumerate() {
            let message = ToPeer::Snapshot {
                incarnation: self.config.incarnation,
                sequence: self.sequence,
                complete: self.settles.is_none(),
                nodes: nodes.clone(),
                records,
                last: at + 1 == count,
            };
            out.push(Effect::ToPeer { peer, message });
        }
    }

    fn hello(&self, to: PeerId) -> ToPeer {
        ToPeer::Hello {
            incarnation: self.config.incarnation,
            renewal: self.membership.as_ref().map_or(0, |m| m.me().renewal),
            addr: self.config.addr.clone(),
            host_name: self.config.host_name.clone(),
            met: self.remotes.get(&to.host).is_some_and(|remote| remote.link == Some(to)),
        }
    }

    fn on_hello(
        &mut self,
        from: PeerId,
        (incarnation, renewal): (u64, u16),
        addr: NodeAddr,
        (mut host_name, met): (String, bool),
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        if let Some(etcd) = &mut self.etcd {
            etcd.tell_once("a host of this mesh gossips; all of them are to use the same engine");
        }
        // They meet the successor of one that leaves.
        if self.leaves
            || addr.peer != from
            || self.membership.is_none()
            || !self.make_room(from.host)
        {
            return;
        }
        let checked = self.looks_at_incarnations();
        let heard_of = self.membership.as_ref().and_then(|m| m.incarnation_of(from.host));
        let remote = self.remotes.entry(from.host).or_default();
        let known = remote.incarnation.max(heard_of.unwrap_or(0));
        // Two lives of a host without memory may have risen to the same one.
        let twice = remote
            .identity
            .as_ref()
            .is_some_and(|before| before.incarnation == incarnation && before.node != from.node);
        if checked && (incarnation < known || twice) {
            // One that has died does not hear it; one whose host has lost its memory and its clock must.
            tracing::debug!(%from, "a former directory says hello");
            let message = ToPeer::Later(known);
            out.push(Effect::ToPeer { peer: from, message });
            return;
        }
        if host_name.len() > MAX_HOST_NAME {
            host_name.clear();
        }
        if incarnation > remote.incarnation {
            remote.incarnation = incarnation;
            remote.primed = false;
            remote.settles.get_or_insert(now + KNOWN_AFTER);
            remote.confirmed.clear();
            // It has met nobody yet, whomever the directory before it had met.
            if remote.acquaintance == Acquaintance::Close {
                remote.acquaintance = Acquaintance::New;
            }
        }
        let again = remote.link == Some(from);
        if !again {
            tracing::info!(host = %from.host, host_name, "linked to a host directory");
            remote.link = Some(from);
            remote.since = now;
        }
        remote.heard = now;
        remote.challenged = None;
        remote.lost = false;
        remote.pulled = false;
        remote.differs = None;
        remote.part.clear();
        remote.host_name = host_name;
        remote.identity = Some(Identity::new(&addr, incarnation, renewal));
        self.dialer.linked(from.host, &addr.hints, now);
        remote.addr = Some(addr);
        let answered = remote.greeted.replace(from) == Some(from);
        let identity = remote.identity.clone();
        if !answered || (again && !met) {
            let hello = self.hello(from);
            out.push(Effect::ToPeer { peer: from, message: hello });
        }
        if let Some(departed) = self.config.departed {
            out.push(Effect::ToPeer { peer: from, message: ToPeer::ProcessGone(departed) });
        }
        self.tell_peer_fences(from.host, out);
        self.snapshot(from, out);
        self.appear(from.host, now, out);
        if let Some(them) = identity {
            self.in_membership(now, out, |m, out| m.meet(them, now, out));
        }
    }

    /// Others remember this host under a later incarnation: its memory is gone and its clock was set
    /// back. What a former directory of it said must not stand above what this one says.
    fn rise_above(&mut self, known: u64, now: Duration, out: &mut Vec<Effect>) {
        // One that leaves does not rise above its successor.
        if known < self.config.incarnation || self.leaves {
            return;
        }
        if self.raised >= MAX_RAISES {
            tracing::warn!(
                known,
                "another directory speaks for this host: two machines, one folder?"
            );
            return;
        }
        self.raised += 1;
        self.config.incarnation = known.saturating_add(1);
        tracing::info!(incarnation = self.config.incarnation, "others remember a later directory");
        let me = Identity::new(&self.config.addr, self.config.incarnation, 0);
        self.in_membership(now, out, |m, out| m.become_known_as(me, now, out));
        let linked = self.linked();
        let greeted: BTreeSet<_> = self.remotes.values().filter_map(|r| r.greeted).collect();
        for peer in greeted.into_iter().chain(linked.iter().copied()).collect::<BTreeSet<_>>() {
            let hello = self.hello(peer);
            out.push(Effect::ToPeer { peer, message: hello });
        }
        for peer in linked {
            self.snapshot(peer, out);
        }
    }

    /// `nodes` are those that the host has, where the snapshot is complete.
    pub(super) fn on_snapshot(
        &mut self,
        host: HostId,
        nodes: Option<&BTreeSet<NodeId>>,
        records: Vec<Arc<Record>>,
        out: &mut Vec<Effect>,
    ) {
        let Some(remote) = self.remotes.get_mut(&host) else { return };
        let mut change = Change::default();
        let mut first = false;
        if let Some(nodes) = nodes {
            first = !std::mem::replace(&mut remote.synced, true);
            remote.settles = None;
            remote.confirmed.clear();
            let listed: BTreeSet<_> = records.iter().map(|r| r.instance).collect();
            let missing = remote.records.values().filter(|r| !listed.contains(&r.instance));
            for record in missing.cloned().collect::<Vec<_>>() {
                let lives = nodes.contains(&record.instance.node);
                let reason = if lives { DropReason::Withdrawn } else { DropReason::ProcessDied };
                self.forget(&record);
                change.dropped.push((record, reason));
            }
        }
        self.accept(host, records, &mut change);
        self.spread(change, out);
        if first {
            self.view_all(host, out);
        }
    }

    pub(super) fn on_delta(
        &mut self,
        host: HostId,
        put: Vec<Arc<Record>>,
        dropped: &[(Instance, DropReason)],
        out: &mut Vec<Effect>,
    ) {
        let mut change = Change::default();
        for (instance, reason) in dropped {
            let known = self.remotes.get(&host).and_then(|r| r.records.get(instance));
            if let Some(record) = known.cloned() {
                self.forget(&record);
                change.dropped.push((record, *reason));
            }
            if let Some(remote) = self.remotes.get_mut(&host) {
                remote.confirmed.remove(instance);
            }
        }
        self.accept(host, put, &mut change);
        self.spread(change, out);
    }

    /// Stores what a host may say, and notes what of it is new.
    fn accept(&mut self, host: HostId, records: Vec<Arc<Record>>, change: &mut Change) {
        for record in records {
            let own = record.instance.host == host && record.is_sound(record.instance.peer());
            if !own || record.scope != Scope::Lan {
                tracing::warn!(%host, name = %record.name, "a host says what it may not say");
                continue;
            }
            let Some(remote) = self.remotes.get_mut(&host) else { break };
            let known = remote.records.get(&record.instance).cloned();
            let full = known.is_none() && remote.records.len() >= MAX_HOST_RECORDS;
            if remote.settles.is_some() && !full {
                remote.confirmed.insert(record.instance);
            }
            if full || known.as_ref().is_some_and(|known| *known == record) {
                continue;
            }
            if let Some(known) = known.filter(|known| !known.may_become(&record)) {
                self.forget(&known);
                change.dropped.push((known, DropReason::Withdrawn));
            }
            self.keep(&record);
            change.put.push(record);
        }
    }

    pub(super) fn on_process_gone(&mut self, peer: PeerId, out: &mut Vec<Effect>) {
        let Some(remote) = self.remotes.get(&peer.host) else { return };
        let gone: Vec<_> = remote
            .records
            .range(Instance::all_of(peer))
            .map(|(_, record)| record.clone())
            .collect();
        for record in &gone {
            self.forget(record);
        }
        let dropped = gone.into_iter().map(|r| (r, DropReason::ProcessDied)).collect();
        self.spread(Change { dropped, ..Change::default() }, out);
        self.tell_all(&ToNode::ProcessGone(peer), out);
    }

    fn pull(&mut self, from: PeerId, out: &mut Vec<Effect>) {
        if let Some(remote) = self.remotes.get_mut(&from.host)
            && !std::mem::replace(&mut remote.pulled, true)
        {
            out.push(Effect::ToPeer { peer: from, message: ToPeer::Pull });
        }
    }

    /// Always, except where the simulation has to find out that it matters.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same as in tests")]
    const fn looks_at_incarnations(&self) -> bool {
        true
    }

    #[cfg(test)]
    const fn looks_at_incarnations(&self) -> bool {
        !self.planted
    }
}
