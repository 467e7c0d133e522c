//! gzip, of bodies that come in and of those that go out.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::{
    aside::{self, LONG},
    problem::{Kind, Problem},
    reply::{Answer, AnswerBody},
    route,
};

/// Answers of less are sent as they are.
pub(crate) const LEAST: usize = 1 << 10;
/// How long an answer waits to be compressed, before it is sent as it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the body comes compressed.
pub(crate) fn is_compressed(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut compressed = false;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for coding in value.to_str().unwrap_or("?").split(',').map(str::trim) {
            match coding {
                c if c.eq_ignore_ascii_case("identity") => {}
                c if !compressed && (c.eq_ignore_ascii_case("gzip") || c == "x-gzip") => {
                    compressed = true;
                }
                _ => {
                    let detail = "a body is sent as it is, or with `Content-Encoding: gzip`, once";
                    return Err(Problem::new(Kind::UnsupportedMediaType, detail));
                }
            }
        }
    }
    Ok(compressed)
}

/// Undoes gzip, up to `limit` bytes.
pub(crate) async fn inflate(
    bytes: Bytes,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    if bytes.len() <= LONG / 8 {
        return inflate_now(&bytes, limit);
    }
    aside::run(deadline, move || inflate_now(&bytes, limit)).await?
}

fn inflate_now(bytes: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut plain = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(limit as u64 + 1);
    let broken = |_| Problem::new(Kind::InvalidBody, "the body is not gzip");
    reader.read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > limit { Err(route::too_large(limit as u64)) } else { Ok(plain.into()) }
}

/// Whether an answer is at hand, and gets smaller by compression.
pub(crate) fn is_worth_it(answer: &Answer) -> bool {
    let AnswerBody::Whole(body) = answer.body() else { return false };
    let media = || answer.headers().get(header::CONTENT_TYPE)?.to_str().ok();
    body.size_hint().lower() >= LEAST as u64
        && media().is_some_and(is_compressible)
        && !answer.headers().contains_key(header::CONTENT_ENCODING)
}

/// Compresses an answer for which that [is worth it](is_worth_it), where its client takes that.
pub(crate) async fn compress(request: &HeaderMap, answer: &mut Answer) {
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !takes_gzip(request) {
        return;
    }
    let AnswerBody::Whole(body) = std::mem::take(answer.body_mut()) else { return };
    let Ok(collected) = body.collect().await;
    let plain = collected.to_bytes();
    let zipped = match plain.len() {
        ..LONG => deflate(&plain),
        _ => {
            let work = plain.clone();
            aside::run(Instant::now() + PATIENCE, move || deflate(&work)).await.ok().flatten()
        }
    };
    let Some(zipped) = zipped.filter(|zipped| zipped.len() < plain.len()) else {
        *answer.body_mut() = AnswerBody::whole(plain);
        return;
    };
    *answer.body_mut() = AnswerBody::whole(zipped);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // The bytes are not those that a strong tag stands for.
    if let Some(weak) = headers.get(header::ETAG).and_then(weak) {
        headers.insert(header::ETAG, weak);
    }
}

fn deflate(plain: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok()
}

fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    let text = tag.to_str().ok().filter(|text| !text.starts_with("W/"))?;
    HeaderValue::try_from(format!("W/{text}")).ok()
}

/// Whether a type is of a kind that gets smaller.
fn is_compressible(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || matches!(
            essence.as_str(),
            "application/json" | "application/javascript" | "application/xml" | "application/wasm"
        )
}

/// Whether a client takes gzip (RFC 9110, 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for element in value.to_str().unwrap_or_default().split(',') {
            let mut parts = element.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let wanted = weight.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0));
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                return wanted;
            }
            any |= coding == "*" && wanted;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_client_says_what_it_takes() {
        let takes = |value| takes_gzip(&headers(header::ACCEPT_ENCODING, value));
        for yes in ["gzip", "br, gzip;q=0.5", "GZIP", "*", "br;q=1, *;q=0.1"] {
            assert!(takes(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip;q=0, *", "*;q=0", "gzip;q=x"] {
            assert!(!takes(no), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_body_comes_plain_or_by_gzip() {
        let coded = |value| is_compressed(&headers(header::CONTENT_ENCODING, value)).ok();
        assert_eq!(is_compressed(&HeaderMap::new()), Ok(false));
        assert_eq!((coded("identity"), coded("gzip")), (Some(false), Some(true)));
        for other in ["br", "gzip, gzip", "deflate", ""] {
            assert_eq!(coded(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn what_was_compressed_comes_back_and_a_bomb_does_not() {
        let plain = Bytes::from(vec![b'x'; 1 << 20]);
        let zipped = Bytes::from(deflate(&plain).unwrap());
        assert!(zipped.len() < 10_000, "{}", zipped.len());
        let deadline = Instant::now() + Duration::from_secs(10);
        let inflate = async |zipped, limit| {
            inflate(zipped, limit, deadline).await.map_err(|problem| problem.kind)
        };
        assert_eq!(inflate(zipped.clone(), 1 << 20).await, Ok(plain));
        assert_eq!(inflate(zipped.clone(), (1 << 20) - 1).await, Err(Kind::TooLarge));
        assert_eq!(inflate(zipped.slice(..50), 1 << 20).await, Err(Kind::InvalidBody));
        assert_eq!(inflate(Bytes::from_static(b"{}"), 10).await, Err(Kind::InvalidBody));
    }

    #[test]
    fn pictures_do_not_get_smaller() {
        assert!(is_compressible("application/json") && is_compressible("text/html; charset=utf-8"));
        assert!(is_compressible("image/svg+xml") && is_compressible("application/problem+json"));
        assert!(!is_compressible("image/png") && !is_compressible("application/octet-stream"));
    }
}
