//! ractor: an unbounded mailbox, start awaited, messages in an enum with reply ports.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, rpc::CallResult};

use super::kind::{Body, Kind, Tally};

pub(super) enum Message {
    Ask(u64, RpcReplyPort<u64>),
    Tell(u64),
}

struct Answerer;

impl Actor for Answerer {
    type Msg = Message;
    type State = Body;
    type Arguments = Body;

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        body: Body,
    ) -> Result<Body, ActorProcessingErr> {
        Ok(body)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        body: &mut Body,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ask(number, reply) => {
                let _ = reply.send(body.on_ask(number));
            }
            Message::Tell(number) => body.on_tell(number),
        }
        Ok(())
    }
}

pub(super) struct Ractor;

impl Kind for Ractor {
    type Address = ActorRef<Message>;
    const WAITS: bool = false;

    async fn start() -> Result<Self> {
        Ok(Self)
    }

    async fn spawn(&self, count: usize, tally: &Arc<Tally>) -> Result<Vec<Self::Address>> {
        let mut actors = Vec::with_capacity(count);
        for _ in 0..count {
            let (actor, _) = Actor::spawn(None, Answerer, Body::new(tally)).await?;
            actors.push(actor);
        }
        Ok(actors)
    }

    async fn ask(address: &Self::Address, number: u64) -> Result<u64> {
        let called = address.call(|reply| Message::Ask(number, reply), None).await;
        match called.ok().context("the actor has ended")? {
            CallResult::Success(reply) => Ok(reply),
            CallResult::Timeout | CallResult::SenderError => bail!("no reply"),
        }
    }

    async fn tell(address: &Self::Address, number: u64) -> Result<()> {
        address.cast(Message::Tell(number)).ok().context("the actor has ended")
    }

    async fn end(actors: Vec<Self::Address>) -> Result<()> {
        actors.into_iter().for_each(|actor| actor.stop(None));
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
