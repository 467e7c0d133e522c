//! What goes out: a response whose body is at hand as a whole, or still to come.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

/// The response to any request.
pub(crate) type Answer = Response<AnswerBody>;

/// Its body.
pub(crate) enum AnswerBody {
    /// At hand as a whole.
    Whole(Full<Bytes>),
    /// Still to come.
    Coming(Pin<Box<dyn Stream<Item = Result<Bytes, BrokenOff>> + Send>>),
    /// None: after the head the connection goes on as something else.
    GoesOn(GoesOn),
}

/// What a connection does after its last answer. It is done by the task of the connection, so that it
/// counts as one, and ends as one.
pub(crate) type GoesOn = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body did not come to its end: the connection has to say so, by ending.
#[derive(Debug, thiserror::Error)]
#[error("the reply broke off: {0}")]
pub(crate) struct BrokenOff(pub(crate) String);

impl AnswerBody {
    /// One that is at hand.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// Takes away what the connection goes on as.
    pub(crate) fn goes_on(&mut self) -> Option<GoesOn> {
        match self {
            Self::GoesOn(_) => match std::mem::take(self) {
                Self::GoesOn(work) => Some(work),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::whole(Bytes::new())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Coming(pieces) => {
                pieces.as_mut().poll_next(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Self::GoesOn(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Coming(_) => false,
            Self::GoesOn(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Coming(_) => SizeHint::default(),
            Self::GoesOn(_) => SizeHint::with_exact(0),
        }
    }
}

/// Bytes of a type that is known to be one.
pub(crate) fn ok(content_type: &'static str, bytes: Bytes) -> Answer {
    let mut answer = Response::new(AnswerBody::whole(bytes));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Leaves the length that the body has where that is known, and no body.
pub(crate) fn without_body(answer: &mut Answer) {
    if let AnswerBody::Whole(body) = answer.body()
        && let Some(length) = body.size_hint().exact()
    {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *answer.body_mut() = AnswerBody::default();
}
