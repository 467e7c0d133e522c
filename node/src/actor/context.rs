//! What a handler may use of its surroundings: its node, its address, children, timers, and jobs that go
//! on while the actor handles other messages.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll},
    time::{Duration, Instant},
};

use futures_util::{Stream, stream::FuturesUnordered};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use super::{Accepts, Actor, Brood, Running, Spawn};
use crate::{
    address::Address,
    clock,
    exit::Exit,
    here::{self, Scoped},
    mail::Mail,
    mailbox::{Inlet, Mailbox},
    message::Message,
    node::Node,
    packet::Packet,
};

/// Jobs and timers of one actor under way at a time; from there on it takes no mail until some are done.
pub const JOBS: usize = 16_384;

type Then<A> = Box<dyn FnOnce(&mut A, &mut Context<A>) + Send>;
type Work<A> = Pin<Box<dyn Future<Output = Job<A>> + Send>>;

/// What a job has come to.
pub(super) enum Job<A: Actor> {
    Done,
    Then(Then<A>),
    /// A message for the actor itself, and what goes on.
    Mail(A::Mail, Option<Work<A>>),
}

/// What a handler may use of its surroundings.
pub struct Context<A: Actor> {
    address: Address<A>,
    /// Made when first needed: most actors have neither children, nor jobs, nor timers.
    extra: Option<Box<Extra<A>>>,
}

struct Extra<A: Actor> {
    jobs: FuturesUnordered<Work<A>>,
    timers: HashMap<Cow<'static, str>, CancellationToken>,
    brood: Brood,
    /// Messages that a machine has put off, and those of them that are due again.
    deferred: VecDeque<A::Mail>,
    due: VecDeque<A::Mail>,
    end: Option<(Exit, Option<A::Output>)>,
}

impl<A: Actor> Context<A> {
    pub(super) fn new(mailbox: Arc<Mailbox<A::Mail>>) -> Self {
        Self { address: Address::here(mailbox), extra: None }
    }

    fn extra(&mut self) -> &mut Extra<A> {
        self.extra.get_or_insert_with(|| {
            Box::new(Extra {
                jobs: FuturesUnordered::new(),
                timers: HashMap::new(),
                brood: Brood::default(),
                deferred: VecDeque::new(),
                due: VecDeque::new(),
                end: None,
            })
        })
    }

    fn inlet(&self) -> &Arc<dyn Inlet> {
        self.address.inlet().expect("an actor's own address is local")
    }

    /// The node that the actor lives in.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.inlet().node()
    }

    /// The actor's own address, to be given to others.
    #[must_use]
    pub fn address(&self) -> &Address<A> {
        &self.address
    }

    /// Where the actor is in the tree of its node, for logs: `7f3a/Manager.12/Worker.13`.
    #[must_use]
    pub fn path(&self) -> String {
        self.address.path()
    }

    /// Ends the actor after this handler. What waits in its mailbox is answered with `Stopped`.
    pub fn stop(&self) {
        self.inlet().stop();
    }

    /// Ends the actor after this handler, and leaves a value to whoever joined it.
    pub fn finish(&mut self, output: A::Output) {
        self.extra().end = Some((Exit::Finished, Some(output)));
    }

    /// Ends the actor after this handler as one that has failed: a supervisor starts it anew, whoever
    /// is linked to it ends too.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.extra().end = Some((Exit::Failed(reason.into()), None));
    }

    /// When the message at hand has to be answered; `None` for one that was told. Asks that a handler
    /// makes end at that time by themselves.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        here::deadline()
    }

    /// Starts a child: it ends before this actor does.
    pub fn spawn<S, W>(&mut self, child: S) -> Address<S::Takes>
    where
        S: Spawn<W>,
        W: 'static,
    {
        self.launch(child).address
    }

    /// Starts a child, to be joined for what it leaves.
    pub fn launch<S, W>(&mut self, child: S) -> Running<S::Takes, S::Output>
    where
        S: Spawn<W>,
        W: 'static,
    {
        let running = self.node().launch_under(child, Some(self.inlet().clone()));
        if let Some(inlet) = running.address.inlet() {
            let inlet = inlet.clone();
            self.extra().brood.add(inlet);
        }
        running
    }

    /// Adopts an actor that was started under this one.
    pub(crate) fn adopt(&mut self, child: Arc<dyn Inlet>) {
        self.extra().brood.add(child);
    }

    /// Begins a supervisor as a child of this actor.
    pub fn supervise(&mut self, strategy: super::Strategy) -> super::SupervisorBuilder<'_> {
        let (node, parent) = (self.node().clone(), self.inlet().clone());
        let adopt = move |child| self.adopt(child);
        super::SupervisorBuilder::new(node, strategy, Some(parent), Some(Box::new(adopt)))
    }

    /// Ends this actor, as failed, when the other one ends in a failure, on whichever node it lives.
    pub fn link<T: ?Sized>(&mut self, other: &Address<T>) {
        let (watch, name) = (self.node().watch(other), format!("{other:?}"));
        self.then(watch, move |_, exit, ctx| {
            if exit.is_failure() {
                ctx.fail(format!("{name}, to which it is linked, {exit}"));
            }
        });
    }

    /// Lets a future go on while the actor handles other messages. It is dropped when the actor ends,
    /// and the asks in it keep the deadline of the message at hand.
    pub fn run(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        self.job(async move {
            future.await;
            Job::Done
        });
    }

    /// As [`run`](Self::run); what comes of it is taken in with the actor's state at hand, before any
    /// further mail.
    pub fn then<T: Send + 'static>(
        &mut self,
        future: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(&mut A, T, &mut Self) + Send + 'static,
    ) {
        self.job(async move {
            let output = future.await;
            Job::Then(Box::new(move |actor, ctx| then(actor, output, ctx)))
        });
    }

    /// As [`run`](Self::run); what comes of it is handled as a message of this actor, before any
    /// further mail.
    pub fn pipe<M: Message>(&mut self, future: impl Future<Output = M> + Send + 'static)
    where
        A: Accepts<M>,
    {
        self.job(async move { mail::<A, M>(future.await) });
    }

    /// Handles a message after a while, before any further mail.
    pub fn after<M: Message>(&mut self, delay: Duration, message: M)
    where
        A: Accepts<M>,
    {
        self.job(async move {
            tokio::time::sleep(delay).await;
            mail::<A, M>(message)
        });
    }

    /// A timer by name: setting it again replaces it. It ends with the actor.
    pub fn timer(&mut self, name: impl Into<Cow<'static, str>>) -> Timer<'_, A> {
        Timer { name: name.into(), ctx: self }
    }

    fn job(&mut self, work: impl Future<Output = Job<A>> + Send + 'static) {
        let scoped = Scoped::new(work, self.node().clone(), here::deadline());
        let scoped = scoped.of_actor(here::actor()).traced();
        self.extra().jobs.push(Box::pin(scoped));
    }

    pub(super) fn go_on(&mut self, work: Option<Work<A>>) {
        if let Some(work) = work {
            self.extra().jobs.push(work);
        }
    }

    pub(super) fn poll_job(&mut self, cx: &mut Poller<'_>) -> Option<Job<A>> {
        let extra = self.extra.as_mut().filter(|extra| !extra.jobs.is_empty())?;
        match Pin::new(&mut extra.jobs).poll_next(cx) {
            Poll::Ready(job) => job,
            Poll::Pending => None,
        }
    }

    /// Whether so much is under way that mail has to wait.
    pub(super) fn is_busy(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.jobs.len() >= JOBS)
    }

    pub(super) fn take_end(&mut self) -> Option<(Exit, Option<A::Output>)> {
        self.extra.as_mut()?.end.take()
    }

    /// Puts a message off until [`resume`](Self::resume).
    pub(super) fn defer(&mut self, mail: A::Mail) {
        self.extra().deferred.push_back(mail);
    }

    /// How many messages are put off, or were and are due again.
    pub(super) fn deferred(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.deferred.len() + extra.due.len())
    }

    /// Makes what was put off due again, in the order in which it came, before any further mail.
    pub(super) fn resume(&mut self) {
        if let Some(extra) = self.extra.as_mut().filter(|extra| !extra.deferred.is_empty()) {
            let mut due = std::mem::take(&mut extra.deferred);
            due.append(&mut extra.due);
            extra.due = due;
        }
    }

    /// What is put off or due again, in the order in which it came.
    pub(super) fn take_deferred(&mut self) -> impl DoubleEndedIterator<Item = A::Mail> + use<A> {
        let (mut all, due) = match &mut self.extra {
            Some(extra) => (std::mem::take(&mut extra.deferred), std::mem::take(&mut extra.due)),
            None => Default::default(),
        };
        all.extend(due);
        all.into_iter()
    }

    pub(super) fn next_deferred(&mut self) -> Option<A::Mail> {
        self.extra.as_mut()?.due.pop_front()
    }

    pub(super) async fn stop_children(&mut self, grace: Duration) {
        if let Some(extra) = &mut self.extra {
            // Nothing that was under way is of use any more.
            extra.jobs.clear();
            extra.brood.stop(grace).await;
        }
    }
}

fn mail<A: Actor + Accepts<M>, M: Message>(message: M) -> Job<A> {
    let mut packet = Some(Packet::tell(message));
    match A::Mail::accept(&mut packet) {
        Some(mail) => Job::Mail(mail, None),
        None => Job::Done,
    }
}

/// A timer by name.
#[must_use = "a timer begins with `after` or `every`"]
pub struct Timer<'a, A: Actor> {
    name: Cow<'static, str>,
    ctx: &'a mut Context<A>,
}

impl<A: Actor> Timer<'_, A> {
    /// Handles a message once, after a while.
    pub fn after<M: Message>(self, delay: Duration, message: M)
    where
        A: Accepts<M>,
    {
        self.set(|cancelled| {
            Box::pin(async move {
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return Job::Done,
                    () = tokio::time::sleep(delay) => {}
                }
                // It has come to its end: there is nothing left to be cancelled.
                cancelled.cancel();
                mail::<A, M>(message)
            })
        });
    }

    /// Handles a message each period (at least a millisecond), the first time after one. A tick that
    /// finds the actor busy waits; those that fall into that time are left out.
    pub fn every<M: Message + Clone>(self, period: Duration, message: M)
    where
        A: Accepts<M>,
    {
        let period = period.max(Duration::from_millis(1));
        let start = tokio::time::Instant::from_std(clock::after(period));
        let mut interval = tokio::time::interval_at(start, period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.set(|cancelled| tick::<A, M>(cancelled, interval, message));
    }

    /// Ends it; whether it was set and had not come to its end.
    pub fn cancel(self) -> bool {
        let extra = self.ctx.extra.as_mut();
        let timer = extra.and_then(|extra| extra.timers.remove(&self.name));
        timer.is_some_and(|timer| {
            let was_set = !timer.is_cancelled();
            timer.cancel();
            was_set
        })
    }

    fn set(self, work: impl FnOnce(CancellationToken) -> Work<A>) {
        let cancelled = CancellationToken::new();
        let extra = self.ctx.extra();
        // Those that have come to their end make place for others.
        if extra.timers.len() == extra.timers.capacity() {
            extra.timers.retain(|_, timer| !timer.is_cancelled());
        }
        if let Some(old) = extra.timers.insert(self.name, cancelled.clone()) {
            old.cancel();
        }
        extra.jobs.push(work(cancelled));
    }
}

/// One tick, and the ticks after it.
fn tick<A, M>(cancelled: CancellationToken, mut interval: Interval, message: M) -> Work<A>
where
    A: Actor + Accepts<M>,
    M: Message + Clone,
{
    Box::pin(async move {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return Job::Done,
            _ = interval.tick() => {}
        }
        match mail::<A, M>(message.clone()) {
            Job::Mail(mail, _) => Job::Mail(mail, Some(tick(cancelled, interval, message))),
            other => other,
        }
    })
}
