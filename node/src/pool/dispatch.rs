//! The way of one request: admitted, given to a worker, answered or given to another one.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use layercake_wire::payload::{Fingerprint, Payload};
use tokio::sync::oneshot;

use super::{
    Inner, Pool, State,
    scheduler::{Decision, Outcome, Rejection, Ticket, WorkerId},
};
use crate::{
    actor::{Accepts, Actor},
    address::{ASK_DEADLINE, Address},
    clock,
    error::AskError,
    message::Message,
};

/// Workers that one request is given to, one after the other, while it surely has not run, or may
/// run twice. Four: one that dies with it, the same found dead, and two more.
const ATTEMPTS: usize = 4;

impl<A: Actor> State<A> {
    /// Hands workers to requests that waited for one.
    pub(super) fn assign(&mut self, starts: Vec<(Ticket, WorkerId)>) {
        let mut starts = std::collections::VecDeque::from(starts);
        while let Some((ticket, worker)) = starts.pop_front() {
            let (Some(slot), Some(address)) =
                (self.waiting.remove(&ticket), self.workers.get(&worker))
            else {
                continue;
            };
            if slot.send((worker, address.clone())).is_err() {
                // Its asker went away in this very moment.
                starts.extend(self.scheduler.done(ticket, Outcome::Cancelled, clock::now()));
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
        if self.queued && state.waiting.remove(&self.ticket).is_some() {
            // Whose time is over counts as a slow answer, so that the pool learns that it is late;
            // who went away before does not.
            for expired in state.scheduler.expire(clock::now()) {
                state.waiting.remove(&expired);
            }
            state.scheduler.cancel(self.ticket);
            return;
        }
        let starts = state.scheduler.done(self.ticket, self.outcome, clock::now());
        state.assign(starts);
    }
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
        self.ask_within(message, ASK_DEADLINE).await
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
        let deadline = crate::address::deadline_in(limit);
        let ask = move |worker: Address<A>, message| async move {
            worker.ask_or_return(message, deadline).await
        };
        self.dispatch(deadline, message, || M::IDEMPOTENT, ask).await
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
        let tag = payload.tag;
        let idempotent = || self.0.api.message(tag).is_some_and(|message| message.idempotent);
        let ask = move |worker: Address<A>, payload: Payload| async move {
            let answer = worker.ask_encoded(payload.clone(), accept, deadline).await;
            answer.map_err(|error| (error, Some(payload)))
        };
        self.dispatch(deadline, payload, idempotent, ask).await
    }

    /// Gives a request to workers until one answers, or it may not be repeated.
    async fn dispatch<R, T, Fut>(
        &self,
        deadline: Instant,
        mut request: T,
        idempotent: impl Fn() -> bool,
        ask: impl Fn(Address<A>, T) -> Fut,
    ) -> Result<R, AskError>
    where
        Fut: Future<Output = Result<R, (AskError, Option<T>)>>,
    {
        let mut attempt = 1;
        loop {
            let (worker, address, mut flight) = self.admit(deadline).await?;
            let (error, back) = match ask(address, request).await {
                Ok(reply) => {
                    flight.outcome = Outcome::Answered;
                    return Ok(reply);
                }
                Err(failed) => failed,
            };
            flight.outcome = match error {
                AskError::Deadline => Outcome::TimedOut,
                _ => Outcome::Failed,
            };
            drop(flight);
            if matches!(error, AskError::Stopped { .. }) {
                // It never comes back; whoever keeps it alive will notice, too.
                self.leave(worker);
            }
            let again = match error {
                AskError::Stopped { .. } | AskError::Unreachable { .. } => true,
                AskError::Lost { .. } => idempotent(),
                _ => false,
            };
            match back {
                Some(back) if again && attempt < ATTEMPTS && clock::now() < deadline => {
                    request = back;
                    attempt += 1;
                }
                _ => return Err(error),
            }
        }
    }

    /// Waits for a worker.
    pub(super) async fn admit(
        &self,
        deadline: Instant,
    ) -> Result<(WorkerId, Address<A>, InFlight<'_, A>), AskError> {
        let pool = &*self.0;
        if pool.stop.is_cancelled() {
            return Err(AskError::Unavailable);
        }
        let (mut flight, turn) = {
            let mut state = pool.state.lock();
            let outcome = Outcome::Cancelled;
            match state.scheduler.request(clock::now(), deadline) {
                Decision::Start(ticket, worker) => {
                    let address = state.workers.get(&worker).cloned();
                    let flight = InFlight { pool, ticket, queued: false, outcome };
                    drop(state);
                    return match address {
                        Some(address) => Ok((worker, address, flight)),
                        None => Err(AskError::Unavailable),
                    };
                }
                Decision::Queued(ticket) => {
                    let (slot, turn) = oneshot::channel();
                    state.waiting.insert(ticket, slot);
                    (InFlight { pool, ticket, queued: true, outcome }, turn)
                }
                Decision::Rejected(rejection) => return Err(rejection.into()),
            }
        };
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok((worker, address))) => {
                flight.queued = false;
                Ok((worker, address, flight))
            }
            Ok(Err(_)) | Err(_) => Err(AskError::Deadline),
        }
    }
}

impl From<Rejection> for AskError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Unavailable => Self::Unavailable,
            Rejection::Busy { mean, retry_after } => Self::Busy { mean, retry_after },
            Rejection::Overloaded { pending, retry_after } => {
                Self::Overloaded { pending, retry_after }
            }
        }
    }
}
