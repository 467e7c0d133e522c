//! What nodes, their host directory and other host directories tell each other.
//!
//! Every message is a version byte and a bincode value, posted on a link. Lists of records are cut
//! into parts, so that no single message holds up a link. Nothing here is recursive, and whatever is
//! decoded is checked by those who receive it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use layercake_wire::{
    id::{HostId, NodeAddr, NodeId, PeerId},
    payload::{self, CodecError, Encoding},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    group::Group,
    name::{Pattern, Scope},
    network::{About, NetworkEvent, NodeAnswer},
    record::{DropReason, Instance, Record},
    trouble::Trouble,
};

/// The version of these messages; another one is not understood.
const VERSION: u8 = 1;
/// A list of records longer than so many bytes is cut into parts.
pub(crate) const MAX_PART: usize = 256 << 10;

/// Why a message is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(
        "directory messages of version {0}; this build speaks version {VERSION}; run builds of one version on all hosts"
    )]
    Version(u8),
    #[error("an empty directory message")]
    Empty,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Encodes a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, CodecError> {
    let body = payload::encode(Encoding::Bincode, message)?;
    let mut bytes = BytesMut::with_capacity(1 + body.len());
    bytes.put_u8(VERSION);
    bytes.put_slice(&body);
    Ok(bytes.freeze())
}

/// Decodes a message.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    match bytes.split_first() {
        None => Err(MessageError::Empty),
        Some((&VERSION, body)) => Ok(payload::decode(Encoding::Bincode, body)?),
        Some((other, _)) => Err(MessageError::Version(*other)),
    }
}

/// Cuts records into parts of about [`MAX_PART`] bytes; at least one part, which may be empty.
pub(crate) fn parts(records: impl IntoIterator<Item = Arc<Record>>) -> Vec<Vec<Arc<Record>>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for record in records {
        size += record.size();
        if size > MAX_PART && parts.last().is_some_and(|part| !part.is_empty()) {
            size = record.size();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(record);
        }
    }
    parts
}

/// From a node to its host directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToHost {
    /// Begins a registration: whatever this node said before is void.
    /// `before`: the highest number that the node knows to have been given by the directory that it was
    /// registered with before, if it was.
    Register { group: Option<Group>, before: Option<u64> },
    /// Claims names, or repeats claims that an earlier directory granted (their fence is not zero).
    /// Each is answered by `Granted`, `Waiting` or `Refused`.
    Publish(Vec<Arc<Record>>),
    /// Gives a name back.
    Withdraw(u64),
    /// Asks for what matches, up to a scope.
    Subscribe { id: u64, pattern: Pattern, scope: Scope },
    /// Ends a subscription.
    Unsubscribe(u64),
    /// Ends a registration: this was all.
    Registered,
    /// Asks for the table of hosts.
    Hosts(u64),
    /// The node leaves in order.
    Bye,
    /// Asks for `Synced` once everything before this has been dealt with.
    Sync(u64),
    /// The node is a daemon and wants to be the directory. Where the directory is only embedded it
    /// lets go of its lock and answers `Yielded`.
    Yield,
    /// The node has become the directory in place of the one that this is sent to.
    Taken,
    /// What process this node is; part of a registration.
    About(About),
    /// Asks for the whole [`Network`](crate::Network).
    Network(u64),
    /// The answer to `Tell`.
    Told { round: u64, answer: NodeAnswer },
    /// Whether to be told what happens in the mesh.
    WatchNetwork(bool),
    /// Asks the directory of a host whether it is there, or a node by way of it; answered by `Pong`.
    Ping { request: u64, host: HostId, node: Option<NodeId> },
    /// The answer to `Ping` from the directory.
    Pong(u64),
    /// Asks what does not work in finding other hosts.
    Troubles(u64),
}

/// From a host directory to a node of its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// The registration has begun; where this directory is reached from other hosts. Said again when that
    /// changes.
    Welcome { addr: NodeAddr },
    /// A claim was granted.
    Granted { serial: u64, claimed: u64, fence: u64 },
    /// A claim was refused, or a grant taken back.
    Refused { serial: u64, reason: Refusal },
    /// Records came, changed and went.
    Changed { put: Vec<Arc<Record>>, dropped: Vec<(Instance, DropReason)> },
    /// A complete set of the records of a host, as far as this node asked for them. A part that is
    /// not the last is kept until the last comes. Of the nodes not listed no process is known.
    View { host: HostId, nodes: BTreeSet<NodeId>, records: Vec<Arc<Record>>, last: bool },
    /// A complete set of the hosts; whatever came from others has gone with them.
    Known(BTreeSet<HostId>),
    /// A process has ended: links to it are dead.
    ProcessGone(PeerId),
    /// A host is lost: links to it are dead.
    HostGone(HostId),
    /// This directory stops, while its process may go on for a while.
    Leaving,
    /// The answer to `Hosts`.
    Hosts { request: u64, hosts: Vec<HostView> },
    /// A claim waits for its turn.
    Waiting { serial: u64, claimed: u64 },
    /// Numbers up to this may be given, and are to be told to the directory after this one.
    Fences(u64),
    /// The answer to `Sync`.
    Synced(u64),
    /// The directory has let go of its lock and goes on until it hears `Taken`.
    Yielded,
    /// Asks for what only the node knows: its links, and names within the process.
    Tell(u64),
    /// The answer to `Network`: an encoded one, in parts.
    Network { request: u64, part: Bytes, last: bool },
    /// What has happened in the mesh.
    NetworkEvents(Vec<NetworkEvent>),
    /// Asks whether the node answers.
    Ping(u64),
    /// The answer to `Ping` from the node. Not reached means that there is no link to that host, or no
    /// such node there; of what does not answer nothing is told.
    Pong { request: u64, reached: bool },
    /// The answer to `Troubles`.
    Troubles { request: u64, troubles: Vec<Trouble> },
    /// A host cannot be reached from this one, while others reach it. Links to it may work.
    LinkGone(HostId),
}

/// Why a claim was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Somebody else holds the name.
    Held(Arc<Record>),
    /// The node has as many records as it may have.
    TooMany,
    /// Only etcd could grant it, or let it go on, and it cannot be reached.
    NoLease,
}

/// Between host directories. Each speaks for the host that its link proves, and no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToPeer {
    /// Who is speaking, and whether it has `met` the other, that is heard its hello. Followed by a snapshot,
    /// and answered in kind: the first time, and where it has not although the other has met it (what it
    /// was sent went down with a link that was replaced).
    Hello { incarnation: u64, renewal: u16, addr: NodeAddr, host_name: String, met: bool },
    /// The records of this host. One that is not complete only adds; parts are kept until the last.
    Snapshot {
        incarnation: u64,
        sequence: u64,
        complete: bool,
        nodes: BTreeSet<NodeId>,
        records: Vec<Arc<Record>>,
        last: bool,
    },
    /// What changed since the delta before.
    Delta {
        incarnation: u64,
        sequence: u64,
        put: Vec<Arc<Record>>,
        dropped: Vec<(Instance, DropReason)>,
    },
    /// What the receiver should have by now.
    Digest { incarnation: u64, sequence: u64, count: u64, sum: u64 },
    /// Asks for a snapshot.
    Pull,
    /// A process of this host has ended.
    ProcessGone(NodeId),
    /// This host leaves in order.
    Bye,
    /// Asks whether everything before this has arrived; answered by `Flushed`.
    Flush,
    /// It has.
    Flushed,
    /// From a node that is no host directory: this is where its host's directory is.
    Elsewhere(NodeAddr),
    /// While the two could not hear each other, numbers up to this may have been given: exclusive
    /// claims that the receiver has granted must rise above.
    Fence(u64),
    /// Asks for what this host knows of its nodes, in so many bytes at most.
    Survey { round: u64, room: u32 },
    /// The answer: an encoded [`HostAnswer`](crate::network::HostAnswer), in parts.
    Surveyed { round: u64, part: Bytes, last: bool },
    /// Asks whether the directory answers, or a node of its host.
    Ping { number: u64, node: Option<NodeId> },
    /// It does, or there is no such node.
    Pong { number: u64, reached: bool },
    /// Asks where the directory of another host is. Membership carries only a few of its addresses, and
    /// they may be the dead ones.
    Where(HostId),
    /// The answer, from a host that has a link to it: all its addresses.
    There(NodeAddr),
    /// The answer to the `Hello` of a directory whose host was known under this later incarnation.
    Later(u64),
}

/// Cuts an encoded value into parts of [`MAX_PART`] bytes, each with whether it is the last; at least
/// one part, which may be empty.
pub(crate) fn cut(mut bytes: Bytes) -> Vec<(Bytes, bool)> {
    let mut parts = Vec::new();
    while bytes.len() > MAX_PART {
        parts.push((bytes.split_to(MAX_PART), false));
    }
    parts.push((bytes, true));
    parts
}

/// A host as its directory, or another host's, sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Which host.
    pub host: HostId,
    /// What it calls itself; empty when it has not said so yet.
    pub host_name: String,
    /// The node that embeds its directory and where that is reached; of a host that was never
    /// reached the node is unknown.
    pub directory: Option<NodeAddr>,
    /// Whether the two directories have a link. Of the own host: true. Where hosts meet in etcd they
    /// need none.
    pub linked: bool,
    /// Whether it answers probes or, where hosts meet in etcd, is there. Of the own host: true.
    pub alive: bool,
    /// Nodes of the own host that are registered; of others those that published something or talk to
    /// other hosts.
    pub nodes: usize,
    /// Records it offers to the mesh.
    pub records: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{peer, record};

    #[test]
    fn messages_come_back_as_they_were() {
        let put = vec![Arc::new(record(peer(1, 2), 3, "a:b", Scope::Lan))];
        let message = ToPeer::Delta { incarnation: 5, sequence: 6, put, dropped: Vec::new() };
        let bytes = encode(&message).unwrap();
        assert_eq!(decode::<ToPeer>(&bytes).unwrap(), message);
        let message =
            ToHost::Subscribe { id: 1, pattern: Pattern::new("a:.*").unwrap(), scope: Scope::Host };
        assert_eq!(decode::<ToHost>(&encode(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn another_version_is_named() {
        let error = decode::<ToHost>(&[9, 0]).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
        assert!(decode::<ToHost>(&[]).is_err());
    }

    #[test]
    fn long_lists_are_cut_and_nothing_is_lost() {
        let records: Vec<_> = (0..100)
            .map(|serial| {
                let mut record = record(peer(1, 1), serial, "a", Scope::Lan);
                record.meta = vec![7; 20_000].into();
                Arc::new(record)
            })
            .collect();
        let parts = parts(records.iter().cloned());
        assert!(parts.len() > 5);
        for part in &parts {
            assert!(encode(part).unwrap().len() < MAX_PART + 1024);
        }
        assert_eq!(parts.concat(), records);
        assert_eq!(super::parts([]).len(), 1, "an empty set is told, too");
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for first in [None, Some(VERSION)] {
                if let (Some(version), Some(byte)) = (first, bytes.first_mut()) {
                    *byte = version;
                }
                let _ = decode::<ToHost>(&bytes);
                let _ = decode::<ToNode>(&bytes);
                let _ = decode::<ToPeer>(&bytes);
            }
        }
    }
}
