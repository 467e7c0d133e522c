//! The token: one line that lets one host in, to be copied from one terminal to another.
//!
//! `lc1-` and url-safe base64 without padding, of:
//! ```text
//! 32  fingerprint of the authority      1+n  name of the mesh
//!  8  host that issued it               1    how many addresses
//!  8  id of the invite                       each: 4 or 6, 4 or 16 bytes, 2 of port
//! 16  secret                            4    start of the SHA-256 of all before
//!  8  seconds since 1970 when it ends
//! ```
//! Integers are big-endian. The number after `lc` changes when any of this does.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::SystemTime,
};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use super::{folder, from_unix_seconds, invite::InviteId, unix_seconds};
use crate::id::{HostId, MAX_HINTS, MeshId};

const PREFIX: &str = "lc";
const VERSION: &str = "1";
/// Longer than any token can be, in bytes.
const MAX_TEXT: usize = 1024;
const CHECKSUM: usize = 4;

/// Lets one host into a mesh, once. Whoever holds it may use it: it is a secret until then.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The mesh; its fingerprint is what the joining host trusts.
    pub mesh: MeshId,
    /// The host that issued it, any node of which can admit.
    pub issuer: HostId,
    /// Which invite of the issuer.
    pub invite: InviteId,
    /// When it ends. Whole seconds.
    pub expires: SystemTime,
    /// Where nodes of the issuer may be reached; at most [`MAX_HINTS`].
    pub addrs: Vec<SocketAddr>,
    pub(super) secret: [u8; 16],
}

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTokenError {
    /// It does not look like one at all.
    #[error(
        "this is not a token: a token starts with `lc1-`, as `layer-cake mesh invite` prints it"
    )]
    NotAToken,
    /// It is of a version that this program does not know.
    #[error(
        "the token is of version {0} and this program knows version 1: use the same version on both hosts"
    )]
    Version(String),
    /// A character is missing, extra or wrong.
    #[error("the token is damaged: copy the whole line again")]
    Damaged,
}

impl Token {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        out.extend(self.mesh.fingerprint);
        out.extend(self.issuer.to_bits().to_be_bytes());
        out.extend(self.invite.to_bits().to_be_bytes());
        out.extend(self.secret);
        out.extend(unix_seconds(self.expires).to_be_bytes());
        // Names of meshes have at most 63 bytes; anything longer is cut and fails to read back.
        let name = &self.mesh.name.as_bytes()[..self.mesh.name.len().min(255)];
        out.push(name.len() as u8);
        out.extend(name);
        let addrs = &self.addrs[..self.addrs.len().min(MAX_HINTS)];
        out.push(addrs.len() as u8);
        for addr in addrs {
            match addr.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend(ip.octets());
                }
            }
            out.extend(addr.port().to_be_bytes());
        }
        let checksum = checksum(&out);
        out.extend(checksum);
        out
    }

    /// `None` when anything is missing, extra or out of range.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, found) = bytes.split_last_chunk::<CHECKSUM>()?;
        if *found != checksum(body) {
            return None;
        }
        let mut rest = body;
        let fingerprint = take(&mut rest)?;
        let issuer = HostId::from_bits(u64::from_be_bytes(take(&mut rest)?));
        let invite = InviteId::from_bits(u64::from_be_bytes(take(&mut rest)?));
        let secret = take(&mut rest)?;
        let expires = from_unix_seconds(u64::from_be_bytes(take(&mut rest)?));
        let [name_len] = take(&mut rest)?;
        let (name, after) = rest.split_at_checked(name_len.into())?;
        rest = after;
        let name = std::str::from_utf8(name).ok().filter(|name| folder::is_mesh_name(name))?;
        let [count] = take(&mut rest)?;
        if usize::from(count) > MAX_HINTS {
            return None;
        }
        let mut addrs = Vec::with_capacity(count.into());
        for _ in 0..count {
            let ip: IpAddr = match take(&mut rest)? {
                [4] => take::<4>(&mut rest)?.into(),
                [6] => take::<16>(&mut rest)?.into(),
                _ => return None,
            };
            addrs.push(SocketAddr::new(ip, u16::from_be_bytes(take(&mut rest)?)));
        }
        let mesh = MeshId { name: name.into(), fingerprint };
        rest.is_empty().then_some(Self { mesh, issuer, invite, expires, addrs, secret })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::digest(bytes);
    [digest[0], digest[1], digest[2], digest[3]]
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{VERSION}-{}", BASE64URL_NOPAD.encode(&self.to_bytes()))
    }
}

/// Without the secret, so that a log cannot let anybody in.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("mesh", &self.mesh.name)
            .field("issuer", &self.issuer)
            .field("invite", &self.invite)
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(ParseTokenError::NotAToken);
        }
        let (version, body) = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .filter(|(version, _)| {
                (1..=3).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_digit())
            })
            .ok_or(ParseTokenError::NotAToken)?;
        if version != VERSION {
            return Err(ParseTokenError::Version(version.to_owned()));
        }
        let bytes =
            BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| ParseTokenError::Damaged)?;
        Self::from_bytes(&bytes).ok_or(ParseTokenError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            mesh: MeshId { name: "mesh-7f3a02bc".into(), fingerprint: [7; 32] },
            issuer: HostId::from_bits(0x7f3a),
            invite: InviteId::from_bits(1),
            expires: from_unix_seconds(1_800_000_000),
            addrs: vec!["10.0.0.1:4433".parse().unwrap(), "[fd00::1]:4433".parse().unwrap()],
            secret: [9; 16],
        }
    }

    #[test]
    fn a_token_is_one_word_that_reads_back() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!("  {text}\n").parse(), Ok(token()));
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert!(!format!("{:?}", token()).contains("secret: "));
    }

    #[test]
    fn what_is_wrong_with_a_token_is_told_apart() {
        let text = token().to_string();
        for (text, wanted) in [
            ("", ParseTokenError::NotAToken),
            ("hello", ParseTokenError::NotAToken),
            ("lc-abc", ParseTokenError::NotAToken),
            ("lc2-abc", ParseTokenError::Version("2".to_owned())),
            (&text[..text.len() - 1], ParseTokenError::Damaged),
            (&text.replace("lc1-", "lc1-A"), ParseTokenError::Damaged),
            ("lc1-", ParseTokenError::Damaged),
            ("lc1-ÄÖ", ParseTokenError::Damaged),
        ] {
            assert_eq!(text.parse::<Token>(), Err(wanted), "{text}");
        }
    }

    proptest! {
        #[test]
        fn one_mistyped_character_never_passes(at in 4usize..150, typed in "[A-Za-z0-9_-]") {
            let text = token().to_string();
            prop_assume!(at < text.len() && text[at..=at] != typed);
            let mistyped = format!("{}{typed}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(mistyped.parse::<Token>(), Err(ParseTokenError::Damaged));
        }

        #[test]
        fn any_text_gets_an_answer(text in "\\PC*") {
            prop_assert!(text.parse::<Token>().is_err());
            let prefixed = format!("lc1-{text}").parse::<Token>();
            prop_assert!(prefixed.is_err());
        }

        #[test]
        fn bytes_with_a_good_checksum_get_an_answer(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            bytes.extend(checksum(&bytes));
            if let Some(token) = Token::from_bytes(&bytes) {
                prop_assert_eq!(Token::from_bytes(&token.to_bytes()), Some(token));
            }
        }
    }
}
