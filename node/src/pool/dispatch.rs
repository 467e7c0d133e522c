//! The way of one request: admitted, given to a worker, answered or given to another one.

use std::{
    collections::VecDeque,
    future::{Future, IntoFuture},
    hash::{DefaultHasher, Hash, Hasher},
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use layercake_wire::payload::{self, Encoding, Fingerprint, Payload};
use tokio::sync::oneshot;

use super::{
    Inner, Pool, State,
    scheduler::{
        Decision, Moves, Outcome, Priority, Rejection, Request, Ticket, WorkerId, WorkerInfo,
    },
};
use crate::{
    actor::{Accepts, Actor},
    address::{ASK_DEADLINE, Address},
    clock,
    error::AskError,
    here,
    message::Message,
    service::Call,
};

/// Workers that one request is given to, one after the other, while it surely has not run, or may
/// run twice. Four: one that dies with it, the same found dead, and two more.
const ATTEMPTS: usize = 4;

/// What an asker that waits is told.
pub(super) type Turn<A> = Result<(WorkerId, Address<A>), AskError>;

impl<A: Actor> Inner<A> {
    /// Tells those that waited.
    pub(super) fn carry_out(&self, state: &mut State<A>, moves: Moves) {
        let Moves { starts, ends } = moves;
        let mut ends = VecDeque::from(ends);
        let mut starts = VecDeque::from(starts);
        loop {
            if let Some((ticket, rejection)) = ends.pop_front() {
                if let Some(asker) = state.waiting.remove(&ticket) {
                    // Who went away in this very moment need not be told.
                    let _ = asker.send(Err(rejection.map_or(AskError::Deadline, Into::into)));
                }
                continue;
            }
            let Some((ticket, worker)) = starts.pop_front() else { break };
            let asker = state.waiting.remove(&ticket);
            let told = match (asker, state.workers.get(&worker)) {
                (Some(asker), Some(address)) => asker.send(Ok((worker, address.clone()))).is_ok(),
                _ => false,
            };
            if !told {
                let more = state.scheduler.done(ticket, Outcome::Cancelled, clock::now());
                starts.extend(more.starts);
                ends.extend(more.ends);
            }
        }
        self.set_clock(state);
    }

    /// Has [`keep_time`](Self::keep_time) wake when a worker is to be used again for those that wait.
    fn set_clock(&self, state: &mut State<A>) {
        let wake = state.scheduler.next_wake();
        if wake.is_some() && wake != state.wake {
            self.clock.notify_one();
        }
        state.wake = wake;
    }

    /// Uses workers again that were spared or left out, when their time has come and somebody waits.
    /// Otherwise it sleeps without a time.
    pub(super) async fn keep_time(&self) {
        loop {
            let wake = self.state.lock().wake;
            let due = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.clock.notified() => {}
                () = due => {
                    let mut state = self.state.lock();
                    let moves = state.scheduler.expire(clock::now());
                    self.carry_out(&mut state, moves);
                }
            }
        }
    }
}

/// A request that a worker has, or that waits for one; gives its place back when dropped.
pub(super) struct InFlight<'a, A: Actor> {
    pub(super) pool: &'a Inner<A>,
    pub(super) ticket: Ticket,
    pub(super) queued: bool,
    pub(super) outcome: Outcome,
}

impl<A: Actor> Drop for InFlight<'_, A> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        let moves = if self.queued && state.waiting.remove(&self.ticket).is_some() {
            // Whose time is over counts as expired; who went away before does not.
            let moves = state.scheduler.expire(clock::now());
            state.scheduler.cancel(self.ticket);
            moves
        } else {
            state.scheduler.done(self.ticket, self.outcome, clock::now())
        };
        self.pool.carry_out(&mut state, moves);
        if state.watchers > 0 {
            self.pool.ended.notify_waiters();
        }
    }
}

/// A worker for a request.
pub(super) struct Admitted<'a, A: Actor> {
    pub(super) worker: WorkerId,
    pub(super) address: Address<A>,
    pub(super) flight: InFlight<'a, A>,
    /// After how long another one may be asked as well.
    hedge_after: Option<Duration>,
}

/// What a pool must know of a kind of request in order to carry it.
trait Carry<A: Actor, T>: Sync {
    type Reply;
    /// Whether it may run twice.
    fn is_idempotent(&self) -> bool;
    /// Asks a worker, and gives the request back where it has surely not run, or is still at hand.
    fn ask(
        &self,
        worker: Address<A>,
        request: T,
        deadline: Instant,
    ) -> impl Future<Output = Answer<Self::Reply, T>> + Send;
    /// Whether the reply says that the handler failed.
    fn is_failure(&self, reply: &Self::Reply) -> bool;
    /// What a copy can be made from later.
    fn spare(&self, request: &T) -> Option<Payload>;
    fn copy(&self, spare: Payload) -> Option<T>;
}

type Answer<R, T> = Result<R, (AskError, Option<T>)>;

/// Messages of a type that is known.
struct Typed<'a, A: Actor, M> {
    pool: &'a Inner<A>,
    message: std::marker::PhantomData<fn(M)>,
}

impl<A: Actor + Accepts<M>, M: Message> Carry<A, M> for Typed<'_, A, M> {
    type Reply = M::Reply;

    fn is_idempotent(&self) -> bool {
        M::IDEMPOTENT
    }

    async fn ask(&self, worker: Address<A>, request: M, by: Instant) -> Answer<M::Reply, M> {
        worker.ask_or_return(request, by).await
    }

    fn is_failure(&self, reply: &M::Reply) -> bool {
        M::is_failure(reply)
    }

    fn spare(&self, request: &M) -> Option<Payload> {
        let bytes = payload::encode(Encoding::Bincode, request).ok()?;
        Some(Payload { tag: M::TAG, encoding: Encoding::Bincode, bytes })
    }

    fn copy(&self, spare: Payload) -> Option<M> {
        // Addresses in it belong to this node.
        let decode = || payload::decode(spare.encoding, &spare.bytes).ok();
        here::within(&self.pool.node, decode)
    }
}

/// Messages that are carried as bytes.
struct Encoded<'a, A: Actor> {
    pool: &'a Inner<A>,
    tag: payload::Tag,
    accept: Fingerprint,
}

impl<A: Actor> Carry<A, Payload> for Encoded<'_, A> {
    type Reply = Payload;

    fn is_idempotent(&self) -> bool {
        self.pool.api.message(self.tag).is_some_and(|message| message.idempotent)
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
    fn ask(
        &self,
        worker: Address<A>,
        request: Payload,
        by: Instant,
    ) -> impl Future<Output = Answer<Payload, Payload>> + Send {
        async move {
            let answer = worker.ask_encoded(request.clone(), self.accept, by).await;
            answer.map_err(|error| (error, Some(request)))
        }
    }

    fn is_failure(&self, reply: &Payload) -> bool {
        self.pool.api.message(self.tag).is_some_and(|message| message.is_failure(reply))
    }

    fn spare(&self, request: &Payload) -> Option<Payload> {
        Some(request.clone())
    }

    fn copy(&self, spare: Payload) -> Option<Payload> {
        Some(spare)
    }
}

/// A request to a pool that is being described. Made by [`Pool::request`]; awaiting it asks.
#[must_use = "nothing is asked before it is awaited"]
pub struct PoolRequest<'a, A: Actor, M> {
    pool: &'a Pool<A>,
    message: M,
    limit: Duration,
    priority: Priority,
    caller: Option<u64>,
    key: Option<u64>,
}

impl<'a, A: Accepts<M> + Actor, M: Message> PoolRequest<'a, A, M> {
    /// How long to wait for the answer at most ([`ASK_DEADLINE`]).
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// How urgent it is.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// On whose behalf: callers that wait are served in turn. Otherwise it is the asking actor.
    pub fn caller(self, caller: &(impl Hash + ?Sized)) -> Self {
        Self { caller: Some(hash(caller)), ..self }
    }

    /// Requests of one key go to the same worker, while it is there, well, and has no more than its share
    /// of them: for what workers keep in memory. It is a preference and no promise.
    pub fn key(self, key: &(impl Hash + ?Sized)) -> Self {
        Self { key: Some(hash(key)), ..self }
    }

    /// Asks.
    ///
    /// # Errors
    /// As [`Pool::ask`].
    ///
    /// # Cancel safety
    /// As [`Pool::ask`].
    pub async fn send(self) -> Result<M::Reply, AskError> {
        let Self { pool, message, limit, priority, caller, key } = self;
        let deadline = crate::address::deadline_in(limit);
        let request = Request {
            priority,
            key,
            caller: caller.unwrap_or_else(here::actor),
            ..Request::by(deadline)
        };
        let typed = Typed { pool: &pool.0, message: std::marker::PhantomData };
        pool.dispatch(request, message, &typed).await
    }
}

impl<'a, A: Accepts<M> + Actor, M: Message> IntoFuture for PoolRequest<'a, A, M> {
    type Output = Result<M::Reply, AskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// The same for equal values in every process of one build, which is what names of callers and keys need.
fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl<A: Actor> Pool<A> {
    /// Asks whichever worker will answer soonest, for at most [`ASK_DEADLINE`].
    ///
    /// # Errors
    /// [`AskError`]: `Busy`, `Overloaded` and `Unavailable` are the pool's own, the rest the worker's.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request: what no worker has begun is not begun.
    pub async fn ask<M: Message>(&self, message: M) -> Result<M::Reply, AskError>
    where
        A: Accepts<M>,
    {
        self.request(message).send().await
    }

    /// As [`ask`](Self::ask), with another time limit.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_within<M: Message>(
        &self,
        message: M,
        limit: Duration,
    ) -> Result<M::Reply, AskError>
    where
        A: Accepts<M>,
    {
        self.request(message).within(limit).send().await
    }

    /// A request with more to say about it: how urgent, on whose behalf, to whose worker.
    pub fn request<M: Message>(&self, message: M) -> PoolRequest<'_, A, M>
    where
        A: Accepts<M>,
    {
        PoolRequest {
            pool: self,
            message,
            limit: ASK_DEADLINE,
            priority: Priority::Normal,
            caller: None,
            key: None,
        }
    }

    /// Sends an encoded message to a worker and waits for its encoded reply; the pool does not decode
    /// either.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<Payload, AskError> {
        self.answer(Call::new(payload, accept, deadline)).await
    }

    /// As [`ask_encoded`](Self::ask_encoded), with all that a call can say.
    pub(super) fn answer(
        &self,
        call: Call,
    ) -> impl Future<Output = Result<Payload, AskError>> + Send {
        let Call { payload, accept, deadline, priority, caller, key } = call;
        let caller = caller.unwrap_or_else(here::actor);
        let request = Request { priority, caller, key, ..Request::by(deadline) };
        let encoded = Encoded { pool: &self.0, tag: payload.tag, accept };
        async move { self.dispatch(request, payload, &encoded).await }
    }

    /// Gives a request to workers until one answers, or it may not be repeated.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
    fn dispatch<T: Send, C: Carry<A, T>>(
        &self,
        mut request: Request,
        mut message: T,
        carry: &C,
    ) -> impl Future<Output = Result<C::Reply, AskError>> {
        async move {
            let mut attempt = 1;
            let mut lost = None;
            loop {
                let admitted = match self.admit(request).await {
                    Ok(admitted) => admitted,
                    Err(error) => return Err(finally(lost, error)),
                };
                let worker = admitted.worker;
                let hedge = admitted.hedge_after.filter(|_| carry.is_idempotent());
                let answer = match hedge.and_then(|after| Some((after, carry.spare(&message)?))) {
                    None => {
                        let Admitted { address, mut flight, .. } = admitted;
                        let answer = carry.ask(address, message, request.deadline).await;
                        flight.outcome = outcome(carry, &answer);
                        answer
                    }
                    // What is seldom is boxed: its size would be carried by each request.
                    Some((after, spare)) => {
                        Box::pin(self.hedged(
                            admitted,
                            request.deadline,
                            message,
                            after,
                            spare,
                            carry,
                        ))
                        .await
                    }
                };
                let (error, back) = match answer {
                    Ok(reply) => return Ok(reply),
                    Err(failed) => failed,
                };
                if matches!(error, AskError::Stopped { .. }) {
                    // It never comes back; whoever keeps it alive will notice, too.
                    self.leave(worker);
                }
                let Some(back) = back else {
                    return Err(finally(lost, error));
                };
                if attempt >= ATTEMPTS || clock::now() >= request.deadline {
                    return Err(finally(lost, error));
                }
                let again = match error {
                    AskError::Stopped { .. } | AskError::Unreachable { .. } => true,
                    AskError::Lost { .. } if carry.is_idempotent() => {
                        self.0.state.lock().scheduler.may_repeat(clock::now())
                    }
                    // It has surely not run. Elsewhere it may; but who is refused by all is to know.
                    _ if is_refusal(&error) => self.0.state.lock().scheduler.has_room(),
                    _ => false,
                };
                if !again {
                    return Err(finally(lost, error));
                }
                if error.may_have_run() {
                    lost = Some(error);
                }
                message = back;
                request.again = Some(worker);
                attempt += 1;
            }
        }
    }

    /// Asks a worker, and a second one if the first takes long; the first good answer counts.
    async fn hedged<T: Send, C: Carry<A, T>>(
        &self,
        admitted: Admitted<'_, A>,
        deadline: Instant,
        message: T,
        after: Duration,
        spare: Payload,
        carry: &C,
    ) -> Answer<C::Reply, T> {
        let Admitted { address, mut flight, .. } = admitted;
        let mut first = pin!(carry.ask(address, message, deadline));
        tokio::select! {
            answer = &mut first => {
                flight.outcome = outcome(carry, &answer);
                return answer;
            }
            () = tokio::time::sleep(after) => {}
        }
        let second = carry.copy(spare).and_then(|copy| Some((copy, self.second(flight.ticket)?)));
        let Some((copy, (address, mut other))) = second else {
            let answer = first.await;
            flight.outcome = outcome(carry, &answer);
            return answer;
        };
        let mut second = pin!(carry.ask(address, copy, deadline));
        tokio::select! {
            answer = &mut first => {
                flight.outcome = outcome(carry, &answer);
                if answer.is_ok() {
                    other.outcome = Outcome::Cancelled;
                    return answer;
                }
                drop(flight);
                let answer = second.await;
                other.outcome = outcome(carry, &answer);
                answer
            }
            answer = &mut second => {
                other.outcome = outcome(carry, &answer);
                if answer.is_ok() {
                    flight.outcome = Outcome::Outrun;
                    return answer;
                }
                drop(other);
                let answer = first.await;
                flight.outcome = outcome(carry, &answer);
                answer
            }
        }
    }

    /// A second worker for a request.
    fn second(&self, first: Ticket) -> Option<(Address<A>, InFlight<'_, A>)> {
        let pool = &*self.0;
        let mut state = pool.state.lock();
        let (ticket, worker) = state.scheduler.hedge(first, clock::now())?;
        let address = state.workers.get(&worker).cloned();
        drop(state);
        // Gives the place back where the address is not known.
        let flight = InFlight { pool, ticket, queued: false, outcome: Outcome::Cancelled };
        Some((address?, flight))
    }

    /// Waits for a worker.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
    pub(super) fn admit(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Admitted<'_, A>, AskError>> + Send {
        async move {
            let pool = &*self.0;
            if pool.stop.is_cancelled() {
                return Err(AskError::Unavailable);
            }
            let outcome = Outcome::Cancelled;
            let (mut flight, turn, hedge_after) = {
                let mut state = pool.state.lock();
                let (decision, moves) = state.scheduler.request(clock::now(), request);
                let hedge_after = state.scheduler.hedge_after();
                pool.carry_out(&mut state, moves);
                match decision {
                    Decision::Start(ticket, worker) => {
                        let address = state.workers.get(&worker).cloned();
                        drop(state);
                        let flight = InFlight { pool, ticket, queued: false, outcome };
                        return match address {
                            Some(address) => Ok(Admitted { worker, address, flight, hedge_after }),
                            None => Err(AskError::Unavailable),
                        };
                    }
                    Decision::Queued(ticket) => {
                        let (asker, turn) = oneshot::channel();
                        state.waiting.insert(ticket, asker);
                        pool.set_clock(&mut state);
                        (InFlight { pool, ticket, queued: true, outcome }, turn, hedge_after)
                    }
                    Decision::Rejected(rejection) => return Err(rejection.into()),
                }
            };
            match tokio::time::timeout_at(request.deadline.into(), turn).await {
                Ok(Ok(Ok((worker, address)))) => {
                    flight.queued = false;
                    Ok(Admitted { worker, address, flight, hedge_after })
                }
                Ok(Ok(Err(error))) => Err(error),
                // Nobody drops an asker that waits without a word, except at the end of the pool.
                Ok(Err(_)) => Err(AskError::Unavailable),
                Err(_) => Err(AskError::Deadline),
            }
        }
    }
}

/// What is said of a request that ends with an error: where it was lost with a worker before, that it may
/// have run.
fn finally(lost: Option<AskError>, error: AskError) -> AskError {
    if error.may_have_run() { error } else { lost.unwrap_or(error) }
}

/// What an answer says about the worker.
fn outcome<A: Actor, T, C: Carry<A, T>>(carry: &C, answer: &Answer<C::Reply, T>) -> Outcome {
    match answer {
        Ok(reply) if carry.is_failure(reply) => Outcome::Failed,
        Ok(_) => Outcome::Answered,
        Err((AskError::Deadline, _)) => Outcome::TimedOut,
        Err((error, _)) if is_refusal(error) => Outcome::Refused,
        // The asker's own fault, or a difference between two releases: says nothing of the worker's health.
        Err((
            AskError::Unsendable { .. }
            | AskError::Unbound { .. }
            | AskError::Malformed { .. }
            | AskError::NotHandled { .. },
            _,
        )) => Outcome::Cancelled,
        Err(_) => Outcome::Failed,
    }
}

/// Whether a worker would not take a request now, and is well.
fn is_refusal(error: &AskError) -> bool {
    matches!(
        error,
        AskError::Busy { .. }
            | AskError::Overloaded { .. }
            | AskError::Unavailable
            | AskError::NotNow { .. }
    )
}

impl From<Rejection> for AskError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Unavailable => Self::Unavailable,
            Rejection::Busy { expected, retry_after } => Self::Busy { mean: expected, retry_after },
            Rejection::Overloaded { pending, retry_after } => {
                Self::Overloaded { pending, retry_after }
            }
        }
    }
}

/// What is to be known of a worker at an address: how far it is, and what other pools call it too.
pub(super) fn info<A: Actor>(address: &Address<A>) -> WorkerInfo {
    let (distance, identity) = address.whereabouts();
    WorkerInfo { distance, identity, concurrency: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::any::Anything;

    #[test]
    fn a_call_under_way_is_small() {
        /// How large the future is that a function makes.
        fn size<'p, F>(_: impl FnOnce(&'p Pool<Anything>, Call) -> F) -> usize {
            size_of::<F>()
        }
        // Beyond a kilobyte the allocator has no shelf for it, and a front door makes one for each request.
        let size = size(Pool::answer);
        assert!(size <= 1_000, "{size} bytes: box what is seldom");
    }
}
