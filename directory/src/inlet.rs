//! How link events and calls get to the directory's task.
//!
//! One queue, so that everything keeps its order. It has no bound of its own; it is bounded by what
//! may be in it: link events by the number of links, calls by those who wait for their answers or by
//! the publications and subscriptions that were dropped, what etcd says by the client's own count, and
//! posts and datagrams by [`MAX_INBOX`] bytes. A link whose posts exceed that is closed, since its peer
//! and we would disagree from then on.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use layercake_wire::{
    DialError, Link, LinkDown, Service,
    id::{HostId, NodeAddr, NodeId, PeerId},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    dial::Target,
    message::HostView,
    network::Network,
    seat::Seated,
    service::{PublishCall, SubscribeCall, WatchCall},
    trouble::{Trouble, TroubleKind},
};

/// Bytes of posts and datagrams that may wait for the directory's task.
pub const MAX_INBOX: usize = 64 << 20;
/// What a message takes beside its body.
const OVERHEAD: usize = 64;

/// Everything that can happen to the task.
pub(crate) enum Input {
    Up(Link),
    Down(Link, LinkDown),
    Post(Link, Service, Bytes),
    Datagram(PeerId, Bytes),
    /// A link brings more than the task can read.
    Overrun(PeerId),
    Publish(PublishCall),
    Withdraw(u64),
    WithdrawAll,
    Subscribe(SubscribeCall),
    Unsubscribe(u64),
    /// To be answered when the host directory has dealt with everything before.
    Sync(oneshot::Sender<()>),
    /// Others are to know that this node is there.
    Present,
    /// The host's directory is to know it.
    Join,
    Watch(WatchCall),
    Unwatch(u64),
    Serve,
    Hosts(oneshot::Sender<Vec<HostView>>),
    Network(oneshot::Sender<Network>),
    /// One more watches what happens in the mesh, or one less.
    WatchNetwork(bool),
    Ping(HostId, Option<NodeId>, oneshot::Sender<bool>),
    /// What does not work, as far as the host's directory knows.
    Troubles(oneshot::Sender<Vec<Trouble>>),
    Close(oneshot::Sender<()>),
    /// The search for a directory has ended.
    Seated(Seated),
    /// A dial has ended.
    Dialled(Target, Result<Link, DialError>),
    /// Somebody who may be believed says that a host is there.
    Found(Target, Vec<SocketAddr>),
    /// Anybody on the network says so.
    Heard(HostId, Vec<SocketAddr>),
    /// Something about finding hosts does not work: with what, and why.
    Trouble(TroubleKind, String, String),
    /// It works.
    Settled(TroubleKind, String),
    /// Other hosts can reach this node now, or cannot.
    Listening(Result<NodeAddr, String>),
    /// Etcd says something. It says more when what is held with it is dropped.
    #[cfg(feature = "etcd")]
    Etcd(crate::etcd::core::Said, tokio::sync::OwnedSemaphorePermit),
}

/// Where a node's [`Receive`](layercake_wire::Receive) puts what is for the directory. No
/// method waits. A clone is another handle.
#[derive(Clone)]
pub struct Inlet {
    inputs: mpsc::UnboundedSender<Input>,
    load: Arc<AtomicUsize>,
    overrun: Arc<Mutex<HashSet<PeerId>>>,
}

/// The other end of an [`Inlet`]: goes into [`Directory::start`](crate::Directory::start).
pub struct Outlet {
    pub(crate) inlet: Inlet,
    pub(crate) inputs: mpsc::UnboundedReceiver<Input>,
}

/// Makes a way in before there is a directory, since links may come up before it is started.
#[must_use]
pub fn inlet() -> (Inlet, Outlet) {
    let (sender, inputs) = mpsc::unbounded_channel();
    let inlet = Inlet { inputs: sender, load: Arc::default(), overrun: Arc::default() };
    (inlet.clone(), Outlet { inlet, inputs })
}

impl Inlet {
    /// A link is up.
    pub fn on_up(&self, link: Link) {
        self.overrun().remove(&link.peer());
        self.send(Input::Up(link));
    }

    /// A link is down.
    pub fn on_down(&self, link: &Link, down: LinkDown) {
        self.send(Input::Down(link.clone(), down));
    }

    /// A control message has come.
    pub fn on_post(&self, from: &Link, service: Service, body: Bytes) {
        if self.overrun().contains(&from.peer()) {
            return;
        }
        if self.take(body.len()) {
            self.send(Input::Post(from.clone(), service, body));
        } else {
            self.overrun().insert(from.peer());
            self.send(Input::Overrun(from.peer()));
        }
    }

    /// A datagram has come.
    pub fn on_datagram(&self, from: &Link, body: Bytes) {
        if self.take(body.len()) {
            self.send(Input::Datagram(from.peer(), body));
        }
    }

    /// What the task has read of a message.
    pub(crate) fn give_back(&self, length: usize) {
        self.load.fetch_sub(length + OVERHEAD, Ordering::Relaxed);
    }

    /// `false` when the task has ended.
    pub(crate) fn send(&self, input: Input) -> bool {
        self.inputs.send(input).is_ok()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inputs.is_closed()
    }

    /// Waits until the host directory has dealt with everything before this, or the task has ended.
    pub(crate) async fn synced(&self) {
        let (answer, synced) = oneshot::channel();
        if self.send(Input::Sync(answer)) {
            let _ = synced.await;
        }
    }

    /// Waits until the task has ended.
    pub(crate) async fn closed(&self) {
        self.inputs.closed().await;
    }

    fn take(&self, length: usize) -> bool {
        let before = self.load.fetch_add(length + OVERHEAD, Ordering::Relaxed);
        if before + length + OVERHEAD > MAX_INBOX {
            self.give_back(length);
            return false;
        }
        true
    }

    fn overrun(&self) -> std::sync::MutexGuard<'_, HashSet<PeerId>> {
        self.overrun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inlet({} bytes waiting)", self.load.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet")
    }
}
