//! The listener and its connections.
//!
//! One task accepts and owns all connections; dropping it cuts them. HTTP/1.1 and HTTP/2 (with prior
//! knowledge) share the port: the first bytes tell them apart.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use layercake_node::{Node, service::Service};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::GatewayConfig,
    handle::Front,
    mesh_page::{Page, PageBody},
};

/// What an HTTP/2 connection with prior knowledge begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait before looking again at a preface that has come in part. It comes in one segment
/// from every client known, so that this is about the others.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// How long to pause after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often an HTTP/2 connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Why a gateway cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something else listens there.
    #[error("cannot listen on {listen}: the port is in use; choose another with `--listen`")]
    InUse {
        /// The address.
        listen: SocketAddr,
    },
    /// The port is below 1024 and the process may not use it.
    #[error("cannot listen on {listen}: not permitted; choose a port above 1023 with `--listen`")]
    NotPermitted {
        /// The address.
        listen: SocketAddr,
    },
    /// The address is not one of this host.
    #[error("cannot listen on {listen}: not an address of this host; choose one with `--listen`")]
    NotHere {
        /// The address.
        listen: SocketAddr,
    },
    /// Anything else that the system says.
    #[error("cannot listen on {listen}")]
    Other {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    fn new(listen: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { listen },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { listen },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { listen },
            _ => Self::Other { listen, source },
        }
    }
}

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Connections that were cut with requests under way, because the grace was over.
    pub unfinished: usize,
}

/// An HTTP front door that listens. [`run`](Self::run) makes it answer.
pub struct Gateway {
    listener: TcpListener,
    local_addr: SocketAddr,
    front: Front,
    page: Option<Page>,
}

impl Gateway {
    /// Listens for requests to `service`. From here on clients can connect; they wait for `run`.
    ///
    /// # Errors
    /// [`BindError`] names the address and what to do about it.
    pub async fn bind(config: GatewayConfig, service: Arc<dyn Service>) -> Result<Self, BindError> {
        let listen = config.listen;
        let failed = |source| BindError::new(listen, source);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let front = Front::new(config.within_bounds(), service);
        Ok(Self { listener, local_addr, front, page: None })
    }

    /// Where it listens, with the port that the system picked.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What `/metrics` shows. Add what else belongs there before `run`.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.front.metrics.registry
    }

    /// Shows the mesh of a node at `/mesh`, to whom [`GatewayConfig::mesh_page`] says.
    pub fn show_mesh(&mut self, node: &Node) {
        let who = &self.front.config.mesh_page;
        self.page = Some(Page::new(node.clone(), who, self.local_addr.ip()));
    }

    /// Answers until `shutdown`, then drains: `/readyz` says 503 for `drain_notice`, the port
    /// closes, and requests under way have `drain_grace` to finish.
    ///
    /// # Cancel safety
    /// Dropping the future closes the port and cuts every connection at once.
    pub async fn run(self, shutdown: CancellationToken) -> Drained {
        let Self { listener, front, page, .. } = self;
        let config = front.config.clone();
        let mut connections = Connections {
            tasks: JoinSet::new(),
            most: config.max_connections,
            shared: Arc::new(Shared { http1: http1(&config), http2: http2(&config), front, page }),
            closing: CancellationToken::new(),
        };
        connections.accept(&listener, shutdown.cancelled()).await;
        connections.shared.front.draining.store(true, Ordering::Relaxed);
        if !config.drain_notice.is_zero() {
            connections.accept(&listener, sleep(config.drain_notice)).await;
        }
        drop(listener);
        if let Some(page) = &connections.shared.page {
            page.close();
        }
        connections.drain(config.drain_grace).await
    }
}

/// What every connection needs.
struct Shared {
    front: Front,
    page: Option<Page>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

fn http1(config: &GatewayConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_headers(config.max_headers)
        .max_header_size(config.header_limit);
    builder
}

fn http2(config: &GatewayConfig) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(config.header_timeout)
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.header_limit).unwrap_or(u32::MAX));
    builder
}

/// All open connections, and the one place that makes and ends them.
struct Connections {
    tasks: JoinSet<()>,
    most: usize,
    shared: Arc<Shared>,
    /// Tells connections to finish what is under way and close.
    closing: CancellationToken,
}

impl Connections {
    /// Accepts until `end`.
    async fn accept(&mut self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                biased; // stopping overtakes a flood of connections
                () = &mut end => return,
                Some(_) = self.tasks.join_next() => continue,
                accepted = listener.accept(), if self.tasks.len() < self.most => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let serve = serve(stream, self.shared.clone(), self.closing.clone());
                    self.tasks.spawn(serve);
                }
                Err(error) => {
                    self.shared.front.metrics.accept_errors.inc();
                    if let Some(pause) = accept_pause(&error) {
                        tracing::warn!(%error, "cannot accept connections; trying again");
                        tokio::select! {
                            () = &mut end => return,
                            () = sleep(pause) => {}
                        }
                    }
                }
            }
        }
    }

    /// Lets requests under way finish, and cuts what is left after `grace`.
    async fn drain(mut self, grace: Duration) -> Drained {
        self.closing.cancel();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        let _elapsed = timeout(grace, all_ended).await;
        let unfinished = self.tasks.len();
        self.tasks.shutdown().await;
        Drained { unfinished }
    }
}

/// How long to wait after a failed accept. A client that went away while it waited is no reason to;
/// want of descriptors or memory does not end by trying faster.
fn accept_pause(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted => None,
        _ => Some(ACCEPT_PAUSE),
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, shared: Arc<Shared>, closing: CancellationToken) {
    let config = &shared.front.config;
    configure(&stream, config.write_timeout);
    shared.front.metrics.connections.inc();
    let _open = Open(&shared);

    let version = tokio::select! {
        biased;
        version = timeout(config.header_timeout, sniff(&stream)) => version,
        () = closing.cancelled() => return,
    };
    let Ok(Ok(version)) = version else { return }; // silent for too long, or gone already

    let handle = {
        let shared = shared.clone();
        service_fn(move |request| {
            let shared = shared.clone();
            async move {
                Ok::<_, Infallible>(match &shared.page {
                    Some(page) if Page::has(request.uri().path()) => page.answer(request).await,
                    _ => shared.front.handle(request).await.map(PageBody::Whole),
                })
            }
        })
    };
    let io = TokioIo::new(stream);
    let ended = match version {
        Protocol::Http1 => drive(shared.http1.serve_connection(io, handle), &closing).await,
        Protocol::Http2 => drive(shared.http2.serve_connection(io, handle), &closing).await,
    };
    if let Err(error) = ended {
        // Clients go away and send nonsense; it is not for an operator to act on.
        tracing::debug!(%error, "connection ended");
    }
}

/// Counts a connection as open while it lives.
struct Open<'s>(&'s Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.front.metrics.connections.dec();
    }
}

/// Runs a connection; once `closing`, only until what is under way is answered.
async fn drive<C>(connection: C, closing: &CancellationToken) -> hyper::Result<()>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Sets what a socket needs. A connection works without, so that a refusal is no reason to drop it.
fn configure(stream: &TcpStream, write_timeout: Duration) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(write_timeout));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
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
    } else {
        Some(Protocol::Http1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        assert_eq!(protocol_of(b"GET / HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"P"), None);
        assert_eq!(protocol_of(b"PO"), Some(Protocol::Http1));
        assert_eq!(protocol_of(&PREFACE[..23]), None);
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
    }

    #[test]
    fn want_of_descriptors_pauses_and_a_client_gone_does_not() {
        let out_of_descriptors = io::Error::from_raw_os_error(24);
        assert_eq!(accept_pause(&out_of_descriptors), Some(ACCEPT_PAUSE));
        assert_eq!(accept_pause(&io::ErrorKind::ConnectionAborted.into()), None);
    }
}
