//! Checking what a peer presents: leaf, host certificate, authority, and that the names agree.
//!
//! The signatures, the times and the constraints are rustls' own machinery (webpki); ours is only
//! what makes a host unable to speak for another: exactly one certificate between leaf and
//! authority, and a leaf named as that certificate and one step more. Host names of the network play
//! no part.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::CryptoProvider,
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::{TrustError, ca};
use crate::id::{HostId, MeshId, NodeId, PeerId};

/// Why a chain does not prove who somebody is. Nothing here is worth a retry without new
/// certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Not exactly a leaf, a host certificate and the authority.
    #[error("{0} certificates instead of leaf, host and authority")]
    Length(usize),
    /// A certificate cannot be read.
    #[error("the {0} certificate cannot be read")]
    Unreadable(&'static str),
    /// The authority is another one than ours.
    #[error("the certificate authority is {found}, not {wanted}, the one of mesh `{mesh}`")]
    Authority {
        /// The start of the fingerprint that was presented.
        found: String,
        /// The start of the fingerprint of our mesh.
        wanted: String,
        /// The name of our mesh.
        mesh: Arc<str>,
    },
    /// The issuers and subjects do not form the line leaf, host, authority.
    #[error("the leaf was not issued by the host certificate presented with it")]
    Issuer,
    /// A certificate carries no SPIFFE id, several names, or one of another shape or mesh.
    #[error("the {certificate} certificate does not carry one SPIFFE id of mesh `{mesh}`")]
    Name {
        /// Host or leaf.
        certificate: &'static str,
        /// The name of our mesh.
        mesh: Arc<str>,
    },
    /// The leaf names another host than the certificate that issued it: an attempt to speak for
    /// somebody else.
    #[error("a leaf issued by host {issuer} claims to be of host {claimed}")]
    Impostor {
        /// Who issued the leaf.
        issuer: HostId,
        /// Whom it claims to speak for.
        claimed: HostId,
    },
    /// The chain is sound, and of another host than the one wanted.
    #[error("this is host {found}, not host {wanted}")]
    OtherHost {
        /// Who it is.
        found: HostId,
        /// Who was wanted.
        wanted: HostId,
    },
}

/// Who a verified chain speaks for. `chain` is what quinn's `peer_identity()` gives.
///
/// The signatures were checked in the handshake; the relation of the names is checked again here.
///
/// # Errors
/// [`TrustError::Chain`], for any bytes at all; never panics.
pub fn peer_id(mesh: &MeshId, chain: &[CertificateDer<'_>]) -> Result<PeerId, TrustError> {
    Ok(identity(mesh, chain)?)
}

fn identity(mesh: &MeshId, chain: &[CertificateDer<'_>]) -> Result<PeerId, ChainError> {
    let [leaf_der, host_der, authority_der] = chain else {
        return Err(ChainError::Length(chain.len()));
    };
    check_authority(mesh, authority_der)?;
    let leaf = parse(leaf_der, "leaf")?;
    let host = parse(host_der, "host")?;
    let authority = parse(authority_der, "authority")?;
    // The path builder would also accept a leaf that the authority signed by itself; then the host
    // certificate beside it would prove nothing.
    let in_line = leaf.issuer().as_raw() == host.subject().as_raw()
        && host.issuer().as_raw() == authority.subject().as_raw()
        && host.subject().as_raw() != authority.subject().as_raw();
    if !in_line {
        return Err(ChainError::Issuer);
    }
    let issuer = host_of(mesh, &host)?;
    let name = |certificate| ChainError::Name { certificate, mesh: mesh.name.clone() };
    let uri = only_uri(&leaf).ok_or_else(|| name("leaf"))?;
    let (claimed, node) = parse_node_uri(mesh, uri).ok_or_else(|| name("leaf"))?;
    if claimed != issuer {
        return Err(ChainError::Impostor { issuer, claimed });
    }
    Ok(PeerId { host: issuer, node })
}

/// SHA-256 of a certificate: for the authority, what the mesh is known by.
pub(super) fn fingerprint(cert: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(cert).into()
}

/// Whom a host certificate speaks for, and until when. Its signature is not looked at.
pub(super) fn host_facts(
    mesh: &MeshId,
    cert: &CertificateDer<'_>,
) -> Result<(HostId, SystemTime), ChainError> {
    let parsed = parse(cert, "host")?;
    let until = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok((host_of(mesh, &parsed)?, super::from_unix_seconds(until)))
}

fn host_of(mesh: &MeshId, host: &X509Certificate<'_>) -> Result<HostId, ChainError> {
    only_uri(host)
        .and_then(|uri| parse_host_uri(mesh, uri))
        .ok_or_else(|| ChainError::Name { certificate: "host", mesh: mesh.name.clone() })
}

pub(super) fn check_authority(mesh: &MeshId, cert: &CertificateDer<'_>) -> Result<(), ChainError> {
    let found = fingerprint(cert);
    if found == mesh.fingerprint {
        return Ok(());
    }
    let other = MeshId { name: mesh.name.clone(), fingerprint: found };
    Err(ChainError::Authority {
        found: other.short(),
        wanted: mesh.short(),
        mesh: mesh.name.clone(),
    })
}

fn parse<'a>(
    der: &'a CertificateDer<'_>,
    which: &'static str,
) -> Result<X509Certificate<'a>, ChainError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(ChainError::Unreadable(which)),
    }
}

/// The one alternative name of the certificate, when it is one and a URI.
fn only_uri<'a>(cert: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = cert.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => Some(uri),
        _ => None,
    }
}

fn parse_host_uri(mesh: &MeshId, uri: &str) -> Option<HostId> {
    let host = uri.rsplit('/').next()?.parse().ok()?;
    // Written again and compared, so that there is one spelling of each id.
    (ca::host_uri(&mesh.name, host) == uri).then_some(host)
}

fn parse_node_uri(mesh: &MeshId, uri: &str) -> Option<(HostId, NodeId)> {
    let mut from_the_end = uri.rsplit('/');
    let node = from_the_end.next()?.parse().ok()?;
    let host = from_the_end.nth(1)?.parse().ok()?;
    (ca::node_uri(&mesh.name, host, node) == uri).then_some((host, node))
}

/// Accepts peers of one mesh, in both directions.
#[derive(Debug)]
pub(super) struct Verifier {
    mesh: MeshId,
    /// Known beforehand inside the mesh; a joiner has only the fingerprint and takes the authority
    /// from the chain.
    anchor: Option<Anchor>,
    /// The only host that will do, for a joiner.
    only: Option<HostId>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Anchor {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    /// For nodes of the mesh whose authority is `authority`.
    pub(super) fn new(
        mesh: MeshId,
        authority: &CertificateDer<'_>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let roots = Arc::new(roots(authority)?);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| TlsError::General(error.to_string()))?;
        Ok(Self { mesh, anchor: Some(Anchor { roots, clients }), only: None, provider })
    }

    /// For a host that holds nothing but a token: the authority is known by its fingerprint.
    pub(super) fn pinned(mesh: MeshId, issuer: HostId, provider: Arc<CryptoProvider>) -> Self {
        Self { mesh, anchor: None, only: Some(issuer), provider }
    }

    fn check_names(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<PeerId, TlsError> {
        let chain: Vec<_> = std::iter::once(leaf).chain(above).cloned().collect();
        let peer = identity(&self.mesh, &chain).map_err(refuse)?;
        match self.only {
            Some(wanted) if wanted != peer.host => {
                Err(refuse(ChainError::OtherHost { found: peer.host, wanted }))
            }
            _ => Ok(peer),
        }
    }
}

/// Our error, in a form that rustls answers with an alert.
fn refuse(error: ChainError) -> TlsError {
    CertificateError::Other(OtherError(Arc::new(Told(error)))).into()
}

/// rustls shows foreign errors by `Debug` only, and an operator should read a sentence.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Told(ChainError);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn roots(authority: &CertificateDer<'_>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // Holds the chain at leaf, host, authority, and the authority to the fingerprint.
        self.check_names(end_entity, intermediates)?;
        let [host, authority] = intermediates else {
            return Err(refuse(ChainError::Length(intermediates.len() + 1)));
        };
        let roots = match &self.anchor {
            Some(anchor) => anchor.roots.clone(),
            None => Arc::new(roots(authority)?),
        };
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            std::slice::from_ref(host),
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// Not at this level: a host that wants to join has no certificate yet. Whoever accepts
    /// [`super::ALPN_LINK`] demands one.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.check_names(end_entity, intermediates)?;
        let (Some(anchor), Some(host)) = (&self.anchor, intermediates.first()) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        anchor.clients.verify_client_cert(end_entity, std::slice::from_ref(host), now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

fn only_tls13() -> TlsError {
    TlsError::General("links speak TLS 1.3 only".to_owned())
}
