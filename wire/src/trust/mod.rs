//! Trust: who belongs to the mesh, and how a host comes to belong.
//!
//! A mesh has one certificate authority. A host holds a certificate below it, a node mints itself a
//! short-lived leaf below that, and each of them names its owner as a SPIFFE id. This module keeps
//! the folder all this lives in ([`Mesh`]), gives a node its TLS configurations ([`NodeTls`]),
//! checks what a peer presents ([`peer_id`]), and admits hosts by one-time tokens ([`Token`],
//! [`answer_join`], [`join()`]). It opens no link of the mesh (that is `endpoint`) and knows nothing
//! of what an admitted peer may do.
//!
//! # What always holds
//! - A chain is leaf, host, authority, never longer, and the leaf's name is the host's name and one
//!   step more: what a host can sign speaks for that host alone.
//! - A private key never leaves the host it was made on.
//! - A token admits at most one host, whatever happens in between.
//! - A mesh folder without `mesh.json` is no mesh; that file is written last.
//!
//! Checked by `trust/tests.rs` (stories over real folders and loopback QUIC) and by the tests beside
//! the code. The decision behind it is `docs/decisions/003-trust.md`.

mod ca;
mod disk;
mod folder;
mod invite;
mod join;
mod leaf;
mod memory;
mod runtime;
mod token;
mod verify;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use self::{
    folder::{Mesh, MeshFacts},
    invite::{InviteError, InviteId, InviteState, MAX_INVITE_TTL, MAX_OPEN_INVITES, Refusal},
    join::{JOIN_TIME_LIMIT, JoinError, MAX_JOIN_BYTES, answer_join, join, join_with},
    leaf::NodeTls,
    runtime::{MAX_SOCKET_NAME, MAX_SOCKET_PATH},
    token::{ParseTokenError, Token},
    verify::{ChainError, peer_id},
};

pub(crate) use self::memory::Authority;

/// The protocol of links between nodes of one mesh. Whoever accepts it must demand a certificate.
pub const ALPN_LINK: &[u8] = b"layercake/1";

/// The protocol of a host that asks to be admitted; the only one spoken without a certificate.
pub const ALPN_JOIN: &[u8] = b"layercake-join/1";

/// Why a mesh folder, or something made from it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Neither `LAYERCAKE_MESH` nor `XDG_CONFIG_HOME` nor `HOME` is set.
    #[error("no place for the mesh folder: set LAYERCAKE_MESH to a folder, or HOME")]
    NoPlace,
    /// There is no mesh in the folder. Nothing was changed.
    #[error(
        "no mesh in {}: make one with `layer-cake mesh init` or enter one with `layer-cake mesh join TOKEN`",
        .folder.display()
    )]
    Absent {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// There is a mesh in the folder already. Nothing was changed.
    #[error(
        "already in mesh `{mesh}`: to leave it, stop its nodes and remove the folder {}",
        .folder.display()
    )]
    Present {
        /// The name of the mesh that is there.
        mesh: String,
        /// The folder it is in.
        folder: PathBuf,
    },
    /// The folder, or a part of it, belongs to another user.
    #[error(
        "{} belongs to user {owner} and we are user {us}: set LAYERCAKE_MESH to a folder of your own, or type `chown -R {us} {}` as root",
        .path.display(), .path.display()
    )]
    Owner {
        /// What belongs to somebody else.
        path: PathBuf,
        /// The user it belongs to.
        owner: u32,
        /// The user we are.
        us: u32,
    },
    /// Other users of the machine may enter the folder or read the key.
    #[error("{} is open to other users (mode {mode:03o}): type `chmod {wanted:o} {}`", .path.display(), .path.display())]
    Exposed {
        /// What is open.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// A folder or file could not be read or written.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// The verb.
        what: &'static str,
        /// The object.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file in the folder does not hold what it should. Restore it, or remove the folder and join
    /// again.
    #[error("{} is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The host certificate has run out, and the key to renew it is on another host.
    #[error(
        "the host certificate in {} has run out: remove that folder and join again with a new token",
        .folder.display()
    )]
    HostExpired {
        /// The mesh folder.
        folder: PathBuf,
    },
    /// The mesh belongs to an in-memory network and has no folder, neither for keys nor for sockets.
    #[error("the mesh lives in memory only: it has no folder")]
    InMemory,
    /// A name for a mesh or a host has characters or a length that it must not have.
    #[error("`{text}` cannot be the name of a {what}: {rule}")]
    Name {
        /// Mesh or host.
        what: &'static str,
        /// The name.
        text: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A key or certificate could not be made. A fault of ours or of the system's random source.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS configuration was not accepted. A fault of ours.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The chain does not prove who the peer is.
    #[error("the peer's certificates do not prove who it is")]
    Chain(#[from] ChainError),
}

impl TrustError {
    /// For `map_err`: `what` was being done to `path`.
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// Whole seconds since 1970; 0 for anything before.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time that many seconds after 1970; nothing after the year 9999, so that it cannot overflow.
fn from_unix_seconds(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_800))
}
