//! What a host directory does with etcd.
//!
//! It decides and does nothing: inputs are methods, [`Effect`]s are carried out in order. Time comes
//! in as the span since the process started. It holds three things: what this host offers
//! (`wanted`), what etcd was last seen to hold (the mirror: `hosts`, `stored`, `names`), and a lease.
//! Whenever etcd can be reached it writes the difference, one transaction at a time.
//!
//! # What always holds
//! - The mirror is made of what the watch says and of nothing else. A transaction is answered by the
//!   watch, too: the next one waits until its changes were seen there, and where they do not show up in
//!   time everything is read again.
//! - A claim is granted when the watch shows it in etcd under this host's lease, so every grant and
//!   every release of a name comes in etcd's order, and its fencing number with it.
//! - An exclusive name is held no longer than the lease surely lasts by this host's own clock.
//! - Every write is on condition that the host's own key is as it was seen last: a directory that was
//!   superseded changes nothing.
//! - Etcd out of reach is no news of others. A host that was there and is missing when everything is
//!   read again gets one time to live to come back.
//!
//! Stories, with a small model of etcd, in `core/tests.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use layercake_wire::id::{HostId, MeshId, NodeAddr, NodeId, PeerId};

use super::keys::{GoneValue, HostValue, Keys};
use crate::{
    message::Refusal,
    name::Name,
    record::{DropReason, Instance, Record},
};

use self::{lease::Lease, write::Writer};

pub(crate) use self::talk::{
    Ask, Change, Condition, Event, Failure, Granted, Outcome, Pair, Said, Step, Stepped, Txn,
};

mod lease;
mod mirror;
mod talk;
#[cfg(test)]
mod tests;
mod write;

/// Keys that are read at a time at most; a mesh with more is cut.
const MAX_KEYS: usize = 1_000_000;
/// Claims of this host that may wait for etcd at a time.
const MAX_CLAIMS: usize = 65_536;
/// How long a claim waits for etcd before it is refused.
const CLAIM_PATIENCE: Duration = Duration::from_secs(6);
/// Ends of processes that wait to be told.
const MAX_GONE: usize = 1024;
/// The first and the longest pause after something failed. Each is cut by up to a half at random.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// After so many failures in a row somebody should know.
const TOLD: u32 = 3;
/// How long several reasons to read everything again are gathered.
const REREAD: Duration = Duration::from_secs(1);

/// What the host directory should do.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    Ask(Ask),
    /// Another host is there.
    Host {
        host: HostId,
        addr: NodeAddr,
        host_name: String,
    },
    /// The records of another host; the complete set, or some of them.
    Snapshot {
        host: HostId,
        complete: bool,
        records: Vec<Arc<Record>>,
    },
    /// What was told of another host since it came is all that it offers.
    Whole(HostId),
    /// Records of another host came and went.
    Changed {
        host: HostId,
        put: Vec<Arc<Record>>,
        dropped: Vec<(Instance, DropReason)>,
    },
    /// A process of another host has ended without a word.
    ProcessGone(PeerId),
    /// Another host has left or was not heard for too long.
    Lost {
        host: HostId,
        reason: DropReason,
    },
    /// A claim of this host is granted, or has a new fencing number.
    Granted(Arc<Record>),
    /// A claim of this host is refused, or taken back.
    Refused {
        instance: Instance,
        reason: Refusal,
    },
}

/// A record that this host offers to the mesh.
struct Wanted {
    record: Arc<Record>,
    /// Of an exclusive name: whether its node was told that it has it.
    granted: bool,
    /// Of a claim that waits: since when.
    since: Option<Duration>,
}

/// A key of this host in the mirror.
struct Stored<T> {
    value: T,
    modified: u64,
    lease: u64,
}

enum Phase {
    /// Again at that time.
    Idle(Duration),
    Reading(Vec<Pair>),
    Following,
}

/// What is known of etcd by reading and watching.
struct Follow {
    turn: u64,
    phase: Phase,
    /// Whether everything was read once, and not found to be outdated since.
    read: bool,
    revision: u64,
    cluster: u64,
    failures: u32,
}

/// See the module.
pub(crate) struct EtcdCore {
    me: HostId,
    keys: Keys,
    random: u64,
    /// What stands, or should stand, under this host's own key.
    ours: HostValue,
    started: bool,
    settled: bool,
    /// Said goodbye: nothing is claimed any more, and with `true` nothing stays.
    leaving: Option<bool>,
    left: bool,
    wanted: BTreeMap<Instance, Wanted>,
    /// The claims that are not answered yet, by age.
    waiting: BTreeSet<(Duration, Instance)>,
    /// Those that have just come.
    fresh: BTreeSet<Instance>,
    /// Who on this host claims or holds which exclusive name.
    claimants: HashMap<Name, BTreeSet<Instance>>,
    gone: GoneValue,
    dirty: BTreeSet<Instance>,
    follow: Follow,
    epoch: Option<u64>,
    /// When this directory began, and the highest fencing number seen.
    began: Duration,
    last_fence: u64,
    hosts: BTreeMap<HostId, Stored<HostValue>>,
    stored: BTreeMap<Instance, Stored<Arc<Record>>>,
    /// Who holds which exclusive name, of whichever host.
    names: HashMap<Name, Instance>,
    /// Hosts that were there and are missing, and when they are lost.
    missing: BTreeMap<HostId, Duration>,
    /// Hosts that had not stored everything when it was read: what they do not offer any more may be
    /// kept here.
    unsure: BTreeSet<HostId>,
    /// When everything is to be read again.
    reread: Option<Duration>,
    lease: Lease,
    writer: Writer,
    told: BTreeSet<&'static str>,
}

impl EtcdCore {
    /// `ttl` is in whole seconds.
    pub(crate) fn new(
        mesh: &MeshId,
        addr: NodeAddr,
        host_name: String,
        incarnation: u64,
        (ttl, seed): (Duration, u64),
        now: Duration,
    ) -> Self {
        Self {
            me: addr.peer.host,
            keys: Keys::new(mesh),
            random: seed | 1,
            ours: HostValue { incarnation, addr, host_name, complete: false, leaving: false },
            started: false,
            settled: false,
            leaving: None,
            left: false,
            wanted: BTreeMap::new(),
            waiting: BTreeSet::new(),
            fresh: BTreeSet::new(),
            claimants: HashMap::new(),
            gone: Vec::new(),
            dirty: BTreeSet::new(),
            follow: Follow {
                turn: 0,
                phase: Phase::Idle(now),
                read: false,
                revision: 0,
                cluster: 0,
                failures: 0,
            },
            epoch: None,
            began: now,
            last_fence: 0,
            hosts: BTreeMap::new(),
            stored: BTreeMap::new(),
            names: HashMap::new(),
            missing: BTreeMap::new(),
            unsure: BTreeSet::new(),
            reread: None,
            lease: Lease::new(ttl, now),
            writer: Writer::default(),
            told: BTreeSet::new(),
        }
    }

    /// Begins; `addr` is where other hosts reach this one's directory.
    pub(crate) fn start(&mut self, addr: NodeAddr) {
        self.started = true;
        self.ours.addr = addr;
    }

    /// This host is reached at other addresses now.
    pub(crate) fn set_addr(&mut self, addr: NodeAddr) {
        self.ours.addr = addr;
    }

    /// Whether all other hosts are known, as far as etcd can be reached.
    pub(crate) const fn is_known(&self) -> bool {
        self.follow.read
    }

    /// What this host offers has changed. Written by the next [`Self::flush`], as all that follows.
    pub(crate) fn offer(
        &mut self,
        put: &[Arc<Record>],
        dropped: impl IntoIterator<Item = Instance>,
    ) {
        for instance in dropped {
            self.unwant(instance);
        }
        // Who waits does so here, not in etcd.
        for record in put.iter().filter(|record| !record.waiting) {
            self.want(record, true);
        }
    }

    /// A node of this host claims an exclusive name. One that `waits` is not refused because etcd cannot
    /// be reached. `false` when too many are waiting for etcd.
    pub(crate) fn claim(&mut self, record: &Arc<Record>, waits: bool) -> bool {
        let room = waits || self.waiting.len() + self.fresh.len() < MAX_CLAIMS;
        if room {
            self.want(record, false);
            if waits {
                self.fresh.remove(&record.instance);
            }
        }
        room
    }

    /// A claim is given up that was not granted yet.
    pub(crate) fn give_up(&mut self, instance: Instance) {
        if self.wanted.get(&instance).is_some_and(|wanted| !wanted.granted) {
            self.unwant(instance);
        }
    }

    /// The claims of a node that were not granted yet are given up.
    pub(crate) fn give_up_all(&mut self, node: NodeId) {
        let waiting = self.waiting.iter().map(|(_, instance)| instance);
        let waiting = waiting.chain(&self.fresh).copied();
        for instance in waiting.filter(|instance| instance.node == node).collect::<Vec<_>>() {
            self.give_up(instance);
        }
    }

    /// A process of this host has ended without a word.
    pub(crate) fn mourn(&mut self, node: NodeId) {
        if self.gone.len() < MAX_GONE {
            self.gone.push(node);
        }
    }

    /// All nodes that live have registered: what is stored of others has gone.
    pub(crate) fn settle(&mut self, nodes: &BTreeSet<NodeId>) {
        self.settled = true;
        for instance in self.stored.keys().copied().collect::<Vec<_>>() {
            if !nodes.contains(&instance.node) && !self.gone.contains(&instance.node) {
                self.mourn(instance.node);
            }
            self.dirty.insert(instance);
        }
    }

    /// This directory stops; with `all`, the host leaves.
    pub(crate) fn leave(&mut self, all: bool) {
        self.leaving = Some(all);
        if all {
            // They go with the lease.
            self.dirty.clear();
            self.ours.leaving = true;
        }
    }

    /// Writes what has changed, if that is possible now.
    pub(crate) fn flush(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.pump(now, out);
    }

    /// Whether everybody can know that it has left, or nobody can be told.
    pub(crate) fn has_left(&self) -> bool {
        let Some(all) = self.leaving else { return false };
        let quiet = !self.writer.is_busy() && self.dirty.is_empty() && self.gone.is_empty();
        self.left || self.lease.id().is_none() || (!all && quiet)
    }

    /// When [`Self::on_time`] is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if !self.started {
            return None;
        }
        let follow = match &self.follow.phase {
            Phase::Idle(again) => Some(*again),
            Phase::Reading(_) => None,
            Phase::Following => self.reread,
        };
        let writer = self.writer.next_deadline(self.follow.revision);
        let patience = self.waiting.first().map(|(since, _)| *since + CLAIM_PATIENCE);
        let lease = self.lease.next_deadline(self.can_ask_lease());
        [follow, writer, patience, lease, self.missing.values().min().copied()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if !self.started {
            return;
        }
        if let Phase::Idle(again) = self.follow.phase
            && again <= now
        {
            self.begin(out);
        }
        if self.reread.is_some_and(|at| at <= now)
            || self.writer.is_unseen(now, self.follow.revision)
        {
            self.read_again(now, out);
        }
        if self.lease.is_due_to_lapse(now) {
            self.lapse(out);
        }
        while let Some((since, instance)) = self.waiting.first().copied()
            && since + CLAIM_PATIENCE <= now
        {
            self.unwant(instance);
            out.push(Effect::Refused { instance, reason: Refusal::NoLease });
        }
        let lost = self.missing.iter().filter(|(_, at)| **at <= now).map(|(host, _)| *host);
        for host in lost.collect::<Vec<_>>() {
            self.missing.remove(&host);
            self.unsure.remove(&host);
            out.push(Effect::Lost { host, reason: DropReason::HostLost });
        }
        self.pump(now, out);
    }

    /// Etcd says something.
    pub(crate) fn on_said(&mut self, said: Said, now: Duration, out: &mut Vec<Effect>) {
        match said {
            Said::Page { turn, pairs } if turn == self.follow.turn => {
                if let Phase::Reading(known) = &mut self.follow.phase {
                    known.extend(pairs);
                    if known.len() > MAX_KEYS {
                        known.truncate(MAX_KEYS);
                        self.tell_once("etcd holds more keys than are read; the last are left out");
                    }
                }
            }
            Said::Read { turn, revision } if turn == self.follow.turn => {
                if let Phase::Reading(pairs) = &mut self.follow.phase {
                    let pairs = std::mem::take(pairs);
                    self.follow.phase = Phase::Following;
                    self.follow.revision = revision;
                    self.reread = None;
                    self.on_read(pairs, now, out);
                    self.follow.read = true;
                    self.on_reached(now);
                }
            }
            Said::Following { turn, cluster, revision } if turn == self.follow.turn => {
                let other = self.follow.cluster != 0 && self.follow.cluster != cluster;
                self.follow.cluster = cluster;
                if matches!(self.follow.phase, Phase::Reading(_)) {
                    // Goes on after a revision.
                    self.follow.phase = Phase::Following;
                    self.on_reached(now);
                    if other || revision < self.follow.revision {
                        tracing::warn!(
                            "etcd has another past than before; reading everything again"
                        );
                        self.read_again(now, out);
                    }
                }
            }
            Said::Changed { turn, events } if turn == self.follow.turn => {
                self.follow.failures = 0;
                self.on_events(events, now, out);
            }
            Said::Behind { turn } if turn == self.follow.turn => {
                tracing::debug!("etcd has forgotten what came next; reading everything again");
                self.follow.read = false;
                self.rest(now);
            }
            Said::Broken { turn, why } if turn == self.follow.turn => {
                self.rest(now);
                if self.follow.failures == TOLD {
                    tracing::warn!(why, "etcd cannot be reached; this host keeps what it knows");
                } else {
                    tracing::debug!(why, "watching etcd has ended");
                }
            }
            Said::Page { .. }
            | Said::Read { .. }
            | Said::Following { .. }
            | Said::Changed { .. }
            | Said::Behind { .. }
            | Said::Broken { .. } => {}
            Said::Lease(answer) => self.on_lease(answer, now, out),
            Said::Written(answer) => self.on_written(answer, now, out),
            Said::Revoked => self.left = true,
        }
        self.pump(now, out);
    }

    fn begin(&mut self, out: &mut Vec<Effect>) {
        self.follow.turn += 1;
        self.follow.phase = Phase::Reading(Vec::new());
        let after = self.follow.read.then_some(self.follow.revision);
        out.push(Effect::Ask(Ask::Follow { turn: self.follow.turn, after }));
    }

    fn read_again(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.follow.read = false;
        self.reread = None;
        self.writer.forget(now);
        self.begin(out);
    }

    /// Etcd has answered: nothing needs to wait any longer for its return.
    fn on_reached(&mut self, now: Duration) {
        if std::mem::take(&mut self.follow.failures) >= TOLD {
            tracing::info!("etcd is reached again");
        }
        if let Phase::Idle(again) = &mut self.follow.phase {
            *again = now.min(*again);
        }
        self.lease.on_reached(now);
        self.writer.on_reached(now);
    }

    fn rest(&mut self, now: Duration) {
        self.follow.failures += 1;
        let pause = self.pause(self.follow.failures);
        self.follow.phase = Phase::Idle(now + pause);
    }

    /// Longer with each failure, and different on each host.
    fn pause(&mut self, failures: u32) -> Duration {
        let (first, longest) = PAUSE;
        let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let share = u32::try_from(self.random % 512).unwrap_or(0);
        whole / 2 + whole * share / 1024
    }

    fn want(&mut self, record: &Arc<Record>, granted: bool) {
        let instance = record.instance;
        self.unwant(instance);
        self.wanted.insert(instance, Wanted { record: record.clone(), granted, since: None });
        self.dirty.insert(instance);
        if !granted {
            self.fresh.insert(instance);
        }
        if record.exclusive {
            self.lease.watch_lapse();
            self.claimants.entry(record.name.clone()).or_default().insert(instance);
        }
    }

    /// From now on the claims that have just come are waiting.
    fn stamp(&mut self, now: Duration) {
        for instance in std::mem::take(&mut self.fresh) {
            if let Some(wanted) = self.wanted.get_mut(&instance) {
                wanted.since = Some(now);
                self.waiting.insert((now, instance));
            }
        }
    }

    /// A record of this host was written. What a directory before this one wrote may be wanted yet.
    fn doubt(&mut self, instance: Instance) {
        if instance.host == self.me && (self.settled || self.wanted.contains_key(&instance)) {
            self.dirty.insert(instance);
        }
    }

    fn unwant(&mut self, instance: Instance) {
        let Some(Wanted { record, since, .. }) = self.wanted.remove(&instance) else { return };
        self.wait_no_more(instance, since);
        self.dirty.insert(instance);
        if let Some(claimants) = self.claimants.get_mut(&record.name) {
            claimants.remove(&instance);
            if claimants.is_empty() {
                self.claimants.remove(&record.name);
            }
        }
    }

    fn wait_no_more(&mut self, instance: Instance, since: Option<Duration>) {
        match since {
            Some(since) => self.waiting.remove(&(since, instance)),
            None => self.fresh.remove(&instance),
        };
    }

    /// The lease may have run out: nobody on this host holds an exclusive name any more.
    fn lapse(&mut self, out: &mut Vec<Effect>) {
        self.lease.note_lapse();
        let held = self.wanted.iter().filter(|(_, w)| w.record.exclusive && w.granted);
        for instance in held.map(|(instance, _)| *instance).collect::<Vec<_>>() {
            self.unwant(instance);
            out.push(Effect::Refused { instance, reason: Refusal::NoLease });
        }
    }

    pub(crate) fn tell_once(&mut self, trouble: &'static str) {
        if self.told.insert(trouble) {
            tracing::warn!("{trouble}");
        }
    }
}
