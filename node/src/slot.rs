//! The answer slot of an ask within one process.
//!
//! Two hands hold it: the asker's, a future, and the answering one, which uses it once. A third one is
//! the node's watch over deadlines ([`crate::deadline`]), which ends it when its time has come. One
//! short lock for each step.
//!
//! A slot that was answered is used again by the next ask of its thread, so that an ask neither allocates
//! nor enters and leaves the watch's list: it is made and listed once. One that was given up, or that
//! ended by its deadline, is not: its answering hand may still look at it.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use layercake_wire::{Failure, FailureCode, trace::Trace};
use parking_lot::Mutex;

use crate::{
    deadline::{Deadlines, Expire},
    here,
    packet::Unanswered,
};

/// Unused slots of one type of reply that a thread keeps.
const KEPT: usize = 128;
/// Types of replies of which a thread keeps slots; the one not used for longest goes.
const KINDS: usize = 16;

struct State<R> {
    /// There once the asker waits, until it has ended.
    deadline: Option<Instant>,
    /// There from the answer until it is taken.
    answer: Option<Result<R, Unanswered>>,
    /// Whether the deadline has ended it, so that the answering hand may come yet.
    expired: bool,
    /// Who waits for the answer.
    asker: Option<Waker>,
    /// Who waits for the asker's going away.
    answering: Option<Waker>,
}

pub(crate) struct Slot<R> {
    /// The watch that has it on its list.
    home: u64,
    /// Until it is answered or the asker has gone. Changed under the lock, looked at without.
    open: AtomicBool,
    state: Mutex<State<R>>,
}

impl<R> Slot<R> {
    fn new(home: u64) -> Self {
        let (deadline, answer, asker, answering) = (None, None, None, None);
        let state = State { deadline, answer, expired: false, asker, answering };
        Self { home, open: AtomicBool::new(true), state: Mutex::new(state) }
    }

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
            self.end(&mut state, result)
        };
        for waker in [asker, answering].into_iter().flatten() {
            waker.wake();
        }
    }

    fn end(
        &self,
        state: &mut State<R>,
        result: Result<R, Unanswered>,
    ) -> (Option<Waker>, Option<Waker>) {
        state.answer = Some(result);
        state.deadline = None;
        self.open.store(false, Ordering::Release);
        (state.asker.take(), state.answering.take())
    }
}

impl<R: Send> Expire for Slot<R> {
    fn expire(&self, now: Instant) -> Option<Instant> {
        // Under the lock, which the asker takes before it tells of its deadline: so either this sees it,
        // or that sees when the watch wakes next.
        let (asker, answering) = {
            let mut state = self.state.lock();
            let deadline = state.deadline.filter(|_| self.is_open())?;
            if deadline > now {
                return Some(deadline);
            }
            state.expired = true;
            let failure = Failure::new(FailureCode::Deadline, "");
            self.end(&mut state, Err(Unanswered { failure, message: None }))
        };
        for waker in [asker, answering].into_iter().flatten() {
            waker.wake();
        }
        None
    }
}

/// The unused slots of a thread, by the type of their replies, the last used type first.
struct Unused(Vec<(TypeId, Box<dyn Any>)>);

thread_local! {
    static UNUSED: RefCell<Unused> = const { RefCell::new(Unused(Vec::new())) };
}

impl Unused {
    fn of<R: 'static>(&mut self) -> Option<&mut Vec<Arc<Slot<R>>>> {
        let kind = TypeId::of::<R>();
        let at = self.0.iter().position(|(other, _)| *other == kind)?;
        if at > 0 {
            self.0[..=at].rotate_right(1);
        }
        self.0.first_mut()?.1.downcast_mut()
    }

    fn keep<R: 'static>(&mut self, slot: Arc<Slot<R>>) {
        if let Some(slots) = self.of() {
            if slots.len() < KEPT {
                slots.push(slot);
            }
            return;
        }
        if self.0.len() >= KINDS {
            self.0.pop();
        }
        self.0.insert(0, (TypeId::of::<R>(), Box::new(vec![slot])));
    }
}

/// A slot that waits to be used again, or a new one.
fn open<R: Send + 'static>(deadlines: &Deadlines) -> Arc<Slot<R>> {
    let unused = UNUSED.try_with(|unused| unused.borrow_mut().of::<R>()?.pop());
    if let Some(slot) = unused.ok().flatten()
        && slot.home == deadlines.id()
    {
        slot.open.store(true, Ordering::Release);
        return slot;
    }
    let slot = Arc::new(Slot::new(deadlines.id()));
    deadlines.list(slot.clone());
    slot
}

/// A slot and its two hands.
pub(crate) fn slot<R: Send + 'static>(
    deadline: Instant,
    deadlines: &Deadlines,
) -> (Answering<R>, Waiting<R>) {
    let slot = open(deadlines);
    let waiting = Waiting { slot: Some(slot.clone()), deadline, watched: false };
    (Answering { slot, deadline, trace: here::trace() }, waiting)
}

/// The answering hand.
pub(crate) struct Answering<R> {
    slot: Arc<Slot<R>>,
    deadline: Instant,
    trace: Option<Arc<Trace>>,
}

impl<R: Send> Answering<R> {
    /// Where nobody waits any more the answer is dropped.
    pub(crate) fn send(self, result: Result<R, Unanswered>) {
        self.slot.answer(result);
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted(&self) -> bool {
        self.slot.is_open()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The trace that the ask is part of.
    pub(crate) fn trace(&self) -> Option<&Arc<Trace>> {
        self.trace.as_ref()
    }

    /// Ready when nobody waits any more.
    pub(crate) fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.slot.state.lock();
        if !self.slot.is_open() {
            return Poll::Ready(());
        }
        state.answering = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The asker's hand: the future of the answer. Dropped, it takes the ask back.
pub(crate) struct Waiting<R> {
    /// There until the answer has been taken.
    slot: Option<Arc<Slot<R>>>,
    deadline: Instant,
    watched: bool,
}

impl<R: Send + 'static> Waiting<R> {
    /// Waits for the answer, at most until the slot's deadline.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        deadlines: &Deadlines,
    ) -> Poll<Result<R, Unanswered>> {
        let Some(slot) = &self.slot else { return Poll::Pending };
        let answered = {
            let mut state = slot.state.lock();
            match state.answer.take() {
                Some(answer) => Some((answer, state.expired)),
                None => {
                    state.deadline = Some(self.deadline);
                    match &mut state.asker {
                        Some(waker) if waker.will_wake(cx.waker()) => {}
                        other => *other = Some(cx.waker().clone()),
                    }
                    None
                }
            }
        };
        if let Some((answer, expired)) = answered {
            if let Some(slot) = self.slot.take().filter(|_| !expired) {
                let _ = UNUSED.try_with(|unused| unused.borrow_mut().keep(slot));
            }
            return Poll::Ready(answer);
        }
        if !self.watched {
            self.watched = true;
            deadlines.watch(self.deadline);
        }
        Poll::Pending
    }
}

impl<R> Drop for Waiting<R> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // The watch may hold the slot for a while yet: nothing of this ask stays in it.
        let (_answer, _asker, waker) = {
            let mut state = slot.state.lock();
            slot.open.store(false, Ordering::Release);
            state.deadline = None;
            (state.answer.take(), state.asker.take(), state.answering.take())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn poll<R: Send + 'static>(
        waiting: &mut Waiting<R>,
        deadlines: &Deadlines,
    ) -> Poll<Result<R, Unanswered>> {
        waiting.poll_answer(&mut Context::from_waker(Waker::noop()), deadlines)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn an_answered_slot_serves_the_next_ask_of_its_node_and_of_no_other() {
        let (deadlines, others) = (Deadlines::new(), Deadlines::new());
        let (answering, mut waiting) = slot::<u32>(later(), &deadlines);
        let first = Arc::as_ptr(&answering.slot);
        assert!(poll(&mut waiting, &deadlines).is_pending());
        answering.send(Ok(1));
        assert!(matches!(poll(&mut waiting, &deadlines), Poll::Ready(Ok(1))));
        let (answering, mut waiting) = slot::<u32>(later(), &deadlines);
        assert_eq!(Arc::as_ptr(&answering.slot), first);
        assert!(answering.is_wanted() && poll(&mut waiting, &deadlines).is_pending());
        answering.send(Ok(2));
        assert!(matches!(poll(&mut waiting, &deadlines), Poll::Ready(Ok(2))));
        let (answering, _waiting) = slot::<u32>(later(), &others);
        assert_ne!(Arc::as_ptr(&answering.slot), first);
    }

    #[test]
    fn a_late_answer_never_meets_the_next_ask() {
        let deadlines = Deadlines::new();
        let (late, mut expired) = slot::<u32>(Instant::now(), &deadlines);
        assert!(poll(&mut expired, &deadlines).is_pending());
        late.slot.expire(Instant::now());
        assert!(matches!(poll(&mut expired, &deadlines), Poll::Ready(Err(_))));
        let (cancelled, given_up) = slot::<u32>(later(), &deadlines);
        drop(given_up);
        assert!(!cancelled.is_wanted());
        let (_answering, mut waiting) = slot::<u32>(later(), &deadlines);
        late.send(Ok(1));
        cancelled.send(Ok(2));
        assert!(poll(&mut waiting, &deadlines).is_pending());
    }

    #[test]
    fn a_used_slot_ends_by_its_new_deadline_only() {
        let deadlines = Deadlines::new();
        let soon = Instant::now();
        let (answering, mut waiting) = slot::<u32>(soon, &deadlines);
        assert!(poll(&mut waiting, &deadlines).is_pending());
        answering.send(Ok(1));
        assert!(poll(&mut waiting, &deadlines).is_ready());
        let at = later();
        let (answering, mut waiting) = slot::<u32>(at, &deadlines);
        assert_eq!(answering.slot.expire(soon), None, "nobody waits yet");
        assert!(poll(&mut waiting, &deadlines).is_pending());
        assert_eq!(answering.slot.expire(soon), Some(at));
        assert!(answering.is_wanted());
        assert_eq!(answering.slot.expire(at), None);
        assert!(!answering.is_wanted());
    }

    #[test]
    fn a_thread_keeps_few_unused_slots() {
        let deadlines = Deadlines::new();
        let asks: Vec<_> = (0..2 * KEPT).map(|_| slot::<u32>(later(), &deadlines)).collect();
        for (answering, mut waiting) in asks {
            answering.send(Ok(1));
            assert!(poll(&mut waiting, &deadlines).is_ready());
        }
        let kept = UNUSED.with_borrow_mut(|unused| unused.of::<u32>().map_or(0, |k| k.len()));
        assert_eq!(kept, KEPT);
    }
}
