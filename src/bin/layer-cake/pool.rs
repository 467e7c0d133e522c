//! `layer-cake pool`: the pools of the mesh, or those of one name, with their workers.

use clap::Args;
use layercake::{
    MeshPool, PoolStatus,
    pool::{Place, Times, WorkerState, WorkerStatus},
    prelude::*,
};
use serde::Serialize;

use crate::{network, output};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layer-cake pool\n  layer-cake pool textures --json | jq '.pools[].workers[] | {at, state, answered}'"
)]
pub(crate) struct Pool {
    /// Show the pools of this name with all that is known of them; otherwise all, in short.
    name: Option<String>,
    /// Print one JSON object with everything that is known.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

#[derive(Serialize)]
struct Json<'a> {
    mesh: &'a str,
    pools: &'a [MeshPool],
}

impl Pool {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        let mut pools = layercake::pools_of(&network::snapshot(&node).await?);
        if let Some(name) = &self.name {
            pools.retain(|pool| pool.pool.name == *name);
            if pools.is_empty() {
                return Err(format!(
                    "no pool `{name}` in this mesh; `layer-cake pool` lists those that there are"
                )
                .into());
            }
        }
        let mesh = &*node.mesh().id().name;
        let text = match pools.is_empty() {
            true => format!("no pools in mesh {mesh}"),
            false => pools.iter().map(|pool| draw(pool, self.name.is_some())).collect(),
        };
        output::record(self.json, &Json { mesh, pools: &pools }, text.trim_end())?;
        Ok(())
    }
}

/// A pool for people: its head, its workers, and with `all` what it has turned away and how long it took.
fn draw(MeshPool { host_name, node, about, pool, .. }: &MeshPool, all: bool) -> String {
    let node = &node.to_string()[..4];
    let mut text = format!(
        "{}  {} of {} ready on {host_name}/{node} ({} {})\n",
        pool.name,
        pool.ready,
        pool.workers.len() + pool.omitted,
        about.program,
        about.pid
    );
    text += &format!(
        "  {} in flight  {} waiting  expected wait {}  restarts {}  ejections {}\n",
        pool.in_flight,
        pool.waiting,
        span(pool.expected_wait_ms),
        pool.restarts,
        pool.totals.ejected
    );
    if all {
        text += &format!("  latency      {}\n", times(&pool.latency));
        text += &format!("  queue delay  {}\n", times(&pool.queue_delay));
        text += &format!("  requests     {}\n", counts(&pool.totals.requests()));
        text += &format!("  turned away  {}\n", counts(&pool.totals.rejections()));
        text += &format!("  second tries {}\n", counts(&pool.totals.repetitions()));
    }
    text += &table(pool);
    if pool.omitted > 0 {
        text += &format!("  … and {} more\n", pool.omitted);
    }
    text.push('\n');
    text.retain(|c| c == '\n' || !c.is_control());
    text
}

fn counts(of: &[(&str, u64)]) -> String {
    let some: Vec<_> =
        of.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join("  ") }
}

fn times(of: &Times) -> String {
    if of.count == 0 {
        return "-".to_owned();
    }
    format!(
        "p50 {}  p95 {}  p99 {}  of {}",
        span(of.p50_ms),
        span(of.p95_ms),
        span(of.p99_ms),
        of.count
    )
}

/// A time in milliseconds, three digits of it.
fn span(ms: f64) -> String {
    match ms {
        _ if ms >= 10_000.0 => format!("{:.0}s", ms / 1e3),
        _ if ms >= 1000.0 => format!("{:.1}s", ms / 1e3),
        _ if ms >= 10.0 => format!("{ms:.0}ms"),
        _ if ms >= 0.01 => format!("{ms:.2}ms"),
        _ => "0ms".to_owned(),
    }
}

fn table(pool: &PoolStatus) -> String {
    let heads = [
        "worker",
        "where",
        "state",
        "in flight",
        "limit",
        "p50",
        "p99",
        "answered",
        "failed",
        "restarts",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(pool.workers.iter().map(row));
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 10] = std::array::from_fn(width);
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                // Words to the left, numbers to the right.
                if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        })
        .collect()
}

fn row(worker: &WorkerStatus) -> [String; 10] {
    let place = match (worker.place, worker.pid) {
        (Place::Process, Some(pid)) => format!("process {pid}"),
        (Place::Task, _) => "task".to_owned(),
        (Place::Thread, _) => "thread".to_owned(),
        (Place::Process, None) => "process".to_owned(),
        (Place::Member, _) => worker.name.clone().unwrap_or_else(|| "member".to_owned()),
        _ => "added".to_owned(),
    };
    let state = match (worker.state, worker.back_in_ms) {
        (WorkerState::StandingDown, Some(ms)) => format!("back in {}", span(ms as f64)),
        (state, _) => state.to_string(),
    };
    let latency = |ms: f64| if worker.latency.count == 0 { "-".to_owned() } else { span(ms) };
    [
        place,
        if worker.at.is_empty() { "-".to_owned() } else { worker.at.clone() },
        state,
        worker.in_flight.to_string(),
        worker.limit.to_string(),
        latency(worker.latency.p50_ms),
        latency(worker.latency.p99_ms),
        worker.answered.to_string(),
        worker.failed.to_string(),
        worker.restarts.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0.0, 0.3, 4.56, 12.3, 999.0, 1500.0, 65_000.0].map(span);
        assert_eq!(shown, ["0ms", "0.30ms", "4.56ms", "12ms", "999ms", "1.5s", "65s"]);
        assert_eq!(
            counts(&[("busy", 0), ("overloaded", 2), ("unavailable", 1)]),
            "2 overloaded  1 unavailable"
        );
        assert_eq!(counts(&[("busy", 0)]), "none");
    }
}
