//! Programs that load an HTTP server: `wrk` for HTTP/1.1, `h2load` for HTTP/2.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    contestant::Load,
    sample::{Latencies, Sample},
};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// Without TLS, by prior knowledge.
    Http2,
}

/// Streams of one HTTP/2 connection.
const STREAMS: usize = 8;

/// Loads a URL with `load.in_flight` requests at any time. Any other answer than a success is an error.
pub(crate) fn load(protocol: Protocol, url: &str, load: &Load) -> Result<Sample> {
    match protocol {
        Protocol::Http1 => wrk(url, load),
        Protocol::Http2 => h2load(url, load),
    }
}

fn whole_seconds(load: &Load) -> f64 {
    load.duration.as_secs_f64().ceil().max(1.0)
}

fn wrk(url: &str, load: &Load) -> Result<Sample> {
    let seconds = whole_seconds(load);
    let done = Command::new("wrk")
        .args(["-t1", "--latency", &format!("-c{}", load.in_flight), &format!("-d{seconds}s"), url])
        .output()
        .context("cannot run `wrk`: `cargo xtask setup` installs it")?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&done.stderr));
    ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk: {said}");
    parse_wrk(&said).with_context(|| format!("wrk said: {said}"))
}

fn h2load(url: &str, load: &Load) -> Result<Sample> {
    let seconds = whole_seconds(load);
    let streams = STREAMS.min(load.in_flight);
    let connections = load.in_flight.div_ceil(streams);
    let log = tempfile::NamedTempFile::new()?;
    let done = Command::new("h2load")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-m{streams}"),
            "-D",
            &seconds.to_string(),
        ])
        .args([&format!("--log-file={}", log.path().display()), url])
        .output()
        .context("cannot run `h2load`: install the package nghttp2-client")?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "h2load: {said}{}", String::from_utf8_lossy(&done.stderr));
    parse_h2load(&said, &std::fs::read_to_string(log.path())?)
        .with_context(|| format!("h2load said: {said}"))
}

/// The rate from what it says, the times from its log: begin, status and microseconds on each line.
fn parse_h2load(said: &str, log: &str) -> Result<Sample> {
    let line = said.lines().find(|line| line.starts_with("finished in ")).context("no rate")?;
    let rate = line.split(", ").find_map(|part| part.strip_suffix(" req/s")).context("no rate")?;
    let mut latencies = Latencies::new();
    for line in log.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, micros) = (fields.next().context("no status")?, fields.next());
        ensure!(status.starts_with('2'), "an answer with status {status}");
        latencies.add(Duration::from_micros(micros.context("no time")?.trim().parse()?));
    }
    Ok(Sample { rps: rate.parse()?, ..latencies.sample(Duration::from_secs(1))? })
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

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "starting benchmark...\n\nfinished in 2.00s, 41234.50 req/s, 3.51MB/s\n";
        let sample = parse_h2load(said, "1700\t200\t640\n1701\t200\t1280\n").unwrap();
        assert_eq!(sample.rps, 41_234.5);
        assert!((600..=640).contains(&sample.p50.as_micros()), "{:?}", sample.p50);
        assert!(parse_h2load(said, "1700\t503\t640\n").is_err());
        assert!(parse_h2load("finished early", "").is_err());
    }
}
