//! Requests that are answered in parts: a worker has one until its last part has come.

use std::time::Instant;

use layercake_wire::payload::{Fingerprint, Payload};

use super::{
    Pool,
    dispatch::{Admitted, InFlight},
    scheduler::{Outcome, Request, Ticket},
};
use crate::{actor::Actor, error::AskError, here, service::Call, stream::EncodedReplies};

/// The place of a request in its pool, for longer than the asker's call.
struct Held<A: Actor> {
    pool: Pool<A>,
    ticket: Ticket,
}

impl<A: Actor> Drop for Held<A> {
    fn drop(&mut self) {
        // How long a stream takes says nothing of how fast the worker is.
        let outcome = Outcome::Cancelled;
        drop(InFlight { pool: &self.pool.0, ticket: self.ticket, queued: false, outcome });
    }
}

impl<A: Actor> Pool<A> {
    /// Sends an encoded message to the worker that will answer soonest, and takes its answer part by part.
    /// The worker counts as busy with it until the last part has come, or the parts are dropped. A stream
    /// is not given to a second worker.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), where nothing was sent; what happens later comes with the parts.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request.
    pub async fn stream_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<EncodedReplies, AskError> {
        self.stream_call(Call::new(payload, accept, deadline)).await
    }

    /// The same, on somebody's behalf.
    pub(super) async fn stream_call(&self, call: Call) -> Result<EncodedReplies, AskError> {
        let Call { payload, accept, deadline, priority, caller, key } = call;
        let caller = caller.unwrap_or_else(here::actor);
        let request = Request { priority, caller, key, ..Request::by(deadline) };
        let Admitted { worker, address, flight, .. } = self.admit(request).await?;
        let ticket = flight.ticket;
        // From here on the other one gives the place back.
        std::mem::forget(flight);
        let held = Held { pool: self.clone(), ticket };
        match address.stream_encoded(payload, accept, deadline).await {
            Ok(parts) => Ok(parts.holding(held)),
            Err(error) => {
                drop(held);
                if matches!(error, AskError::Stopped { .. }) {
                    self.leave(worker);
                }
                Err(error)
            }
        }
    }
}
