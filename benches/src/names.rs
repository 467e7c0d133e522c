//! One host directory with very many names: its memory, how fast names come, what a pattern costs.
//!
//! The directory is in this process, which has next to no names itself: they belong to nodes in other
//! processes. Those publish as fast as the directory lets them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use layercake::{DirectoryConfig, Event, Node, NodeConfig, Scope, Subscription, actor, message};
use tokio::task::JoinSet;

use crate::{
    other_end::{self, OtherEnd},
    sample::Latencies,
};

/// The contestant's name of a publishing process.
pub(crate) const PUBLISHER: &str = "names-publisher";
/// Publications of one node under way at a time.
const AT_ONCE: usize = 256;
/// What a node may publish at once before its directory slows it down.
const BURST: usize = 8192;

#[derive(Args)]
pub(crate) struct Options {
    /// Names in all, shared out to the nodes.
    #[arg(long, default_value_t = 100_000)]
    names: usize,
    /// Nodes that publish, each a process.
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Subscriptions of each kind that are timed.
    #[arg(long, default_value_t = 1000)]
    subscriptions: usize,
}

/// A node that looks for no other hosts.
async fn node(mesh: &Path) -> Result<Node> {
    let directory = DirectoryConfig { mdns: false, port: 0, ..DirectoryConfig::in_memory() };
    let config = NodeConfig { mesh: Some(mesh.to_owned()), directory, ..NodeConfig::default() };
    Ok(Node::start_with(config).await?)
}

#[message(reply = ())]
struct Ping {}

/// Somebody to be found.
struct Named;

#[actor]
impl Named {
    async fn ping(&mut self, Ping {}: Ping) {}
}

fn name(number: usize) -> String {
    format!("textures:worker:{number:06}")
}

/// Measures, and prints what it found.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        options.nodes > 0 && options.subscriptions > 0,
        "--nodes and --subscriptions: at least 1"
    );
    ensure!(options.names >= 10 * options.nodes, "--names: at least 10 for each of --nodes");
    let share = options.names.div_ceil(options.nodes);
    ensure!(share <= 65_000, "a node has room for 65,536 names: use more --nodes");
    let folder = tempfile::tempdir()?;
    let mesh = folder.path().join("mesh");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let holder = node(&mesh).await?;
        let bell = holder.publish("bell", &holder.spawn(Named), Scope::Host).await?;
        ensure!(holder.directory().is_host_directory(), "the first node is the host's directory");
        let before = resident()?;
        let mut publishers = Vec::new();
        for number in 0..options.nodes {
            let range = number * share..options.names.min((number + 1) * share);
            let args = [
                mesh.to_string_lossy().into_owned(),
                range.start.to_string(),
                range.end.to_string(),
            ];
            publishers.push(OtherEnd::start(PUBLISHER, &args.each_ref().map(String::as_str))?);
        }
        for (number, publisher) in publishers.iter().enumerate() {
            let [burst, all] = [0, 1].map(|word| publisher.word(word).map(ToOwned::to_owned));
            println!("node {number}: {} names/s in its burst, {} names/s in all", burst?, all?);
        }
        let after = resident()?;
        let names = options.names as f64;
        println!(
            "resident: {:.1} MiB before, {:.1} MiB with {} names, {:.0} bytes for each",
            mebi(before),
            mebi(after),
            options.names,
            (after.saturating_sub(before)) as f64 / names
        );
        let client = node(&mesh).await?;
        let actor = client.spawn(Named);
        drop(client.publish("bell:2", &actor, Scope::Host).await?);
        time("publish and withdraw, one after the other", options.subscriptions, async |_| {
            drop(client.publish("order", &actor, Scope::Host).await?);
            Ok(())
        })
        .await?;
        let tens = options.names / 10;
        for (kind, node) in
            [("another process's directory", &client), ("this process's directory", &holder)]
        {
            time(&format!("pattern of 10 names, {kind}"), options.subscriptions, async |round| {
                let ten = format!("{:05}", round * 7919 % tens);
                let pattern = format!("textures:worker:{ten}.");
                ten_of(node.subscribe(&pattern, Scope::Host).await?).await
            })
            .await?;
        }
        // A node may ask for few of these at once: each is asked by one that has asked for nothing yet.
        let mut latencies = Latencies::new();
        let mut spent = Duration::ZERO;
        for round in 0..10 {
            let other = node(&mesh).await?;
            drop(other.publish("bell:3", &other.spawn(Named), Scope::Host).await?);
            let pattern = format!(".*:worker:{:05}.", round * 7919 % tens);
            let begun = Instant::now();
            ten_of(other.subscribe(&pattern, Scope::Host).await?).await?;
            latencies.add(begun.elapsed());
            spent += begun.elapsed();
            other.close().await;
        }
        tell("pattern of 10 names that begins with anything", &latencies, spent)?;
        let held = resident()?;
        println!("resident in the end: {:.1} MiB", mebi(held));
        drop((bell, publishers));
        client.close().await;
        holder.close().await;
        Ok(())
    })
}

/// Waits for the ten names that the pattern has, and sees that there are no more.
async fn ten_of(mut subscription: Subscription) -> Result<()> {
    for _ in 0..10 {
        let next = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
        ensure!(matches!(next, Ok(Some(Event::Available(_)))), "ten names match, but: {next:?}");
    }
    ensure!(subscription.try_next().is_none(), "an eleventh name");
    Ok(())
}

async fn time(what: &str, rounds: usize, work: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let mut latencies = Latencies::new();
    let started = Instant::now();
    for round in 0..rounds {
        let begun = Instant::now();
        work(round).await?;
        latencies.add(begun.elapsed());
    }
    tell(what, &latencies, started.elapsed())
}

fn tell(what: &str, latencies: &Latencies, spent: Duration) -> Result<()> {
    let sample = latencies.sample(spent)?;
    println!("{what}: p50 {:?}, p99 {:?}, {:.0}/s", sample.p50, sample.p99, sample.rps);
    Ok(())
}

/// Publishes a range of names, says how fast that went, and keeps them until its starter goes away.
pub(crate) fn publish(args: &[String]) -> Result<()> {
    let [mesh, from, to] = args else { anyhow::bail!("a mesh folder and a range of names") };
    let (from, to): (usize, usize) = (from.parse()?, to.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = node(Path::new(mesh)).await?;
        let actor = node.spawn(Named);
        let started = Instant::now();
        let (mut tasks, mut kept, mut burst) = (JoinSet::new(), Vec::new(), None);
        for number in from..to {
            if tasks.len() >= AT_ONCE {
                kept.push(tasks.join_next().await.context("a task")???);
            }
            if kept.len() == BURST.min((to - from) / 2) {
                burst.get_or_insert(kept.len() as f64 / started.elapsed().as_secs_f64());
            }
            let (node, actor) = (node.clone(), actor.clone());
            tasks.spawn(async move {
                let published = node.publish(&name(number), &actor, Scope::Host).await;
                published.with_context(|| name(number))
            });
        }
        while let Some(published) = tasks.join_next().await {
            kept.push(published??);
        }
        let all = kept.len() as f64 / started.elapsed().as_secs_f64();
        other_end::ready(&[&format!("{:.0}", burst.unwrap_or(all)), &format!("{all:.0}")])?;
        std::future::pending().await
    })
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes of memory that this process has in use.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
