//! The requests of one HTTP/2 connection.
//!
//! In a runtime of one thread they are all worked on in the connection's own task: what they answer in one turn
//! is written at once, and none costs a task of its own. In one of several threads each has its task, so that
//! what computes for long holds up none of the others.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{
    FutureExt,
    future::CatchUnwind,
    stream::{FuturesUnordered, StreamExt},
    task::AtomicWaker,
};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Turns of a connection before others have theirs.
const TURNS: usize = 4;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the requests that a connection reads; its executor.
#[derive(Clone)]
pub(super) enum Requests {
    /// They are worked on in the connection's task; here they wait for it.
    Here(Arc<Mutex<Read>>),
    /// Each has a task of its own.
    Apart,
}

/// What was read in the present turn.
pub(super) struct Read {
    requests: Vec<Request>,
    most: usize,
}

impl Requests {
    /// As it suits the present runtime. A connection may have so many requests at a time.
    pub(super) fn new(most: usize) -> Self {
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => Self::here(most),
            _ => Self::Apart,
        }
    }

    fn here(most: usize) -> Self {
        Self::Here(Arc::new(Mutex::new(Read { requests: Vec::new(), most })))
    }

    /// Those that were read since.
    fn take(&self) -> Vec<Request> {
        match self {
            Self::Here(read) => std::mem::take(&mut read.lock().requests),
            Self::Apart => Vec::new(),
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Requests {
    fn execute(&self, request: F) {
        match self {
            Self::Here(read) => {
                let mut read = read.lock();
                // More at a time come only from who takes them back as fast: then they are reset.
                if read.requests.len() < read.most {
                    read.requests.push(Box::pin(request));
                }
            }
            Self::Apart => drop(tokio::spawn(request)),
        }
    }
}

/// A connection and its requests, where they are worked on here. Ready when the connection is; what it has
/// not answered by then is given up.
pub(super) struct Multiplexed<C> {
    connection: Pin<Box<C>>,
    read: Requests,
    under_way: FuturesUnordered<CatchUnwind<AssertUnwindSafe<Request>>>,
    due: Arc<Due>,
    waker: Waker,
}

impl<C: Future> Multiplexed<C> {
    /// Of a connection that was made with that executor.
    pub(super) fn new(connection: C, read: Requests) -> Self {
        let due = Arc::new(Due { state: AtomicU8::new(DUE), task: AtomicWaker::new() });
        let waker = due.clone().into();
        let under_way = FuturesUnordered::new();
        Self { connection: Box::pin(connection), read, under_way, due, waker }
    }

    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        // Whatever is done with it is to be seen to.
        self.due.state.store(DUE, Ordering::Release);
        self.get_mut().connection.as_mut()
    }
}

impl<C: Future> Future for Multiplexed<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        this.due.task.register(cx.waker());
        this.due.hold();
        for _ in 0..TURNS {
            // What they answer is then written by the connection. A request that panics is closed like one
            // that was given up.
            while let Poll::Ready(Some(_)) = this.under_way.poll_next_unpin(cx) {}
            if this.due.take() {
                let turn = this.connection.as_mut().poll(&mut Context::from_waker(&this.waker));
                if turn.is_ready() {
                    return turn;
                }
                let read = this.read.take();
                if !read.is_empty() {
                    let read =
                        read.into_iter().map(|request| AssertUnwindSafe(request).catch_unwind());
                    this.under_way.extend(read);
                    continue;
                }
            }
            if this.due.rest() {
                return Poll::Pending;
            }
        }
        this.due.state.store(DUE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<C> Drop for Multiplexed<C> {
    fn drop(&mut self) {
        // They hold the executor, which holds them.
        drop(self.read.take());
    }
}

/// Whether the connection has something to do: it is told so by its requests, too, which run in the same
/// task and need not wake it.
struct Due {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Due {
    /// From here on the task looks after it.
    fn hold(&self) {
        let _ = self.state.compare_exchange(IDLE, BUSY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether it was due, which it is no more.
    fn take(&self) -> bool {
        self.state.swap(BUSY, Ordering::AcqRel) == DUE
    }

    /// The task looks no more, unless it is due again.
    fn rest(&self) -> bool {
        self.state.compare_exchange(BUSY, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

const IDLE: u8 = 0;
/// The task looks after it, and will look again if it is due by then.
const BUSY: u8 = 1;
const DUE: u8 = 2;

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(DUE, Ordering::AcqRel) == IDLE {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use hyper::rt::Executor;
    use tokio::sync::Semaphore;

    use super::*;

    /// The task, which counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What a connection and its requests have done.
    struct Seen {
        turns: AtomicUsize,
        connection: AtomicWaker,
        /// A request answers with a permit.
        gate: Semaphore,
        answers: AtomicUsize,
    }

    /// A connection that reads some requests in its first turn.
    fn connection(requests: usize) -> (Multiplexed<impl Future<Output = ()>>, Arc<Seen>) {
        let seen = Arc::new(Seen {
            turns: AtomicUsize::new(0),
            connection: AtomicWaker::new(),
            gate: Semaphore::new(0),
            answers: AtomicUsize::new(0),
        });
        let (read, all) = (Requests::here(8), seen.clone());
        let spawn = read.clone();
        let connection = poll_fn(move |cx| {
            all.connection.register(cx.waker());
            if all.turns.fetch_add(1, Ordering::SeqCst) == 0 {
                for _ in 0..requests {
                    let seen = all.clone();
                    spawn.execute(async move {
                        seen.gate.acquire().await.unwrap().forget();
                        seen.answers.fetch_add(1, Ordering::SeqCst);
                        seen.connection.wake();
                    });
                }
            }
            Poll::<()>::Pending
        });
        (Multiplexed::new(connection, read), seen)
    }

    #[test]
    fn what_requests_answer_in_one_turn_is_written_in_one() {
        let (mut connection, seen) = connection(8);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut turn = || connection.poll_unpin(&mut Context::from_waker(&waker));
        assert!(turn().is_pending());
        assert_eq!(seen.turns.load(Ordering::SeqCst), 1);

        seen.gate.add_permits(8);
        assert_ne!(woken.0.swap(0, Ordering::SeqCst), 0);
        assert!(turn().is_pending());
        assert_eq!(seen.answers.load(Ordering::SeqCst), 8);
        assert_eq!(seen.turns.load(Ordering::SeqCst), 2, "all eight are written together");
        assert_eq!(woken.0.load(Ordering::SeqCst), 0, "the task need not be woken for it");

        // Not by chance: from outside the connection wakes it.
        seen.connection.wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(turn().is_pending());
        assert_eq!(seen.turns.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_connection_that_always_has_something_to_do_lets_others_have_their_turn() {
        let read = Requests::here(8);
        let connection = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut connection = Multiplexed::new(connection, read);
        assert!(connection.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "and then goes on");
    }

    #[test]
    fn requests_that_come_faster_than_they_can_be_under_way_are_not_kept() {
        let (mut connection, seen) = connection(100);
        assert!(connection.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        seen.gate.add_permits(100);
        assert!(connection.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(seen.answers.load(Ordering::SeqCst), 8);
    }

    #[test]
    fn a_connection_that_ends_takes_its_requests_along() {
        let (mut first, seen) = connection(3);
        assert!(first.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        // One that nobody has looked at yet, either.
        let unread = seen.clone();
        first.read.execute(async move { drop(unread) });
        assert!(Arc::strong_count(&seen) > 4);
        drop(first);
        assert_eq!(Arc::strong_count(&seen), 1);
    }
}
