//! What is stored in etcd, and where.
//!
//! ```text
//! /layercake/MESH/epoch                      added to revisions, so that fencing numbers only rise
//! /layercake/MESH/hosts/HOST                 a host that is there           ┐
//! /layercake/MESH/gone/HOST                  its processes that ended last  │ under the
//! /layercake/MESH/records/HOST/NODE/SERIAL   a shared name                  │ host's lease
//! /layercake/MESH/names/NAME                 an exclusive name              ┘
//! ```
//!
//! `MESH` is its name and the beginning of its fingerprint, so that meshes share an etcd without
//! meeting. Keys are for people to read; values are directory messages: a version byte and bincode.

use layercake_wire::id::{HostId, MeshId, NodeAddr, NodeId};
use serde::{Deserialize, Serialize};

use crate::{name::Name, record::Instance};

/// The keys of one mesh.
pub(crate) struct Keys(String);

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Epoch,
    Host(HostId),
    Gone(HostId),
    Record(Instance),
    Name(Name),
}

/// A host that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostValue {
    pub(crate) incarnation: u64,
    pub(crate) addr: NodeAddr,
    pub(crate) host_name: String,
    /// Whether everything that it offers is stored; before, what is missing has not gone.
    pub(crate) complete: bool,
    /// Whether it is about to go in order.
    pub(crate) leaving: bool,
}

/// Processes of a host that have just ended without a word. Written before their records are removed,
/// so that others know why.
pub(crate) type GoneValue = Vec<NodeId>;

impl Keys {
    pub(crate) fn new(mesh: &MeshId) -> Self {
        Self(format!("/layercake/{}-{}/", mesh.name, mesh.short()))
    }

    /// What all keys of the mesh begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.0
    }

    pub(crate) fn text(&self, key: &Key) -> String {
        let Self(prefix) = self;
        match key {
            Key::Epoch => format!("{prefix}epoch"),
            Key::Host(host) => format!("{prefix}hosts/{host}"),
            Key::Gone(host) => format!("{prefix}gone/{host}"),
            Key::Record(Instance { host, node, serial }) => {
                format!("{prefix}records/{host}/{node}/{serial}")
            }
            Key::Name(name) => format!("{prefix}names/{}", name.as_str()),
        }
    }

    /// What a key stands for; `None` for one that is not ours.
    pub(crate) fn parse(&self, text: &[u8]) -> Option<Key> {
        let text = std::str::from_utf8(text).ok()?.strip_prefix(&self.0)?;
        if text == "epoch" {
            return Some(Key::Epoch);
        }
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "hosts" => rest.parse().ok().map(Key::Host),
            "gone" => rest.parse().ok().map(Key::Gone),
            "records" => {
                let mut fields = rest.split('/');
                let host = fields.next()?.parse().ok()?;
                let node = fields.next()?.parse().ok()?;
                let serial = fields.next()?.parse().ok()?;
                fields.next().is_none().then_some(Key::Record(Instance { host, node, serial }))
            }
            // Names of the system are never exclusive.
            "names" => Name::new(rest).ok().map(Key::Name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let mesh = MeshId { name: "cake".into(), fingerprint: [7; 32] };
        let keys = Keys::new(&mesh);
        assert_eq!(keys.prefix(), "/layercake/cake-0707070707070707/");
        let host = peer(1, 2).host;
        let instance = Instance { host, node: peer(1, 2).node, serial: 3 };
        let name = Name::new("a/b:c").unwrap();
        for key in
            [Key::Epoch, Key::Host(host), Key::Gone(host), Key::Record(instance), Key::Name(name)]
        {
            assert_eq!(keys.parse(keys.text(&key).as_bytes()), Some(key));
        }
        for odd in ["", "hosts/", "hosts/7", "records/1/2/3", "names/", "names/layercake:x", "x/y"]
        {
            assert_eq!(keys.parse(format!("{}{odd}", keys.prefix()).as_bytes()), None, "{odd}");
        }
        assert_eq!(keys.parse(b"/layercake/other/epoch"), None);
        assert_eq!(keys.parse(&[0xff, 0xfe]), None);
    }
}
