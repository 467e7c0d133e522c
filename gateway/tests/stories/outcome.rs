//! What comes out when the service cannot answer, and what the operator sees of it.

use std::{sync::atomic::Ordering, time::Duration};

use layercake_node::Api;
use serde_json::Value;

use crate::{client::eventually, fake::Running, told::Told};

#[tokio::test]
async fn each_failure_has_its_status_and_problem() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let table = [
        ("busy", 503, "busy", Some("3"), false),
        ("overloaded", 503, "overloaded", Some("3"), false),
        ("unavailable", 503, "unavailable", Some("1"), false),
        ("stopped", 503, "unavailable", Some("1"), false),
        ("unreachable", 503, "unavailable", Some("1"), false),
        ("deadline", 504, "deadline", None, true),
        ("lost", 502, "worker-lost", None, true),
        ("panicked", 502, "worker-failed", None, true),
        ("not-now", 409, "conflict", None, false),
        ("malformed", 400, "not-understood", None, false),
    ];
    for (failure, status, slug, retry_after, may_have_run) in table {
        let answer = client.get(&format!("/Fail?with={failure}")).await;
        let problem = answer.problem(status, slug);
        assert_eq!(answer.header("retry-after"), retry_after, "{failure}");
        let ran = problem.get("may_have_run").and_then(Value::as_bool).unwrap_or_default();
        assert_eq!(ran, may_have_run, "{failure}");
        let named = problem
            .get("instance")
            .is_some_and(|i| i.as_str().is_some_and(|i| i.starts_with("urn:uuid:")));
        assert_eq!(named, status >= 500, "{failure}");
        assert!(!answer.body.contains("10.1.2.3"), "addresses stay inside: {}", answer.body);
    }
    gateway.still_answers().await;
}

#[tokio::test]
async fn the_log_tells_the_operator_what_the_client_is_not_told() {
    let (told, _guard) = Told::here();
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let lost = client.get("/Fail?with=lost").await.json();
    client.get("/Fail?with=busy").await;
    client.get("/Say?text=secret").await;

    let text = told.text();
    let lines: Vec<_> = text.lines().filter(|l| l.contains("request")).collect();
    assert_eq!(lines.len(), 1, "push-back is counted, not logged: {text}");
    let instance = lost["instance"].as_str().unwrap();
    for part in [instance, "10.1.2.3:4567 hung up", "path=\"Fail\"", "502"] {
        assert!(lines[0].contains(part), "no `{part}` in {}", lines[0]);
    }
}

#[tokio::test]
async fn a_client_shortens_the_deadline() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let answer = client.request("GET", "/Wait", &[("request-timeout", "0.05")], "").await;
    answer.problem(504, "deadline");
    assert!(*gateway.fake.time_left.lock().unwrap() <= Duration::from_millis(50));
    assert_eq!(gateway.fake.cancelled.load(Ordering::SeqCst), 1);

    let answer = client.request("GET", "/Xy?x=2", &[("request-timeout", "9999")], "").await;
    assert_eq!(answer.status, 200);
    assert!(*gateway.fake.time_left.lock().unwrap() <= Duration::from_secs(30));

    let answer = client.request("GET", "/Xy?x=2", &[("request-timeout", "soon")], "").await;
    answer.problem(400, "invalid-header");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let gateway = Running::with(|config| config.deadline = Duration::from_millis(50)).await;
    let mut client = gateway.client().await;
    client
        .send("POST /Xy HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        .await;
    let answer = client.answer().await;
    answer.problem(408, "slow-body");
    assert_eq!(answer.header("connection"), Some("close"));
    gateway.still_answers().await;
}

#[tokio::test]
async fn readiness_follows_the_service_and_health_does_not() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/readyz").await.status, 200);

    gateway.fake.ready.store(false, Ordering::SeqCst);
    let answer = client.get("/readyz").await;
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(client.get("/healthz").await.status, 200);
    client.get("/Nope").await.problem(404, "unknown-message");

    // Without any worker nobody knows which messages there are.
    *gateway.fake.api.lock().unwrap() = Api::default();
    crate::client::soon("the change of the API", async {
        while client.get("/Xy?x=2").await.status != 503 {}
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    client.get("/Xy?x=2").await;
    client.get("/Xy?x=2").await;
    client.get("/Xy?x=abc").await;
    client.get("/Nope").await;
    client.get("/Nope/2").await;

    let answer = client.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        r#"layercake_http_requests_total{message="Xy",method="GET",status="200"} 2"#,
        r#"layercake_http_requests_total{message="Xy",method="GET",status="400"} 1"#,
        r#"layercake_http_requests_total{message="-",method="GET",status="404"} 2"#,
        r#"layercake_http_request_duration_seconds_count{message="Xy"} 3"#,
        "layercake_http_requests_in_flight 1",
        "layercake_http_connections 1",
    ] {
        assert!(answer.body.lines().any(|l| l == line), "no `{line}` in\n{}", answer.body);
    }
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let answer = client.request("GET", "/metrics", &accept, "").await;
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_call() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    client.send("GET /Wait HTTP/1.1\r\n\r\n").await;
    let fake = gateway.fake.clone();
    eventually("the call", || fake.begun.load(Ordering::SeqCst) == 1).await;
    drop(client);
    eventually("the end of the call", || fake.cancelled.load(Ordering::SeqCst) == 1).await;

    let text = gateway.client().await.get("/metrics").await.body;
    let line = r#"layercake_http_requests_total{message="Wait",method="GET",status="499"} 1"#;
    assert!(text.contains(line), "{text}");
}
