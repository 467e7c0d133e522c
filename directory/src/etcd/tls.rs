//! Encrypted connections to etcd: it proves who it is by one authority, this host by its certificate.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{EngineError, EtcdTls};

/// Reads the files.
pub(super) fn load(tls: &EtcdTls) -> Result<ClientConfig, EngineError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).map_err(|error| unusable(&tls.ca, &error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&tls.ca, &error))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &tls.identity else { return Ok(config.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    config.with_client_auth_cert(chain, secret).map_err(|error| unusable(certificate, &error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    let all = CertificateDer::pem_file_iter(file).map_err(|error| unusable(file, &error))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| unusable(file, &error))?;
    if all.is_empty() {
        return Err(unusable(file, &"there is no certificate in it"));
    }
    Ok(all)
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> EngineError {
    EngineError::Tls { file: file.to_owned(), why: why.to_string() }
}

/// Encrypts a connection to an endpoint, `host:port`.
pub(super) async fn wrap(
    stream: TcpStream,
    endpoint: &str,
    tls: &EtcdTls,
) -> Result<TlsStream<TcpStream>, String> {
    let config = load(tls).map_err(|error| error.to_string())?;
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}
