//! Problem documents (RFC 9457): what each kind of failure is called, and its status.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use crate::reply::{Answer, AnswerBody};

/// The media type of a problem document.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// How many errors one document lists. Further ones are counted in its detail.
pub(crate) const MAX_ERRORS: usize = 32;
/// How many characters of a text that comes from the client or a worker are repeated.
pub(crate) const MAX_TEXT: usize = 256;

/// When to try again, where the cause says nothing about it.
const RETRY: Duration = Duration::from_secs(1);

/// What a POST may carry, said in `Accept-Post` beside a 415.
const ACCEPT_POST: &str = "application/json, application/x-www-form-urlencoded";

/// A kind of failure; each is one `type` of problem document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The query or form cannot be read or does not fit the schema.
    InvalidParameter,
    /// The body cannot be read.
    InvalidBody,
    /// The body was read and does not fit the schema.
    InvalidContent,
    /// A header has a value that means nothing.
    InvalidHeader,
    /// The worker's decoder refused what the schema let through.
    NotUnderstood,
    /// No message has this name.
    UnknownMessage,
    /// The mesh page is shown to who has its key.
    KeyNeeded,
    /// The mesh page is not shown to who comes this way.
    Foreign,
    /// A page of another site may not ask this.
    CrossOrigin,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The service does not take the message in its present state.
    Conflict,
    /// The service answered with an error that it declares, and this status.
    Refused(StatusCode),
    /// The body did not come in time.
    SlowBody,
    /// The body, or the message made of it, is too large.
    TooLarge,
    /// The path with its query is too long.
    UriTooLong,
    /// There are too many headers.
    TooManyHeaders,
    /// The body is of a type that is not read here.
    UnsupportedMediaType,
    /// The client sends more than it may.
    TooManyRequests,
    /// A fault of this program.
    Internal,
    /// The worker went away with the request in its hands.
    WorkerLost,
    /// The worker panicked over the request.
    WorkerFailed,
    /// The worker got the request, and no usable reply came back.
    NoReply,
    /// The pool answers too slowly.
    Busy,
    /// The queue of the pool is full.
    Overloaded,
    /// Nobody is there to answer.
    Unavailable,
    /// The gateway is about to stop.
    Draining,
    /// The deadline passed.
    Deadline,
}

impl Kind {
    /// Every kind, a declared error with the status that it has unless it says another.
    pub(crate) const ALL: [Self; 25] = [
        Self::InvalidParameter,
        Self::InvalidBody,
        Self::InvalidHeader,
        Self::NotUnderstood,
        Self::CrossOrigin,
        Self::UnknownMessage,
        Self::MethodNotAllowed,
        Self::SlowBody,
        Self::Conflict,
        Self::TooLarge,
        Self::UriTooLong,
        Self::TooManyHeaders,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::InvalidContent,
        Self::Refused(StatusCode::UNPROCESSABLE_ENTITY),
        Self::Internal,
        Self::WorkerLost,
        Self::WorkerFailed,
        Self::NoReply,
        Self::Busy,
        Self::Overloaded,
        Self::Unavailable,
        Self::Draining,
        Self::Deadline,
    ];

    /// The status, the last part of `type`, and the title.
    const fn facts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidParameter => (S::BAD_REQUEST, "invalid-parameter", "Invalid parameter"),
            Self::InvalidBody => (S::BAD_REQUEST, "invalid-body", "Invalid body"),
            Self::InvalidContent => {
                (S::UNPROCESSABLE_ENTITY, "invalid-content", "Body does not fit its schema")
            }
            Self::InvalidHeader => (S::BAD_REQUEST, "invalid-header", "Invalid header"),
            Self::NotUnderstood => (S::BAD_REQUEST, "not-understood", "Message not understood"),
            Self::UnknownMessage => (S::NOT_FOUND, "unknown-message", "Unknown message"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            Self::KeyNeeded => (S::UNAUTHORIZED, "key-needed", "Key needed"),
            Self::Foreign => (S::FORBIDDEN, "foreign", "Not shown to others"),
            Self::CrossOrigin => (S::FORBIDDEN, "cross-origin", "Not for pages of other sites"),
            Self::SlowBody => (S::REQUEST_TIMEOUT, "slow-body", "Body came too slowly"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::UriTooLong => (S::URI_TOO_LONG, "uri-too-long", "Address too long"),
            Self::TooManyHeaders => {
                (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-headers", "Too many headers")
            }
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Self::TooManyRequests => {
                (S::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests")
            }
            Self::Conflict => (S::CONFLICT, "conflict", "Not in the present state"),
            Self::Refused(status) => (status, "refused", "Refused by the service"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::WorkerLost => (S::BAD_GATEWAY, "worker-lost", "Worker lost"),
            Self::WorkerFailed => (S::BAD_GATEWAY, "worker-failed", "Worker failed"),
            Self::NoReply => (S::BAD_GATEWAY, "no-reply", "No usable reply"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy", "Busy"),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::Draining => (S::SERVICE_UNAVAILABLE, "draining", "About to stop"),
            Self::Deadline => (S::GATEWAY_TIMEOUT, "deadline", "Deadline passed"),
        }
    }

    /// What it is called.
    pub(crate) const fn title(self) -> &'static str {
        self.facts().2
    }

    /// The HTTP status.
    pub(crate) const fn status(self) -> StatusCode {
        self.facts().0
    }

    /// The last part of its `type`.
    pub(crate) const fn slug(self) -> &'static str {
        self.facts().1
    }

    /// Whether it says no more than "later, please", which is business as usual under load.
    pub(crate) const fn is_push_back(self) -> bool {
        matches!(self, Self::Busy | Self::Overloaded | Self::Unavailable | Self::Draining)
    }
}

/// One thing wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InputError {
    /// Which part of the request: `path`, `query`, `header` or `body`.
    pub(crate) r#in: &'static str,
    /// A JSON pointer (RFC 6901) into the body, or into the message where it came otherwise.
    pub(crate) pointer: String,
    /// The name of the parameter, or of the member of the body.
    pub(crate) parameter: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

/// A failure to be told to the client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// One sentence for whoever sent the request. It names no address inside the mesh.
    pub(crate) detail: String,
    pub(crate) errors: Vec<InputError>,
    /// When to try again; told with a 503 or a 429 only.
    pub(crate) retry_after: Option<Duration>,
    /// Whether a worker may have seen the message.
    pub(crate) may_have_run: bool,
    /// What the log says in place of `detail`, where that is more than the client is told.
    pub(crate) cause: Option<Box<str>>,
    /// The methods that would do, in place of the one that does not.
    pub(crate) allow: Option<String>,
    /// Of a declared error: which message and variant, for `type`, and the error itself.
    pub(crate) error: Option<Box<Declared>>,
}

/// An error that a service declares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) message: Arc<str>,
    /// Empty for an error that is no enum.
    pub(crate) variant: String,
    pub(crate) error: Value,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            may_have_run: false,
            cause: None,
            allow: None,
            error: None,
        }
    }

    /// Input that is wrong in the ways listed.
    pub(crate) fn input(kind: Kind, mut errors: Vec<InputError>) -> Self {
        let more = errors.len().saturating_sub(MAX_ERRORS);
        errors.truncate(MAX_ERRORS);
        for error in &mut errors {
            for text in [&mut error.pointer, &mut error.parameter, &mut error.detail] {
                clip(text);
            }
        }
        let mut detail = match errors.first() {
            Some(e) if e.parameter.is_empty() => format!("the message: {}", e.detail),
            Some(e) => format!("`{}`: {}", e.parameter, e.detail),
            None => "the input does not fit the schema of the message".to_owned(),
        };
        if more > 0 {
            detail.push_str(&format!(" (and {more} errors more than are listed)"));
        }
        Self { errors, ..Self::new(kind, detail) }
    }

    /// Its status and its document, with a name of this occurrence if it has one.
    pub(crate) fn document(self, instance: Option<String>) -> (StatusCode, Vec<u8>) {
        #[derive(Serialize)]
        struct Document {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            instance: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            errors: Vec<InputError>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            may_have_run: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<Value>,
        }
        let (status, slug, title) = self.kind.facts();
        let (r#type, error) = match self.error {
            Some(told) if told.variant.is_empty() => {
                (format!("/problems/{slug}/{}", told.message), Some(told.error))
            }
            Some(told) => {
                let Declared { message, variant, error } = *told;
                (format!("/problems/{slug}/{message}/{variant}"), Some(error))
            }
            None => (format!("/problems/{slug}"), None),
        };
        let document = Document {
            r#type,
            title,
            status: status.as_u16(),
            detail: self.detail,
            instance,
            errors: self.errors,
            may_have_run: self.may_have_run,
            error,
        };
        // Strings and numbers only: this cannot fail, and an empty document would still say enough.
        (status, serde_json::to_vec(&document).unwrap_or_default())
    }

    /// The response, with a name of this occurrence if it has one.
    pub(crate) fn into_response(mut self, instance: Option<String>) -> Answer {
        let (kind, retry_after, allow) = (self.kind, self.retry_after, self.allow.take());
        let (status, bytes) = self.document(instance);
        let mut response = Response::new(AnswerBody::whole(bytes));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let delay = retry_after.unwrap_or(RETRY);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
        }
        match kind {
            Kind::MethodNotAllowed => {
                let allow = allow.and_then(|allow| HeaderValue::try_from(allow).ok());
                headers.extend(allow.map(|allow| (header::ALLOW, allow)));
            }
            Kind::KeyNeeded => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Kind::UnsupportedMediaType => {
                headers.insert("accept-post", HeaderValue::from_static(ACCEPT_POST));
            }
            // Part of the body may still be on its way: nothing else can follow on this connection.
            Kind::SlowBody => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// `Retry-After` knows whole seconds only: rounded up, at least one.
pub(crate) fn whole_seconds(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}

/// Cuts a text from outside to [`MAX_TEXT`] characters.
pub(crate) fn clip(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
}

/// A name for one occurrence, to be found again in the log: a random UUID (RFC 9562, version 4).
pub(crate) fn new_instance() -> String {
    let random = rand::random::<u128>();
    let id = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{id:032x}");
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_whole_number_of_seconds_rounded_up() {
        for (delay, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)] {
            assert_eq!(whole_seconds(Duration::from_millis(delay)), seconds, "{delay} ms");
        }
    }

    #[test]
    fn an_instance_is_a_random_uuid() {
        let (one, two) = (new_instance(), new_instance());
        assert_ne!(one, two);
        assert_eq!(one.len(), "urn:uuid:".len() + 36);
        assert_eq!(&one[23..24], "4", "version in {one}");
        assert!("89ab".contains(&one[28..29]), "variant in {one}");
    }

    #[test]
    fn a_long_list_of_long_errors_makes_a_short_document() {
        let error = InputError {
            r#in: "body",
            pointer: "/ü".repeat(5_000),
            parameter: "ü".repeat(5_000),
            detail: "x".repeat(5_000),
        };
        let problem = Problem::input(Kind::InvalidBody, vec![error; 1_000]);
        assert_eq!(problem.errors.len(), MAX_ERRORS);
        assert_eq!(problem.errors[0].parameter.chars().count(), MAX_TEXT + 1);
        assert!(problem.detail.contains("968 errors more"), "{}", problem.detail);
    }
}
