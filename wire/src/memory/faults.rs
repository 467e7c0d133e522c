//! What is wrong between which places. A plain value: [`super::Network`] applies it.

use std::{collections::HashMap, time::Duration};

use crate::id::{HostId, NodeId, PeerId};

/// One side of a fault: a node, or a host with every node on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// One node.
    Node(NodeId),
    /// All nodes of a host, also those that start later.
    Host(HostId),
}

impl From<NodeId> for Place {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

impl From<PeerId> for Place {
    fn from(peer: PeerId) -> Self {
        Self::Node(peer.node)
    }
}

impl From<HostId> for Place {
    fn from(host: HostId) -> Self {
        Self::Host(host)
    }
}

impl Place {
    pub(super) fn holds(self, peer: PeerId) -> bool {
        match self {
            Self::Node(node) => node == peer.node,
            Self::Host(host) => host == peer.host,
        }
    }
}

/// What is wrong on the way between two nodes, the same in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) cut: bool,
    pub(super) stalled: bool,
    pub(super) delay: Duration,
}

/// All faults, by the two places that they are between.
#[derive(Debug, Default)]
pub(super) struct Faults(HashMap<(Place, Place), Fault>);

impl Faults {
    pub(super) fn change(&mut self, a: Place, b: Place, change: impl FnOnce(&mut Fault)) {
        change(self.0.entry(pair(a, b)).or_default());
    }

    pub(super) fn heal(&mut self, a: Place, b: Place) {
        self.0.remove(&pair(a, b));
    }

    /// Everything that is wrong between two nodes; of several delays the longest.
    pub(super) fn between(&self, one: PeerId, other: PeerId) -> Fault {
        let mut all = Fault::default();
        for ((a, b), fault) in &self.0 {
            if (a.holds(one) && b.holds(other)) || (a.holds(other) && b.holds(one)) {
                all.cut |= fault.cut;
                all.stalled |= fault.stalled;
                all.delay = all.delay.max(fault.delay);
            }
        }
        all
    }
}

fn pair(a: Place, b: Place) -> (Place, Place) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u64, node: u64) -> PeerId {
        PeerId { host: HostId::from_bits(host), node: NodeId::from_bits(node) }
    }

    #[test]
    fn faults_of_hosts_and_of_nodes_add_up_and_heal_apart() {
        let (one, other, third) = (peer(1, 11), peer(2, 22), peer(2, 23));
        let mut faults = Faults::default();
        faults.change(one.host.into(), other.host.into(), |f| f.delay = Duration::from_secs(2));
        faults.change(other.into(), one.into(), |f| f.stalled = true);
        faults.change(other.into(), one.into(), |f| f.delay = Duration::from_secs(1));
        let both = Fault { cut: false, stalled: true, delay: Duration::from_secs(2) };
        assert_eq!(faults.between(one, other), both);
        assert_eq!(faults.between(other, one), both);
        assert_eq!(faults.between(third, one), Fault { stalled: false, ..both });
        assert_eq!(faults.between(other, third), Fault::default());
        faults.heal(other.host.into(), one.host.into());
        let rest = Fault { cut: false, stalled: true, delay: Duration::from_secs(1) };
        assert_eq!(faults.between(one, other), rest);
        faults.heal(one.into(), other.into());
        assert_eq!(faults.between(one, other), Fault::default());
    }

    #[test]
    fn a_host_may_be_cut_within() {
        let mut faults = Faults::default();
        let (one, other) = (peer(1, 11), peer(1, 12));
        faults.change(one.host.into(), one.host.into(), |f| f.cut = true);
        assert!(faults.between(one, other).cut);
        assert!(!faults.between(one, peer(2, 21)).cut);
    }
}
