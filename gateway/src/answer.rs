//! From the outcome of a call to what the client is told: the one table of causes and statuses.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use layercake_node::{
    AskError, Blob,
    http::{ERROR_STATUS, HttpReply},
};
use layercake_wire::payload::{self, Encoding, Payload};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    problem::{Declared, Kind, Problem, clip},
    table::Entry,
};

/// What a service has answered.
pub(crate) struct Told {
    /// Its media type.
    pub(crate) media: HeaderValue,
    pub(crate) bytes: Bytes,
    /// Its entity tag, as it stands in a header.
    pub(crate) etag: Option<HeaderValue>,
}

/// What a fallible message is answered with.
#[derive(Deserialize)]
enum Outcome<'a> {
    #[serde(borrow)]
    Ok(&'a RawValue),
    Err(Value),
}

/// What to tell of a reply: JSON as it came, or bytes as they are.
pub(crate) fn reply(entry: &Entry, outcome: Result<Payload, AskError>) -> Result<Told, Problem> {
    let payload = outcome.map_err(|error| problem(&error))?;
    let unusable = |reason: String| problem(&AskError::BadReply { reason });
    let (mut json, beside) = match payload.encoding {
        Encoding::Json => (payload.bytes, Vec::new()),
        Encoding::Parts => {
            payload::split(&payload.bytes).map_err(|error| unusable(error.to_string()))?
        }
        other => return Err(unusable(format!("it came as {other:?}, not as JSON"))),
    };
    if entry.fallible {
        let outcome = serde_json::from_slice(&json).map_err(|error| unusable(error.to_string()))?;
        json = match outcome {
            Outcome::Ok(value) => json.slice_ref(value.get().as_bytes()),
            Outcome::Err(error) => return Err(refused(entry, error)),
        };
    }
    if entry.reply == HttpReply::Blob {
        let blob: Blob =
            payload::decode_beside(&json, beside).map_err(|error| unusable(error.to_string()))?;
        let media = HeaderValue::try_from(blob.media_type);
        let media = media.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        return Ok(Told { media, bytes: blob.bytes, etag: blob.etag.as_deref().and_then(quoted) });
    }
    let etag = entry.api.http.etag.as_ref().and_then(|member| match member_of(&json, member)? {
        Value::String(text) => quoted(&text),
        Value::Number(number) => quoted(&number.to_string()),
        _ => None,
    });
    Ok(Told { media: HeaderValue::from_static("application/json"), bytes: json, etag })
}

fn member_of(json: &[u8], member: &str) -> Option<Value> {
    // The others are not read.
    let members: HashMap<String, &RawValue> = serde_json::from_slice(json).ok()?;
    serde_json::from_str(members.get(member)?.get()).ok()
}

/// An entity tag for a header; none where it has characters that one cannot have.
fn quoted(tag: &str) -> Option<HeaderValue> {
    let plain = |b: u8| b == 0x21 || (0x23..=0x7e).contains(&b);
    if !tag.bytes().all(plain) {
        return None;
    }
    HeaderValue::try_from(format!("\"{tag}\"")).ok()
}

/// Whether a client has what the tag stands for (RFC 9110, 13.1.2): compared weakly.
pub(crate) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(ours) = etag.to_str() else { return false };
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
        |value| value.trim() == "*" || value.split(',').any(|theirs| bare(theirs) == bare(ours)),
    )
}

/// The problem that an error of a fallible message is.
fn refused(entry: &Entry, error: Value) -> Problem {
    let variant = match &error {
        Value::String(name) => name.as_str(),
        Value::Object(only) if only.len() == 1 => only.keys().next().map_or("", String::as_str),
        _ => "",
    };
    let known = entry.errors.iter().find(|known| known.variant == variant);
    let is_enum = entry.errors.iter().any(|known| !known.variant.is_empty());
    let status = known.map_or(ERROR_STATUS, |known| known.status);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    // A text that is no variant may be any text.
    let variant = if known.is_some() || is_enum { variant.to_owned() } else { String::new() };
    let detail = match variant.is_empty() {
        true => "the service refused it".to_owned(),
        false => format!("the service refused it: {variant}"),
    };
    let mut problem = Problem::new(Kind::Refused(status), detail);
    clip(&mut problem.detail);
    let declared = Declared { message: entry.name.clone(), variant, error };
    problem.error = Some(Box::new(declared));
    problem
}

/// The problem that a failed ask is to the client of the gateway.
pub(crate) fn problem(error: &AskError) -> Problem {
    let (kind, detail) = match error {
        AskError::Busy { .. } => (Kind::Busy, error.to_string()),
        AskError::Overloaded { .. } => (Kind::Overloaded, error.to_string()),
        AskError::Unavailable => (Kind::Unavailable, error.to_string()),
        AskError::Stopped { .. } | AskError::Unreachable { .. } | AskError::NotHandled { .. } => {
            (Kind::Unavailable, "nobody who answers this message can be reached".to_owned())
        }
        AskError::Deadline => (
            Kind::Deadline,
            "no answer within the deadline; the request may have been carried out".to_owned(),
        ),
        AskError::NotNow { .. } => {
            (Kind::Conflict, "the service does not take this in its present state".to_owned())
        }
        AskError::Lost { .. } => (
            Kind::WorkerLost,
            "the worker was lost; the request may have been carried out".to_owned(),
        ),
        AskError::Panicked => (
            Kind::WorkerFailed,
            "the worker failed; the request may have been carried out in part".to_owned(),
        ),
        AskError::NoReply | AskError::BadReply { .. } => {
            (Kind::NoReply, "the request was carried out, but gave no usable reply".to_owned())
        }
        AskError::Malformed { reason } => (Kind::NotUnderstood, reason.clone()),
        AskError::Unsendable { .. } => {
            (Kind::TooLarge, "the message is larger than a message may be".to_owned())
        }
        _ => (Kind::Internal, "the request could not be handled".to_owned()),
    };
    let mut problem = Problem::new(kind, detail);
    clip(&mut problem.detail);
    problem.may_have_run = error.may_have_run();
    problem.cause = Some(error.to_string().into_boxed_str());
    problem.retry_after = error.retry_after();
    problem
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_cause_has_its_status() {
        let table = [
            (AskError::Unavailable, 503, Some(1)),
            (
                AskError::Busy {
                    mean: Duration::from_secs(2),
                    retry_after: Duration::from_millis(2_500),
                },
                503,
                Some(3),
            ),
            (
                AskError::Overloaded { pending: 9, retry_after: Duration::from_millis(1) },
                503,
                Some(1),
            ),
            (AskError::Deadline, 504, None),
            (AskError::Panicked, 502, None),
            (AskError::NoReply, 502, None),
            (AskError::BadReply { reason: "?".into() }, 502, None),
            (AskError::Malformed { reason: "missing field `x`".into() }, 400, None),
            (AskError::Unsendable { reason: "too large".into() }, 413, None),
        ];
        for (error, status, retry_after) in table {
            let told = problem(&error);
            assert_eq!(told.kind.status().as_u16(), status, "{error}");
            assert_eq!(told.may_have_run, error.may_have_run(), "{error}");
            let response = told.into_response(None);
            let header = response.headers().get("retry-after").map(|v| v.to_str().unwrap());
            assert_eq!(header, retry_after.map(|s: u64| s.to_string()).as_deref(), "{error}");
        }
    }

    #[test]
    fn a_tag_is_compared_weakly() {
        let etag = quoted("v1").unwrap();
        let known = |value: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
            is_known(&headers, &etag)
        };
        for yes in ["\"v1\"", "W/\"v1\"", "\"v0\", \"v1\"", "*"] {
            assert!(known(yes), "{yes}");
        }
        assert!(!known("\"v2\"") && !known("v1") && !is_known(&HeaderMap::new(), &etag));
        assert_eq!(quoted("a\"b"), None);
        assert_eq!(quoted("a b"), None);
    }
}
