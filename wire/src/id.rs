//! Identities: who a host, a node and an actor are, in text for people and in bytes for machines.
//!
//! Everything else in the workspace names things with these types. They carry no behaviour and
//! reach nothing; what proves that a peer *is* who it says lives in [`crate::trust`].

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a piece of text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: expected 16 hexadecimal digits")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Draws a fresh identity at random; 64 bits, so that clashes within a mesh do not occur.
            #[must_use]
            pub fn random() -> Self {
                Self(rand::random())
            }

            /// The identity with these bits.
            #[must_use]
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// The bits of the identity.
            #[must_use]
            pub const fn to_bits(self) -> u64 {
                self.0
            }

            /// The first four digits, for logs and tables.
            #[must_use]
            pub fn short(self) -> String {
                format!("{:04x}", self.0 >> 48)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:016x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { what: $what, text: text.to_owned() };
                if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                u64::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
            }
        }
    };
}

id!(
    /// A machine or container in the mesh. Drawn once, when the host certificate is made.
    HostId,
    "host id"
);
id!(
    /// A process with a node agent. Drawn at every start and never used again.
    NodeId,
    "node id"
);

/// The number of an actor within its node. Never used twice by one node.
pub type ActorSerial = u64;

/// The trust domain: the name of the mesh and the fingerprint of its certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MeshId {
    /// The name, as it stands in SPIFFE ids: lower-case letters, digits and dashes.
    pub name: Arc<str>,
    /// SHA-256 of the certificate of the authority (DER).
    pub fingerprint: [u8; 32],
}

impl MeshId {
    /// The first eight bytes of the fingerprint in hexadecimal: what mDNS announces and people compare.
    #[must_use]
    pub fn short(&self) -> String {
        self.fingerprint[..8].iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Who is at the other end of a link, as proved by its certificate or by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId {
    /// The host it runs on.
    pub host: HostId,
    /// The process.
    pub node: NodeId,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node.short(), self.host.short())
    }
}

/// How many addresses of one node are kept and tried; more are cut off.
pub const MAX_HINTS: usize = 16;

/// A node and where it may be reached. The hints are only that: the identity is what is checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAddr {
    /// Who.
    pub peer: PeerId,
    /// Where its QUIC endpoint may be found; at most [`MAX_HINTS`]. Empty for a node that is only
    /// reachable on its own host.
    pub hints: Arc<[SocketAddr]>,
}

impl NodeAddr {
    /// An address with at most [`MAX_HINTS`] of the given hints.
    #[must_use]
    pub fn new(peer: PeerId, hints: &[SocketAddr]) -> Self {
        Self { peer, hints: hints[..hints.len().min(MAX_HINTS)].into() }
    }
}

/// A name of an actor that is valid everywhere in the mesh, without its type and without its node's
/// agent: what travels in frames, records and files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActorAddr {
    /// Its node.
    pub node: NodeAddr,
    /// Which actor of that node.
    pub serial: ActorSerial,
}

impl fmt::Display for ActorAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node.peer, self.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_from_its_text() {
        let id = NodeId::random();
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(HostId::from_bits(0x7f3a_0000_0000_0001).short(), "7f3a");
    }

    #[test]
    fn other_text_is_refused_by_name() {
        for text in ["", "7f3a", "+000000000000001", "zzzzzzzzzzzzzzzz", "00000000000000001"] {
            let error = text.parse::<HostId>().expect_err(text);
            assert!(error.to_string().contains("is not a host id"), "{error}");
        }
    }
}
