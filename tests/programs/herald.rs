//! For `tests/hosts_names.rs`: a node that publishes and watches names at the word of a test.
//!
//! It reads commands from its input, one in a line, and answers each with a line that begins with `done`:
//! - `publish NAME`, `exclusive NAME`, `withdraw NAME`: one name LAN-wide. An exclusive name that somebody
//!   holds is answered with `held NAME`; one that is lost later is told as `lost NAME`.
//! - `many COUNT PREFIX`: publishes `PREFIX:0` to `PREFIX:COUNT-1`.
//! - `churn RATE SECONDS PREFIX`: publishes and withdraws RATE names a second, for so long.
//! - `watch PATTERN`: tells of all that comes and goes from now on, as
//!   `available NAME HOST FENCE MICROS` and `dropped NAME HOST REASON MICROS`.
//! - `count PATTERN`: how many there are, as `done count NUMBER`, counted without telling of each.
//!
//! Times are microseconds since 1970, by the one clock that all hosts of a lab have.

mod input;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use layercake::{Publication, Subscription, prelude::*};
use tokio::{task::JoinSet, time::Instant};

#[message]
struct Nothing {}

#[derive(Default)]
struct Named;

#[actor]
impl Named {
    async fn nothing(&mut self, Nothing {}: Nothing) {}
}

/// Claims under way at a time.
const AT_A_TIME: usize = 64;
/// Names that a churning node has at a time.
const CHURNED: usize = 100;

fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

struct Herald {
    node: Node,
    actor: Address<Named>,
    held: HashMap<String, Publication>,
    counts: HashMap<String, Arc<AtomicUsize>>,
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let actor = node.spawn(Named);
    let mut herald = Herald { node, actor, held: HashMap::new(), counts: HashMap::new() };
    let mut lines = input::lines();
    println!("ready");
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = herald.node.stopping() => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        let words: Vec<_> = line.split_whitespace().collect();
        herald.obey(&words).await?;
    }
}

impl Herald {
    async fn obey(&mut self, words: &[&str]) -> Result<()> {
        match words {
            ["publish", name] => {
                let at = micros();
                let held = self.node.publish(name, &self.actor, Scope::Lan).await?;
                println!("done publish {name} {at} {}", micros());
                self.held.insert((*name).to_owned(), held);
            }
            ["exclusive", name] => {
                match self.node.publish_exclusive(name, &self.actor, Scope::Lan).await {
                    Ok(mut held) => {
                        println!("done exclusive {name} {}", held.record().fence);
                        let name = (*name).to_owned();
                        // Kept for as long as the process, or until it is lost.
                        tokio::spawn(async move {
                            let holder = held.lost().await;
                            println!("lost {name} {}", holder.instance.host);
                        });
                    }
                    Err(error) => println!("held {name} {error}"),
                }
            }
            ["withdraw", name] => {
                drop(self.held.remove(*name));
                println!("done withdraw {name} {}", micros());
            }
            ["many", count, prefix] => {
                let mut claims = JoinSet::new();
                for number in 0..count.parse()? {
                    if claims.len() >= AT_A_TIME {
                        self.claimed(&mut claims).await?;
                    }
                    let (node, actor) = (self.node.clone(), self.actor.clone());
                    let name = format!("{prefix}:{number}");
                    claims.spawn(async move {
                        let held = node.publish(&name, &actor, Scope::Lan).await;
                        held.map(|held| (name, held)).map_err(|error| error.to_string())
                    });
                }
                while !claims.is_empty() {
                    self.claimed(&mut claims).await?;
                }
                println!("done many {prefix} {}", micros());
            }
            ["churn", rate, seconds, prefix] => {
                let changed = self.churn(rate.parse()?, seconds.parse()?, prefix).await?;
                println!("done churn {changed}");
            }
            ["watch", pattern] => {
                let names = self.node.subscribe(pattern, Scope::Lan).await?;
                tokio::spawn(tell(names));
                println!("done watch {pattern}");
            }
            ["count", pattern] => {
                let known = self.counts.get(*pattern).cloned();
                let count = match known {
                    Some(count) => count,
                    None => {
                        let names = self.node.subscribe(pattern, Scope::Lan).await?;
                        let count = Arc::new(AtomicUsize::new(0));
                        tokio::spawn(keep_count(names, count.clone()));
                        self.counts.insert((*pattern).to_owned(), count.clone());
                        count
                    }
                };
                println!("done count {}", count.load(Ordering::Relaxed));
            }
            _ => return Err(format!("what is `{}`?", words.join(" ")).into()),
        }
        Ok(())
    }

    async fn claimed(
        &mut self,
        claims: &mut JoinSet<std::result::Result<(String, Publication), String>>,
    ) -> Result<()> {
        if let Some(claim) = claims.join_next().await {
            let (name, held) = claim??;
            self.held.insert(name, held);
        }
        Ok(())
    }

    /// How many names were published; all are withdrawn at the end.
    async fn churn(&mut self, rate: u32, seconds: u64, prefix: &str) -> Result<usize> {
        let mut names = std::collections::VecDeque::new();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut beat = tokio::time::interval(Duration::from_millis(10));
        let (start, mut number) = (Instant::now(), 0);
        while Instant::now() < end {
            beat.tick().await;
            let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as usize;
            let mut claims = Vec::new();
            while number < due {
                claims.push((number, format!("{prefix}:{number}")));
                number += 1;
            }
            for (_, name) in claims {
                names.push_back(self.node.publish(&name, &self.actor, Scope::Lan).await?);
                if names.len() > CHURNED {
                    names.pop_front();
                }
            }
        }
        Ok(number)
    }
}

async fn tell(mut names: Subscription) {
    while let Some(event) = names.next().await {
        match event {
            Event::Available(record) => println!(
                "available {} {} {} {}",
                record.name,
                record.instance.host,
                record.fence,
                micros()
            ),
            Event::Dropped(record, reason) => {
                let reason = reason.to_string().replace(' ', "-");
                println!("dropped {} {} {reason} {}", record.name, record.instance.host, micros());
            }
        }
    }
}

async fn keep_count(mut names: Subscription, count: Arc<AtomicUsize>) {
    let mut present = std::collections::HashSet::new();
    while let Some(event) = names.next().await {
        match event {
            Event::Available(record) => present.insert(record.instance),
            Event::Dropped(record, _) => present.remove(&record.instance),
        };
        count.store(present.len(), Ordering::Relaxed);
    }
}
