//! Invites: what the issuing host remembers of the tokens it gave out.
//!
//! One file each in `invites/`: `ID.json` while open, renamed to `ID.used` when a host came in by
//! it. Renaming is what makes it work once: of two that try, the system lets one succeed. The secret
//! itself is not kept, only its hash.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Mesh, Token, TrustError, disk, folder, from_unix_seconds, unix_seconds};
use crate::id::MAX_HINTS;

/// How many invites of a host may be open at a time.
pub const MAX_OPEN_INVITES: usize = 256;

/// The longest an invite may stay open.
pub const MAX_INVITE_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long after its end a used invite is still known as used.
const KEEP_USED: Duration = Duration::from_secs(24 * 60 * 60);

const FOLDER: &str = "invites";
const OPEN: &str = "json";
const USED: &str = "used";

/// The number of an invite of one host. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InviteId(u64);

impl InviteId {
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What has become of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// Nobody has used it yet.
    Open,
    /// A host came in by it.
    Used,
    /// Its time ran out, or it was never made here.
    Expired,
}

/// Why an invite was not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// Only the host where the mesh was made can invite.
    #[error(
        "this host cannot invite to mesh `{mesh}`: the key of the authority is not in {}; run `layer-cake mesh invite` on the host where the mesh was made (`layer-cake mesh show` says whether a host holds the key)",
        .folder.display()
    )]
    NoKey {
        /// The name of the mesh.
        mesh: String,
        /// Our mesh folder.
        folder: PathBuf,
    },
    /// See [`MAX_OPEN_INVITES`].
    #[error("{open} invites are open, as many as there may be: wait for one to end, or remove some of {}", .folder.display())]
    TooMany {
        /// How many there are.
        open: usize,
        /// Where they are.
        folder: PathBuf,
    },
    /// See [`MAX_INVITE_TTL`].
    #[error("an invite may stay open for 1 second to 30 days, not {0:?}")]
    Ttl(Duration),
    /// The mesh folder cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why a token did not let a host in, as the issuer told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// It was used, or it is not of this issuer. A new one is needed.
    #[error("the token was used already, or was not issued there")]
    Unknown,
    /// Its time ran out, by the issuer's clock. A new one is needed.
    #[error("the token has expired")]
    Expired,
    /// The issuer no longer holds the key of the authority.
    #[error("the issuing host does not hold the key of the authority")]
    NoKey,
    /// The request cannot be read. The token is still good.
    #[error("the request was not understood: use the same version on both hosts")]
    Malformed,
    /// The issuer could not write or sign; its log says why.
    #[error("the issuing host failed, its log says why")]
    Failed,
    /// A reason that a newer version knows.
    #[error("for a reason that this version does not know")]
    #[serde(other)]
    Other,
}

/// An open or used invite, as stored.
#[derive(Serialize, Deserialize)]
struct Record {
    secret_sha256: String,
    expires: u64,
}

impl Mesh {
    /// Makes a token for one host. `addrs` are where nodes of this host listen; all after
    /// [`MAX_HINTS`] are cut off.
    ///
    /// # Errors
    /// See [`InviteError`].
    pub fn invite(&self, ttl: Duration, addrs: &[SocketAddr]) -> Result<Token, InviteError> {
        self.invite_at(ttl, addrs, SystemTime::now())
    }

    /// What has become of an invite of this host.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn invite_state(&self, id: InviteId) -> Result<InviteState, TrustError> {
        state(self.folder(), id, SystemTime::now())
    }

    pub(super) fn invite_at(
        &self,
        ttl: Duration,
        addrs: &[SocketAddr],
        now: SystemTime,
    ) -> Result<Token, InviteError> {
        if ttl < Duration::from_secs(1) || ttl > MAX_INVITE_TTL {
            return Err(InviteError::Ttl(ttl));
        }
        if folder::read_authority(self.folder())?.is_none() {
            return Err(InviteError::NoKey {
                mesh: self.id().name.to_string(),
                folder: self.folder().to_owned(),
            });
        }
        let _lock = disk::lock(self.folder())?; // so that the count holds
        let invites = self.folder().join(FOLDER);
        disk::make_private_folder(&invites)?;
        let open = sweep(&invites, now)?;
        if open >= MAX_OPEN_INVITES {
            return Err(InviteError::TooMany { open, folder: invites });
        }
        let token = Token {
            mesh: self.id().clone(),
            issuer: self.host(),
            invite: InviteId(rand::random()),
            expires: from_unix_seconds(unix_seconds(now + ttl)),
            addrs: addrs[..addrs.len().min(MAX_HINTS)].to_vec(),
            secret: rand::random(),
        };
        let record =
            Record { secret_sha256: hash(&token.secret), expires: unix_seconds(token.expires) };
        let record = serde_json::to_string(&record)
            .map_err(|error| TrustError::io("write", &invites)(error.into()))?;
        disk::write(&invites, &format!("{}.{OPEN}", token.invite), &record)?;
        Ok(token)
    }
}

/// Whether the invite is open and the secret is its own. Changes nothing.
pub(super) fn check(
    folder: &Path,
    id: InviteId,
    secret: &[u8],
    now: SystemTime,
) -> Result<(), Refusal> {
    let path = path(folder, id, OPEN);
    let text = disk::read(&path).map_err(failed)?.ok_or(Refusal::Unknown)?;
    let record: Record = serde_json::from_str(&text).map_err(failed)?;
    // The secret first: what is true of an invite is only for those who hold it.
    if !equal(record.secret_sha256.as_bytes(), hash(secret).as_bytes()) {
        return Err(Refusal::Unknown);
    }
    if unix_seconds(now) >= record.expires {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// Uses the invite up. Of any number of attempts, one succeeds.
pub(super) fn consume(folder: &Path, id: InviteId) -> Result<(), Refusal> {
    match fs::rename(path(folder, id, OPEN), path(folder, id, USED)) {
        Ok(()) => {
            fs::File::open(folder.join(FOLDER)).and_then(|dir| dir.sync_all()).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::Unknown),
        Err(error) => Err(failed(error)),
    }
}

/// How many invites could still be used.
pub(super) fn count_open(folder: &Path, now: SystemTime) -> Result<usize, TrustError> {
    let open = records(&folder.join(FOLDER))?
        .filter(|(path, record)| has_extension(path, OPEN) && unix_seconds(now) < record.expires)
        .count();
    Ok(open)
}

fn state(folder: &Path, id: InviteId, now: SystemTime) -> Result<InviteState, TrustError> {
    // In this order: a file on its way from one name to the other is never missed.
    if let Some(text) = disk::read(&path(folder, id, OPEN))? {
        let open = serde_json::from_str::<Record>(&text)
            .is_ok_and(|record| unix_seconds(now) < record.expires);
        return Ok(if open { InviteState::Open } else { InviteState::Expired });
    }
    let is_used = disk::read(&path(folder, id, USED))?.is_some();
    Ok(if is_used { InviteState::Used } else { InviteState::Expired })
}

/// Removes what is over and counts what is open.
fn sweep(invites: &Path, now: SystemTime) -> Result<usize, TrustError> {
    let mut open = 0;
    for (path, record) in records(invites)? {
        let ends = from_unix_seconds(record.expires);
        let keep = if has_extension(&path, OPEN) { ends } else { ends + KEEP_USED };
        if now >= keep {
            disk::remove(&path)?;
        } else if has_extension(&path, OPEN) {
            open += 1;
        }
    }
    Ok(open)
}

/// All invites that can be read; others are none.
fn records(invites: &Path) -> Result<impl Iterator<Item = (PathBuf, Record)>, TrustError> {
    let entries = match fs::read_dir(invites) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(TrustError::io("read", invites)(error)),
    };
    Ok(entries.into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        if !has_extension(&path, OPEN) && !has_extension(&path, USED) {
            return None;
        }
        let record = serde_json::from_str(&disk::read(&path).ok()??).ok()?;
        Some((path, record))
    }))
}

fn path(folder: &Path, id: InviteId, extension: &str) -> PathBuf {
    folder.join(FOLDER).join(format!("{id}.{extension}"))
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|found| found == wanted)
}

fn hash(secret: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(secret))
}

/// Compares in a time that does not tell where the first difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (x, y)| std::hint::black_box(all | (x ^ y)));
    a.len() == b.len() && differences == 0
}

pub(super) fn failed(error: impl fmt::Display) -> Refusal {
    tracing::error!(%error, "cannot admit a host");
    Refusal::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> (tempfile::TempDir, Mesh) {
        let dir = tempfile::tempdir().unwrap();
        let mesh = Mesh::init(dir.path(), None).unwrap();
        (dir, mesh)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_invite_is_open_then_used_and_works_once() {
        let (_dir, mesh) = mesh();
        let now = SystemTime::now();
        let token = mesh.invite_at(MINUTE, &[], now).unwrap();
        let check = |secret: &[u8], now| check(mesh.folder(), token.invite, secret, now);
        assert_eq!(mesh.invite_state(token.invite).unwrap(), InviteState::Open);
        assert_eq!(check(&[0; 16], now), Err(Refusal::Unknown));
        assert_eq!(check(&token.secret, now + 2 * MINUTE), Err(Refusal::Expired));
        assert_eq!(check(&token.secret, now), Ok(()));

        // Several nodes of the host get the same token at once.
        let wins = std::thread::scope(|scope| {
            let tries: Vec<_> =
                (0..8).map(|_| scope.spawn(|| consume(mesh.folder(), token.invite))).collect();
            tries.into_iter().filter_map(|one| one.join().unwrap().ok()).count()
        });
        assert_eq!(wins, 1);
        assert_eq!(mesh.invite_state(token.invite).unwrap(), InviteState::Used);
        assert_eq!(check(&token.secret, now), Err(Refusal::Unknown));
    }

    #[test]
    fn the_secret_is_not_kept() {
        let (_dir, mesh) = mesh();
        let token = mesh.invite(MINUTE, &[]).unwrap();
        let stored = fs::read_to_string(path(mesh.folder(), token.invite, OPEN)).unwrap();
        assert!(!stored.contains(&data_encoding::HEXLOWER.encode(&token.secret)));
    }

    #[test]
    fn open_invites_are_bounded_and_those_that_end_make_room() {
        let (_dir, mesh) = mesh();
        let now = SystemTime::now();
        let first = mesh.invite_at(MINUTE, &[], now).unwrap();
        for _ in 1..MAX_OPEN_INVITES {
            mesh.invite_at(MINUTE, &[], now).unwrap();
        }
        assert_eq!(mesh.facts().unwrap().open_invites, MAX_OPEN_INVITES);
        assert!(matches!(
            mesh.invite_at(MINUTE, &[], now),
            Err(InviteError::TooMany { open: MAX_OPEN_INVITES, .. })
        ));
        mesh.invite_at(MINUTE, &[], now + MINUTE).unwrap();
        assert_eq!(mesh.facts().unwrap().open_invites, 1);
        assert_eq!(mesh.invite_state(first.invite).unwrap(), InviteState::Expired);
    }

    #[test]
    fn times_out_of_range_are_refused() {
        let (_dir, mesh) = mesh();
        for ttl in [Duration::ZERO, MAX_INVITE_TTL + MINUTE, Duration::MAX] {
            assert!(matches!(mesh.invite(ttl, &[]), Err(InviteError::Ttl(_))));
        }
    }
}
