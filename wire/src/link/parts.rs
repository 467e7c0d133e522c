//! Answers in parts: what the asker holds ([`Parts`]) and what limits the one who answers (a window).
//!
//! A part takes units of its stream's window, as [`units_of`] counts them, and gives them back when the
//! asker takes it. They come back a quarter of the window at a time, and no part
//! takes more than is left when all but that quarter has come back, so nobody waits for units that
//! are being gathered. The queue behind [`Parts`] therefore holds the window at most, and the
//! receiving core sees to it that it does. Within a process the same window is shared by both sides.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Sleep,
};

use super::{Command, units_of};
use crate::{
    inbound::AskFailure,
    payload::{Encoding, Payload, Tag},
};

/// Units of one stream: parts that the asker has not taken yet before the one who answers waits. A
/// part takes one unit and one more for each [`UNIT`](super::UNIT) bytes.
pub const PART_UNITS: u32 = 64;
/// Units that are gathered before they are given back.
const GATHERED: u32 = PART_UNITS / 4;
/// What the largest parts take.
const MOST: u32 = PART_UNITS - GATHERED + 1;

/// What a part takes of its stream's window.
pub(crate) fn part_units(payload: &Payload) -> u32 {
    units_of(payload).min(MOST)
}

/// In the place of a reply: there is no further part.
pub(crate) fn end() -> Payload {
    Payload { tag: Tag(0), encoding: Encoding::Json, bytes: Bytes::new() }
}

fn is_end(payload: &Payload) -> bool {
    payload.tag == Tag(0) && payload.bytes.is_empty()
}

/// What one stream may still send: its answering side's end.
#[derive(Debug)]
pub(crate) struct Window(Semaphore);

impl Window {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Semaphore::new(PART_UNITS as usize)))
    }

    /// Takes units if they are there now.
    pub(crate) fn try_take(&self, units: u32) -> bool {
        self.0.try_acquire_many(units).map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Waits for units; false when the stream has ended. Cancel safe: nothing is kept.
    pub(crate) async fn take(&self, units: u32) -> bool {
        self.0.acquire_many(units).await.map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    pub(crate) fn give_back(&self, units: u32) {
        // Never more than there were, whoever counts.
        let room = (PART_UNITS as usize).saturating_sub(self.0.available_permits());
        self.0.add_permits((units as usize).min(room));
    }

    /// Whoever waits for units, and everybody later, gets none.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Window {}

/// What reaches the asker.
enum Arrival {
    Part { id: u64, units: u32, payload: Payload },
    End,
    Failed(AskFailure),
}

/// Where the parts of one stream go in.
pub(crate) struct Inlet {
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// Units that the other side may still use.
    left: u32,
}

impl Inlet {
    /// An inlet whose asker gives units back by commands to its link.
    pub(crate) fn over_link(commands: mpsc::UnboundedSender<Command>) -> (Self, Parts) {
        Self::to(Back::Link(commands))
    }

    fn to(back: Back) -> (Self, Parts) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let parts = Parts { arrivals, back, gathered: 0, over: false, timer: None };
        (Self { arrivals: sender, left: PART_UNITS }, parts)
    }

    /// Hands a part over; false when it exceeds the window, and then it does not.
    #[must_use]
    pub(crate) fn part(&mut self, id: u64, payload: Payload) -> bool {
        let units = part_units(&payload);
        let Some(left) = self.left.checked_sub(units) else { return false };
        self.left = left;
        let _ = self.arrivals.send(Arrival::Part { id, units, payload });
        true
    }

    /// The asker has given units back; they are on their way to the other side.
    pub(crate) fn give_back(&mut self, units: u32) {
        self.left = self.left.saturating_add(units).min(PART_UNITS);
    }

    /// Whether the asker has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.arrivals.is_closed()
    }

    /// Ends the stream by its reply or with why there is none.
    pub(crate) fn end(self, answer: Result<Payload, AskFailure>) {
        finish(&self.arrivals, answer);
    }
}

fn finish(arrivals: &mpsc::UnboundedSender<Arrival>, answer: Result<Payload, AskFailure>) {
    let last = match answer {
        // A last part needs no window: one for each stream.
        Ok(payload) if !is_end(&payload) => {
            let _ = arrivals.send(Arrival::Part { id: 0, units: 0, payload });
            Arrival::End
        }
        Ok(_) => Arrival::End,
        Err(failure) => Arrival::Failed(failure),
    };
    let _ = arrivals.send(last);
}

/// The answering side of a stream within this process.
pub(crate) struct LocalInlet {
    arrivals: mpsc::UnboundedSender<Arrival>,
    window: Arc<Window>,
}

impl LocalInlet {
    pub(crate) fn new(deadline: Instant) -> (Self, Parts) {
        let window = Window::new();
        let (inlet, parts) = Inlet::to(Back::Here { window: window.clone(), deadline });
        (Self { arrivals: inlet.arrivals, window }, parts)
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Hands over a part whose units have been taken; false when the asker has gone.
    pub(crate) fn part(&self, payload: Payload, units: u32) -> bool {
        self.arrivals.send(Arrival::Part { id: 0, units, payload }).is_ok()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.arrivals.is_closed()
    }

    /// Waits until the asker has gone.
    pub(crate) async fn closed(&self) {
        self.arrivals.closed().await;
    }

    pub(crate) fn end(self, answer: Result<Payload, AskFailure>) {
        finish(&self.arrivals, answer);
    }
}

/// Where units go back to.
enum Back {
    Link(mpsc::UnboundedSender<Command>),
    Here { window: Arc<Window>, deadline: Instant },
}

/// The answer to a streaming ask, part by part in order.
///
/// A slow taker holds the one who answers back: at most [`PART_UNITS`] wait here. Dropping it before
/// its end cancels the ask.
pub struct Parts {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    back: Back,
    /// Units of parts that were taken and are not given back yet.
    gathered: u32,
    over: bool,
    /// Within a process nobody else watches the deadline.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Parts {
    /// The next part; `None` after the last one. What went wrong comes once, behind the parts that
    /// came before it, and then `None`.
    ///
    /// # Errors
    /// [`AskFailure`]: the other side failed, the deadline passed, or the link went away.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, no part is lost.
    pub async fn next(&mut self) -> Option<Result<Payload, AskFailure>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for hand-written futures. A stream within a process sets a timer:
    /// it needs a tokio runtime with time.
    ///
    /// # Errors
    /// As `next`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Payload, AskFailure>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let failure = match self.arrivals.poll_recv(cx) {
            Poll::Ready(Some(Arrival::Part { id, units, payload })) => {
                self.give_back(id, units);
                return Poll::Ready(Some(Ok(payload)));
            }
            Poll::Ready(Some(Arrival::End)) => {
                self.finish();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Arrival::Failed(failure))) => failure,
            Poll::Ready(None) => AskFailure::Lost("the link ended".to_owned()),
            Poll::Pending => {
                let Back::Here { deadline, .. } = self.back else { return Poll::Pending };
                let timer = self
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => AskFailure::Deadline,
                    Poll::Pending => return Poll::Pending,
                }
            }
        };
        self.finish();
        Poll::Ready(Some(Err(failure)))
    }

    fn give_back(&mut self, id: u64, units: u32) {
        self.gathered += units;
        if self.gathered < GATHERED {
            return;
        }
        let units = std::mem::take(&mut self.gathered);
        match &self.back {
            Back::Link(commands) => {
                let _ = commands.send(Command::More { id, units });
            }
            Back::Here { window, .. } => window.give_back(units),
        }
    }

    /// Nothing further is wanted.
    fn finish(&mut self) {
        self.over = true;
        self.arrivals.close();
        self.timer = None;
        if let Back::Here { window, .. } = &self.back {
            window.close();
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("over", &self.over).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, time::Duration};

    use tokio::sync::oneshot;

    use super::*;
    use crate::{Failure, FailureCode, Gone, Responder, clock, payload::Fingerprint};

    fn payload(size: usize) -> Payload {
        Payload { tag: Tag(7), encoding: Encoding::Json, bytes: vec![1; size].into() }
    }

    fn stream(within: Duration) -> (Responder, Parts) {
        Responder::local_stream(Fingerprint::NONE, clock::now() + within)
    }

    /// Polls once.
    async fn is_ready(future: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_ready())).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn within_a_process_a_slow_taker_holds_the_producer_back() {
        let (responder, mut parts) = stream(LONG);
        assert!(responder.takes_parts() && responder.is_wanted());
        for _ in 0..PART_UNITS {
            assert!(is_ready(&mut Box::pin(responder.part(payload(1)))).await);
        }
        let mut held = Box::pin(responder.part(payload(2)));
        assert!(!is_ready(&mut held).await);
        for _ in 0..GATHERED {
            parts.next().await.expect("a part").expect("a part");
        }
        assert_eq!(held.await, Ok(()));
        responder.finish();
        let mut rest = 0;
        while let Some(part) = parts.next().await {
            rest += 1;
            part.expect("a part");
        }
        assert_eq!(rest, PART_UNITS - GATHERED + 1);
    }

    #[tokio::test]
    async fn the_largest_parts_take_turns_with_small_ones() {
        let (responder, mut parts) = stream(LONG);
        let produce = async {
            for n in 0..40 {
                let size = if n % 3 == 0 { 4 << 20 } else { 1 };
                responder.part(payload(size)).await.expect("taken");
            }
            responder.reply(payload(9));
        };
        let take = async {
            let mut sizes = Vec::new();
            while let Some(part) = parts.next().await {
                sizes.push(part.expect("a part").bytes.len());
            }
            sizes
        };
        let ((), sizes) = tokio::join!(produce, take);
        assert_eq!((sizes.len(), sizes[39], sizes[40]), (41, 4 << 20, 9));
    }

    #[tokio::test]
    async fn a_taker_that_goes_away_wakes_the_producer() {
        let (responder, parts) = stream(LONG);
        while is_ready(&mut Box::pin(responder.part(payload(1)))).await {}
        let (mut held, mut gone) =
            (Box::pin(responder.part(payload(1))), Box::pin(responder.cancelled()));
        assert!(!is_ready(&mut held).await && !is_ready(&mut gone).await);
        drop(parts);
        assert_eq!(held.await, Err(Gone));
        gone.await;
        assert!(!responder.is_wanted());
    }

    #[tokio::test]
    async fn the_deadline_ends_both_sides() {
        let (responder, mut parts) = stream(Duration::from_millis(50));
        responder.part(payload(1)).await.expect("in time");
        parts.next().await.expect("a part").expect("a part");
        let ((), end) = tokio::join!(responder.cancelled(), parts.next());
        assert_eq!(end, Some(Err(AskFailure::Deadline)));
        assert_eq!(parts.next().await, None);
        assert_eq!(responder.part(payload(1)).await, Err(Gone));
    }

    #[tokio::test]
    async fn a_failure_comes_once_and_a_dropped_responder_is_one() {
        let (responder, mut parts) = stream(LONG);
        responder.fail(Failure::new(FailureCode::Busy, ""));
        assert!(matches!(parts.next().await, Some(Err(AskFailure::Failed(_)))));
        assert_eq!(parts.next().await, None);
        let (responder, mut parts) = stream(LONG);
        drop(responder);
        let Some(Err(AskFailure::Failed(failure))) = parts.next().await else { panic!("no end") };
        assert_eq!(failure.code, FailureCode::NoReply);
    }

    #[tokio::test]
    async fn a_single_answer_has_no_parts_and_any_number_may_wait_for_its_asker() {
        let (slot, answer) = oneshot::channel();
        let responder = Responder::local(slot, Fingerprint::NONE, clock::now() + LONG);
        assert!(!responder.takes_parts());
        assert_eq!(responder.part(payload(1)).await, Err(Gone));
        {
            let mut waits: Vec<_> = (0..3).map(|_| Box::pin(responder.cancelled())).collect();
            for wait in &mut waits {
                assert!(!is_ready(wait).await);
            }
            // The first goes, the others go on waiting.
            drop(waits.remove(0));
            let waits = futures_util::future::join_all(waits);
            let ((), _) = tokio::join!(async { drop(answer) }, waits);
        }
        assert!(!responder.is_wanted());
        let (slot, answer) = oneshot::channel();
        Responder::local(slot, Fingerprint::NONE, clock::now() + LONG).finish();
        let code = |answer| match answer {
            Ok(Err(AskFailure::Failed(failure))) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(answer.await), FailureCode::NoReply);
        // Given up at the deadline, it says why.
        let (slot, answer) = oneshot::channel();
        let responder = Responder::local(slot, Fingerprint::NONE, clock::now());
        responder.cancelled().await;
        drop(responder);
        assert_eq!(code(answer.await), FailureCode::Deadline);
    }
}
