//! What can be started as a process in the stories of `tests/programs.rs`: the same source in two
//! binaries, `cook`, which has it, and `chef`, which starts it.
#![allow(dead_code, unreachable_pub)]

use layercake::prelude::*;

#[data]
pub struct Start {
    /// What it begins with.
    #[arg(max = 1000)]
    pub amount: u64,
    /// What it is called.
    #[arg(default = "sum")]
    pub label: String,
}

#[data]
#[derive(Debug, PartialEq)]
pub struct Bill {
    pub label: String,
    pub total: u64,
}

#[message(reply = u64)]
pub struct Add {
    pub amount: u64,
}

#[message(reply = u32)]
pub struct Pid {}

/// In which group its node is.
#[message(reply = Option<String>)]
pub struct Grouped {}

/// Ends it; it leaves its bill.
#[message]
pub struct Pay {}

#[message]
pub struct Fall {}

/// Takes a number of bytes, and says whether they were to be had.
#[message(reply = bool)]
pub struct Allocate {
    pub bytes: u64,
}

/// Blocks its process, so that nothing can stop it but a kill; writes into a file when it does.
#[message]
pub struct Hang {
    pub mark: String,
}

pub struct Till {
    bill: Bill,
}

#[actor(args = Start, output = Bill)]
impl Till {
    #[helper]
    pub fn new(start: Start) -> Self {
        Self { bill: Bill { label: start.label, total: start.amount } }
    }

    async fn add(&mut self, add: Add) -> u64 {
        self.bill.total += add.amount;
        self.bill.total
    }

    async fn pid(&mut self, _: Pid) -> u32 {
        std::process::id()
    }

    async fn grouped(&mut self, _: Grouped, ctx: &mut Context<Self>) -> Option<String> {
        ctx.node().group().map(ToString::to_string)
    }

    async fn pay(&mut self, _: Pay, ctx: &mut Context<Self>) {
        let Bill { label, total } = &self.bill;
        ctx.finish(Bill { label: label.clone(), total: *total });
    }

    async fn fall(&mut self, _: Fall) {
        eprintln!("the soup is burning");
        panic!("out of gas");
    }

    async fn allocate(&mut self, Allocate { bytes }: Allocate) -> bool {
        let mut room: Vec<u8> = Vec::new();
        room.try_reserve_exact(bytes.try_into().unwrap_or(usize::MAX)).is_ok()
    }

    async fn hang(&mut self, Hang { mark }: Hang) {
        let _ = std::fs::write(mark, "hangs\n");
        loop {
            std::thread::park();
        }
    }
}

/// One level of a tree of processes.
#[data]
pub struct Level {
    /// How many levels are to be below, the last one a `sleep`.
    pub below: u32,
}

/// Starts the level below and waits for its end, of which it tells on stderr.
#[entry(Branch)]
pub async fn branch(inbox: Inbox<Pid>, Level { below }: Level) -> String {
    let node = inbox.node().clone();
    println!("level {below} is {}", std::process::id());
    let mut inbox = inbox;
    let ended = async {
        let ended = if below > 1 {
            let next = node.process::<Branch>(Level { below: below - 1 }).launch().await;
            match next {
                Ok(mut next) => next.join().await.err(),
                Err(error) => Some(Exit::Failed(error.to_string())),
            }
        } else {
            match node.command("sleep").arg("600").launch().await {
                Ok(mut sleep) => sleep.join().await.err(),
                Err(error) => Some(Exit::Failed(error.to_string())),
            }
        };
        ended.map_or_else(|| "finished".to_owned(), |exit| exit.to_string())
    };
    let answer = async {
        while let Some((_, reply)) = inbox.recv().await {
            reply.send(std::process::id());
        }
    };
    tokio::select! {
        ended = ended => {
            println!("level {below} heard: {ended}");
            ended
        }
        () = answer => "asked to stop".to_owned(),
    }
}
