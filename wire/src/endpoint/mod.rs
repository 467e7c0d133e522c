//! The wire of one node: all its links, one link for each peer, and what [carries](Carrier) them: a thread
//! of their own, or the user's runtime.
//!
//! Within a host a node listens on a Unix socket that is named after it; the kernel says who dials.
//! Between hosts it listens with QUIC, from the moment that somebody needs it. In a
//! [`Network`] neither exists: connections are pipes in memory, and there is no thread. Links are
//! dialled on first use and shared; [`crate::hello::admits`] decides between two dials that cross.

mod accept;
mod dial;
mod gone;
mod machine;
mod port;
mod raise;

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::{
    net::{UnixStream, unix},
    runtime::Handle as Runtime,
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{gone::Gone, machine::Machine, port::Port};
use crate::{
    clock,
    hello::{Hello, VERSION},
    id::{HostId, MAX_HINTS, NodeAddr, NodeId, PeerId},
    inbound::Receive,
    interfaces::Interfaces,
    link::Link,
    memory::{self, Network},
    payload::Fingerprint,
    trust::{self, Mesh, TrustError},
};

/// How long a dial may take, all addresses together.
pub const DIAL_TIME: Duration = Duration::from_secs(3);
/// Connections that may be in their handshake at the same time; more are refused.
const MAX_HANDSHAKES: usize = 256;
/// How long closing waits for goodbyes.
const CLOSE_TIME: Duration = Duration::from_millis(500);
/// What links say to their peers when the endpoint closes.
const STOPS: &str = "the node stops";
/// Peers without a link whose last link is remembered, before they are swept.
const MAX_IDLE_PEERS: usize = 4096;

/// From so many sockets in the runtime folder on, a starting node looks for left-overs, and at so many
/// of them.
const SWEEP_FROM: usize = 32;
const SWEEP_MOST: usize = 256;

/// Why an endpoint does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The mesh folder, the runtime folder or a key is not usable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The Unix socket of the node cannot be made.
    #[error("cannot listen on `{}`", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No UDP socket can be opened.
    #[error("cannot open a UDP socket for QUIC")]
    Quic(#[source] io::Error),
    /// The I/O thread cannot be started.
    #[error("cannot run the I/O thread")]
    Thread(#[source] io::Error),
    /// The in-memory network has a node of that id already.
    #[error("node {0} is in the network already")]
    Taken(NodeId),
    /// An endpoint without a thread of its own must be started within a tokio runtime.
    #[error("an endpoint without a thread of its own must be started within a tokio runtime")]
    NoRuntime,
}

/// Why there is no link.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The process does not exist any more.
    #[error("the process of node {0} has ended")]
    Gone(NodeId),
    /// The address is this very node's.
    #[error("the address is this node's own")]
    Ourselves,
    /// No address answered; each with what it ended with.
    #[error("{0}")]
    Unreachable(String),
    /// The peer answered and does not want us.
    #[error("refused: {0}")]
    Refused(String),
    /// The endpoint is closed.
    #[error("this node is closed")]
    Closed,
}

/// What an endpoint is made from.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Whose host and mesh.
    pub mesh: Mesh,
    /// The identity of the node; drawn at random where a parent process has not chosen it.
    pub node: NodeId,
    /// What carries its links.
    pub carrier: Carrier,
}

/// What carries the links of a node: reads and writes, and all that [`Endpoint::spawn_io`] is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// A thread of their own: whatever the program does, its links live.
    #[default]
    OwnThread,
    /// The tokio runtime in which the node is started, and which must live as long. For programs that pass
    /// messages on and never keep a thread busy: nothing has to be handed from thread to thread. A
    /// runtime of one thread gains most, as messages gather there by themselves.
    Runtime,
}

/// All links of one node. A clone is another handle; the last one dropped ends the I/O, with a goodbye
/// on each link.
#[derive(Clone)]
pub struct Endpoint(Arc<Handle>);

/// Ends the tasks, which hold `Shared` themselves.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop.cancel();
        for link in self.0.up() {
            link.close("the endpoint was dropped");
        }
        self.0.leave();
    }
}

struct Shared {
    mesh: Mesh,
    me: PeerId,
    receive: Arc<dyn Receive>,
    /// Where everything runs: the I/O thread's runtime, or the user's.
    io: Runtime,
    stop: CancellationToken,
    /// Set before `stop`, when links begin to say goodbye.
    closing: AtomicBool,
    ground: Ground,
    links: Mutex<HashMap<NodeId, Entry>>,
    /// Locked within `links` where both are.
    gone: Mutex<Gone>,
    types: Mutex<HashSet<Fingerprint>>,
    handshakes: Arc<Semaphore>,
}

/// What connections are made of.
enum Ground {
    Machine(Machine),
    Network(Port),
}

#[derive(Default)]
struct Entry {
    up: Option<Link>,
    dialling: bool,
    accepting: bool,
    last_nonce: u64,
    /// Whether it said goodbye on a link over a Unix socket: when its own is away too, it has ended.
    said_goodbye: bool,
    waiters: Vec<oneshot::Sender<Result<Link, DialError>>>,
}

/// Takes the name of a served socket away when dropped.
#[derive(Debug)]
pub struct SocketGuard {
    _name: Name,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held until it is dropped")]
enum Name {
    Machine(machine::LinkGuard),
    Network(memory::NameGuard),
}

/// Frees a lock when dropped, as does the end of the process.
#[derive(Debug)]
pub struct LockGuard {
    _lock: Lock,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held until it is dropped")]
enum Lock {
    Machine(std::fs::File),
    Network(memory::KeyGuard),
}

/// A connection before it is a link.
enum Transport {
    Unix(unix::OwnedReadHalf, unix::OwnedWriteHalf),
    Quic(quinn::Connection, quinn::RecvStream, quinn::SendStream),
    Memory(memory::ReadHalf, memory::WriteHalf),
}

impl Endpoint {
    /// Listens on the node's Unix socket. Where the runtime folder cannot be written to, that is told in
    /// the log, and the endpoint goes on without a socket.
    ///
    /// # Errors
    /// [`StartError`] names the folder or socket that is not usable; [`StartError::NoRuntime`] with
    /// [`Carrier::Runtime`] outside of tokio.
    pub fn start(config: EndpointConfig, receive: Arc<dyn Receive>) -> Result<Self, StartError> {
        let EndpointConfig { mesh, node, carrier } = config;
        let machine::Started { machine, io, local } = Machine::start(&mesh, node, carrier)?;
        let shared = Shared::new(mesh, node, receive, io, Ground::Machine(machine));
        if let Some((listener, folder)) = local {
            shared.spawn(accept::accept_unix(shared.clone(), listener));
            shared.spawn(accept::sweep(folder));
        }
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Starts an endpoint of an in-memory network, as a node of that host. It has no thread, socket or
    /// file: everything runs on the present tokio runtime, single-threaded or not, and ends with it.
    ///
    /// # Errors
    /// [`StartError::Taken`] where the network has that node already, [`StartError::NoRuntime`]
    /// outside of tokio.
    pub fn start_in(
        network: &Network,
        host: HostId,
        node: NodeId,
        receive: Arc<dyn Receive>,
    ) -> Result<Self, StartError> {
        let io = Runtime::try_current().map_err(|_| StartError::NoRuntime)?;
        let mesh = network.mesh(host)?;
        let ground = Ground::Network(Port::new(network.clone()));
        let shared = Shared::new(mesh, node, receive, io, ground);
        shared.join_network()?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// Who this node is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.shared().me
    }

    /// The mesh and host it belongs to.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.shared().mesh
    }

    /// The in-memory network that it is part of; `None` for one of the real world.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        match &self.shared().ground {
            Ground::Machine(_) => None,
            Ground::Network(port) => Some(port.network()),
        }
    }

    /// This node as others may reach it now; without hints until it [listens](Self::listen_quic).
    #[must_use]
    pub fn addr(&self) -> NodeAddr {
        NodeAddr { peer: self.shared().me, hints: self.shared().hints() }
    }

    /// Chooses the interfaces whose addresses others are told. What is bound stays bound to all of
    /// them. Nothing happens in an in-memory network.
    pub fn set_interfaces(&self, interfaces: Interfaces) {
        if let Ground::Machine(machine) = &self.shared().ground {
            machine.set_interfaces(interfaces);
        }
    }

    /// Listens with QUIC, so that other hosts reach this node. Where the preferred UDP port is taken
    /// any other is used; called again, an endpoint that listens already is kept, and a preferred
    /// port is added to it. In an in-memory network this gives the node an address there, and no more.
    ///
    /// # Errors
    /// [`StartError::Quic`] when no UDP socket can be opened at all.
    pub async fn listen_quic(&self, preferred_port: Option<u16>) -> Result<NodeAddr, StartError> {
        match &self.shared().ground {
            Ground::Machine(machine) => {
                machine.ensure_quic(self.shared(), preferred_port).await?;
            }
            Ground::Network(port) => port.listen(),
        }
        Ok(self.addr())
    }

    /// Gives the node's Unix socket a further, well-known name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn serve_socket(&self, path: &Path) -> io::Result<SocketGuard> {
        let me = self.peer();
        let name = match &self.shared().ground {
            Ground::Machine(machine) if machine.socket.is_none() => {
                let why = "this process could not make a socket when it started: start it again";
                return Err(io::Error::other(why));
            }
            Ground::Machine(_) => Name::Machine(machine::serve_socket(me.node, path)?),
            Ground::Network(port) => Name::Network(port.network().serve(me, path)),
        };
        Ok(SocketGuard { _name: name })
    }

    /// The node behind a well-known socket name on this host. It may have died: then the name is what
    /// is left of it.
    #[must_use]
    pub fn served_by(&self, path: &Path) -> Option<NodeId> {
        match &self.shared().ground {
            Ground::Machine(_) => machine::served_by(path),
            Ground::Network(port) => port.network().served(self.peer().host, path),
        }
    }

    /// Takes a lock that one process of this host can have at a time: a lock file at that path.
    /// `None` while somebody else has it. Never waits.
    ///
    /// # Errors
    /// Of the file system.
    pub fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let lock = match &self.shared().ground {
            Ground::Machine(_) => machine::try_lock(path)?.map(Lock::Machine),
            Ground::Network(port) => port.network().lock(self.peer(), path).map(Lock::Network),
        };
        Ok(lock.map(|lock| LockGuard { _lock: lock }))
    }

    /// The link to whoever serves a well-known socket name on this host.
    ///
    /// # Errors
    /// [`DialError`]; `Unreachable` also when nobody serves the name.
    pub async fn dial_socket(&self, path: &Path) -> Result<Link, DialError> {
        let node = self
            .served_by(path)
            .ok_or_else(|| DialError::Unreachable(format!("nobody serves `{}`", path.display())))?;
        let peer = PeerId { host: self.peer().host, node };
        self.link(&NodeAddr::new(peer, &[])).await
    }

    /// The link to a node: the one that is up, or a new one. All its addresses are tried at once.
    ///
    /// # Errors
    /// [`DialError`], after at most [`DIAL_TIME`]; at once for a node that is
    /// [known to be gone](Self::mark_gone).
    ///
    /// # Cancel safety
    /// The dial goes on and others may use it.
    pub async fn link(&self, to: &NodeAddr) -> Result<Link, DialError> {
        let shared = self.shared();
        let node = to.peer.node;
        if node == shared.me.node {
            return Err(DialError::Ourselves);
        }
        let (waiting, idle) = {
            let mut links = shared.links.lock();
            if shared.stop.is_cancelled() {
                return Err(DialError::Closed);
            }
            if links.len() > MAX_IDLE_PEERS {
                links.retain(|_, entry| !entry.is_idle());
            }
            if shared.gone.lock().contains(node) {
                return Err(DialError::Gone(node));
            }
            let entry = links.entry(node).or_default();
            if let Some(up) = entry.up.as_ref().filter(|link| !link.is_closed()) {
                return Ok(up.clone());
            }
            let (waiter, waiting) = oneshot::channel();
            entry.waiters.push(waiter);
            let idle = !entry.dialling && !entry.accepting;
            entry.dialling |= idle;
            (waiting, idle)
        };
        if idle {
            shared.spawn(shared.clone().dial(to.clone()));
        }
        waiting.await.unwrap_or(Err(DialError::Closed))
    }

    /// The link to a node, if it is up.
    #[must_use]
    pub fn existing(&self, node: NodeId) -> Option<Link> {
        let links = self.shared().links.lock();
        links.get(&node).and_then(|e| e.up.clone()).filter(|link| !link.is_closed())
    }

    /// A link to whichever node of our mesh answers first at these addresses, of which at most 32 are
    /// tried; where a host is given, only its nodes count.
    ///
    /// # Errors
    /// [`DialError`], after at most [`DIAL_TIME`]; [`DialError::Ourselves`] where nobody but this node
    /// is there.
    pub async fn dial_any(
        &self,
        addrs: &[SocketAddr],
        host: Option<HostId>,
    ) -> Result<Link, DialError> {
        let shared = self.shared().clone();
        let addrs = addrs[..addrs.len().min(2 * MAX_HINTS)].to_vec();
        let task = self.spawn_io(async move { shared.dial_addrs(&addrs, host).await });
        task.await.unwrap_or(Err(DialError::Closed))
    }

    /// The links that are up.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        self.shared().up()
    }

    /// Ends the link to a node, if there is one: asks in flight fail at once.
    pub fn close_link(&self, node: NodeId, reason: &str) {
        if let Some(link) = self.existing(node) {
            link.close(reason);
        }
    }

    /// Notes that a node has ended, as somebody who knows has said. The link to it is cut without a
    /// goodbye, so that asks in flight fail at once; dials under way and later ones end with
    /// [`DialError::Gone`] at once. A bounded number of such nodes is remembered.
    ///
    /// For a node that may come back, as one whose host cannot be reached,
    /// [`close_link`](Self::close_link) is right.
    pub fn mark_gone(&self, node: NodeId, reason: &str) {
        let shared = self.shared();
        let (up, waiters) = {
            let mut links = shared.links.lock();
            shared.gone.lock().insert(node);
            let entry = links.get_mut(&node);
            entry.map(|e| (e.up.clone(), std::mem::take(&mut e.waiters))).unwrap_or_default()
        };
        for waiter in waiters {
            let _ = waiter.send(Err(DialError::Gone(node)));
        }
        if let Some(link) = up {
            link.cut(reason);
        }
    }

    /// Takes back a [`mark_gone`](Self::mark_gone) that was wrong. A node that dials this one, and
    /// so shows that it lives, needs no such help.
    pub fn mark_back(&self, node: NodeId) {
        self.shared().gone.lock().remove(node);
    }

    /// Whether a node is known to have ended.
    #[must_use]
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.shared().gone.lock().contains(node)
    }

    /// Tells all peers, now and later, that this node decodes these types from bincode.
    pub fn announce(&self, types: impl IntoIterator<Item = Fingerprint>) {
        let mut known = self.shared().types.lock();
        let fresh: Vec<_> = types.into_iter().filter(|t| known.insert(*t)).collect();
        if !fresh.is_empty() {
            // Under the lock, so that a link that comes up meanwhile gets them once at least.
            for link in self.links() {
                link.announce(fresh.clone());
            }
        }
    }

    /// Runs a future where the links are carried. It must never block. For an endpoint in memory it ends
    /// when the network kills the node.
    pub fn spawn_io<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.shared().io.spawn(future);
        if let Ground::Network(port) = &self.shared().ground {
            port.own(task.abort_handle());
        }
        task
    }

    /// Waits until the in-memory network has killed this node. Never ready for a node of the real
    /// world, which does not live to see it. The future does not keep the endpoint.
    pub fn killed(&self) -> impl Future<Output = ()> + Send + use<> {
        let killed = match &self.shared().ground {
            Ground::Machine(_) => None,
            Ground::Network(port) => Some(port.killed_token()),
        };
        async move {
            match killed {
                Some(killed) => killed.cancelled_owned().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Says goodbye on every link and ends. Other handles are of no use afterwards.
    pub async fn close(&self) {
        let shared = self.shared();
        // Before the list is taken: what comes up afterwards says goodbye by itself.
        shared.closing.store(true, Ordering::Release);
        for link in self.links() {
            link.close(STOPS);
        }
        let deadline = clock::now() + CLOSE_TIME;
        let saying_goodbye =
            || shared.links.lock().values().any(|entry: &Entry| entry.up.is_some());
        while clock::now() < deadline && saying_goodbye() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Ground::Machine(machine) = &shared.ground {
            machine.close_quic().await;
        }
        shared.stop.cancel();
        // Nobody will tell those who wait for a dial any more.
        shared.links.lock().values_mut().for_each(|entry| entry.waiters.clear());
        shared.leave();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.peer())
    }
}

/// The name of a node's socket in the runtime folder.
fn socket_name(node: NodeId) -> String {
    format!("{node}.sock")
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.up.is_none() && !self.dialling && !self.accepting && self.waiters.is_empty()
    }
}

impl Shared {
    fn new(
        mesh: Mesh,
        node: NodeId,
        receive: Arc<dyn Receive>,
        io: Runtime,
        ground: Ground,
    ) -> Arc<Self> {
        Arc::new(Self {
            me: PeerId { host: mesh.host(), node },
            mesh,
            receive,
            io,
            stop: CancellationToken::new(),
            ground,
            links: Mutex::default(),
            gone: Mutex::default(),
            closing: AtomicBool::new(false),
            types: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        })
    }

    /// The links that are up.
    fn up(&self) -> Vec<Link> {
        let links = self.links.lock();
        links.values().filter_map(|e| e.up.clone()).filter(|link| !link.is_closed()).collect()
    }

    /// Others cannot find this node any more.
    fn leave(&self) {
        match &self.ground {
            Ground::Machine(machine) => {
                if let Some(socket) = &machine.socket {
                    let _ = std::fs::remove_file(socket);
                }
            }
            Ground::Network(port) => port.leave(self.me.node),
        }
    }

    /// Spawns a task that ends with the endpoint.
    fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.io.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    fn hints(&self) -> Arc<[SocketAddr]> {
        match &self.ground {
            Ground::Machine(machine) => machine.hints(),
            Ground::Network(port) => port.hints(self.me.node),
        }
    }

    fn hello(&self, nonce: u64, last_seen: u64) -> Hello {
        Hello {
            version: VERSION,
            mesh: self.mesh.id().fingerprint,
            host: self.me.host,
            node: self.me.node,
            hints: self.hints().to_vec(),
            nonce,
            last_seen,
        }
    }
}

/// Who the certificate of a connection speaks for.
fn peer_of(mesh: &Mesh, connection: &quinn::Connection) -> Result<PeerId, TrustError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    trust::peer_id(mesh.id(), &chain)
}

/// Only processes of the same user may talk to each other over a Unix socket.
fn check_user(stream: &UnixStream) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if theirs == ours {
        return Ok(());
    }
    let text = format!("the socket's other end belongs to user {theirs}, this process to {ours}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
