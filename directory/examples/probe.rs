#![allow(unused, missing_docs, unreachable_pub, clippy::unwrap_used)]
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use layercake_directory::{
    Directory, DirectoryConfig, DropReason, Event, Inlet, Name, NotPublished, Pattern, Publication,
    Publish, Scope, Subscription, inlet,
};
use layercake_wire::{
    Endpoint, EndpointConfig, Inbound, Link, LinkDown, Receive, Service,
    id::NodeId,
    trust::{self, Mesh},
};

const SOON: Duration = Duration::from_secs(10);
const CHILD: &str = "LAYERCAKE_TEST_CHILD";

struct Forward(Inlet);

impl Receive for Forward {
    fn on_up(&self, link: Link) {
        self.0.on_up(link);
    }
    fn on_down(&self, link: &Link, down: LinkDown) {
        self.0.on_down(link, down);
    }
    fn on_post(&self, from: &Link, service: Service, body: Bytes) {
        self.0.on_post(from, service, body);
    }
    fn on_datagram(&self, from: &Link, body: Bytes) {
        self.0.on_datagram(from, body);
    }
    fn on_message(&self, _: Inbound) {}
}

struct Node {
    endpoint: Endpoint,
    directory: Directory,
}

impl Node {
    fn start(mesh: &Mesh) -> Self {
        Self::with_seeds(mesh, &[])
    }

    fn with_seeds(mesh: &Mesh, seeds: &[SocketAddr]) -> Self {
        let (inlet, outlet) = inlet();
        let config = EndpointConfig { mesh: mesh.clone(), node: NodeId::random() };
        let endpoint = Endpoint::start(config, Arc::new(Forward(inlet))).expect("starts");
        let seeds = seeds.iter().map(ToString::to_string).collect();
        let config = DirectoryConfig { seeds, mdns: true, port: 54195 };
        let directory = Directory::start(endpoint.clone(), outlet, config);
        Self { endpoint, directory }
    }

    async fn publish(&self, name: &str, scope: Scope) -> Publication {
        self.claim(name, scope, false).await.expect("publishes")
    }

    async fn claim(
        &self,
        name: &str,
        scope: Scope,
        exclusive: bool,
    ) -> Result<Publication, NotPublished> {
        let name = Name::new(name).expect("a good name");
        let publish =
            Publish { name, scope, exclusive, actor: 1, meta: Bytes::from_static(b"api") };
        self.directory.publish(publish).await
    }

    async fn subscribe(&self, pattern: &str, scope: Scope) -> Subscription {
        let pattern = Pattern::new(pattern).expect("a good pattern");
        self.directory.subscribe(pattern, scope).await.expect("subscribes")
    }

    async fn stop(self) {
        self.directory.close().await;
        self.endpoint.close().await;
    }
}

/// One host.
fn host() -> (tempfile::TempDir, Mesh) {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::init(&folder.path().join("mesh"), None).expect("a mesh");
    (folder, mesh)
}

/// Two hosts, and where the first one listens: `first` embeds its directory.
async fn two_hosts() -> (tempfile::TempDir, Node, Mesh, Vec<SocketAddr>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::init(&folder.path().join("a"), None).expect("a mesh");
    let first = Node::start(&mesh);
    let addr = first.endpoint.listen_quic(None).await.expect("listens");
    let token = mesh.invite(Duration::from_secs(60), &addr.hints).expect("invites");
    let joined = trust::join(&token, &folder.path().join("b"), Some("b")).await.expect("joins");
    (folder, first, joined, addr.hints.to_vec())
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "setup" {
        let folder = Path::new(&args[2]);
        let mesh = Mesh::init(&folder.join("a"), None).unwrap();
        let first = Node::start(&mesh);
        let addr = first.endpoint.listen_quic(None).await.unwrap();
        for b in ["b", "c"] {
            let token = mesh.invite(Duration::from_secs(60), &addr.hints).unwrap();
            trust::join(&token, &folder.join(b), Some(b)).await.unwrap();
        }
        return;
    }
    let mesh = Mesh::open(Path::new(&args[1])).unwrap();
    let node = Node::start(&mesh);
    let _p = node.publish(&args[2], Scope::Lan).await;
    let mut s = node.subscribe(".*", Scope::Lan).await;
    while let Some(e) = s.next().await {
        let t =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
                % 1000000;
        match e {
            Event::Available(r) => println!("{t} {} + {}", args[2], r.name),
            Event::Dropped(r, w) => println!("{t} {} - {} {w}", args[2], r.name),
        }
    }
}
