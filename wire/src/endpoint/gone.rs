//! The nodes that have ended: nobody needs to dial them.

use std::collections::{HashSet, VecDeque};

use crate::id::NodeId;

/// Nodes that are remembered as gone; the one that went first is forgotten first.
pub(super) const MAX_GONE: usize = 4096;

/// See the module. A node's identity is not used twice, so what is in here stays true; unless whoever
/// said so was wrong, which a proof of life shows.
#[derive(Default)]
pub(super) struct Gone {
    nodes: HashSet<NodeId>,
    order: VecDeque<NodeId>,
}

impl Gone {
    pub(super) fn insert(&mut self, node: NodeId) {
        if !self.nodes.insert(node) {
            return;
        }
        if self.order.len() >= MAX_GONE
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
        self.order.push_back(node);
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        if self.nodes.remove(&node) {
            self.order.retain(|other| *other != node);
        }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_go_is_forgotten_first() {
        let mut gone = Gone::default();
        let node = |n: usize| NodeId::from_bits(n as u64);
        (0..MAX_GONE).for_each(|n| gone.insert(node(n)));
        gone.insert(node(5));
        assert!((0..MAX_GONE).all(|n| gone.contains(node(n))), "nobody twice");
        gone.remove(node(7));
        gone.insert(node(MAX_GONE));
        assert!(gone.contains(node(0)) && !gone.contains(node(7)));
        gone.insert(node(MAX_GONE + 1));
        assert!(!gone.contains(node(0)) && gone.contains(node(1)));
        assert_eq!((gone.nodes.len(), gone.order.len()), (MAX_GONE, MAX_GONE));
    }
}
