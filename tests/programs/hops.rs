//! Processes between which an address travels: the program of the story in `tests/hops.rs`.

use layercake::{AnyAddress, prelude::*};

/// Answered with how often it was asked.
#[message(reply = u64)]
pub struct Count {}

/// Answered with the process's id.
#[message(reply = u32)]
pub struct Pid {}

/// Take an address, and keep it.
#[message]
pub struct Take {
    /// Which.
    pub whom: AnyAddress,
}

/// Hand the address that is kept on.
#[message]
pub struct HandOn {
    /// To whom.
    pub to: AnyAddress,
}

/// Ask whoever is at the address that is kept.
#[message(reply = Result<u64, String>)]
pub struct AskIt {}

/// Answered with how the actor at the address that is kept has ended, when it has.
#[message(reply = String)]
pub struct WatchIt {}

/// Where an address stays for a while.
#[derive(Default)]
pub struct Station {
    kept: Option<AnyAddress>,
    count: u64,
}

#[actor]
impl Station {
    async fn count(&mut self, _: Count) -> u64 {
        self.count += 1;
        self.count
    }

    async fn pid(&mut self, _: Pid) -> u32 {
        std::process::id()
    }

    async fn take(&mut self, Take { whom }: Take) {
        self.kept = Some(whom);
    }

    async fn hand_on(&mut self, HandOn { to }: HandOn) {
        if let Some(whom) = self.kept.clone() {
            let _ = to.cast::<Take>().tell(Take { whom }).await;
        }
    }

    async fn ask_it(&mut self, _: AskIt) -> Result<u64, String> {
        let kept = self.kept.clone().ok_or("nobody is known")?;
        kept.cast::<Count>().ask(Count {}).await.map_err(|error| error.to_string())
    }

    async fn watch_it(&mut self, _: WatchIt, reply: Reply<String>, ctx: &mut Context<Self>) {
        let Some(kept) = &self.kept else { return reply.fail("nobody is known") };
        let watch = ctx.node().watch(kept);
        ctx.run(async move { reply.send(watch.await.to_string()) });
    }
}

#[layercake::main]
async fn main(_node: Node) {}
