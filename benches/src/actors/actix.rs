//! actix: actors on the thread of an arbiter, asked and told from the two threads of the runtime.
//!
//! That is how it meets the rest of a tokio program. Within one arbiter there is no second thread to
//! cross to, and no handler of another actor runs meanwhile.

use std::{sync::Arc, thread};

use actix::{Actor, Addr, ArbiterHandle, Context, Handler, Message, System};
use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;

use super::{
    MAILBOX,
    kind::{Body, Kind, Tally},
};

struct Ask(u64);
struct Tell(u64);

impl Message for Ask {
    type Result = u64;
}

impl Message for Tell {
    type Result = ();
}

pub(super) struct Answerer(Body);

impl Actor for Answerer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Its default holds 16; the same bound for all that have one. Only asks heed it.
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Ask> for Answerer {
    type Result = u64;

    fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self>) -> u64 {
        self.0.on_ask(number)
    }
}

impl Handler<Tell> for Answerer {
    type Result = ();

    fn handle(&mut self, Tell(number): Tell, _: &mut Context<Self>) {
        self.0.on_tell(number);
    }
}

pub(super) struct Actix {
    system: System,
    arbiter: ArbiterHandle,
    thread: thread::JoinHandle<()>,
}

impl Kind for Actix {
    type Address = Addr<Answerer>;
    // `do_send` passes by the bound, and nothing else waits for room without waiting for the reply.
    const WAITS: bool = false;

    async fn start() -> Result<Self> {
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new().name("actix".to_owned()).spawn(move || {
            let runner = System::new();
            let _ = ready.send(System::current());
            if let Err(error) = runner.run() {
                eprintln!("actix: {error}");
            }
        })?;
        let system = started.await.context("actix does not start")?;
        let arbiter = system.arbiter().clone();
        Ok(Self { system, arbiter, thread })
    }

    async fn spawn(&self, count: usize, tally: &Arc<Tally>) -> Result<Vec<Self::Address>> {
        let (done, started) = oneshot::channel();
        let tally = tally.clone();
        self.arbiter.spawn_fn(move || {
            let one = |_| Answerer(Body::new(&tally)).start();
            let _ = done.send((0..count).map(one).collect());
        });
        started.await.context("the arbiter has ended")
    }

    async fn ask(address: &Self::Address, number: u64) -> Result<u64> {
        Ok(address.send(Ask(number)).await?)
    }

    async fn tell(address: &Self::Address, number: u64) -> Result<()> {
        address.do_send(Tell(number));
        Ok(())
    }

    async fn end(actors: Vec<Self::Address>) -> Result<()> {
        drop(actors);
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.system.stop();
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        joined.map_err(|_| anyhow!("the thread of actix panicked"))
    }
}
