//! The demo: a worker that answers `Xy` with a table, a pool of them, and an HTTP front door.

use clap::{Args, Subcommand, ValueEnum};
use layercake::prelude::*;

use crate::{front::Front, output::say};

/// The name that demo workers publish.
const NAME: &str = "textures:worker";
/// What its pools are called.
const POOL: &str = "textures";

/// A table of random numbers with `x` columns and `y` rows.
#[message(reply = Vec<Vec<f64>>, idempotent)]
struct Xy {
    /// How many columns.
    #[arg(max = 1000)]
    x: u32,
    /// How many rows.
    #[arg(default = 8, max = 1000)]
    y: u32,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn texture(&mut self, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
        (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
    }
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  layer-cake demo --pool threads --workers 2\n  curl 'http://127.0.0.1:5050/Xy?x=2&y=2'"
)]
pub(crate) struct Demo {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    whole: Whole,
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Publish workers to the whole LAN, and nothing else.
    Worker(Workers),
    /// Serve HTTP from whatever workers are published on the LAN.
    Gateway(Box<Front>),
}

#[derive(Debug, Args)]
struct Whole {
    /// Where the workers live.
    #[arg(long, value_enum, default_value_t = PoolKind::Processes)]
    pool: PoolKind,
    #[command(flatten)]
    workers: Workers,
    #[command(flatten)]
    door: Front,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PoolKind {
    /// Tasks in this process.
    Tasks,
    /// Threads of this process.
    Threads,
    /// Processes on this host.
    Processes,
    /// Published workers on all hosts; the demo starts its own on this one.
    Hosts,
}

#[derive(Debug, Args)]
struct Workers {
    /// How many workers.
    #[arg(long, value_name = "N", default_value_t = 4)]
    workers: usize,
}

impl Demo {
    /// Whether workers' handlers run on this process's own runtime.
    pub(crate) fn has_handlers(&self) -> bool {
        self.part.is_none() && self.whole.pool == PoolKind::Tasks
    }

    pub(crate) async fn run(self, node: Node) -> Result<()> {
        match self.part {
            Some(Part::Worker(workers)) => {
                // Each worker is a process that publishes itself; this one keeps them alive.
                let _workers = publish_workers(&node, workers.workers).await?;
                node.stopping().await;
                Ok(())
            }
            Some(Part::Gateway(door)) => {
                let pool =
                    node.pool::<Worker>().hosts(NAME, Scope::Lan).named(POOL).start().await?;
                serve(node, pool, *door).await
            }
            None => self.whole.run(node).await,
        }
    }
}

impl Whole {
    async fn run(self, node: Node) -> Result<()> {
        let n = self.workers.workers;
        let _workers = match self.pool {
            PoolKind::Hosts => Some(publish_workers(&node, n).await?),
            _ => None,
        };
        let pool = node.pool::<Worker>().named(POOL);
        let pool = match self.pool {
            PoolKind::Tasks => pool.tasks(n),
            PoolKind::Threads => pool.threads(n),
            PoolKind::Processes => pool.processes(n),
            PoolKind::Hosts => pool.hosts(NAME, Scope::Lan),
        };
        serve(node, pool.start().await?, self.door).await
    }
}

async fn publish_workers(node: &Node, n: usize) -> Result<Pool<Worker>> {
    Ok(node.pool::<Worker>().processes(n).publish(NAME, Scope::Lan).named(NAME).start().await?)
}

async fn serve(node: Node, pool: Pool<Worker>, front: Front) -> Result<()> {
    let door = front.of(&node)?.bind::<Xy>(pool.clone()).await?;
    let ready = format!("ready: {}://{}", door.scheme(), door.local_addr());
    let announce = async {
        pool.wait_for(1).await;
        say(&ready)
    };
    // Until there is a worker the door answers 503, and says so.
    let (said, _) = tokio::join!(
        async {
            tokio::select! {
                said = announce => said,
                () = node.stopping() => Ok(()),
            }
        },
        door.run()
    );
    pool.stop().await;
    Ok(said?)
}
