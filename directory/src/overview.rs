//! The mesh as a program sees it: a snapshot, what happens, and whether others answer.

use std::{fmt, time::Duration};

use layercake_wire::id::{HostId, NodeId, PeerId};
use tokio::sync::{broadcast, oneshot};

use crate::{
    inlet::{Inlet, Input},
    network::{Network, NetworkEvent},
    service::Directory,
};

/// How long [`Directory::network`] waits for the host directory: for one to be found or made, and for
/// the hosts that it asks.
pub const NETWORK_TIME: Duration = Duration::from_secs(5);
/// How long a ping waits for its answer.
pub const PING_TIME: Duration = Duration::from_secs(1);
/// Events of the mesh that a reader may be behind; then it misses the oldest, and is told so.
pub const MAX_EVENTS: usize = 4096;

/// Why there is no answer to [`Directory::network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoNetwork {
    /// There is no host directory and none can be made, or it does not answer.
    #[error("no answer of the host directory within {NETWORK_TIME:?}: {0}")]
    NoDirectory(String),
    /// The directory is closed.
    #[error("this node's directory is closed")]
    Closed,
}

/// Why there is no answer to [`Directory::ping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPong {
    /// The directory of this host has no link to that of the other, or is not there itself.
    #[error("no link to the directory of host {}", .0.short())]
    NoLink(HostId),
    /// There is no way to the host of the node, or the node is not there.
    #[error("node {} is not there, or no link leads to its host", .0.short())]
    NoNode(NodeId),
    /// It does not answer.
    #[error("no answer from host {} within {PING_TIME:?}", .0.short())]
    Silent(HostId),
    /// The directory is closed.
    #[error("this node's directory is closed")]
    Closed,
}

impl Directory {
    /// The whole mesh as the directory of this host can find out: hosts with their nodes, what these
    /// have published and asked for, their links, and which hosts are missing since when. Takes a
    /// round trip to every host, and a second where one does not answer. Looks for the directory, and
    /// for other hosts, if nothing on this host did so before: then others are found a moment later.
    ///
    /// # Errors
    /// [`NoNetwork`].
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by it.
    pub async fn network(&self) -> Result<Network, NoNetwork> {
        let (answer, network) = oneshot::channel();
        if !self.inlet.send(Input::Network(answer)) {
            return Err(NoNetwork::Closed);
        }
        match tokio::time::timeout(NETWORK_TIME, network).await {
            Ok(Ok(network)) => Ok(network),
            Ok(Err(_)) if self.inlet.is_closed() => Err(NoNetwork::Closed),
            Ok(Err(_)) | Err(_) => Err(NoNetwork::NoDirectory(self.trouble())),
        }
    }

    /// Tells what happens in the mesh from now on: hosts and nodes that come and go, names that are
    /// published for the mesh and withdrawn. What is there already is not told:
    /// [`network`](Self::network), asked after this, has it. After a
    /// [`Missed`](crate::NetworkChange::Missed), with which it may begin, what is there may be told
    /// again.
    #[must_use]
    pub fn network_events(&self) -> NetworkEvents {
        let events = self.status.events.subscribe();
        self.inlet.send(Input::WatchNetwork(true));
        let host = self.endpoint.peer().host;
        NetworkEvents { events, host, inlet: self.inlet.clone() }
    }

    /// Asks the directory of a host whether it is there, by way of the directory of this host, and
    /// says how long that took. For this host it is only the latter that is asked.
    ///
    /// # Errors
    /// [`NoPong`], after [`PING_TIME`] at most.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ping(&self, host: HostId) -> Result<Duration, NoPong> {
        self.time(host, None).await
    }

    /// As [`ping`](Self::ping), for a node, which is asked by the directory of its host: so also one
    /// that does not listen for other hosts.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ping_node(&self, peer: PeerId) -> Result<Duration, NoPong> {
        self.time(peer.host, Some(peer.node)).await
    }

    async fn time(&self, host: HostId, node: Option<NodeId>) -> Result<Duration, NoPong> {
        let (answer, reached) = oneshot::channel();
        let begin = tokio::time::Instant::now();
        if !self.inlet.send(Input::Ping(host, node, answer)) {
            return Err(NoPong::Closed);
        }
        match (tokio::time::timeout(PING_TIME, reached).await, node) {
            (Ok(Ok(true)), _) => Ok(begin.elapsed()),
            (Ok(Ok(false)), None) => Err(NoPong::NoLink(host)),
            (Ok(Ok(false)), Some(node)) => Err(NoPong::NoNode(node)),
            (Ok(Err(_)), _) if self.inlet.is_closed() => Err(NoPong::Closed),
            (Ok(Err(_)) | Err(_), _) => Err(NoPong::Silent(host)),
        }
    }
}

/// What happens in the mesh. Dropped, it ends.
pub struct NetworkEvents {
    events: broadcast::Receiver<NetworkEvent>,
    host: HostId,
    inlet: Inlet,
}

impl NetworkEvents {
    /// The next event; `None` once the directory is closed. A reader that is more than
    /// [`MAX_EVENTS`] behind gets [`Missed`](crate::NetworkChange::Missed) in place of what was lost.
    ///
    /// # Cancel safety
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Option<NetworkEvent> {
        let event = tokio::select! {
            biased; // what was told before the end is read first
            event = self.events.recv() => event,
            () = self.inlet.closed() => return None,
        };
        match event {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(NetworkEvent::missed(self.host)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for NetworkEvents {
    fn drop(&mut self) {
        self.inlet.send(Input::WatchNetwork(false));
    }
}

impl fmt::Debug for NetworkEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkEvents")
    }
}
