//! HTTPS: both versions of HTTP, certificates that are renewed, and who comes by plain HTTP.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use layercake_gateway::{BindError, Gateway, GatewayConfig, TlsFiles};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    client::{Client, eventually, found, over, soon},
    fake::Running,
    told::Told,
};

/// Writes a certificate for `localhost` and its key.
fn issue(folder: &Path) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made
}

async fn start(folder: &Path) -> Running {
    let files = TlsFiles::new(folder.join("cert.pem"), folder.join("key.pem"));
    Running::with(|config| config.tls = Some(files)).await
}

/// A client that trusts one certificate and speaks one protocol.
fn trusting(made: &rcgen::CertifiedKey<rcgen::KeyPair>, protocol: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

async fn connect(
    running: &Running,
    trusted: &rcgen::CertifiedKey<rcgen::KeyPair>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(running.addr).await.unwrap();
    let connector = TlsConnector::from(Arc::new(trusting(trusted, protocol)));
    soon("handshake", connector.connect("localhost".try_into().unwrap(), stream)).await
}

#[tokio::test]
async fn both_versions_are_spoken_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let made = issue(folder.path());
    let gateway = start(folder.path()).await;

    let mut client = over(connect(&gateway, &made, "http/1.1").await.unwrap());
    for x in 0..3 {
        assert_eq!(client.get(&format!("/Xy?x={x}")).await.body, format!("[{x},8]"));
    }

    let stream = connect(&gateway, &made, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let ask = Request::get("https://localhost/Xy?x=2").body(Full::<Bytes>::default()).unwrap();
    let answer = soon("answer", sender.send_request(ask)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "[2,8]");
}

#[tokio::test]
async fn plain_http_is_sent_to_the_same_place_by_https() {
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let gateway = start(folder.path()).await;
    let mut client = gateway.client().await;
    let answer = client.get("/Xy?x=2").await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://test/Xy?x=2"));
    assert_eq!(client.closed().await, "");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let old = issue(folder.path());
    let gateway = start(folder.path()).await;
    let mut open = over(connect(&gateway, &old, "http/1.1").await.unwrap());
    assert_eq!(open.get("/Xy?x=1").await.status, 200);

    // Only half of a new pair, as while it is being written: the old one stays.
    let half = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), half.cert.pem()).unwrap();
    let (told, guard) = Told::here();
    eventually("a word to the operator", || told.text().contains("cannot be used")).await;
    drop(guard);
    connect(&gateway, &old, "h2").await.expect("the old certificate");

    let new = issue(folder.path());
    found("the new certificate", async || connect(&gateway, &new, "h2").await.is_ok()).await;
    assert!(connect(&gateway, &old, "h2").await.is_err(), "nobody is shown the old one any more");
    assert_eq!(open.get("/Xy?x=1").await.status, 200, "a connection outlives its certificate");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listen = ([127, 0, 0, 1], 0).into();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let fake = Running::start().await.fake;
    let failure = async || {
        let mut config = GatewayConfig::new(listen);
        config.tls = Some(TlsFiles::new(&cert, &key));
        match Gateway::bind(config, fake.clone()).await {
            Err(BindError::Tls { source, .. }) => source.to_string(),
            _ => panic!("a gateway without a certificate"),
        }
    };
    assert!(failure().await.contains("cert.pem"));
    issue(folder.path());
    std::fs::write(&key, "nothing").unwrap();
    let text = failure().await;
    assert!(text.contains("no private key") && text.contains("key.pem"), "{text}");
    issue(folder.path());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, other.cert.pem()).unwrap();
    assert!(failure().await.contains("together"));
}

#[tokio::test]
async fn who_begins_no_handshake_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let files = TlsFiles::new(folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let gateway = Running::with(|config| {
        config.tls = Some(files);
        config.header_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = Client::connect(gateway.addr).await;
    client.send([0x16, 3, 1, 0xff]).await;
    assert_eq!(client.closed().await, "");
}

#[cfg(feature = "h3")]
mod http3 {
    use bytes::Buf;
    use quinn::crypto::rustls::QuicClientConfig;

    use super::*;

    type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

    async fn dial(
        addr: std::net::SocketAddr,
        trusted: &rcgen::CertifiedKey<rcgen::KeyPair>,
    ) -> (quinn::Endpoint, Sender) {
        let config = QuicClientConfig::try_from(trusting(trusted, "h3")).unwrap();
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        let connection = soon("QUIC", endpoint.connect(addr, "localhost").unwrap()).await.unwrap();
        let (mut driver, sender) =
            h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        (endpoint, sender)
    }

    async fn ask(sender: &mut Sender, request: Request<()>, body: &'static str) -> (u16, String) {
        let mut stream = sender.send_request(request).await.unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body.as_bytes())).await.unwrap();
        }
        stream.finish().await.unwrap();
        let answer = soon("answer", stream.recv_response()).await.unwrap();
        let mut text = Vec::new();
        while let Some(mut data) = stream.recv_data().await.unwrap() {
            text.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        (answer.status().as_u16(), String::from_utf8(text).unwrap())
    }

    async fn alternative(running: &Running, made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
        let mut client = over(connect(running, made, "http/1.1").await.unwrap());
        soon("the offer of HTTP/3", async {
            loop {
                if let Some(offer) = client.get("/Xy?x=2").await.header("alt-svc") {
                    return offer.to_owned();
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn http3_is_offered_and_spoken_on_the_same_port() {
        let folder = tempfile::tempdir().unwrap();
        let made = issue(folder.path());
        let files = TlsFiles::new(folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let start = async |listen: Option<std::net::SocketAddr>| {
            Running::with(|config| {
                config.tls = Some(files.clone());
                config.http3 = true;
                config.hand_over = Some(folder.path().to_owned());
                config.take_over = listen.is_some();
                config.listen = listen.unwrap_or(config.listen);
            })
            .await
        };
        let gateway = start(None).await;
        let port = gateway.addr.port();
        assert_eq!(alternative(&gateway, &made).await, format!("h3=\":{port}\"; ma=3600"));

        let (endpoint, mut sender) = dial(gateway.addr, &made).await;
        let get = |path: &str| Request::get(format!("https://localhost{path}")).body(()).unwrap();
        assert_eq!(ask(&mut sender, get("/Xy?x=2"), "").await, (200, "[2,8]".to_owned()));
        let post = Request::post("https://localhost/Xy")
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        assert_eq!(ask(&mut sender, post, r#"{"x":5,"y":6}"#).await, (200, "[5,6]".to_owned()));
        assert_eq!(ask(&mut sender, get("/nowhere"), "").await.0, 404);

        // The next process has the port once this one has left it.
        let begun = || gateway.fake.begun.load(std::sync::atomic::Ordering::SeqCst);
        let before = begun();
        let waiting = tokio::spawn({
            let mut sender = sender.clone();
            let waiting = get("/Wait");
            async move { ask(&mut sender, waiting, "").await }
        });
        eventually("the call", || begun() > before).await;
        let next = start(Some(gateway.addr)).await;
        gateway.fake.gate.add_permits(1);
        assert_eq!(waiting.await.unwrap(), (200, "\"done\"".to_owned()));
        drop((sender, endpoint));
        assert_eq!(soon("the end", gateway.task).await.unwrap().unfinished, 0);
        alternative(&next, &made).await;
        let (_endpoint, mut sender) = dial(next.addr, &made).await;
        assert_eq!(ask(&mut sender, get("/Xy?x=3"), "").await, (200, "[3,8]".to_owned()));
    }
}
