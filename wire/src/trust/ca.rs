//! Making keys and certificates: the authority, hosts below it, leaves below those.
//!
//! Values in, values out; the time is an argument. What is accepted is decided in `verify`.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::id::{HostId, NodeId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an authority lives. It is not renewed: after that, a new mesh is made.
pub(super) const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// How long a host certificate lives. Renewed where the key of the authority is, see `folder`.
pub(super) const HOST_LIFE: Duration = DAY.saturating_mul(365);
/// How long a node's leaf lives. Renewed by the node itself, see `leaf`.
pub(super) const LEAF_LIFE: Duration = DAY;
/// Certificates are valid from this long before they are made, for hosts whose clock is behind.
pub(super) const BACKDATE: Duration = DAY;

/// The SPIFFE id of a host.
pub(super) fn host_uri(mesh: &str, host: HostId) -> String {
    format!("spiffe://{mesh}/host/{host}")
}

/// The SPIFFE id of a node.
pub(super) fn node_uri(mesh: &str, host: HostId, node: NodeId) -> String {
    format!("{}/node/{node}", host_uri(mesh, host))
}

/// A key with the certificate that lets it sign others: the authority, or a host.
pub(super) struct Signer {
    pub(super) cert: CertificateDer<'static>,
    key: KeyPair,
}

impl Signer {
    /// Makes the authority of a mesh.
    pub(super) fn authority(mesh: &str, now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(format!("layer-cake mesh {mesh}"), now, now + CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?.der().clone();
        Ok(Self { cert, key })
    }

    /// Makes a host below the authority, with a key of its own.
    pub(super) fn host(
        authority: &Self,
        mesh: &str,
        host: HostId,
        now: SystemTime,
    ) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let cert = authority.admit(mesh, host, &key, now)?;
        Ok(Self { cert, key })
    }

    /// Puts a stored key and its certificate together again.
    ///
    /// # Errors
    /// What is wrong, as a clause: not a key, not a certificate, or not of one pair.
    pub(super) fn load(cert: CertificateDer<'static>, key_pem: &str) -> Result<Self, &'static str> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| "it is not a private key")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&cert)
            .map_err(|_| "the certificate beside it cannot be read")?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("it does not belong to the certificate beside it");
        }
        Ok(Self { cert, key })
    }

    /// Of the authority: a certificate that lets the holder of `public_key` speak for `host`.
    /// What else a request may ask for is of no account.
    pub(super) fn admit(
        &self,
        mesh: &str,
        host: HostId,
        public_key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = params(format!("layer-cake host {host}"), now, now + HOST_LIFE);
        params.subject_alt_names = vec![SanType::URI(host_uri(mesh, host).try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(public_key, &self.issuer()?)?.der().clone())
    }

    /// Of a host: a fresh key for one node, and its certificate under the SPIFFE id `uri`.
    pub(super) fn leaf(&self, uri: String, now: SystemTime) -> Result<Leaf, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("layer-cake node".to_owned(), now, now + LEAF_LIFE);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer()?)?.der().clone();
        Ok(Leaf { cert, key })
    }

    /// The key, to sign another certificate for it.
    pub(super) fn public_key(&self) -> &impl PublicKeyData {
        &self.key
    }

    /// The private key as text, for the file it is kept in.
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_der(&self.cert, &self.key)
    }
}

/// What a node proves itself with.
pub(super) struct Leaf {
    pub(super) cert: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

/// A fresh key of a host that wants to join, and the request to certify it.
pub(super) fn request() -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

/// The public key of a request, after checking that the sender holds its private half. Every other
/// wish in the request is dropped. `None` when it is not a request of ours.
pub(super) fn requested_key(request_pem: &str) -> Option<rcgen::PublicKey> {
    let request = CertificateSigningRequestParams::from_pem(request_pem).ok()?;
    // The signature algorithm does not fix the curve; an uncompressed P-256 point has 65 bytes.
    let point = request.public_key.der_bytes();
    let is_p256 = request.public_key.algorithm() == &PKCS_ECDSA_P256_SHA256
        && point.len() == 65
        && point[0] == 4;
    is_p256.then_some(request.public_key)
}

/// A certificate as text, for a file or a message.
pub(super) fn cert_pem(cert: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let body = data_encoding::BASE64.encode(cert);
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The first certificate in a text.
pub(super) fn cert_from_pem(text: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(text.as_bytes()).ok()
}

fn params(common_name: String, now: SystemTime, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).into();
    params.not_after = not_after.into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Drawn, because the default is derived from the key, and a renewal keeps its key.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and of constant length
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}
