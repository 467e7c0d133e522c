//! The answer slot of an ask within one process.
//!
//! Two hands hold it: the asker's, a future, and the answering one, which uses it once. A third one is
//! the node's watch over deadlines ([`crate::deadline`]), which ends it when its time has come. One
//! allocation for each ask, one short lock for each step.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use layercake_wire::{Failure, FailureCode};
use parking_lot::Mutex;

use crate::{
    deadline::{Deadlines, Expire},
    packet::Unanswered,
};

enum State<R> {
    /// Nobody has answered; who waits for that, and who waits for the asker's going away.
    Open {
        asker: Option<Waker>,
        answering: Option<Waker>,
    },
    Answered(Result<R, Unanswered>),
    /// Answered and taken, or the asker has gone.
    Closed,
}

pub(crate) struct Slot<R> {
    deadline: Instant,
    state: Mutex<State<R>>,
}

impl<R> Slot<R> {
    /// Ends it with a result; hands the result back where nobody waits any more.
    fn answer(&self, result: Result<R, Unanswered>) -> Result<(), Result<R, Unanswered>> {
        let (asker, answering) = {
            let mut state = self.state.lock();
            match &mut *state {
                State::Open { asker, answering } => {
                    let wakers = (asker.take(), answering.take());
                    *state = State::Answered(result);
                    wakers
                }
                State::Answered(_) | State::Closed => return Err(result),
            }
        };
        for waker in [asker, answering].into_iter().flatten() {
            waker.wake();
        }
        Ok(())
    }
}

impl<R: Send> Expire for Slot<R> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_open(&self) -> bool {
        matches!(*self.state.lock(), State::Open { .. })
    }

    fn expire(&self) {
        let failure = Failure::new(FailureCode::Deadline, "");
        let _ = self.answer(Err(Unanswered { failure, message: None }));
    }
}

/// A slot and its two hands.
pub(crate) fn slot<R: Send>(deadline: Instant) -> (Answering<R>, Waiting<R>) {
    let state = Mutex::new(State::Open { asker: None, answering: None });
    let slot = Arc::new(Slot { deadline, state });
    (Answering(slot.clone()), Waiting { slot, watched: false })
}

/// The answering hand.
pub(crate) struct Answering<R>(Arc<Slot<R>>);

impl<R: Send> Answering<R> {
    pub(crate) fn send(self, result: Result<R, Unanswered>) {
        // Where nobody waits any more the answer is dropped.
        let _ = self.0.answer(result);
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
        match &mut *self.0.state.lock() {
            State::Open { answering, .. } => {
                *answering = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Answered(_) | State::Closed => Poll::Ready(()),
        }
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
            match &mut *state {
                State::Open { asker, .. } => match asker {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    other => *other = Some(cx.waker().clone()),
                },
                State::Answered(_) => {
                    let State::Answered(result) = std::mem::replace(&mut *state, State::Closed)
                    else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(result);
                }
                // Polled again after it was ready.
                State::Closed => return Poll::Pending,
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
        let waker = {
            let mut state = self.slot.state.lock();
            match std::mem::replace(&mut *state, State::Closed) {
                State::Open { answering, .. } => answering,
                State::Answered(_) | State::Closed => None,
            }
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
