//! The workers: processes of this program, whose speed and manners can be set.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use layercake::{Address, DirectoryConfig, Event, Node, NodeConfig, Pool, Scope, actor, message};
use tempfile::TempDir;

/// The name under which workers are found.
pub(super) const NAME: &str = "load:hand";

/// Takes so long, by waiting: the machine's processors do not limit how many workers work.
#[message(reply = Result<(), String>, idempotent)]
pub(super) struct Chore {
    pub(super) micros: u64,
}

/// Sets the worker's manners.
#[message(reply = ())]
pub(super) struct Tune {
    /// How much longer everything takes.
    pub(super) factor: f64,
    /// Whether each chore fails, after a millisecond.
    pub(super) fails: bool,
}

/// How many chores the worker has had.
#[message(reply = u64)]
pub(super) struct Count {}

pub(super) struct Hand {
    factor: f64,
    fails: bool,
    chores: u64,
}

impl Default for Hand {
    fn default() -> Self {
        Self { factor: 1.0, fails: false, chores: 0 }
    }
}

#[actor]
impl Hand {
    async fn chore(&mut self, Chore { micros }: Chore) -> Result<(), String> {
        self.chores += 1;
        if self.fails {
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Err("out of order".to_owned());
        }
        let time = Duration::from_micros(micros).mul_f64(self.factor);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        Ok(())
    }

    async fn tune(&mut self, Tune { factor, fails }: Tune) {
        (self.factor, self.fails) = (factor, fails);
    }

    async fn count(&mut self, Count {}: Count) -> u64 {
        self.chores
    }
}

/// Worker processes, each with its address.
pub(super) struct Workers {
    pub(super) node: Node,
    pub(super) hands: Vec<Address<Hand>>,
    _pool: Pool<Hand>,
    _folder: TempDir,
}

impl Workers {
    pub(super) async fn start(count: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = node(folder.path()).await?;
        let pool = node.pool::<Hand>().processes(count).publish(NAME, Scope::Host).start().await?;
        pool.wait_for(count).await;
        let mut names = node.subscribe(NAME, Scope::Host).await?;
        let mut hands = Vec::new();
        while hands.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(10), names.next()).await;
            match next.context("workers that do not publish")? {
                Some(Event::Available(record)) => hands.push(node.bind(record.address.clone())),
                other => ensure!(other.is_some(), "the directory has ended"),
            }
        }
        Ok(Self { node, hands, _pool: pool, _folder: folder })
    }

    pub(super) async fn counts(&self) -> Result<Vec<u64>> {
        let mut counts = Vec::new();
        for hand in &self.hands {
            counts.push(hand.ask(Count {}).await?);
        }
        Ok(counts)
    }
}

async fn node(mesh: &Path) -> Result<Node> {
    let directory = DirectoryConfig { mdns: false, port: 0, ..DirectoryConfig::in_memory() };
    let config = NodeConfig { mesh: Some(mesh.to_owned()), directory, ..NodeConfig::default() };
    Ok(Node::start_with(config).await?)
}
