//! Reading a request's body: no more than allowed, no longer than allowed.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

/// How much of a refused body is read and thrown away.
const DISCARD_BYTES: usize = 16 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// For how long a body may come at any pace.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has more bytes than allowed.
    TooLarge,
    /// It did not come in time, or too slowly.
    Late,
    /// Its framing is broken, or the connection is.
    Broken,
}

/// Where a body comes from.
pub(crate) enum Source {
    /// A connection over TCP.
    Tcp(Incoming),
    /// A stream over QUIC.
    #[cfg(feature = "h3")]
    Http3(Box<crate::server::Http3Body>),
}

/// The connection broke, or what came over it is no body.
#[derive(Debug)]
pub(crate) struct Broken;

impl Body for Source {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Tcp(body) => Pin::new(body).poll_frame(cx).map_err(|_| Broken),
            #[cfg(feature = "h3")]
            Self::Http3(body) => body.poll_frame(cx).map_err(|_| Broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tcp(body) => body.is_end_stream(),
            #[cfg(feature = "h3")]
            Self::Http3(body) => body.is_end_stream(),
        }
    }
}

/// How fast a body has to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Bytes per second, at least, after the first seconds.
    pub(crate) rate: u32,
    /// Since then.
    pub(crate) begun: Instant,
    /// When it has to be there, where there is such a time.
    pub(crate) until: Option<Instant>,
}

impl Pace {
    /// Until when the next bytes have to come, after so many.
    fn until(&self, so_far: u64) -> Instant {
        let earned = so_far as f64 / f64::from(self.rate.max(1));
        let patience = PATIENCE + Duration::try_from_secs_f64(earned).unwrap_or(Duration::ZERO);
        let far = || self.begun + Duration::from_secs(86_400);
        let until = self.begun.checked_add(patience).unwrap_or_else(far);
        self.until.map_or(until, |last| last.min(until))
    }
}

/// The body of a request, which may still be on its way.
pub(crate) struct RequestBody {
    /// Absent once it was taken.
    incoming: Option<Source>,
    /// Whether the client holds the body back until it is told to go on.
    held_back: bool,
}

impl RequestBody {
    pub(crate) fn new(head: &Parts, incoming: Source) -> Self {
        Self { incoming: Some(incoming), held_back: head.headers.contains_key(header::EXPECT) }
    }

    /// Whether it is known that nothing (more) comes.
    pub(crate) fn is_end(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Reads it, if it has at most `limit` bytes, and comes until then and at `rate` bytes per second or
    /// faster, after the first seconds.
    pub(crate) async fn read(
        &mut self,
        limit: usize,
        rate: u32,
        until: Instant,
    ) -> Result<Bytes, Unread> {
        let pace = Pace { rate, begun: Instant::now(), until: Some(until) };
        // Most bodies are one piece, which is then passed on without a copy.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(data) = self.next((first.len() + rest.len()) as u64, pace).await {
            let data = data?;
            if first.len() + rest.len() + data.len() > limit {
                return Err(Unread::TooLarge);
            }
            if first.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        Ok(whole.freeze())
    }

    /// Takes it away, to be read elsewhere.
    pub(crate) fn take(&mut self) -> Self {
        let held_back = std::mem::take(&mut self.held_back);
        Self { incoming: self.incoming.take(), held_back }
    }

    /// The next bytes; `None` after the last ones. `so_far` is how many there were.
    pub(crate) async fn next(&mut self, so_far: u64, pace: Pace) -> Option<Result<Bytes, Unread>> {
        self.held_back = false; // hyper tells it to go on at the first read
        let body = self.incoming.as_mut()?;
        let until = pace.until(so_far);
        loop {
            let frame = match timeout_at(until, body.frame()).await {
                Ok(frame) => frame?,
                Err(_elapsed) => return Some(Err(Unread::Late)),
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_trailers)) => {}
                Err(_) => return Some(Err(Unread::Broken)),
            }
        }
    }

    /// Reads on, in the background, what a refused client is still sending.
    ///
    /// Closing a socket with unread data resets the connection, and the reset may overtake the answer
    /// on its way: the client would see a broken pipe in place of the 413. The task ends with the
    /// connection, after [`DISCARD_BYTES`] or after [`DISCARD_TIME`].
    pub(crate) fn discard(mut self) {
        if self.is_end() || self.held_back {
            return;
        }
        let Some(mut incoming) = self.incoming.take() else { return };
        tokio::spawn(timeout(DISCARD_TIME, async move {
            let mut left = DISCARD_BYTES;
            while let Some(Ok(frame)) = incoming.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        }));
    }
}
