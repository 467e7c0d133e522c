//! Who waits for the end of which node, and what became of nodes that have gone.
//!
//! A node that others are linked to publishes a name of the system, its *presence*; what takes that
//! away says how the node ended. This is the bookkeeping of all watches of one directory, told by one
//! subscription. It decides and does nothing; time comes in as the span since the process started.
//!
//! # What always holds
//! - A watch is answered once: by the first loss of its node's presence after it began, or when the
//!   presence did not show up in time.
//! - What has gone for good and comes back all the same (a directory that took a slow survivor for
//!   dead) is told as back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    time::Duration,
};

use layercake_wire::id::PeerId;

use crate::record::{DropReason, Instance};

/// How long a watched node may take to show that it is there.
pub(crate) const SHOWS_UP: Duration = Duration::from_secs(5);
/// How long a watch that begins just after a node has gone waits for the node to come back.
const RETURNS: Duration = Duration::from_millis(300);
/// How long presences are still listened to when nobody watches any more.
const LINGER: Duration = Duration::from_secs(10);
/// Watches of nodes that one directory has at a time; those beyond hear [`NodeGone::Unknown`] at once.
pub const MAX_WATCHES: usize = 65_536;
/// Nodes of which it is remembered how they ended.
const MAX_GONE: usize = 4096;

/// What became of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeGone {
    /// It left in order. It never comes back: a node's identity is not used twice.
    Left,
    /// Its process ended without a word, `kill -9` included. It never comes back.
    Died,
    /// Its host cannot be reached any more. Both may come back.
    HostLost,
    /// Nothing is known: it never said that it is there, or this directory is closed.
    Unknown,
}

impl NodeGone {
    /// Whether no node of that identity can be reached any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Left | Self::Died)
    }
}

impl fmt::Display for NodeGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Left => "the node has left",
            Self::Died => "the process has died",
            Self::HostLost => "the host is lost",
            Self::Unknown => "nothing is known of the node",
        })
    }
}

impl From<DropReason> for NodeGone {
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::Withdrawn => Self::Left,
            DropReason::ProcessDied => Self::Died,
            DropReason::HostLost => Self::HostLost,
            // It lives, as others say, and a link to it may work even so. The others are of exclusive
            // names only.
            DropReason::LinkLost | DropReason::Replaced | DropReason::Outranked => Self::Unknown,
        }
    }
}

struct Watch {
    peer: PeerId,
    /// When it ends, and with what, if the node does not show that it is there.
    unless_seen: Option<(Duration, NodeGone)>,
}

/// A watch that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) watch: u64,
    pub(crate) gone: NodeGone,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Watches {
    watches: BTreeMap<u64, Watch>,
    by_peer: BTreeSet<(PeerId, u64)>,
    due: BTreeSet<(Duration, u64)>,
    present: HashMap<PeerId, Instance>,
    /// Those that have gone for good, and in what order.
    gone: HashMap<PeerId, NodeGone>,
    order: VecDeque<PeerId>,
    /// When nobody needs to listen any more.
    idle: Option<Duration>,
}

impl Watches {
    /// Begins a watch under a fresh number; may end it at once.
    pub(crate) fn watch(&mut self, id: u64, peer: PeerId, now: Duration) -> Option<Ended> {
        if self.watches.len() >= MAX_WATCHES {
            return Some(Ended { watch: id, gone: NodeGone::Unknown });
        }
        let unless_seen = match self.gone.get(&peer) {
            _ if self.present.contains_key(&peer) => None,
            Some(how) => Some((now + RETURNS, *how)),
            None => Some((now + SHOWS_UP, NodeGone::Unknown)),
        };
        self.idle = None;
        self.due.extend(unless_seen.map(|(at, _)| (at, id)));
        self.by_peer.insert((peer, id));
        self.watches.insert(id, Watch { peer, unless_seen });
        None
    }

    /// Ends a watch without a word.
    pub(crate) fn unwatch(&mut self, id: u64, now: Duration) {
        self.take(id, now);
    }

    /// A node is there. `true` when it had gone for good, as far as anybody was told.
    pub(crate) fn on_available(&mut self, instance: Instance) -> bool {
        let peer = instance.peer();
        self.present.insert(peer, instance);
        for id in self.of(peer) {
            if let Some(watch) = self.watches.get_mut(&id)
                && let Some((at, _)) = watch.unless_seen.take()
            {
                self.due.remove(&(at, id));
            }
        }
        self.gone.remove(&peer).is_some()
    }

    /// A node is not there any more.
    pub(crate) fn on_dropped(
        &mut self,
        instance: Instance,
        reason: DropReason,
        now: Duration,
    ) -> Vec<Ended> {
        let peer = instance.peer();
        if self.present.get(&peer) != Some(&instance) {
            return Vec::new();
        }
        self.present.remove(&peer);
        let gone = NodeGone::from(reason);
        if gone.is_final() {
            if self.order.len() >= MAX_GONE
                && let Some(oldest) = self.order.pop_front()
            {
                self.gone.remove(&oldest);
            }
            self.order.push_back(peer);
            self.gone.insert(peer, gone);
        }
        let ended = self.of(peer).into_iter().map(|watch| Ended { watch, gone }).collect();
        self.end(ended, now)
    }

    /// Ends what is due.
    pub(crate) fn on_time(&mut self, now: Duration) -> Vec<Ended> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        let ended = due.filter_map(|(_, id)| {
            let (_, gone) = self.watches.get(id)?.unless_seen?;
            Some(Ended { watch: *id, gone })
        });
        self.end(ended.collect(), now)
    }

    /// When [`Self::on_time`] is to be called, or [`Self::is_idle`] asked, next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at).into_iter().chain(self.idle).min()
    }

    /// Whether nobody has watched for a while: presences need not be listened to. What was there is
    /// forgotten, so that it is told again to the next watch.
    pub(crate) fn is_idle(&mut self, now: Duration) -> bool {
        let idle = self.idle.is_some_and(|at| at <= now);
        if idle {
            self.idle = None;
            self.present.clear();
        }
        idle
    }

    fn of(&self, peer: PeerId) -> Vec<u64> {
        self.by_peer.range((peer, 0)..=(peer, u64::MAX)).map(|(_, id)| *id).collect()
    }

    fn end(&mut self, ended: Vec<Ended>, now: Duration) -> Vec<Ended> {
        for Ended { watch, .. } in &ended {
            self.take(*watch, now);
        }
        ended
    }

    fn take(&mut self, id: u64, now: Duration) {
        let Some(watch) = self.watches.remove(&id) else { return };
        self.by_peer.remove(&(watch.peer, id));
        if let Some((at, _)) = watch.unless_seen {
            self.due.remove(&(at, id));
        }
        if self.watches.is_empty() {
            self.idle = Some(now + LINGER);
        }
    }
}

#[cfg(test)]
impl Watches {
    /// The nodes that are known to be there.
    pub(crate) fn present(&self) -> BTreeSet<PeerId> {
        self.present.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    const T0: Duration = Duration::ZERO;

    fn presence(node: u64) -> Instance {
        let peer = peer(2, node);
        Instance { host: peer.host, node: peer.node, serial: 1 }
    }

    fn ended(watch: u64, gone: NodeGone) -> Vec<Ended> {
        vec![Ended { watch, gone }]
    }

    #[test]
    fn each_end_of_a_node_is_told_as_what_it_is() {
        for (reason, gone) in [
            (DropReason::Withdrawn, NodeGone::Left),
            (DropReason::ProcessDied, NodeGone::Died),
            (DropReason::HostLost, NodeGone::HostLost),
        ] {
            let mut watches = Watches::default();
            watches.on_available(presence(1));
            assert_eq!(watches.watch(1, peer(2, 1), T0), None);
            assert_eq!(watches.watch(2, peer(2, 2), T0), None);
            assert_eq!(watches.on_dropped(presence(1), reason, T0), ended(1, gone));
            assert!(watches.on_dropped(presence(1), reason, T0).is_empty(), "told once");
            assert_eq!(watches.watches.len(), 1, "the other one goes on");
        }
    }

    #[test]
    fn a_node_may_say_late_that_it_is_there_but_not_never() {
        let mut watches = Watches::default();
        watches.watch(1, peer(2, 1), T0);
        watches.watch(2, peer(2, 2), T0);
        assert_eq!(watches.next_deadline(), Some(SHOWS_UP));
        assert!(watches.on_time(SHOWS_UP - Duration::from_millis(1)).is_empty());
        watches.on_available(presence(1));
        assert_eq!(watches.on_time(SHOWS_UP), ended(2, NodeGone::Unknown));
        assert_eq!(watches.next_deadline(), None);
        let gone = watches.on_dropped(presence(1), DropReason::ProcessDied, SHOWS_UP);
        assert_eq!(gone, ended(1, NodeGone::Died));
    }

    #[test]
    fn a_watch_that_comes_just_too_late_hears_of_the_end_all_the_same() {
        let mut watches = Watches::default();
        watches.on_available(presence(1));
        watches.on_available(presence(2));
        watches.on_dropped(presence(1), DropReason::ProcessDied, T0);
        watches.on_dropped(presence(2), DropReason::HostLost, T0);
        watches.watch(1, peer(2, 1), T0);
        watches.watch(2, peer(2, 2), T0);
        assert_eq!(watches.on_time(RETURNS), ended(1, NodeGone::Died));
        assert!(watches.on_time(RETURNS).is_empty(), "a host may come back");
    }

    #[test]
    fn a_survivor_that_was_taken_for_dead_is_told_as_back() {
        let mut watches = Watches::default();
        assert!(!watches.on_available(presence(1)));
        watches.on_dropped(presence(1), DropReason::ProcessDied, T0);
        watches.watch(1, peer(2, 1), T0);
        assert!(watches.on_available(presence(1)));
        assert!(watches.on_time(SHOWS_UP).is_empty(), "it is there");
        watches.on_dropped(presence(1), DropReason::HostLost, T0);
        assert!(!watches.on_available(presence(1)), "nobody took it for gone");
    }

    #[test]
    fn nobody_listens_when_nobody_has_watched_for_a_while() {
        let mut watches = Watches::default();
        assert!(!watches.is_idle(LINGER));
        watches.watch(1, peer(2, 1), T0);
        watches.on_available(presence(1));
        watches.unwatch(1, T0);
        watches.watch(2, peer(2, 1), T0);
        assert!(!watches.is_idle(LINGER));
        watches.unwatch(2, T0);
        assert_eq!(watches.next_deadline(), Some(LINGER));
        assert!(watches.is_idle(LINGER) && watches.present().is_empty());
        assert!(!watches.is_idle(LINGER), "told once");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut watches = Watches::default();
        for id in 0..MAX_WATCHES as u64 {
            assert_eq!(watches.watch(id, peer(2, id), T0), None);
        }
        let refused = watches.watch(70_000, peer(2, 1), T0);
        assert_eq!(refused, Some(Ended { watch: 70_000, gone: NodeGone::Unknown }));
        for node in 0..2 * MAX_GONE as u64 {
            watches.on_available(presence(node));
            watches.on_dropped(presence(node), DropReason::Withdrawn, T0);
        }
        assert_eq!((watches.gone.len(), watches.order.len()), (MAX_GONE, MAX_GONE));
        assert_eq!(watches.watches.len(), watches.by_peer.len());
    }
}
