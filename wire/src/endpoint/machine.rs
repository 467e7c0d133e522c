//! What an endpoint has of its machine: perhaps a thread for its links, the Unix socket, UDP sockets for
//! QUIC.

use std::{
    error::Error as _,
    fs::{File, OpenOptions, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{net::UnixListener, runtime::Handle as Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{CLOSE_TIME, Carrier, Shared, StartError, accept, socket_name};
use crate::{
    clock,
    id::{MAX_HINTS, NodeId},
    interfaces::Interfaces,
    quic,
    trust::{Mesh, TrustError},
};

/// For how long the addresses of the interfaces are believed.
const HINTS_AGE: Duration = Duration::from_secs(1);

pub(super) struct Machine {
    /// Ends the I/O thread, where there is one.
    _thread: Option<DropGuard>,
    /// None where no socket can be made: then other processes of this host do not reach this one.
    pub(super) socket: Option<PathBuf>,
    quic: tokio::sync::Mutex<Vec<Quic>>,
    hints: Mutex<Hints>,
}

#[derive(Clone)]
pub(super) struct Quic {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) client: quinn::ClientConfig,
}

#[derive(Default)]
struct Hints {
    interfaces: Interfaces,
    ports: Vec<u16>,
    addrs: Arc<[SocketAddr]>,
    read: Option<Instant>,
}

/// What [`Machine::start`] gives beside the machine.
pub(super) struct Started {
    pub(super) machine: Machine,
    /// The runtime that carries the links.
    pub(super) io: Runtime,
    pub(super) local: Option<(UnixListener, PathBuf)>,
}

impl Machine {
    /// Listens on the node's Unix socket, in the present runtime or in one of a thread of its own.
    pub(super) fn start(
        mesh: &Mesh,
        node: NodeId,
        carrier: Carrier,
    ) -> Result<Started, StartError> {
        let (io, thread) = match carrier {
            Carrier::OwnThread => {
                let (io, thread) = start_thread().map_err(StartError::Thread)?;
                (io, Some(thread))
            }
            Carrier::Runtime => (Runtime::try_current().map_err(|_| StartError::NoRuntime)?, None),
        };
        let local = {
            let _within = io.enter();
            match listen(mesh, node) {
                Ok(local) => Some(local),
                Err(error) if is_closed_to_us(&error) => {
                    let why = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(
                        "{error}: {why}; other processes of this host cannot reach this one; what is \
                         within it, and links to other hosts, still work"
                    );
                    None
                }
                Err(error) => return Err(error),
            }
        };
        let socket = local.as_ref().map(|(_, folder)| folder.join(socket_name(node)));
        let quic = tokio::sync::Mutex::default();
        let machine = Self { _thread: thread, socket, quic, hints: Mutex::default() };
        Ok(Started { machine, io, local })
    }

    pub(super) fn hints(&self) -> Arc<[SocketAddr]> {
        let mut hints = self.hints.lock();
        let now = clock::now();
        if hints.read.is_none_or(|read| now.saturating_duration_since(read) > HINTS_AGE) {
            let of_port = |port: &u16| hints.interfaces.hints(*port);
            let addrs: Vec<_> = hints.ports.iter().flat_map(of_port).collect();
            hints.addrs = addrs[..addrs.len().min(MAX_HINTS)].into();
            hints.read = Some(now);
        }
        hints.addrs.clone()
    }

    pub(super) fn set_interfaces(&self, interfaces: Interfaces) {
        let mut hints = self.hints.lock();
        hints.interfaces = interfaces;
        hints.read = None;
    }

    /// The QUIC endpoint that dials, opened when first needed.
    pub(super) async fn ensure_quic(
        &self,
        shared: &Arc<Shared>,
        port: Option<u16>,
    ) -> Result<Quic, StartError> {
        let mut open = self.quic.lock().await;
        let wanted = port.filter(|port| !self.hints.lock().ports.contains(port));
        if let Some(first) = open.first()
            && wanted.is_none()
        {
            return Ok(first.clone());
        }
        let tls = shared.mesh.mint(shared.me.node)?;
        let client = quic::client(&tls).map_err(StartError::Quic)?;
        let _within = shared.io.enter();
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
        shared.spawn(accept::accept_quic(shared.clone(), endpoint.clone()));
        open.push(Quic { endpoint, client });
        Ok(open[0].clone())
    }

    pub(super) async fn close_quic(&self) {
        let quic = std::mem::take(&mut *self.quic.lock().await);
        for quic in quic {
            quic.endpoint.close(0_u32.into(), b"the node stops");
            let _ = tokio::time::timeout(CLOSE_TIME, quic.endpoint.wait_idle()).await;
        }
    }
}

/// Starts a thread with a runtime of its own, which ends when the guard is dropped.
fn start_thread() -> io::Result<(Runtime, DropGuard)> {
    let (started, start) = std::sync::mpsc::channel();
    let end = CancellationToken::new();
    let ended = end.clone();
    std::thread::Builder::new().name("layercake-io".to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = started.send(Ok(runtime.handle().clone()));
                runtime.block_on(ended.cancelled());
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    })?;
    let io = start.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    Ok((io, end.drop_guard()))
}

/// Listens on the node's Unix socket.
fn listen(mesh: &Mesh, node: NodeId) -> Result<(UnixListener, PathBuf), StartError> {
    let folder = mesh.runtime_folder()?;
    let path = folder.join(socket_name(node));
    let listener = UnixListener::bind(&path);
    Ok((listener.map_err(|cause| StartError::Socket { path, cause })?, folder))
}

/// Whether the folder for sockets cannot be written to, by no fault of its content.
fn is_closed_to_us(error: &StartError) -> bool {
    let cause = match error {
        StartError::Trust(TrustError::Io { source, .. }) => source,
        StartError::Socket { cause, .. } => cause,
        _ => return false,
    };
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    [PermissionDenied, ReadOnlyFilesystem, StorageFull].contains(&cause.kind())
}

/// Gives a node's socket a further name.
pub(super) fn serve_socket(node: NodeId, path: &Path) -> io::Result<LinkGuard> {
    let target = PathBuf::from(socket_name(node));
    let fresh = path.with_extension(format!("{node}.new"));
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(&target, &fresh)?;
    std::fs::rename(&fresh, path)?;
    Ok(LinkGuard { path: path.to_owned(), target })
}

/// The node that a well-known socket name leads to.
pub(super) fn served_by(path: &Path) -> Option<NodeId> {
    std::fs::read_link(path).ok()?.file_stem()?.to_str()?.parse().ok()
}

/// Takes a lock file if it is free.
pub(super) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the name of a served socket when dropped.
#[derive(Debug)]
pub(super) struct LinkGuard {
    path: PathBuf,
    target: PathBuf,
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        if std::fs::read_link(&self.path).is_ok_and(|target| target == self.target) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
