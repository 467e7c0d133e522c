//! What many write instead of an actor: a tokio task, a channel to it, a oneshot for the reply.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{mpsc, oneshot};

use super::{
    MAILBOX,
    kind::{Body, Kind, Tally},
};

pub(super) enum Message {
    Ask(u64, oneshot::Sender<u64>),
    Tell(u64),
}

fn handle(body: &mut Body, message: Message) {
    match message {
        Message::Ask(number, reply) => {
            let _ = reply.send(body.on_ask(number));
        }
        Message::Tell(number) => body.on_tell(number),
    }
}

/// With a bounded channel.
pub(super) struct Bounded;

impl Kind for Bounded {
    type Address = mpsc::Sender<Message>;
    const WAITS: bool = true;

    async fn start() -> Result<Self> {
        Ok(Self)
    }

    async fn spawn(&self, count: usize, tally: &Arc<Tally>) -> Result<Vec<Self::Address>> {
        let one = |_| {
            let (address, mut inbox) = mpsc::channel(MAILBOX);
            let mut body = Body::new(tally);
            tokio::spawn(async move {
                while let Some(message) = inbox.recv().await {
                    handle(&mut body, message);
                }
            });
            address
        };
        Ok((0..count).map(one).collect())
    }

    async fn ask(address: &Self::Address, number: u64) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        address.send(Message::Ask(number, reply)).await?;
        Ok(answer.await?)
    }

    async fn tell(address: &Self::Address, number: u64) -> Result<()> {
        Ok(address.send(Message::Tell(number)).await?)
    }

    async fn end(actors: Vec<Self::Address>) -> Result<()> {
        drop(actors);
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}

/// With an unbounded channel.
pub(super) struct Unbounded;

impl Kind for Unbounded {
    type Address = mpsc::UnboundedSender<Message>;
    const WAITS: bool = false;

    async fn start() -> Result<Self> {
        Ok(Self)
    }

    async fn spawn(&self, count: usize, tally: &Arc<Tally>) -> Result<Vec<Self::Address>> {
        let one = |_| {
            let (address, mut inbox) = mpsc::unbounded_channel();
            let mut body = Body::new(tally);
            tokio::spawn(async move {
                while let Some(message) = inbox.recv().await {
                    handle(&mut body, message);
                }
            });
            address
        };
        Ok((0..count).map(one).collect())
    }

    async fn ask(address: &Self::Address, number: u64) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        address.send(Message::Ask(number, reply))?;
        Ok(answer.await?)
    }

    async fn tell(address: &Self::Address, number: u64) -> Result<()> {
        Ok(address.send(Message::Tell(number))?)
    }

    async fn end(actors: Vec<Self::Address>) -> Result<()> {
        drop(actors);
        Ok(())
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
