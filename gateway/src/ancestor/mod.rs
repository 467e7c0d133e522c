//! Answers as the ancestor of this program gave them, so that programs written for it keep working.
//!
//! Its client reads less than HTTP: a reason of at most [`MAX_REASON`] characters, header names in
//! exactly its own case, no chunks, a body of exactly `application/json` in the ancestor's envelope
//! ([`value`]), with the status passed over. What it sends is in [`request`]. Where the ancestor
//! crashed, or left its client without an answer, this one says 400.

mod request;
mod serve;
mod shape;
mod value;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::ext::ReasonPhrase;
use layercake_node::{AskError, MessageApi};
use layercake_wire::payload::{Encoding, Payload};
use serde_json::{Value, json};

pub(crate) use self::serve::{Request, concerns, entry, handle};
use crate::{
    problem::{Problem, whole_seconds},
    reply::{Answer, ok},
};

/// The one media type that the ancestor's client takes, to the letter.
const JSON: &str = "application/json";
/// The longest reason phrase that the ancestor's client reads, in characters.
const MAX_REASON: usize = 16;

/// Under which name the ancestor's library was published, which names its faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    LayerCake,
    Kipjak,
}

impl Library {
    /// The library of a client, by what it says of itself.
    fn of(headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
        if agent.starts_with(b"kipjak") { Self::Kipjak } else { Self::LayerCake }
    }

    const fn module(self) -> &'static str {
        match self {
            Self::LayerCake => "layer_cake",
            Self::Kipjak => "kipjak",
        }
    }

    const fn server(self) -> &'static str {
        match self {
            Self::LayerCake => "Layer-Cake-API-server/1.0",
            Self::Kipjak => "kipjak-API-server/1.0",
        }
    }
}

/// A request that cannot be made a message of: the ancestor's text, of the type that it gives it.
fn refused(library: Library, status: StatusCode, target: &str, why: &str) -> Answer {
    let target: String = target.chars().take(8_000).collect();
    let text = format!("cannot recover request \"{target}\" ({why})");
    answer(library, status, "plain/text", text)
}

/// A message that the ancestor would have passed on, and the schema refuses: a fault, since its client
/// waits for ever where the answer is a text.
fn misfit(library: Library, detail: &str) -> Answer {
    let code = StatusCode::BAD_REQUEST;
    let fault = fault(library, "Faulted", "request refused", Some(detail), Some(code));
    answer(library, code, JSON, fault)
}

/// The reply, by its schema. The error of a fallible one is a fault with the status that it declares.
fn replied(library: Library, api: &MessageApi, reply: Payload) -> Result<Answer, AskError> {
    if reply.encoding != Encoding::Json {
        return Err(AskError::BadReply { reason: format!("it came as {:?}", reply.encoding) });
    }
    let mut reply: Value = serde_json::from_slice(&reply.bytes)
        .map_err(|error| AskError::BadReply { reason: error.to_string() })?;
    if api.is_fallible() {
        if let Some(error) = reply.get("Err") {
            return Ok(declared(library, api, error));
        }
        reply = reply.get_mut("Ok").map(Value::take).unwrap_or_default();
    }
    let envelope = value::envelope(&api.reply_schema, api.reply(), &reply);
    Ok(answer(library, StatusCode::OK, JSON, envelope))
}

/// An error that a service declares.
fn declared(library: Library, api: &MessageApi, error: &Value) -> Answer {
    let variant = match error {
        Value::String(variant) => variant,
        Value::Object(one) => one.keys().next().map_or("", String::as_str),
        _ => "",
    };
    let errors = api.http_errors();
    let known = errors.iter().find(|known| known.variant == variant).or(errors.first());
    let code = known.and_then(|known| StatusCode::from_u16(known.status).ok());
    let condition = if variant.is_empty() { "refused" } else { variant };
    let fault = fault(library, "Faulted", condition, Some(&error.to_string()), code);
    answer(library, code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), JSON, fault)
}

/// A request that the gateway itself does not let in now: to its program, a pool that is busy.
fn turned_away(library: Library, problem: &Problem) -> Answer {
    let fault = fault(library, "Busy", &problem.detail, None, None);
    let answer = answer(library, StatusCode::INTERNAL_SERVER_ERROR, JSON, fault);
    with_delay(answer, problem.retry_after)
}

/// The ancestor says nothing of when to come again, and its client passes over what it does not know.
fn with_delay(mut answer: Answer, delay: Option<Duration>) -> Answer {
    if let Some(delay) = delay {
        let seconds = HeaderValue::from(whole_seconds(delay));
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

/// The fault that a failed ask is to an ancestor's program.
fn failed(library: Library, error: &AskError) -> Answer {
    let module = library.module();
    let mut status = StatusCode::INTERNAL_SERVER_ERROR;
    let body = match error {
        AskError::Busy { mean, .. } => {
            let mean = mean.as_secs_f64();
            let condition = format!("message rejected by spool (average response time {mean:.2})");
            fault(library, "Busy", &condition, None, None)
        }
        AskError::Overloaded { pending, .. } => {
            let condition = format!("message rejected by spool (overloaded, {pending} pending)");
            fault(library, "Overloaded", &condition, None, None)
        }
        AskError::Deadline => enveloped(
            library,
            "TimedOut",
            &json!({
                "timer": [format!("{module}.virtual_point.T1"), {}, []],
                "condition": "timed out",
                "explanation": "\"T1\" exceeded",
                "error_code": null,
                "exit_status": null,
            }),
        ),
        AskError::Unavailable
        | AskError::Stopped { .. }
        | AskError::Unreachable { .. }
        | AskError::NotHandled { .. } => enveloped(
            library,
            "TemporarilyUnavailable",
            &json!({
                "condition": "Service temporarily unavailable \
                              (no worker and no immediate prospects of one)",
                "explanation": null,
                "error_code": null,
                "exit_status": null,
                "unavailable": [],
            }),
        ),
        AskError::Lost { .. } => {
            fault(library, "Aborted", "aborted", Some("user or software interrupt"), None)
        }
        AskError::Malformed { reason } => {
            status = StatusCode::BAD_REQUEST;
            fault(library, "Faulted", "request refused", Some(reason), Some(status))
        }
        _ => {
            // The client is told no address inside the mesh.
            let why = crate::answer::problem(error).detail;
            fault(library, "Faulted", "no usable reply", Some(&why), None)
        }
    };
    with_delay(answer(library, status, JSON, body), error.retry_after())
}

fn fault(
    library: Library,
    name: &str,
    condition: &str,
    explanation: Option<&str>,
    code: Option<StatusCode>,
) -> String {
    let fault = json!({
        "condition": condition,
        "explanation": explanation,
        "error_code": code.map(|code| code.as_u16()),
        "exit_status": null,
    });
    enveloped(library, name, &fault)
}

fn enveloped(library: Library, name: &str, fault: &Value) -> String {
    let name = format!("{}.point_runtime.{name}", library.module());
    json!({ "value": [name, fault, []] }).to_string()
}

fn answer(
    library: Library,
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> Answer {
    let mut answer = ok(content_type, Bytes::from(body));
    *answer.status_mut() = status;
    let server = HeaderValue::from_static(library.server());
    answer.headers_mut().insert(header::SERVER, server);
    answer
}

/// Gives an answer a reason that the ancestor's client can read. Every answer where ancestors are
/// served needs it, for theirs is the port.
pub(crate) fn readable(answer: &mut Answer) {
    let reason = match answer.status() {
        StatusCode::INTERNAL_SERVER_ERROR => "Server Error",
        // That of a fault; a text has the usual one.
        StatusCode::BAD_REQUEST if is_json(answer) => "Client Error",
        StatusCode::SERVICE_UNAVAILABLE => "Unavailable",
        StatusCode::PAYLOAD_TOO_LARGE => "Too Large",
        StatusCode::METHOD_NOT_ALLOWED => "Not Allowed",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "Unsupported",
        StatusCode::TOO_MANY_REQUESTS => "Too Many",
        status => match status.canonical_reason() {
            Some(reason) if reason.len() <= MAX_REASON => return,
            _ if status.is_server_error() => "Server Error",
            _ => "Client Error",
        },
    };
    answer.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
}

fn is_json(answer: &Answer) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|ty| ty == JSON)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, OnceLock},
        time::Duration,
    };

    use http_body_util::BodyExt;
    use layercake_node::{Message, schema};
    use layercake_wire::payload::Tag;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    async fn told(answer: Answer) -> (u16, String) {
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn faults_are_the_ancestors_to_the_byte() {
        let retry_after = Duration::from_secs(2);
        let table = [
            (
                AskError::Busy { mean: Duration::from_millis(800), retry_after },
                r#"{"value":["layer_cake.point_runtime.Busy",{"condition":"message rejected by spool (average response time 0.80)","explanation":null,"error_code":null,"exit_status":null},[]]}"#,
            ),
            (
                AskError::Overloaded { pending: 1, retry_after },
                r#"{"value":["layer_cake.point_runtime.Overloaded",{"condition":"message rejected by spool (overloaded, 1 pending)","explanation":null,"error_code":null,"exit_status":null},[]]}"#,
            ),
            (
                AskError::Deadline,
                r#"{"value":["layer_cake.point_runtime.TimedOut",{"timer":["layer_cake.virtual_point.T1",{},[]],"condition":"timed out","explanation":"\"T1\" exceeded","error_code":null,"exit_status":null},[]]}"#,
            ),
            (
                AskError::Unavailable,
                r#"{"value":["layer_cake.point_runtime.TemporarilyUnavailable",{"condition":"Service temporarily unavailable (no worker and no immediate prospects of one)","explanation":null,"error_code":null,"exit_status":null,"unavailable":[]},[]]}"#,
            ),
        ];
        for (error, expected) in table {
            let (status, body) = told(failed(Library::LayerCake, &error)).await;
            assert_eq!((status, body.as_str()), (500, expected), "{error}");
            let (_, body) = told(failed(Library::Kipjak, &error)).await;
            assert_eq!(body, expected.replace("layer_cake", "kipjak"), "{error}");
        }
        let (status, body) = told(misfit(Library::LayerCake, "`x`: too large")).await;
        assert_eq!(status, 400);
        assert_eq!(
            body,
            r#"{"value":["layer_cake.point_runtime.Faulted",{"condition":"request refused","explanation":"`x`: too large","error_code":400,"exit_status":null},[]]}"#
        );
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    enum Refusal {
        Gone,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Ask {}

    impl Message for Ask {
        type Reply = Result<u32, Refusal>;
        const NAME: &'static str = "Ask";

        fn describe() -> &'static Arc<MessageApi> {
            static API: OnceLock<Arc<MessageApi>> = OnceLock::new();
            API.get_or_init(|| Arc::new(schema::describe::<Self>()))
        }
    }

    #[tokio::test]
    async fn a_reply_is_a_value_a_fault_or_unusable() {
        let reply = |encoding, bytes: &'static [u8]| {
            let payload =
                Payload { tag: Tag::of("Ask"), encoding, bytes: Bytes::from_static(bytes) };
            replied(Library::LayerCake, Ask::describe(), payload)
        };
        let answer = reply(Encoding::Json, br#"{"Ok":7}"#).unwrap();
        assert_eq!(told(answer).await, (200, r#"{"value":["integer8",7,[]]}"#.to_owned()));
        let (status, body) = told(reply(Encoding::Json, br#"{"Err":"Gone"}"#).unwrap()).await;
        let fault = r#"{"value":["layer_cake.point_runtime.Faulted",{"condition":"Gone","explanation":"\"Gone\"","error_code":422,"exit_status":null},[]]}"#;
        assert_eq!((status, body.as_str()), (422, fault));
        assert!(reply(Encoding::Json, b"{").is_err());
        assert!(reply(Encoding::Bincode, b"7").is_err());
    }

    #[test]
    fn no_reason_is_longer_than_the_client_reads() {
        for code in 200..600 {
            let mut answer = ok("text/plain", Bytes::new());
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            readable(&mut answer);
            let own = answer.extensions().get::<ReasonPhrase>().map(|r| r.as_bytes().len());
            let canonical = answer.status().canonical_reason().map_or(usize::MAX, str::len);
            assert!(own.unwrap_or(canonical) <= MAX_REASON, "{code}");
        }
    }

    #[test]
    fn a_client_says_which_library_it_is_written_with() {
        let of = |agent| {
            let headers = [(header::USER_AGENT, HeaderValue::from_static(agent))];
            Library::of(&headers.into_iter().collect())
        };
        assert_eq!(of("kipjak-API-client/1.0"), Library::Kipjak);
        assert_eq!(of("Layer-Cake-API-client/1.0"), Library::LayerCake);
        assert_eq!(Library::of(&HeaderMap::new()), Library::LayerCake);
    }
}
