//! layer-cake: an actor of a node, asked and told by its address.

use std::sync::Arc;

use anyhow::Result;
use layercake::{NodeConfig, prelude::*};
use tempfile::TempDir;

use super::kind::{Body, Kind, Tally};

#[message(reply = u64)]
struct Successor {
    number: u64,
}

#[message]
struct Count {
    number: u64,
}

pub(super) struct Answerer(Body);

#[actor]
impl Answerer {
    async fn successor(&mut self, Successor { number }: Successor) -> u64 {
        self.0.on_ask(number)
    }

    async fn count(&mut self, Count { number }: Count) {
        self.0.on_tell(number);
    }
}

pub(super) struct Layercake {
    node: Node,
    _folder: TempDir,
}

impl Kind for Layercake {
    type Address = Address<Answerer>;
    const WAITS: bool = true;

    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mesh = Some(folder.path().join("mesh"));
        let node = Node::start_with(NodeConfig { mesh, ..NodeConfig::default() }).await?;
        Ok(Self { node, _folder: folder })
    }

    async fn spawn(&self, count: usize, tally: &Arc<Tally>) -> Result<Vec<Self::Address>> {
        Ok((0..count).map(|_| self.node.spawn(Answerer(Body::new(tally)))).collect())
    }

    async fn ask(address: &Self::Address, number: u64) -> Result<u64> {
        Ok(address.ask(Successor { number }).await?)
    }

    async fn tell(address: &Self::Address, number: u64) -> Result<()> {
        Ok(address.tell(Count { number }).await?)
    }

    async fn end(actors: Vec<Self::Address>) -> Result<()> {
        actors.iter().for_each(Address::stop);
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.node.close().await;
        Ok(())
    }
}
