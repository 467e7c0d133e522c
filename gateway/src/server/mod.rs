//! The listener and its connections.
//!
//! One task accepts and owns all connections; dropping it cuts them. HTTP/1.1 and HTTP/2 share the port,
//! with TLS where a certificate is given.

mod bind;
mod connection;
mod handover;
#[cfg(feature = "h3")]
mod http3;
mod inherited;
mod multiplexed;
mod proxy;
mod stall;
mod tls;

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use layercake_node::{Node, service::Service};
use prometheus_client::registry::Registry;
#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "h3")]
pub(crate) use self::http3::Http3Body;
pub use self::{
    bind::BindError,
    tls::{TlsError, TlsFiles},
};
use self::{
    bind::Seat,
    connection::{Closing, Shared, serve},
    handover::{Offer, Successor},
    tls::Tls,
};
use crate::{
    config::GatewayConfig,
    handle::Front,
    mesh_page::Page,
    pools::PoolMetrics,
    services::{Only, Services},
};

/// How long to pause after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a gateway that takes over looks whether it can serve.
const READY_PAUSE: Duration = Duration::from_millis(10);
/// Open files of a process that are no connections.
#[cfg(unix)]
const OTHER_FILES: u64 = 512;

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Connections that were cut with requests under way, because the grace was over.
    pub unfinished: usize,
}

/// An HTTP front door that listens. [`run`](Self::run) makes it answer.
pub struct Gateway {
    seat: Seat,
    local_addr: SocketAddr,
    front: Front,
    tls: Option<Tls>,
}

impl Gateway {
    /// Listens for requests to `service`. From here on clients can connect; they wait for `run`.
    ///
    /// With [`take_over`](GatewayConfig::take_over), where a gateway of the same user hands over its
    /// listener there, that one goes on serving until `run` has found the service ready.
    ///
    /// # Errors
    /// [`BindError`] names the address and what to do about it.
    pub async fn bind(config: GatewayConfig, service: Arc<dyn Service>) -> Result<Self, BindError> {
        Self::before(config, Arc::new(Only(service))).await
    }

    /// As [`bind`](Self::bind), for requests to many services.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn before(
        config: GatewayConfig,
        services: Arc<dyn Services>,
    ) -> Result<Self, BindError> {
        let (listen, config) = (config.listen, config.within_bounds());
        let tls = config.tls.clone().map(Tls::open).transpose();
        let tls = tls.map_err(|source| BindError::Tls { listen, source })?;
        let front = Front::new(config.clone(), services);
        let front = front.map_err(|(path, source)| BindError::AccessLog { path, source })?;
        let seat = bind::seat(&config).await?;
        lift_file_limit(config.max_connections);
        let local_addr = seat.listener.local_addr();
        let local_addr = local_addr.map_err(|source| BindError::Other { listen, source })?;
        Ok(Self { seat, local_addr, front, tls })
    }

    /// Lets large bodies be read from that node while they come: see `Upload`. Without a node, messages
    /// that have one cannot be asked for. `/metrics` shows the pools of that node, too. Its mesh is shown at `/mesh`, to whom
    /// [`GatewayConfig::mesh_page`] says.
    #[must_use]
    pub fn on(mut self, node: Node) -> Self {
        if self.front.node.is_none() {
            let shown = node.clone();
            let pools = PoolMetrics::new(move || shown.own_pools());
            self.registry().register_collector(Box::new(pools));
        }
        self.front.page = Some(Page::new(node.clone(), &self.front, self.local_addr.ip()));
        self.front.node = Some(node);
        self
    }

    /// Where it listens, with the port that the system picked.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How its addresses begin: `http`, or `https` where it has a certificate.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What `/metrics` shows. Add what else belongs there before `run`.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.front.metrics.registry
    }

    /// Shows on `/metrics` what somebody else counts: `more` adds lines of OpenMetrics, without the end.
    pub fn add_metrics(&mut self, more: impl Fn(&mut String) + Send + Sync + 'static) {
        self.front.metrics.add(Box::new(more));
    }

    /// Answers until `shutdown`, then drains: `/readyz` says 503 for `drain_notice`, the port
    /// closes, and requests under way have `drain_grace` to finish.
    ///
    /// It ends as well once another process has taken over the listener; then requests under way have the
    /// time that any request has, and no connection is closed before its client was told.
    ///
    /// # Cancel safety
    /// Dropping the future closes the port and cuts every connection at once.
    pub async fn run(self, shutdown: CancellationToken) -> Drained {
        let Self { seat: Seat { listener, predecessor, mut offer }, front, tls, .. } = self;
        let config = front.config.clone();
        if let Some(predecessor) = predecessor {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Drained { unfinished: 0 },
                () = until_ready(&front) => {}
            }
            predecessor.dismiss().await;
            if let Some(offer) = &mut offer {
                offer.adopt();
            }
            tracing::info!(listen = %self.local_addr, "took over from the gateway before");
        }

        let connections = Connections {
            tasks: JoinSet::new(),
            most: config.max_connections,
            shared: Arc::new(Shared::new(front, tls)),
            closing: Closing::default(),
        };
        let shared = connections.shared.clone();
        let renewal = async {
            match &shared.tls {
                Some(tls) => tls.renew().await,
                None => std::future::pending().await,
            }
        };
        #[cfg(feature = "h3")]
        let over_udp = {
            let closing = connections.closing.clone();
            let (shared, listen) = (shared.clone(), self.local_addr);
            async move {
                match &shared.tls {
                    Some(tls) if shared.front.config.http3 => {
                        http3::serve(listen, shared.clone(), tls, closing).await;
                    }
                    _ => {}
                }
            }
        };
        #[cfg(not(feature = "h3"))]
        let over_udp = std::future::ready(());
        let serving = async {
            let mut over_udp = pin!(over_udp);
            let mut over_tcp = pin!(connections.run(listener, offer, shutdown));
            tokio::select! {
                drained = &mut over_tcp => {
                    let _elapsed = timeout(config.drain_grace, over_udp).await;
                    drained
                }
                () = &mut over_udp => over_tcp.await,
            }
        };
        tokio::select! {
            never = renewal => match never {},
            drained = serving => drained,
        }
    }
}

/// Lets this process have as many open files as its connections need and the system allows: the usual
/// 1,024 are there for programs that call `select`.
#[cfg(unix)]
fn lift_file_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (connections as u64).saturating_add(OTHER_FILES);
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return };
    let may = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let lifted = setrlimit(Resource::Nofile, Rlimit { current: Some(may), ..limit });
    let files = if lifted.is_ok() { may } else { current };
    if files < wanted {
        tracing::warn!(
            "only {files} files may be open, and {connections} connections need {wanted}: those beyond \
             it wait. Raise the limit (`ulimit -Hn`, `LimitNOFILE=`) or lower `max_connections`"
        );
    }
}

#[cfg(not(unix))]
fn lift_file_limit(_connections: usize) {}

/// Waits until a request would be answered.
async fn until_ready(front: &Front) {
    while !front.is_ready() {
        sleep(READY_PAUSE).await;
    }
}

/// All open connections, and the one place that makes and ends them.
struct Connections {
    tasks: JoinSet<()>,
    most: usize,
    shared: Arc<Shared>,
    closing: Closing,
}

impl Connections {
    async fn run(
        mut self,
        listener: TcpListener,
        mut offer: Option<Offer>,
        shutdown: CancellationToken,
    ) -> Drained {
        let mut successor = None;
        let end = async {
            let succeeded = async {
                match &mut offer {
                    Some(offer) => offer.successor(&listener).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                found = succeeded => successor = Some(found),
            }
        };
        self.accept(&listener, end).await;
        let shared = self.shared.clone();
        let config = &shared.front.config;
        // From here on each answer over HTTP/1.1 says that it is the last one of its connection.
        shared.front.draining.store(true, Ordering::Relaxed);
        if let Some(successor) = successor {
            drop(listener);
            return self.leave(successor).await;
        }
        // Nobody is to take over what is about to close.
        drop(offer);
        if !config.drain_notice.is_zero() {
            self.accept(&listener, sleep(config.drain_notice)).await;
        }
        drop(listener);
        self.closing.idle.cancel();
        self.drain(config.drain_grace).await
    }

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
                Ok((stream, peer)) => {
                    let serve = serve(stream, peer, self.shared.clone(), self.closing.clone());
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

    /// Leaves the port to a successor. A client may be sending its next request at any moment, so that an
    /// idle connection over HTTP/1.1 is not closed under its hands: it has one more answer, which says
    /// that it is the last, or ends when nothing has come for as long as a head may take.
    async fn leave(mut self, successor: Successor) -> Drained {
        successor.go_on().await;
        let shared = self.shared.clone();
        let config = &shared.front.config;
        tracing::info!(connections = self.tasks.len(), "another process has taken over; leaving");
        self.closing.gently.cancel();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        let _elapsed = timeout(config.header_timeout, all_ended).await;
        self.closing.idle.cancel();
        self.drain(config.drain_grace.max(config.deadline)).await
    }

    /// Lets requests under way finish, and cuts what is left after `grace`.
    async fn drain(mut self, grace: Duration) -> Drained {
        self.shared.front.closing.cancel();
        self.closing.gently.cancel();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_pauses_and_a_client_gone_does_not() {
        let out_of_descriptors = io::Error::from_raw_os_error(24);
        assert_eq!(accept_pause(&out_of_descriptors), Some(ACCEPT_PAUSE));
        assert_eq!(accept_pause(&io::ErrorKind::ConnectionAborted.into()), None);
    }
}
