//! The wire of one node: all its links, one thread that carries them, one link for each peer.
//!
//! Within a host a node listens on a Unix socket that is named after it; the kernel says who dials.
//! Between hosts it listens with QUIC, from the moment that somebody needs it. Links are dialled on
//! first use and shared; [`crate::hello::admits`] decides between two dials that cross.

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
    task::{JoinHandle, JoinSet, LocalSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hello::{self, Hello, HelloError, PeerState, RefuseCode, VERSION},
    id::{MAX_HINTS, NodeAddr, NodeId, PeerId},
    inbound::Receive,
    link::{Link, driver},
    payload::Fingerprint,
    quic,
    trust::{self, ALPN_JOIN, Mesh, TrustError},
};

/// How long a dial may take, all addresses together.
pub const DIAL_TIME: Duration = Duration::from_secs(3);
/// How long a dial to a node of the own host may take where its socket is absent.
const LOCAL_QUIC_TIME: Duration = Duration::from_millis(500);
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
            types: Mutex::default(),
            quic: tokio::sync::Mutex::default(),
            hints: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        });
        shared.spawn(accept_unix(shared.clone(), listener));
        shared.spawn(sweep(folder));
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
    /// [`DialError`], after at most [`DIAL_TIME`].
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
        while Instant::now() < deadline && !self.links().is_empty() {
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
        self.spawn(accept_quic(self.clone(), endpoint.clone()));
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

    /// Dials a node whose entry says `dialling`, and tells those who wait.
    async fn dial(self: Arc<Self>, to: NodeAddr) {
        let node = to.peer.node;
        let result = if to.peer.host == self.me.host {
            self.clone().dial_unix(&to).await
        } else {
            self.clone().dial_quic(&to.hints, Some(to.peer)).await
        };
        if let Err(error) = result {
            let waiters = {
                let mut links = self.links.lock();
                let Some(entry) = links.get_mut(&node) else { return };
                entry.dialling = false;
                if entry.accepting {
                    return;
                }
                std::mem::take(&mut entry.waiters)
            };
            for waiter in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }

    async fn dial_unix(self: Arc<Self>, to: &NodeAddr) -> Result<Link, DialError> {
        let node = to.peer.node;
        let path = self.socket.with_file_name(socket_name(node));
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                check_user(&stream).map_err(|e| DialError::Refused(e.to_string()))?;
                let (reader, writer) = stream.into_split();
                self.greet(Transport::Unix(reader, writer), to.peer).await
            }
            // Its socket has nobody behind it: the process was killed.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
                Err(DialError::Gone(node))
            }
            // Left in order, or one that shares this host's identity but not its runtime folder.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if to.hints.is_empty() {
                    return Err(DialError::Gone(node));
                }
                let dial = self.dial_quic(&to.hints, Some(to.peer));
                tokio::time::timeout(LOCAL_QUIC_TIME, dial)
                    .await
                    .unwrap_or(Err(DialError::Gone(node)))
            }
            Err(e) => Err(DialError::Unreachable(format!("{}: {e}", path.display()))),
        }
    }

    /// Dials all addresses at once and greets the first that shakes hands as the right peer.
    async fn dial_quic(
        self: Arc<Self>,
        addrs: &[SocketAddr],
        expected: Option<PeerId>,
    ) -> Result<Link, DialError> {
        if addrs.is_empty() {
            let reason = "it has no address outside of its own host".to_owned();
            return Err(DialError::Unreachable(reason));
        }
        let quic = self.clone().ensure_quic(None).await;
        let quic = quic.map_err(|e| DialError::Unreachable(e.to_string()))?;
        let mut attempts = JoinSet::new();
        for addr in addrs {
            let (quic, addr, mesh) = (quic.clone(), *addr, self.mesh.clone());
            attempts.spawn(async move {
                let shake = async {
                    let connecting = quic
                        .endpoint
                        .connect_with(quic.client.clone(), addr, SERVER_NAME)
                        .map_err(|e| e.to_string())?;
                    let connection = connecting.await.map_err(|e| e.to_string())?;
                    let peer = peer_of(&mesh, &connection).map_err(|e| e.to_string())?;
                    Ok::<_, String>((connection, peer))
                };
                let shaken = tokio::time::timeout(DIAL_TIME, shake).await;
                shaken
                    .unwrap_or_else(|_| Err("no answer".to_owned()))
                    .map_err(|reason| format!("{addr}: {reason}"))
            });
        }
        let mut failures = Vec::new();
        while let Some(attempt) = attempts.join_next().await {
            let (connection, peer) = match attempt {
                Ok(Ok(shaken)) => shaken,
                Ok(Err(reason)) => {
                    failures.push(reason);
                    continue;
                }
                Err(_) => continue,
            };
            let remote = quic::plain(connection.remote_address());
            if expected.is_some_and(|expected| expected != peer) {
                failures.push(format!("{remote}: another node lives there now ({peer})"));
                connection.close(0_u32.into(), b"not whom I wanted");
                continue;
            }
            if peer.node == self.me.node {
                failures.push(format!("{remote}: this is the node itself"));
                continue;
            }
            let opened = connection.open_bi().await;
            let greeted = match opened {
                Ok((send, receive)) => {
                    let transport = Transport::Quic(connection, receive, send);
                    self.clone().greet(transport, peer).await
                }
                Err(e) => Err(DialError::Unreachable(e.to_string())),
            };
            match greeted {
                Ok(link) => return Ok(link),
                Err(error @ DialError::Refused(_)) => return Err(error),
                Err(error) => failures.push(format!("{remote}: {error}")),
            }
        }
        Err(DialError::Unreachable(failures.join("; ")))
    }

    /// Exchanges hellos on a connection that we dialled.
    async fn greet(
        self: Arc<Self>,
        mut transport: Transport,
        peer: PeerId,
    ) -> Result<Link, DialError> {
        let nonce = rand::random();
        let last_seen = {
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            // The peer's own dial may have been faster; a hello that names a link says it is lost.
            if let Some(up) = entry.up.clone().filter(|link| !link.is_closed()) {
                entry.dialling = false;
                return Ok(up);
            }
            entry.dialling = true;
            entry.last_nonce
        };
        let mut buffer = BytesMut::new();
        let ours = hello::hello_frame(&self.hello(nonce, last_seen));
        let answer = match &mut transport {
            Transport::Unix(reader, writer) => exchange(reader, writer, ours, &mut buffer).await,
            Transport::Quic(_, reader, writer) => exchange(reader, writer, ours, &mut buffer).await,
        };
        match answer {
            Ok(theirs) if theirs.host == peer.host && theirs.node == peer.node => {
                Ok(self.raise(transport, &theirs, nonce, true, buffer))
            }
            Ok(_) => Err(DialError::Refused("it says it is another node".to_owned())),
            // Its own dial to us is on the way: wait for that.
            Err(HelloError::Refused { duplicate: true, .. }) => self.await_crossing(peer).await,
            Err(HelloError::Refused { reason, .. }) => Err(DialError::Refused(reason)),
            Err(error) => Err(DialError::Unreachable(error.to_string())),
        }
    }

    async fn await_crossing(&self, peer: PeerId) -> Result<Link, DialError> {
        let waiting = {
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            entry.dialling = false;
            if let Some(up) = entry.up.as_ref().filter(|link| !link.is_closed()) {
                return Ok(up.clone());
            }
            let (waiter, waiting) = oneshot::channel();
            entry.waiters.push(waiter);
            waiting
        };
        match tokio::time::timeout(DIAL_TIME, waiting).await {
            Ok(Ok(result)) => result,
            _ => Err(DialError::Unreachable("the peer's own dial did not arrive".to_owned())),
        }
    }

    /// Answers a connection that a peer dialled. `proved` is who its certificate says it is; within
    /// the host the user is proved and the hello is believed.
    async fn answer(self: Arc<Self>, mut transport: Transport, proved: Option<PeerId>) {
        let mut buffer = BytesMut::new();
        let received = match &mut transport {
            Transport::Unix(reader, _) => hello::receive(reader, &mut buffer).await,
            Transport::Quic(_, reader, _) => hello::receive(reader, &mut buffer).await,
        };
        let theirs = match received {
            Ok(theirs) => theirs,
            Err(error) => {
                tracing::debug!(%error, "a connection came without a hello");
                return;
            }
        };
        let peer = PeerId { host: theirs.host, node: theirs.node };
        let verdict = hello::check(&theirs, &self.mesh.id().fingerprint).and_then(|()| {
            let honest = match proved {
                Some(proved) => proved == peer,
                None => peer.host == self.me.host,
            };
            if !honest || peer.node == self.me.node {
                let reason = "the hello and the certificate differ".to_owned();
                return Err((RefuseCode::Identity, reason));
            }
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            let state = PeerState {
                dialling: entry.dialling,
                up: entry
                    .up
                    .as_ref()
                    .filter(|link| !link.is_closed())
                    .map(|link| (link.nonce(), link.is_dialled())),
            };
            if !hello::admits(self.me.node, peer.node, state, theirs.last_seen) {
                return Err((RefuseCode::Duplicate, "use the other link".to_owned()));
            }
            entry.accepting = true;
            Ok(())
        });
        let frame = match &verdict {
            Ok(()) => hello::hello_frame(&self.hello(theirs.nonce, 0)),
            Err((code, reason)) => hello::refuse_frame(*code, reason),
        };
        let sent = match &mut transport {
            Transport::Unix(_, writer) => hello::send(writer, frame).await,
            Transport::Quic(_, _, writer) => hello::send(writer, frame).await,
        };
        if let Err((code, reason)) = verdict {
            if code != RefuseCode::Duplicate {
                tracing::warn!(%peer, reason, "refused a link");
            }
            // The refusal must arrive before the connection goes.
            if let Transport::Quic(connection, _, mut writer) = transport {
                let _ = writer.finish();
                let _ = tokio::time::timeout(DIAL_TIME, connection.closed()).await;
            }
            return;
        }
        if sent.is_err() {
            let mut links = self.links.lock();
            if let Some(entry) = links.get_mut(&peer.node) {
                entry.accepting = false;
                if !entry.dialling {
                    entry.waiters.clear();
                }
            }
            return;
        }
        self.raise(transport, &theirs, theirs.nonce, false, buffer);
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

/// What TLS is given for a name; identities are in the certificates.
const SERVER_NAME: &str = "node.layercake";

async fn exchange<R, W>(
    reader: &mut R,
    writer: &mut W,
    ours: crate::frame::Frame,
    buffer: &mut BytesMut,
) -> Result<Hello, HelloError>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    hello::send(writer, ours).await?;
    hello::receive(reader, buffer).await
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

/// Removes sockets that killed processes have left: nobody answers there.
async fn sweep(folder: PathBuf) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let sockets = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.strip_suffix(".sock"));
        id.is_some_and(|id| id.parse::<NodeId>().is_ok())
    });
    let sockets: Vec<_> = sockets.collect();
    // A few left-overs do no harm; many neighbours should not all be knocked at by everybody.
    if sockets.len() < SWEEP_FROM {
        return;
    }
    for path in sockets.iter().take(SWEEP_MOST) {
        let gone = UnixStream::connect(path).await.err().map(|error| error.kind());
        if gone == Some(io::ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn accept_unix(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        // More than so many wait in the backlog.
        let Ok(permit) = shared.handshakes.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = check_user(&stream) {
                    tracing::warn!(%error, "refused a local connection");
                    continue;
                }
                let (reader, writer) = stream.into_split();
                let answering = shared.clone().answer(Transport::Unix(reader, writer), None);
                shared.spawn(async move {
                    answering.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a local connection; trying on");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept_quic(shared: Arc<Shared>, endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let task = shared.clone();
        shared.spawn(async move {
            let from = incoming.remote_address();
            match tokio::time::timeout(DIAL_TIME, incoming).await {
                Ok(Ok(connection)) => task.answer_quic(connection).await,
                Ok(Err(error)) => tracing::debug!(%from, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
            drop(permit);
        });
    }
}

impl Shared {
    async fn answer_quic(self: Arc<Self>, connection: quinn::Connection) {
        let from = connection.remote_address();
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
            .and_then(|data| data.protocol);
        if protocol.as_deref() == Some(ALPN_JOIN) {
            match trust::answer_join(&self.mesh, connection).await {
                Ok(host) => tracing::info!(%from, %host, "a host joined the mesh"),
                Err(error) => tracing::warn!(%from, %error, "a host could not join"),
            }
            return;
        }
        let peer = match peer_of(&self.mesh, &connection) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%from, %error, "refused a link");
                connection.close(1_u32.into(), b"no identity of this mesh");
                return;
            }
        };
        let opened = tokio::time::timeout(hello::HELLO_TIME, connection.accept_bi()).await;
        if let Ok(Ok((send, receive))) = opened {
            let transport = Transport::Quic(connection, receive, send);
            self.answer(transport, Some(peer)).await;
        }
    }
}
