//! A service: anything that answers encoded calls, be it a pool, an actor or a function.
//!
//! This is the boundary to the gateway, which knows no message type at compile time: it sees an
//! [`Api`], checks input against its schemas, and passes payloads on as bytes.

use std::{future::Future, marker::PhantomData, panic::AssertUnwindSafe, pin::Pin, time::Instant};

use futures_util::FutureExt;
use layercake_wire::payload::{Fingerprint, Payload};

use crate::{
    actor::{Accepts, Actor, Running},
    address::Address,
    error::AskError,
    here::{self, Scoped},
    message::{Api, Message},
    node::Node,
    packet::encode_reply,
    pool::scheduler::Priority,
    stream::EncodedReplies,
};

/// An encoded ask.
#[derive(Debug, Clone)]
pub struct Call {
    /// The message.
    pub payload: Payload,
    /// The structure that the caller knows for the reply; with [`Fingerprint::NONE`] the reply
    /// comes self-describing, that is as JSON.
    pub accept: Fingerprint,
    /// When nobody waits for the reply any more.
    pub deadline: Instant,
    /// How urgent it is.
    pub priority: Priority,
    /// Who asks, as a number: a pool serves callers that wait in turn. `None`: the asking actor.
    pub caller: Option<u64>,
    /// A pool prefers one worker for all calls of a key.
    pub key: Option<u64>,
}

impl Call {
    /// A call of the usual urgency, of nobody in particular, to whichever worker.
    #[must_use]
    pub fn new(payload: Payload, accept: Fingerprint, deadline: Instant) -> Self {
        Self { payload, accept, deadline, priority: Priority::Normal, caller: None, key: None }
    }
}

/// The future reply of a [`Call`].
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Payload, AskError>> + Send + 'a>>;

/// The future parts of a reply to a [`Call`].
pub type Stream<'a> = Pin<Box<dyn Future<Output = Result<EncodedReplies, AskError>> + Send + 'a>>;

/// Anything that answers encoded calls.
pub trait Service: Send + Sync + 'static {
    /// What it answers now. It may change as instances come and go.
    fn api(&self) -> Api;

    /// Whether a call made now has a chance of being answered.
    fn is_ready(&self) -> bool;

    /// Answers a call. Dropping the future cancels it: a call that no worker has begun is not begun.
    fn call(&self, call: Call) -> Reply<'_>;

    /// Answers a call of a message with `stream`, part by part. Dropping the future, or the parts,
    /// cancels it. A service that answers nothing in parts says so.
    fn stream(&self, call: Call) -> Stream<'_> {
        drop(call);
        let reason = "nothing is answered in parts here".to_owned();
        Box::pin(std::future::ready(Err(AskError::Malformed { reason })))
    }
}

/// What may stand behind a front door for one message: any [`Service`], an [`Address`] of what accepts
/// the message, or a plain function by [`from_fn`].
pub trait Serve<M: Message>: Send + 'static {
    /// The service that it is.
    type Service: Service;

    /// Makes it a service.
    fn into_service(self) -> Self::Service;
}

impl<M: Message, S: Service> Serve<M> for S {
    type Service = S;

    fn into_service(self) -> S {
        self
    }
}

impl<M: Message, T: Accepts<M> + ?Sized + 'static> Serve<M> for Address<T> {
    type Service = OfAddress<M, T>;

    fn into_service(self) -> OfAddress<M, T> {
        OfAddress { address: self, message: PhantomData }
    }
}

impl<M, T, R> Serve<M> for Running<T, R>
where
    M: Message,
    T: Accepts<M> + 'static,
    R: Send + 'static,
{
    type Service = OfAddress<M, T>;

    fn into_service(self) -> OfAddress<M, T> {
        Serve::<M>::into_service(self.address)
    }
}

fn api_of<M: Message>(actor: &str) -> Api {
    Api { actor: actor.to_owned(), messages: vec![M::describe().clone()] }
}

/// One message of one actor, wherever it lives, as a service.
pub struct OfAddress<M, T: ?Sized> {
    address: Address<T>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message, T: ?Sized + 'static> Service for OfAddress<M, T> {
    fn api(&self) -> Api {
        api_of::<M>(self.address.inlet().map_or("Actor", |inlet| inlet.kind()))
    }

    /// Of an actor elsewhere only a call tells.
    fn is_ready(&self) -> bool {
        self.address.inlet().is_none_or(|inlet| !inlet.is_stopped())
    }

    fn call(&self, call: Call) -> Reply<'_> {
        Box::pin(self.address.ask_encoded(call.payload, call.accept, call.deadline))
    }

    fn stream(&self, call: Call) -> Stream<'_> {
        Box::pin(self.address.stream_encoded(call.payload, call.accept, call.deadline))
    }
}

/// Every message of one actor, wherever it lives, as a service.
pub struct OfActor<A: Actor>(Address<A>);

/// Makes an actor a service for all of its messages.
#[must_use]
pub fn of_actor<A: Actor>(address: Address<A>) -> OfActor<A> {
    OfActor(address)
}

impl<A: Actor> Service for OfActor<A> {
    fn api(&self) -> Api {
        A::api()
    }

    /// Of an actor elsewhere only a call tells.
    fn is_ready(&self) -> bool {
        self.0.inlet().is_none_or(|inlet| !inlet.is_stopped())
    }

    fn call(&self, call: Call) -> Reply<'_> {
        Box::pin(self.0.ask_encoded(call.payload, call.accept, call.deadline))
    }

    fn stream(&self, call: Call) -> Stream<'_> {
        Box::pin(self.0.stream_encoded(call.payload, call.accept, call.deadline))
    }
}

/// A plain function as a service. Made by [`from_fn`].
pub struct FromFn<M, F> {
    function: F,
    /// For whom the function works, where it was given within a node.
    node: Option<Node>,
    message: PhantomData<fn() -> M>,
}

/// Makes a function from a message to its reply a service. Calls run side by side, each until its
/// deadline, and asks that the function makes end at that time too. Where it panics, the caller
/// gets [`AskError::Panicked`].
///
/// Called within a program or an actor, addresses in the messages belong to that node.
pub fn from_fn<M, F, Fut>(function: F) -> FromFn<M, F>
where
    M: Message,
    F: Fn(M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Reply, AskError>> + Send + 'static,
{
    FromFn { function, node: here::node(|node| Some(node?.clone())), message: PhantomData }
}

impl<M, F, Fut> FromFn<M, F>
where
    M: Message,
    F: Fn(M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Reply, AskError>> + Send + 'static,
{
    async fn answer(&self, call: Call) -> Result<Payload, AskError> {
        let Call { payload, accept, deadline, .. } = call;
        let tag = payload.tag;
        if tag != M::TAG {
            return Err(AskError::Malformed { reason: format!("it is no `{}`", M::NAME) });
        }
        // What the function does before its first wait may panic, too.
        let work = async {
            let message = payload
                .decode()
                .map_err(|error| AskError::Malformed { reason: error.to_string() })?;
            (self.function)(message).await
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let answer = match &self.node {
            Some(node) => {
                let work = Scoped::new(work, node.clone(), Some(deadline)).traced();
                tokio::time::timeout_at(deadline.into(), work).await
            }
            None => tokio::time::timeout_at(deadline.into(), work).await,
        };
        let reply = match answer {
            Ok(Ok(reply)) => reply?,
            Ok(Err(_)) => return Err(AskError::Panicked),
            Err(_) => return Err(AskError::Deadline),
        };
        let (encoding, bytes) = encode_reply(accept, M::describe().reply_fingerprint, &reply)
            .map_err(|error| AskError::BadReply { reason: error.to_string() })?;
        Ok(Payload { tag, encoding, bytes })
    }
}

impl<M, F, Fut> Service for FromFn<M, F>
where
    M: Message,
    F: Fn(M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Reply, AskError>> + Send + 'static,
{
    fn api(&self) -> Api {
        api_of::<M>("Function")
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn call(&self, call: Call) -> Reply<'_> {
        Box::pin(self.answer(call))
    }
}
