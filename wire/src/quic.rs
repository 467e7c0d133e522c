//! QUIC sockets and settings: the only place that tunes quinn.
//!
//! One long-lived stream carries a link; a stream for each message would cost several times the CPU
//! (`docs/performance.md`). For bulk the socket buffers come first, then the windows.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::trust::NodeTls;

/// Bytes of a UDP socket's buffers that are asked for. A stock Linux grants less
/// (`net.core.rmem_max`), which costs bulk throughput.
const SOCKET_BUFFER: usize = 4 << 20;
/// Flow control window of the stream and of the connection, in bytes.
const WINDOW: u32 = 16 << 20;
/// The largest packet that is probed for, in bytes; above 6553 segmentation offload fails.
const MAX_MTU: u16 = 6500;
/// Round trip that is assumed before one was measured: a LAN's, so that a lost first packet costs
/// 150 ms and not a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// A quiet link is probed this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A link without a sign of life is given up after this. The directory notices a lost host earlier.
const IDLE: Duration = Duration::from_secs(10);

/// A UDP socket for any address family that the host has.
fn bind(port: u16) -> io::Result<std::net::UdpSocket> {
    let dual = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    };
    let socket = match dual() {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        // A host without IPv6.
        Err(_) => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            socket
        }
    };
    // Best effort: what the kernel grants is what we get.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut config = quinn::TransportConfig::default();
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_MTU);
    config
        .stream_receive_window(WINDOW.into())
        .receive_window((2 * WINDOW).into())
        .send_window(u64::from(2 * WINDOW))
        .max_concurrent_bidi_streams(1_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE.try_into().ok());
    Arc::new(config)
}

/// Opens an endpoint on a port (0: any). Must be called within the runtime that is to drive it.
pub(crate) fn open(tls: &NodeTls, port: u16) -> io::Result<quinn::Endpoint> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls.server.clone())
        .map_err(io::Error::other)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport());
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), bind(port)?, runtime)
}

/// The settings with which links are dialled.
pub(crate) fn client(tls: &NodeTls) -> io::Result<quinn::ClientConfig> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls.client.clone())
        .map_err(io::Error::other)?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport());
    Ok(client)
}

/// An IPv4 address as such, also where a dual-stack socket reports it as IPv6.
pub(crate) fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
