//! What can be set, and what it is unless set.

use std::{net::SocketAddr, time::Duration};

use crate::mesh_page::MeshPage;

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
    /// The longest path with query, in bytes; above it 414. Default 8 KiB.
    pub uri_limit: usize,
    /// All headers of a request together, in bytes; above it 431. Default 16 KiB, at least 8 KiB.
    pub header_limit: usize,
    /// How many headers a request may have; above it 431. Default 64.
    pub max_headers: usize,
    /// How long a client may take to send the head of a request, and how long a connection without
    /// a request is kept. Default 10 s.
    pub header_timeout: Duration,
    /// How long sent data may stay unacknowledged by a client before its connection is cut: the
    /// client that asks and does not read. Default 30 s. Linux only.
    pub write_timeout: Duration,
    /// How many connections are served at a time. Further ones wait in the backlog of the socket.
    /// Default 16,384, at least 1.
    pub max_connections: usize,
    /// How many requests may be under way on one HTTP/2 connection. Default 256.
    pub max_streams: u32,
    /// How long a request may take, its body included; then 504 (or 408 where the body was late).
    /// A client lowers it with the header `Request-Timeout: SECONDS` and cannot raise it.
    /// Default 30 s.
    pub deadline: Duration,
    /// How long, once told to stop, to go on serving while `/readyz` already says 503, so that a
    /// load balancer looks elsewhere before the port closes. Default zero.
    pub drain_notice: Duration,
    /// How long, once the port is closed, requests under way may take to finish. Default 5 s.
    pub drain_grace: Duration,
    /// Who is shown the mesh page, `/mesh`, of a gateway that belongs to a node. Default: whoever is on
    /// this host, where `listen` is an address of loopback; elsewhere nobody without a key.
    pub mesh_page: MeshPage,
}

impl GatewayConfig {
    /// The defaults, for that address.
    #[must_use]
    pub const fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            body_limit: 1 << 20,
            uri_limit: 8 << 10,
            header_limit: 16 << 10,
            max_headers: 64,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            max_connections: 16_384,
            max_streams: 256,
            deadline: Duration::from_secs(30),
            drain_notice: Duration::ZERO,
            drain_grace: Duration::from_secs(5),
            mesh_page: MeshPage::OnLoopback,
        }
    }

    /// The same with every value where the program can work with it: no time that overflows a clock,
    /// no limit under the least that hyper takes.
    pub(crate) fn within_bounds(mut self) -> Self {
        for span in [
            &mut self.header_timeout,
            &mut self.write_timeout,
            &mut self.deadline,
            &mut self.drain_notice,
            &mut self.drain_grace,
        ] {
            *span = (*span).min(LONGEST);
        }
        self.header_limit = self.header_limit.max(MIN_HEADER_LIMIT);
        self.max_connections = self.max_connections.max(1);
        self
    }
}
