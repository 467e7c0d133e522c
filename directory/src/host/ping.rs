//! Pings by way of the directories: whether the directory of a host answers, or a node by way of it.

use std::collections::BTreeMap;

use layercake_wire::id::{HostId, NodeId, PeerId};

use super::{Effect, HostCore};
use crate::message::{ToNode, ToPeer};

/// Pings that are under way; the oldest is forgotten first, for who asked has given up long ago.
const MAX_PINGS: usize = 1024;

/// Who is to answer.
#[derive(PartialEq, Eq)]
enum Whom {
    Host(HostId),
    Node(NodeId),
}

/// Who is told.
enum Asker {
    Node { node: NodeId, request: u64 },
    Peer { peer: PeerId, number: u64 },
}

/// Those that are under way.
#[derive(Default)]
pub(super) struct Pings {
    last: u64,
    waiting: BTreeMap<u64, (Whom, Asker)>,
}

impl Pings {
    fn begin(&mut self, whom: Whom, asker: Asker) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, (whom, asker));
        if self.waiting.len() > MAX_PINGS {
            self.waiting.pop_first();
        }
        self.last
    }

    fn end(&mut self, number: u64, whom: &Whom) -> Option<Asker> {
        let asked = self.waiting.get(&number).is_some_and(|(asked, _)| asked == whom);
        if asked { self.waiting.remove(&number).map(|(_, asker)| asker) } else { None }
    }
}

impl HostCore {
    /// A node of this host pings a host, or a node there.
    pub(super) fn on_ping(
        &mut self,
        from: NodeId,
        request: u64,
        host: HostId,
        node: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        let asker = Asker::Node { node: from, request };
        if host == self.me.host {
            return self.ping_here(asker, node, out);
        }
        match self.remotes.get(&host).and_then(|remote| remote.link) {
            Some(peer) => {
                let number = self.pings.begin(Whom::Host(host), asker);
                out.push(Effect::ToPeer { peer, message: ToPeer::Ping { number, node } });
            }
            None => answer(&asker, false, out),
        }
    }

    /// The directory of another host pings this one, or a node here.
    pub(super) fn on_peer_ping(
        &mut self,
        peer: PeerId,
        number: u64,
        node: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        self.ping_here(Asker::Peer { peer, number }, node, out);
    }

    fn ping_here(&mut self, asker: Asker, node: Option<NodeId>, out: &mut Vec<Effect>) {
        match node {
            Some(node) if self.nodes.contains_key(&node) => {
                let number = self.pings.begin(Whom::Node(node), asker);
                out.push(Effect::ToNode { node, message: ToNode::Ping(number) });
            }
            other => answer(&asker, other.is_none(), out),
        }
    }

    /// A node of this host has answered.
    pub(super) fn on_node_pong(&mut self, node: NodeId, number: u64, out: &mut Vec<Effect>) {
        if let Some(asker) = self.pings.end(number, &Whom::Node(node)) {
            answer(&asker, true, out);
        }
    }

    /// The directory of another host has answered, for itself or for a node.
    pub(super) fn on_peer_pong(
        &mut self,
        host: HostId,
        number: u64,
        reached: bool,
        out: &mut Vec<Effect>,
    ) {
        if let Some(asker) = self.pings.end(number, &Whom::Host(host)) {
            answer(&asker, reached, out);
        }
    }
}

fn answer(asker: &Asker, reached: bool, out: &mut Vec<Effect>) {
    out.push(match *asker {
        Asker::Node { node, request } => {
            Effect::ToNode { node, message: ToNode::Pong { request, reached } }
        }
        Asker::Peer { peer, number } => {
            Effect::ToPeer { peer, message: ToPeer::Pong { number, reached } }
        }
    });
}
