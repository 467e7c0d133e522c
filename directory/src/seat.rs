//! Finding the directory of this host, or becoming it.
//!
//! One process at a time holds a lock in the runtime folder and serves a well-known socket there. The
//! lock goes with the process, however it ends, so the next one takes over within a poll. The name of
//! the socket leads to the node that serves it: what is left of it when the lock is free says who has
//! died. In an in-memory network the host keeps lock and name, and nothing is in a folder.
//!
//! A daemon takes precedence: it asks the process that embeds the directory, which then lets go of the lock
//! alone and goes on serving. So nobody but a daemon that waits for its turn tries the lock, and the
//! socket's name leads to the one or to the other at any moment.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use layercake_wire::{
    Endpoint, Link, LockGuard, SocketGuard,
    id::{HostId, NodeId},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::sync::Notify;

use crate::{hints, shell, trouble::chain};

/// The lock of the host directory, in the mesh's runtime folder.
pub(crate) const LOCK_FILE: &str = "directory.lock";
/// Its socket.
pub(crate) const SOCKET: &str = "directory.sock";
/// How often the lock and the socket are tried while there is no directory, in milliseconds.
const POLL_MS: std::ops::Range<u64> = 15..35;
/// How often a daemon that waits for its turn tries the lock, unless it hears that it is free.
const WAIT_POLL: Duration = Duration::from_millis(20);
/// How long a directory that has let go of its lock waits until it hears who has taken it.
pub(crate) const HANDOVER: Duration = Duration::from_secs(1);
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
    /// None while it is handed over.
    lock: Option<LockGuard>,
    pub(crate) incarnation: u64,
    /// Who held it before and has died.
    pub(crate) departed: Option<NodeId>,
    pub(crate) peers: Vec<(HostId, Vec<SocketAddr>)>,
    /// Where peers are remembered, if anywhere.
    pub(crate) folder: Option<PathBuf>,
}

impl Held {
    /// Lets go of the lock, and of nothing else.
    pub(crate) fn release(&mut self) {
        self.lock = None;
    }

    /// Takes the lock back, if nobody has it.
    pub(crate) fn retake(&mut self, endpoint: &Endpoint) -> bool {
        if self.lock.is_none()
            && let Ok(folder) = folder(endpoint)
        {
            let place = folder.as_deref().unwrap_or(Path::new(""));
            self.lock = endpoint.try_lock(&place.join(LOCK_FILE)).ok().flatten();
            if self.lock.is_some() {
                // Whoever had it for a moment may have taken the name, too.
                drop(self.socket.take());
                self.socket = endpoint.serve_socket(&place.join(SOCKET)).ok();
            }
        }
        self.lock.is_some()
    }
}

/// Looks for the directory until it is found or this node holds it.
pub(crate) async fn seek(endpoint: Endpoint, remember: bool) -> Seated {
    let folder = match folder(&endpoint) {
        Ok(folder) => folder,
        Err(failed) => return failed,
    };
    let socket = folder.as_deref().unwrap_or(Path::new("")).join(SOCKET);
    let mut rng = SmallRng::seed_from_u64(endpoint.peer().node.to_bits());
    loop {
        if let Ok(Ok(link)) = tokio::time::timeout(ANSWER, endpoint.dial_socket(&socket)).await {
            return Seated::Client(link);
        }
        if let Some(seated) = hold(&endpoint, folder.as_deref(), remember) {
            return seated;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(POLL_MS))).await;
    }
}

/// Waits until the lock is free, while another node is the directory. `freed` says when to look at once.
pub(crate) async fn wait_turn(endpoint: Endpoint, remember: bool, freed: Arc<Notify>) -> Seated {
    let folder = match folder(&endpoint) {
        Ok(folder) => folder,
        Err(failed) => return failed,
    };
    loop {
        if let Some(seated) = hold(&endpoint, folder.as_deref(), remember) {
            return seated;
        }
        tokio::select! {
            () = tokio::time::sleep(WAIT_POLL) => {}
            () = freed.notified() => {}
        }
    }
}

/// The mesh's runtime folder; none in memory.
fn folder(endpoint: &Endpoint) -> Result<Option<PathBuf>, Seated> {
    if endpoint.network().is_some() {
        return Ok(None);
    }
    let folder = endpoint.mesh().runtime_folder();
    folder.map(Some).map_err(|error| Seated::Failed(chain(&error)))
}

/// Ends a search where the lock is free, or cannot be had at all.
fn hold(endpoint: &Endpoint, folder: Option<&Path>, remember: bool) -> Option<Seated> {
    match try_hold(endpoint, folder, remember) {
        Ok(held) => held.map(|held| Seated::Holder(Box::new(held))),
        Err(error) => {
            let place = folder.unwrap_or(Path::new("memory")).display();
            Some(Seated::Failed(format!("`{place}`: {error}")))
        }
    }
}

/// Takes the lock if it is free. A few small files on a local disk: nothing here waits.
fn try_hold(
    endpoint: &Endpoint,
    folder: Option<&Path>,
    remember: bool,
) -> io::Result<Option<Held>> {
    let place = folder.unwrap_or(Path::new(""));
    let Some(lock) = endpoint.try_lock(&place.join(LOCK_FILE))? else { return Ok(None) };
    let socket = place.join(SOCKET);
    let me = endpoint.peer();
    let departed = endpoint.served_by(&socket).filter(|node| *node != me.node);
    // Now, for whoever waits may have waited for days.
    let wall_ms = shell::wall_ms(endpoint);
    let incarnation = match (folder, endpoint.network()) {
        (Some(folder), _) => hints::next_incarnation(folder, wall_ms)?,
        (None, Some(network)) => network.rise(me.host, wall_ms),
        (None, None) => wall_ms,
    };
    // The mesh folder outlives the machine's next start; the runtime folder does not.
    let mesh = endpoint.mesh();
    let folder = (remember && !mesh.is_in_memory()).then(|| mesh.folder().to_owned());
    let peers = folder.as_deref().map_or(Ok(Vec::new()), hints::load_peers);
    let peers = peers.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the remembered peers; they will be found anew");
        Vec::new()
    });
    let socket = Some(endpoint.serve_socket(&socket)?);
    Ok(Some(Held { socket, lock: Some(lock), incarnation, departed, peers, folder }))
}
