//! Watching: to be told how an actor ends, on whichever node it lives.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use layercake_wire::id::ActorAddr;

use crate::{
    address::Address,
    agent::{Agent, Watch as WatchActor},
    clock,
    error::AskError,
    exit::Exit,
    node::Node,
};

/// How long one question to another node stays open before it is asked again.
const ROUND: Duration = Duration::from_secs(24 * 3600);

/// Tells how an actor has ended; a future, ready once. Made by [`Node::watch`].
///
/// # Cancel safety
/// Dropping it ends the watch.
#[must_use = "a watch tells something when it is awaited"]
pub struct Watch(Pin<Box<dyn Future<Output = Exit> + Send>>);

impl Future for Watch {
    type Output = Exit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit> {
        self.get_mut().0.as_mut().poll(cx)
    }
}

impl Node {
    /// Watches an actor: tells how it ends, or at once how it has ended. The end of an actor elsewhere
    /// is told apart from the end of its process, the loss of its host, and the loss of the link.
    pub fn watch<T: ?Sized>(&self, address: &Address<T>) -> Watch {
        if let Some(inlet) = address.inlet() {
            let exit = inlet.watch();
            return Watch(Box::pin(async move { exit.await.unwrap_or(Exit::Aborted) }));
        }
        let (node, addr) = (self.clone(), address.id());
        Watch(Box::pin(async move { elsewhere(&node, addr).await }))
    }
}

async fn elsewhere(node: &Node, addr: ActorAddr) -> Exit {
    let to = ActorAddr { node: addr.node.clone(), ..Agent::address(addr.node.peer) };
    let agent: Address<Agent> = node.bind(to);
    loop {
        let watch = WatchActor { serial: addr.serial };
        let error = match agent.ask_by(watch, clock::now() + ROUND).await {
            Ok(exit) => return exit,
            Err(error) => error,
        };
        match error {
            AskError::Deadline => {}
            AskError::Stopped { .. } => {
                return match node.fate_of(&addr.node, "").await {
                    // Its agent ends last.
                    None => Exit::Stopped,
                    // Somebody knew that there is no such node.
                    Some(Exit::LinkLost(_)) => Exit::ProcessDied(String::new()),
                    Some(exit) => exit,
                };
            }
            AskError::Lost { reason, .. } => {
                // Where the link is back, or there is another one: ask again.
                if let Some(exit) = node.fate_of(&addr.node, &reason).await {
                    return exit;
                }
            }
            AskError::Unreachable { reason, .. } => {
                let exit = node.fate_of(&addr.node, &reason).await;
                return exit.unwrap_or(Exit::LinkLost(reason));
            }
            other => return Exit::LinkLost(other.to_string()),
        }
    }
}
