//! Small makers of values for the tests of this crate.

use bytes::Bytes;
use layercake_wire::id::{ActorAddr, HostId, NodeAddr, NodeId, PeerId};

use crate::{
    host::HostConfig,
    name::{Name, Scope},
    record::{Instance, Record},
};

pub(crate) fn peer(host: u64, node: u64) -> PeerId {
    PeerId { host: HostId::from_bits(host), node: NodeId::from_bits(node) }
}

pub(crate) fn record(peer: PeerId, serial: u64, name: &str, scope: Scope) -> Record {
    let port = 1000 + u16::try_from(peer.node.to_bits()).unwrap_or(0);
    Record {
        name: Name::new(name).expect("a good name"),
        scope,
        group: None,
        exclusive: false,
        waiting: false,
        address: ActorAddr { node: NodeAddr::new(peer, &[([10, 0, 0, 1], port).into()]), serial },
        instance: Instance { host: peer.host, node: peer.node, serial },
        claimed: 0,
        fence: 0,
        meta: Bytes::new(),
    }
}

/// Of host 1, whose directory is embedded in its node 1.
pub(crate) fn host_config() -> HostConfig {
    HostConfig {
        addr: NodeAddr::new(peer(1, 1), &[]),
        host_name: "one".to_owned(),
        incarnation: 7,
        departed: None,
        seed: 1,
    }
}
