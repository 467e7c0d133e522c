//! Records: what a publication looks like to everybody else.

use std::{fmt, ops::RangeInclusive};

use bytes::Bytes;
use layercake_wire::id::{ActorAddr, HostId, MAX_HINTS, NodeId, PeerId};
use serde::{Deserialize, Serialize};

use crate::{
    group::Group,
    name::{Name, Scope},
};

/// The largest description that may go with a record, in bytes.
pub const MAX_META: usize = 64 << 10;
/// Records that one node may have published at a time, beside the one that says that it is there.
pub const MAX_RECORDS: usize = 65_536;
/// Subscriptions that one node may have at a time, beside the one that serves all its watches of nodes.
pub const MAX_SUBSCRIPTIONS: usize = 1024;

/// Tells publications apart, also those of one name. Ordered by host, node and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// The host of the publisher.
    pub host: HostId,
    /// Its node.
    pub node: NodeId,
    /// The number of the publication within the node; never used twice.
    pub serial: u64,
}

impl Instance {
    /// Nothing comes before it.
    pub(crate) const FIRST: Self =
        Self { host: HostId::from_bits(0), node: NodeId::from_bits(0), serial: 0 };
    /// Nothing comes after it.
    pub(crate) const LAST: Self = Self {
        host: HostId::from_bits(u64::MAX),
        node: NodeId::from_bits(u64::MAX),
        serial: u64::MAX,
    };

    /// All that a process may publish, for looking it up in order.
    pub(crate) const fn all_of(PeerId { host, node }: PeerId) -> RangeInclusive<Self> {
        Self { host, node, serial: 0 }..=Self { host, node, serial: u64::MAX }
    }

    /// The process that published it.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        PeerId { host: self.host, node: self.node }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.peer(), self.serial)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instance({self})")
    }
}

/// One publication of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name.
    pub name: Name,
    /// How far it is visible.
    pub scope: Scope,
    /// The group of its publisher. Groups are of one host: elsewhere it means nothing.
    pub group: Option<Group>,
    /// Whether the name has one holder in its scope; otherwise it may have many instances.
    pub exclusive: bool,
    /// Whether it waits for the name, which somebody else holds. Subscribers are not shown such a
    /// record.
    pub waiting: bool,
    /// The actor behind the name.
    pub address: ActorAddr,
    /// Which publication this is.
    pub instance: Instance,
    /// When it was claimed, in milliseconds since 1970 by the clock of its host. Between two claims
    /// of an exclusive name the older one stays, and of those that wait the oldest is next.
    pub claimed: u64,
    /// The fencing number: it rises with every grant of the same exclusive name, so that what comes with
    /// a lower one comes from a former holder. Zero while the claim waits. See
    /// [`FenceGuard`](crate::FenceGuard).
    pub fence: u64,
    /// A description for those who find it, opaque to the directory; at most [`MAX_META`] bytes.
    pub meta: Bytes,
}

/// What exclusive claims compete for: a name within its scope and, at [`Scope::Group`], in one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Title {
    pub(crate) name: Name,
    pub(crate) scope: Scope,
    group: Option<Group>,
}

impl Title {
    /// Whether a record of the same name competes for it, too.
    pub(crate) fn covers(&self, record: &Record) -> bool {
        self.scope == record.scope && (self.scope != Scope::Group || self.group == record.group)
    }
}

impl Record {
    /// What it competes for.
    pub(crate) fn title(&self) -> Title {
        let group = self.group.clone().filter(|_| self.scope == Scope::Group);
        Title { name: self.name.clone(), scope: self.scope, group }
    }

    /// Who of two holders of an exclusive name stays: the lower rank.
    pub(crate) const fn rank(&self) -> (u64, Instance) {
        (self.claimed, self.instance)
    }

    /// Whether a node may say this of itself.
    pub(crate) fn is_sound(&self, from: PeerId) -> bool {
        self.instance.peer() == from
            && self.address.node.peer == from
            && self.address.node.hints.len() <= MAX_HINTS
            && self.meta.len() <= MAX_META
            && (self.scope != Scope::Group || self.group.is_some())
            && (!self.waiting || (self.exclusive && self.fence == 0))
            && (!self.name.is_reserved() || self.is_presence(from))
    }

    /// Whether it is what a node says to be there: the one name of the system that it may have.
    fn is_presence(&self, of: PeerId) -> bool {
        self.name == Name::presence(of.node)
            && self.scope == Scope::Lan
            && !self.exclusive
            && self.meta.is_empty()
    }

    /// Whether the same publication may say this later: it does not change what it is about.
    pub(crate) fn may_become(&self, later: &Self) -> bool {
        self.instance == later.instance
            && self.name == later.name
            && self.scope == later.scope
            && self.group == later.group
            && self.exclusive == later.exclusive
            && (self.waiting || !later.waiting)
    }

    /// Whether it is there to be found.
    pub(crate) fn is_offer(&self) -> bool {
        !self.waiting && !self.name.is_reserved()
    }

    /// Roughly what it takes when encoded, for cutting long lists.
    pub(crate) fn size(&self) -> usize {
        192 + self.name.as_str().len() + self.meta.len() + 24 * self.address.node.hints.len()
    }
}

/// Why a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DropReason {
    /// Its publisher withdrew it, or left in order.
    Withdrawn,
    /// The process of its publisher ended without a word.
    ProcessDied,
    /// Its host is gone: it does not answer anybody, or this host is cut off.
    HostLost,
    /// A nearer holder of the exclusive name took its place for this subscriber.
    Replaced,
    /// An older claim of the exclusive name turned up, as after a partition.
    Outranked,
    /// Its host is there, as others say, and cannot be reached from this one.
    LinkLost,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Withdrawn => "withdrawn",
            Self::ProcessDied => "process died",
            Self::HostLost => "host lost",
            Self::LinkLost => "link lost",
            Self::Replaced => "replaced by a nearer one",
            Self::Outranked => "outranked by an older claim",
        })
    }
}
