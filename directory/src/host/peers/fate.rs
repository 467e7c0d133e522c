//! The fate of the other hosts: who is there, who is given up and why, and what follows.

use std::time::Duration;

use layercake_wire::id::{HostId, NodeAddr};

use super::{
    super::{
        Change, Effect, HostCore, KNOWN_AFTER, LINKLESS, MEETING, ROUND, grants::Acquaintance,
    },
    ASK_PERIOD, ASKED, CHALLENGE, FRESH, MAX_HOST_NAME, Remote,
};
use crate::{
    dial::{MAX_TARGETS, Target},
    membership,
    message::{ToNode, ToPeer},
    record::DropReason,
};

impl HostCore {
    /// Gives up those who did not answer when they were said to be dead.
    pub(in crate::host) fn bury(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let silent = |r: &Remote| r.challenged.is_some_and(|until| until <= now);
        let dead = self.remotes.iter().filter(|(_, remote)| silent(remote));
        for host in dead.map(|(host, _)| *host).collect::<Vec<_>>() {
            self.lose(host, DropReason::HostLost, now, out);
        }
    }

    /// A host whose directories end before any of them has settled, one after the other: what the
    /// present one has not said goes.
    pub(in crate::host) fn settle_remotes(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let due = self.remotes.iter_mut().filter(|(_, r)| r.settles.is_some_and(|at| at <= now));
        let mut gone = Vec::new();
        let mut hosts = Vec::new();
        for (host, remote) in due {
            remote.settles = Some(now + KNOWN_AFTER);
            if !remote.part.is_empty() {
                continue; // A long one is on its way.
            }
            let said = &remote.confirmed;
            gone.extend(remote.records.values().filter(|r| !said.contains(&r.instance)).cloned());
            hosts.push(*host);
        }
        if hosts.is_empty() {
            return;
        }
        for record in &gone {
            self.forget(record);
        }
        let dropped = gone.into_iter().map(|record| (record, DropReason::ProcessDied)).collect();
        self.spread(Change { dropped, ..Change::default() }, out);
        for host in hosts {
            self.view_all(host, out);
        }
    }

    /// Tells every node all that is known of a host: it may remember more from a directory before this
    /// one.
    pub(super) fn view_all(&mut self, host: HostId, out: &mut Vec<Effect>) {
        for node in self.registered() {
            self.view(node, host, out);
        }
    }

    /// Repeats introductions, and gives up those who cannot be reached in any way.
    pub(in crate::host) fn round(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let mut meet = Vec::new();
        let mut lost = Vec::new();
        let mut astray = Vec::new();
        let (meeting, linkless) = (self.patience.of(MEETING), self.patience.of(LINKLESS));
        for (host, remote) in &self.remotes {
            let idle = now.saturating_sub(remote.since);
            match (remote.link, remote.member) {
                (None, true) if remote.lost => astray.push(*host),
                _ if remote.lost => {}
                (Some(peer), false) if idle > meeting => {
                    out.push(Effect::ClosePeer(peer));
                    lost.push((*host, DropReason::HostLost));
                }
                (Some(_), false) => meet.extend(remote.identity.clone()),
                (None, false) if idle > linkless => lost.push((*host, DropReason::HostLost)),
                // Others reach it, and this host does not.
                (None, true) if idle > linkless => lost.push((*host, DropReason::LinkLost)),
                // Who has just come up is mostly reached where membership says.
                (None, true) if idle > ROUND => astray.push(*host),
                _ => {}
            }
        }
        for (host, why) in lost {
            self.lose(host, why, now, out);
        }
        for them in meet {
            self.in_membership(now, out, |m, out| m.meet(them, now, out));
        }
        for host in astray {
            self.ask_where(host, now, out);
        }
    }

    /// Asks those who may know where a member is to which there is no link.
    pub(super) fn ask_where(&mut self, host: HostId, now: Duration, out: &mut Vec<Effect>) {
        let Some(remote) = self.remotes.get_mut(&host) else { return };
        if remote.asked.is_some_and(|asked| now < asked + ASK_PERIOD) {
            return;
        }
        remote.asked = Some(now);
        // In turn, since not everybody knows.
        let linked = self.linked();
        let turn = usize::try_from(now.as_secs()).unwrap_or(0) * ASKED;
        let from = turn.checked_rem(linked.len()).unwrap_or(0);
        for peer in linked.iter().copied().cycle().skip(from).take(ASKED.min(linked.len())) {
            out.push(Effect::ToPeer { peer, message: ToPeer::Where(host) });
        }
    }

    pub(in crate::host) fn on_membership(
        &mut self,
        effect: membership::Effect,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        match effect {
            membership::Effect::Send { to, packet } => {
                match self.remotes.get(&to.host).and_then(|remote| remote.link) {
                    Some(peer) => out.push(Effect::Datagram { peer, packet }),
                    None => {
                        // Who is only heard of is dialled.
                        if !self.remotes.contains_key(&to.host) {
                            self.dialer.hint(Target::Host(to.host), &to.addr().hints, now);
                        }
                    }
                }
            }
            membership::Effect::Up(them) => {
                if !self.make_room(them.host) {
                    return;
                }
                let remote = self.remotes.entry(them.host).or_default();
                remote.member = true;
                remote.challenged = None;
                remote.lost = false;
                remote.since = now;
                if remote.link.is_none() {
                    self.dialer.hint(Target::Host(them.host), &them.addr().hints, now);
                }
                tracing::info!(host = %them.host, "host is up");
                self.appear(them.host, now, out);
            }
            membership::Effect::Down(them) => {
                let (fresh, challenge) = (self.patience.of(FRESH), self.patience.of(CHALLENGE));
                let Some(remote) = self.remotes.get_mut(&them.host) else { return };
                // A successor of its directory, or the host itself after a renewal, is there already.
                let stale = remote.identity.as_ref().is_some_and(|now| {
                    (now.incarnation, now.renewal) > (them.incarnation, them.renewal)
                });
                remote.member = false;
                remote.since = now;
                match remote.link {
                    _ if stale => {}
                    // Said by one who was cut off himself, maybe: it is heard here. It will be told
                    // that it was declared dead, and come back under a renewed identity.
                    Some(_) if now.saturating_sub(remote.heard) < fresh => {}
                    Some(peer) => {
                        remote.challenged = Some(now + challenge);
                        out.push(Effect::ToPeer { peer, message: ToPeer::Flush });
                    }
                    None => self.lose(them.host, DropReason::HostLost, now, out),
                }
            }
            membership::Effect::Renewed(_) => {
                // The others take this host for dead: they must hear the new identity soon.
                let linked = self.remotes.values().filter(|r| r.link.is_some());
                let all: Vec<_> = linked.filter_map(|r| r.identity.clone()).collect();
                for them in all {
                    self.in_membership(now, out, |m, out| m.meet(them, now, out));
                }
            }
        }
    }

    /// A host has left or is out of reach: everything of it goes.
    pub(in crate::host) fn lose(
        &mut self,
        host: HostId,
        why: DropReason,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Some(remote) = self.remotes.get_mut(&host) else { return };
        if std::mem::replace(&mut remote.lost, true) {
            return;
        }
        tracing::info!(%host, host_name = remote.host_name, reason = %why, "host is gone");
        let unseen = !remote.synced;
        remote.link = None;
        remote.greeted = None;
        remote.primed = false;
        remote.challenged = None;
        remote.part.clear();
        remote.settles = None;
        remote.confirmed.clear();
        remote.since = now;
        let was_up = remote.up.take().is_some();
        if was_up {
            remote.gone = Some((now, why));
        }
        if remote.acquaintance == Acquaintance::Close {
            remote.acquaintance = Acquaintance::Parted;
        }
        self.dialer.unlinked(host, why == DropReason::Withdrawn, now);
        self.view.host_gone(host);
        let gone: Vec<_> = remote.records.values().cloned().collect();
        for record in &gone {
            self.forget(record);
        }
        let dropped = gone.into_iter().map(|record| (record, why)).collect();
        self.spread(Change { dropped, ..Change::default() }, out);
        if was_up {
            self.view.journal.host_gone(host, why);
            self.tell_events(out);
        }
        match why {
            DropReason::HostLost => self.tell_all(&ToNode::HostGone(host), out),
            DropReason::LinkLost => self.tell_all(&ToNode::LinkGone(host), out),
            _ if unseen => self.view_all(host, out),
            _ => {}
        }
    }

    /// A host is there: told once, until it has gone.
    pub(super) fn appear(&mut self, host: HostId, now: Duration, out: &mut Vec<Effect>) {
        let Some(remote) = self.remotes.get_mut(&host) else { return };
        remote.gone = None;
        if remote.up.is_none() {
            remote.up = Some(now);
            self.view.journal.host_up(host);
            self.tell_events(out);
        }
    }

    /// A host is there, as etcd says.
    pub(in crate::host) fn appear_in_etcd(
        &mut self,
        host: HostId,
        addr: NodeAddr,
        mut host_name: String,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        if host == self.me.host || !self.make_room(host) {
            return;
        }
        if host_name.len() > MAX_HOST_NAME {
            host_name.clear();
        }
        let remote = self.remotes.entry(host).or_default();
        if !remote.member || remote.lost {
            tracing::info!(%host, host_name, "host is up");
            remote.since = now;
        }
        remote.member = true;
        remote.lost = false;
        remote.host_name = host_name;
        remote.addr = Some(addr);
        self.appear(host, now, out);
    }

    /// A host is gone, as etcd says.
    pub(in crate::host) fn disappear(
        &mut self,
        host: HostId,
        why: DropReason,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        if let Some(remote) = self.remotes.get_mut(&host) {
            remote.member = false;
            self.lose(host, why, now, out);
        }
    }

    /// Whether one more host may be known; one that is lost makes room.
    pub(super) fn make_room(&mut self, host: HostId) -> bool {
        if self.remotes.len() < MAX_TARGETS || self.remotes.contains_key(&host) {
            return true;
        }
        let lost = self.remotes.iter().find(|(_, remote)| remote.lost).map(|(host, _)| *host);
        lost.is_some_and(|host| self.remotes.remove(&host).is_some())
    }
}
