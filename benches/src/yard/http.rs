//! A bare axum server that answers `/Xy?x=2&y=2` with a table of random numbers, asked by `wrk`.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use axum::{Json, Router, extract::Query, routing::get};
use rand::Rng;
use serde::Deserialize;

use super::one_thread;
use crate::{
    contestant::{Contestant, Load, Running},
    other_end::{self, OtherEnd},
    sample::Sample,
};

pub(crate) const NAME: &str = "axum-http";

/// The largest side of a table.
const SIDE_MAX: u32 = 1000;

pub(crate) struct Http;

impl Contestant for Http {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let server = OtherEnd::start(NAME, &[])?;
        let url = format!("http://{}/Xy?x=2&y=2", server.word(0)?);
        Ok(Box::new(Client { url, _server: server }))
    }
}

struct Client {
    url: String,
    _server: OtherEnd,
}

impl Running for Client {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        wrk(&self.url, load)
    }
}

/// Loads a URL over `load.in_flight` connections. Any other answer than a success is an error.
pub(crate) fn wrk(url: &str, load: &Load) -> Result<Sample> {
    // `wrk` counts whole seconds.
    let seconds = load.duration.as_secs_f64().ceil().max(1.0);
    let done = Command::new("wrk")
        .args(["-t1", "--latency", &format!("-c{}", load.in_flight), &format!("-d{seconds}s"), url])
        .output()
        .context("cannot run `wrk`: `cargo xtask setup` installs it")?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&done.stderr));
    ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk: {said}");
    parse_wrk(&said).with_context(|| format!("wrk said: {said}"))
}

fn parse_wrk(said: &str) -> Result<Sample> {
    let after = |label: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("no line `{label}`"))
    };
    Ok(Sample {
        rps: after("Requests/sec:")?.parse()?,
        p50: parse_span(after("50%")?)?,
        p99: parse_span(after("99%")?)?,
    })
}

fn parse_span(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).context("a span without a unit")?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => bail!("unknown unit `{unit}`"),
    };
    Ok(Duration::try_from_secs_f64(number.parse::<f64>()? * scale)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let said = "  Latency Distribution\n     50%  640.00us\n     75%    1.00ms\n     \
                    99%    1.25ms\n  100 requests in 1.00s\nRequests/sec:  99512.25\n";
        let sample = parse_wrk(said).unwrap();
        assert_eq!(sample.rps, 99_512.25);
        assert_eq!(sample.p50, Duration::from_micros(640));
        assert_eq!(sample.p99, Duration::from_micros(1250));
        assert!(parse_wrk("Requests/sec: many").is_err());
        assert!(parse_span("12parsecs").is_err());
    }
}
