//! HTTP/3, on the UDP port of the same number; with feature `h3`.
//!
//! Clients learn of it by `Alt-Svc` and fall back to TCP by themselves. So a connection over QUIC is not
//! handed to a successor: the gateway that leaves finishes its requests and gives up the port, and the next
//! one opens it then.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h3::{quic::BidiStream, server::RequestStream};
use http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use quinn::{Endpoint, Incoming};
use rustls::ServerConfig;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    connection::{Closing, Open, Shared},
    tls::Tls,
};
use crate::{body::Source, config::GatewayConfig, door::Origin};

/// How long to wait before trying again to open a port that a predecessor has not left yet.
const PORT_PAUSE: Duration = Duration::from_millis(100);
/// For how long a client may remember that there is HTTP/3, in seconds.
const REMEMBER: u32 = 3_600;

type Stream = <h3_quinn::Connection as h3::quic::OpenStreams<Bytes>>::BidiStream;
type Sender = RequestStream<<Stream as BidiStream<Bytes>>::SendStream, Bytes>;
type Receiver = RequestStream<<Stream as BidiStream<Bytes>>::RecvStream, Bytes>;

/// Serves HTTP/3 until told to close, and until what is under way then is answered.
pub(super) async fn serve(listen: SocketAddr, shared: Arc<Shared>, tls: &Tls, closing: Closing) {
    let Some(endpoint) = open(listen, &shared.front.config, tls, &closing).await else { return };
    let alternative = format!("h3=\":{}\"; ma={REMEMBER}", listen.port());
    shared.offer(HeaderValue::try_from(alternative).ok());
    let mut renewed = tls.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            () = closing.gently.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            Ok(()) = renewed.changed() => {
                let crypto = renewed.borrow_and_update().clone();
                match settings(&shared.front.config, &crypto) {
                    Ok(settings) => endpoint.set_server_config(Some(settings)),
                    Err(error) => tracing::warn!(%error, "the new certificate is not used for HTTP/3"),
                }
                continue;
            }
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        if connections.len() >= shared.front.config.max_connections {
            incoming.refuse();
            continue;
        }
        connections.spawn(connection(incoming, shared.clone(), closing.clone()));
    }
    shared.offer(None);
    while connections.join_next().await.is_some() {}
    endpoint.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
}

/// Opens the port, as soon as nobody else has it; `None` when that is not to be.
async fn open(
    listen: SocketAddr,
    config: &GatewayConfig,
    tls: &Tls,
    closing: &Closing,
) -> Option<Endpoint> {
    let mut waited = false;
    loop {
        let opened =
            settings(config, &tls.config()).and_then(|settings| Endpoint::server(settings, listen));
        match opened {
            Ok(endpoint) => return Some(endpoint),
            // The predecessor is about to leave it.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !std::mem::replace(&mut waited, true) {
                    tracing::info!(%listen, "waiting for the UDP port, for HTTP/3");
                }
            }
            Err(error) => {
                tracing::warn!(%error, %listen, "no HTTP/3: its UDP port cannot be opened");
                return None;
            }
        }
        tokio::select! {
            () = closing.gently.cancelled() => return None,
            () = sleep(PORT_PAUSE) => {}
        }
    }
}

fn settings(config: &GatewayConfig, tls: &ServerConfig) -> io::Result<quinn::ServerConfig> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto =
        quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut transport = quinn::TransportConfig::default();
    // Nothing needs to pass while an answer is waited for.
    let idle = config.deadline.saturating_add(config.header_timeout);
    transport
        .max_idle_timeout(idle.try_into().ok())
        .max_concurrent_bidi_streams(config.max_streams.into())
        .max_concurrent_uni_streams(8_u32.into());
    let mut settings = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    settings.transport_config(Arc::new(transport));
    Ok(settings)
}

/// Serves one connection to its end.
async fn connection(incoming: Incoming, shared: Arc<Shared>, closing: Closing) {
    let config = &shared.front.config;
    let client = incoming.remote_address();
    let begun = timeout(config.header_timeout, async {
        let connection = h3_quinn::Connection::new(incoming.await.map_err(|e| e.to_string())?);
        let mut builder = h3::server::builder();
        builder.max_field_section_size(config.header_limit as u64);
        let connection: h3::server::Connection<_, Bytes> =
            builder.build(connection).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(connection)
    });
    let mut connection = match begun.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(error, %client, "no HTTP/3 connection"),
        Err(_) => return,
    };
    let open = Open::new(&shared);
    let mut requests = JoinSet::new();
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = closing.gently.cancelled(), if !told => {
                told = true;
                // Requests that are on their way are still served.
                if connection.shutdown(config.max_streams as usize).await.is_err() {
                    break;
                }
                continue;
            }
            () = closing.idle.cancelled(), if requests.is_empty() => break,
            Some(_) = requests.join_next() => continue,
            accepted = connection.accept() => accepted,
        };
        let Ok(Some(resolver)) = accepted else { break };
        let (shared, origin) = (shared.clone(), Origin { client });
        requests.spawn(async move {
            let limit = shared.front.config.header_timeout;
            let Ok(Ok((request, stream))) = timeout(limit, resolver.resolve_request()).await else {
                return;
            };
            let (sender, receiver) = stream.split();
            let (head, ()) = request.into_parts();
            let body = Source::Http3(Box::new(Http3Body::new(&head, receiver)));
            let answer = shared.front.handle(http::Request::from_parts(head, body), origin).await;
            if let Err(error) = send(sender, answer, shared.front.config.write_timeout).await {
                tracing::debug!(error, %client, "answer not sent");
            }
        });
    }
    while requests.join_next().await.is_some() {}
    drop(open);
}

/// Sends an answer, each part of it within `limit`.
async fn send<B>(mut to: Sender, answer: Response<B>, limit: Duration) -> Result<(), String>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let late = |_| "the client does not read".to_owned();
    let (mut head, mut body) = answer.into_parts();
    without_hop_by_hop(&mut head.headers);
    let response = Response::from_parts(head, ());
    timeout(limit, to.send_response(response)).await.map_err(late)?.map_err(|e| e.to_string())?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            timeout(limit, to.send_data(data)).await.map_err(late)?.map_err(|e| e.to_string())?;
        }
    }
    timeout(limit, to.finish()).await.map_err(late)?.map_err(|e| e.to_string())
}

/// Takes out what HTTP/3 has no use for (RFC 9114, 4.2).
fn without_hop_by_hop(headers: &mut HeaderMap) {
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
}

/// The body of a request over HTTP/3.
pub(crate) struct Http3Body {
    receiver: Receiver,
    ended: bool,
}

impl Http3Body {
    fn new(head: &Parts, receiver: Receiver) -> Self {
        let ended = match head.headers.get(header::CONTENT_LENGTH) {
            Some(length) => length == "0",
            None => matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS),
        };
        Self { receiver, ended }
    }

    pub(crate) const fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h3::error::StreamError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let data = ready!(self.receiver.poll_recv_data(cx));
        self.ended = !matches!(data, Ok(Some(_)));
        Poll::Ready(data.transpose().map(|data| {
            let mut data = data?;
            Ok(Frame::data(data.copy_to_bytes(data.remaining())))
        }))
    }
}
