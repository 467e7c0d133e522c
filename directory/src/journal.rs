//! What happens in the mesh, for those who watch it: a host directory's side of
//! [`NetworkEvent`].
//!
//! It decides and does nothing. The host directory tells it of every record that comes and goes, of its
//! own nodes and of hosts; it hands out events to be sent to the nodes that watch. Without watchers it
//! only keeps count.
//!
//! # What always holds
//! - Of a node of another host is told once that it is there, with its first record, and once that it
//!   has gone, with its last one.
//! - Each `Withdrawn` ends one `Published`.

use std::collections::{BTreeMap, BTreeSet};

use layercake_wire::id::{HostId, NodeId, PeerId};

use crate::{
    name::Scope,
    network::{NetworkChange, NetworkEvent},
    record::{DropReason, Record},
};

/// See the module.
pub(crate) struct Journal {
    me: HostId,
    watchers: BTreeSet<NodeId>,
    /// Registered nodes of this host.
    here: BTreeSet<NodeId>,
    /// How many records there are of each node of another host.
    elsewhere: BTreeMap<PeerId, usize>,
    events: Vec<NetworkEvent>,
}

impl Journal {
    pub(crate) const fn new(me: HostId) -> Self {
        Self {
            me,
            watchers: BTreeSet::new(),
            here: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// A node of this host wants to be told, or does not any more.
    pub(crate) fn watch(&mut self, node: NodeId, watch: bool) {
        if watch {
            self.watchers.insert(node);
        } else {
            self.watchers.remove(&node);
        }
    }

    /// A host has come.
    pub(crate) fn host_up(&mut self, host: HostId) {
        self.note(NetworkChange::HostUp, host, None);
    }

    /// A host has gone.
    pub(crate) fn host_gone(&mut self, host: HostId, reason: DropReason) {
        let left = reason == DropReason::Withdrawn;
        let change = if left { NetworkChange::HostLeft } else { NetworkChange::HostLost };
        if let Some(event) = self.note(change, host, None) {
            event.reason = Some(reason.to_string());
        }
    }

    /// A node of this host has registered.
    pub(crate) fn registered(&mut self, node: NodeId) {
        if self.here.insert(node) {
            self.note(NetworkChange::NodeUp, self.me, Some(node));
        }
    }

    /// A node of this host has gone.
    pub(crate) fn gone(&mut self, node: NodeId, reason: DropReason) {
        self.watchers.remove(&node);
        if self.here.remove(&node)
            && let Some(event) = self.note(NetworkChange::NodeGone, self.me, Some(node))
        {
            event.reason = Some(reason.to_string());
        }
    }

    /// A record has come, in the place of an older one of the same instance if there was one.
    pub(crate) fn put(&mut self, old: Option<&Record>, record: &Record) {
        if record.scope != Scope::Lan {
            return;
        }
        let peer = record.instance.peer();
        if old.is_none() && peer.host != self.me {
            let count = self.elsewhere.entry(peer).or_default();
            *count += 1;
            if *count == 1 {
                self.note(NetworkChange::NodeUp, peer.host, Some(peer.node));
            }
        }
        // A claim that waits for its turn is published when that has come.
        match (old.is_some_and(Record::is_offer), record.is_offer()) {
            (false, true) => self.note_record(NetworkChange::Published, record, None),
            (true, false) => {
                self.note_record(NetworkChange::Withdrawn, record, Some(DropReason::Outranked));
            }
            _ => {}
        }
    }

    /// A record has gone.
    pub(crate) fn dropped(&mut self, record: &Record, reason: DropReason) {
        if record.scope != Scope::Lan {
            return;
        }
        let peer = record.instance.peer();
        if record.is_offer() {
            self.note_record(NetworkChange::Withdrawn, record, Some(reason));
        }
        if let Some(count) = self.elsewhere.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.elsewhere.remove(&peer);
                if let Some(event) = self.note(NetworkChange::NodeGone, peer.host, Some(peer.node))
                {
                    event.reason = Some(reason.to_string());
                }
            }
        }
    }

    /// What has happened since it was asked last, and who wants to know.
    pub(crate) fn take(&mut self) -> Option<(Vec<NodeId>, Vec<NetworkEvent>)> {
        if self.events.is_empty() {
            return None;
        }
        Some((self.watchers.iter().copied().collect(), std::mem::take(&mut self.events)))
    }

    fn note_record(&mut self, change: NetworkChange, record: &Record, reason: Option<DropReason>) {
        let instance = record.instance;
        if let Some(event) = self.note(change, instance.host, Some(instance.node)) {
            event.name = Some(record.name.clone());
            event.serial = Some(instance.serial);
            event.reason = reason.map(|reason| reason.to_string());
        }
    }

    fn note(
        &mut self,
        event: NetworkChange,
        host: HostId,
        node: Option<NodeId>,
    ) -> Option<&mut NetworkEvent> {
        if self.watchers.is_empty() {
            return None;
        }
        self.events.push(NetworkEvent {
            // Whoever is told knows the time and the host's name.
            at: 0,
            host_name: String::new(),
            event,
            host,
            node,
            name: None,
            serial: None,
            reason: None,
        });
        self.events.last_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{peer, record};

    fn told(journal: &mut Journal) -> Vec<(NetworkChange, u64, Option<String>)> {
        let events = journal.take().map(|(_, events)| events).unwrap_or_default();
        let node = |e: &NetworkEvent| e.node.map_or(0, NodeId::to_bits);
        events.iter().map(|e| (e.event, node(e), e.reason.clone())).collect()
    }

    #[test]
    fn a_node_elsewhere_comes_with_its_first_record_and_goes_with_its_last() {
        let mut journal = Journal::new(HostId::from_bits(1));
        let [a, b] = [1, 2].map(|serial| record(peer(2, 7), serial, "a", Scope::Lan));
        journal.put(None, &a);
        assert_eq!(told(&mut journal), [], "nobody watches");
        journal.watch(NodeId::from_bits(5), true);
        journal.put(None, &b);
        assert_eq!(told(&mut journal), [(NetworkChange::Published, 7, None)]);
        journal.dropped(&a, DropReason::Withdrawn);
        assert_eq!(
            told(&mut journal),
            [(NetworkChange::Withdrawn, 7, Some("withdrawn".to_owned()))]
        );
        journal.dropped(&b, DropReason::ProcessDied);
        let died = Some("process died".to_owned());
        let expected =
            [(NetworkChange::Withdrawn, 7, died.clone()), (NetworkChange::NodeGone, 7, died)];
        assert_eq!(told(&mut journal), expected);
    }

    #[test]
    fn a_claim_is_published_when_its_turn_has_come() {
        let mut journal = Journal::new(HostId::from_bits(1));
        journal.watch(NodeId::from_bits(5), true);
        let granted = Record { exclusive: true, ..record(peer(2, 7), 1, "a", Scope::Lan) };
        let waiting = Record { waiting: true, ..granted.clone() };
        journal.put(None, &waiting);
        assert_eq!(told(&mut journal), [(NetworkChange::NodeUp, 7, None)]);
        journal.put(Some(&waiting), &granted);
        assert_eq!(told(&mut journal), [(NetworkChange::Published, 7, None)]);
        journal.put(Some(&granted), &granted);
        assert_eq!(told(&mut journal), [], "nothing new");
        journal.put(Some(&granted), &waiting);
        journal.dropped(&waiting, DropReason::Withdrawn);
        let reason = |text: &str| Some(text.to_owned());
        let expected = [
            (NetworkChange::Withdrawn, 7, reason("outranked by an older claim")),
            (NetworkChange::NodeGone, 7, reason("withdrawn")),
        ];
        assert_eq!(told(&mut journal), expected);
    }

    #[test]
    fn a_node_here_comes_and_goes_with_its_registration() {
        let mut journal = Journal::new(HostId::from_bits(1));
        let (watcher, node) = (NodeId::from_bits(5), NodeId::from_bits(6));
        journal.watch(watcher, true);
        journal.registered(node);
        journal.registered(node);
        journal.put(None, &record(peer(1, 6), 1, "near", Scope::Host));
        assert_eq!(told(&mut journal), [(NetworkChange::NodeUp, 6, None)]);
        journal.gone(node, DropReason::ProcessDied);
        let died = Some("process died".to_owned());
        assert_eq!(told(&mut journal), [(NetworkChange::NodeGone, 6, died)]);
        journal.gone(watcher, DropReason::Withdrawn);
        journal.registered(node);
        assert_eq!(told(&mut journal), [], "the watcher has gone");
    }
}
