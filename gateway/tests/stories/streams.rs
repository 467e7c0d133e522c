//! Replies in parts: lines, events, a WebSocket; and clients that go away.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use crate::{
    client::{eventually, found, soon},
    shop::Open,
};

/// More than any buffer on the way holds.
const ENDLESS: &str = "4000000000";

#[tokio::test]
async fn parts_are_lines_of_json_unless_asked_for_events() {
    let shop = Open::now().await;
    let lines = shop.say("GET", "/count/3", &[], "").await;
    assert_eq!((lines.header("content-type"), lines.text()), ("application/x-ndjson", "0\n1\n2\n"));
    let posted = shop.json("POST", "/Count", r#"{"to":2}"#).await;
    assert_eq!(posted.text(), "0\n1\n");
    assert_eq!(shop.say("GET", "/count/0", &[], "").await.text(), "");

    let events = shop.say("GET", "/count/2", &[("accept", "text/event-stream")], "").await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!(events.header("cache-control"), "no-cache");
    assert_eq!(events.text(), "data: 0\n\ndata: 1\n\nevent: end\ndata:\n\n");
    shop.close().await;
}

#[tokio::test]
async fn a_reply_that_breaks_off_says_so() {
    let shop = Open::now().await;
    // Before its first part it is a problem as any other.
    let none = shop.say("GET", "/count/3?fail_at=0", &[], "").await;
    assert_eq!((none.status, &none.value()["type"]), (502, &"/problems/no-reply".into()));

    let events =
        shop.say("GET", "/count/3?fail_at=2", &[("accept", "text/event-stream")], "").await;
    let (parts, error) = events.text().split_once("event: error\ndata: ").unwrap();
    assert_eq!(parts, "data: 0\n\ndata: 1\n\n");
    let problem: serde_json::Value = serde_json::from_str(error).unwrap();
    assert_eq!(problem["status"], 502);

    // Of lines the connection says that some are missing.
    let request = Request::get("/count/3?fail_at=2").header("host", "shop");
    let answer = shop.ask(request.body(Full::new(Bytes::new())).unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert!(soon("the end", answer.into_body().collect()).await.is_err());
    shop.close().await;
}

#[tokio::test]
async fn one_connection_does_not_carry_any_number_of_replies_in_parts() {
    let shop = Open::with(&[""], |config| config.max_connections = 1).await;
    let stream = TcpStream::connect(shop.addr).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = soon("handshake", handshake).await.unwrap();
    tokio::spawn(connection);
    let mut count = || {
        let request = Request::get(format!("http://shop/count/{ENDLESS}"));
        sender.send_request(request.body(Full::new(Bytes::new())).unwrap())
    };
    let first = soon("an answer", count()).await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(soon("an answer", count()).await.unwrap().status(), 503);
    drop(first);
    let gone = shop.gone.clone();
    eventually("the end of the first", || gone.load(Ordering::SeqCst) == 1).await;
    assert_eq!(soon("an answer", count()).await.unwrap().status(), 200);
    shop.close().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_stream() {
    let shop = Open::now().await;
    let request = Request::get(format!("/count/{ENDLESS}")).header("host", "shop");
    let answer = shop.ask(request.body(Full::new(Bytes::new())).unwrap()).await;
    let mut body = answer.into_body();
    soon("a part", body.frame()).await.unwrap().unwrap();
    assert_eq!(shop.gone.load(Ordering::SeqCst), 0);
    drop(body);
    let gone = shop.gone.clone();
    eventually("the end of the stream", || gone.load(Ordering::SeqCst) == 1).await;
    shop.close().await;
}

#[tokio::test]
async fn a_web_socket_has_a_frame_for_each_part() {
    let shop = Open::now().await;
    let connect = |path: String| {
        let addr = shop.addr;
        async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            let url = format!("ws://shop{path}");
            soon("a WebSocket", client_async(url, stream)).await.unwrap().0
        }
    };
    let mut socket = connect("/count/3".into()).await;
    for expected in ["0", "1", "2"] {
        let part = soon("a part", socket.next()).await.unwrap().unwrap();
        assert_eq!(part, Message::text(expected));
    }
    let Message::Close(Some(close)) = soon("the end", socket.next()).await.unwrap().unwrap() else {
        panic!("no close frame")
    };
    assert_eq!(close.code, CloseCode::Normal);

    let mut failing = connect("/count/3?fail_at=1".into()).await;
    soon("a part", failing.next()).await.unwrap().unwrap();
    let Message::Close(Some(close)) = soon("the end", failing.next()).await.unwrap().unwrap()
    else {
        panic!("no close frame")
    };
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::Error, "no-reply"));

    // A client that says goodbye is not waited for.
    let mut endless = connect(format!("/count/{ENDLESS}")).await;
    soon("a part", endless.next()).await.unwrap().unwrap();
    soon("goodbye", endless.close(None)).await.unwrap();
    let gone = shop.gone.clone();
    eventually("the end of the stream", || gone.load(Ordering::SeqCst) == 1).await;

    // Nor is one waited for at the end of the gateway.
    let mut waiting = connect(format!("/count/{ENDLESS}")).await;
    soon("a part", waiting.next()).await.unwrap().unwrap();
    // It is a connection as any other: besides it there is the one that asks.
    drop((socket, failing, endless));
    found("two connections", async || {
        shop.say("GET", "/metrics", &[], "").await.text().contains("_connections 2\n")
    })
    .await;
    shop.shutdown.cancel();
    let away = async {
        loop {
            match waiting.next().await {
                Some(Ok(Message::Close(Some(close)))) => break close.code,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(soon("the end", away).await, CloseCode::Away);
    shop.close().await;
}

#[tokio::test]
async fn a_web_socket_is_no_connection_without_a_request() {
    let short = Duration::from_millis(50);
    let shop = Open::with(&[""], |config| {
        (config.header_timeout, config.idle_timeout) = (short, short);
    })
    .await;
    let stream = TcpStream::connect(shop.addr).await.unwrap();
    let url = format!("ws://shop/count/{ENDLESS}");
    let mut socket = soon("a WebSocket", client_async(url, stream)).await.unwrap().0;
    soon("a part", socket.next()).await.unwrap().unwrap();
    // Another one that says nothing is closed meanwhile.
    let mut silent = TcpStream::connect(shop.addr).await.unwrap();
    assert_eq!(soon("the end", silent.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(shop.gone.load(Ordering::SeqCst), 0, "the parts are still wanted");
    soon("goodbye", socket.close(None)).await.unwrap();
    eventually("the end of the stream", || shop.gone.load(Ordering::SeqCst) == 1).await;
    shop.close().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_web_socket_is_an_ordinary_answer() {
    let shop = Open::now().await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let odd = shop.say("GET", "/count/3", &upgrade, "").await;
    assert_eq!((odd.status, &odd.value()["type"]), (400, &"/problems/invalid-header".into()));
    let whole = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let wrong = shop.say("GET", "/count/many", &whole, "").await;
    assert_eq!(wrong.status, 400);
    // One reply is answered as one.
    let plain = shop.say("GET", "/customers", &whole, "").await;
    assert_eq!((plain.status, plain.text()), (200, "{}"));
    shop.close().await;
}
