//! Who gets an exclusive name, and the numbers that grants carry.
//!
//! A claim that waits is a record like others, written by its host alone and copied by all, but shown
//! to nobody. When a holder goes, every host finds the same successor, and the host of that one grants
//! the name; so nobody has to be asked, and it works on each side of a partition.
//!
//! # What always holds
//! - A host grants a name only while it knows of nobody who holds it, nor of anybody who has waited
//!   longer.
//! - The number of a grant is higher than every number that this host has given, or seen in a record,
//!   or been told of by another host directory.
//! - Of two holders the older claim stays, on all hosts; its number rises above those of the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use layercake_wire::id::{HostId, NodeId};

use super::{Change, Effect, HostCore};
use crate::{
    agent,
    message::{Refusal, ToNode, ToPeer},
    name::Scope,
    record::{DropReason, Instance, Record, Title},
};

/// Numbers so far ahead of the clock, in milliseconds, are not told to the nodes: no successor of this
/// directory comes so quickly.
const NEAR: u64 = 5;
/// How many numbers the nodes are told of in advance.
const AHEAD: u64 = 60_000_000;
/// Claims that wait for a directory to settle.
const MAX_HELD_BACK: usize = 65_536;

/// How long a name is not granted after its holder has lost it to an older claim that this host does not
/// know: it will, as soon as it has a link to the host of that one.
pub(super) const DISPUTE: Duration = Duration::from_secs(3);
/// Names of which that is so at a time. Of more, the next in line may be granted what it will lose.
const MAX_DISPUTES: usize = 4096;

/// What a directory remembers in order to grant.
#[derive(Default)]
pub(super) struct Grants {
    /// The highest number given or seen.
    last: u64,
    /// The highest number that this directory gave to an exclusive claim in the mesh, and the highest
    /// that it has seen of one.
    given: u64,
    seen: u64,
    /// The highest of those that have gone again.
    passed: u64,
    /// Up to where the nodes know that numbers may have been given.
    promised: u64,
    /// The wall clock at the time zero, in milliseconds.
    epoch_ms: u64,
    /// Claims that came before this directory knows who is there.
    held_back: Vec<(NodeId, Arc<Record>)>,
    /// Names that belong to somebody whom this directory does not know yet, until when it waits to hear
    /// of it, and who has lost them.
    disputes: BTreeMap<Title, (Duration, Arc<Record>)>,
}

/// How this directory stands to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Acquaintance {
    /// The two have not met.
    #[default]
    New,
    /// Each knows what the other one has granted.
    Close,
    /// They could not hear each other for a while, and may both have granted the same name.
    Parted,
}

impl HostCore {
    pub(super) fn set_clock(&mut self, now: Duration, wall_ms: u64) {
        self.now = now;
        self.grants.epoch_ms = wall_ms.saturating_sub(millis(now));
    }

    /// Milliseconds since 1970, as far as the nodes' messages tell.
    pub(super) fn wall_ms(&self) -> u64 {
        self.grants.epoch_ms.saturating_add(millis(self.now))
    }

    /// A record has been stored.
    pub(super) fn note(&mut self, record: &Record) {
        let grants = &mut self.grants;
        grants.last = grants.last.max(record.fence);
        if record.exclusive && record.scope == Scope::Lan {
            grants.seen = grants.seen.max(record.fence);
            if record.instance.host == self.me.host {
                grants.given = grants.given.max(record.fence);
            }
        }
    }

    /// Somebody knows that numbers up to this have been given.
    pub(super) fn fences_from(&mut self, last: u64) {
        self.grants.last = self.grants.last.max(last);
    }

    pub(super) fn next_fence(&mut self, out: &mut Vec<Effect>) -> u64 {
        let wall_ms = self.wall_ms();
        let fence = agent::fence(self.grants.last, wall_ms);
        self.grants.last = fence;
        // The next directory begins at its clock, or at what the nodes know.
        if fence > (wall_ms + NEAR).saturating_mul(1000) && fence > self.grants.promised {
            self.grants.promised = fence.saturating_add(AHEAD);
            self.tell_all(&ToNode::Fences(self.grants.promised), out);
        }
        fence
    }

    /// For a node that has just registered.
    pub(super) fn tell_fences(&self, node: NodeId, out: &mut Vec<Effect>) {
        if self.grants.promised > 0 {
            out.push(Effect::ToNode { node, message: ToNode::Fences(self.grants.promised) });
        }
    }

    /// For a host directory that has just said hello: what its grants must rise above, if the two may
    /// have granted the same name meanwhile, or may have had it granted by others. A holder that was
    /// here for a while and has gone again could not be told from the one over there otherwise.
    pub(super) fn tell_peer_fences(&mut self, host: HostId, out: &mut Vec<Effect>) {
        let (wall_ms, succeeds) = (self.wall_ms(), self.succeeds());
        let Some(remote) = self.remotes.get_mut(&host) else { return };
        let Some(peer) = remote.link else { return };
        let before = std::mem::replace(&mut remote.acquaintance, Acquaintance::Close);
        let above = match before {
            Acquaintance::Close => 0,
            // What the directory before this one has given nobody knows exactly.
            _ if succeeds => self.grants.last.max((wall_ms + NEAR).saturating_mul(1000)),
            // Whom this one has seen come and go the other one may not have met.
            Acquaintance::New => self.grants.given.max(self.grants.passed),
            Acquaintance::Parted => self.grants.seen,
        };
        if above > 0 {
            out.push(Effect::ToPeer { peer, message: ToPeer::Fence(above) });
        }
    }

    /// A node says that there was a directory before this one.
    pub(super) fn succeed(&mut self, fences: u64, out: &mut Vec<Effect>) {
        self.fences_from(fences);
        if !std::mem::replace(&mut self.successor, true) {
            // Those whom this directory has met already were told less.
            for host in self.remotes.keys().copied().collect::<Vec<_>>() {
                if let Some(remote) = self.remotes.get_mut(&host) {
                    remote.acquaintance = Acquaintance::New;
                }
                self.tell_peer_fences(host, out);
            }
        }
    }

    fn succeeds(&self) -> bool {
        self.successor || self.config.departed.is_some()
    }

    /// Another host directory, which this one could not hear for a while, knows of higher numbers.
    pub(super) fn on_fence(&mut self, above: u64, out: &mut Vec<Effect>) {
        self.fences_from(above);
        self.grants.seen = self.grants.seen.max(above);
        let low = |r: &&Arc<Record>| r.exclusive && !r.waiting && r.fence <= above;
        let low: Vec<_> = self.lan_records().filter(low).cloned().collect();
        let mut change = Change::default();
        for record in low {
            self.raise(&record, &mut change, out);
        }
        self.spread(change, out);
    }

    /// Of each exclusive name that changed, the oldest claim stays. Claims of this host that lose are
    /// taken back; those of other hosts are taken back there.
    pub(super) fn settle_claims(&mut self, change: &mut Change, out: &mut Vec<Effect>) {
        let claims = change.put.iter().filter(|r| r.exclusive && !r.waiting);
        let titles: BTreeSet<_> = claims.map(|r| r.title()).collect();
        for title in titles {
            if self.etcd.is_some() && title.scope == Scope::Lan {
                continue; // Settled there, before anybody was told.
            }
            let mut holders = self.claims.holders(&title);
            if holders.len() < 2 {
                continue;
            }
            let winner = holders.remove(0);
            let ours = self.me.host;
            let highest = holders.iter().map(|r| r.fence).max().unwrap_or(0);
            for loser in holders.iter().filter(|r| r.instance.host == ours) {
                self.forget(loser);
                change.put.retain(|r| r.instance != loser.instance);
                change.dropped.push((loser.clone(), DropReason::Outranked));
                let reason = Refusal::Held(winner.clone());
                let message = ToNode::Refused { serial: loser.instance.serial, reason };
                out.push(Effect::ToNode { node: loser.instance.node, message });
                self.warn_winner(&winner, loser.fence, out);
            }
            if winner.instance.host == ours && winner.fence <= highest {
                // The holder stays, but its number must be above what others have held meanwhile.
                self.raise(&winner, change, out);
            }
        }
    }

    /// The claim of another host stays. Its number must rise above that of the loser, also when the
    /// link breaks before the two have met over there.
    fn warn_winner(&mut self, winner: &Record, above: u64, out: &mut Vec<Effect>) {
        let Some(remote) = self.remotes.get_mut(&winner.instance.host) else { return };
        if winner.fence <= above {
            remote.acquaintance = Acquaintance::Parted;
            if let Some(peer) = remote.link {
                out.push(Effect::ToPeer { peer, message: ToPeer::Fence(above) });
            }
        }
    }

    /// Grants a name of this host's again, with a number above all that are known.
    fn raise(&mut self, record: &Record, change: &mut Change, out: &mut Vec<Effect>) {
        if self.leaves {
            return;
        }
        let fence = self.next_fence(out);
        self.grant(Record { fence, ..record.clone() }, change, out);
    }

    fn grant(&mut self, record: Record, change: &mut Change, out: &mut Vec<Effect>) {
        let Record { instance: Instance { node, serial, .. }, claimed, fence, .. } = record;
        let record = Arc::new(record);
        self.keep(&record);
        change.put.retain(|r| r.instance != record.instance);
        change.put.push(record);
        out.push(Effect::ToNode { node, message: ToNode::Granted { serial, claimed, fence } });
    }

    /// Grants what has become free to those of this host that are next.
    pub(super) fn serve_waiting(&mut self, change: &mut Change, out: &mut Vec<Effect>) {
        let freed = change.dropped.iter().filter(|(_, why)| *why != DropReason::Outranked);
        let freed: BTreeSet<_> = freed.map(|(record, _)| record.title()).collect();
        for title in &freed {
            self.grants.disputes.remove(title);
        }
        if self.claims.nobody_waits() {
            return;
        }
        let came = change.put.iter().filter(|r| r.waiting).map(|r| r.title());
        for title in came.collect::<BTreeSet<_>>().union(&freed) {
            self.grant_next(title, change, out);
        }
    }

    /// Some holder has gone, maybe because it has lost its name to a claim of which this host may not know.
    pub(super) fn note_disputes(&mut self, change: &Change) {
        for (loser, why) in &change.dropped {
            if loser.exclusive && loser.scope == Scope::Lan {
                self.grants.passed = self.grants.passed.max(loser.fence);
            }
            let title = loser.title();
            let room = self.grants.disputes.len() < MAX_DISPUTES;
            if *why == DropReason::Outranked && room && self.claims.is_free(&title) {
                let until = self.now + DISPUTE;
                self.grants.disputes.insert(title, (until, loser.clone()));
            }
        }
    }

    /// When [`Self::end_disputes`] is to be called.
    pub(super) fn next_dispute(&self) -> Option<Duration> {
        self.grants.disputes.values().map(|(until, _)| *until).min()
    }

    /// Grants what nobody turned out to hold.
    pub(super) fn end_disputes(&mut self, out: &mut Vec<Effect>) {
        if self.grants.disputes.is_empty() {
            return;
        }
        let now = self.now;
        let over = self.grants.disputes.extract_if(.., |_, (until, _)| *until <= now);
        let mut change = Change::default();
        for title in over.map(|(title, _)| title).collect::<Vec<_>>() {
            self.grant_next(&title, &mut change, out);
        }
        self.spread(change, out);
    }

    /// The record that stands in the way of a new claim.
    pub(super) fn conflict(&self, claim: &Record) -> Option<Arc<Record>> {
        let loser = || self.grants.disputes.get(&claim.title()).map(|(_, loser)| loser.clone());
        self.claims.conflict(claim).or_else(loser)
    }

    fn grant_next(&mut self, title: &Title, change: &mut Change, out: &mut Vec<Effect>) {
        // A directory that takes over does not know yet who holds what.
        let disputed = self.grants.disputes.contains_key(title);
        if self.settles.is_some() || self.leaves || disputed || !self.claims.is_free(title) {
            return;
        }
        let next = self.claims.next(title).filter(|next| next.instance.host == self.me.host);
        if let Some(next) = next.cloned() {
            if self.is_for_etcd(&next) {
                self.ask_etcd(&next);
                return;
            }
            let fence = self.next_fence(out);
            self.grant(Record { waiting: false, fence, ..(*next).clone() }, change, out);
        }
    }

    /// Whether holders may be there of whom this directory has not heard yet.
    pub(super) fn is_taking_over(&self) -> bool {
        self.settles.is_some() && self.succeeds()
    }

    /// Keeps a claim until this directory knows who is there. `false` when there are too many.
    pub(super) fn hold_back(&mut self, node: NodeId, claim: Arc<Record>) -> bool {
        let room = self.grants.held_back.len() < MAX_HELD_BACK;
        if room {
            self.grants.held_back.push((node, claim));
        }
        room
    }

    /// Forgets claims of a node that were held back: one, or all.
    pub(super) fn drop_held_back(&mut self, node: NodeId, serial: Option<u64>) {
        self.grants.held_back.retain(|(of, claim)| {
            *of != node || serial.is_some_and(|serial| serial != claim.instance.serial)
        });
    }

    /// This directory knows now who is there: grants what waited for that.
    pub(super) fn grant_held_back(&mut self, out: &mut Vec<Effect>) {
        let mut change = Change::default();
        for title in self.claims.waited_for() {
            self.grant_next(&title, &mut change, out);
        }
        self.spread(change, out);
        for (node, claim) in std::mem::take(&mut self.grants.held_back) {
            self.publish(node, vec![claim], out);
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
