//! Finding the directory of this host, or becoming it.
//!
//! One process at a time holds a lock in the runtime folder and serves a well-known socket there. The
//! lock goes with the process, however it ends, so the next one takes over within a poll. The name of
//! the socket leads to the node that serves it: what is left of it when the lock is free says who has
//! died.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use layercake_wire::{
    Endpoint, Link, SocketGuard,
    id::{HostId, NodeId},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::hints;

/// The lock of the host directory, in the mesh's runtime folder.
pub(crate) const LOCK_FILE: &str = "directory.lock";
/// Its socket.
pub(crate) const SOCKET: &str = "directory.sock";
/// How often the lock and the socket are tried while there is no directory, in milliseconds.
const POLL_MS: std::ops::Range<u64> = 15..35;
/// How often a daemon that waits for its turn tries the lock.
const WAIT_POLL: Duration = Duration::from_millis(20);
/// How long a process that holds the lock may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What a search ends with.
pub(crate) enum Seated {
    /// Another node embeds the directory.
    Client(Link),
    /// This node does.
    Holder(Box<Held>),
    /// Neither is possible; the search should be begun again later.
    Failed(String),
}

/// The lock, and what was found with it. Dropped, the socket's name goes before the lock.
pub(crate) struct Held {
    /// Taken away, nobody finds this directory any more.
    pub(crate) socket: Option<SocketGuard>,
    _lock: File,
    pub(crate) incarnation: u64,
    /// Who held it before and has died.
    pub(crate) departed: Option<NodeId>,
    pub(crate) peers: Vec<(HostId, Vec<std::net::SocketAddr>)>,
    pub(crate) folder: PathBuf,
}

/// Looks for the directory until it is found or this node holds it.
pub(crate) async fn seek(endpoint: Endpoint, wall_ms: u64) -> Seated {
    let folder = match endpoint.mesh().runtime_folder() {
        Ok(folder) => folder,
        Err(error) => return Seated::Failed(error.to_string()),
    };
    let socket = folder.join(SOCKET);
    let mut rng = SmallRng::seed_from_u64(endpoint.peer().node.to_bits());
    loop {
        if let Ok(Ok(link)) = tokio::time::timeout(ANSWER, endpoint.dial_socket(&socket)).await {
            return Seated::Client(link);
        }
        match hold(&endpoint, &folder, wall_ms) {
            Ok(Some(held)) => return Seated::Holder(Box::new(held)),
            Ok(None) => {}
            Err(error) => return Seated::Failed(format!("`{}`: {error}", folder.display())),
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(POLL_MS))).await;
    }
}

/// Waits until the lock is free, while another node is the directory.
pub(crate) async fn wait_turn(endpoint: Endpoint, wall_ms: u64) -> Seated {
    let folder = match endpoint.mesh().runtime_folder() {
        Ok(folder) => folder,
        Err(error) => return Seated::Failed(error.to_string()),
    };
    loop {
        match hold(&endpoint, &folder, wall_ms) {
            Ok(Some(held)) => return Seated::Holder(Box::new(held)),
            Ok(None) => tokio::time::sleep(WAIT_POLL).await,
            Err(error) => return Seated::Failed(format!("`{}`: {error}", folder.display())),
        }
    }
}

/// Takes the lock if it is free. A few small files on a local disk: nothing here waits.
fn hold(endpoint: &Endpoint, folder: &Path, wall_ms: u64) -> io::Result<Option<Held>> {
    let lock =
        OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let socket = folder.join(SOCKET);
    let departed = std::fs::read_link(&socket)
        .ok()
        .and_then(|target| target.file_stem()?.to_str()?.parse().ok())
        .filter(|node| *node != endpoint.peer().node);
    let incarnation = hints::next_incarnation(folder, wall_ms)?;
    let peers = hints::load_peers(folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the remembered peers; they will be found anew");
        Vec::new()
    });
    let guard = endpoint.serve_socket(&socket)?;
    let folder = folder.to_owned();
    Ok(Some(Held { socket: Some(guard), _lock: lock, incarnation, departed, peers, folder }))
}
