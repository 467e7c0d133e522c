//! A pool as one worker of others: an actor that passes on whatever the pool's workers answer, undecoded,
//! each request in a task of its own. What the pool turns away is turned away as by the pool itself, so that
//! a pool above gives it to another worker.

use std::{marker::PhantomData, sync::Arc};

use layercake_directory::{Publication, Scope};
use layercake_wire::{
    InboundKind, Responder,
    payload::{Fingerprint, Payload},
};

use super::{NOTICE, Pool};
use crate::{
    actor::{Actor, Context},
    address::{ASK_DEADLINE, Address},
    clock,
    dead::Why,
    error::AskError,
    mail::Mail,
    message::{Api, MessageApi, name_of},
    names::PublishError,
    packet::{Parcel, Unknown},
    service::{Call, Service},
};

/// A pool that is published. Dropped, its name is withdrawn, and a little later, when others have noticed,
/// its address takes nothing more; the pool itself lives on.
#[must_use = "dropped, the pool is not published any more"]
pub struct PublishedPool<A: Actor> {
    address: Address<A>,
    publication: Option<Publication>,
}

impl<A: Actor> PublishedPool<A> {
    /// Where the pool takes requests, as any of its workers would.
    #[must_use]
    pub fn address(&self) -> &Address<A> {
        &self.address
    }
}

impl<A: Actor> Drop for PublishedPool<A> {
    fn drop(&mut self) {
        drop(self.publication.take());
        let address = self.address.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return address.stop() };
        runtime.spawn(async move {
            tokio::time::sleep(NOTICE).await;
            address.stop();
        });
    }
}

impl<A: Actor> Pool<A> {
    /// Publishes the pool under a name, up to a scope, as if it were a worker: pools elsewhere, and whoever
    /// finds the name, may ask it. Its push-back travels, too: a pool above that hears `Busy`,
    /// `Overloaded` or `Unavailable` turns to another of its workers.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(
        &self,
        name: &str,
        scope: Scope,
    ) -> Result<PublishedPool<A>, PublishError> {
        let front = self.0.node.spawn(Front(self.clone()));
        let published = self.0.node.publish(name, &front, scope).await;
        let publication = published.inspect_err(|_| front.stop())?;
        Ok(PublishedPool { address: front.cast(), publication: Some(publication) })
    }

    async fn pass(&self, message: Unknown) {
        let Some((payload, kind)) = message.into_inner() else { return };
        let tag = payload.tag;
        match kind {
            InboundKind::Ask(responder) => {
                let call = self.call_of(payload, responder.accept(), responder.deadline());
                if responder.takes_parts() {
                    return self.pass_parts(call, responder).await;
                }
                let answer = tokio::select! {
                    answer = self.call(call) => answer,
                    () = responder.cancelled() => return,
                };
                match answer {
                    Ok(reply) => responder.reply(reply),
                    Err(error) => responder.fail(error.into_failure()),
                }
            }
            // Nobody waits; a worker answers all the same, and the pool learns from that.
            InboundKind::Tell(_credit) => {
                let deadline = clock::after(ASK_DEADLINE);
                let call = self.call_of(payload, Fingerprint::NONE, deadline);
                match self.call(call).await {
                    Ok(_) | Err(AskError::NoReply) => {}
                    Err(error) => {
                        let why = Why::NotForwarded(error.to_string());
                        self.0.node.dead_letter(tag, name_of(tag), why);
                    }
                }
            }
        }
    }

    /// Passes an answer on part by part, no faster than the asker takes it.
    async fn pass_parts(&self, call: Call, responder: Responder) {
        let answer = tokio::select! {
            answer = self.stream_call(call) => answer,
            () = responder.cancelled() => return,
        };
        let mut parts = match answer {
            Ok(parts) => parts,
            Err(error) => return responder.fail(error.into_failure()),
        };
        loop {
            let part = tokio::select! {
                part = parts.next() => part,
                () = responder.cancelled() => return,
            };
            match part {
                Some(Ok(part)) => {
                    if responder.part(part).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => return responder.fail(error.into_failure()),
                None => return responder.finish(),
            }
        }
    }

    fn call_of(&self, payload: Payload, accept: Fingerprint, deadline: std::time::Instant) -> Call {
        Call::new(payload, accept, deadline)
    }
}

/// What stands for a pool.
struct Front<A: Actor>(Pool<A>);

/// A message for the pool, whatever it is.
struct Passed<A>(Unknown, PhantomData<fn(A)>);

impl<A: Actor> Actor for Front<A> {
    const NAME: &'static str = "Pool";
    type Mail = Passed<A>;
    type Output = ();

    async fn handle(&mut self, Passed(message, _): Passed<A>, ctx: &mut Context<Self>) {
        // Their number is bounded by what the pool takes.
        let pool = self.0.clone();
        ctx.node().tasks().spawn(async move { pool.pass(message).await });
    }
}

impl<A: Actor> Mail for Passed<A> {
    const TAKES_UNKNOWN: bool = true;

    /// What the workers answer, in the one encoding that all of them understand, for they may be of other
    /// releases than this program.
    fn api() -> Api {
        let Api { actor, messages } = A::api();
        let as_json = |message: Arc<MessageApi>| {
            Arc::new(MessageApi { fingerprint: Fingerprint::NONE, ..(*message).clone() })
        };
        Api { actor, messages: messages.into_iter().map(as_json).collect() }
    }

    fn accept(_: &mut dyn std::any::Any) -> Option<Self> {
        None
    }

    fn open(parcel: Parcel) -> Option<Self> {
        Some(Self(parcel.into_unknown(), PhantomData))
    }
}
