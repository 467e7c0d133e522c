//! The first frame in each direction, and what becomes of two dials that cross.
//!
//! A hello says which version the node speaks, which mesh it belongs to and who it is. On a QUIC link
//! the certificate must say the same; on a Unix socket the kernel says which user it is. Its body is
//! JSON, so that later versions can add to it.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    frame::{self, Frame, OutBuf},
    id::{HostId, MAX_HINTS, NodeId},
};

/// The version of the wire that this build speaks. Nodes of one major version understand each other
/// if their minor versions are at most one apart.
pub const VERSION: (u16, u16) = (1, 0);

/// How long a peer may take for its hello.
pub(crate) const HELLO_TIME: Duration = Duration::from_secs(3);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: (u16, u16),
    pub(crate) mesh: [u8; 32],
    pub(crate) host: HostId,
    pub(crate) node: NodeId,
    /// Where its QUIC endpoint may be found.
    #[serde(default)]
    pub(crate) hints: Vec<SocketAddr>,
    /// Drawn by the dialling side for this link; the answer repeats it.
    pub(crate) nonce: u64,
    /// The nonce of the last link with this peer that the dialling side knew of; 0 for none.
    #[serde(default)]
    pub(crate) last_seen: u64,
}

/// Why a link is refused. The numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RefuseCode {
    /// Another mesh.
    Mesh = 1,
    /// A version too far away.
    Version = 2,
    /// A link in the other direction is on its way or there already; use that one.
    Duplicate = 3,
    /// The hello says another identity than the certificate.
    Identity = 4,
}

/// Why the exchange of hellos failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer does not speak this protocol: {0}")]
    Garbled(String),
    #[error("refused: {reason}")]
    Refused { duplicate: bool, reason: String },
    #[error("no hello within {HELLO_TIME:?}")]
    Late,
}

/// Sends one frame.
pub(crate) async fn send<W: AsyncWrite + Unpin>(writer: &mut W, frame: Frame) -> io::Result<()> {
    let mut out = OutBuf::default();
    out.push(frame);
    let mut pieces = Vec::new();
    out.take(&mut pieces);
    for piece in pieces {
        writer.write_all(&piece).await?;
    }
    writer.flush().await
}

/// The frame of a hello.
pub(crate) fn hello_frame(hello: &Hello) -> Frame {
    // A struct of integers and text always has a JSON form.
    Frame::Hello(serde_json::to_vec(hello).unwrap_or_default().into())
}

/// The frame of a refusal.
pub(crate) fn refuse_frame(code: RefuseCode, reason: &str) -> Frame {
    Frame::Refuse { code: code as u8, reason: Bytes::copy_from_slice(reason.as_bytes()) }
}

/// Reads the peer's hello or refusal; what came behind it stays in the buffer.
pub(crate) async fn receive<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
) -> Result<Hello, HelloError> {
    tokio::time::timeout(HELLO_TIME, receive_unbounded(reader, buffer))
        .await
        .map_err(|_| HelloError::Late)?
}

async fn receive_unbounded<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
) -> Result<Hello, HelloError> {
    let garbled = |e: &dyn std::fmt::Display| HelloError::Garbled(e.to_string());
    loop {
        if let Some(body) = frame::split(buffer).map_err(|e| garbled(&e))? {
            return match frame::parse(body).map_err(|e| garbled(&e))? {
                Some(Frame::Hello(body)) => {
                    let mut hello: Hello =
                        serde_json::from_slice(&body).map_err(|e| garbled(&e))?;
                    hello.hints.truncate(MAX_HINTS);
                    Ok(hello)
                }
                Some(Frame::Refuse { code, reason }) => Err(HelloError::Refused {
                    duplicate: code == RefuseCode::Duplicate as u8,
                    reason: String::from_utf8_lossy(&reason).into_owned(),
                }),
                _ => Err(HelloError::Garbled("expected a hello first".to_owned())),
            };
        }
        buffer.reserve(4096);
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Whether a hello may be answered by a node of this mesh and version.
pub(crate) fn check(hello: &Hello, mesh: &[u8; 32]) -> Result<(), (RefuseCode, String)> {
    if hello.mesh != *mesh {
        let reason = "this node belongs to another mesh".to_owned();
        return Err((RefuseCode::Mesh, reason));
    }
    let ((major, minor), (our_major, our_minor)) = (hello.version, VERSION);
    if major != our_major || minor.abs_diff(our_minor) > 1 {
        let reason = format!(
            "this node speaks version {our_major}.{our_minor} and you speak {major}.{minor}: \
             versions may be one minor apart"
        );
        return Err((RefuseCode::Version, reason));
    }
    Ok(())
}

/// What is known of the links with one peer when its hello comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerState {
    /// We are dialling it.
    pub(crate) dialling: bool,
    /// The link that is up: its nonce, and whether we dialled it.
    pub(crate) up: Option<(u64, bool)>,
}

/// Decides whether the link that a peer dialled is taken.
///
/// Two dials that cross would make two links. The one dialled by the smaller node id stays. A peer that
/// dials although it knew of the link that we have (its hello names it) has lost its end: then the
/// new link replaces the old one.
pub(crate) fn admits(own: NodeId, peer: NodeId, state: PeerState, last_seen: u64) -> bool {
    if own > peer {
        return true;
    }
    match state.up {
        Some((nonce, dialled)) => !dialled || last_seen == nonce,
        None => !state.dialling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NodeId = NodeId::from_bits(1);
    const LARGE: NodeId = NodeId::from_bits(2);

    #[test]
    fn of_two_dials_that_cross_exactly_one_is_taken() {
        let crossing = PeerState { dialling: true, up: None };
        assert!(!admits(SMALL, LARGE, crossing, 0));
        assert!(admits(LARGE, SMALL, crossing, 0));
    }

    #[test]
    fn a_dial_that_started_before_our_link_was_up_is_not_taken() {
        let up = PeerState { dialling: false, up: Some((77, true)) };
        assert!(!admits(SMALL, LARGE, up, 0));
    }

    #[test]
    fn a_peer_that_lost_its_end_gets_a_new_link() {
        let up = PeerState { dialling: false, up: Some((77, true)) };
        assert!(admits(SMALL, LARGE, up, 77));
        let up = PeerState { dialling: false, up: Some((77, false)) };
        assert!(admits(SMALL, LARGE, up, 0));
    }

    #[test]
    fn another_mesh_and_a_far_version_are_refused_with_a_reason() {
        let hello = Hello {
            version: VERSION,
            mesh: [1; 32],
            host: HostId::from_bits(1),
            node: SMALL,
            hints: vec![],
            nonce: 1,
            last_seen: 0,
        };
        assert_eq!(check(&hello, &[1; 32]), Ok(()));
        assert_eq!(check(&hello, &[2; 32]).map_err(|e| e.0), Err(RefuseCode::Mesh));
        let next = Hello { version: (VERSION.0, VERSION.1 + 1), ..hello.clone() };
        assert_eq!(check(&next, &[1; 32]), Ok(()));
        let far = Hello { version: (VERSION.0, VERSION.1 + 2), ..hello.clone() };
        assert_eq!(check(&far, &[1; 32]).map_err(|e| e.0), Err(RefuseCode::Version));
        let other = Hello { version: (VERSION.0 + 1, 0), ..hello };
        let (_, reason) = check(&other, &[1; 32]).expect_err("a major version apart");
        assert!(reason.contains("you speak 2.0"), "{reason}");
    }
}
