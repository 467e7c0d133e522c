//! One connection, from its first byte to its end.
//!
//! The first bytes tell what is spoken: a declared proxy's word on who the client is, TLS, HTTP/2 with
//! prior knowledge, else HTTP/1.1.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use socket2::TcpKeepalive;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    multiplexed::{Multiplexed, Requests},
    proxy,
    stall::{Ours, Silence, Stalling},
    tls::Tls,
};
use crate::{
    body::Source,
    config::GatewayConfig,
    door::Origin,
    handle::Front,
    reply::{Answer, AnswerBody, BrokenOff, GoesOn},
};

/// What an HTTP/2 connection with prior knowledge begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a TLS connection begins with: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long to wait before looking again at a preface that has come in part. It comes in one segment
/// from every client known, so that this is about the others.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// How long an ancestor's client may pause between two requests.
const ANCESTOR_IDLE: Duration = Duration::from_secs(600);
/// The most headers that hyper takes over HTTP/1.1 unless it is told otherwise.
const HEADERS: usize = 100;
/// After so much silence the system asks that of the client whether it is there, so many times, with these
/// pauses.
const PROBE_AFTER: Duration = Duration::from_secs(20);
const PROBE_PAUSE: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// What every connection needs.
pub(super) struct Shared {
    pub(super) front: Front,
    pub(super) tls: Option<Tls>,
    http1: http1::Builder,
    /// What answers say of HTTP/3, while it is served.
    #[cfg(feature = "h3")]
    alternative: std::sync::RwLock<Option<HeaderValue>>,
}

impl Shared {
    pub(super) fn new(front: Front, tls: Option<Tls>) -> Self {
        let http1 = http1(&front.config);
        Self {
            front,
            tls,
            http1,
            #[cfg(feature = "h3")]
            alternative: std::sync::RwLock::default(),
        }
    }

    /// Tells clients from now on where else they can be served, or nothing any more.
    #[cfg(feature = "h3")]
    pub(super) fn offer(&self, alternative: Option<HeaderValue>) {
        *self.alternative.write().unwrap_or_else(PoisonError::into_inner) = alternative;
    }

    /// Answers a request over TCP.
    fn answer(
        &self,
        request: Request<Incoming>,
        origin: Origin,
    ) -> impl Future<Output = Answer> + Send {
        let answering = self.front.handle(request.map(Source::Tcp), origin);
        #[cfg(feature = "h3")]
        let answering = FutureExt::map(answering, |mut answer| {
            let alternative = self.alternative.read();
            let alternative = alternative.unwrap_or_else(PoisonError::into_inner);
            if let Some(alternative) = &*alternative {
                answer.headers_mut().insert(header::ALT_SVC, alternative.clone());
            }
            answer
        });
        answering
    }
}

fn http1(config: &GatewayConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None) // see `silence`
        .title_case_headers(config.ancestor)
        .max_header_size(config.header_limit);
    // The limit itself is kept with all others, whatever the protocol. To set one here costs each request
    // a twentieth of its instructions: the room is then filled one by one.
    if config.max_headers > HEADERS {
        builder.max_headers(config.max_headers);
    }
    builder
}

/// For how long a client may be silent over HTTP/1.1.
fn silence(config: &GatewayConfig) -> Arc<Silence> {
    let idle = match config.ancestor {
        true => config.idle_timeout.max(ANCESTOR_IDLE),
        false => config.idle_timeout,
    };
    Silence::new(config.header_timeout, idle)
}

fn http2(config: &GatewayConfig, requests: Requests) -> http2::Builder<Requests> {
    let mut builder = http2::Builder::new(requests);
    builder
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.header_limit).unwrap_or(u32::MAX));
    builder
}

/// How connections are told to end.
#[derive(Clone, Default)]
pub(super) struct Closing {
    /// Finish what is under way. HTTP/2 has a word for it that loses no request. HTTP/1.1 has none:
    /// there each answer says from now on that it is the last one.
    pub(super) gently: CancellationToken,
    /// Close what has no request under way.
    pub(super) idle: CancellationToken,
}

/// Serves one connection to its end. What each kind of connection needs is boxed, or all would have room
/// for the largest.
pub(super) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    closing: Closing,
) {
    let config = &shared.front.config;
    configure(&stream, config.write_timeout);
    let _open = Open::new(&shared);

    let begin = timeout(config.header_timeout, begin(&mut stream, peer, &shared));
    let begun = tokio::select! {
        biased;
        begun = begin => begun,
        () = closing.idle.cancelled() => return,
    };
    let (version, client) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => return tracing::debug!(%error, %peer, "connection not begun"),
        Err(_) => return, // silent for too long
    };
    match (version, &shared.tls) {
        (Protocol::Tls, Some(tls)) => {
            Box::pin(secure(stream, tls, Origin { client }, &shared, &closing)).await;
        }
        (Protocol::Http1, Some(_)) => Box::pin(redirect(stream, &shared, &closing)).await,
        (_, Some(_)) => {} // HTTP/2 with prior knowledge, which nobody speaks by mistake
        (version, None) => {
            Box::pin(speak(stream, version, Origin { client }, &shared, &closing)).await;
        }
    }
}

/// Begins TLS, and serves requests within it.
async fn secure(
    stream: TcpStream,
    tls: &Tls,
    origin: Origin,
    shared: &Arc<Shared>,
    closing: &Closing,
) {
    let accept = timeout(shared.front.config.header_timeout, tls.acceptor().accept(stream));
    let accepted = tokio::select! {
        biased;
        accepted = accept => accepted,
        () = closing.idle.cancelled() => return,
    };
    let client = origin.client;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, %client, "no TLS connection"),
        Err(_) => return,
    };
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Box::pin(speak(stream, version, origin, shared, closing)).await;
}

/// Learns what is spoken, and who the client is.
async fn begin(
    stream: &mut TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> io::Result<(Protocol, SocketAddr)> {
    let config = &shared.front.config;
    let mut client = peer;
    if config.proxy_protocol && config.proxies.iter().any(|proxy| proxy.contains(peer.ip())) {
        client = Box::pin(proxy::read(stream)).await?.unwrap_or(peer);
    }
    Ok((sniff(stream).await?, client))
}

/// Serves requests.
async fn speak<S>(
    stream: S,
    version: Protocol,
    origin: Origin,
    shared: &Arc<Shared>,
    closing: &Closing,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = &shared.front.config;
    let silence = (version != Protocol::Http2).then(|| silence(config));
    let io = TokioIo::new(Stalling::new(stream, config.write_timeout, silence.clone()));
    let spoken = Arc::new(Spoken { shared: shared.clone(), silence, goes_on: Mutex::default() });
    let handle = {
        let spoken = spoken.clone();
        move |request| {
            let spoken = spoken.clone();
            async move {
                let ours = spoken.silence.as_ref().map(Silence::ours);
                let mut answer = spoken.shared.answer(request, origin).await;
                if let Some(work) = answer.body_mut().goes_on() {
                    if let Some(silence) = &spoken.silence {
                        silence.end();
                    }
                    *spoken.goes_on.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
                }
                Ok::<_, Infallible>(answer.map(|body| AnswerOfOurs { body, _ours: ours }))
            }
        }
    };
    let ended = match version {
        Protocol::Http2 => {
            let requests = Requests::new(config.max_streams as usize);
            // Boxed, as it is moved several times on its way to the requests under way.
            let service = service_fn(move |request| handle(request).boxed());
            let connection = http2(config, requests.clone()).serve_connection(io, service);
            let connection = Multiplexed::new(connection, requests);
            let shut_down = |connection: Pin<&mut Multiplexed<_>>| {
                http2::Connection::graceful_shutdown(connection.connection());
            };
            Box::pin(drive(connection, shut_down, &closing.gently)).await
        }
        _ => {
            let connection = shared.http1.serve_connection(io, service_fn(handle)).with_upgrades();
            drive(connection, http1::UpgradeableConnection::graceful_shutdown, &closing.idle).await
        }
    };
    if let Err(error) = ended {
        // Clients go away and send nonsense; it is not for an operator to act on.
        tracing::debug!(%error, client = %origin.client, "connection ended");
    }
    let goes_on = spoken.goes_on.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(work) = goes_on {
        work.await;
    }
}

/// What the requests of one connection share.
struct Spoken {
    shared: Arc<Shared>,
    silence: Option<Arc<Silence>>,
    /// What the connection goes on as, after its last answer.
    goes_on: Mutex<Option<GoesOn>>,
}

/// The body of an answer, and that it is our turn for as long as it takes.
struct AnswerOfOurs {
    body: AnswerBody,
    _ours: Option<Ours>,
}

impl Body for AnswerOfOurs {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sends who speaks HTTP to a port for HTTPS to the same place there.
async fn redirect(stream: TcpStream, shared: &Arc<Shared>, closing: &Closing) {
    let config = &shared.front.config;
    let silence = silence(config);
    // One request is all that is answered.
    let answer = service_fn(|request: Request<Incoming>| {
        let answer = elsewhere(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let io = TokioIo::new(Stalling::new(stream, config.write_timeout, Some(silence)));
    let connection = shared.http1.serve_connection(io, answer);
    let _ = drive(connection, http1::Connection::graceful_shutdown, &closing.idle).await;
}

/// The answer to a request that has to be made by HTTPS.
fn elsewhere<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location =
        host.and_then(|host| HeaderValue::try_from(format!("https://{host}{path}")).ok());
    let mut answer = Response::new(Full::from("this port speaks HTTPS\n"));
    *answer.status_mut() = match location {
        Some(_) => StatusCode::PERMANENT_REDIRECT,
        None => StatusCode::BAD_REQUEST,
    };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(location) = location {
        headers.insert(header::LOCATION, location);
    }
    answer
}

/// Counts a connection as open while it lives.
pub(super) struct Open<'s>(&'s Shared);

impl<'s> Open<'s> {
    pub(super) fn new(shared: &'s Shared) -> Self {
        shared.front.metrics.connections.inc();
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.front.metrics.connections.dec();
    }
}

/// Runs a connection; once `closing`, only until what is under way is answered.
async fn drive<C>(
    connection: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    closing: &CancellationToken,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = closing.cancelled() => shut_down(connection.as_mut()),
    }
    connection.await
}

/// Sets what a socket needs. A connection works without, so that a refusal is no reason to drop it.
fn configure(stream: &TcpStream, write_timeout: Duration) {
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    // Finds clients whose machine or network has gone while nothing is to be sent, over whichever protocol.
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_PAUSE);
    let _ = socket.set_tcp_keepalive(&probes.with_retries(PROBES));
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_user_timeout(Some(write_timeout));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tls,
    Http1,
    Http2,
}

/// Tells the protocol by the first bytes and leaves them where they are.
async fn sniff(stream: &TcpStream) -> io::Result<Protocol> {
    let mut first = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = protocol_of(&first[..count]) {
            return Ok(protocol);
        }
        sleep(PREFACE_PAUSE).await;
    }
}

/// The protocol that begins so, once that can be said.
fn protocol_of(first: &[u8]) -> Option<Protocol> {
    if first == PREFACE {
        Some(Protocol::Http2)
    } else if PREFACE.starts_with(first) {
        None
    } else if first.starts_with(&[TLS_HANDSHAKE]) {
        Some(Protocol::Tls)
    } else {
        Some(Protocol::Http1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        /// How large the future is that a function makes.
        fn size<F>(_: impl FnOnce(TcpStream, SocketAddr, Arc<Shared>, Closing) -> F) -> usize {
            size_of::<F>()
        }
        fn spoken<'s, F>(
            _: impl FnOnce(TcpStream, Protocol, Origin, &'s Arc<Shared>, &'s Closing) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let (size, spoken) = (size(serve), spoken(speak));
        assert!(size <= 1_000, "{size} bytes: box what is seldom");
        assert!(spoken <= 2_000, "{spoken} bytes: box what is seldom");
    }

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        assert_eq!(protocol_of(b"GET / HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"P"), None);
        assert_eq!(protocol_of(b"PO"), Some(Protocol::Http1));
        assert_eq!(protocol_of(&PREFACE[..23]), None);
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
        assert_eq!(protocol_of(&[0x16, 3, 1]), Some(Protocol::Tls));
    }

    #[test]
    fn who_speaks_http_to_https_is_sent_to_the_same_place() {
        let ask = |host: &str, path: &str| {
            let request = Request::get(path).header("host", host).body(()).unwrap();
            let answer = elsewhere(&request);
            let location = answer.headers().get("location").map(|l| l.to_str().unwrap().to_owned());
            (answer.status().as_u16(), location)
        };
        let there = "https://door.example:5050/Xy?x=2".to_owned();
        assert_eq!(ask("door.example:5050", "/Xy?x=2"), (308, Some(there)));
        assert_eq!(ask("", "/"), (400, None));
        assert_eq!(ask("a b", "/"), (400, None));
    }

    #[tokio::test]
    async fn a_client_whose_machine_has_gone_is_looked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        configure(&stream, Duration::from_secs(30));
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
    }
}
