//! A bare axum server that answers `/Xy?x=2&y=2` with a table of random numbers.

use anyhow::Result;
use axum::{Json, Router, extract::Query, routing::get};
use rand::Rng;
use serde::Deserialize;

use super::one_thread;
use crate::{
    contestant::{Contestant, Load, Running},
    load_tools::{self, Protocol},
    other_end::{self, OtherEnd},
    sample::Sample,
};

pub(crate) const NAME: &str = "axum-http";

/// The largest side of a table.
const SIDE_MAX: u32 = 1000;

pub(crate) struct Http(pub(crate) Protocol);

impl Contestant for Http {
    fn name(&self) -> &'static str {
        match self.0 {
            Protocol::Http1 => NAME,
            Protocol::Http2 => "axum-h2",
        }
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let server = OtherEnd::start(NAME, &[])?;
        let url = format!("http://{}/Xy?x=2&y=2", server.word(0)?);
        Ok(Box::new(Client { protocol: self.0, url, _server: server }))
    }
}

struct Client {
    protocol: Protocol,
    url: String,
    _server: OtherEnd,
}

impl Running for Client {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        load_tools::load(self.protocol, &self.url, load)
    }
}

#[derive(Deserialize)]
struct Xy {
    x: u32,
    y: u32,
}

async fn table(Query(Xy { x, y }): Query<Xy>) -> Json<Vec<Vec<f64>>> {
    let mut rng = rand::rng();
    let (x, y) = (x.min(SIDE_MAX), y.min(SIDE_MAX));
    Json((0..y).map(|_| (0..x).map(|_| rng.random()).collect()).collect())
}

/// Answers until the process ends.
pub(crate) fn serve() -> Result<()> {
    one_thread()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        other_end::ready(&[&listener.local_addr()?.to_string()])?;
        Ok(axum::serve(listener, Router::new().route("/Xy", get(table))).await?)
    })
}
