//! The HTTP front door: routes, checks and passes on messages whose types it does not know.
//!
//! A [`Gateway`] stands before one [`Service`](layercake_node::service::Service). It learns from the
//! service's `Api` which messages there are, answers `GET /Xy?x=2&y=2` and `POST /Xy` with JSON,
//! checks the input against the message's schema before it enters the mesh, and hands the reply out
//! as the JSON that the worker wrote. Every failure is a problem document (RFC 9457).
//!
//! It is not a web framework and serves nothing but messages, `/`, `/healthz`, `/readyz` and
//! `/metrics`.
//!
//! # What always holds
//! - No message type is known at compile time, and no reply is decoded.
//! - What a client sends never ends the server: every size, count and wait has a bound.
//! - A request that is given up by its client is cancelled in the service.
//!
//! Decisions without I/O are in `route`, `input`, `problem`, `answer` and `door`; `server` and `handle`
//! carry them out. The stories are in `tests/`.

mod answer;
mod body;
mod call;
mod coding;
mod config;
mod door;
mod handle;
mod input;
mod metrics;
mod problem;
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
pub use door::{AccessLog, Cidr, NoCidr, Rate};
pub use server::{BindError, Drained, Gateway, TlsError, TlsFiles};
pub use services::{Named, Services};
