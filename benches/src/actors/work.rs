//! What is done with a contestant, the same for all of them.
//!
//! The runtime has two threads. Askers and senders are tasks on it; they look at the clock every
//! [`TURN_ASKS`] or [`TURN_TELLS`] messages.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::kind::{Kind, Tally};

/// Threads of the runtime.
const THREADS: usize = 2;
/// Asks of one asker between looks at the clock.
const TURN_ASKS: u64 = 16;
/// Tells of one sender before it looks at the clock and yields, as a task must now and then.
const TURN_TELLS: u64 = 1024;
/// Where sending does not wait, senders pause while more than this is unhandled.
const MAX_UNHANDLED: u64 = 1_000_000;
/// How long a pause is, and how often conditions are looked at.
const PAUSE: Duration = Duration::from_millis(1);
/// Actors started and ended before a population is measured.
const WARM_UP: usize = 1000;
/// Tasks that ask a population.
const CENSUS: usize = 64;
/// Memory has settled when it is the same this many times, this far apart.
const SETTLED: (usize, Duration) = (5, Duration::from_millis(20));
/// Bytes of a page, in which `/proc/self/statm` counts, on the machines that we measure on.
const PAGE: u64 = 4096;
/// Nothing that is waited for takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What a child process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// So many tasks ask one actor.
    Ask(usize),
    /// So many tasks tell one actor.
    Tell(usize),
    /// Many actors are started, asked once each, and ended.
    Population,
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) duration: Duration,
    pub(super) actors: usize,
}

impl Size {
    pub(super) fn lasting(seconds: f64) -> Result<Self> {
        let duration = Duration::try_from_secs_f64(seconds).context("no number of seconds")?;
        Ok(Self { duration, actors: 1 })
    }
}

/// One of the numbers that a job yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// Asks answered, or tells handled, per second.
    Rate,
    /// Actors per second, until the last one has answered.
    Spawned,
    /// Actors per second, until every one has answered.
    Answered,
    /// Actors per second, until every one is gone.
    Ended,
    /// Bytes of an actor that has had no message, with one address of it.
    Idle,
    /// Bytes of an actor that has handled one message, with one address of it.
    Used,
}

/// All of them.
pub(super) type Figures = Vec<(Figure, f64)>;

/// Does a job with one contestant.
pub(super) fn run<K: Kind>(job: Job, size: &Size) -> Result<Figures> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let Size { duration, actors } = *size;
    // As a task of its own: what spawns and waits shall be on the runtime's threads too.
    let result = runtime.block_on(runtime.spawn(async move {
        let kind = K::start().await?;
        let figures = match job {
            Job::Population => population(&kind, actors).await?,
            Job::Ask(_) | Job::Tell(_) => {
                vec![(Figure::Rate, one_actor(&kind, job, duration).await?)]
            }
        };
        kind.close().await?;
        Ok(figures)
    }));
    result?
}

/// Starts one actor, loads it to warm up and again to measure, and ends it.
async fn one_actor<K: Kind>(kind: &K, job: Job, duration: Duration) -> Result<f64> {
    let tally = Arc::new(Tally::default());
    let address = kind.spawn(1, &tally).await?.pop().context("one actor")?;
    let mut rate = 0.0;
    for duration in [duration / 5, duration] {
        rate = match job {
            Job::Tell(senders) => tell::<K>(&address, &tally, senders, duration).await?,
            Job::Ask(askers) => ask::<K>(&address, askers, duration).await?,
            Job::Population => return Ok(0.0),
        };
    }
    end::<K>(vec![address], &tally, 1).await?;
    Ok(rate)
}

async fn ask<K: Kind>(address: &K::Address, askers: usize, duration: Duration) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..askers {
        let address = address.clone();
        tasks.spawn(async move {
            let mut asked = 0;
            while start.elapsed() < duration {
                for _ in 0..TURN_ASKS {
                    ask_one::<K>(&address, asked).await?;
                    asked += 1;
                }
            }
            anyhow::Ok(asked)
        });
    }
    let answered = sum(tasks).await?;
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

async fn ask_one<K: Kind>(address: &K::Address, number: u64) -> Result<()> {
    let reply = K::ask(address, number).await?;
    ensure!(reply == number + 1, "the reply to {number} is {reply}");
    Ok(())
}

async fn tell<K: Kind>(
    address: &K::Address,
    tally: &Arc<Tally>,
    senders: usize,
    duration: Duration,
) -> Result<f64> {
    let before = tally.handled();
    let sent_by_all = Arc::new(AtomicU64::new(before));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..senders {
        let (address, tally, sent_by_all) = (address.clone(), tally.clone(), sent_by_all.clone());
        tasks.spawn(async move {
            let mut sent = 0;
            while start.elapsed() < duration {
                for _ in 0..TURN_TELLS {
                    K::tell(&address, sent).await?;
                    sent += 1;
                }
                let all = sent_by_all.fetch_add(TURN_TELLS, Ordering::Relaxed) + TURN_TELLS;
                if K::WAITS || all.saturating_sub(tally.handled()) <= MAX_UNHANDLED {
                    tokio::task::yield_now().await;
                    continue;
                }
                let unhandled =
                    || sent_by_all.load(Ordering::Relaxed).saturating_sub(tally.handled());
                until(|| unhandled() <= MAX_UNHANDLED).await?;
            }
            anyhow::Ok(sent)
        });
    }
    let sent = sum(tasks).await?;
    until(|| tally.handled() == before + sent).await?;
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

/// Starts many actors, looks at memory, asks each once, looks again, and ends them.
async fn population<K: Kind>(kind: &K, count: usize) -> Result<Figures> {
    let tally = Arc::new(Tally::default());
    let actors = kind.spawn(WARM_UP, &tally).await?;
    let actors = census::<K>(actors).await?;
    end::<K>(actors, &tally, WARM_UP).await?;

    let tally = Arc::new(Tally::default());
    let empty = settled_memory().await?;
    let start = Instant::now();
    let actors = kind.spawn(count, &tally).await?;
    let last = actors.last().context("at least one actor")?;
    ask_one::<K>(last, 1).await?;
    let spawned = start.elapsed();
    let idle = settled_memory().await?;
    let start = Instant::now();
    let actors = census::<K>(actors).await?;
    let answered = spawned + start.elapsed();
    let used = settled_memory().await?;
    let start = Instant::now();
    end::<K>(actors, &tally, count).await?;
    let ended = start.elapsed();

    let each = |elapsed: Duration| count as f64 / elapsed.as_secs_f64();
    let bytes = |now: u64| now.saturating_sub(empty) as f64 / count as f64;
    Ok(vec![
        (Figure::Spawned, each(spawned)),
        (Figure::Answered, each(answered)),
        (Figure::Ended, each(ended)),
        (Figure::Idle, bytes(idle)),
        (Figure::Used, bytes(used)),
    ])
}

/// Asks each actor once, by several tasks.
async fn census<K: Kind>(actors: Vec<K::Address>) -> Result<Vec<K::Address>> {
    let actors = Arc::new(actors);
    let mut tasks = JoinSet::new();
    for first in 0..CENSUS {
        let actors = actors.clone();
        tasks.spawn(async move {
            let mut asked = 0;
            for address in actors.iter().skip(first).step_by(CENSUS) {
                ask_one::<K>(address, asked).await?;
                asked += 1;
            }
            anyhow::Ok(asked)
        });
    }
    let answered = sum(tasks).await?;
    ensure!(answered == actors.len() as u64, "{answered} of {} have answered", actors.len());
    Arc::into_inner(actors).context("the askers have ended")
}

/// Ends actors and waits until they are gone.
async fn end<K: Kind>(actors: Vec<K::Address>, tally: &Tally, count: usize) -> Result<()> {
    K::end(actors).await?;
    until(|| tally.ended() == count as u64).await
}

/// What all tasks have done together.
async fn sum(mut tasks: JoinSet<Result<u64>>) -> Result<u64> {
    let mut total = 0;
    while let Some(done) = tasks.join_next().await {
        total += done??;
    }
    Ok(total)
}

/// Waits until a condition holds.
async fn until(holds: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < LIMIT, "it does not happen within {LIMIT:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Resident bytes of this process, once they no longer change: actors that have just been started
/// may yet have to run for the first time.
async fn settled_memory() -> Result<u64> {
    let start = Instant::now();
    let (mut last, mut same) = (0, 0);
    while same < SETTLED.0 {
        ensure!(start.elapsed() < LIMIT, "memory does not settle within {LIMIT:?}");
        tokio::time::sleep(SETTLED.1).await;
        let now = memory()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn memory() -> Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).context("statm is too short")?;
    Ok(pages.parse::<u64>()? * PAGE)
}
