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
    client::{Client, over, soon},
    fake::Running,
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

async fn connect(
    running: &Running,
    trusted: &rcgen::CertifiedKey<rcgen::KeyPair>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(running.addr).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
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
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        connect(&gateway, &old, "h2").await.expect("the old certificate");
    }

    let new = issue(folder.path());
    soon("the new certificate", async {
        while connect(&gateway, &new, "h2").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
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
