//! Replies in parts over a WebSocket (RFC 6455): a frame for each part.
//!
//! What the client sends is passed over; that it closes, or goes, takes the request back. The close frame
//! says how it ended: 1000 in order, 1001 because the gateway stops, 1011 with the kind of problem.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use layercake_node::AskError;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer,
    problem::{Kind, Problem},
    reply::{Answer, AnswerBody},
    stream::{self, Begun, Form},
};

/// The largest message that a client may send, though nobody reads it.
const MAX_INPUT: usize = 64 << 10;
/// How much may wait to be written.
const MAX_WAITING: usize = 1 << 20;
/// How often the client is asked whether it lives.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take for one frame, and for its goodbye.
const WRITE_TIME: Duration = Duration::from_secs(30);
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection that is to become a WebSocket.
pub(crate) struct Upgrade {
    on: OnUpgrade,
    accept: HeaderValue,
}

impl Upgrade {
    /// What the head of a request asks for: nothing, a WebSocket, or one that cannot be.
    pub(crate) fn of(head: &mut Parts) -> Result<Option<Self>, Problem> {
        let asks = has(&head.headers, header::UPGRADE, "websocket")
            && has(&head.headers, header::CONNECTION, "upgrade");
        if !asks || head.method != Method::GET || head.version != Version::HTTP_11 {
            return Ok(None);
        }
        let Some(on) = head.extensions.remove::<OnUpgrade>() else { return Ok(None) };
        let refuse = |detail| Err(Problem::new(Kind::InvalidHeader, detail));
        if head.headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return refuse("`Sec-WebSocket-Version` is not 13");
        }
        let Some(key) = head.headers.get(header::SEC_WEBSOCKET_KEY) else {
            return refuse("there is no `Sec-WebSocket-Key`");
        };
        match HeaderValue::try_from(derive_accept_key(key.as_bytes())) {
            Ok(accept) => Ok(Some(Self { on, accept })),
            Err(_) => refuse("`Sec-WebSocket-Key` is not one"),
        }
    }

    /// The answer that makes it one, after which the parts go out by it until `closing`.
    pub(crate) fn answer(self, begun: Begun, closing: CancellationToken) -> Answer {
        let Self { on, accept } = self;
        let work = async move {
            match on.await {
                Ok(upgraded) => serve(TokioIo::new(upgraded), begun, closing).await,
                Err(error) => tracing::debug!(%error, "no WebSocket"),
            }
        };
        let mut answer = Response::new(AnswerBody::GoesOn(Box::pin(work)));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        answer
    }
}

fn has(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut tokens =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// How it ends.
type End = (CloseCode, &'static str);

async fn serve<S>(stream: S, begun: Begun, closing: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Begun { form, mut first, mut replies, place: _place } = begun;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_INPUT))
        .max_frame_size(Some(MAX_INPUT))
        .max_write_buffer_size(MAX_WAITING.max(layercake_wire::payload::MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    // The client has to have said something since the last ping.
    let mut heard = true;
    let end: Option<End> = loop {
        let part = match first.take() {
            Some(part) => part,
            None => tokio::select! {
                biased;
                () = closing.cancelled() => break Some((CloseCode::Away, "the gateway stops")),
                said = socket.next() => match said {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
                    Some(Ok(_)) => {
                        heard = true;
                        continue;
                    }
                },
                part = replies.next() => part,
                _ = ping.tick() => {
                    if !std::mem::take(&mut heard) || !send(&mut socket, Message::Ping("".into())).await {
                        break None;
                    }
                    continue;
                }
            },
        };
        let message = match part {
            None => break Some((CloseCode::Normal, "")),
            Some(Err(error)) => break Some(failed(&error)),
            Some(Ok(payload)) => match form {
                Form::Bytes => stream::bytes_of(&payload).map(Message::Binary),
                Form::Lines | Form::Events => stream::json_of(payload).and_then(|json| {
                    let text = Utf8Bytes::try_from(json).map_err(|error| error.to_string())?;
                    Ok(Message::Text(text))
                }),
            },
        };
        let message = match message {
            Ok(message) => message,
            Err(reason) => break Some(failed(&AskError::BadReply { reason })),
        };
        if !send(&mut socket, message).await {
            break None;
        }
    };
    drop(replies);
    let Some((code, reason)) = end else { return };
    let close = CloseFrame { code, reason: reason.into() };
    if send(&mut socket, Message::Close(Some(close))).await {
        // The other side says goodbye, too.
        let goodbye = async { while let Some(Ok(_)) = socket.next().await {} };
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

fn failed(error: &AskError) -> End {
    tracing::warn!(%error, "a reply in parts broke off");
    let problem = answer::problem(error);
    let code = if problem.kind.is_push_back() { CloseCode::Again } else { CloseCode::Error };
    (code, problem.kind.slug())
}

/// Sends; false when the client has gone, or does not read.
async fn send<S>(socket: &mut WebSocketStream<S>, message: Message) -> bool
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let sent: Result<Result<(), Error>, _> = timeout(WRITE_TIME, socket.send(message)).await;
    matches!(sent, Ok(Ok(())))
}
