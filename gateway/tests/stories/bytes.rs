//! Bytes with their media type, compression, and large bodies.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use crate::{client::soon, shop::Open};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_image_goes_in_and_an_image_comes_out() {
    let shop = Open::now().await;
    let image: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let turned: Vec<u8> = image.iter().rev().copied().collect();
    let png = ("content-type", "image/png");
    for path in ["/turned", "/Turn?times=2"] {
        let told = shop.say("POST", path, &[png], image.clone()).await;
        assert_eq!((told.status, told.header("content-type")), (200, "image/png"), "{path}");
        assert_eq!(told.header("x-content-type-options"), "nosniff");
        assert!(told.body == turned, "{path}: the bytes as they are");
    }
    let again = shop.say("POST", "/turned?times=1", &[png], image.clone()).await;
    assert!(again.body == image);

    let text = shop.say("POST", "/turned", &[("content-type", "text/plain")], "x").await;
    assert_eq!(text.status, 415);
    assert!(text.value()["detail"].as_str().unwrap().contains("image/*"), "{text:?}");
    let odd = shop.say("POST", "/turned?times=x", &[png], image.clone()).await;
    assert_eq!((odd.status, &odd.value()["errors"][0]["parameter"]), (400, &json!("times")));
    // Within a reply bytes are text.
    let within = shop.say("GET", "/Within", &[], "").await.value();
    assert_eq!(
        within,
        json!({ "one": { "media_type": "a/b", "bytes": "Ynl0ZXM=", "etag": null } })
    );
    shop.close().await;
}

#[tokio::test]
async fn bytes_above_the_limit_are_refused() {
    let shop = Open::with(&[""], |config| {
        config.blob_limit = 1_000;
        config.upload_limit = 2_000;
    })
    .await;
    let png = ("content-type", "image/png");
    assert_eq!(shop.say("POST", "/turned", &[png], vec![1; 1_000]).await.status, 200);
    assert_eq!(shop.say("POST", "/turned", &[png], vec![1; 1_001]).await.status, 413);
    assert_eq!(shop.say("PUT", "/sums", &[], vec![1; 2_000]).await.text(), "2000");
    assert_eq!(shop.say("PUT", "/sums", &[], vec![1; 2_001]).await.status, 413);
    // One that does not say how long it is.
    let parts = (0..3).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![1; 1_000]))));
    let body = StreamBody::new(futures_util::stream::iter(parts));
    let request = Request::put("/sums").header("host", "shop").body(body).unwrap();
    let answer = shop.ask(request).await;
    assert_eq!(answer.status(), 413);
    shop.close().await;
}

#[tokio::test]
async fn a_body_of_any_length_passes_through_a_handler_and_back() {
    const PART: usize = 100_000;
    const PARTS: usize = 300;
    let shop = Open::now().await;
    let parts =
        (0..PARTS).map(|n| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![n as u8; PART]))));
    let body = StreamBody::new(futures_util::stream::iter(parts));
    let request = Request::put("/echo").header("host", "shop").body(body).unwrap();
    let answer = shop.ask(request).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"video/mp4".parse().unwrap())
    );
    let mut body = answer.into_body();
    let mut count = 0;
    while let Some(frame) = soon("a part", body.frame()).await {
        for byte in frame.unwrap().into_data().unwrap() {
            assert_eq!(byte, (count / PART) as u8, "at {count}");
            count += 1;
        }
    }
    assert_eq!(count, PART * PARTS);
    shop.close().await;
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_say_so() {
    let shop = Open::now().await;
    let plain = shop.say("GET", "/pictures/v1", &[], "").await;
    assert_eq!((plain.body.len(), plain.header("etag")), (6_000, "\"v1\""));
    assert_eq!((plain.header("vary"), plain.header("content-encoding")), ("accept-encoding", ""));

    let takes = ("accept-encoding", "br, gzip");
    let zipped = shop.say("GET", "/pictures/v1", &[takes], "").await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    assert!(zipped.body.len() < 600, "{}", zipped.body.len());
    let mut back = Vec::new();
    GzDecoder::new(&zipped.body[..]).read_to_end(&mut back).unwrap();
    assert!(back == plain.body);
    assert_eq!(zipped.header("etag"), "W/\"v1\"");
    let known = ("if-none-match", "W/\"v1\"");
    assert_eq!(shop.say("GET", "/pictures/v1", &[takes, known], "").await.status, 304);

    let small = shop.say("GET", "/customers", &[takes], "").await;
    assert_eq!((small.text(), small.header("content-encoding")), ("{}", ""));
    shop.close().await;
}

#[tokio::test]
async fn a_compressed_body_is_read_and_a_bomb_is_not() {
    let shop = Open::now().await;
    let json = ("content-type", "application/json");
    let gz = ("content-encoding", "gzip");
    let say = |body: Vec<u8>, coding| {
        let shop = &shop;
        async move { shop.say("PUT", "/customers/7?force=true", &[json, coding], body).await }
    };
    assert_eq!(say(gzip(br#"{"name":"Ann"}"#), gz).await.status, 200);
    let shown = shop.say("GET", "/customers/7", &[], "").await;
    assert_eq!(shown.value()["name"], "Ann");
    let bomb = gzip(&vec![b' '; 50 << 20]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(say(bomb, gz).await.status, 413);
    assert_eq!(say(br#"{"name":"Ann"}"#.to_vec(), gz).await.status, 400);
    assert_eq!(say(gzip(b"{}"), ("content-encoding", "br")).await.status, 415);
    shop.close().await;
}
