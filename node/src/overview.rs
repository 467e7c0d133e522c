//! What a node shows of the mesh that it is in, and how long others take to answer.

use std::time::Duration;

use layercake_directory::{Network, NetworkEvents, NoNetwork};
use layercake_wire::id::ActorAddr;
use tokio::time::Instant;

use crate::{
    agent::{AGENT, Agent, Ping},
    error::AskError,
    node::Node,
};

/// How long a [ping](Node::ping) waits for its answer, with the time that a link takes to come up.
pub const PING_TIME: Duration = Duration::from_secs(2);

/// Why a ping was not answered as wished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The node answers, and says that there is no such actor for others, or not any more.
    #[error("node {} on host {} answers, but has no actor {}: it has ended, or \
         nobody else was given its address; look its name up again", .0.node.peer.node.short(), .0.node.peer.host.short(), .0.serial)]
    NoActor(ActorAddr),
    /// The node does not answer.
    #[error(transparent)]
    NoAnswer(AskError),
}

impl Node {
    /// The mesh as the directory of this host knows it, as `layer-cake network` shows it. See
    /// [`Directory::network`](crate::directory::Directory::network).
    ///
    /// # Errors
    /// [`NoNetwork`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn network(&self) -> Result<Network, NoNetwork> {
        self.directory().network().await
    }

    /// What happens in the mesh from now on. See
    /// [`Directory::network_events`](crate::directory::Directory::network_events).
    #[must_use]
    pub fn network_events(&self) -> NetworkEvents {
        self.directory().network_events()
    }

    /// Times a round trip to the node of an actor, over a link from here; the first one may have to wait
    /// until the link is up. The node answers, not the actor, which may be busy: it only has to be there.
    ///
    /// # Errors
    /// [`PingError`], after [`PING_TIME`] at most.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ping(&self, to: &ActorAddr) -> Result<Duration, PingError> {
        let agent = ActorAddr { node: to.node.clone(), serial: AGENT };
        let begin = Instant::now();
        let ping = Ping { serial: to.serial };
        match self.bind::<Agent>(agent).ask_within(ping, PING_TIME).await {
            Ok(true) => Ok(begin.elapsed()),
            Ok(false) => Err(PingError::NoActor(to.clone())),
            Err(error) => Err(PingError::NoAnswer(error)),
        }
    }
}
