//! What goes in: what is taken, what is refused, and what a refusal says.

use std::pin::pin;

use serde_json::json;

use crate::{
    client::Answer,
    fake::{Fake, Running},
};

fn names(answer: &Answer, parameter: &str) {
    let problem = answer.json();
    assert_eq!(problem["errors"][0]["parameter"], parameter, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(parameter), "{problem}");
    assert!(problem["errors"][0]["detail"].is_string(), "{problem}");
}

#[tokio::test]
async fn a_query_becomes_a_message_and_the_reply_comes_back_as_json() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let answer = client.get("/Xy?x=2&y=3").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[2,3]"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("server"), Some("layer-cake"));
    assert!(answer.header("date").is_some());
    let answer = client.get("/Say?text=%C3%BC%26+%2B").await;
    assert_eq!(answer.json(), json!({ "text": "ü& +" }));
    let answer = client.get("/Xy?x=2").await;
    assert_eq!(answer.body, "[2,8]", "the default of y");
}

#[tokio::test]
async fn a_wrong_parameter_is_named_and_the_gateway_goes_on() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    for query in ["x=abc", "x=-1", "x=99999999999", "x=1.5", "x=", "y=2", "", "x=%zz", "x=%ff"] {
        let answer = client.get(&format!("/Xy?{query}")).await;
        answer.problem(400, "invalid-parameter");
        names(&answer, "x");
    }
    gateway.still_answers().await;
}

/// As where the gateway is one thread, and all who do longer work for it are busy.
async fn large_bodies_hold_up_nobody(gateway: Running, large: &str) {
    let (mut client, mut other) = (gateway.client().await, gateway.client().await);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || held.recv());
    let mut large = pin!(client.post_json("/Say", large));
    let small = async {
        for _ in 0..50 {
            assert_eq!(other.get("/Xy?x=2&y=3").await.status, 200);
        }
    };
    tokio::select! {
        biased;
        _ = &mut large => panic!("it was checked where all others are answered"),
        () = small => {}
    }
    drop(release);
    let answer = large.await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains(&large_text()));
    let _ = busy.await;
}

fn large_text() -> String {
    "x".repeat(100_000)
}

#[test]
fn a_large_body_that_waits_to_be_checked_holds_up_nobody() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let text = large_text();
        let gateway = Running::start().await;
        large_bodies_hold_up_nobody(gateway, &format!("{{\"text\":\"{text}\"}}")).await;
        let gateway = Running::with(|config| config.ancestor = true).await;
        let body = format!("{{\"value\":{{\"text\":\"{text}\"}}}}");
        large_bodies_hold_up_nobody(gateway, &body).await;
    });
}

#[tokio::test]
async fn a_json_body_is_checked_and_passed_on_as_it_came() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let body = "{ \"text\" :\t\"\\u00fc\" }";
    let answer = client.post_json("/Say", body).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, body));

    for body in [r#"{"x":"abc"}"#, r#"{"x":-1}"#, r#"{"y":1}"#, r#"{"x":99999999999}"#, "{}"] {
        let answer = client.post_json("/Xy", body).await;
        let problem = answer.problem(422, "invalid-content");
        assert_eq!(problem["errors"][0]["pointer"], "/x", "{problem}");
        assert_eq!(problem["errors"][0]["in"], "body", "{problem}");
        names(&answer, "x");
    }
    // For a schema `2.0` is a whole number; `2.5` is none.
    let answer = client.post_json("/Xy", r#"{"x":2.0,"y":3e0}"#).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[2,3]"));
    names(&client.post_json("/Xy", r#"{"x":2.5,"y":3.0}"#).await, "x");
    for body in ["{\"x\":", "", "nonsense", "\"\\ud800\"", "{\"x\":1}{"] {
        client.post_json("/Xy", body).await.problem(400, "invalid-body");
    }
    for body in ["[1]", "7"] {
        client.post_json("/Xy", body).await.problem(422, "invalid-content");
    }
    gateway.still_answers().await;
}

#[tokio::test]
async fn a_body_nested_beyond_reason_is_refused() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    for open in ["[", "{\"x\":"] {
        let answer = client.post_json("/Xy", &open.repeat(100_000)).await;
        answer.problem(400, "invalid-body");
    }
    gateway.still_answers().await;
}

#[tokio::test]
async fn other_ways_to_write_a_body() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = client.request("POST", "/Xy", &form, "x=2&y=3").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[2,3]"));
    names(&client.request("POST", "/Xy", &form, "x=two").await, "x");

    let charset = [("content-type", "application/json; charset=UTF-8")];
    assert_eq!(client.request("POST", "/Xy", &charset, r#"{"x":2}"#).await.status, 200);

    let answer = client.request("POST", "/Say", &[], "").await;
    assert_eq!(answer.status, 200, "no body is a message of defaults");
    names(&client.request("POST", "/Xy", &[], "").await, "x");

    for headers in [&[][..], &[("content-type", "text/xml")][..]] {
        let answer = client.request("POST", "/Xy", headers, "<x/>").await;
        answer.problem(415, "unsupported-media-type");
        assert!(answer.header("accept-post").unwrap().contains("application/json"));
    }
    client.post_json("/Xy?x=2", "{}").await.problem(400, "invalid-parameter");
}

#[tokio::test]
async fn an_unknown_message_is_404_and_a_wrong_method_405() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    for path in ["/Nope", "/Xy/", "/xy", "/Xy/x", "//Xy", "/%zz", "/..%2fXy"] {
        client.get(path).await.problem(404, "unknown-message");
    }
    assert_eq!(client.get("/%58y?x=2").await.status, 200, "a path may be percent-encoded");
    for method in ["PUT", "DELETE", "PATCH", "BREW"] {
        let answer = client.request(method, "/Xy", &[], "").await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    }
    let answer = client.request("OPTIONS", "/Xy", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, POST, OPTIONS")));
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    client.send("HEAD /Xy?x=2 HTTP/1.1\r\n\r\nGET /Xy?x=3 HTTP/1.1\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    assert_eq!(client.answer().await.body, "[3,8]", "no body stands between the answers");
}

#[tokio::test]
async fn an_announced_body_above_the_limit_is_refused_before_it_comes() {
    let gateway = Running::start().await;
    let head =
        "POST /Xy HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 10485760\r\n";
    let mut client = gateway.client().await;
    client.send(format!("{head}\r\n")).await;
    client.answer().await.problem(413, "too-large");

    let mut client = gateway.client().await;
    client.send(format!("{head}expect: 100-continue\r\n\r\n")).await;
    client.answer().await.problem(413, "too-large");
    gateway.still_answers().await;
}

#[tokio::test]
async fn a_client_that_sends_ten_megabytes_first_and_reads_then_gets_its_413() {
    let gateway = Running::start().await;
    let ten = 10 << 20;
    for path in ["/Say", "/Nope"] {
        let mut client = gateway.client().await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {ten}\r\n\r\n"
            ))
            .await;
        client.send(vec![b'x'; ten]).await;
        assert_eq!(client.answer().await.status, if path == "/Say" { 413 } else { 404 });
        // All of it was read, so that the connection is still good.
        assert_eq!(client.get("/Xy?x=2").await.status, 200);
    }
}

#[tokio::test]
async fn a_chunked_body_is_refused_once_it_is_above_the_limit() {
    let gateway = Running::with(|config| config.body_limit = 1_000).await;
    let mut client = gateway.client().await;
    let head = "POST /Say HTTP/1.1\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}9\r\n{{\"text\":\"\r\n2\r\n\"}}\r\n0\r\n\r\n")).await;
    assert_eq!(client.answer().await.body, r#"{"text":""}"#, "put together from its chunks");

    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    client.send(format!("{head}{}", chunk.repeat(3))).await;
    client.answer().await.problem(413, "too-large");
    gateway.still_answers().await;
}

#[tokio::test]
async fn an_address_beyond_the_limit_is_414() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let answer = client.get(&format!("/Say?text={}", "x".repeat(9_000))).await;
    answer.problem(414, "uri-too-long");
    gateway.still_answers().await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_431() {
    let gateway = Running::start().await;
    let long = format!("x: {}\r\n", "x".repeat(20_000));
    for headers in [long, "a: b\r\n".repeat(65), "a: b\r\n".repeat(1_000)] {
        let mut client = gateway.client().await;
        client.send(format!("GET /Xy?x=2 HTTP/1.1\r\n{headers}\r\n")).await;
        assert_eq!(client.head().await.status, 431);
    }
    let with = async |headers: String| {
        let mut client = gateway.client().await;
        client.send(format!("GET /Xy?x=2 HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
        client.answer().await
    };
    with("a: b\r\n".repeat(64)).await.problem(431, "too-many-headers");
    assert_eq!(with("a: b\r\n".repeat(63)).await.status, 200);
    assert_eq!(with("a: b\r\n".repeat(63) + &"cookie: a=b\r\n".repeat(30)).await.status, 200);
    gateway.still_answers().await;
}

#[tokio::test]
async fn what_is_not_http_is_turned_away() {
    let gateway = Running::start().await;
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0\r\n\r\n"] {
        let mut client = gateway.client().await;
        client.send(bytes).await;
        let said = client.closed().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    gateway.still_answers().await;
}

#[tokio::test]
async fn the_index_tells_what_there_is_and_follows_the_service() {
    let gateway = Running::start().await;
    let mut client = gateway.client().await;
    let index = client.get("/").await.json();
    assert_eq!(index["messages"][0]["path"], "/Xy");
    assert_eq!(index["messages"].as_array().unwrap().len(), 4, "all but the one called healthz");
    assert_eq!(client.get("/healthz").await.body, "ok\n");

    gateway.fake.api.lock().unwrap().messages.remove(0);
    crate::client::soon("the change of the API", async {
        while client.get("/Xy?x=2").await.status != 404 {}
    })
    .await;
    *gateway.fake.api.lock().unwrap() = Fake::api();
    crate::client::soon("the change back", async {
        while client.get("/Xy?x=2").await.status != 200 {}
    })
    .await;
}
