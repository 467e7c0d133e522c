//! kameo: a bounded mailbox, a type for each message.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use kameo::{
    Actor,
    actor::{ActorRef, Spawn},
    error::Infallible,
    mailbox,
    message::{Context, Message},
};

use super::{
    MAILBOX,
    kind::{Body, Kind, Tally},
};

struct Ask(u64);
struct Tell(u64);

pub(super) struct Answerer(Body);

impl Actor for Answerer {
    type Args = Body;
    type Error = Infallible;

    async fn on_start(body: Body, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self(body))
    }
}

impl Message<Ask> for Answerer {
    type Reply = u64;

    async fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self, u64>) -> u64 {
        self.0.on_ask(number)
    }
}

impl Message<Tell> for Answerer {
    type Reply = ();

    async fn handle(&mut self, Tell(number): Tell, _: &mut Context<Self, ()>) {
        self.0.on_tell(number);
    }
}

pub(super) struct Kameo;

impl Kind for Kameo {
    type Address = ActorRef<Answerer>;
    const WAITS: bool = true;

    async fn start() -> Result<Self> {
        Ok(Self)
    }

    async fn spawn(&self, count: usize, tally: &Arc<Tally>) -> Result<Vec<Self::Address>> {
        // Its default holds 64; the same bound for all that have one.
        let one = |_| Answerer::spawn_with_mailbox(Body::new(tally), mailbox::bounded(MAILBOX));
        Ok((0..count).map(one).collect())
    }

    async fn ask(address: &Self::Address, number: u64) -> Result<u64> {
        // `send` is what `.await` alone does, without a box around the future.
        address.ask(Ask(number)).send().await.ok().context("no reply")
    }

    async fn tell(address: &Self::Address, number: u64) -> Result<()> {
        address.tell(Tell(number)).send().await.ok().context("the actor has ended")
    }

    async fn end(actors: Vec<Self::Address>) -> Result<()> {
        for actor in actors {
            actor.stop_gracefully().await.ok().context("the actor has ended")?;
        }
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
