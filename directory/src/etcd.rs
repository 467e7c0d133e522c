//! The other engine: hosts that meet in etcd instead of telling each other, for meshes of several
//! sites or clouds.
//!
//! Each host directory writes what its host offers to the mesh under one lease, and watches what all
//! others write. Nothing else changes: nodes talk to the directory of their host as ever, and dial
//! each other by the addresses in the records.
//!
//! `core` decides, without clock or socket; `keys` says what is stored where; `client` speaks etcd's
//! JSON over HTTP/1.1, and `json` is the shape of it. `crate::host` feeds the core.

use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

pub(crate) mod core;
pub(crate) mod keys;

#[cfg(feature = "etcd")]
pub(crate) mod client;
#[cfg(feature = "etcd")]
mod json;
#[cfg(feature = "etcd")]
mod tls;

/// The environment variable that chooses the engine: `gossip` or `etcd`.
pub const ENGINE_VARIABLE: &str = "LAYERCAKE_DIRECTORY";
/// The environment variable with the endpoints of etcd, `http://host:port` or `https://host:port`,
/// separated by commas.
pub const ETCD_VARIABLE: &str = "LAYERCAKE_ETCD";
/// The environment variable with the time to live of a host's lease, in whole seconds.
pub const ETCD_TTL_VARIABLE: &str = "LAYERCAKE_ETCD_TTL";
/// The environment variable with the file of the certificates that vouch for etcd, in PEM. Needed for
/// `https`.
pub const ETCD_CA_VARIABLE: &str = "LAYERCAKE_ETCD_CA";
/// The environment variables with the files of this host's certificate and key, in PEM, where etcd
/// asks for one.
pub const ETCD_CERT_VARIABLES: (&str, &str) = ("LAYERCAKE_ETCD_CERT", "LAYERCAKE_ETCD_KEY");
/// The time to live of a host's lease unless told otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// The shortest and the longest time to live. etcd itself goes no lower than two seconds by default.
pub const TTL_RANGE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// Endpoints that are used.
pub const MAX_ENDPOINTS: usize = 16;

/// How the directories of the hosts know of each other. All hosts of a mesh choose the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Engine {
    /// Hosts find each other and tell each other: nothing to install. For one LAN.
    #[default]
    Gossip,
    /// Hosts meet in etcd. For several sites or clouds, and for exclusive names of which there must
    /// never be two holders.
    Etcd(EtcdConfig),
}

/// Where etcd is, and how long it remembers a host that has fallen silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdConfig {
    /// Members of the etcd cluster, as `host:port`; at most [`MAX_ENDPOINTS`]. One is used at a time;
    /// where it does not answer, the next one.
    pub endpoints: Vec<String>,
    /// A host that was not heard by etcd for so long is lost, and its exclusive names are free. A whole
    /// number of seconds within [`TTL_RANGE`].
    pub ttl: Duration,
    /// How etcd is known, for encrypted connections to all endpoints; without it none is encrypted.
    pub tls: Option<EtcdTls>,
}

/// What encrypted connections to etcd need. The files are read for each connection: they may be
/// replaced at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdTls {
    /// The certificates that vouch for etcd, in PEM. No others do.
    pub ca: PathBuf,
    /// The certificate and the key of this host, in PEM, where etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a choice of the engine is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No such engine.
    #[error("{ENGINE_VARIABLE} is `{0}`; it may be `gossip` or `etcd`")]
    Unknown(String),
    /// This build has gossip alone.
    #[error("this program is built without etcd; build it with the feature `etcd`")]
    NotBuilt,
    /// Nowhere to go.
    #[error(
        "no endpoint of etcd; set {ETCD_VARIABLE} to one or several, as in `http://10.0.0.5:2379`"
    )]
    NoEndpoint,
    /// Too many places to go.
    #[error("{0} endpoints of etcd; at most {MAX_ENDPOINTS} are used")]
    TooMany(usize),
    /// Some connections encrypted and others not, or certificates for none.
    #[error(
        "endpoints of etcd are all `http://`, or all `https://` with {ETCD_CA_VARIABLE}; `{0}` is neither"
    )]
    Mixed(String),
    /// A certificate without a key, or the other way round.
    #[error("{} and {} belong together", ETCD_CERT_VARIABLES.0, ETCD_CERT_VARIABLES.1)]
    HalfIdentity,
    /// A file for encrypted connections cannot be used.
    #[error("`{}` cannot be used for connections to etcd: {why}", file.display())]
    Tls {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Not an endpoint.
    #[error("`{0}` is no endpoint of etcd; write it like `http://10.0.0.5:2379`")]
    Endpoint(String),
    /// Not a time to live.
    #[error("`{0}` is no time to live of a lease; give whole seconds from 2 to 600")]
    Ttl(String),
}

impl Engine {
    /// What `LAYERCAKE_DIRECTORY`, `LAYERCAKE_ETCD` and `LAYERCAKE_ETCD_TTL` say; gossip where the
    /// first is not set.
    ///
    /// # Errors
    /// [`EngineError`] says which value cannot be used.
    pub fn from_env() -> Result<Self, EngineError> {
        Self::from_texts(|variable| std::env::var(variable).ok())
    }

    pub(crate) fn from_texts(
        text: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, EngineError> {
        let engine = text(ENGINE_VARIABLE).unwrap_or_default();
        match engine.trim() {
            "" | "gossip" => Ok(Self::Gossip),
            "etcd" => {
                let endpoints = text(ETCD_VARIABLE).unwrap_or_default();
                let split = endpoints.split([',', ' ', '\t', '\n']).filter(|e| !e.is_empty());
                let split: Vec<_> = split.collect();
                let tls = tls(&text)?;
                for endpoint in &split {
                    if endpoint.starts_with("https://") != tls.is_some() {
                        return Err(EngineError::Mixed((*endpoint).to_owned()));
                    }
                }
                let endpoints: Vec<_> =
                    split.into_iter().map(endpoint).collect::<Result<_, _>>()?;
                let ttl = match text(ETCD_TTL_VARIABLE).filter(|ttl| !ttl.trim().is_empty()) {
                    Some(ttl) => {
                        let seconds = ttl.trim().parse().map_err(|_| EngineError::Ttl(ttl))?;
                        Duration::from_secs(seconds)
                    }
                    None => DEFAULT_TTL,
                };
                let config = EtcdConfig { endpoints, ttl, tls };
                config.check()?;
                Ok(Self::Etcd(config))
            }
            _ => Err(EngineError::Unknown(engine)),
        }
    }

    /// Whether it can be used by this build.
    ///
    /// # Errors
    /// [`EngineError`] says what is wrong with it.
    pub fn check(&self) -> Result<(), EngineError> {
        match self {
            Self::Gossip => Ok(()),
            Self::Etcd(config) => config.check(),
        }
    }
}

impl EtcdConfig {
    fn check(&self) -> Result<(), EngineError> {
        if cfg!(not(feature = "etcd")) {
            return Err(EngineError::NotBuilt);
        }
        match self.endpoints.len() {
            0 => return Err(EngineError::NoEndpoint),
            count if count > MAX_ENDPOINTS => return Err(EngineError::TooMany(count)),
            _ => {}
        }
        for text in &self.endpoints {
            if endpoint(text)? != *text {
                return Err(EngineError::Endpoint(text.clone()));
            }
        }
        if self.ttl < TTL_RANGE.0 || self.ttl > TTL_RANGE.1 || self.ttl.subsec_nanos() > 0 {
            return Err(EngineError::Ttl(format!("{:?}", self.ttl)));
        }
        #[cfg(feature = "etcd")]
        if let Some(tls) = &self.tls {
            tls::load(tls)?;
        }
        Ok(())
    }
}

/// The files that the environment names.
fn tls(text: &impl Fn(&'static str) -> Option<String>) -> Result<Option<EtcdTls>, EngineError> {
    let file = |variable| text(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let identity = match (file(ETCD_CERT_VARIABLES.0), file(ETCD_CERT_VARIABLES.1)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(EngineError::HalfIdentity),
    };
    Ok(file(ETCD_CA_VARIABLE).map(|ca| EtcdTls { ca, identity }))
}

/// `host:port` of an endpoint that may be written as a URL.
fn endpoint(text: &str) -> Result<String, EngineError> {
    let bare = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let bare = bare.unwrap_or(text).trim_end_matches('/');
    let wrong = || EngineError::Endpoint(text.to_owned());
    let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
    if host.is_empty() || host.chars().any(odd) || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    // An address of version 6 has colons of its own.
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(wrong());
    }
    Ok(bare.to_owned())
}

#[cfg(all(test, feature = "etcd"))]
mod tests {
    use super::*;

    fn engine(texts: &[(&str, &str)]) -> Result<Engine, EngineError> {
        let text = |variable: &str| {
            let found = texts.iter().find(|(name, _)| *name == variable);
            found.map(|(_, text)| (*text).to_owned())
        };
        Engine::from_texts(text)
    }

    #[test]
    fn the_engine_is_gossip_unless_told_otherwise() {
        assert_eq!(engine(&[]), Ok(Engine::Gossip));
        assert_eq!(engine(&[(ENGINE_VARIABLE, "gossip")]), Ok(Engine::Gossip));
        let etcd = engine(&[
            (ENGINE_VARIABLE, "etcd"),
            (ETCD_VARIABLE, "http://a:2379, http://[fd00::1]:2379/,10.0.0.5:1"),
            (ETCD_TTL_VARIABLE, "3"),
        ]);
        let endpoints = ["a:2379", "[fd00::1]:2379", "10.0.0.5:1"].map(str::to_owned).to_vec();
        let ttl = Duration::from_secs(3);
        assert_eq!(etcd, Ok(Engine::Etcd(EtcdConfig { endpoints, ttl, tls: None })));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let etcd = (ENGINE_VARIABLE, "etcd");
        let one = (ETCD_VARIABLE, "http://a:1");
        for (texts, told) in [
            (vec![(ENGINE_VARIABLE, "consul")], "consul"),
            (vec![etcd], "LAYERCAKE_ETCD"),
            (vec![etcd, (ETCD_VARIABLE, "https://a:1")], "LAYERCAKE_ETCD_CA"),
            (vec![etcd, one, (ETCD_CA_VARIABLE, "/nowhere")], "http://a:1"),
            (vec![etcd, one, (ETCD_CERT_VARIABLES.0, "/nowhere")], "LAYERCAKE_ETCD_KEY"),
            (
                vec![etcd, (ETCD_VARIABLE, "https://a:1"), (ETCD_CA_VARIABLE, "/nowhere")],
                "`/nowhere`",
            ),
            (vec![etcd, (ETCD_VARIABLE, "http://a")], "http://a"),
            (vec![etcd, (ETCD_VARIABLE, "http://a:x")], "a:x"),
            (vec![etcd, (ETCD_VARIABLE, "a:b:1")], "a:b:1"),
            (vec![etcd, (ETCD_VARIABLE, "http://u@a/x:1")], "u@a"),
            (vec![etcd, one, (ETCD_TTL_VARIABLE, "1")], "seconds"),
            (vec![etcd, one, (ETCD_TTL_VARIABLE, "1.5")], "`1.5`"),
        ] {
            let error = engine(&texts).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let many = format!("{}h:1", "h:1,".repeat(MAX_ENDPOINTS));
        assert_eq!(engine(&[etcd, (ETCD_VARIABLE, &many)]), Err(EngineError::TooMany(17)));
    }
}
