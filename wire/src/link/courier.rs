//! Takes answers to the runtime where they are waited for, many at a time.
//!
//! Waking a task from another thread costs a system call each time on tokio's current-thread runtime,
//! and a queue shared by all threads on the other one. The I/O thread therefore gathers the answers
//! of one read for each runtime and hands them to one task there, which fills the slots: those wakes
//! are local. With 64 askers on two cores this is 1.08 times the throughput; one alone does not notice.
//!
//! A courier's queue holds at most the asks in flight.

use std::cell::RefCell;

use tokio::{
    runtime::{Handle, Id},
    sync::mpsc,
};

use crate::{
    inbound::{AnswerSlot, AskFailure},
    payload::Payload,
};

/// An answer and where it goes.
pub(crate) type Answer = (AnswerSlot, Result<Payload, AskFailure>);

/// The way to a task that fills answer slots on its own runtime.
#[derive(Debug, Clone)]
pub(crate) struct Courier(mpsc::UnboundedSender<Vec<Answer>>);

thread_local! {
    /// The courier of the runtime that this thread worked for last.
    static HERE: RefCell<Option<(Id, Courier)>> = const { RefCell::new(None) };
}

impl Courier {
    /// The courier of the present runtime; `None` outside of any.
    pub(crate) fn here() -> Option<Self> {
        let handle = Handle::try_current().ok()?;
        HERE.with_borrow_mut(|here| match here {
            Some((id, courier)) if *id == handle.id() && !courier.0.is_closed() => {
                Some(courier.clone())
            }
            _ => {
                let courier = Self::start(&handle);
                *here = Some((handle.id(), courier.clone()));
                Some(courier)
            }
        })
    }

    /// Its task ends with its runtime, or with the last handle.
    fn start(handle: &Handle) -> Self {
        let (sender, mut queue) = mpsc::unbounded_channel();
        handle.spawn(async move {
            while let Some(answers) = queue.recv().await {
                fill(answers);
            }
        });
        Self(sender)
    }

    /// Whether both lead to the same task.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    /// Hands answers over; where the runtime is gone they are given here.
    pub(crate) fn deliver(&self, answers: Vec<Answer>) {
        if let Err(back) = self.0.send(answers) {
            fill(back.0);
        }
    }
}

fn fill(answers: Vec<Answer>) {
    for (slot, answer) in answers {
        // Where nobody waits any more the answer is dropped.
        let _ = slot.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    #[test]
    fn each_runtime_has_its_own_and_keeps_it() {
        assert!(Courier::here().is_none());
        let (one, two) = (runtime(), runtime());
        let first = one.block_on(async { Courier::here().expect("a runtime") });
        let again = one.block_on(async { Courier::here().expect("a runtime") });
        let other = two.block_on(async { Courier::here().expect("a runtime") });
        assert!(first.is(&again) && !first.is(&other));
    }

    #[test]
    fn answers_arrive_also_when_the_runtime_is_gone() {
        let here = runtime();
        let (slot, answer) = oneshot::channel();
        let courier = here.block_on(async {
            let courier = Courier::here().expect("a runtime");
            courier.deliver(vec![(slot, Err(AskFailure::Deadline))]);
            assert_eq!(answer.await, Ok(Err(AskFailure::Deadline)));
            courier
        });
        drop(here);
        let (slot, mut answer) = oneshot::channel();
        courier.deliver(vec![(slot, Err(AskFailure::Deadline))]);
        assert_eq!(answer.try_recv(), Ok(Err(AskFailure::Deadline)));
    }
}
