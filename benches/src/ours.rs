//! layer-cake itself: an actor in another process, an actor on another host, and the whole front
//! door with a pool of worker processes.

use std::{path::Path, time::Duration, time::Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use layercake::{Allowed, NodeConfig, prelude::*, wire};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    contestant::{Contestant, Load, Running},
    load_tools::{self, Protocol},
    other_end::{self, OtherEnd},
    sample::{Latencies, Sample},
    yard::one_thread,
};

const UNIX: &str = "layercake-unix";
const QUIC: &str = "layercake-quic";
const HTTP: &str = "layercake-http";
const GATEWAY: &str = "layercake-gateway";
/// The program behind the gateway.
const PUBLISHED: &str = "layercake-published";

/// Workers behind the front door.
const WORKERS: usize = 4;
/// What they publish for the gateway.
const NAME: &str = "textures";

#[message(reply = Bytes)]
struct Echo {
    data: Bytes,
}

#[message(reply = Vec<Vec<f64>>)]
struct Xy {
    #[arg(max = 1000)]
    x: u32,
    #[arg(max = 1000)]
    y: u32,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn echo(&mut self, Echo { data }: Echo) -> Bytes {
        data
    }

    async fn texture(&mut self, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
        (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
    }
}

/// All of ours.
pub(crate) fn contestants() -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(Ask(UNIX)),
        Box::new(Ask(QUIC)),
        Box::new(Http(HTTP, Protocol::Http1, &[HTTP])),
        Box::new(Http("layercake-h2", Protocol::Http2, &[HTTP])),
        Box::new(Http(GATEWAY, Protocol::Http1, &[PUBLISHED, GATEWAY])),
        Box::new(Http("layercake-gateway-h2", Protocol::Http2, &[PUBLISHED, GATEWAY])),
    ]
}

/// Runs the serving process of one of ours; `None` where it is none.
pub(crate) fn serve(name: &str, args: &[String]) -> Option<Result<()>> {
    match (name, args) {
        (UNIX | QUIC, [mesh]) => Some(serve_actor(Path::new(mesh), name == QUIC)),
        (HTTP, [mesh]) => Some(serve_http(Path::new(mesh))),
        (GATEWAY, [mesh]) => Some(serve_gateway(Path::new(mesh))),
        (PUBLISHED, [mesh]) => Some(serve_published(Path::new(mesh))),
        _ => None,
    }
}

fn config(mesh: &Path) -> NodeConfig {
    NodeConfig { mesh: Some(mesh.to_owned()), ..NodeConfig::default() }
}

async fn node(mesh: &Path) -> Result<Node> {
    Ok(Node::start_with(config(mesh)).await?)
}

/// Asks one actor in another process.
struct Ask(&'static str);

impl Contestant for Ask {
    fn name(&self) -> &'static str {
        self.0
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let folder = tempfile::tempdir()?;
        let (near, mut far) = (folder.path().join("near"), folder.path().join("near"));
        let runtime = one_thread()?;
        let node = runtime.block_on(node(&near))?;
        if self.0 == QUIC {
            // The other process is another host of the mesh.
            far = folder.path().join("far");
            runtime.block_on(async {
                let addr = node.endpoint().listen_quic(None).await?;
                let token = node.mesh().invite(Duration::from_secs(60), &addr.hints)?;
                wire::trust::join(&token, &far, Some("far")).await?;
                anyhow::Ok(())
            })?;
        }
        let server = OtherEnd::start(self.0, &[&far.to_string_lossy()])?;
        let address = node.bind(serde_json::from_str(server.word(0)?)?);
        Ok(Box::new(Asker { node, address, runtime, _server: server, _folder: folder }))
    }
}

struct Asker {
    node: Node,
    address: Address<Worker>,
    runtime: Runtime,
    _server: OtherEnd,
    _folder: TempDir,
}

impl Running for Asker {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        let (address, load) = (&self.address, *load);
        self.runtime.block_on(async {
            let start = Instant::now();
            let end = start + load.duration;
            let mut askers = tokio::task::JoinSet::new();
            for _ in 0..load.in_flight {
                let address = address.clone();
                let data = Bytes::from(vec![0x5a; load.size]);
                askers.spawn(async move {
                    let mut latencies = Vec::new();
                    while Instant::now() < end {
                        let asked = Instant::now();
                        let reply = address.ask(Echo { data: data.clone() }).await?;
                        if reply.len() != data.len() {
                            bail!("the reply has {} bytes", reply.len());
                        }
                        latencies.push(asked.elapsed());
                    }
                    anyhow::Ok(latencies)
                });
            }
            let mut all = Latencies::new();
            while let Some(latencies) = askers.join_next().await {
                latencies??.into_iter().for_each(|latency| all.add(latency));
            }
            all.sample(start.elapsed())
        })
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.runtime.block_on(self.node.close());
    }
}

fn serve_actor(mesh: &Path, quic: bool) -> Result<()> {
    one_thread()?.block_on(async {
        let node = node(mesh).await?;
        if quic {
            node.endpoint().listen_quic(None).await?;
        }
        let address = node.spawn(Worker);
        other_end::ready(&[&serde_json::to_string(&address.id())?])?;
        std::future::pending().await
    })
}

/// A front door before a pool of processes: its name, what is spoken, and which processes of ours that
/// takes, the front door last.
struct Http(&'static str, Protocol, &'static [&'static str]);

impl Contestant for Http {
    fn name(&self) -> &'static str {
        self.0
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let &Self(_, protocol, servers) = self;
        let folder = tempfile::tempdir()?;
        let mesh = folder.path().join("mesh");
        let start = |name: &&str| OtherEnd::start(name, &[&mesh.to_string_lossy()]);
        let servers = servers.iter().map(start).collect::<Result<Vec<_>>>()?;
        let door = servers.last().context("a front door")?;
        let url = format!("http://{}/Xy?x=2&y=2", door.word(0)?);
        Ok(Box::new(Door { protocol, url, _servers: servers, _folder: folder }))
    }
}

struct Door {
    protocol: Protocol,
    url: String,
    _servers: Vec<OtherEnd>,
    _folder: TempDir,
}

impl Running for Door {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        load_tools::load(self.protocol, &self.url, load)
    }
}

/// A program with a front door before its own pool of processes, as `#[layercake::main]` runs it.
fn serve_http(mesh: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = node(mesh).await?;
        let pool = node.pool::<Worker>().processes(WORKERS).start().await;
        let pool = pool.context("cannot start the workers")?;
        pool.wait_for(WORKERS).await;
        let door = node.http("127.0.0.1:0").bind::<Xy>(pool).await?;
        other_end::ready(&[&door.local_addr().to_string()])?;
        let _ = door.run().await;
        Ok(())
    })
}

/// A program whose workers publish themselves.
fn serve_published(mesh: &Path) -> Result<()> {
    one_thread()?.block_on(async {
        let node = node(mesh).await?;
        let pool = node.pool::<Worker>().processes(WORKERS).publish(NAME, Scope::Host).start();
        let pool = pool.await.context("cannot start the workers")?;
        pool.wait_for(WORKERS).await;
        other_end::ready(&[])?;
        node.stopping().await;
        Ok(())
    })
}

/// What `layer-cake gateway` is: a process that has never heard of the workers which others publish.
fn serve_gateway(mesh: &Path) -> Result<()> {
    let (runtime, config) = layercake::front_runtime(config(mesh))?;
    runtime.block_on(async {
        let node = Node::start_with(config).await?;
        let allowed = Allowed::all(Scope::Host);
        let door = node.http("127.0.0.1:0").bind_published(&allowed).await?;
        let addr = door.local_addr();
        tokio::spawn(door.run());
        let all_there = async {
            while node.own_pools().iter().all(|pool| pool.ready < WORKERS) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), all_there).await;
        in_time.context("the gateway does not find the workers that are published")?;
        other_end::ready(&[&addr.to_string()])?;
        node.stopping().await;
        Ok(())
    })
}
