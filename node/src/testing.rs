//! Nodes in an in-memory [`Network`]: whole hosts within one test, without a socket, a file or a thread,
//! by tokio's clock, and with faults between them at will.
//!
//! Such a node differs from others only in how it is started: actors, names of every scope, asks and
//! watches are the same code. It has no mesh folder, so worker processes cannot join it, and actors on
//! [threads of their own](Node::spawn_thread) have a clock of their own.
//!
//! Checked by `node/tests/testing.rs`.

use layercake_directory::{DirectoryConfig, Group};
use layercake_wire::Endpoint;
pub use layercake_wire::{
    id::{HostId, NodeId},
    memory::{Network, Place},
};

use crate::node::{Node, NodeError};
pub use crate::probe::{PATIENCE, Probe};

/// Starts a node that is alone: a host of its own in a network of its own.
///
/// ```
/// # extern crate layercake_node as layercake;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = layercake::testing::alone().await?;
/// // … spawn what is to be tested, with a `Probe` in the place of what it talks to …
/// node.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`start_in`].
pub async fn alone() -> Result<Node, NodeError> {
    start_in(&Network::new(), HostId::random(), NodeId::random()).await
}

/// Starts a node of a host in a network, on the present tokio runtime. Nodes of one host share its
/// directory as processes do; hosts find each other by themselves.
///
/// Where the network [kills](Network::kill) the node, its actors end in the middle of what they do, as
/// with a process.
///
/// # Errors
/// [`NodeError::Wire`] outside of a tokio runtime, or where the network has a node of that id.
pub async fn start_in(network: &Network, host: HostId, id: NodeId) -> Result<Node, NodeError> {
    start_with(network, host, id, DirectoryConfig::in_memory())
}

/// As [`start_in`], in a group of the host.
///
/// # Errors
/// As [`start_in`].
pub async fn start_in_group(
    network: &Network,
    host: HostId,
    id: NodeId,
    group: Group,
) -> Result<Node, NodeError> {
    let config = DirectoryConfig { group: Some(group), ..DirectoryConfig::in_memory() };
    start_with(network, host, id, config)
}

fn start_with(
    network: &Network,
    host: HostId,
    id: NodeId,
    config: DirectoryConfig,
) -> Result<Node, NodeError> {
    let wire = |receive| Endpoint::start_in(network, host, id, receive);
    let node = Node::start_on(wire, config)?;
    let (killed, stopped) = (node.endpoint().killed(), node.stop_token());
    // It holds the node as the actors do, until the node is closed.
    let falling = node.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = killed => falling.fall(),
            () = stopped.cancelled() => {}
        }
    });
    Ok(node)
}
