//! For the stories of pools under load (`tests/pools_kill.rs`, `tests/hosts_pools.rs`): workers that write
//! down what they begin, and somebody who asks them all the time and writes down how that went.
//!
//! `crew workers N` publishes N worker processes LAN-wide as `crew:worker`, and prints `ready`.
//! `crew load processes N ASKERS KIND` asks a pool of N processes of its own, `crew load hosts ASKERS KIND`
//! one of whatever is published, with as many askers; KIND is `once` or `again` (idempotent). It prints
//! `ready` when there is a worker, on the line `now` of its input how many requests each worker has, as
//! JSON, and after SIGTERM `reported`, when `$CREW_LOG.json` says what has become of all requests.
//!
//! Workers append the number of each request that they begin to `$CREW_LOG/PID`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use layercake::prelude::*;

const NAME: &str = "crew:worker";
/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How much later than that counts as late: the wait for a processor, where others want it, too.
const SLACK: Duration = Duration::from_millis(250);

/// Something that must not be done twice.
#[message(reply = u64)]
struct Once {
    id: u64,
    ms: u64,
}

/// Something that may be done twice.
#[message(reply = u64, idempotent)]
struct Again {
    id: u64,
    ms: u64,
}

#[derive(Default)]
struct Worker {
    log: Option<File>,
}

impl Worker {
    async fn work(&mut self, id: u64, ms: u64) -> u64 {
        let log = self.log.get_or_insert_with(|| {
            let folder = std::env::var("CREW_LOG").expect("`CREW_LOG` names a folder");
            let path = format!("{folder}/{}", std::process::id());
            File::options().create(true).append(true).open(path).expect("the folder is there")
        });
        // In one piece, so that a killed worker leaves whole lines.
        log.write_all(format!("{id}\n").as_bytes()).expect("there is room");
        // Time is the work, so that there is always something in hand when a worker dies.
        tokio::time::sleep(Duration::from_millis(ms)).await;
        id
    }
}

#[actor]
impl Worker {
    async fn once(&mut self, Once { id, ms }: Once) -> u64 {
        self.work(id, ms).await
    }

    async fn again(&mut self, Again { id, ms }: Again) -> u64 {
        self.work(id, ms).await
    }
}

/// What has become of the requests.
#[derive(Default, serde::Serialize)]
struct Report {
    /// The numbers of those that were answered.
    answered: Vec<u64>,
    failed: Vec<Failed>,
    /// How many took longer than they may.
    late: u64,
    /// The longest, in milliseconds.
    slowest: u128,
}

#[derive(serde::Serialize)]
struct Failed {
    id: u64,
    may_have_run: bool,
    error: String,
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["workers", n] => {
            let pool = node.pool::<Worker>().processes(n.parse()?).publish(NAME, Scope::Lan);
            let _pool = pool.start().await?;
            println!("ready");
            node.stopping().await;
            Ok(())
        }
        ["load", "processes", n, askers, kind] => {
            let pool = node.pool::<Worker>().processes(n.parse()?).named("crew").start().await?;
            load(&node, pool, askers.parse()?, kind == "again").await
        }
        ["load", "hosts", askers, kind] => {
            let pool = node.pool::<Worker>().hosts(NAME, Scope::Lan).named("crew").start().await?;
            load(&node, pool, askers.parse()?, kind == "again").await
        }
        _ => Err("usage: crew workers N | crew load processes N|hosts ASKERS once|again".into()),
    }
}

async fn load(node: &Node, pool: Pool<Worker>, askers: usize, again: bool) -> Result<()> {
    pool.wait_for(1).await;
    println!("ready");
    let shown = pool.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if line == "now" {
                let workers = shown.status().workers;
                let each: BTreeMap<_, _> =
                    workers.iter().map(|worker| (&worker.at, worker.in_flight)).collect();
                println!("{}", serde_json::to_string(&each).unwrap_or_default());
            }
        }
    });
    let over = Arc::new(AtomicBool::new(false));
    let report = Arc::new(Mutex::new(Report::default()));
    let next = Arc::new(AtomicU64::new(0));
    let asking: Vec<_> = (0..askers)
        .map(|_| {
            let (pool, over) = (pool.clone(), over.clone());
            let (report, next) = (report.clone(), next.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let (begun, ms) = (Instant::now(), id % 5);
                    let answer = if again {
                        pool.ask_within(Again { id, ms }, LIMIT).await
                    } else {
                        pool.ask_within(Once { id, ms }, LIMIT).await
                    };
                    let took = begun.elapsed();
                    let mut report =
                        report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    report.late += u64::from(took > LIMIT + SLACK);
                    report.slowest = report.slowest.max(took.as_millis());
                    match answer {
                        Ok(answered) if answered == id => report.answered.push(id),
                        Ok(other) => report.failed.push(Failed {
                            id,
                            may_have_run: false,
                            error: format!("answered with {other}"),
                        }),
                        Err(error) => report.failed.push(Failed {
                            id,
                            may_have_run: error.may_have_run(),
                            error: error.to_string(),
                        }),
                    }
                }
            })
        })
        .collect();
    node.stopping().await;
    over.store(true, Ordering::Relaxed);
    for asker in asking {
        let _ = asker.await;
    }
    let report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = format!("{}.json", std::env::var("CREW_LOG")?);
    std::fs::write(path, serde_json::to_string(&*report)?)?;
    println!("reported");
    Ok(())
}
