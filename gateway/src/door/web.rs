//! Pages of other sites in a browser: what they may ask, and whether they may read the answer.
//!
//! A browser sends whatever a page tells it to, from within the network where its user is; it keeps the
//! answer from the page unless the answer says otherwise (CORS), but by then the request has been carried
//! out, and of a WebSocket it keeps nothing. So a page of another site is refused what may change
//! something, unless its origin is declared. Browsers say themselves where a request comes from:
//! `Sec-Fetch-Site` (Fetch Metadata), and older ones `Origin`, which is then compared with the host that was
//! asked. Who sends neither is no browser, and not concerned.

use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};

use crate::problem::{Kind, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// For how long a browser may remember what it was allowed, in seconds; none remembers longer.
const REMEMBER: HeaderValue = HeaderValue::from_static("7200");

/// The origin of a web page as browsers write it, `https://app.example:8443`; or `*`, that is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(Box<str>);

/// The text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no origin: write SCHEME://HOST or SCHEME://HOST:PORT, as in `https://app.example`, or `*`"
)]
pub struct NoWebOrigin(String);

impl WebOrigin {
    fn is_any(&self) -> bool {
        &*self.0 == "*"
    }
}

impl FromStr for WebOrigin {
    type Err = NoWebOrigin;

    fn from_str(text: &str) -> Result<Self, NoWebOrigin> {
        let wrong = || NoWebOrigin(text.chars().take(64).collect());
        if text == "*" {
            return Ok(Self(text.into()));
        }
        let plain = text.to_ascii_lowercase();
        let (scheme, host) = plain.split_once("://").ok_or_else(wrong)?;
        let of_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let of_host = |b: u8| b.is_ascii_alphanumeric() || b"-._~[]:".contains(&b);
        let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        if !scheme_fits || !scheme.bytes().all(of_scheme) {
            return Err(wrong());
        }
        if host.is_empty() || !host.bytes().all(of_host) {
            return Err(wrong());
        }
        Ok(Self(format!("{scheme}://{}", without_port(host, usual_port(scheme))).into()))
    }
}

/// The port that browsers leave away.
fn usual_port(scheme: &str) -> &'static str {
    match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    }
}

fn without_port<'h>(host: &'h str, port: &str) -> &'h str {
    host.strip_suffix(port).unwrap_or(host)
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    /// No page, or one of the host that was asked.
    Own,
    /// A page whose origin is declared.
    Declared,
    Other,
}

fn site(origins: &[WebOrigin], head: &Parts) -> Site {
    let origin = text(&head.headers, &header::ORIGIN);
    let is_declared =
        |known: &WebOrigin| known.is_any() || origin.is_some_and(|origin| *known.0 == *origin);
    if origins.iter().any(is_declared) {
        return Site::Declared;
    }
    match (text(&head.headers, &SEC_FETCH_SITE), origin) {
        (Some("same-origin" | "none"), _) | (None, None) => Site::Own,
        (Some(_), _) => Site::Other,
        (None, Some(origin)) if is_of_host(origin, head) => Site::Own,
        (None, Some(_)) => Site::Other,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    // What is no text is no origin that is declared, nor one of ours.
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Whether a page of another site has sent the request.
pub(crate) fn is_foreign(head: &Parts) -> bool {
    site(&[], head) == Site::Other
}

/// The host that was asked, perhaps with a port.
pub(crate) fn host(head: &Parts) -> Option<&str> {
    let asked = head.uri.authority().map(http::uri::Authority::as_str);
    asked.or_else(|| text(&head.headers, &header::HOST))
}

/// Whether an origin is the host that was asked. The scheme is not compared: what ends TLS may stand before
/// us.
fn is_of_host(origin: &str, head: &Parts) -> bool {
    let Some((scheme, from)) = origin.split_once("://") else { return false };
    let Some(asked) = host(head) else { return false };
    let port = usual_port(scheme);
    without_port(from, port).eq_ignore_ascii_case(without_port(asked, port))
}

/// Refuses what a page of another site must not do. `safe` says that the message was made to be asked by
/// `GET`, or may be asked any number of times: an image, a link.
pub(crate) fn check(origins: &[WebOrigin], head: &Parts, safe: bool) -> Result<(), Problem> {
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let harmless = safe && reads && !head.headers.contains_key(header::UPGRADE);
    if harmless || site(origins, head) != Site::Other {
        return Ok(());
    }
    Err(Problem::new(
        Kind::CrossOrigin,
        "a page of another site may not ask this; who runs the gateway can declare its origin \
         (`origins`, `--origin`)",
    ))
}

/// Lets pages of declared origins read the answer, and tells before what they may ask.
pub(crate) fn share(origins: &[WebOrigin], head: &Parts, answer: &mut HeaderMap) {
    if origins.is_empty() {
        return;
    }
    let origin = head.headers.get(header::ORIGIN);
    let any = origins.iter().any(WebOrigin::is_any);
    if !any {
        answer.append(header::VARY, HeaderValue::from_static("origin"));
    }
    let Some(origin) = origin.filter(|_| site(origins, head) == Site::Declared) else { return };
    let star = HeaderValue::from_static("*");
    let whose = if any { star.clone() } else { origin.clone() };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, whose);
    let asks_before = head.method == Method::OPTIONS
        && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks_before {
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, star);
        return;
    }
    if let Some(methods) = answer.get(header::ALLOW).cloned() {
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(headers) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBER);
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn origins(all: &[&str]) -> Vec<WebOrigin> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (text, plain) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("*", "*"),
        ] {
            assert_eq!(*text.parse::<WebOrigin>().unwrap().0, *plain);
        }
        for wrong in
            ["", "app.example", "https://", "https://a/", "https://a/b", "://a", "null", "1://a"]
        {
            assert!(wrong.parse::<WebOrigin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn browsers_say_where_a_request_comes_from() {
        let declared = origins(&["https://app.example"]);
        let (host, origin, fetch) = ("host", "origin", "sec-fetch-site");
        type Given = [(&'static str, &'static str)];
        let table: [(&Given, Site); 14] = [
            (&[(host, "door:5050")], Site::Own),
            (&[(host, "door:5050"), (origin, "http://door:5050")], Site::Own),
            (&[(host, "Door"), (origin, "https://door")], Site::Own),
            (&[(host, "door:443"), (origin, "https://door")], Site::Own),
            (&[(host, "door:5050"), (origin, "http://door:3000")], Site::Other),
            (&[(host, "door:80"), (origin, "https://door")], Site::Other),
            (&[(host, "door"), (origin, "null")], Site::Other),
            (&[(origin, "http://door")], Site::Other),
            (&[(host, "door"), (origin, "http://d\u{f6}\u{f6}r")], Site::Other),
            (&[(fetch, "none")], Site::Own),
            // A proxy before us may have another name.
            (&[(fetch, "same-origin"), (host, "inner"), (origin, "https://outer")], Site::Own),
            (&[(fetch, "same-site"), (host, "door")], Site::Other),
            (&[(fetch, "cross-site"), (origin, "http://door"), (host, "door")], Site::Other),
            (&[(fetch, "cross-site"), (origin, "https://app.example")], Site::Declared),
        ];
        for (headers, expected) in table {
            assert_eq!(site(&declared, &head("/", headers)), expected, "{headers:?}");
        }
        let http2 = head("http://door:5050/", &[(origin, "http://door:5050")]);
        assert_eq!(site(&[], &http2), Site::Own);
        let null = head("/", &[(host, "door"), (origin, "null")]);
        assert_eq!(site(&origins(&["*"]), &null), Site::Declared);
        // An image of a page says where it is from by one header alone.
        assert_eq!(site(&origins(&["*"]), &head("/", &[(fetch, "cross-site")])), Site::Declared);
    }
}
