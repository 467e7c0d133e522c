//! Replies in parts: as bytes, as lines of JSON, or as events.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::poll_fn;
use http::{HeaderMap, HeaderValue, Response, header};
use layercake_node::{AskError, EncodedReplies};
use layercake_wire::payload::{Encoding, Payload};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    answer,
    problem::Problem,
    reply::{Answer, AnswerBody, BrokenOff},
};

/// How often a client of events is told that the connection lives.
const ALIVE: Duration = Duration::from_secs(15);

/// How parts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the bytes that they are.
    Bytes,
    /// As JSON, a line each (NDJSON).
    Lines,
    /// As server-sent events.
    Events,
}

impl Form {
    /// What a client wants of parts that are JSON.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accepts =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut types = accepts.flat_map(|value| value.split(','));
        let is_events = |media: &str| {
            let essence = media.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("text/event-stream")
        };
        if types.any(is_events) { Self::Events } else { Self::Lines }
    }
}

/// The first thing that comes of a reply in parts.
pub(crate) type First = Option<Result<Payload, AskError>>;

/// What is done while a reply comes: the rest of the request is passed on.
pub(crate) type Beside = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;

/// A reply in parts that has begun.
pub(crate) struct Begun {
    pub(crate) form: Form,
    /// What has come of it; nothing, where it has not yet.
    pub(crate) first: Option<First>,
    pub(crate) replies: EncodedReplies,
    /// Is given back at its end.
    pub(crate) place: OwnedSemaphorePermit,
}

/// The answer whose body is those parts.
pub(crate) fn answer(begun: Begun, media: Option<HeaderValue>, beside: Option<Beside>) -> Answer {
    let Begun { form, first, replies, place } = begun;
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.reset();
    let (over, broken) = (false, None);
    let mut body = Coming { form, first, replies, beside, alive, over, broken, _place: place };
    let pieces = poll_fn(move |cx| body.poll_bytes(cx));
    let mut answer = Response::new(AnswerBody::Coming(Box::pin(pieces)));
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        media.unwrap_or(HeaderValue::from_static(match form {
            Form::Bytes => "application/octet-stream",
            Form::Lines => "application/x-ndjson",
            Form::Events => "text/event-stream",
        })),
    );
    if form == Form::Events {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    answer
}

struct Coming {
    _place: OwnedSemaphorePermit,
    form: Form,
    first: Option<First>,
    replies: EncodedReplies,
    beside: Option<Beside>,
    alive: Interval,
    over: bool,
    /// Why it is over, still to be told.
    broken: Option<BrokenOff>,
}

impl Coming {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(beside) = &mut self.beside
            && let Poll::Ready(outcome) = beside.as_mut().poll(cx)
        {
            self.beside = None;
            if let Err(problem) = outcome {
                return self.broken(problem, cx);
            }
        }
        let part = match self.first.take() {
            Some(first) => first,
            None => match self.replies.poll_next(cx) {
                Poll::Ready(part) => part,
                Poll::Pending if self.form == Form::Events => {
                    std::task::ready!(self.alive.poll_tick(cx));
                    return Poll::Ready(Some(Ok(Bytes::from_static(b":\n\n"))));
                }
                Poll::Pending => return Poll::Pending,
            },
        };
        self.over = !matches!(part, Some(Ok(_)));
        Poll::Ready(match part {
            Some(Ok(payload)) => match written(self.form, payload) {
                Ok(bytes) => Some(Ok(bytes)),
                Err(reason) => return self.failed(&AskError::BadReply { reason }, cx),
            },
            Some(Err(error)) => return self.failed(&error, cx),
            // Or a client of events would ask again.
            None if self.form == Form::Events => {
                Some(Ok(Bytes::from_static(b"event: end\ndata:\n\n")))
            }
            None => None,
        })
    }

    fn failed(
        &mut self,
        error: &AskError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        tracing::warn!(%error, "a reply in parts broke off");
        self.broken(answer::problem(error), cx)
    }

    /// The end of a reply that has none. Events can say why; of the others the connection says that
    /// something is missing.
    fn broken(
        &mut self,
        problem: Problem,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        self.over = true;
        if self.form != Form::Events {
            // The connection ends at once with that: what came before it goes out first.
            self.broken = Some(BrokenOff(problem.detail));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut event = BytesMut::from(&b"event: error\ndata: "[..]);
        event.put_slice(&problem.document(None).1);
        event.put_slice(b"\n\n");
        Poll::Ready(Some(Ok(event.freeze())))
    }
}

/// A part as it goes out.
fn written(form: Form, payload: Payload) -> Result<Bytes, String> {
    if form == Form::Bytes {
        return bytes_of(&payload);
    }
    let json = json_of(payload)?;
    let (before, after) = match form {
        Form::Events => ("data: ", "\n\n"),
        Form::Lines | Form::Bytes => ("", "\n"),
    };
    let mut line = BytesMut::with_capacity(before.len() + json.len() + after.len());
    line.put_slice(before.as_bytes());
    line.put_slice(&json);
    line.put_slice(after.as_bytes());
    Ok(line.freeze())
}

/// The bytes that a part is.
pub(crate) fn bytes_of(payload: &Payload) -> Result<Bytes, String> {
    payload.decode().map_err(|error| error.to_string())
}

/// The JSON that a part is, on one line.
pub(crate) fn json_of(payload: Payload) -> Result<Bytes, String> {
    match payload.encoding {
        // A line break that is not escaped stands between the values of JSON written for people.
        Encoding::Json if payload.bytes.iter().any(|b| matches!(b, b'\n' | b'\r')) => {
            let value: serde_json::Value =
                serde_json::from_slice(&payload.bytes).map_err(|error| error.to_string())?;
            Ok(value.to_string().into())
        }
        Encoding::Json => Ok(payload.bytes),
        other => Err(format!("a part came as {other:?}, not as JSON")),
    }
}
