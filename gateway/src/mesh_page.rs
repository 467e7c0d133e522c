//! The mesh page, `/mesh`: the live picture of the whole mesh in a browser, and the same as JSON.
//!
//! | path | what |
//! |---|---|
//! | `/mesh` | the page; its style and script beside it |
//! | `/mesh/events` | what the page shows, as server-sent events: `view` (the whole picture), `log` |
//! | `/mesh/data` | the picture and the log once, as JSON |
//! | `/mesh/login` | takes the key from a form and gives a cookie |
//!
//! It only shows: nothing in the mesh can be changed through it. While nobody looks nothing is gathered,
//! and however many look, it is gathered once. Who may look is decided in `access`, what is shown in
//! `picture`; `board` gathers it, and `feed` carries it to one viewer. The page itself, in `page/`, is a few
//! files without a build: it takes nothing from elsewhere, and shows foreign names as text only.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts,
};
use layercake_node::Node;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use self::{
    access::{Access, Verdict},
    board::Board,
};
use crate::{
    body::RequestBody,
    handle::Front,
    input::percent_decode,
    problem::{Kind, Problem},
    reply::{Answer, AnswerBody, ok},
};

mod access;
mod board;
mod feed;
mod picture;

/// The least length of a key, in bytes.
pub const MIN_KEY: usize = 16;
/// The largest form with a key, in bytes.
const MAX_FORM: usize = 4 << 10;
/// How long a form with a key may take to arrive.
const FORM_TIME: Duration = Duration::from_secs(10);
/// How long whoever comes with a wrong key waits for the answer.
const WRONG_KEY_PAUSE: Duration = Duration::from_millis(500);

const HTML: &str = "text/html; charset=utf-8";
const LOGIN: &str = include_str!("mesh_page/page/login.html");
const STYLE: &str = "/mesh/page.css";

/// The files of the page: its path, its type, its text.
macro_rules! files {
    ($($path:literal $kind:ident $file:literal;)*) => {
        [$(($path, files!(@$kind), include_str!(concat!("mesh_page/page/", $file))),)*]
    };
    (@html) => { HTML };
    (@css) => { "text/css; charset=utf-8" };
    (@js) => { "text/javascript; charset=utf-8" };
}

const FILES: [(&str, &str, &str); 14] = files! {
    "/mesh" html "page.html";
    "/mesh/page.css" css "page.css";
    "/mesh/main.js" js "main.js";
    "/mesh/digest.js" js "digest.js";
    "/mesh/dom.js" js "dom.js";
    "/mesh/format.js" js "format.js";
    "/mesh/hosts.js" js "hosts.js";
    "/mesh/log.js" js "log.js";
    "/mesh/map.js" js "map.js";
    "/mesh/names.js" js "names.js";
    "/mesh/place.js" js "place.js";
    "/mesh/pools.js" js "pools.js";
    "/mesh/rates.js" js "rates.js";
    "/mesh/totals.js" js "totals.js";
};

/// Nothing but what comes from here, no inline script or style, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Who is shown the mesh page.
///
/// Whoever sees it learns the names, addresses, programs and users of all hosts of the mesh, and can
/// change nothing. Behind a reverse proxy on the same host everybody comes from loopback: name it in
/// [`GatewayConfig::proxies`](crate::GatewayConfig::proxies), set a key, or switch the page off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MeshPage {
    /// Whoever is on this host, where the gateway listens on loopback and knows of no proxy; elsewhere
    /// nobody.
    #[default]
    OnLoopback,
    /// Whoever has the key, wherever the gateway listens. Without
    /// [`GatewayConfig::tls`](crate::GatewayConfig::tls), or a proxy that speaks it, the key and what is shown
    /// travel as they are.
    WithKey(PageKey),
    /// Nobody.
    Off,
}

impl MeshPage {
    /// Shown to whoever has this key, in the header `Authorization: Bearer KEY`, or typed into the form
    /// that a browser gets.
    ///
    /// # Errors
    /// [`KeyTooShort`].
    pub fn with_key(key: &str) -> Result<Self, KeyTooShort> {
        Ok(Self::WithKey(PageKey::new(key)?))
    }
}

/// A key to the mesh page; only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct PageKey([u8; 32]);

/// A key that could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key to the mesh page has at least {MIN_KEY} characters; `openssl rand -hex 16` makes one"
)]
pub struct KeyTooShort;

impl PageKey {
    /// A key of at least [`MIN_KEY`] bytes; white space around it does not count.
    ///
    /// # Errors
    /// [`KeyTooShort`].
    pub fn new(key: &str) -> Result<Self, KeyTooShort> {
        let key = key.trim();
        if key.len() < MIN_KEY { Err(KeyTooShort) } else { Ok(Self(digest(key.as_bytes()))) }
    }

    /// Whether it is that key. The time it takes says nothing about the key: hashes are compared.
    fn is(&self, text: &[u8]) -> bool {
        let other = digest(text.trim_ascii());
        self.0.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageKey(…)")
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The page of one gateway.
pub(crate) struct Page {
    access: Access,
    board: Arc<Board>,
}

impl Page {
    /// The page of a front that listens there.
    pub(crate) fn new(node: Node, front: &Front, listen: IpAddr) -> Self {
        let Front { config, closing, .. } = front;
        // Whom a proxy asks for need not be on this host.
        let proxied = config.proxy_protocol || !config.proxies.is_empty();
        let listen = if proxied { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { listen };
        let access = Access::new(&config.mesh_page, listen, config.tls.is_some());
        Self { access, board: Arc::new(Board::new(node, closing.clone())) }
    }

    /// Whether a path belongs to the page.
    pub(crate) fn has(path: &str) -> bool {
        path.strip_prefix("/mesh").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for a path that the page [has](Self::has).
    pub(crate) async fn answer(
        &self,
        head: &Parts,
        body: &mut RequestBody,
    ) -> Result<Answer, Problem> {
        let path = head.uri.path();
        if path == "/mesh/login" {
            return self.log_in(head, body).await;
        }
        let (Method::GET | Method::HEAD) = head.method else {
            return Err(not_allowed(&head.method, "GET, HEAD"));
        };
        match self.access.judge(head) {
            Verdict::Open => {}
            Verdict::Enter(cookie) => return Ok(enter(cookie)),
            // The form has the style of the page.
            Verdict::KeyNeeded { .. } if path == STYLE => {}
            Verdict::KeyNeeded { given } => {
                if given {
                    tokio::time::sleep(WRONG_KEY_PAUSE).await;
                }
                return if path == "/mesh" && wants_html(&head.headers) {
                    Ok(self.ask_for_key())
                } else {
                    Err(key_needed(given))
                };
            }
            Verdict::Refused(problem) => return Err(problem),
        }
        match path {
            "/mesh/data" => Ok(ok("application/json", self.board.data().await?)),
            "/mesh/events" if head.method == Method::HEAD => Ok(events(AnswerBody::default())),
            "/mesh/events" => Ok(events(AnswerBody::Coming(Box::pin(self.board.feed()?)))),
            _ => match FILES.iter().find(|(of, ..)| *of == path) {
                Some((_, kind, file)) => Ok(text(kind, file)),
                None => Err(Problem::new(
                    Kind::UnknownMessage,
                    "the mesh page has `/mesh`, `/mesh/events` and `/mesh/data`",
                )),
            },
        }
    }

    /// Takes the key from a form.
    async fn log_in(&self, head: &Parts, body: &mut RequestBody) -> Result<Answer, Problem> {
        if head.method != Method::POST {
            return Err(not_allowed(&head.method, "POST"));
        }
        let form = body.read(MAX_FORM, 1, Instant::now() + FORM_TIME).await;
        let form = form.map_err(|_| {
            Problem::new(Kind::InvalidBody, "no form with the key, or one that did not arrive")
        })?;
        let fields = form.split(|b| *b == b'&');
        let key = fields.filter_map(|field| field.strip_prefix(b"key=")).next();
        let key = key.and_then(|key| percent_decode(std::str::from_utf8(key).ok()?, true));
        match self.access.cookie_for(key.unwrap_or_default().as_bytes()) {
            Ok(cookie) => Ok(enter(cookie)),
            Err(Verdict::Refused(problem)) => Err(problem),
            Err(_) => {
                tracing::warn!("somebody tried a wrong key to the mesh page");
                tokio::time::sleep(WRONG_KEY_PAUSE).await;
                Ok(self.ask_for_key())
            }
        }
    }

    fn ask_for_key(&self) -> Answer {
        let mut answer = text(HTML, LOGIN);
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        answer
    }
}

fn key_needed(given: bool) -> Problem {
    let detail = if given {
        "that is not the key to the mesh page"
    } else {
        "the mesh page needs its key: send `Authorization: Bearer KEY`"
    };
    Problem::new(Kind::KeyNeeded, detail)
}

fn not_allowed(method: &Method, allow: &'static str) -> Problem {
    let detail = format!("`{method:.16}` means nothing here");
    Problem { allow: Some(allow.to_owned()), ..Problem::new(Kind::MethodNotAllowed, detail) }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Sends a browser to the page, with its cookie and without the key in the address.
fn enter(cookie: HeaderValue) -> Answer {
    let mut answer = text("text/plain; charset=utf-8", "");
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/mesh"));
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    answer
}

fn text(content_type: &'static str, text: &'static str) -> Answer {
    ok(content_type, Bytes::from_static(text.as_bytes()))
}

fn events(body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy passes each event on at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}

/// What every answer of the page says to a browser.
pub(crate) fn guard(headers: &mut HeaderMap) {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
