//! The life of an actor, whatever its kind: from its first moment to its last, in order.
//!
//! 1. `started`, then messages, timers and finished jobs, until it is asked to stop, finishes, fails or
//!    panics.
//! 2. The mailbox closes: what waits in it is ended with a reason.
//! 3. `stopping`, then its children stop, last started first, then `stopped`.
//! 4. Whoever watches is told how it ended.
//!
//! Ended in the middle (its task dropped), 2 and 4 still happen, and its children end the same way.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context as Poller, Poll},
};

use futures_util::FutureExt;

use super::{
    Actor, Brood, Context,
    context::Job,
    inbox::{Inbox, Letters},
};
use crate::{
    exit::Exit,
    here,
    mail::Mail,
    mailbox::{Asked, Envelope, Mailbox, path},
    node::STOP_GRACE,
};

/// Messages that an actor handles before other tasks of its thread have their turn: half a mailbox, so
/// that senders seldom find it full meanwhile.
const TURN: u32 = 512;

/// What a life is lived with: the mailbox, and the messages that were taken from it.
#[doc(hidden)]
pub struct Life<M: Mail> {
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) batch: VecDeque<Envelope<M>>,
    /// Whether its end is the actor's.
    owned: bool,
    /// Whether there may be a successor, for whom the mailbox stays open.
    pub(super) supervised: bool,
}

impl<M: Mail> Life<M> {
    pub(crate) fn new(mailbox: Arc<Mailbox<M>>) -> Self {
        Self { mailbox, batch: VecDeque::new(), owned: true, supervised: false }
    }

    /// One that only reads.
    pub(super) fn borrowed(mailbox: Arc<Mailbox<M>>) -> Self {
        Self { mailbox, batch: VecDeque::new(), owned: false, supervised: false }
    }

    /// Gives back what was taken and not begun, behind what is given here.
    pub(super) fn put_back(&mut self, first: impl Iterator<Item = M>) {
        let mut all: VecDeque<_> = first.map(Envelope::Local).collect();
        all.append(&mut self.batch);
        self.mailbox.put_back(all);
    }

    /// Takes no more messages, unless for a successor.
    pub(super) fn close(&mut self) {
        if self.supervised && self.mailbox.asked() != Asked::Stop {
            return;
        }
        self.mailbox.close();
        self.mailbox.end_all(std::mem::take(&mut self.batch));
    }

    /// Says how it ended.
    pub(crate) fn conclude(&mut self, exit: Exit) {
        self.supervised = false;
        self.close();
        if exit.is_failure() {
            tracing::error!(actor = path(&*self.mailbox), "{exit}");
        }
        self.mailbox.conclude(exit);
    }

    /// The next message that is there to be begun; parcels are decoded on the way.
    pub(crate) fn next_mail(&mut self) -> Option<M> {
        while let Some(envelope) = self.batch.pop_front() {
            match envelope {
                Envelope::Local(mail) => return Some(mail),
                Envelope::Parcel { parcel, .. } => {
                    if let Some(mail) = M::open(parcel) {
                        return Some(mail);
                    }
                }
            }
        }
        None
    }
}

impl<M: Mail> Drop for Life<M> {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        self.supervised = false;
        self.close();
        // Where it was concluded before this says nothing.
        self.mailbox.conclude(Exit::Aborted);
    }
}

/// Why messages are handled no more.
pub(super) enum Ended<T> {
    Asked,
    Exit(Exit, Option<T>),
}

enum Next<A: Actor> {
    Asked,
    Job(Job<A>),
    Mail(A::Mail),
}

/// What is next for an actor, where there is something: first what is asked of it, then what it waits for
/// itself (timers, jobs), then its mail.
fn next<A: Actor>(
    ctx: &mut Context<A>,
    life: &mut Life<A::Mail>,
    cx: &mut Poller<'_>,
) -> Option<Next<A>> {
    if life.mailbox.asked() != Asked::Nothing {
        return Some(Next::Asked);
    }
    if let Some(job) = ctx.poll_job(cx) {
        return Some(Next::Job(job));
    }
    // With so many jobs under way it takes no more mail, and so its senders wait.
    if ctx.is_busy() {
        return None;
    }
    ctx.next_deferred().or_else(|| life.next_mail()).map(Next::Mail)
}

/// As [`next`], also of what has come since mail was taken last.
fn next_or_take<A: Actor>(
    ctx: &mut Context<A>,
    life: &mut Life<A::Mail>,
    cx: &mut Poller<'_>,
) -> Option<Next<A>> {
    loop {
        if let Some(next) = next(ctx, life, cx) {
            return Some(next);
        }
        if ctx.is_busy() || !life.mailbox.try_take(&mut life.batch) {
            return None;
        }
    }
}

/// As [`next`], or waits until there is something.
fn poll_next<A: Actor>(
    ctx: &mut Context<A>,
    life: &mut Life<A::Mail>,
    cx: &mut Poller<'_>,
) -> Poll<Next<A>> {
    loop {
        if let Some(next) = next(ctx, life, cx) {
            return Poll::Ready(next);
        }
        let more = if ctx.is_busy() {
            life.mailbox.poll_asked(cx).map(drop)
        } else {
            life.mailbox.poll_take(cx, &mut life.batch)
        };
        if more.is_pending() {
            return Poll::Pending;
        }
    }
}

/// Handles messages until there is a reason not to.
pub(super) async fn serve<A: Actor>(
    actor: &mut A,
    ctx: &mut Context<A>,
    life: &mut Life<A::Mail>,
) -> Ended<A::Output> {
    let started = AssertUnwindSafe(actor.started(ctx)).catch_unwind();
    if let Err(panic) = Box::pin(started).await {
        return Ended::Exit(Exit::panicked(&*panic), None);
    }
    if let Some((exit, output)) = ctx.take_end() {
        return Ended::Exit(exit, output);
    }
    loop {
        let first = poll_fn(|cx| poll_next(ctx, life, cx)).await;
        // Boxed, so that an actor at rest has no room for its handlers' futures: a million of them are
        // cheap. One box serves all that is there to be handled.
        if let Some(ended) = Box::pin(burst(actor, ctx, life, first)).await {
            return ended;
        }
    }
}

/// Goes to the end of this thread's queue, once. (tokio's own `yield_now` waits for its driver as well, which
/// is a system call.)
async fn let_others_run() {
    let mut ran = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut ran, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Handles all that is there; whether, and how, the actor has ended by it.
async fn burst<A: Actor>(
    actor: &mut A,
    ctx: &mut Context<A>,
    life: &mut Life<A::Mail>,
    first: Next<A>,
) -> Option<Ended<A::Output>> {
    let mut at_hand = Some(first);
    let mut begun = 0_u32;
    while let Some(what) = at_hand.take() {
        let mail = match what {
            Next::Asked => return Some(Ended::Asked),
            Next::Mail(mail) => Some(mail),
            Next::Job(Job::Mail(mail, again)) => {
                ctx.go_on(again);
                Some(mail)
            }
            Next::Job(Job::Done) => None,
            Next::Job(Job::Then(then)) => {
                let then = AssertUnwindSafe(|| then(actor, ctx));
                if let Err(panic) = std::panic::catch_unwind(then) {
                    return Some(Ended::Exit(Exit::panicked(&*panic), None));
                }
                None
            }
        };
        if let Some(mail) = mail {
            let handled = AssertUnwindSafe(actor.handle(mail, ctx)).catch_unwind().await;
            if let Err(panic) = handled {
                return Some(Ended::Exit(Exit::panicked(&*panic), None));
            }
        }
        // What the handler asked was bound to its own caller; what comes now is not.
        here::begin(None, None);
        if let Some((exit, output)) = ctx.take_end() {
            return Some(Ended::Exit(exit, output));
        }
        begun += 1;
        if begun.is_multiple_of(TURN) {
            // Senders that never rest must not keep this thread from its other tasks.
            let_others_run().await;
        }
        at_hand = poll_fn(|cx| Poll::Ready(next_or_take(ctx, life, cx))).await;
        if at_hand.is_none() {
            // Who was answered may ask again at once: asked now, it need not wake anybody.
            let_others_run().await;
            at_hand = poll_fn(|cx| Poll::Ready(next_or_take(ctx, life, cx))).await;
        }
    }
    None
}

/// The hooks at the end, around the end of the children.
pub(super) async fn finish<A: Actor>(
    mut actor: A,
    mut ctx: Context<A>,
    life: &mut Life<A::Mail>,
    exit: Exit,
) -> Exit {
    // What was put off waits like any other mail: for a successor, or to be ended with a reason.
    for mail in ctx.take_deferred().rev() {
        life.batch.push_front(Envelope::Local(mail));
    }
    life.close();
    let mut sound = !matches!(exit, Exit::Panicked(_));
    let mut exit = exit;
    if sound && let Err(panic) = AssertUnwindSafe(actor.stopping(&mut ctx)).catch_unwind().await {
        exit = Exit::panicked(&*panic);
        sound = false;
    }
    ctx.stop_children(STOP_GRACE).await;
    if sound && let Err(panic) = AssertUnwindSafe(actor.stopped()).catch_unwind().await {
        exit = Exit::panicked(&*panic);
    }
    exit
}

pub(super) async fn by_handlers<A: Actor>(
    mut actor: A,
    life: &mut Life<A::Mail>,
) -> (Exit, Option<A::Output>) {
    let mut ctx = Context::new(life.mailbox.clone());
    let (exit, output) = match serve(&mut actor, &mut ctx, life).await {
        Ended::Asked => (Exit::Stopped, None),
        Ended::Exit(exit, output) => (exit, output),
    };
    // Boxed: it is needed once, and its size is not to be carried through the whole life.
    (Box::pin(finish(actor, ctx, life, exit)).await, output)
}

pub(super) async fn by_function<L, F, Fut>(
    function: F,
    life: &mut Life<L::Mail>,
) -> (Exit, Option<Fut::Output>)
where
    L: Letters,
    F: FnOnce(Inbox<L>) -> Fut,
    Fut: Future,
{
    let brood = Arc::new(parking_lot::Mutex::new(Brood::default()));
    let inbox = Inbox::new(life.mailbox.clone(), brood.clone());
    let result = AssertUnwindSafe(async { function(inbox).await }).catch_unwind().await;
    life.close();
    let mut children = std::mem::take(&mut *brood.lock());
    Box::pin(children.stop(STOP_GRACE)).await;
    match result {
        Ok(output) => (Exit::Finished, Some(output)),
        Err(panic) => (Exit::panicked(&*panic), None),
    }
}
