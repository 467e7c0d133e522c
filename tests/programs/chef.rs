//! A program that starts processes: of another binary, of its own, and foreign ones. It prints what became
//! of them as JSON, for `tests/programs.rs` to judge.

mod kitchen;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kitchen::{Add, Allocate, Branch, Fall, Grouped, Hang, Level, Pay, Pid, Start, Till};
use layercake::{DirectoryConfig, Limits, NodeConfig, prelude::*};
use tokio::{io::AsyncReadExt, net::unix::pipe};

#[data]
enum Scene {
    Serves,
    Refused,
    Panics,
    Killed,
    Stubborn,
    Limited,
    Foreign,
    Groups,
    Tree,
}

#[data]
struct Args {
    scene: Scene,
    /// The other binary.
    #[arg(default = "")]
    cook: String,
    /// Where a named pipe can be made.
    #[arg(default = "")]
    mark: String,
}

/// What became of something: its value or how it ended, and after which time.
#[data]
struct Outcome {
    what: String,
    left: Option<String>,
    exit: Option<Exit>,
    millis: u64,
}

fn outcome(what: &str, since: Instant, result: Result<String, Exit>) -> Outcome {
    let millis = since.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    let (left, exit) = match result {
        Ok(left) => (Some(left), None),
        Err(exit) => (None, Some(exit)),
    };
    Outcome { what: what.to_owned(), left, exit, millis }
}

fn till(amount: u64) -> Start {
    Start { amount, label: "soup".to_owned() }
}

/// A named pipe, into which a process writes when it has come so far.
struct Mark {
    pipe: pipe::Receiver,
}

impl Mark {
    fn make(path: &str) -> Result<Self> {
        std::process::Command::new("mkfifo").arg(path).status()?;
        // Also for writing, so that it has no end while nobody writes.
        Ok(Self { pipe: pipe::OpenOptions::new().read_write(true).open_receiver(path)? })
    }

    async fn reached(&mut self) -> Result<()> {
        tokio::time::timeout(Duration::from_secs(10), self.pipe.read_u8()).await??;
        Ok(())
    }
}

#[layercake::main]
async fn main(node: Node, Args { scene, cook, mark }: Args) -> Result<Vec<Outcome>> {
    let cook = PathBuf::from(cook);
    let since = Instant::now();
    match scene {
        Scene::Serves => {
            let mut process = node.process::<Till>(till(40)).binary(&cook).launch().await?;
            let started = outcome("started", since, Ok(process.ask(Pid {}).await?.to_string()));
            let total = process.ask(Add { amount: 2 }).await?;
            process.tell(Pay {}).await?;
            let bill = process.join().await;
            let left = bill.map(|bill| format!("{} {}", bill.label, bill.total));
            let ended = outcome("ended", since, left);
            Ok(vec![started, outcome("added", since, Ok(total.to_string())), ended])
        }
        Scene::Refused => {
            let none = node.launch_entry(&cook, "Waiter", serde_json::json!({})).await;
            let wrong = node.launch_entry(&cook, "Till", serde_json::json!({"amount": "x"})).await;
            let absent = node.process::<Till>(till(1)).binary("/no/such/binary").launch().await;
            let errors = [none.map(drop), wrong.map(drop), absent.map(drop)];
            let texts = errors
                .map(|error| error.map_or_else(|e| layercake::error_chain(&e), |()| String::new()));
            Ok(texts.into_iter().map(|text| outcome("refused", since, Ok(text))).collect())
        }
        Scene::Panics => {
            let mut process = node.process::<Till>(till(1)).binary(&cook).launch().await?;
            let asked = process.ask(Fall {}).await.err();
            let left = process.join().await.map(|bill| bill.label);
            let ended = outcome("ended", since, left);
            Ok(vec![outcome("asked", since, Ok(format!("{asked:?}"))), ended])
        }
        Scene::Killed => {
            let mut outcomes = Vec::new();
            for _ in 0..3 {
                let mut process = node.process::<Till>(till(1)).binary(&cook).launch().await?;
                let watch = node.watch(process.address());
                let pid = process.ask(Pid {}).await?.to_string();
                let since = Instant::now();
                std::process::Command::new("kill").args(["-9", &pid]).status()?;
                let left = process.join().await.map(|bill| bill.label);
                outcomes.push(outcome("joined", since, left));
                outcomes.push(outcome("watched", since, Err(watch.await)));
            }
            Ok(outcomes)
        }
        Scene::Stubborn => {
            let grace = Duration::from_millis(300);
            let process = node.process::<Till>(till(1)).binary(&cook).grace(grace);
            let mut process = process.launch().await?;
            let mut hangs = Mark::make(&mark)?;
            process.tell(Hang { mark }).await?;
            hangs.reached().await?;
            let since = Instant::now();
            process.stop();
            let hung = outcome("hung", since, process.join().await.map(|bill| bill.label));
            let mut gentle = node.process::<Till>(till(1)).binary(&cook).launch().await?;
            let since = Instant::now();
            gentle.stop();
            let stopped = outcome("gentle", since, gentle.join().await.map(|bill| bill.label));
            Ok(vec![hung, stopped])
        }
        Scene::Limited => {
            let limits = Limits { memory: Some(4 << 30), ..Limits::default() };
            let process = node.process::<Till>(till(1)).binary(&cook).limits(limits);
            let process = process.launch().await?;
            let small = process.ask(Allocate { bytes: 1 << 20 }).await?;
            let large = process.ask(Allocate { bytes: 8 << 30 }).await?;
            Ok(vec![outcome("small, large", since, Ok(format!("{small} {large}")))])
        }
        Scene::Foreign => {
            let sh = |script: &str| node.command("sh").args(["-c", script]);
            let programs = [
                ("cat", node.command("cat").input("a line\n")),
                ("false", node.command("false")),
                ("sh", sh("echo out; echo the pot is empty >&2; exit 3")),
                ("background", sh("sleep 5 & echo out")),
                ("signal", sh("kill -9 $$")),
                ("absent", node.command("/no/such/program")),
            ];
            let mut outcomes = Vec::new();
            for (what, program) in programs {
                let since = Instant::now();
                let left = program.launch().await?.join().await;
                let left = left.map(|out| String::from_utf8_lossy(&out).into_owned());
                outcomes.push(outcome(what, since, left));
            }
            let mut is_deaf = Mark::make(&mark)?;
            let script = format!("trap '' TERM; echo > '{mark}'; while :; do sleep 0.05; done");
            let mut deaf = sh(&script).grace(Duration::from_millis(300)).launch().await?;
            is_deaf.reached().await?;
            let since = Instant::now();
            deaf.stop();
            outcomes.push(outcome("deaf", since, deaf.join().await.map(|_| String::new())));
            Ok(outcomes)
        }
        Scene::Groups => {
            // A node in the group of this process, and one in a group of its own.
            let directory =
                DirectoryConfig { group: Some("cellar".parse()?), ..DirectoryConfig::from_env() };
            let mesh = Some(node.mesh().folder().to_owned());
            let other =
                Node::start_with(NodeConfig { mesh, directory, ..NodeConfig::default() }).await?;
            let mut outcomes = Vec::new();
            for node in [&node, &other] {
                let till = node.process::<Till>(till(1)).binary(&cook).launch().await?;
                let group = till.ask(Grouped {}).await?.unwrap_or_default();
                outcomes.push(outcome("process", since, Ok(group)));
                let foreign = node.command("printenv").args(["LAYERCAKE_GROUP"]);
                let mut foreign = foreign.launch().await?;
                let group =
                    foreign.join().await.map(|out| String::from_utf8_lossy(&out).into_owned());
                outcomes.push(outcome("foreign", since, group));
            }
            other.close().await;
            Ok(outcomes)
        }
        Scene::Tree => {
            let mut top = node.process::<Branch>(Level { below: 3 }).binary(&cook).launch().await?;
            let left = top.join().await;
            Ok(vec![outcome("tree", since, left)])
        }
    }
}
