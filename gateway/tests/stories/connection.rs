//! Connections: order, protocols, slow clients, limits, and the end.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use layercake_gateway::{BindError, Drained, Gateway, GatewayConfig};
use tokio::net::TcpStream;

use crate::{
    client::{Client, eventually, soon},
    fake::Running,
};

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let requests: String =
        (0..50).map(|x| format!("GET /Xy?x={x} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    client.send(requests).await;
    for x in 0..50 {
        assert_eq!(client.answer().await.body, format!("[{x},8]"));
    }
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port() {
    speak_http2().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_spoken_in_a_runtime_of_several_threads() {
    speak_http2().await;
}

async fn speak_http2() {
    let gateway = Running::start().await;
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = |target: &str| {
        Request::get(format!("http://test{target}")).body(Full::<Bytes>::default()).unwrap()
    };

    // One that waits does not hold up another on the same connection.
    let waiting = tokio::spawn(sender.send_request(ask("/Wait")));
    eventually("the call", || gateway.fake.begun.load(Ordering::SeqCst) == 1).await;
    let answer = soon("answer", sender.send_request(ask("/Xy?x=2&y=3"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "[2,3]");
    gateway.fake.gate.add_permits(1);
    assert_eq!(soon("answer", waiting).await.unwrap().unwrap().status(), 200);

    let post = Request::post("http://test/Xy")
        .header("content-type", "application/json")
        .body(Full::from(r#"{"x":-1}"#))
        .unwrap();
    assert_eq!(soon("answer", sender.send_request(post)).await.unwrap().status(), 422);

    // A stream that its client resets is cancelled.
    let given_up = sender.send_request(ask("/Wait"));
    let given_up = tokio::spawn(given_up);
    eventually("the call", || gateway.fake.begun.load(Ordering::SeqCst) == 3).await;
    given_up.abort();
    eventually("the end of the call", || gateway.fake.cancelled.load(Ordering::SeqCst) == 1).await;

    // A service that panics takes its own request along, and no other.
    let waiting = tokio::spawn(sender.send_request(ask("/Wait")));
    eventually("the call", || gateway.fake.begun.load(Ordering::SeqCst) == 4).await;
    soon("reset", sender.send_request(ask("/Fail?with=panic"))).await.unwrap_err();
    gateway.fake.gate.add_permits(1);
    assert_eq!(soon("answer", waiting).await.unwrap().unwrap().status(), 200);

    drop(sender);
    soon("goodbye", connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_leaves_an_http2_connection_gives_up_all_its_requests() {
    leave_http2().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_one_in_a_runtime_of_several_threads_does_so_too() {
    leave_http2().await;
}

async fn leave_http2() {
    let gateway = Running::start().await;
    let stream = TcpStream::connect(gateway.addr).await.unwrap().into_std().unwrap();
    let cut = stream.try_clone().unwrap();
    let stream = TokioIo::new(TcpStream::from_std(stream).unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let ask = || Request::get("http://test/Wait").body(Full::<Bytes>::default()).unwrap();
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(sender.send_request(ask()))).collect();
    eventually("the calls", || gateway.fake.begun.load(Ordering::SeqCst) == 8).await;
    cut.shutdown(std::net::Shutdown::Both).unwrap();
    eventually("their end", || gateway.fake.cancelled.load(Ordering::SeqCst) == 8).await;
    for request in waiting {
        soon("the client's word", request).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_cut_off() {
    let gateway = Running::with(|config| config.header_timeout = Duration::from_millis(50)).await;
    for begin in ["", "P", "PRI * HTTP/2.0\r\n", "GET /Xy?x=2 HTTP/1.1\r\nhost:"] {
        let mut client = gateway.client().await;
        client.send(begin).await;
        assert_eq!(client.closed().await, "", "after `{begin}`");
    }
    gateway.still_answers().await;
}

/// Passes 50 ms: somebody is too slow with a head meanwhile.
async fn a_slow_head(gateway: &Running) {
    let mut slow = gateway.client().await;
    slow.send("GET /Xy?x=2 HTTP/1.1\r\nhost:").await;
    assert_eq!(slow.closed().await, "");
}

#[tokio::test]
async fn a_client_may_wait_for_its_answer_and_pause_for_longer_than_a_head_may_take() {
    let gateway = Running::with(|config| config.header_timeout = Duration::from_millis(50)).await;
    let mut client = gateway.client().await;
    client.send("GET /Wait HTTP/1.1\r\n\r\n").await;
    a_slow_head(&gateway).await;
    gateway.fake.gate.add_permits(1);
    assert_eq!(client.answer().await.body, "\"done\"");
    a_slow_head(&gateway).await;
    assert_eq!(client.get("/Xy?x=1").await.status, 200);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_the_end() {
    let gateway = Running::with(|config| config.idle_timeout = Duration::from_millis(50)).await;
    let mut client = gateway.client().await;
    client.send("GET /Wait HTTP/1.1\r\n\r\n").await;
    let mut idle = gateway.client().await;
    assert_eq!(idle.get("/Xy?x=1").await.status, 200);
    assert_eq!(idle.closed().await, "");
    gateway.fake.gate.add_permits(1);
    assert_eq!(client.answer().await.body, "\"done\"", "it was not without a request");
    assert_eq!(client.closed().await, "");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let gateway = Running::with(|config| config.max_connections = 2).await;
    let mut first = gateway.client().await;
    let mut second = gateway.client().await;
    assert_eq!(first.get("/Xy?x=1").await.status, 200);
    assert_eq!(second.get("/Xy?x=2").await.status, 200);

    let mut third = gateway.client().await;
    third.send("GET /Wait HTTP/1.1\r\n\r\n").await;
    assert_eq!(first.get("/Xy?x=1").await.status, 200);
    assert_eq!(gateway.fake.begun.load(Ordering::SeqCst), 3, "the third is not served yet");
    drop(first);
    gateway.fake.gate.add_permits(1);
    assert_eq!(third.answer().await.body, "\"done\"");
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    let gateway = Running::start().await;
    let mut idle = gateway.client().await;
    assert_eq!(idle.get("/Xy?x=2").await.status, 200);
    let mut busy = gateway.client().await;
    busy.send("GET /Wait HTTP/1.1\r\n\r\n").await;
    eventually("the call", || gateway.fake.begun.load(Ordering::SeqCst) == 2).await;

    gateway.shutdown.cancel();
    assert_eq!(idle.closed().await, "", "an idle connection is closed");
    let refused =
        soon("refusal", async { while TcpStream::connect(gateway.addr).await.is_ok() {} });
    refused.await;

    gateway.fake.gate.add_permits(1);
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "\"done\""));
    assert_eq!(gateway.stop().await, Drained { unfinished: 0 });
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_is_cut_and_counted() {
    let gateway = Running::with(|config| config.drain_grace = Duration::from_millis(50)).await;
    let fake = gateway.fake.clone();
    let mut client = gateway.client().await;
    client.send("GET /Wait HTTP/1.1\r\n\r\n").await;
    eventually("the call", || fake.begun.load(Ordering::SeqCst) == 1).await;
    assert_eq!(gateway.stop().await, Drained { unfinished: 1 });
    assert_eq!(client.closed().await, "");
    assert_eq!(fake.cancelled.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_load_balancer_is_told_before_the_port_closes() {
    let gateway = Running::with(|config| config.drain_notice = Duration::from_secs(60)).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/readyz").await.status, 200);
    gateway.shutdown.cancel();
    soon("not ready", async { while client.get("/readyz").await.status == 200 {} }).await;
    let answer = Client::connect(gateway.addr).await.get("/readyz").await;
    answer.problem(503, "draining");
    assert_eq!(answer.header("retry-after"), Some("1"));
    gateway.still_answers().await;
    gateway.task.abort();
}

#[tokio::test]
async fn an_address_in_use_is_named_with_what_to_do() {
    let gateway = Running::start().await;
    let bind = |addr| Gateway::bind(GatewayConfig::new(addr), gateway.fake.clone());
    let error = bind(gateway.addr).await.err().expect("in use");
    assert!(matches!(error, BindError::InUse { listen } if listen == gateway.addr));
    let text = error.to_string();
    assert!(text.contains(&gateway.addr.to_string()) && text.contains("--listen"), "{text}");

    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0)); // kept for documentation, never ours
    let error = bind(elsewhere).await.err().expect("not an address of this host");
    assert!(matches!(error, BindError::NotHere { .. }), "{error}");
}
