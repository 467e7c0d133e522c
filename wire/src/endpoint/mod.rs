//! The wire of one node: all its links, one thread that carries them, one link for each peer.
//!
//! Within a host a node listens on a Unix socket that is named after it; the kernel says who dials.
//! Between hosts it listens with QUIC, from the moment that somebody needs it. Links are dialled on
//! first use and shared; [`crate::hello::admits`] decides between two dials that cross.

mod accept;
mod dial;
mod gone;

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::{
    net::{UnixListener, UnixStream, unix},
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinHandle, LocalSet},
};
use tokio_util::sync::CancellationToken;

use self::gone::Gone;
use crate::{
    hello::{Hello, VERSION},
    id::{MAX_HINTS, NodeAddr, NodeId, PeerId},
    inbound::Receive,
    link::{Link, driver},
    payload::Fingerprint,
    quic,
    trust::{self, Mesh, TrustError},
};

/// How long a dial may take, all addresses together.
pub const DIAL_TIME: Duration = Duration::from_secs(3);
/// Connections that may be in their handshake at the same time; more are refused.
const MAX_HANDSHAKES: usize = 256;
/// How long closing waits for goodbyes.
const CLOSE_TIME: Duration = Duration::from_millis(500);
/// For how long the addresses of the interfaces are believed.
const HINTS_AGE: Duration = Duration::from_secs(5);
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
    /// The I/O thread cannot be started, or has ended.
    #[error("cannot run the I/O thread")]
    Thread(#[source] io::Error),
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
}

/// All links of one node. A clone is another handle; the last one dropped ends the I/O.
#[derive(Clone)]
pub struct Endpoint(Arc<Handle>);

/// Ends the tasks, which hold `Shared` themselves.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop.cancel();
        let _ = std::fs::remove_file(&self.0.socket);
    }
}

type Job = Box<dyn FnOnce() + Send>;

struct Shared {
    mesh: Mesh,
    me: PeerId,
    receive: Arc<dyn Receive>,
    /// The I/O thread's runtime, and work for its local tasks.
    io: tokio::runtime::Handle,
    jobs: mpsc::UnboundedSender<Job>,
    stop: CancellationToken,
    socket: PathBuf,
    links: Mutex<HashMap<NodeId, Entry>>,
    /// Locked within `links` where both are.
    gone: Mutex<Gone>,
    types: Mutex<HashSet<Fingerprint>>,
    quic: tokio::sync::Mutex<Vec<Quic>>,
    hints: Mutex<Hints>,
    handshakes: Arc<Semaphore>,
}

#[derive(Default)]
struct Entry {
    up: Option<Link>,
    dialling: bool,
    accepting: bool,
    last_nonce: u64,
    waiters: Vec<oneshot::Sender<Result<Link, DialError>>>,
}

#[derive(Clone)]
struct Quic {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
}

#[derive(Default)]
struct Hints {
    ports: Vec<u16>,
    addrs: Arc<[SocketAddr]>,
    read: Option<Instant>,
}

/// Removes the name of a served socket when dropped.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    target: PathBuf,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if std::fs::read_link(&self.path).is_ok_and(|target| target == self.target) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A connection before it is a link.
enum Transport {
    Unix(unix::OwnedReadHalf, unix::OwnedWriteHalf),
    Quic(quinn::Connection, quinn::RecvStream, quinn::SendStream),
}

impl Endpoint {
    /// Starts the I/O thread and listens on the node's Unix socket.
    ///
    /// # Errors
    /// [`StartError`] names the folder or socket that is not usable.
    pub fn start(config: EndpointConfig, receive: Arc<dyn Receive>) -> Result<Self, StartError> {
        let EndpointConfig { mesh, node } = config;
        let folder = mesh.runtime_folder()?;
        let socket = folder.join(socket_name(node));
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let (started, start) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("layercake-io".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => {
                        let _ = started.send(Ok(runtime.handle().clone()));
                        LocalSet::new().block_on(&runtime, async {
                            while let Some(job) = queue.recv().await {
                                job();
                            }
                        });
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(StartError::Thread)?;
        let io = start
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))
            .map_err(StartError::Thread)?;
        let listener = {
            let _within = io.enter();
            UnixListener::bind(&socket)
                .map_err(|cause| StartError::Socket { path: socket.clone(), cause })?
        };
        let shared = Arc::new(Shared {
            me: PeerId { host: mesh.host(), node },
            mesh,
            receive,
            io,
            jobs,
            stop: CancellationToken::new(),
            socket,
            links: Mutex::default(),
            gone: Mutex::default(),
            types: Mutex::default(),
            quic: tokio::sync::Mutex::default(),
            hints: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        });
        shared.spawn(accept::accept_unix(shared.clone(), listener));
        shared.spawn(accept::sweep(folder));
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

    /// This node as others may reach it now; without hints until it [listens](Self::listen_quic).
    #[must_use]
    pub fn addr(&self) -> NodeAddr {
        NodeAddr { peer: self.shared().me, hints: self.shared().hints() }
    }

    /// Listens with QUIC, so that other hosts reach this node. Where the preferred UDP port is taken
    /// any other is used; called again, an endpoint that listens already is kept, and a preferred
    /// port is added to it.
    ///
    /// # Errors
    /// [`StartError::Quic`] when no UDP socket can be opened at all.
    pub async fn listen_quic(&self, preferred_port: Option<u16>) -> Result<NodeAddr, StartError> {
        self.shared().clone().ensure_quic(preferred_port).await?;
        Ok(self.addr())
    }

    /// Gives the node's Unix socket a further, well-known name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn serve_socket(&self, path: &Path) -> io::Result<SocketGuard> {
        let target = PathBuf::from(socket_name(self.peer().node));
        let fresh = path.with_extension(format!("{}.new", self.peer().node));
        let _ = std::fs::remove_file(&fresh);
        std::os::unix::fs::symlink(&target, &fresh)?;
        std::fs::rename(&fresh, path)?;
        Ok(SocketGuard { path: path.to_owned(), target })
    }

    /// The link to whoever serves a well-known socket name on this host.
    ///
    /// # Errors
    /// [`DialError`]; `Unreachable` also when nobody serves the name.
    pub async fn dial_socket(&self, path: &Path) -> Result<Link, DialError> {
        let unserved = || DialError::Unreachable(format!("nobody serves `{}`", path.display()));
        let target = std::fs::read_link(path).map_err(|_| unserved())?;
        let node = target.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        let node = node.ok_or_else(unserved)?;
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
        let waiting = {
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
            if !entry.dialling && !entry.accepting {
                entry.dialling = true;
                shared.spawn(shared.clone().dial(to.clone()));
            }
            waiting
        };
        waiting.await.unwrap_or(Err(DialError::Closed))
    }

    /// The link to a node, if it is up.
    #[must_use]
    pub fn existing(&self, node: NodeId) -> Option<Link> {
        let links = self.shared().links.lock();
        links.get(&node).and_then(|e| e.up.clone()).filter(|link| !link.is_closed())
    }

    /// A link to whichever node of our mesh answers first at these addresses.
    ///
    /// # Errors
    /// [`DialError`], after at most [`DIAL_TIME`].
    pub async fn dial_any(&self, addrs: &[SocketAddr]) -> Result<Link, DialError> {
        let shared = self.shared().clone();
        let addrs = addrs[..addrs.len().min(MAX_HINTS)].to_vec();
        let task = self.spawn_io(async move { shared.dial_quic(&addrs, None).await });
        task.await.unwrap_or(Err(DialError::Closed))
    }

    /// The links that are up.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        let links = self.shared().links.lock();
        links.values().filter_map(|e| e.up.clone()).filter(|link| !link.is_closed()).collect()
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

    /// Runs a future on the I/O thread. It must never block.
    pub fn spawn_io<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.shared().io.spawn(future)
    }

    /// Says goodbye on every link and ends. Other handles are of no use afterwards.
    pub async fn close(&self) {
        let shared = self.shared();
        for link in self.links() {
            link.close("the node stops");
        }
        let deadline = Instant::now() + CLOSE_TIME;
        let saying_goodbye =
            || shared.links.lock().values().any(|entry: &Entry| entry.up.is_some());
        while Instant::now() < deadline && saying_goodbye() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let quic = std::mem::take(&mut *shared.quic.lock().await);
        for quic in quic {
            quic.endpoint.close(0_u32.into(), b"the node stops");
            let _ = tokio::time::timeout(CLOSE_TIME, quic.endpoint.wait_idle()).await;
        }
        shared.stop.cancel();
        // Nobody will tell those who wait for a dial any more.
        shared.links.lock().values_mut().for_each(|entry| entry.waiters.clear());
        let _ = std::fs::remove_file(&shared.socket);
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
        let mut hints = self.hints.lock();
        if hints.read.is_none_or(|read| read.elapsed() > HINTS_AGE) {
            let addrs: Vec<_> = hints.ports.iter().flat_map(|port| quic::hints(*port)).collect();
            hints.addrs = addrs[..addrs.len().min(MAX_HINTS)].into();
            hints.read = Some(Instant::now());
        }
        hints.addrs.clone()
    }

    /// The QUIC endpoint that dials, opened when first needed.
    async fn ensure_quic(self: Arc<Self>, port: Option<u16>) -> Result<Quic, StartError> {
        let mut open = self.quic.lock().await;
        let wanted = port.filter(|port| !self.hints.lock().ports.contains(port));
        if let Some(first) = open.first()
            && wanted.is_none()
        {
            return Ok(first.clone());
        }
        let tls = self.mesh.mint(self.me.node)?;
        let client = quic::client(&tls).map_err(StartError::Quic)?;
        let _within = self.io.enter();
        let endpoint = match quic::open(&tls, wanted.unwrap_or(0)) {
            Ok(endpoint) => endpoint,
            Err(error) if wanted.is_some() => {
                tracing::info!(port = wanted, %error, "the UDP port is taken; using another one");
                if let Some(first) = open.first() {
                    return Ok(first.clone());
                }
                quic::open(&tls, 0).map_err(StartError::Quic)?
            }
            Err(error) => return Err(StartError::Quic(error)),
        };
        let port = endpoint.local_addr().map_err(StartError::Quic)?.port();
        {
            let mut hints = self.hints.lock();
            hints.ports.push(port);
            hints.read = None;
        }
        self.spawn(accept::accept_quic(self.clone(), endpoint.clone()));
        open.push(Quic { endpoint, client });
        Ok(open[0].clone())
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

    /// Makes a link of a connection on which both have said hello.
    fn raise(
        self: &Arc<Self>,
        transport: Transport,
        theirs: &Hello,
        nonce: u64,
        dialled: bool,
        buffer: BytesMut,
    ) -> Link {
        let peer = PeerId { host: theirs.host, node: theirs.node };
        let remote = match &transport {
            Transport::Unix(..) => None,
            Transport::Quic(connection, ..) => Some(quic::plain(connection.remote_address())),
        };
        let addr = NodeAddr::new(peer, &theirs.hints);
        let (link, commands) = Link::new(addr, nonce, dialled, remote);
        {
            let types = self.types.lock();
            if !types.is_empty() {
                link.announce(types.iter().copied().collect());
            }
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            entry.dialling &= !dialled;
            entry.accepting &= dialled;
            entry.last_nonce = nonce;
            if let Some(old) = entry.up.replace(link.clone()) {
                old.close("replaced by a newer link");
            }
            for waiter in entry.waiters.drain(..) {
                let _ = waiter.send(Ok(link.clone()));
            }
        }
        let (shared, handle) = (self.clone(), link.clone());
        let job = Box::new(move || {
            tokio::task::spawn_local(async move {
                tracing::debug!(link = ?handle, local = handle.is_local(), "link is up");
                let receive = &shared.receive;
                receive.on_up(handle.clone());
                let down = match transport {
                    Transport::Unix(reader, writer) => {
                        driver::run(&handle, reader, writer, buffer, commands, None, receive).await
                    }
                    Transport::Quic(connection, reader, writer) => {
                        let quic = Some(connection);
                        driver::run(&handle, reader, writer, buffer, commands, quic, receive).await
                    }
                };
                tracing::debug!(link = ?handle, %down, "link is down");
                {
                    let mut links = shared.links.lock();
                    if let Some(entry) = links.get_mut(&handle.peer().node)
                        && entry.up.as_ref() == Some(&handle)
                    {
                        entry.up = None;
                    }
                }
                shared.receive.on_down(&handle, down);
            });
        });
        if self.jobs.send(job).is_err() {
            link.mark_closed();
        }
        link
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
