//! The HTTP front door: routes, checks and passes on messages whose types it does not know.
//!
//! A [`Gateway`] stands before a [`Service`](layercake_node::service::Service), or several by name
//! ([`Services`]), such as all that are published in the mesh ([`Published`]). It learns from their `Api` which messages there are and how they are reached: by name
//! (`GET /Xy?x=2&y=2`, `POST /Xy` with JSON) and by what they declare (`/textures/{x}/{y}`). It checks
//! the input against the message's schema before it enters the mesh, and hands the reply out as the JSON
//! or the bytes that the worker wrote, at once or part by part. Every failure is a problem document
//! (RFC 9457).
//!
//! It is not a web framework and serves nothing but messages and its own few paths.
//!
//! # What always holds
//! - No message type is known at compile time. Of a reply no more is looked at than whether it is an
//!   error, and what its bytes or its tag are; but for the programs of the ancestor (`ancestor`), whose
//!   envelope says what is in it.
//! - What a client sends never ends the server: every size, count and wait has a bound.
//! - A request that is given up by its client is cancelled in the service.
//! - A reply that broke off never looks whole.
//!
//! Decisions without I/O are in `route`, `router`, `input`, `problem`, `answer` and `door`; `server`,
//! `handle`, `call`, `upload`, `stream` and `socket` carry them out. The stories are in `tests/`.

// The macros name things by the path of the facade.
#[cfg(test)]
extern crate layercake_node as layercake;

mod ancestor;
mod answer;
mod aside;
mod body;
mod call;
mod coding;
mod config;
mod docs;
mod door;
mod handle;
mod input;
mod mesh_page;
mod metrics;
mod openapi;
mod pools;
mod problem;
mod published;
mod reply;
mod route;
mod router;
mod server;
mod services;
mod socket;
mod stream;
mod table;
mod upload;

pub use config::GatewayConfig;
pub use door::{AccessLog, Cidr, NoCidr, NoWebOrigin, Rate, WebOrigin};
pub use mesh_page::{KeyTooShort, MIN_KEY, MeshPage, PageKey};
pub use published::{Allowed, FollowError, Published};
pub use server::{BindError, Drained, Gateway, TlsError, TlsFiles};
pub use services::{Named, Services};
