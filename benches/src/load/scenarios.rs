//! What happens to the pool, and what is printed of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Arrivals,
    contestants::{Ancestor, Dispatch, Ours, RoundRobin},
    offer,
    report::{End, Report},
    workers::{Tune, Workers},
};

/// What a worker takes for a request.
const WORK: Duration = Duration::from_millis(10);
/// The ancestor's default.
const RESPONSIVENESS: Duration = Duration::from_secs(5);
/// The tightest target there is.
const TIGHT: Duration = Duration::from_millis(500);

/// Requests a second that so many workers can do.
pub(super) fn capacity(workers: usize) -> f64 {
    workers as f64 / WORK.as_secs_f64()
}

pub(super) fn load(rate: f64) -> Arrivals {
    Arrivals { rate, work: WORK, caller: 1 }
}

/// 70 % of the capacity of eight workers, one of them ten times slower, for each contestant.
pub(super) async fn slow(length: Duration) -> Result<()> {
    let workers = Workers::start(8).await?;
    workers.hands[3].ask(Tune { factor: 10.0, fails: false }).await?;
    let rate = 0.7 * capacity(8);
    println!("slow: {rate:.0} requests a second to 8 workers of {WORK:?}, one ten times slower");
    let mut reports: Vec<(&str, Report)> = Vec::new();
    for round in 0..3 {
        let contestants: [(&str, Arc<dyn Dispatch>); 3] = [
            ("layer-cake", Ours::over(&workers, RESPONSIVENESS).await?),
            ("round robin", RoundRobin::over(&workers)),
            ("ancestor", Ancestor::over(&workers, RESPONSIVENESS)),
        ];
        for turn in 0..3 {
            let (name, to) = &contestants[(turn + round) % 3];
            let report = offer(to, load(rate), length / 3).await;
            println!("  {name:11} {}", report.line());
            reports.push((name, report));
        }
    }
    let p99 = |name: &str| {
        let mut all: Vec<_> = reports
            .iter()
            .filter(|(n, _)| *n == name)
            .map(|(_, r)| r.quantile(End::Answered, 0.99).as_secs_f64())
            .collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let ours = p99("layer-cake");
    println!(
        "  p99 (median of 3 rounds): ours {:.1} ms, {:.2} of round robin's, {:.2} of the ancestor's",
        ours * 1e3,
        ours / p99("round robin"),
        ours / p99("ancestor")
    );
    Ok(())
}

/// Resident memory of a process in MiB.
pub(super) fn resident_of(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).context("VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// Twice the capacity, then half of it.
pub(super) async fn overload(length: Duration) -> Result<()> {
    let workers = Workers::start(8).await?;
    let to: Arc<dyn Dispatch> = Ours::over(&workers, TIGHT).await?;
    let rate = capacity(8);
    // What they really can do: timers and the way there and back take their share.
    let alone: Arc<dyn Dispatch> = Ours::over(&workers, TIGHT).await?;
    let measured = offer(&alone, load(rate * 1.5), Duration::from_secs(3)).await;
    let able = measured.count(End::Answered) as f64 / 3.0;
    let half = offer(&to, load(rate / 2.0), Duration::from_secs(3)).await;
    println!("overload: {able:.0} requests a second are possible, target {TIGHT:?}");
    println!("  at half:   {}", half.line());
    let before = resident_of("self")?;
    let twice = offer(&to, load(able * 2.0), length).await;
    // Without what this program notes of each request.
    let after = resident_of("self")? - twice.size() / f64::from(1 << 20);
    let dropped = Instant::now();
    let normal = offer(&to, load(rate / 2.0), Duration::from_secs(4)).await;
    println!("  at double: {}", twice.line());
    let late = twice.between(length / 10, length);
    println!(
        "  goodput {:.2} of capacity; p99 of the answered {:.2} of the target; refused within p50 {:.2} ms, p99 {:.2} ms; memory {before:.1} -> {after:.1} MiB",
        late.count(End::Answered) as f64 / (length.as_secs_f64() * 0.9) / able,
        late.quantile(End::Answered, 0.99).as_secs_f64() / TIGHT.as_secs_f64(),
        late.quantile(End::Refused, 0.5).as_secs_f64() * 1e3,
        late.quantile(End::Refused, 0.99).as_secs_f64() * 1e3,
    );
    let step = Duration::from_millis(100);
    let usual = half.quantile(End::Answered, 0.99).max(WORK) * 2;
    let ill = (0..40).rev().find(|n| {
        let part = normal.between(step * *n, step * (n + 1));
        part.count(End::Answered) < part.all() || part.quantile(End::Answered, 0.9) > usual
    });
    println!(
        "  after it:  {}; normal {:?} after the load fell ({:?} watched)",
        normal.line(),
        ill.map_or(Duration::ZERO, |n| step * (n + 1)),
        dropped.elapsed()
    );
    Ok(())
}

/// One of ten workers answers errors in a millisecond.
pub(super) async fn failing(length: Duration) -> Result<()> {
    let workers = Workers::start(10).await?;
    let to: Arc<dyn Dispatch> = Ours::over(&workers, RESPONSIVENESS).await?;
    let rate = 0.5 * capacity(10);
    println!("failing: {rate:.0} requests a second to 10 workers, one of which fails in 1 ms");
    offer(&to, load(rate), Duration::from_secs(2)).await;
    workers.hands[4].ask(Tune { factor: 1.0, fails: true }).await?;
    let before = workers.counts().await?[4];
    let first = offer(&to, load(rate), Duration::from_secs(1)).await;
    let between = workers.counts().await?[4];
    let rest = offer(&to, load(rate), length).await;
    let after = workers.counts().await?[4];
    println!("  first second: {}", first.line());
    println!("  then:         {}", rest.line());
    println!(
        "  it got {:.1} % in the first second (its share is 10 %), {:.2} % afterwards; {:.2} % of all were answered well",
        100.0 * (between - before) as f64 / first.all() as f64,
        100.0 * (after - between) as f64 / rest.all() as f64,
        100.0 * (first.count(End::Answered) + rest.count(End::Answered)) as f64
            / (first.all() + rest.all()) as f64,
    );
    Ok(())
}

/// A caller at ten times the rate of another, with room for both and without.
pub(super) async fn callers(length: Duration) -> Result<()> {
    let workers = Workers::start(8).await?;
    println!("callers: A at ten times the rate of B, 8 workers of {WORK:?}");
    for share in [0.8, 1.5] {
        let to: Arc<dyn Dispatch> = Ours::over(&workers, RESPONSIVENESS).await?;
        let b = Arrivals { caller: 2, ..load(share * capacity(8) / 11.0) };
        let a = Arrivals { caller: 1, ..load(b.rate * 10.0) };
        let alone = offer(&to, b, length / 2).await;
        let (beside, crowd) = tokio::join!(offer(&to, b, length / 2), offer(&to, a, length / 2));
        println!("  together {:.0} % of capacity", share * 100.0);
        println!("    B alone:  {}", alone.line());
        println!("    B with A: {}", beside.line());
        println!("    A:        {}", crowd.line());
        let p99 = |r: &Report| r.quantile(End::Answered, 0.99).as_secs_f64();
        println!("    B's p99 with A is {:.2} of its p99 alone", p99(&beside) / p99(&alone));
    }
    Ok(())
}
