//! The front door under pressure: a gateway process of its own before eight worker processes, and clients
//! that ask over HTTP.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use layercake::{Cidr, NodeConfig, prelude::*};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    Arrivals,
    contestants::{Asked, Dispatch},
    offer,
    report::{End, Report},
    scenarios::{capacity, load, resident_of},
    workers::{Chore, Hand},
};
use crate::other_end::{self, OtherEnd};

/// The name of the gateway's process.
pub(crate) const DOOR: &str = "load-door";
/// Workers behind the door.
const WORKERS: usize = 8;
/// Connections without a request, and clients that send one byte a second.
const IDLE: usize = 10_000;
const SLOW: usize = 100;
/// How many clients send the load.
const CLIENTS: u64 = 50;
/// How long a client comes back for its answer.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: f64 = (1 << 20) as f64;

/// The gateway's process. As a user has it, but for who its clients are: they say so themselves.
pub(crate) fn serve(mesh: &str) -> Result<()> {
    let mesh = Some(Path::new(mesh).to_owned());
    let (runtime, config) = layercake::front_runtime(NodeConfig { mesh, ..NodeConfig::default() })?;
    runtime.block_on(async {
        let node = Node::start_with(config).await?;
        let pool = node.pool::<Hand>().processes(WORKERS).start().await?;
        pool.wait_for(WORKERS).await;
        let proxies = vec!["127.0.0.0/8".parse::<Cidr>()?];
        let door = node.http("127.0.0.1:0").configure(|config| config.proxies = proxies);
        let door = door.bind::<Chore>(pool).await?;
        other_end::ready(&[&door.local_addr().to_string()])?;
        let _ = door.run().await;
        Ok(())
    })
}

/// The gateway, and a client of it.
struct Door {
    client: Client<HttpConnector, Empty<Bytes>>,
    address: SocketAddr,
    pid: u32,
    _process: OtherEnd,
    _folder: TempDir,
}

impl Door {
    fn open() -> Result<Arc<Self>> {
        let folder = tempfile::tempdir()?;
        let mesh = folder.path().join("mesh");
        let process = OtherEnd::start(DOOR, &[&mesh.to_string_lossy()])?;
        Ok(Arc::new(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            address: process.word(0)?.parse()?,
            pid: process.pid(),
            _process: process,
            _folder: folder,
        }))
    }

    /// Asks once. The status, and when to come back if that was said.
    async fn once(&self, work: Duration, caller: u64) -> Result<(StatusCode, Option<Duration>)> {
        let request =
            Request::get(format!("http://{}/Chore?micros={}", self.address, work.as_micros()))
                .header("x-forwarded-for", format!("10.0.{}.{}", caller / 256, caller % 256))
                .body(Empty::new())?;
        let answer = self.client.request(request).await?;
        let (head, body) = answer.into_parts();
        body.collect().await?;
        let after = head.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok());
        Ok((head.status, after.and_then(|after| after.parse().ok()).map(Duration::from_secs)))
    }

    /// How many connections the gateway has: its open files.
    fn connections(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid))?.count())
    }

    /// Resident memory of the gateway in MiB.
    fn resident(&self) -> Result<f64> {
        resident_of(&self.pid.to_string())
    }
}

fn end_of(outcome: &Result<(StatusCode, Option<Duration>)>) -> End {
    match outcome {
        Ok((status, _)) if status.is_success() => End::Answered,
        Ok((StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _)) => End::Refused,
        Ok((StatusCode::GATEWAY_TIMEOUT, _)) => End::Late,
        Ok(_) => End::Failed,
        Err(_) => End::Lost,
    }
}

/// Asks once, and takes what comes.
struct Once(Arc<Door>, AtomicU64);

impl Once {
    fn at(door: &Arc<Door>) -> Arc<dyn Dispatch> {
        Arc::new(Self(door.clone(), AtomicU64::new(0)))
    }
}

impl Dispatch for Once {
    fn ask(&self, work: Duration, _caller: u64) -> Asked<'_> {
        let caller = self.1.fetch_add(1, Relaxed) % CLIENTS;
        Box::pin(async move { end_of(&self.0.once(work, caller).await) })
    }
}

/// Comes back when told, until it is answered.
struct Again {
    door: Arc<Door>,
    next: AtomicU64,
    tries: AtomicUsize,
}

impl Dispatch for Again {
    fn ask(&self, work: Duration, _caller: u64) -> Asked<'_> {
        let caller = self.next.fetch_add(1, Relaxed) % CLIENTS;
        let begun = Instant::now();
        Box::pin(async move {
            loop {
                self.tries.fetch_add(1, Relaxed);
                let outcome = self.door.once(work, caller).await;
                match outcome {
                    Ok((status, Some(after)))
                        if !status.is_success() && begun.elapsed() + after < PATIENCE =>
                    {
                        tokio::time::sleep(after).await;
                    }
                    outcome => return end_of(&outcome),
                }
            }
        })
    }
}

/// How many requests a second come through with 1.5 times of what should be possible.
async fn able(to: &Arc<dyn Dispatch>) -> f64 {
    let measured = offer(to, load(1.5 * capacity(WORKERS)), Duration::from_secs(5)).await;
    let late = measured.between(Duration::from_secs(2), Duration::from_secs(5));
    late.count(End::Answered) as f64 / 3.0
}

/// Three times what the workers can do.
pub(super) async fn overload(length: Duration) -> Result<()> {
    let door = Door::open()?;
    let to = Once::at(&door);
    let able = able(&to).await;
    println!("door-overload: {able:.0} requests a second are possible, {CLIENTS} clients");
    let half = offer(&to, load(able / 2.0), Duration::from_secs(5)).await;
    println!("  at half:    {}", half.line());
    let before = door.resident()?;
    let thrice = offer(&to, load(able * 3.0), length).await;
    let after = door.resident()?;
    println!("  threefold:  {}", thrice.line());
    let late = thrice.between(length / 10, length);
    println!(
        "  goodput {:.2} of capacity; accepted p99 {:.0} ms; refused within p50 {:.2} ms, p99 {:.2} ms; gateway {before:.1} -> {after:.1} MiB",
        late.count(End::Answered) as f64 / (length.as_secs_f64() * 0.9) / able,
        late.quantile(End::Answered, 0.99).as_secs_f64() * 1e3,
        late.quantile(End::Refused, 0.5).as_secs_f64() * 1e3,
        late.quantile(End::Refused, 0.99).as_secs_f64() * 1e3,
    );
    let normal = offer(&to, load(able / 2.0), Duration::from_secs(5)).await;
    println!("  half again: {}", normal.line());
    Ok(())
}

/// Twice what the workers can do, from clients that come back when they are told.
pub(super) async fn come_back(length: Duration) -> Result<()> {
    let door = Door::open()?;
    let able = able(&Once::at(&door)).await;
    let again = Arc::new(Again { door, next: AtomicU64::new(0), tries: AtomicUsize::new(0) });
    let to: Arc<dyn Dispatch> = again.clone();
    println!("door-retry: {able:.0} requests a second are possible, twice as many come");
    let begun = Instant::now();
    let report = offer(&to, load(able * 2.0), length).await;
    println!("  {}", report.line());
    println!(
        "  {:.2} % had their answer in the end, after {:.2} tries on average, p50 {:.1} s, p99 {:.1} s; all was over {:.1} s after it had begun",
        100.0 * report.count(End::Answered) as f64 / report.all() as f64,
        again.tries.load(Relaxed) as f64 / report.all() as f64,
        report.quantile(End::Answered, 0.5).as_secs_f64(),
        report.quantile(End::Answered, 0.99).as_secs_f64(),
        begun.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Very many connections without a request and some clients that send a byte a second, beside honest ones.
pub(super) async fn idle(length: Duration) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    // The door keeps a connection without a request for ten seconds.
    let length = length.min(Duration::from_secs(6));
    let door = Door::open()?;
    let to = Once::at(&door);
    let honest = Arrivals { rate: 2_000.0, work: Duration::ZERO, caller: 0 };
    println!(
        "door-idle: {:.0} requests a second, {IDLE} idle connections, {SLOW} slow clients",
        honest.rate
    );
    offer(&to, honest, Duration::from_secs(2)).await;
    let mut alone = Report::new();
    let mut beside = Report::new();
    for _ in 0..3 {
        alone.extend(offer(&to, honest, length).await);
        let before = door.resident()?;
        let mut slow = JoinSet::new();
        for _ in 0..SLOW {
            slow.spawn(drip(door.address));
        }
        let begun = Instant::now();
        let mut connections = connect(door.address).await?;
        let connected = begun.elapsed();
        let after = door.resident()?;
        beside.extend(offer(&to, honest, length).await);
        let open = connections.iter_mut().filter(|stream| is_open(stream)).count();
        println!(
            "  gateway {before:.1} -> {after:.1} MiB, {:.1} KiB for each; connected within {connected:.1?}, {open} still open after {length:?}",
            (after - before) * MIB / 1024.0 / (IDLE + SLOW) as f64,
        );
        slow.shutdown().await;
        drop(connections);
        // That many ends at once are work, which is not to count for the next.
        while door.connections()? > CLIENTS as usize * 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!("  alone:       {}", alone.line());
    println!("  beside them: {}", beside.line());
    println!(
        "  honest p99 {:.2} of what it is alone; the gateway has {:.1} MiB in the end",
        beside.quantile(End::Answered, 0.99).as_secs_f64()
            / alone.quantile(End::Answered, 0.99).as_secs_f64(),
        door.resident()?,
    );
    Ok(())
}

/// Connections each of which has had one answer and is kept.
async fn connect(to: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut connecting = JoinSet::new();
    let mut streams = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        if connecting.len() == 64 {
            streams.extend(connecting.join_next().await.transpose()?.transpose()?);
        }
        connecting.spawn(async move {
            let mut stream = TcpStream::connect(to).await?;
            stream.write_all(b"GET /Chore?micros=0 HTTP/1.1\r\nhost: door\r\n\r\n").await?;
            let mut answer = [0; 4096];
            let count = stream.read(&mut answer).await?;
            ensure!(
                answer[..count].starts_with(b"HTTP/1.1 200"),
                "{}",
                answer[..count].escape_ascii()
            );
            anyhow::Ok(stream)
        });
    }
    while let Some(stream) = connecting.join_next().await {
        streams.push(stream??);
    }
    Ok(streams)
}

fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0; 64]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A client that sends a byte a second, and comes again when it is cut off.
async fn drip(to: SocketAddr) -> Result<()> {
    loop {
        let mut stream = TcpStream::connect(to).await.context("cannot connect")?;
        for byte in b"GET /Chore?micros=0 HTTP/1.1\r\nhost: door\r\nx-slowly: yes\r\n\r\n" {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
