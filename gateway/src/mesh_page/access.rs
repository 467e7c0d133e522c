//! Who may see the page: decided from the head of a request alone.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderValue, header, request::Parts};

use super::{MeshPage, PageKey};
use crate::{
    door::web,
    input::percent_decode,
    problem::{Kind, Problem},
};

/// The cookie of who has shown the key.
const COOKIE: &str = "layercake-mesh";
/// How long it holds, in seconds.
const COOKIE_AGE: u32 = 12 * 60 * 60;

/// Headers with which a proxy says for whom it asks.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Who is let in.
pub(super) enum Access {
    Nobody {
        why: &'static str,
    },
    /// Who is on this host and has come by an address of loopback.
    Loopback {
        listen: IpAddr,
    },
    Key {
        key: PageKey,
        /// What the cookie says: of this gateway's life only, and nothing about the key.
        ticket: PageKey,
        cookie: HeaderValue,
    },
}

/// What becomes of a request.
pub(super) enum Verdict {
    Open,
    /// The key is in the address: to be exchanged for this cookie.
    Enter(HeaderValue),
    KeyNeeded {
        /// Whether there was one, and it was wrong.
        given: bool,
    },
    Refused(Problem),
}

impl Access {
    /// `secure` says that the cookie only ever travels over TLS.
    pub(super) fn new(who: &MeshPage, listen: IpAddr, secure: bool) -> Self {
        match who {
            MeshPage::Off => Self::Nobody { why: "the mesh page is switched off here" },
            MeshPage::OnLoopback if listen.is_loopback() => Self::Loopback { listen },
            MeshPage::OnLoopback => Self::Nobody {
                why: "the mesh page is shown beyond this host only with a key; set one where the \
                      gateway is started (`--mesh-key-file`, `LAYERCAKE_MESH_KEY`)",
            },
            MeshPage::WithKey(key) => {
                let secret =
                    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
                let cookie = format!(
                    "{COOKIE}={secret}; Path=/mesh; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Strict{}",
                    if secure { "; Secure" } else { "" }
                );
                Self::Key {
                    key: key.clone(),
                    ticket: PageKey(super::digest(secret.as_bytes())),
                    // Hexadecimal digits and words.
                    cookie: HeaderValue::from_str(&cookie).unwrap_or(HeaderValue::from_static("")),
                }
            }
        }
    }

    /// Judges a request to see something.
    pub(super) fn judge(&self, head: &Parts) -> Verdict {
        match self {
            Self::Nobody { why } => Verdict::Refused(Problem::new(Kind::UnknownMessage, *why)),
            Self::Loopback { listen } => match refusal(head, *listen) {
                Some(why) => Verdict::Refused(Problem::new(Kind::Foreign, why)),
                None => Verdict::Open,
            },
            Self::Key { key, ticket, cookie } => {
                if let Some(given) = bearer(&head.headers) {
                    return if key.is(given) {
                        Verdict::Open
                    } else {
                        Verdict::KeyNeeded { given: true }
                    };
                }
                // Also of who has the cookie, so that the key does not stay in the address.
                if let Some(given) = in_address(head) {
                    return match key.is(given.as_bytes()) {
                        true => Verdict::Enter(cookie.clone()),
                        false => Verdict::KeyNeeded { given: true },
                    };
                }
                match tickets(&head.headers).any(|given| ticket.is(given)) {
                    true => Verdict::Open,
                    false => Verdict::KeyNeeded { given: false },
                }
            }
        }
    }

    /// The cookie for who has the key.
    pub(super) fn cookie_for(&self, given: &[u8]) -> Result<HeaderValue, Verdict> {
        match self {
            Self::Key { key, cookie, .. } if key.is(given) => Ok(cookie.clone()),
            Self::Key { .. } => Err(Verdict::KeyNeeded { given: true }),
            _ => Err(Verdict::Refused(Problem::new(
                Kind::UnknownMessage,
                "the mesh page takes no key here",
            ))),
        }
    }
}

/// Why a request on loopback is not from a person on this host: a page elsewhere may send a browser here
/// under another name, or from within itself, and a proxy asks for others.
fn refusal(head: &Parts, listen: IpAddr) -> Option<&'static str> {
    if !web::host(head).is_some_and(|host| is_here(host, listen)) {
        return Some(
            "without a key the mesh page is shown under `localhost` or an address of loopback only",
        );
    }
    if FORWARDED.iter().any(|name| head.headers.contains_key(*name)) {
        return Some("without a key the mesh page is not shown through a proxy");
    }
    if web::is_foreign(head) && head.uri.path() != "/mesh" {
        return Some("the mesh page is not shown within other pages");
    }
    None
}

/// Whether a host, perhaps with a port, means this one.
fn is_here(host: &str, listen: IpAddr) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inner, _)) => {
                return inner.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback() || ip == listen);
            }
            None => return false,
        },
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == listen)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

fn tickets(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let cookies = headers.get_all(header::COOKIE).into_iter();
    let each = cookies.flat_map(|cookies| cookies.as_bytes().split(|b| *b == b';'));
    each.filter_map(|cookie| {
        cookie.trim_ascii().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=")
    })
}

fn in_address(head: &Parts) -> Option<String> {
    let mut fields = head.uri.query()?.split('&');
    fields.find_map(|field| percent_decode(field.strip_prefix("key=")?, true))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: &str = "correct horse battery";
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LAN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn asked(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn verdict(access: &Access, uri: &str, headers: &[(&str, &str)]) -> &'static str {
        match access.judge(&asked(uri, headers)) {
            Verdict::Open => "open",
            Verdict::Enter(_) => "enter",
            Verdict::KeyNeeded { given: true } => "wrong key",
            Verdict::KeyNeeded { given: false } => "no key",
            Verdict::Refused(problem) if problem.kind == Kind::Foreign => "foreign",
            Verdict::Refused(_) => "not there",
        }
    }

    #[test]
    fn on_loopback_only_names_of_this_host_lead_to_the_page() {
        let access = Access::new(&MeshPage::OnLoopback, LOOPBACK, false);
        for host in ["localhost:5050", "LOCALHOST", "127.0.0.1:5050", "127.9.9.9", "[::1]:5050"] {
            assert_eq!(verdict(&access, "/mesh", &[("host", host)]), "open", "{host}");
        }
        let rebound =
            ["evil.example:5050", "localhost.evil.example", "10.0.0.1", "[::2]", "[::1", ""];
        for host in rebound {
            assert_eq!(verdict(&access, "/mesh", &[("host", host)]), "foreign", "{host}");
        }
        assert_eq!(verdict(&access, "/mesh", &[]), "foreign", "no host at all");
        assert_eq!(
            verdict(&access, "http://evil.example/mesh", &[("host", "localhost")]),
            "foreign"
        );
    }

    #[test]
    fn on_loopback_neither_a_proxy_nor_another_page_is_shown_anything() {
        let access = Access::new(&MeshPage::OnLoopback, LOOPBACK, false);
        let with =
            |uri, name, value| verdict(&access, uri, &[("host", "localhost"), (name, value)]);
        assert_eq!(with("/mesh", "x-forwarded-for", "1.2.3.4"), "foreign");
        assert_eq!(with("/mesh/data", "sec-fetch-site", "cross-site"), "foreign");
        assert_eq!(with("/mesh/data", "sec-fetch-site", "same-origin"), "open");
        assert_eq!(with("/mesh", "sec-fetch-site", "cross-site"), "open", "a link to it");
    }

    #[test]
    fn off_loopback_nobody_sees_it_without_a_key() {
        let access = Access::new(&MeshPage::OnLoopback, LAN, false);
        assert_eq!(verdict(&access, "/mesh", &[("host", "localhost")]), "not there");
        let access = Access::new(&MeshPage::Off, LOOPBACK, false);
        assert_eq!(verdict(&access, "/mesh", &[("host", "localhost")]), "not there");
    }

    #[test]
    fn the_key_opens_in_a_header_and_is_exchanged_for_a_cookie_in_an_address() {
        let access = Access::new(&MeshPage::with_key(KEY).unwrap(), LAN, false);
        let host = ("host", "rack1:5050");
        assert_eq!(verdict(&access, "/mesh", &[host]), "no key");
        let bearer = format!("bearer {KEY}");
        assert_eq!(verdict(&access, "/mesh/data", &[host, ("authorization", &bearer)]), "open");
        assert_eq!(
            verdict(&access, "/mesh", &[host, ("authorization", "Bearer guess")]),
            "wrong key"
        );
        assert_eq!(verdict(&access, "/mesh", &[host, ("authorization", "x")]), "no key");
        assert_eq!(verdict(&access, "/mesh?key=guess", &[host]), "wrong key");
        assert_eq!(verdict(&access, "/mesh?key=correct+horse%20battery", &[host]), "enter");

        let cookie = access.cookie_for(KEY.as_bytes()).ok().unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert!(!cookie.contains("horse"), "the key itself is not kept by browsers");
        let ticket = format!("other=1; {}", cookie.split(';').next().unwrap());
        assert_eq!(verdict(&access, "/mesh", &[host, ("cookie", &ticket)]), "open");
        assert_eq!(verdict(&access, "/mesh", &[host, ("cookie", "layercake-mesh=")]), "no key");
        assert!(access.cookie_for(b"guess").is_err());
    }

    #[test]
    fn a_key_is_long_enough_and_is_never_printed() {
        assert!(PageKey::new("short").is_err());
        assert!(PageKey::new("               short                ").is_err());
        let key = PageKey::new(&format!(" {KEY}\n")).unwrap();
        assert!(key.is(KEY.as_bytes()), "a file ends with a line feed");
        assert!(!format!("{key:?}").contains("horse"));
    }
}
