//! At the door: who a client is, what it may, and what is written down of it.

use std::{sync::atomic::Ordering, time::Duration};

use layercake_gateway::{AccessLog, Rate};
use serde_json::Value;

use crate::{
    client::{Client, eventually, soon},
    fake::Running,
    shop::Open,
};

const LOOPBACK: &str = "127.0.0.0/8";

#[tokio::test]
async fn a_client_that_sends_too_much_is_told_when_to_come_back() {
    let gateway = Running::with(|config| {
        config.client_header = Some(http::HeaderName::from_static("x-api-key"));
        config.rate = Some(Rate { per_second: 1, burst: 3 });
        config.key_rates = [("paid".to_owned(), Rate { per_second: 1_000, burst: 100 })].into();
    })
    .await;
    let mut client = gateway.client().await;
    let mut ask =
        async |key: &str| client.request("GET", "/Xy?x=2", &[("x-api-key", key)], "").await;
    for _ in 0..3 {
        assert_eq!(ask("one").await.status, 200);
    }
    let answer = ask("one").await;
    answer.problem(429, "too-many-requests");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(ask("two").await.status, 200, "another client");
    for _ in 0..50 {
        assert_eq!(ask("paid").await.status, 200, "one with a rate of its own");
    }
    assert_eq!(gateway.client().await.get("/healthz").await.status, 200);
    let metrics = gateway.client().await.get("/metrics").await.body;
    let line = "layercake_http_requests_shed_total{reason=\"rate\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let json = ("content-type", "application/json");
    let mut ask = async |method: &str, headers: &[(&str, &str)]| {
        let headers = [&[json][..], headers].concat();
        let (target, body) = if method == "GET" { ("/Xy?x=2", "") } else { ("/Xy", r#"{"x":2}"#) };
        client.request(method, target, &headers, body).await
    };
    // The host that is asked is called `test`.
    for own in [("origin", "http://test"), ("sec-fetch-site", "same-origin")] {
        assert_eq!(ask("POST", &[own]).await.status, 200, "{own:?}");
        assert_eq!(ask("GET", &[own]).await.status, 200, "{own:?}");
    }
    assert_eq!(ask("GET", &[("sec-fetch-site", "none")]).await.status, 200, "typed by a person");
    for other in [("origin", "http://evil"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        ask("POST", &[other]).await.problem(403, "cross-origin");
        let read = ask("GET", &[other]).await;
        read.problem(403, "cross-origin");
        assert_eq!(read.header("access-control-allow-origin"), None);
    }
    assert_eq!(gateway.fake.begun.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_page_of_another_site_may_show_an_image_and_open_no_web_socket() {
    let shop = Open::now().await;
    let other = ("sec-fetch-site", "cross-site");
    assert_eq!(shop.say("GET", "/count/2", &[other], "").await.text(), "0\n1\n");
    assert_eq!(shop.say("POST", "/Count", &[other], r#"{"to":2}"#).await.status, 403);
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "http://evil"),
    ];
    let refused = shop.say("GET", "/count/2", &upgrade, "").await;
    assert_eq!((refused.status, &refused.value()["type"]), (403, &"/problems/cross-origin".into()));
    shop.close().await;
}

#[tokio::test]
async fn a_page_of_a_declared_origin_asks_what_it_likes_and_reads_the_answer() {
    let app = "https://app.example";
    let gateway = Running::with(|config| config.origins = vec![app.parse().unwrap()]).await;
    let mut client = gateway.client().await;
    let page = [("origin", app), ("sec-fetch-site", "cross-site")];
    let first = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-api-key"),
    ];
    let may = client.request("OPTIONS", "/Xy", &[page, first].concat(), "").await;
    assert_eq!((may.status, may.header("access-control-allow-origin")), (204, Some(app)));
    assert_eq!(may.header("access-control-allow-methods"), may.header("allow"));
    assert!(may.header("allow").unwrap().contains("POST"));
    assert_eq!(may.header("access-control-allow-headers"), Some("content-type,x-api-key"));

    let json = [("content-type", "application/json")];
    let answer = client.request("POST", "/Xy", &[&page[..], &json].concat(), r#"{"x":2}"#).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[2,8]"));
    assert_eq!(answer.header("access-control-allow-origin"), Some(app));
    assert_eq!(answer.header("vary"), Some("origin"));
    // What is wrong it can read as well.
    let wrong = client.request("POST", "/Xy", &[&page[..], &json].concat(), "{}").await;
    wrong.problem(422, "invalid-content");
    assert_eq!(wrong.header("access-control-allow-origin"), Some(app));

    let other = [("origin", "https://other.example")];
    let refused = client.request("POST", "/Xy", &[&other[..], &json].concat(), "{}").await;
    refused.problem(403, "cross-origin");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(refused.header("vary"), Some("origin"), "a cache must tell them apart");
}

#[tokio::test]
async fn more_than_can_be_under_way_is_refused_before_its_body_is_read() {
    let gateway = Running::with(|config| config.max_in_flight = 2).await;
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut client = gateway.client().await;
        client.send("GET /Wait HTTP/1.1\r\nhost: test\r\n\r\n").await;
        eventually("the call", || gateway.fake.begun.load(Ordering::SeqCst) == n).await;
        waiting.push(client);
    }
    let mut client = gateway.client().await;
    client
        .send("POST /Xy HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n")
        .await;
    let answer = client.answer().await;
    answer.problem(503, "overloaded");
    assert!(answer.header("retry-after").is_some());
    // The gateway's own paths are not behind the limit.
    assert_eq!(gateway.client().await.get("/readyz").await.status, 200);

    gateway.fake.gate.add_permits(2);
    for mut client in waiting {
        assert_eq!(client.answer().await.status, 200);
    }
    gateway.still_answers().await;
}

#[tokio::test]
async fn who_holds_everything_does_not_keep_others_out() {
    let gateway = Running::with(|config| {
        config.max_in_flight = 64;
        config.proxies = vec![LOOPBACK.parse().unwrap()];
    })
    .await;
    let begun = || gateway.fake.begun.load(Ordering::SeqCst);
    let from = async |client: &str| {
        let mut connection = gateway.client().await;
        let request =
            format!("GET /Wait HTTP/1.1\r\nhost: test\r\nx-forwarded-for: {client}\r\n\r\n");
        connection.send(request).await;
        connection
    };
    let mut waiting = Vec::new();
    for n in 1..=64 {
        waiting.push(from("192.0.2.1").await);
        eventually("the call", || begun() == n).await;
    }
    from("192.0.2.1").await.answer().await.problem(503, "overloaded");
    for n in 65..=80 {
        waiting.push(from("192.0.2.2").await);
        eventually("the call of another client", || begun() == n).await;
    }
    from("192.0.2.1").await.answer().await.problem(503, "overloaded");

    gateway.fake.gate.add_permits(waiting.len());
    for mut client in waiting {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn only_a_declared_proxy_says_who_the_client_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::File(path.clone());
    let proxied = Running::with(|config| {
        config.proxies = vec![LOOPBACK.parse().unwrap()];
        config.proxy_protocol = true;
        config.access_log = Some(log.clone());
    })
    .await;
    let mut client = proxied.client().await;
    client.send("PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n").await;
    let traced = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = client.request("GET", "/Xy?x=2&secret=1", &[("traceparent", traced)], "").await;
    assert_eq!(answer.status, 400);
    assert_eq!(client.get("/Xy?x=2").await.status, 200);
    // Without the header that is declared there is nobody to serve.
    let mut other = proxied.client().await;
    other.send("GET /Xy?x=2 HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(other.closed().await, "");
    let _ = proxied.stop().await;

    let undeclared = Running::with(|config| {
        config.proxies = vec!["192.0.2.0/24".parse().unwrap()];
        config.access_log = Some(log.clone());
    })
    .await;
    let mut client = undeclared.client().await;
    let forged = [("x-forwarded-for", "198.51.100.7")];
    assert_eq!(client.request("GET", "/nowhere", &forged, "").await.status, 404);
    let _ = undeclared.stop().await;

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [wrong, right, unknown] = &lines[..] else { panic!("{text}") };
    assert_eq!((&wrong["client"], &wrong["status"]), (&"192.0.2.1".into(), &400.into()));
    assert_eq!(wrong["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(!text.contains("secret"), "a query may hold what nobody else may see: {text}");
    assert_eq!((&right["message"], &right["bytes"]), (&"Xy".into(), &5.into()));
    assert_eq!((&right["protocol"], &right["path"]), (&"HTTP/1.1".into(), &"/Xy".into()));
    assert!(right["ms"].as_f64().unwrap() >= 0.0 && right["trace"] != wrong["trace"], "{right}");
    assert_eq!((&unknown["client"], &unknown["status"]), (&"127.0.0.1".into(), &404.into()));
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_is_logged_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::File(path.clone());
    let gateway = Running::with(|config| config.access_log = Some(log)).await;
    let mut client = gateway.client().await;
    client.send("GET /Wait HTTP/1.1\r\nhost: test\r\n\r\n").await;
    eventually("the call", || gateway.fake.begun.load(Ordering::SeqCst) == 1).await;
    drop(client);
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the line", || read().contains("\"status\":499")).await;
    assert!(!read().contains("\"bytes\""), "{}", read());
}

#[tokio::test]
async fn a_body_that_trickles_is_refused_and_a_slow_one_is_read() {
    let gateway = Running::with(|config| config.body_rate = u32::MAX).await;
    let head = "POST /Xy HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n";
    let mut slow = Client::connect(gateway.addr).await;
    slow.send(head).await;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for byte in r#"{"x":1}  "#.bytes() {
        pace.tick().await;
        slow.send([byte]).await;
    }
    assert_eq!(slow.answer().await.body, "[1,8]", "within the first seconds any pace will do");

    let mut stuck = Client::connect(gateway.addr).await;
    stuck.send(head).await;
    stuck.send("{").await;
    let answer = soon("refusal", stuck.answer()).await;
    answer.problem(408, "slow-body");
}

#[tokio::test]
async fn the_trace_of_a_client_reaches_the_handler_of_an_actor() {
    let shop = Open::now().await;
    let traced = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    let trace = shop.say("GET", "/trace", &traced, "").await.value();
    assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    // One that nobody has begun is not carried along.
    assert!(shop.say("GET", "/trace", &[], "").await.value().is_null());
    shop.close().await;
}
