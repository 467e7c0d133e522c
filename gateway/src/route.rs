//! Where a request goes, decided from its head alone.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};

use crate::{
    input::percent_decode,
    problem::{Kind, Problem, clip},
    table::{Entry, Table},
};

/// What the gateway's own paths allow.
const ALLOW_OWN: &str = "GET, HEAD, OPTIONS";
/// What a message allows.
const ALLOW_MESSAGE: &str = "GET, HEAD, POST, OPTIONS";

/// The header with which a client shortens the deadline, in seconds.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");

/// What to do.
pub(crate) enum Route<'t> {
    /// Say what there is.
    Index,
    /// Say that the process lives.
    Health,
    /// Say whether a request would be answered.
    Ready,
    /// Give the counts.
    Metrics,
    /// Say which methods there are.
    Options(&'static str),
    /// Ask with what the query says.
    Query(&'t Entry),
    /// Ask with what the body says.
    Body(&'t Entry, Form),
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    UrlEncoded,
    /// There is none: a message of defaults.
    Empty,
}

/// The limits that a head is held against.
pub(crate) struct Limits {
    /// Bytes of path and query.
    pub(crate) uri: usize,
    /// Bytes of body.
    pub(crate) body: usize,
}

/// The message that a path names, whatever becomes of the request.
pub(crate) fn entry<'t>(table: &'t Table, head: &Parts) -> Option<&'t Entry> {
    let name = head.uri.path().strip_prefix('/')?;
    if name.contains('%') { table.entry(&percent_decode(name, false)?) } else { table.entry(name) }
}

/// Decides, given the message that the path names. `no_body` says that the body is known to be empty.
pub(crate) fn route<'t>(
    entry: Option<&'t Entry>,
    head: &Parts,
    no_body: bool,
    limits: &Limits,
) -> Result<Route<'t>, Problem> {
    let length = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if length > limits.uri {
        let detail = format!("the address has {length} bytes, {} are the limit", limits.uri);
        return Err(Problem::new(Kind::UriTooLong, detail));
    }
    match head.uri.path() {
        "/" => own(head, Route::Index),
        "/healthz" => own(head, Route::Health),
        "/readyz" => own(head, Route::Ready),
        "/metrics" => own(head, Route::Metrics),
        "*" if head.method == Method::OPTIONS => Ok(Route::Options(ALLOW_MESSAGE)),
        path => match entry {
            Some(entry) => message(entry, head, no_body, limits),
            None => {
                let mut detail = format!("no message is called `{}`", path.trim_start_matches('/'));
                clip(&mut detail);
                detail.push_str("; `GET /` lists what there is");
                Err(Problem::new(Kind::UnknownMessage, detail))
            }
        },
    }
}

fn own<'t>(head: &Parts, route: Route<'t>) -> Result<Route<'t>, Problem> {
    match head.method {
        Method::GET | Method::HEAD => Ok(route),
        Method::OPTIONS => Ok(Route::Options(ALLOW_OWN)),
        _ => Err(not_allowed(&head.method, ALLOW_OWN)),
    }
}

fn message<'t>(
    entry: &'t Entry,
    head: &Parts,
    no_body: bool,
    limits: &Limits,
) -> Result<Route<'t>, Problem> {
    match head.method {
        Method::GET | Method::HEAD => Ok(Route::Query(entry)),
        Method::OPTIONS => Ok(Route::Options(ALLOW_MESSAGE)),
        Method::POST => {
            if head.uri.query().is_some_and(|query| !query.is_empty()) {
                let detail = "a POST takes its fields from the body, not from the query";
                return Err(Problem::new(Kind::InvalidParameter, detail));
            }
            let form = form(&head.headers, no_body)?;
            let length = head.headers.get(header::CONTENT_LENGTH).and_then(number);
            if length.is_some_and(|length| length > limits.body as u64) {
                return Err(too_large(limits.body));
            }
            Ok(Route::Body(entry, form))
        }
        _ => Err(not_allowed(&head.method, ALLOW_MESSAGE)),
    }
}

fn form(headers: &HeaderMap, no_body: bool) -> Result<Form, Problem> {
    let refuse = |detail: String| Err(Problem::new(Kind::UnsupportedMediaType, detail));
    if let Some(coding) = headers.get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refuse("a compressed body is not read here".to_owned());
    }
    let Some(full) = headers.get(header::CONTENT_TYPE) else {
        return match no_body {
            true => Ok(Form::Empty),
            false => refuse("the body has no Content-Type; send `application/json`".to_owned()),
        };
    };
    let full = String::from_utf8_lossy(full.as_bytes());
    let essence = full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(Form::Json)
    } else if essence == "application/x-www-form-urlencoded" {
        Ok(Form::UrlEncoded)
    } else {
        let mut detail = format!("a body of type `{essence}` is not read here");
        clip(&mut detail);
        refuse(detail + "; send `application/json`")
    }
}

/// The problem of a body above the limit.
pub(crate) fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("the body has more than {limit} bytes"))
}

fn not_allowed(method: &Method, allow: &'static str) -> Problem {
    let mut detail = format!("`{method}` means nothing here");
    clip(&mut detail);
    Problem::new(Kind::MethodNotAllowed { allow }, detail)
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// How long the request may take: what the client asks for, `most` at most.
pub(crate) fn time_allowed(headers: &HeaderMap, most: Duration) -> Result<Duration, Problem> {
    let Some(value) = headers.get(REQUEST_TIMEOUT) else { return Ok(most) };
    match value.to_str().ok().and_then(seconds) {
        Some(asked) => Ok(asked.min(most)),
        None => Err(Problem::new(
            Kind::InvalidHeader,
            "`Request-Timeout` is not a positive number of seconds such as `2` or `0.25`",
        )),
    }
}

/// Decimal seconds, more than zero. Not every form that a float may have: no sign, no exponent.
fn seconds(text: &str) -> Option<Duration> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let span = Duration::try_from_secs_f64(text.parse().ok()?).unwrap_or(Duration::MAX);
    (!span.is_zero()).then_some(span)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use layercake_node::Api;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    #[test]
    fn the_content_type_says_how_a_body_is_written() {
        let table = [
            (Some("application/json"), false, Ok(Form::Json)),
            (Some("Application/JSON; charset=utf-8"), false, Ok(Form::Json)),
            (Some("application/vnd.xy+json"), false, Ok(Form::Json)),
            (Some("application/x-www-form-urlencoded"), false, Ok(Form::UrlEncoded)),
            (None, true, Ok(Form::Empty)),
            (None, false, Err(Kind::UnsupportedMediaType)),
            (Some("text/plain"), false, Err(Kind::UnsupportedMediaType)),
            (Some("image/x+json"), false, Err(Kind::UnsupportedMediaType)),
            (Some(""), true, Err(Kind::UnsupportedMediaType)),
        ];
        for (content_type, no_body, expect) in table {
            let pairs: Vec<_> = content_type.map(|t| ("content-type", t)).into_iter().collect();
            let found = form(&headers(&pairs), no_body).map_err(|p| p.kind);
            assert_eq!(found, expect, "{content_type:?}");
        }
        let zipped = headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert!(form(&zipped, false).is_err());
    }

    #[test]
    fn a_client_lowers_the_deadline_and_cannot_raise_it() {
        let most = Duration::from_secs(30);
        let ask = |text: &str| time_allowed(&headers(&[("request-timeout", text)]), most);
        assert_eq!(ask("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(ask("2"), Ok(Duration::from_secs(2)));
        assert_eq!(ask("99999999999999999999"), Ok(most));
        assert_eq!(time_allowed(&HeaderMap::new(), most), Ok(most));
        for wrong in ["", "0", "-1", "nan", "inf", "1e3", ".", "1.2.3", "1s"] {
            assert_eq!(ask(wrong).map_err(|p| p.kind), Err(Kind::InvalidHeader), "{wrong:?}");
        }
    }

    #[test]
    fn the_gateways_own_paths_allow_reading_only() {
        let table = Table::new(Api::default());
        let limits = Limits { uri: 64, body: 64 };
        let go = |method: &str, path: &str| {
            let (head, ()) =
                Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
            route(entry(&table, &head), &head, true, &limits)
                .map(|_| ())
                .map_err(|p| p.kind.status().as_u16())
        };
        assert_eq!(go("GET", "/healthz"), Ok(()));
        assert_eq!(go("HEAD", "/readyz"), Ok(()));
        assert_eq!(go("OPTIONS", "*"), Ok(()));
        assert_eq!(go("POST", "/metrics"), Err(405));
        assert_eq!(go("GET", "/healthz/"), Err(404));
        assert_eq!(go("GET", "/%68ealthz"), Err(404));
        assert_eq!(go("GET", &format!("/{}", "x".repeat(64))), Err(414));
    }
}
