//! What became of a peer that was linked and is not any more: whether its process left, died, or may
//! still be there.
//!
//! Within a host the end of a link says it, and another dial settles what it leaves open. From another
//! host it says nothing: a process that is killed falls silent. So a node with a link to another host
//! is *present* in the directory and watches its peer there: the directory of the peer's host notices
//! the end of the process and tells, within milliseconds. What it tells ends the link, and for good
//! where the process has ended.
//!
//! Not for names: what was published is dropped by the directory itself.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use layercake_directory::{NodeGone, NodeWatch};
use layercake_wire::{
    DialError, Link, LinkDown,
    id::{NodeAddr, NodeId, PeerId},
};
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{exit::Exit, node::Node};

#[cfg(test)]
mod tests;

/// Peers of which it is remembered how they ended; the one that went first is forgotten first.
const MAX_FATES: usize = 4096;
/// For how long a peer is still watched when the link to it has ended.
const LINGER: Duration = Duration::from_secs(3);
/// How long a peer that leaves in order may take to say goodbye, with what it still has to send.
const LEAVING: Duration = Duration::from_secs(2);
/// The pause before a peer is watched again that has not shown that it is there.
const AGAIN: Duration = Duration::from_secs(1);
/// How long it may take to find out what became of a peer of another host, and of this host.
const VERDICT: Duration = Duration::from_secs(3);
const VERDICT_HERE: Duration = Duration::from_secs(1);
/// The pause between dials to a process that seems to be ending.
const REDIAL: Duration = Duration::from_millis(10);

/// What became of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its process left in order. It never comes back.
    Left,
    /// Its process ended without a word. It never comes back.
    Died,
    /// Its host cannot be reached any more. Both may come back.
    HostLost,
    /// As far as anybody knows it is still there: only the link was lost.
    LinkLost,
}

/// The links to other hosts that are followed, and what is known of peers without one.
#[derive(Default)]
pub(crate) struct Fates(Mutex<State>);

#[derive(Default)]
struct State {
    followed: HashMap<NodeId, Followed>,
    fates: HashMap<NodeId, Fate>,
    order: VecDeque<NodeId>,
}

struct Followed {
    nonce: u64,
    down: CancellationToken,
    task: AbortHandle,
}

impl Fates {
    /// A link is up: its peer lives, and one of another host is watched from here on.
    pub(crate) fn on_up(&self, node: Option<Node>, link: &Link) {
        let mut state = self.0.lock();
        state.forget(link.peer().node);
        if link.is_local() {
            return;
        }
        let Some(node) = node else { return };
        node.directory().be_present();
        let down = CancellationToken::new();
        let watch = node.directory().watch_node(link.peer());
        let following = follow(node.clone(), link.clone(), watch, down.clone());
        let task = node.endpoint().spawn_io(node.tasks().track_future(following));
        let followed = Followed { nonce: link.nonce(), down, task: task.abort_handle() };
        if let Some(old) = state.followed.insert(link.peer().node, followed) {
            old.task.abort();
        }
    }

    /// A link is down.
    pub(crate) fn on_down(&self, link: &Link, down: &LinkDown) {
        let mut state = self.0.lock();
        let node = link.peer().node;
        if link.is_local() {
            // What another dial does not tell apart: both ends of a process leave nobody there.
            match down {
                LinkDown::Closed(_) => state.note(node, Fate::Left),
                LinkDown::Lost(_) | LinkDown::Ours(_) => state.forget(node),
            }
        } else if let Some(followed) = state.followed.get(&node)
            && followed.nonce == link.nonce()
        {
            followed.down.cancel();
        }
    }

    fn note(&self, node: NodeId, fate: Fate) {
        self.0.lock().note(node, fate);
    }

    fn known(&self, node: NodeId) -> Option<Fate> {
        self.0.lock().fates.get(&node).copied()
    }

    /// The watch of a link has ended.
    fn unfollow(&self, link: &Link) {
        let mut state = self.0.lock();
        let node = link.peer().node;
        if state.followed.get(&node).is_some_and(|followed| followed.nonce == link.nonce()) {
            state.followed.remove(&node);
        }
    }
}

impl State {
    fn note(&mut self, node: NodeId, fate: Fate) {
        self.forget(node);
        if self.order.len() >= MAX_FATES
            && let Some(oldest) = self.order.pop_front()
        {
            self.fates.remove(&oldest);
        }
        self.order.push_back(node);
        self.fates.insert(node, fate);
    }

    fn forget(&mut self, node: NodeId) {
        if self.fates.remove(&node).is_some() {
            self.order.retain(|other| *other != node);
        }
    }
}

/// Watches the peer of a link to another host and does to the link what its fate asks for. A newer
/// link to the peer ends it.
async fn follow(node: Node, link: Link, mut watch: NodeWatch, down: CancellationToken) {
    let peer = link.peer();
    let fates = node.fates();
    let stop = node.stop_token();
    let gone = async {
        loop {
            match watch.gone().await {
                // Its host's directory may need longer than a link to be found.
                NodeGone::Unknown => {
                    tokio::time::sleep(AGAIN).await;
                    watch = node.directory().watch_node(peer);
                }
                gone => break gone,
            }
        }
    };
    let unlinked = async {
        down.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    let gone = tokio::select! {
        gone = gone => gone,
        () = unlinked => NodeGone::Unknown,
        () = stop.cancelled() => NodeGone::Unknown,
    };
    match gone {
        NodeGone::Died => {
            fates.note(peer.node, Fate::Died);
            node.endpoint().mark_gone(peer.node, &gone.to_string());
        }
        NodeGone::Left => {
            fates.note(peer.node, Fate::Left);
            // Its last answers may still be on their way.
            tokio::select! {
                () = down.cancelled() => {}
                () = tokio::time::sleep(LEAVING) => {}
                () = stop.cancelled() => {}
            }
            node.endpoint().mark_gone(peer.node, &gone.to_string());
        }
        NodeGone::HostLost => {
            fates.note(peer.node, Fate::HostLost);
            node.endpoint().close_link(peer.node, &gone.to_string());
        }
        _ => {}
    }
    fates.unfollow(&link);
}

impl Node {
    /// What has become of a node to which a link was lost for that reason; `None` where there is a link
    /// again. Takes up to three seconds where nothing says so, for then it is looked for.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub(crate) async fn fate_of(&self, addr: &NodeAddr, reason: &str) -> Option<Exit> {
        self.fate(addr).await.map(|fate| match fate {
            Fate::Left => Exit::Stopped,
            // Why the link was closed says no more than that it was closed for this.
            Fate::Died if addr.peer.host != self.peer().host => Exit::ProcessDied(String::new()),
            Fate::Died => Exit::ProcessDied(reason.to_owned()),
            Fate::HostLost => Exit::HostLost,
            Fate::LinkLost => Exit::LinkLost(reason.to_owned()),
        })
    }

    async fn fate(&self, addr: &NodeAddr) -> Option<Fate> {
        if addr.peer.host == self.peer().host {
            self.fate_here(addr.peer).await
        } else {
            self.fate_elsewhere(addr).await
        }
    }

    async fn fate_elsewhere(&self, addr: &NodeAddr) -> Option<Fate> {
        let peer = addr.peer;
        if self.endpoint().existing(peer.node).is_some() {
            return None;
        }
        if let Some(fate) = self.fates().known(peer.node) {
            return Some(fate);
        }
        let mut watch = self.directory().watch_node(peer);
        let told = async {
            match watch.gone().await {
                NodeGone::Left => Fate::Left,
                NodeGone::Died => Fate::Died,
                NodeGone::HostLost => Fate::HostLost,
                _ => std::future::pending().await,
            }
        };
        let dialled = async {
            match self.endpoint().link(addr).await {
                Ok(_) => None,
                // Told to the watch before this one.
                Err(DialError::Gone(node)) => Some(self.fates().known(node).unwrap_or(Fate::Died)),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            fate = told => Some(fate),
            fate = dialled => fate,
            () = tokio::time::sleep(VERDICT) => {
                Some(self.fates().known(peer.node).unwrap_or(Fate::LinkLost))
            }
        }
    }

    async fn fate_here(&self, peer: PeerId) -> Option<Fate> {
        let addr = NodeAddr::new(peer, &[]);
        let deadline = Instant::now() + VERDICT_HERE;
        loop {
            match self.endpoint().link(&addr).await {
                Ok(_) => return None,
                Err(DialError::Gone(_)) => {
                    let goodbye = self.fates().known(peer.node) == Some(Fate::Left);
                    return Some(if goodbye { Fate::Left } else { Fate::Died });
                }
                // The kernel closes the sockets of a dying process one by one.
                Err(_) if Instant::now() < deadline => tokio::time::sleep(REDIAL).await,
                Err(_) => return Some(Fate::LinkLost),
            }
        }
    }
}
