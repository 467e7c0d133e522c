//! Identity and trust, links, frames and codecs.
//!
//! The lowest crate of the workspace: it moves encoded messages between nodes that have proved who
//! they are, and never sees a decoded payload. It knows nothing of names, actors or pools.

pub mod clock;
mod endpoint;
mod frame;
mod hello;
pub mod id;
mod in_hand;
mod inbound;
mod interfaces;
mod link;
pub mod memory;
pub mod payload;
mod quic;
pub mod trace;
pub mod trust;

pub use endpoint::{
    Carrier, DIAL_TIME, DialError, Endpoint, EndpointConfig, LockGuard, SocketGuard, StartError,
};
pub use hello::VERSION;
pub use in_hand::{Held, InHand};
pub use inbound::{
    AnswerSlot, AskFailure, CreditReturn, Failure, FailureCode, Gone, Inbound, InboundKind,
    LinkDown, Receive, Responder,
};
pub use interfaces::{INTERFACES_VARIABLE, Interfaces, InterfacesError};
pub use link::{
    Closed, LANE_UNITS, LINK_UNITS, Lane, LaneError, Link, MAX_POSTS, PART_UNITS, Parts, Service,
    UNIT,
};
