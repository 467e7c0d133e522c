//! Pools of worker processes under load: open-loop arrivals, ours beside other ways to choose a worker.
//!
//! Requests arrive at random times whether or not earlier ones have been answered, and each is timed
//! from when it was due: who answers late cannot slow the load down and look better for it. All
//! contestants of a run share the same worker processes, one after the other.

mod contestants;
pub(crate) mod door;
mod report;
mod scenarios;
mod workers;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use rand::Rng;
use tokio::task::JoinSet;

use contestants::Dispatch;
use report::Report;

#[derive(Args)]
pub(crate) struct Options {
    /// What happens; all of it by default.
    scenarios: Vec<Scenario>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// 70 % of the capacity of eight workers, one of which has become ten times slower.
    Slow,
    /// Twice what eight workers can do, then half of it.
    Overload,
    /// One of ten workers answers errors in a millisecond.
    Failing,
    /// A caller at ten times the rate of another.
    Callers,
    /// Three times what the workers behind a front door can do, over HTTP, then half of it.
    DoorOverload,
    /// Twice what they can do, from clients that come back when they are told.
    DoorRetry,
    /// 10,000 connections without a request and 100 clients that send a byte a second, beside honest ones.
    DoorIdle,
}

/// One stream of requests.
#[derive(Debug, Clone, Copy)]
struct Arrivals {
    /// Requests a second, on average.
    rate: f64,
    /// What a worker takes for one.
    work: Duration,
    /// Who asks.
    caller: u64,
}

/// Sends requests at random times for a while and waits for all of them.
async fn offer(to: &Arc<dyn Dispatch>, arrivals: Arrivals, length: Duration) -> Report {
    let report = Arc::new(Mutex::new(Report::new()));
    let mut asks = JoinSet::new();
    let begun = Instant::now();
    let mut due = begun;
    loop {
        // Exponential gaps: a Poisson process.
        let gap = -(1.0 - rand::rng().random::<f64>()).ln() / arrivals.rate;
        due += Duration::from_secs_f64(gap);
        if due > begun + length {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let (to, report) = (to.clone(), report.clone());
        asks.spawn(async move {
            let outcome = to.ask(arrivals.work, arrivals.caller).await;
            let took = due.elapsed();
            report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(
                due - begun,
                took,
                outcome,
            );
        });
        // Those that have ended are let go.
        while asks.try_join_next().is_some() {}
    }
    while asks.join_next().await.is_some() {}
    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::replace(&mut *report, Report::new())
}

/// Measures, and prints what it found.
pub(crate) fn run(options: &Options) -> Result<()> {
    let length = Duration::try_from_secs_f64(options.seconds)?;
    let all = Scenario::value_variants();
    let chosen = if options.scenarios.is_empty() { all } else { &options.scenarios };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for scenario in chosen {
            match scenario {
                Scenario::Slow => scenarios::slow(length).await?,
                Scenario::Overload => scenarios::overload(length).await?,
                Scenario::Failing => scenarios::failing(length).await?,
                Scenario::Callers => scenarios::callers(length).await?,
                Scenario::DoorOverload => door::overload(length).await?,
                Scenario::DoorRetry => door::come_back(length).await?,
                Scenario::DoorIdle => door::idle(length).await?,
            }
        }
        Ok(())
    })
}
