//! The yardsticks: what the same machine does with as little as possible in the way.

mod frames;
mod grpc;
mod http;
mod nginx;
mod quic;
mod unix;

use anyhow::{Result, bail};

use crate::{contestant::Contestant, load_tools::Protocol};

/// All yardsticks.
pub(crate) fn contestants() -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(unix::Unix),
        Box::new(quic::Quic),
        Box::new(grpc::Grpc),
        Box::new(http::Http(Protocol::Http1)),
        Box::new(nginx::Nginx(Protocol::Http1)),
        Box::new(http::Http(Protocol::Http2)),
        Box::new(nginx::Nginx(Protocol::Http2)),
    ]
}

/// Runs the serving process of a yardstick.
pub(crate) fn serve(name: &str, args: &[String]) -> Result<()> {
    match (name, args) {
        (unix::NAME, [path]) => unix::serve(path),
        (quic::NAME, []) => quic::serve(),
        (grpc::NAME, []) => grpc::serve(),
        (http::NAME, []) => http::serve(),
        _ => bail!("nobody serves `{name}` with {args:?}"),
    }
}

/// One thread for everything: two workers are slower on small messages, since each hand-over
/// between them costs a wake-up.
pub(crate) fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
