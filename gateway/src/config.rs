//! What can be set, and what it is unless set.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, time::Duration};

use http::HeaderName;
use layercake_node::Priority;

use crate::{
    door::{AccessLog, Cidr, Rate, WebOrigin},
    mesh_page::MeshPage,
    server::TlsFiles,
};

/// The longest time that any setting means.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The least that hyper takes for a head, in bytes.
const MIN_HEADER_LIMIT: usize = 8 << 10;

/// The settings of a gateway. Make one with [`GatewayConfig::new`] and change its fields.
/// No time is longer than a day, whatever is set.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// Where to listen. With port 0 the system picks one; see `Gateway::local_addr`.
    pub listen: SocketAddr,
    /// The largest request body, in bytes; above it 413. Default 1 MiB. Checking a JSON body takes
    /// a multiple of its size in memory, so choose it with `max_connections` in mind.
    pub body_limit: usize,
    /// The largest raw body that is taken as a whole (an image, say), in bytes; above it 413. Default
    /// 16 MiB; what a message may have is the end of it (32 MiB).
    pub blob_limit: usize,
    /// The largest body that is passed on as it comes, in bytes; above it 413. Default 1 GiB.
    pub upload_limit: u64,
    /// The longest path with query, in bytes; above it 414. Default 8 KiB.
    pub uri_limit: usize,
    /// All headers of a request together, in bytes; above it 431. Default 16 KiB, at least 8 KiB.
    pub header_limit: usize,
    /// How many headers a request may have beside its cookies; above it 431. Default 64.
    pub max_headers: usize,
    /// How long a client may take to send the head of a request. Default 10 s.
    pub header_timeout: Duration,
    /// How long an HTTP/1.1 connection without a request is kept. Default 75 s.
    pub idle_timeout: Duration,
    /// How long sent data may stay unacknowledged by a client before its connection is cut: the
    /// client that asks and does not read. Default 30 s. Linux only.
    pub write_timeout: Duration,
    /// How many connections are served at a time. Further ones wait in the backlog of the socket.
    /// The process's limit of open files is lifted as far as the system allows it.
    /// So many replies in parts may be under way, too, over all of them: beyond it 503. Default 16,384, at
    /// least 1.
    pub max_connections: usize,
    /// How many requests may be under way on one HTTP/2 connection. Default 256.
    pub max_streams: u32,
    /// How long a request may take, its body included; then 504 (or 408 where the body was late).
    /// A message may declare less. A client chooses with the header `Request-Timeout: SECONDS`, or
    /// `Prefer: wait=SECONDS`, and cannot exceed it. Default 30 s.
    pub deadline: Duration,
    /// The same for what is passed on as it comes: a large body, or a reply in parts. Default 1 h.
    pub stream_deadline: Duration,
    /// Whether messages are answered as the ancestor of this program answers, for programs that are
    /// written with its library: its envelope, its faults, its texts. Connections without a request are
    /// then kept for ten minutes at least, since its client does not come back. Default no.
    pub ancestor: bool,
    /// How long, once told to stop, to go on serving while `/readyz` already says 503, so that a
    /// load balancer looks elsewhere before the port closes. Default zero.
    pub drain_notice: Duration,
    /// How long, once the port is closed, requests under way may take to finish. Default 5 s.
    pub drain_grace: Duration,
    /// Who is shown the mesh page, `/mesh`, of a gateway that belongs to a node. Default: whoever is on
    /// this host, where `listen` is an address of loopback; elsewhere nobody without a key.
    pub mesh_page: MeshPage,
    /// The least that a body may come at on average after its first five seconds, in bytes per second;
    /// below it 408. Default 240.
    pub body_rate: u32,
    /// Serve HTTPS with this certificate; files that change are read again. HTTP on the port is then sent
    /// there. Default none: HTTP alone.
    pub tls: Option<TlsFiles>,
    /// Serve HTTP/3 on the UDP port of the same number, and tell clients over TCP. It needs `tls`.
    /// Default no.
    #[cfg(feature = "h3")]
    pub http3: bool,
    /// The folder, ours alone, where a successor finds the way to this gateway's listener. Default none:
    /// nobody can take over.
    pub hand_over: Option<PathBuf>,
    /// Take the listener from the gateway of the same user that listens there, and has the same
    /// `hand_over`; it serves until this one can, and no connection is refused. Where none is, listen as
    /// usual. Default no.
    pub take_over: bool,
    /// The proxies that are believed when they say who the client is, by `Forwarded` or
    /// `X-Forwarded-For`. Default none.
    pub proxies: Vec<Cidr>,
    /// Whether connections from `proxies` begin with a PROXY header, version 1 or 2. Default no.
    pub proxy_protocol: bool,
    /// The header that names a client, `x-api-key` say, so that limits hold for the key in place of the
    /// address. Whoever can make up names is as many clients as they like: set it where something before
    /// or behind the gateway refuses keys that it does not know. Default none.
    pub client_header: Option<HeaderName>,
    /// The origins whose pages may ask everything and read the answers in a browser (CORS, without
    /// credentials). Pages of other sites are refused with 403 what may change something: all but `GET` of
    /// messages that declare it or are idempotent. Default none; the gateway's own host always may.
    pub origins: Vec<WebOrigin>,
    /// How many requests a client may send; beyond it 429. Default no limit.
    pub rate: Option<Rate>,
    /// The same for clients that `client_header` names, by their key. Default none.
    pub key_rates: HashMap<String, Rate>,
    /// How much requests matter, by how their path begins; the first that fits counts. Default none.
    pub priorities: Vec<(String, Priority)>,
    /// The most requests that may be under way in the service; beyond it 503. How many may be at a time
    /// is found out from how long answers take, and is at least 8. Beside a client that holds them all,
    /// others are let in up to twice as many. Default 4,096.
    pub max_in_flight: usize,
    /// How long requests may wait on average, on top of the time that the service takes, before some are
    /// put off with 503. Default 100 ms.
    pub waiting: Duration,
    /// Where each request is written down, as a line of JSON. Default nowhere.
    pub access_log: Option<AccessLog>,
}

impl GatewayConfig {
    /// The defaults, for that address.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            body_limit: 1 << 20,
            blob_limit: 16 << 20,
            upload_limit: 1 << 30,
            uri_limit: 8 << 10,
            header_limit: 16 << 10,
            max_headers: 64,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            max_connections: 16_384,
            max_streams: 256,
            deadline: Duration::from_secs(30),
            stream_deadline: Duration::from_secs(3600),
            ancestor: false,
            drain_notice: Duration::ZERO,
            drain_grace: Duration::from_secs(5),
            mesh_page: MeshPage::OnLoopback,
            body_rate: 240,
            tls: None,
            #[cfg(feature = "h3")]
            http3: false,
            hand_over: None,
            take_over: false,
            proxies: Vec::new(),
            proxy_protocol: false,
            client_header: None,
            origins: Vec::new(),
            rate: None,
            key_rates: HashMap::new(),
            priorities: Vec::new(),
            max_in_flight: 4_096,
            waiting: Duration::from_millis(100),
            access_log: None,
        }
    }

    /// The same with every value where the program can work with it: no time that overflows a clock,
    /// no limit under the least that hyper takes.
    pub(crate) fn within_bounds(mut self) -> Self {
        for span in [
            &mut self.header_timeout,
            &mut self.idle_timeout,
            &mut self.write_timeout,
            &mut self.deadline,
            &mut self.stream_deadline,
            &mut self.drain_notice,
            &mut self.drain_grace,
            &mut self.waiting,
        ] {
            *span = (*span).min(LONGEST);
        }
        self.header_limit = self.header_limit.max(MIN_HEADER_LIMIT);
        self.max_connections = self.max_connections.max(1);
        self
    }
}
