//! Joining: one question and one answer over one stream of a QUIC connection.
//!
//! The joining host knows the fingerprint of the authority and the issuer from its token, and speaks
//! to nobody else; the issuing host knows the joiner by the secret of the token. The joiner sends
//! the secret and a certificate request, and gets its host certificate. The issuer draws the new
//! host's id: were it the joiner's to choose, it could choose that of a host it means to replace.
//!
//! Both directions are one JSON document up to the end of the stream. Fields that are not known are
//! passed over.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{Connection, crypto::rustls::QuicClientConfig};
use rustls::{ClientConfig, version::TLS13};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    ALPN_JOIN, Mesh, Refusal, Token, TrustError,
    ca::{self, Signer},
    disk, folder,
    invite::{self, InviteId, failed},
    leaf,
    verify::{self, ChainError},
};
use crate::id::HostId;

/// The longest question and the longest answer, in bytes.
pub const MAX_JOIN_BYTES: usize = 8 << 10;

/// How long the exchange may take on either side, without the dialling.
pub const JOIN_TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long each address of the issuer has to answer.
const DIAL_TIME_LIMIT: Duration = Duration::from_secs(5);

/// How many addresses are tried, those of the token first.
const MAX_DIALS: usize = 64;

/// How long the end of the conversation may take to reach the other side.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a host was not admitted, as seen from either side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The token's time ran out; nobody was asked.
    #[error(
        "the token has expired: make a new one with `layer-cake mesh invite` on the issuing host"
    )]
    Expired,
    /// There is no address in the token, and none was found elsewhere.
    #[error("the token has no address and host {0} was not found on this network")]
    NoAddress(HostId),
    /// No address of the issuer answered. May be tried again: the token is still good.
    #[error("host {issuer} does not answer: {}", list(.tried))]
    Unreachable {
        /// Who was sought.
        issuer: HostId,
        /// Each address and what went wrong.
        tried: Vec<(SocketAddr, String)>,
    },
    /// The issuer said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The connection ended early. The token may have been used up.
    #[error("the connection was lost before the answer: {0}")]
    Lost(String),
    /// The exchange took longer than [`JOIN_TIME_LIMIT`]. The token may have been used up.
    #[error("no answer within {} seconds", JOIN_TIME_LIMIT.as_secs())]
    TimedOut,
    /// The answer was not understood.
    #[error("the answer was not understood: {0}")]
    Answer(&'static str),
    /// The certificates received do not belong together.
    #[error("the certificates received are not sound")]
    Chain(#[from] ChainError),
    /// A socket for the conversation could not be opened.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    /// The mesh folder cannot be used; [`TrustError::Present`] when there is a mesh in it already.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

fn list(tried: &[(SocketAddr, String)]) -> String {
    let each: Vec<_> = tried.iter().map(|(addr, why)| format!("{addr}: {why}")).collect();
    each.join("; ")
}

#[derive(Serialize, Deserialize)]
struct Question {
    invite: String,
    secret: String,
    request: String,
    host_name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
enum Answer {
    Welcome { authority: String, host: String },
    Refused { refusal: Refusal },
}

/// Answers a connection of a host that wants to join. Gives the id of the new host, and closes the
/// connection in any case. The mesh folder is read anew, so any node of the issuing host will do.
///
/// The caller bounds how many of these run at a time; each is over within [`JOIN_TIME_LIMIT`].
///
/// # Errors
/// [`JoinError::Refused`] with what the joiner was told, or how the connection failed.
///
/// # Cancel safety
/// When dropped, the invite may have been used up without the joiner learning of it.
pub async fn answer_join(mesh: &Mesh, connection: Connection) -> Result<HostId, JoinError> {
    let until = Instant::now() + JOIN_TIME_LIMIT;
    let outcome =
        timeout_at(until, converse(mesh, &connection)).await.unwrap_or(Err(JoinError::TimedOut));
    if !matches!(outcome, Err(JoinError::TimedOut | JoinError::Lost(_))) {
        // The joiner closes when it has read the answer; closing first could overtake it.
        let _ = timeout_at(until, connection.closed()).await;
    }
    connection.close(0u32.into(), b"done");
    outcome
}

async fn converse(mesh: &Mesh, connection: &Connection) -> Result<HostId, JoinError> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(lost)?;
    let question = receive.read_to_end(MAX_JOIN_BYTES).await.map_err(lost)?;
    let folder = mesh.folder().to_owned();
    let decided =
        tokio::task::spawn_blocking(move || decide(&folder, &question, SystemTime::now()))
            .await
            .unwrap_or_else(|error| Err(failed(error)));
    let (answer, outcome) = match decided {
        Ok((answer, host)) => (answer, Ok(host)),
        Err(refusal) => (Answer::Refused { refusal }, Err(JoinError::Refused(refusal))),
    };
    send.write_all(&to_json(&answer)?).await.map_err(lost)?;
    send.finish().map_err(lost)?;
    outcome
}

/// Reads, checks, signs, and uses the invite up last, so that nothing before it costs a token.
fn decide(folder: &Path, question: &[u8], now: SystemTime) -> Result<(Answer, HostId), Refusal> {
    let question: Question = from_json(question).ok_or(Refusal::Malformed)?;
    let id = u64::from_str_radix(&question.invite, 16).map_err(|_| Refusal::Malformed)?;
    let id = InviteId::from_bits(id);
    let secret = data_encoding::HEXLOWER
        .decode(question.secret.as_bytes())
        .map_err(|_| Refusal::Malformed)?;
    invite::check(folder, id, &secret, now)?;

    let host_name = question.host_name;
    folder::check_host_name(&host_name).map_err(|_| Refusal::Malformed)?;
    let public_key = ca::requested_key(&question.request).ok_or(Refusal::Malformed)?;
    let mesh = Mesh::open_at(folder, now).map_err(failed)?;
    let authority = folder::read_authority(folder).map_err(failed)?.ok_or(Refusal::NoKey)?;
    let host = HostId::random();
    let cert = authority.admit(&mesh.id().name, host, &public_key, now).map_err(failed)?;

    invite::consume(folder, id)?;
    tracing::debug!(%host, %host_name, invite = %id, "admitted");
    let answer =
        Answer::Welcome { authority: ca::cert_pem(&authority.cert), host: ca::cert_pem(&cert) };
    Ok((answer, host))
}

/// Enters a mesh with a token. `host_name` is what people will call this host; the system's name
/// unless given.
///
/// # Errors
/// See [`JoinError`]. The folder holds a mesh after success and at no other time.
///
/// # Cancel safety
/// When dropped, the token may have been used up.
pub async fn join(
    token: &Token,
    folder: &Path,
    host_name: Option<&str>,
) -> Result<Mesh, JoinError> {
    join_with(token, &[], folder, host_name).await
}

/// As [`join`], and tries further addresses where the issuer may be, such as mDNS tells. A wrong one
/// does no harm: only the issuer can prove itself.
///
/// # Errors
/// As [`join`].
///
/// # Cancel safety
/// As [`join`].
pub async fn join_with(
    token: &Token,
    more_addrs: &[SocketAddr],
    folder: &Path,
    host_name: Option<&str>,
) -> Result<Mesh, JoinError> {
    if SystemTime::now() >= token.expires {
        return Err(JoinError::Expired);
    }
    let host_name = host_name.map_or_else(folder::system_host_name, str::to_owned);
    folder::check_host_name(&host_name)?;
    let folder = folder::absolute(folder)?;
    let lock = blocking({
        let folder = folder.clone();
        move || reserve(&folder)
    })
    .await?;

    let (key, request) = ca::request().map_err(TrustError::from)?;
    let question = Question {
        invite: token.invite.to_string(),
        secret: data_encoding::HEXLOWER.encode(&token.secret),
        request,
        host_name: host_name.clone(),
    };
    let endpoint = endpoint()?;
    let answer = ask(&endpoint, token, more_addrs, &question).await;
    endpoint.close(0u32.into(), b"done");
    let _ = timeout(GOODBYE, endpoint.wait_idle()).await;
    let (authority, host) = match answer? {
        Answer::Welcome { authority, host } => (authority, host),
        Answer::Refused { refusal } => return Err(JoinError::Refused(refusal)),
    };

    let unreadable = || JoinError::Answer("a certificate in it cannot be read");
    let authority = ca::cert_from_pem(&authority).ok_or_else(unreadable)?;
    verify::check_authority(&token.mesh, &authority)?;
    let cert = ca::cert_from_pem(&host).ok_or_else(unreadable)?;
    let (host, _) = verify::host_facts(&token.mesh, &cert)?;
    let signer = Signer::load(cert, &key.serialize_pem())
        .map_err(|_| JoinError::Answer("the host certificate in it is not for our key"))?;
    let mesh = token.mesh.name.clone();
    blocking(move || {
        let membership = folder::Membership {
            mesh: &mesh,
            host,
            host_name: &host_name,
            authority: &authority,
            signer: &signer,
            authority_key: None,
        };
        folder::install(&folder, &membership)?;
        drop(lock);
        Ok(Mesh::open(&folder)?)
    })
    .await
}

/// Takes the folder for the time of the exchange, so that no node that starts meanwhile makes a mesh
/// of its own there after the token is used up.
fn reserve(folder: &Path) -> Result<std::fs::File, JoinError> {
    folder::refuse_present(folder)?;
    disk::make_private_folder(folder)?;
    let lock = disk::lock(folder)?;
    folder::refuse_present(folder)?;
    Ok(lock)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JoinError> + Send + 'static,
) -> Result<T, JoinError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(TrustError::Io {
            what: "work on",
            path: PathBuf::from("the mesh folder"),
            source: io::Error::other(error),
        }
        .into()),
    }
}

/// A socket of our own; it sends to both families where the system has both.
fn endpoint() -> Result<quinn::Endpoint, JoinError> {
    quinn::Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_| quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))
        .map_err(JoinError::Socket)
}

async fn ask(
    endpoint: &quinn::Endpoint,
    token: &Token,
    more_addrs: &[SocketAddr],
    question: &Question,
) -> Result<Answer, JoinError> {
    let connection = dial(endpoint, token, more_addrs).await?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(lost)?;
        send.write_all(&to_json(question)?).await.map_err(lost)?;
        send.finish().map_err(lost)?;
        let answer = receive.read_to_end(MAX_JOIN_BYTES).await.map_err(lost)?;
        from_json(&answer).ok_or(JoinError::Answer("it is of another version"))
    };
    timeout(JOIN_TIME_LIMIT, exchange).await.unwrap_or(Err(JoinError::TimedOut))
}

/// The first address where the issuer proves itself.
async fn dial(
    endpoint: &quinn::Endpoint,
    token: &Token,
    more_addrs: &[SocketAddr],
) -> Result<Connection, JoinError> {
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in token.addrs.iter().chain(more_addrs) {
        if addrs.len() < MAX_DIALS && !addrs.contains(addr) {
            addrs.push(*addr);
        }
    }
    if addrs.is_empty() {
        return Err(JoinError::NoAddress(token.issuer));
    }
    let config = client_config(token)?;
    let mut dials: FuturesUnordered<_> = addrs
        .into_iter()
        .map(|addr| {
            let config = config.clone();
            async move {
                let attempt = async {
                    // A name has to be given; none is sent and none is checked.
                    let connecting = endpoint
                        .connect_with(config, addr, "layer-cake")
                        .map_err(|error| error.to_string())?;
                    connecting.await.map_err(|error| error.to_string())
                };
                let outcome = timeout(DIAL_TIME_LIMIT, attempt).await;
                (addr, outcome.unwrap_or_else(|_| Err("no answer".to_owned())))
            }
        })
        .collect();
    let mut tried = Vec::new();
    while let Some((addr, outcome)) = dials.next().await {
        match outcome {
            Ok(connection) => return Ok(connection),
            Err(why) => tried.push((addr, why)),
        }
    }
    Err(JoinError::Unreachable { issuer: token.issuer, tried })
}

fn client_config(token: &Token) -> Result<quinn::ClientConfig, TrustError> {
    let provider = leaf::provider();
    let verifier = verify::Verifier::pinned(token.mesh.clone(), token.issuer, provider.clone());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    leaf::harden(&mut tls);
    let quic = QuicClientConfig::try_from(tls)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(quinn::ClientConfig::new(Arc::new(quic)))
}

fn lost(error: impl std::fmt::Display) -> JoinError {
    JoinError::Lost(error.to_string())
}

fn to_json(document: &impl Serialize) -> Result<Vec<u8>, JoinError> {
    serde_json::to_vec(document).map_err(lost)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_for_more_than_it_is_due_gets_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mesh = Mesh::init(dir.path(), Some("ours")).unwrap();
        let token = mesh.invite(Duration::from_secs(60), &[]).unwrap();
        // The request asks for the name of the host that issued the token.
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wish = rcgen::CertificateParams::default();
        let uri = ca::host_uri("ours", mesh.host());
        wish.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        let question = Question {
            invite: token.invite.to_string(),
            secret: data_encoding::HEXLOWER.encode(&token.secret),
            request: wish.serialize_request(&key).unwrap().pem().unwrap(),
            host_name: "rack2".to_owned(),
        };
        let question = to_json(&question).unwrap();
        let decided = decide(dir.path(), &question, SystemTime::now());
        let Ok((Answer::Welcome { host, .. }, admitted)) = decided else {
            panic!("refused");
        };
        let cert = ca::cert_from_pem(&host).unwrap();
        assert_eq!(verify::host_facts(mesh.id(), &cert).unwrap().0, admitted);
        assert_ne!(admitted, mesh.host());
    }

    #[test]
    fn a_reason_of_a_newer_version_is_still_a_refusal() {
        let text = br#"{"answer":"refused","refusal":{"reason":"full-moon"},"more":1}"#;
        let answer = from_json::<Answer>(text);
        assert!(matches!(answer, Some(Answer::Refused { refusal: Refusal::Other })));
    }

    proptest! {
        #[test]
        fn any_request_for_a_certificate_gets_an_answer(
            at in 0usize..400, byte: u8, cut in 0usize..400,
        ) {
            let (_, request) = ca::request().unwrap();
            let lines: String = request.lines().filter(|line| !line.starts_with('-')).collect();
            let mut der = data_encoding::BASE64.decode(lines.as_bytes()).unwrap();
            let at = at % der.len();
            der[at] = byte;
            der.truncate(der.len().saturating_sub(cut / 10));
            let body = data_encoding::BASE64.encode(&der);
            let label = "CERTIFICATE REQUEST";
            let _ = ca::requested_key(&format!(
                "-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
            ));
        }

        #[test]
        fn any_question_gets_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let decided = decide(Path::new("/nowhere"), &bytes, SystemTime::now());
            prop_assert!(matches!(decided, Err(Refusal::Malformed)));
        }
    }
}
