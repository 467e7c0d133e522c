//! A node's own certificate and the TLS configurations that present it.
//!
//! The leaf lives in memory only, for a day. A handshake that finds less than a third of that left
//! makes the next one, so a node that runs for months needs no restart; a host that was taken out of
//! the mesh (its folder removed) loses its nodes within the day.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::{ALPN_JOIN, ALPN_LINK, Mesh, TrustError, ca, verify::Verifier};
use crate::id::{HostId, MeshId, NodeId};

/// After a renewal that failed, how long until a handshake tries again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What a node speaks TLS with: version 1.3 only, no resumption and no early data, because a ticket
/// would outlive the removal of a host.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// For accepting. Clients without a certificate pass, because of those that want to join:
    /// whoever accepts [`ALPN_LINK`] must ask [`super::peer_id`] who it is.
    pub server: Arc<ServerConfig>,
    /// For dialling. Any server name will do, none is sent or checked.
    pub client: Arc<ClientConfig>,
}

/// The cryptography, named explicitly: with two providers in a build, the implicit one panics.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl NodeTls {
    pub(super) fn new(mesh: &Mesh, node: NodeId, now: SystemTime) -> Result<Self, TrustError> {
        let provider = provider();
        let verifier =
            Arc::new(Verifier::new(mesh.id().clone(), mesh.authority(), provider.clone())?);
        let source = Arc::new(Source::new(mesh, node, now)?);

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(source.clone());
        server.alpn_protocols = vec![ALPN_LINK.to_vec(), ALPN_JOIN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.max_early_data_size = 0;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // rustls' word for any verifier that is not the web's
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(source);
        client.alpn_protocols = vec![ALPN_LINK.to_vec()];
        harden(&mut client);

        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// What all clients of ours have in common.
pub(super) fn harden(client: &mut ClientConfig) {
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    client.enable_sni = false;
}

/// The current leaf, renewed on demand.
pub(super) struct Source {
    folder: PathBuf,
    mesh: MeshId,
    host: HostId,
    node: NodeId,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl Source {
    pub(super) fn new(mesh: &Mesh, node: NodeId, now: SystemTime) -> Result<Self, TrustError> {
        Ok(Self {
            folder: mesh.folder().to_owned(),
            mesh: mesh.id().clone(),
            host: mesh.host(),
            node,
            current: Mutex::new(Current { key: certify(mesh, node, now)?, renew_at: next(now) }),
        })
    }

    /// The leaf to present now. Twice a day this reads the folder; a failure is logged and the leaf
    /// at hand is used on.
    pub(super) fn key_at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if now >= current.renew_at {
            match self.renewed(now) {
                Ok(key) => *current = Current { key, renew_at: next(now) },
                Err(why) => {
                    tracing::warn!(node = %self.node.short(), %why, "cannot renew the node's certificate");
                    current.renew_at = now + RENEWAL_PAUSE;
                }
            }
        }
        current.key.clone()
    }

    /// From the folder as it is now, because the host certificate may have been renewed meanwhile.
    fn renewed(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, String> {
        let mesh = Mesh::open_at(&self.folder, now).map_err(|error| error.to_string())?;
        if *mesh.id() != self.mesh || mesh.host() != self.host {
            return Err(format!("{} now holds another mesh", self.folder.display()));
        }
        certify(&mesh, self.node, now).map_err(|error| error.to_string())
    }
}

fn next(now: SystemTime) -> SystemTime {
    now + ca::LEAF_LIFE / 3 * 2
}

fn certify(mesh: &Mesh, node: NodeId, now: SystemTime) -> Result<Arc<CertifiedKey>, TrustError> {
    let leaf = mesh.leaf(node, now)?;
    let key = PrivatePkcs8KeyDer::from(leaf.key.serialize_der());
    let key = aws_lc_rs::sign::any_supported_type(&key.into())?;
    Ok(Arc::new(CertifiedKey::new(mesh.chain(leaf.cert), key)))
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}@{})", self.node.short(), self.host.short())
    }
}

impl ResolvesServerCert for Source {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key_at(SystemTime::now()))
    }
}

impl ResolvesClientCert for Source {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.key_at(SystemTime::now()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
