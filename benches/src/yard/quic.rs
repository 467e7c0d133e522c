//! Frames on one QUIC stream, encrypted: the least that two hosts can do.
//!
//! Tuned as measurements said: socket buffers first, then windows and packet size. Above 6500
//! bytes of packet quinn's batches no longer fit what the kernel takes at once.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;

use super::{frames, one_thread};
use crate::{
    contestant::{Contestant, Load, Running},
    other_end::{self, OtherEnd},
    sample::Sample,
};

pub(crate) const NAME: &str = "quinn-stream";

const SERVER_NAME: &str = "yard";
const PACKET_LEN_MAX: u16 = 6500;
const WINDOW: u32 = 16 * 1024 * 1024;
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

pub(crate) struct Quic;

impl Contestant for Quic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let server = OtherEnd::start(NAME, &[])?;
        let address = server.word(0)?.parse()?;
        let certificate = from_hex(server.word(1)?)?;
        let runtime = one_thread()?;
        let (connection, stream) = runtime.block_on(async {
            let mut roots = RootCertStore::empty();
            roots.add(certificate)?;
            let tls = rustls::ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
            config.transport_config(transport());
            let connection = endpoint(None)?.connect_with(config, address, SERVER_NAME)?.await?;
            let stream = connection.open_bi().await?;
            anyhow::Ok((connection, stream))
        })?;
        Ok(Box::new(Client { stream, _connection: connection, runtime, _server: server }))
    }
}

struct Client {
    stream: (SendStream, RecvStream),
    _connection: Connection,
    runtime: Runtime,
    _server: OtherEnd,
}

impl Running for Client {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        let (write, read) = &mut self.stream;
        self.runtime.block_on(frames::drive(read, write, load))
    }
}

/// Answers one client on one stream.
pub(crate) fn serve() -> Result<()> {
    one_thread()?.block_on(async {
        let issued = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
        let certificate = issued.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())?;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport());
        let endpoint = endpoint(Some(config))?;
        let address = endpoint.local_addr()?.to_string();
        other_end::ready(&[&address, &to_hex(&certificate)])?;
        let connection = endpoint.accept().await.context("the endpoint is closed")?.await?;
        let (write, read) = connection.accept_bi().await?;
        frames::echo(read, write).await
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn transport() -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_LEN_MAX);
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into());
    Arc::new(config)
}

fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    // The kernel grants less without a word, and reports twice what it grants.
    for granted in [socket.recv_buffer_size()?, socket.send_buffer_size()?] {
        if granted < SOCKET_BUFFER {
            eprintln!("note: socket buffers of {granted} bytes: raise net.core.{{r,w}}mem_max");
        }
    }
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(PACKET_LEN_MAX)?;
    let socket = UdpSocket::from(socket);
    Ok(Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?)
}

fn to_hex(certificate: &CertificateDer<'_>) -> String {
    certificate.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<CertificateDer<'static>> {
    ensure!(text.is_ascii() && text.len().is_multiple_of(2), "not a certificate in hex");
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    Ok(bytes.collect::<Result<Vec<u8>, _>>()?.into())
}
