//! The mesh folder: making it, opening it, and what is known from it.
//!
//! ```text
//! ca.pem      the certificate of the authority
//! ca.key      its key; only on the host where the mesh was made
//! host.pem    the certificate of this host
//! host.key    its key
//! mesh.json   names and ids; written last, so that a folder with it is whole
//! invites/    open and used invites, see `invite`
//! runtime     where the sockets are, see `runtime`
//! lock        held while any of this is written
//! ```

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};

use super::{
    TrustError,
    ca::{self, Leaf, Signer},
    disk, invite,
    leaf::{self, NodeTls},
    memory, runtime, unix_seconds,
    verify::{self, Verifier},
};
use crate::id::{HostId, MeshId, NodeId};

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const HOST_CERT: &str = "host.pem";
const HOST_KEY: &str = "host.key";
const RECORD: &str = "mesh.json";

/// The longest name of a mesh or a host, in bytes.
const MAX_NAME: usize = 63;

/// An opened mesh folder: our membership of one mesh. Clone = another handle.
///
/// It holds what was read when it was opened. Invites and the key of the authority are read anew
/// each time, because other processes of this host use the folder too.
#[derive(Clone)]
pub struct Mesh(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) folder: PathBuf,
    pub(super) id: MeshId,
    pub(super) host: HostId,
    pub(super) host_name: String,
    pub(super) authority: CertificateDer<'static>,
    pub(super) signer: Signer,
    pub(super) expires: SystemTime,
    pub(super) holds_ca_key: bool,
}

/// What there is to show of a mesh folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeshFacts {
    /// The name of the mesh.
    pub mesh: String,
    /// SHA-256 of the certificate of the authority, 64 hexadecimal digits.
    pub fingerprint: String,
    /// The id of this host.
    pub host: String,
    /// Its name among people.
    pub host_name: String,
    /// The mesh folder.
    pub folder: PathBuf,
    /// Whether this host can invite others.
    pub holds_ca_key: bool,
    /// When the host certificate runs out, in seconds since 1970.
    pub host_expires: u64,
    /// How many invites are open.
    pub open_invites: usize,
}

/// `mesh.json`. Fields of newer versions are passed over.
#[derive(Serialize, Deserialize)]
struct Record {
    mesh: String,
    host: String,
    host_name: String,
}

impl Mesh {
    /// Where the mesh folder is unless told otherwise: `$LAYERCAKE_MESH`, else `layer-cake/mesh` in
    /// the user's configuration folder.
    ///
    /// # Errors
    /// [`TrustError::NoPlace`].
    pub fn default_folder() -> Result<PathBuf, TrustError> {
        folder_from(|name| env::var_os(name)).ok_or(TrustError::NoPlace)
    }

    /// Makes a mesh with this host as its first. The name is drawn unless given: 1 to 63 lower-case
    /// letters, digits and dashes.
    ///
    /// # Errors
    /// [`TrustError::Present`] when there is one in the folder; nothing is changed then.
    pub fn init(folder: &Path, name: Option<&str>) -> Result<Self, TrustError> {
        if let Some(name) = name {
            check_mesh_name(name)?;
        }
        let folder = absolute(folder)?;
        disk::make_private_folder(&folder)?;
        let lock = disk::lock(&folder)?;
        refuse_present(&folder)?;
        create(&folder, name, SystemTime::now())?;
        drop(lock); // opening may take it
        Self::open(&folder)
    }

    /// Opens the mesh in the folder. Where the key of the authority is, a host certificate with less
    /// than a third of its life left is renewed on the way.
    ///
    /// # Errors
    /// [`TrustError::Absent`] when there is none; otherwise what is wrong with the folder.
    pub fn open(folder: &Path) -> Result<Self, TrustError> {
        Self::open_at(folder, SystemTime::now())
    }

    /// Opens the mesh in the folder, or makes one. Processes that do this at the same time end up
    /// in the same mesh.
    ///
    /// # Errors
    /// What is wrong with the folder.
    pub fn open_or_init(folder: &Path) -> Result<Self, TrustError> {
        match Self::open(folder) {
            Err(TrustError::Absent { .. }) => {}
            other => return other,
        }
        match Self::init(folder, None) {
            Err(TrustError::Present { .. }) => Self::open(folder), // another process was faster
            other => other,
        }
    }

    /// The mesh folder, as an absolute path. For a mesh [in memory](Self::is_in_memory) that is a path
    /// at which nothing can ever be.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Whether it belongs to an in-memory network: then it has no folder.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.0.folder == Path::new(memory::NO_FOLDER)
    }

    /// The trust domain.
    #[must_use]
    pub fn id(&self) -> &MeshId {
        &self.0.id
    }

    /// Who we are in it.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.0.host
    }

    /// What people call this host. Proves nothing.
    #[must_use]
    pub fn host_name(&self) -> &str {
        &self.0.host_name
    }

    /// Whether the key of the authority was here when the folder was opened, so that this host can
    /// invite others.
    #[must_use]
    pub fn holds_ca_key(&self) -> bool {
        self.0.holds_ca_key
    }

    /// The folder for sockets and locks of this mesh on this machine; made if needed, open to
    /// nobody else. All processes that use one mesh folder get the same answer, whatever their
    /// environment. A socket in it may have a name of [`super::MAX_SOCKET_NAME`] bytes.
    ///
    /// # Errors
    /// When it cannot be made, or what is there in its place is not ours alone;
    /// [`TrustError::InMemory`] where there is none.
    pub fn runtime_folder(&self) -> Result<PathBuf, TrustError> {
        if self.is_in_memory() {
            return Err(TrustError::InMemory);
        }
        runtime::folder(self.folder())
    }

    /// A fresh leaf for a node and the TLS configurations that present it. The leaf stays in memory.
    ///
    /// # Errors
    /// [`TrustError::Make`] or [`TrustError::Tls`].
    pub fn mint(&self, node: NodeId) -> Result<NodeTls, TrustError> {
        NodeTls::new(self, node, SystemTime::now())
    }

    /// What there is to show.
    ///
    /// # Errors
    /// When the folder of invites cannot be read.
    pub fn facts(&self) -> Result<MeshFacts, TrustError> {
        Ok(MeshFacts {
            mesh: self.id().name.to_string(),
            fingerprint: data_encoding::HEXLOWER.encode(&self.id().fingerprint),
            host: self.host().to_string(),
            host_name: self.host_name().to_owned(),
            folder: self.folder().to_owned(),
            holds_ca_key: self.holds_ca_key(),
            host_expires: unix_seconds(self.0.expires),
            open_invites: invite::count_open(self.folder(), SystemTime::now())?,
        })
    }

    pub(super) fn open_at(folder: &Path, now: SystemTime) -> Result<Self, TrustError> {
        let folder = absolute(folder)?;
        let mesh = load(&folder)?;
        let left = mesh.0.expires.duration_since(now).unwrap_or_default();
        let due = left < ca::HOST_LIFE / 3;
        let mesh = if due && mesh.holds_ca_key() {
            match renew(&mesh, now) {
                Ok(renewed) => renewed,
                Err(error) if left.is_zero() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the host certificate");
                    mesh
                }
            }
        } else {
            mesh
        };
        if mesh.0.expires <= now {
            return Err(TrustError::HostExpired { folder });
        }
        mesh.try_out(now)?;
        Ok(mesh)
    }

    /// Whether peers will accept what this folder holds, so that damage is told here and not by
    /// their refusal.
    fn try_out(&self, now: SystemTime) -> Result<(), TrustError> {
        let verifier = Verifier::new(self.id().clone(), self.authority(), leaf::provider())?;
        let leaf = self.leaf(NodeId::from_bits(0), now)?;
        let any = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let chain = self.chain(leaf.cert);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &any, &[], UnixTime::since_unix_epoch(now))
            .map(|_| ())
            .map_err(|error| damaged(&self.folder().join(HOST_CERT), error.to_string()))
    }

    pub(super) fn authority(&self) -> &CertificateDer<'static> {
        &self.0.authority
    }

    pub(super) fn leaf(&self, node: NodeId, now: SystemTime) -> Result<Leaf, TrustError> {
        let uri = ca::node_uri(&self.id().name, self.host(), node);
        Ok(self.0.signer.leaf(uri, now)?)
    }

    /// What is presented: the leaf, our host certificate, the authority.
    pub(super) fn chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        vec![leaf, self.0.signer.cert.clone(), self.authority().clone()]
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("name", &self.id().name)
            .field("host", &self.host())
            .field("folder", &self.folder())
            .finish_non_exhaustive()
    }
}

/// What a host holds once it has been admitted, before it is written.
pub(super) struct Membership<'a> {
    pub(super) mesh: &'a str,
    pub(super) host: HostId,
    pub(super) host_name: &'a str,
    pub(super) authority: &'a CertificateDer<'static>,
    pub(super) signer: &'a Signer,
    /// Only where the mesh is made.
    pub(super) authority_key: Option<String>,
}

/// Writes a membership into a folder without one. The caller holds the lock.
pub(super) fn install(folder: &Path, membership: &Membership<'_>) -> Result<(), TrustError> {
    let record = Record {
        mesh: membership.mesh.to_owned(),
        host: membership.host.to_string(),
        host_name: membership.host_name.to_owned(),
    };
    let record = serde_json::to_string_pretty(&record)
        .map_err(|error| TrustError::io("write", &folder.join(RECORD))(error.into()))?;
    match &membership.authority_key {
        Some(key) => disk::write(folder, CA_KEY, key)?,
        None => disk::remove(&folder.join(CA_KEY))?, // of an attempt that was cut off
    }
    disk::write(folder, CA_CERT, &ca::cert_pem(membership.authority))?;
    disk::write(folder, HOST_KEY, &membership.signer.key_pem())?;
    disk::write(folder, HOST_CERT, &ca::cert_pem(&membership.signer.cert))?;
    disk::write(folder, RECORD, &(record + "\n"))
}

/// Refuses a folder that holds a mesh already.
pub(super) fn refuse_present(folder: &Path) -> Result<(), TrustError> {
    match read_record(folder) {
        Ok(record) => Err(TrustError::Present { mesh: record.mesh, folder: folder.to_owned() }),
        Err(TrustError::Absent { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The key of the authority with its certificate; `None` on the hosts that only joined.
pub(super) fn read_authority(folder: &Path) -> Result<Option<Signer>, TrustError> {
    let path = folder.join(CA_KEY);
    let Some(key) = disk::read_secret(&path)? else {
        return Ok(None);
    };
    let cert = read_cert(folder, CA_CERT)?;
    Signer::load(cert, &key).map(Some).map_err(|why| damaged(&path, why))
}

/// The host's own name, or `host` when it has none that will do.
pub(super) fn system_host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if check_host_name(&name).is_ok() { name } else { "host".to_owned() }
}

/// Refuses a host name that would not look well in a table or a log.
pub(super) fn check_host_name(text: &str) -> Result<(), TrustError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    check_name("host", text, allowed, "1 to 63 letters, digits, dashes, dots and underscores")
}

fn check_mesh_name(text: &str) -> Result<(), TrustError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    check_name("mesh", text, allowed, "1 to 63 lower-case letters, digits and dashes")
}

/// Whether a text is the name of a mesh.
pub(super) fn is_mesh_name(text: &str) -> bool {
    check_mesh_name(text).is_ok()
}

fn check_name(
    what: &'static str,
    text: &str,
    allowed: impl Fn(u8) -> bool,
    rule: &'static str,
) -> Result<(), TrustError> {
    if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    // Cut, because it may be anything that was pasted.
    Err(TrustError::Name { what, text: text.chars().take(MAX_NAME).collect(), rule })
}

fn folder_from(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("LAYERCAKE_MESH") {
        return Some(folder);
    }
    let config = set("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute()) // the XDG specification says to ignore others
        .or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("layer-cake").join("mesh"))
}

pub(super) fn absolute(folder: &Path) -> Result<PathBuf, TrustError> {
    std::path::absolute(folder).map_err(TrustError::io("find", folder))
}

/// A new authority and this host below it. The caller holds the lock.
fn create(folder: &Path, name: Option<&str>, now: SystemTime) -> Result<(), TrustError> {
    let mesh = name.map_or_else(|| format!("mesh-{:08x}", rand::random::<u32>()), str::to_owned);
    let host = HostId::random();
    let authority = Signer::authority(&mesh, now)?;
    let signer = Signer::host(&authority, &mesh, host, now)?;
    install(
        folder,
        &Membership {
            mesh: &mesh,
            host,
            host_name: &system_host_name(),
            authority: &authority.cert,
            signer: &signer,
            authority_key: Some(authority.key_pem()),
        },
    )
}

/// Certifies the same host key again, and reads the folder anew.
fn renew(mesh: &Mesh, now: SystemTime) -> Result<Mesh, TrustError> {
    let folder = mesh.folder();
    let lock = disk::lock(folder)?;
    if let Some(authority) = read_authority(folder)? {
        let key = mesh.0.signer.public_key();
        let cert = authority.admit(&mesh.id().name, mesh.host(), key, now)?;
        disk::write(folder, HOST_CERT, &ca::cert_pem(&cert))?;
    }
    drop(lock);
    load(folder)
}

fn load(folder: &Path) -> Result<Mesh, TrustError> {
    let record = read_record(folder)?;
    let found = fs::metadata(folder).map_err(TrustError::io("look at", folder))?;
    disk::check_private(folder, &found)?;
    let record_path = folder.join(RECORD);
    if !is_mesh_name(&record.mesh) {
        return Err(damaged(&record_path, "it has no valid mesh name"));
    }
    let host: HostId =
        record.host.parse().map_err(|error| damaged(&record_path, format!("{error}")))?;

    let authority = read_cert(folder, CA_CERT)?;
    let id = MeshId { name: record.mesh.into(), fingerprint: verify::fingerprint(&authority) };
    let cert = read_cert(folder, HOST_CERT)?;
    let (certified, expires) = verify::host_facts(&id, &cert)
        .map_err(|error| damaged(&folder.join(HOST_CERT), error.to_string()))?;
    if certified != host {
        return Err(damaged(&folder.join(HOST_CERT), format!("it is of host {certified}")));
    }
    let key_path = folder.join(HOST_KEY);
    let key = disk::read_secret(&key_path)?.ok_or_else(|| damaged(&key_path, "it is missing"))?;
    let signer = Signer::load(cert, &key).map_err(|why| damaged(&key_path, why))?;
    let holds_ca_key = folder.join(CA_KEY).exists();
    Ok(Mesh(Arc::new(Inner {
        folder: folder.to_owned(),
        id,
        host,
        host_name: record.host_name,
        authority,
        signer,
        expires,
        holds_ca_key,
    })))
}

fn read_record(folder: &Path) -> Result<Record, TrustError> {
    let path = folder.join(RECORD);
    let text =
        disk::read(&path)?.ok_or_else(|| TrustError::Absent { folder: folder.to_owned() })?;
    serde_json::from_str(&text).map_err(|error| damaged(&path, error.to_string()))
}

fn read_cert(folder: &Path, name: &str) -> Result<CertificateDer<'static>, TrustError> {
    let path = folder.join(name);
    let text = disk::read(&path)?.ok_or_else(|| damaged(&path, "it is missing"))?;
    ca::cert_from_pem(&text).ok_or_else(|| damaged(&path, "it is not a certificate"))
}

fn damaged(path: &Path, why: impl Into<String>) -> TrustError {
    TrustError::Damaged { path: path.to_owned(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::from_unix_seconds;

    #[test]
    fn the_mesh_folder_is_found_in_the_order_that_is_documented() {
        let with = |pairs: &'static [(&str, &str)]| {
            folder_from(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "")]), None);
        assert_eq!(
            with(&[("HOME", "/home/ann")]),
            Some("/home/ann/.config/layer-cake/mesh".into())
        );
        assert_eq!(
            with(&[("HOME", "/home/ann"), ("XDG_CONFIG_HOME", "/etc/ann")]),
            Some("/etc/ann/layer-cake/mesh".into())
        );
        assert_eq!(
            with(&[("HOME", "/home/ann"), ("LAYERCAKE_MESH", "/srv/mesh")]),
            Some("/srv/mesh".into())
        );
    }

    #[test]
    fn a_host_certificate_is_renewed_where_the_key_is_and_runs_out_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let mesh = Mesh::init(dir.path(), None).unwrap();
        let first = mesh.facts().unwrap().host_expires;

        let not_yet = from_unix_seconds(first) - ca::HOST_LIFE / 2;
        assert_eq!(unix_seconds(Mesh::open_at(dir.path(), not_yet).unwrap().0.expires), first);

        let later = from_unix_seconds(first) - ca::HOST_LIFE / 4;
        let renewed = Mesh::open_at(dir.path(), later).unwrap();
        assert!(unix_seconds(renewed.0.expires) > first);
        assert_eq!((renewed.host(), renewed.id()), (mesh.host(), mesh.id()));

        fs::remove_file(dir.path().join(CA_KEY)).unwrap();
        let too_late = renewed.0.expires;
        assert!(matches!(Mesh::open_at(dir.path(), too_late), Err(TrustError::HostExpired { .. })));
    }
}
