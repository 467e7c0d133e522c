//! What users of the gateway see, over real sockets on loopback and with a service that does as told.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

extern crate layercake_node as layercake;

mod bytes;
mod client;
mod connection;
mod door;
mod fake;
mod handover;
mod input;
mod outcome;
mod resources;
mod secure;
mod shop;
mod streams;
mod told;
