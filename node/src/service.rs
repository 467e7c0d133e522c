//! A service: anything that answers encoded calls, be it a pool, an actor or a name.
//!
//! This is the boundary to the gateway, which knows no message type at compile time: it sees an
//! [`Api`], checks input against its schemas, and passes payloads on as bytes.

use std::{future::Future, pin::Pin, time::Instant};

use layercake_wire::payload::{Fingerprint, Payload};

use crate::{error::AskError, message::Api};

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
}

/// The future reply of a [`Call`].
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Payload, AskError>> + Send + 'a>>;

/// Anything that answers encoded calls.
pub trait Service: Send + Sync + 'static {
    /// What it answers now. It may change as instances come and go.
    fn api(&self) -> Api;

    /// Whether a call made now has a chance of being answered.
    fn is_ready(&self) -> bool;

    /// Answers a call. Dropping the future cancels it: a call that no worker has begun is not begun.
    fn call(&self, call: Call) -> Reply<'_>;
}
