//! Where a request goes, decided from its head alone.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use layercake_node::http::HttpBody;

use crate::{
    problem::{Kind, Problem, clip},
    router::Found,
    table::Endpoint,
};

/// What the gateway's own paths allow.
const ALLOW_OWN: &str = "GET, HEAD, OPTIONS";

/// The header with which a client chooses the deadline, in seconds.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");
/// The other one: `Prefer: wait=SECONDS` (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a body of no media type is.
const UNTYPED: &str = "application/octet-stream";

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
    /// Give the OpenAPI document.
    Description,
    /// Show it as a page.
    Docs,
    /// Say which methods there are.
    Options(String),
    /// Ask; `values` are the segments in the place of the template's braces.
    Call { endpoint: &'t Arc<Endpoint>, values: Vec<String>, form: Form },
}

/// How a body is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    UrlEncoded,
    /// There is none, or it does not matter.
    Empty,
    /// Bytes of that media type, taken as a whole.
    Blob(String),
    /// Bytes of that media type, passed on as they come.
    Upload(String),
}

/// Refuses a request with more headers than that, cookies not counted: HTTP/2 sends each by itself.
pub(crate) fn count_headers(headers: &HeaderMap, most: usize) -> Result<(), Problem> {
    if headers.len() <= most {
        return Ok(());
    }
    let count = headers.len() - headers.get_all(header::COOKIE).iter().count();
    if count <= most {
        return Ok(());
    }
    let detail = format!("the request has {count} headers beside cookies, {most} are the limit");
    Err(Problem::new(Kind::TooManyHeaders, detail))
}

/// The limits that a head is held against.
pub(crate) struct Limits {
    /// Bytes of path and query.
    pub(crate) uri: usize,
    /// Bytes of a body that is JSON or a form.
    pub(crate) body: usize,
    /// Bytes of a body that is taken as it is.
    pub(crate) blob: usize,
    /// Bytes of a body that is passed on as it comes.
    pub(crate) upload: u64,
}

/// Decides, given what stands at the path. `no_body` says that the body is known to be empty.
pub(crate) fn route<'t>(
    found: Found<'t, Arc<Endpoint>>,
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
        "/" => return own(head, Route::Index),
        "/healthz" => return own(head, Route::Health),
        "/readyz" => return own(head, Route::Ready),
        "/metrics" => return own(head, Route::Metrics),
        "/openapi.json" => return own(head, Route::Description),
        "/docs" => return own(head, Route::Docs),
        "*" if head.method == Method::OPTIONS => {
            return Ok(Route::Options("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned()));
        }
        _ => {}
    }
    match found {
        Found::Hit(endpoint, values) => {
            let form = match endpoint.route.body {
                HttpBody::None => Form::Empty,
                _ => form(endpoint, &head.headers, no_body)?,
            };
            let limit = match form {
                Form::Blob(_) => limits.blob as u64,
                Form::Upload(_) => limits.upload,
                Form::Json | Form::UrlEncoded => limits.body as u64,
                Form::Empty => u64::MAX,
            };
            let length = head.headers.get(header::CONTENT_LENGTH).and_then(number);
            if length.is_some_and(|length| length > limit) {
                return Err(too_large(limit));
            }
            Ok(Route::Call { endpoint, values, form })
        }
        Found::Other(_, methods) => {
            let allow = allow(&methods);
            if head.method == Method::OPTIONS {
                return Ok(Route::Options(allow));
            }
            Err(not_allowed(&head.method, allow))
        }
        Found::Missing => {
            let path = head.uri.path();
            let mut detail = format!("no message is called `{}`", path.trim_start_matches('/'));
            clip(&mut detail);
            detail.push_str("; `GET /` lists what there is");
            Err(Problem::new(Kind::UnknownMessage, detail))
        }
    }
}

/// `Allow`: what stands there, and what goes without saying.
fn allow(methods: &[&Method]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for method in methods.iter().map(|method| method.as_str()) {
        let implied = if method == "GET" { Some("HEAD") } else { None };
        for method in [method].into_iter().chain(implied) {
            if !all.contains(&method) {
                all.push(method);
            }
        }
    }
    all.push("OPTIONS");
    all.join(", ")
}

fn own<'t>(head: &Parts, route: Route<'t>) -> Result<Route<'t>, Problem> {
    match head.method {
        Method::GET | Method::HEAD => Ok(route),
        Method::OPTIONS => Ok(Route::Options(ALLOW_OWN.to_owned())),
        _ => Err(not_allowed(&head.method, ALLOW_OWN.to_owned())),
    }
}

fn form(endpoint: &Endpoint, headers: &HeaderMap, no_body: bool) -> Result<Form, Problem> {
    let refuse = |detail: String| Err(Problem::new(Kind::UnsupportedMediaType, detail));
    let full = headers.get(header::CONTENT_TYPE);
    let full = full.map(|full| String::from_utf8_lossy(full.as_bytes()));
    let essence = full.as_deref().unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let raw = match &endpoint.route.body {
        HttpBody::None => return Ok(Form::Empty),
        HttpBody::Blob(_) => Some(Form::Blob as fn(String) -> Form),
        HttpBody::Upload(_) => Some(Form::Upload as fn(String) -> Form),
        HttpBody::Members(_) | HttpBody::Json(_) => None,
    };
    if let Some(raw) = raw {
        let consumes = &endpoint.entry.api.http.consumes;
        let media = if essence.is_empty() { UNTYPED.to_owned() } else { essence };
        if consumes.is_empty() || consumes.iter().any(|range| fits(range, &media)) {
            return Ok(raw(full.map_or(media, std::borrow::Cow::into_owned)));
        }
        let mut detail = format!("a body of type `{media}` is not read here");
        clip(&mut detail);
        return refuse(format!("{detail}; send `{}`", consumes.join("`, `")));
    }
    if full.is_none() {
        return match no_body {
            true => Ok(Form::Empty),
            false => refuse("the body has no Content-Type; send `application/json`".to_owned()),
        };
    }
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let takes_forms = matches!(endpoint.route.body, HttpBody::Members(_));
    if is_json {
        Ok(Form::Json)
    } else if takes_forms && essence == "application/x-www-form-urlencoded" {
        Ok(Form::UrlEncoded)
    } else {
        let mut detail = format!("a body of type `{essence}` is not read here");
        clip(&mut detail);
        refuse(detail + "; send `application/json`")
    }
}

/// Whether a media type is of a range, `image/*` say.
fn fits(range: &str, media: &str) -> bool {
    match range.strip_suffix('*') {
        Some("*/") => true,
        Some(kind) => media.starts_with(kind),
        None => range == media,
    }
}

/// The problem of a body above the limit.
pub(crate) fn too_large(limit: u64) -> Problem {
    Problem::new(Kind::TooLarge, format!("the body has more than {limit} bytes"))
}

fn not_allowed(method: &Method, allow: String) -> Problem {
    let mut detail = format!("`{method}` means nothing here");
    clip(&mut detail);
    Problem { allow: Some(allow), ..Problem::new(Kind::MethodNotAllowed, detail) }
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// How long the request may take: what the client asks for, `most` at most; `usual` where it does not.
pub(crate) fn time_allowed(
    headers: &HeaderMap,
    usual: Duration,
    most: Duration,
) -> Result<Duration, Problem> {
    if let Some(value) = headers.get(REQUEST_TIMEOUT) {
        return match value.to_str().ok().and_then(seconds) {
            Some(asked) => Ok(asked.min(most)),
            None => Err(Problem::new(
                Kind::InvalidHeader,
                "`Request-Timeout` is not a positive number of seconds such as `2` or `0.25`",
            )),
        };
    }
    // A preference that means nothing is passed over (RFC 7240, 2).
    let preferred = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let wait = preferred.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("wait") { seconds(value) } else { None }
    });
    Ok(wait.unwrap_or(usual).min(most))
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

    use super::*;
    use crate::table::Table;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    #[test]
    fn a_media_type_is_of_a_range() {
        assert!(fits("image/png", "image/png") && fits("image/*", "image/png"));
        assert!(fits("*/*", "text/plain"));
        assert!(!fits("image/*", "imagery/png") && !fits("image/png", "image/jpeg"));
    }

    #[test]
    fn a_client_chooses_the_deadline_and_cannot_exceed_the_most() {
        let (usual, most) = (Duration::from_secs(2), Duration::from_secs(30));
        let with = |name, text: &str| time_allowed(&headers(&[(name, text)]), usual, most);
        let ask = |text: &str| with("request-timeout", text);
        assert_eq!(ask("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(ask("20"), Ok(Duration::from_secs(20)), "also more than usual");
        assert_eq!(ask("99999999999999999999"), Ok(most));
        assert_eq!(time_allowed(&HeaderMap::new(), usual, most), Ok(usual));
        assert_eq!(time_allowed(&HeaderMap::new(), most * 2, most), Ok(most));
        for wrong in ["", "0", "-1", "nan", "inf", "1e3", ".", "1.2.3", "1s"] {
            assert_eq!(ask(wrong).map_err(|p| p.kind), Err(Kind::InvalidHeader), "{wrong:?}");
        }
        let prefer = |text: &str| with("prefer", text);
        assert_eq!(prefer("respond-async, wait=10"), Ok(Duration::from_secs(10)));
        assert_eq!(prefer("Wait=\"1\"; x=y"), Ok(Duration::from_secs(1)));
        for nothing in ["wait", "wait=", "wait=soon", "return=minimal", "wait=0"] {
            assert_eq!(prefer(nothing), Ok(usual), "{nothing}");
        }
    }

    #[test]
    fn what_stands_at_a_path_and_what_goes_without_saying() {
        assert_eq!(allow(&[&Method::GET, &Method::POST]), "GET, HEAD, POST, OPTIONS");
        assert_eq!(allow(&[&Method::PUT, &Method::PUT]), "PUT, OPTIONS");
    }

    #[test]
    fn the_gateways_own_paths_allow_reading_only() {
        let table = Table::default();
        let limits = Limits { uri: 64, body: 64, blob: 64, upload: 64 };
        let go = |method: &str, path: &str| {
            let (head, ()) =
                Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
            let found = table.find(&head.method, head.uri.path());
            route(found, &head, true, &limits).map(|_| ()).map_err(|p| p.kind.status().as_u16())
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
