//! Replies in parts: a handler sends many through an [`Outlet`], the asker takes them from [`Replies`].
//! A slow taker holds the handler back; one that goes away ends its interest.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use layercake_wire::{
    AskFailure, Failure, FailureCode, Parts, Responder,
    id::ActorAddr,
    payload::{Fingerprint, Payload, Tag},
};
use tokio::sync::mpsc;

use crate::{
    actor::Accepts,
    address::{Address, AnyAddress, deadline_in, from_ask_failure},
    error::AskError,
    mailbox::{Offered, room},
    message::{Data, Message},
    packet::{Back, Packet, Unanswered, encode_reply},
    remote::Remote,
};

/// Parts within one process that the asker has not taken yet, before the handler waits.
pub const STREAM: usize = 64;
/// How long a stream may take from its ask to its end, where nothing else is said.
pub const STREAM_DEADLINE: Duration = Duration::from_secs(3600);

/// Nobody takes the parts any more: there is no use in going on.
pub use layercake_wire::Gone;

/// Where parts go within a process.
pub(crate) type PartSender<R> = mpsc::Sender<Result<R, Unanswered>>;

/// Where a handler sends the parts of its reply. A handler takes it as `out: &mut Outlet<T>`, and what it
/// returns ends the stream in order; or by value, to go on elsewhere, and ends it by
/// [`finish`](Self::finish). Dropped otherwise, the asker is told that the stream broke off.
pub struct Outlet<R: Data> {
    to: Option<To<R>>,
    deadline: Option<Instant>,
}

enum To<R> {
    Here(PartSender<R>),
    Away {
        responder: Responder,
        fingerprint: Fingerprint,
        tag: Tag,
    },
    /// The message was told: nobody wants the parts.
    Nobody,
}

impl<R: Data> Outlet<R> {
    /// Sends a part; waits while the asker has too many that it has not taken.
    ///
    /// # Errors
    /// [`Gone`]: the asker has gone, the deadline has passed, or the link has ended. A part that cannot
    /// be encoded breaks the stream off, and is `Gone` too.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the part was not sent.
    pub async fn send(&mut self, part: R) -> Result<(), Gone> {
        let reason = match &self.to {
            Some(To::Here(sender)) => {
                // A taker that keeps up must not keep this thread from its other tasks.
                tokio::task::consume_budget().await;
                let part = match sender.try_send(Ok(part)) {
                    Ok(()) => return Ok(()),
                    Err(mpsc::error::TrySendError::Closed(_)) => return Err(Gone),
                    Err(mpsc::error::TrySendError::Full(part)) => part,
                };
                let sent = sender.send(part);
                // A taker that takes no more holds the handler no longer than until then.
                let Some(at) = self.deadline else { return sent.await.map_err(|_| Gone) };
                if let Ok(sent) = tokio::time::timeout_at(at.into(), sent).await {
                    return sent.map_err(|_| Gone);
                }
                // Not the end in order that the handler's return would be.
                self.end(FailureCode::Deadline, "");
                return Err(Gone);
            }
            Some(To::Away { responder, fingerprint, tag }) => {
                match encode_reply(responder.accept(), *fingerprint, &part) {
                    Ok((encoding, bytes)) => {
                        let sent = responder.part(Payload { tag: *tag, encoding, bytes }).await;
                        if sent.is_err() {
                            // Not the end in order that the handler's return would be.
                            self.end(FailureCode::Deadline, "");
                        }
                        return sent;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Some(To::Nobody) | None => return Err(Gone),
        };
        if let Some(To::Away { responder, .. }) = self.to.take() {
            responder.fail(Failure::new(FailureCode::BadReply, reason));
        }
        Err(Gone)
    }

    /// When nobody takes parts any more; `None` where the message was told.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Becomes ready when nobody takes parts any more.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn unwanted(&self) {
        match &self.to {
            Some(To::Here(sender)) => match self.deadline {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), sender.closed()).await;
                }
                None => sender.closed().await,
            },
            Some(To::Away { responder, .. }) => responder.cancelled().await,
            Some(To::Nobody) | None => {}
        }
    }

    /// Ends the stream in order.
    pub fn finish(mut self) {
        if let Some(To::Away { responder, .. }) = self.to.take() {
            responder.finish();
        }
    }

    /// Breaks the stream off, and says why.
    pub fn fail(mut self, reason: &str) {
        self.end(FailureCode::NoReply, reason);
    }

    fn end(&mut self, code: FailureCode, reason: &str) {
        match self.to.take() {
            Some(To::Here(sender)) => {
                let failure = Failure::new(code, reason);
                let last = Err(Unanswered { failure, message: None });
                match sender.try_send(last) {
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    // The failure has to wait for the taker, and its handler need not.
                    Err(mpsc::error::TrySendError::Full(last)) => {
                        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                            runtime.spawn(async move { sender.send(last).await });
                        }
                    }
                }
            }
            Some(To::Away { responder, .. }) => responder.fail(Failure::new(code, reason)),
            Some(To::Nobody) | None => {}
        }
    }
}

impl<R: Data> Drop for Outlet<R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end(FailureCode::Panicked, "the handler panicked");
        } else {
            self.end(FailureCode::NoReply, "the stream broke off");
        }
    }
}

impl<M: Message> Packet<M> {
    /// The message and where its parts go; `None` when nobody waits any more, or the asker takes no
    /// parts, and is told so.
    #[must_use]
    pub fn into_stream(self) -> Option<(M, Outlet<M::Reply>)> {
        let (message, back) = self.take()?;
        if !back.is_wanted() {
            back.fail(FailureCode::Deadline, "", None);
            return None;
        }
        let deadline = back.deadline();
        let to = match back {
            Back::Nobody { .. } => To::Nobody,
            Back::Stream { sender, .. } => To::Here(sender),
            Back::Away { responder, fingerprint, tag } if responder.takes_parts() => {
                To::Away { responder, fingerprint, tag }
            }
            back @ (Back::Here(_) | Back::Away { .. }) => {
                let why = format!("`{}`, which is answered in parts: use `stream`", M::NAME);
                back.fail(FailureCode::NotHandled, &why, Some(Box::new(message)));
                return None;
            }
        };
        Some((message, Outlet { to: Some(to), deadline }))
    }

    /// As [`into_stream`](Self::into_stream), for a handler.
    #[doc(hidden)]
    #[must_use]
    pub fn begin_stream(self) -> Option<(M, Outlet<M::Reply>)> {
        let trace = self.trace();
        let parts = self.into_stream()?;
        crate::here::begin(parts.1.deadline(), trace);
        Some(parts)
    }
}

/// The parts of a reply, as they come. Dropping it takes the ask back.
pub struct Replies<R> {
    from: From<R>,
    to: AnyAddress,
    deadline: Pin<Box<tokio::time::Sleep>>,
    over: bool,
}

enum From<R> {
    Here(mpsc::Receiver<Result<R, Unanswered>>),
    There { parts: Parts, remote: std::sync::Arc<Remote> },
}

impl<R: Data> Replies<R> {
    /// The next part; `None` after the last one. One error may come, and then `None`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn next(&mut self) -> Option<Result<R, AskError>> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }

    /// All parts.
    ///
    /// # Errors
    /// Why there are not all.
    pub async fn collect(mut self) -> Result<Vec<R>, AskError> {
        let mut all = Vec::new();
        while let Some(part) = self.next().await {
            all.push(part?);
        }
        Ok(all)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<R, AskError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let part = match &mut self.from {
            From::Here(receiver) => receiver.poll_recv(cx).map(|part| {
                part.map(|part| {
                    part.map_err(|Unanswered { failure, .. }| {
                        AskError::from_failure(|| self.to.id(), failure)
                    })
                })
            }),
            From::There { parts, remote } => parts.poll_next(cx).map(|part| {
                part.map(|part| match part {
                    Ok(payload) => remote.decode(&payload),
                    Err(failure) => Err(from_ask_failure(|| remote.addr.clone(), failure)),
                })
            }),
        };
        match part {
            Poll::Ready(part) => {
                self.over = !matches!(part, Some(Ok(_)));
                Poll::Ready(part)
            }
            Poll::Pending if self.deadline.as_mut().poll(cx).is_ready() => {
                self.over = true;
                Poll::Ready(Some(Err(AskError::Deadline)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<R: Data> futures_util::Stream for Replies<R> {
    type Item = Result<R, AskError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_part(cx)
    }
}

impl<R> Unpin for Replies<R> {}

impl<T: ?Sized> Address<T> {
    /// Asks for a reply in parts, which takes at most [`STREAM_DEADLINE`]; inside of a handler no longer
    /// than the one who waits for that handler. Ready when the ask is on its way.
    ///
    /// # Errors
    /// [`AskError`] where it could not be sent; what happens later comes with the parts.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn stream<M: Message>(&self, message: M) -> Result<Replies<M::Reply>, AskError>
    where
        T: Accepts<M>,
    {
        self.stream_by(message, deadline_in(STREAM_DEADLINE)).await
    }

    /// As [`stream`](Self::stream), until a point in time.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub async fn stream_by<M: Message>(
        &self,
        message: M,
        deadline: Instant,
    ) -> Result<Replies<M::Reply>, AskError>
    where
        T: Accepts<M>,
    {
        const { assert!(M::STREAM, "this message has one reply: use `ask`") };
        let to = || self.id();
        let from = match (self.inlet(), self.remote()) {
            (Some(inlet), _) => {
                let (sender, receiver) = mpsc::channel(STREAM);
                let back = Back::Stream { sender, deadline, trace: crate::here::trace() };
                let mut packet = Some(Packet::new(message, back));
                let mut offered = inlet.offer(&mut packet, false);
                if let Offered::Full = offered {
                    offered = match tokio::time::timeout_at(deadline.into(), room(inlet)).await {
                        Ok(Ok(())) => inlet.offer(&mut packet, true),
                        Ok(Err(())) => Offered::Stopped,
                        Err(_) => return Err(AskError::Deadline),
                    };
                }
                match offered {
                    Offered::Taken => From::Here(receiver),
                    Offered::NotHandled => {
                        let message = M::NAME.to_owned();
                        return Err(AskError::NotHandled { to: to(), message });
                    }
                    Offered::Stopped | Offered::Full => {
                        return Err(AskError::Stopped { to: to() });
                    }
                }
            }
            (None, Some(remote)) => {
                let parts = remote.stream(message, deadline).await?;
                From::There { parts, remote: remote.clone() }
            }
            (None, None) => return Err(AskError::Unbound { to: to() }),
        };
        let deadline = Box::pin(tokio::time::sleep_until(deadline.into()));
        Ok(Replies { from, to: self.any(), deadline, over: false })
    }
}

/// The parts of a reply as they travel. Dropping it takes the ask back.
pub struct EncodedReplies {
    parts: Parts,
    to: AnyAddress,
    /// What is held while parts come.
    held: Option<Box<dyn Send + Sync>>,
}

impl EncodedReplies {
    pub(crate) fn new(parts: Parts, to: AnyAddress) -> Self {
        Self { parts, to, held: None }
    }

    /// Holds something until the end.
    pub(crate) fn holding(mut self, what: impl Send + Sync + 'static) -> Self {
        self.held = Some(Box::new(what));
        self
    }

    /// The next part; `None` after the last one. One error may come, and then `None`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Payload, AskError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for hand-written futures.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Payload, AskError>>> {
        let part = std::task::ready!(self.parts.poll_next(cx));
        if !matches!(part, Some(Ok(_))) {
            self.held = None;
        }
        Poll::Ready(
            part.map(|part| part.map_err(|failure| from_ask_failure(|| self.to.id(), failure))),
        )
    }
}

impl Remote {
    /// Asks for parts.
    async fn stream<M: Message>(&self, message: M, deadline: Instant) -> Result<Parts, AskError> {
        let message = parking_lot::Mutex::new(message);
        let encode = |lane: &layercake_wire::Lane| {
            crate::remote::encode_for(Some(lane), &*message.lock())
                .map_err(|error| AskError::Unsendable { reason: error.to_string() })
        };
        self.exchange_parts(encode, M::describe().reply_fingerprint, deadline).await
    }

    pub(crate) async fn stream_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<Parts, AskError> {
        self.exchange_parts(|_| Ok(payload.clone()), accept, deadline).await
    }

    /// Once more on another link where the first had ended before anything was sent.
    async fn exchange_parts(
        &self,
        encode: impl Fn(&layercake_wire::Lane) -> Result<Payload, AskError>,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<Parts, AskError> {
        let mut again = true;
        loop {
            let lane = match tokio::time::timeout_at(deadline.into(), self.direct()).await {
                Ok(lane) => lane?,
                Err(_) => return Err(AskError::Deadline),
            };
            match lane.ask_stream(encode(&lane)?, accept, deadline, crate::here::trace()).await {
                Ok(parts) => return Ok(parts),
                Err(AskFailure::Unbegun(_)) if again => again = false,
                Err(failure) => {
                    let to: ActorAddr = self.addr.clone();
                    return Err(from_ask_failure(|| to, failure));
                }
            }
        }
    }

    async fn direct(&self) -> Result<std::sync::Arc<layercake_wire::Lane>, AskError> {
        match self.way().await? {
            crate::remote::Way::Direct(lane) => Ok(lane),
            crate::remote::Way::By(via) => Err(AskError::Unreachable {
                to: self.addr.clone(),
                reason: format!("only by a relay of {via}, which carries no streams"),
            }),
        }
    }
}
