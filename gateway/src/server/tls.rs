//! HTTPS: the certificate, its key, and their renewal.
//!
//! The files are looked at once a second and read again when they have changed, so that renewing a
//! certificate needs no restart. A pair that cannot be used (a key that does not fit while only one of
//! the two is new, say) is logged and the old one stays. TLS 1.3 alone is spoken.

use std::{
    convert::Infallible,
    error::Error,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use tokio::{sync::watch, time::sleep};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// More than any chain or key has, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority, in that order, as PEM.
    pub cert: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// These two.
    #[must_use]
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { cert: cert.into(), key: key.into() }
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file has more bytes than any certificate or key.
    #[error("`{}` has {size} bytes, too many for a certificate or a key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// A file is not what it should be.
    #[error("no {what} in `{}`: {reason}", path.display())]
    Content {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The certificate and the key do not make a server.
    #[error("the certificate `{}` and the key `{}` cannot be used together", cert.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What TLS says.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate that is shown to clients now.
pub(super) struct Tls {
    files: TlsFiles,
    current: watch::Sender<Arc<ServerConfig>>,
    /// The state of the files before they were first read.
    stamps: Option<[Stamp; 2]>,
}

impl Tls {
    /// Reads the files.
    pub(super) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let current = watch::Sender::new(Arc::new(load(&files)?));
        Ok(Self { files, current, stamps })
    }

    /// What accepts connections with the present certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config())
    }

    /// The present certificate, with the protocols spoken over TCP.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.borrow().clone()
    }

    /// Hears of each renewal.
    #[cfg(feature = "h3")]
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Reads the files again whenever they change; never ends.
    pub(super) async fn renew(&self) -> Infallible {
        let mut seen = self.stamps;
        loop {
            sleep(LOOK).await;
            let files = self.files.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let found = stamps(&files);
                (found, (found != seen).then(|| load(&files)))
            });
            // It neither panics nor is cancelled before the runtime ends.
            let Ok((found, loaded)) = looked.await else { continue };
            seen = found;
            let cert = self.files.cert.display();
            match loaded {
                None => {}
                Some(Ok(config)) => {
                    let config = Arc::new(config);
                    self.current.send_replace(config);
                    tracing::info!(%cert, "the certificate was renewed");
                }
                Some(Err(error)) => {
                    let cause = error.source().map(ToString::to_string);
                    tracing::warn!(%cert, %error, cause, "the new certificate cannot be used; the one before stays");
                }
            }
        }
    }
}

/// What changes when a file is replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self { modified: found.modified().ok(), size: found.len(), inode: found.ino() })
    }
}

/// Of both files; `None` while one is not there.
fn stamps(files: &TlsFiles) -> Option<[Stamp; 2]> {
    Some([Stamp::of(&files.cert).ok()?, Stamp::of(&files.key).ok()?])
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let TlsFiles { cert, key } = files;
    let content = |what, path: &Path, error: &pem::Error| {
        let path = path.to_owned();
        TlsError::Content { what, path, reason: error.to_string() }
    };
    let chain = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|error| content("certificate", cert, &error))?;
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| content("private key", key, &error))?;

    let unusable = |source| TlsError::Unusable { cert: cert.clone(), key: key.clone(), source };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Who comes back need not prove and verify anew.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(unusable)?;
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(TlsError::TooLarge { path: path.to_owned(), size });
    }
    fs::read(path).map_err(failed)
}
