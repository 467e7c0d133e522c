//! On whose behalf a thread works: which node, and until when.
//!
//! Addresses that are decoded belong to the node of the moment, messages that are dropped are counted
//! there, and an ask made inside of a handler gets what is left of its caller's deadline. The values
//! are swapped in while a future is polled and out again, without touching a reference count.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use layercake_wire::{id::PeerId, trace::Trace};

use crate::node::Node;

#[derive(Default)]
pub(crate) struct Here {
    pub(crate) node: Option<Node>,
    /// The number of the actor that works; 0: none.
    actor: u64,
    /// When the message at hand has to be answered.
    pub(crate) deadline: Option<Instant>,
    /// Which node the message being decoded came from.
    pub(crate) via: Option<PeerId>,
    /// The trace that the message at hand is part of.
    trace: Option<Arc<Trace>>,
}

thread_local! {
    static HERE: RefCell<Here> = const {
        RefCell::new(Here { node: None, actor: 0, deadline: None, via: None, trace: None })
    };
}

fn swap(other: &mut Here) {
    HERE.with_borrow_mut(|here| std::mem::swap(here, other));
}

/// Works on behalf of a node.
pub(crate) fn within<R>(node: &Node, work: impl FnOnce() -> R) -> R {
    struct Back(Here);
    impl Drop for Back {
        fn drop(&mut self) {
            swap(&mut self.0);
        }
    }
    let mut back = Back(Here {
        node: Some(node.clone()),
        actor: actor(),
        deadline: deadline(),
        via: None,
        trace: trace(),
    });
    swap(&mut back.0);
    work()
}

/// The node that this thread works for.
pub(crate) fn node<R>(with: impl FnOnce(Option<&Node>) -> R) -> R {
    HERE.with_borrow(|here| with(here.node.as_ref()))
}

/// The number of the actor that this thread works for; 0: none.
pub(crate) fn actor() -> u64 {
    HERE.with_borrow(|here| here.actor)
}

/// When the message at hand has to be answered.
pub(crate) fn deadline() -> Option<Instant> {
    HERE.with_borrow(|here| here.deadline)
}

/// The trace that the message at hand is part of.
pub(crate) fn trace() -> Option<Arc<Trace>> {
    HERE.with_borrow(|here| here.trace.clone())
}

/// The trace that the message at hand is part of; of a message that nobody traces, or outside of any
/// handler, `None`. It began with a request to a front door, or with [`traced`], and goes along with every
/// ask made on its behalf.
#[must_use]
pub fn current_trace() -> Option<Trace> {
    HERE.with_borrow(|here| here.trace.as_deref().copied())
}

/// Sets the deadline and the trace of the message at hand.
pub(crate) fn begin(deadline: Option<Instant>, trace: Option<Arc<Trace>>) {
    HERE.with_borrow_mut(|here| {
        here.deadline = deadline;
        here.trace = trace;
    });
}

pin_project_lite::pin_project! {
    /// A future whose asks are part of a trace. Made by [`traced`].
    pub struct Traced<F> {
        #[pin]
        future: F,
        trace: Option<Arc<Trace>>,
    }
}

/// Makes the asks of a future part of a trace, or of none.
pub fn traced<F: Future>(trace: impl Into<Option<Trace>>, future: F) -> Traced<F> {
    Traced { future, trace: trace.into().map(Arc::new) }
}

impl<F: Future> Future for Traced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        fn swap(trace: &mut Option<Arc<Trace>>) {
            HERE.with_borrow_mut(|here| std::mem::swap(&mut here.trace, trace));
        }
        /// Puts things back also when the future panics.
        struct Back<'a>(&'a mut Option<Arc<Trace>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                swap(self.0);
            }
        }
        let this = self.project();
        swap(this.trace);
        let _back = Back(this.trace);
        this.future.poll(cx)
    }
}

/// The node that the message being decoded came from.
pub(crate) fn via() -> Option<PeerId> {
    HERE.with_borrow(|here| here.via)
}

/// Decodes what came from a node.
pub(crate) fn from_node<R>(via: Option<PeerId>, decode: impl FnOnce() -> R) -> R {
    let before = HERE.with_borrow_mut(|here| std::mem::replace(&mut here.via, via));
    let result = decode();
    HERE.with_borrow_mut(|here| here.via = before);
    result
}

pin_project_lite::pin_project! {
    /// A future that works on behalf of a node, whoever polls it.
    pub(crate) struct Scoped<F> {
        #[pin]
        future: F,
        here: Here,
    }
}

impl<F> Scoped<F> {
    pub(crate) fn new(future: F, node: Node, deadline: Option<Instant>) -> Self {
        let here = Here { node: Some(node), actor: 0, deadline, via: None, trace: None };
        Self { future, here }
    }

    /// Part of the trace of the moment.
    pub(crate) fn traced(mut self) -> Self {
        self.here.trace = trace();
        self
    }

    /// Within an actor of that number.
    pub(crate) fn of_actor(mut self, actor: u64) -> Self {
        self.here.actor = actor;
        self
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Puts things back also when the future panics.
        struct Back<'a>(&'a mut Here);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                swap(self.0);
            }
        }
        let this = self.project();
        swap(this.here);
        let _back = Back(this.here);
        this.future.poll(cx)
    }
}
