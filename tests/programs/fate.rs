//! For `tests/hosts_fate.rs`: an actor that never answers, and somebody on another host who asks it.
//!
//! `fate serve` publishes the actor LAN-wide as `fate:sleeper`. `fate ask` finds it there, and says in
//! one line each what it learns, beginning with `asked: `, `watched: ` or `again: `:
//! - `linked`: an ask has been answered, so there is a link.
//! - `asked: ERROR`: the ask that the actor was in the middle of has failed.
//! - `watched: EXIT`: how the actor ended.
//! - `again: ERROR`: the ask after that.

use layercake::prelude::*;

const NAME: &str = "fate:sleeper";

/// Answers at once, or never.
#[message(reply = bool)]
struct Nap {
    #[arg(default = false)]
    forever: bool,
}

#[derive(Default)]
struct Sleeper;

#[actor]
impl Sleeper {
    async fn nap(&mut self, Nap { forever }: Nap) -> bool {
        if forever {
            println!("asleep");
            std::future::pending::<()>().await;
        }
        true
    }
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => {
            let sleeper = node.spawn(Sleeper);
            let _name = node.publish(NAME, &sleeper, Scope::Lan).await?;
            println!("ready");
            node.stopping().await;
            Ok(())
        }
        Some("ask") => ask(&node).await,
        _ => Err("usage: fate serve|ask".into()),
    }
}

async fn ask(node: &Node) -> Result<()> {
    let mut names = node.subscribe_to(NAME, Scope::Lan).await?;
    let sleeper: Address<Sleeper> = loop {
        match names.next().await {
            Some(Event::Available(record)) => break node.bind(record.address.clone()),
            Some(_) => {}
            None => return Err("the directory is closed".into()),
        }
    };
    sleeper.ask(Nap { forever: false }).await?;
    let watch = node.watch(&sleeper);
    let watching = async {
        println!("watched: {:?}", watch.await);
    };
    let asking = async {
        println!("linked");
        match sleeper.ask(Nap { forever: true }).await {
            Ok(_) => println!("asked: answered"),
            Err(error) => println!("asked: {error:?}"),
        }
        match sleeper.ask(Nap { forever: false }).await {
            Ok(_) => println!("again: answered"),
            Err(error) => println!("again: {error:?}"),
        }
    };
    tokio::join!(watching, asking);
    Ok(())
}
