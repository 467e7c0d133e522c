//! The answer slot of an ask within one process.
//!
//! Two hands hold it: the asker's, a future, and the answering one, which uses it once. A third one is
//! the node's watch over deadlines ([`crate::deadline`]), which ends it when its time has come. One
//! allocation for each ask, one short lock for each step.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use layercake_wire::{Failure, FailureCode};
use parking_lot::Mutex;

use crate::{
    deadline::{Deadlines, Expire},
    packet::Unanswered,
};

struct State<R> {
    /// There from the answer until it is taken.
    answer: Option<Result<R, Unanswered>>,
    /// Who waits for the answer.
    asker: Option<Waker>,
    /// Who waits for the asker's going away.
    answering: Option<Waker>,
}

pub(crate) struct Slot<R> {
    deadline: Instant,
    /// Until it is answered or the asker has gone. Changed under the lock, looked at without.
    open: AtomicBool,
    state: Mutex<State<R>>,
}

impl<R> Slot<R> {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Ends it with a result, unless it has ended.
    fn answer(&self, result: Result<R, Unanswered>) {
        let (asker, answering) = {
            let mut state = self.state.lock();
            if !self.is_open() {
                return;
            }
            state.answer = Some(result);
            self.open.store(false, Ordering::Release);
            (state.asker.take(), state.answering.take())
        };
        for waker in [asker, answering].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl<R: Send> Expire for Slot<R> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_open(&self) -> bool {
        Self::is_open(self)
    }

    fn expire(&self) {
        let failure = Failure::new(FailureCode::Deadline, "");
        self.answer(Err(Unanswered { failure, message: None }));
    }
}

/// A slot and its two hands.
pub(crate) fn slot<R: Send>(deadline: Instant) -> (Answering<R>, Waiting<R>) {
    let state = Mutex::new(State { answer: None, asker: None, answering: None });
    let slot = Arc::new(Slot { deadline, open: AtomicBool::new(true), state });
    (Answering(slot.clone()), Waiting { slot, watched: false })
}

/// The answering hand.
pub(crate) struct Answering<R>(Arc<Slot<R>>);

impl<R: Send> Answering<R> {
    /// Where nobody waits any more the answer is dropped.
    pub(crate) fn send(self, result: Result<R, Unanswered>) {
        self.0.answer(result);
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_open()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Ready when nobody waits any more.
    pub(crate) fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if !self.0.is_open() {
            return Poll::Ready(());
        }
        state.answering = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The asker's hand: the future of the answer. Dropped, it takes the ask back.
pub(crate) struct Waiting<R> {
    slot: Arc<Slot<R>>,
    watched: bool,
}

impl<R: Send + 'static> Waiting<R> {
    /// Waits for the answer, at most until the slot's deadline.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        deadlines: &Deadlines,
    ) -> Poll<Result<R, Unanswered>> {
        {
            let mut state = self.slot.state.lock();
            if let Some(answer) = state.answer.take() {
                return Poll::Ready(answer);
            }
            match &mut state.asker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                other => *other = Some(cx.waker().clone()),
            }
        }
        if !self.watched {
            self.watched = true;
            deadlines.watch(self.slot.clone());
        }
        Poll::Pending
    }
}

impl<R> Drop for Waiting<R> {
    fn drop(&mut self) {
        if !self.slot.is_open() {
            return;
        }
        let waker = {
            let mut state = self.slot.state.lock();
            self.slot.open.store(false, Ordering::Release);
            state.answering.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R> Unpin for Waiting<R> {}

/// A future from a hand and the watch over its deadline.
pub(crate) struct Answer<'a, R: Send + 'static> {
    pub(crate) waiting: Waiting<R>,
    pub(crate) deadlines: &'a Deadlines,
}

impl<R: Send + 'static> Future for Answer<'_, R> {
    type Output = Result<R, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.waiting.poll_answer(cx, this.deadlines)
    }
}
