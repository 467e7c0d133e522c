//! Directories that meet in a real etcd, on one machine: two mesh folders are two hosts. Each reaches
//! etcd by a way of its own that can be cut.
//!
//! Needs the program `etcd` (Debian's `etcd-server`, 3.4 or newer; `cargo xtask setup` installs it);
//! without it the tests say so and do nothing.
#![cfg(feature = "etcd")]

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Node, SOON, described, dropped, eventually, found, next};
use layercake_directory::{
    DirectoryConfig, DropReason, Engine, EtcdConfig, EtcdTls, Event, MAX_META, Name, NodeGone,
    NotPublished, Publication, Publish, Scope, Subscription,
};
use layercake_wire::trust::{self, Mesh};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tokio::{net, sync::watch};

const TTL: Duration = Duration::from_secs(3);

/// A real etcd, with its data in a folder of its own.
struct Etcd {
    folder: tempfile::TempDir,
    ports: [u16; 2],
    child: Child,
    /// Where connections to it are encrypted.
    tls: Option<EtcdTls>,
}

impl Etcd {
    async fn start(encrypted: bool) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: no etcd here; `cargo xtask setup` as root installs etcd-server");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let sockets = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds"));
        let ports = sockets.map(|socket| socket.local_addr().expect("bound").port());
        let tls = encrypted.then(|| certificates(folder.path()));
        let child = Self::spawn(&folder, ports, tls.as_ref());
        let etcd = Self { folder, ports, child, tls };
        etcd.wait().await;
        Some(etcd)
    }

    fn spawn(folder: &tempfile::TempDir, ports: [u16; 2], tls: Option<&EtcdTls>) -> Child {
        let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let client = if tls.is_some() { client.replace("http", "https") } else { client };
        let mut command = Command::new("etcd");
        if let Some(EtcdTls { ca, .. }) = tls {
            command.arg("--trusted-ca-file").arg(ca).arg("--client-cert-auth");
            command.arg("--cert-file").arg(folder.path().join("server.pem"));
            command.arg("--key-file").arg(folder.path().join("server.key"));
        }
        command
            .args(["--name", "test", "--log-level", "error", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts etcd")
    }

    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[0]).into()
    }

    /// Waits until it has a leader.
    async fn wait(&self) {
        found("etcd comes up", async || self.post("kv/range", r#"{"key":"YQ=="}"#)).await;
    }

    fn post(&self, path: &str, body: &str) -> Option<String> {
        let mut curl = Command::new("curl");
        let scheme = if let Some(EtcdTls { ca, identity: Some((certificate, key)) }) = &self.tls {
            curl.arg("--cacert").arg(ca).arg("--cert").arg(certificate).arg("--key").arg(key);
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{}/v3/{path}", self.addr());
        let output = curl.args(["-sf", "-m", "5", "-d", body, &url]).output().expect("runs curl");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn revision(&self) -> u64 {
        let answer = self.post("kv/range", r#"{"key":"YQ=="}"#).expect("answers");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("json");
        answer["header"]["revision"].as_str().and_then(|text| text.parse().ok()).expect("a number")
    }

    fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }

    async fn restart(&mut self) {
        self.child = Self::spawn(&self.folder, self.ports, self.tls.as_ref());
        self.wait().await;
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and certificates by it for etcd and for those who come to it.
fn certificates(folder: &Path) -> EtcdTls {
    let authority = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&authority).expect("signs");
    let issuer = Issuer::new(params, authority);
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("writes");
        path
    };
    let issue = |who: &str| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, who);
        // etcd's gateway comes to etcd with the certificate of etcd.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).expect("signs");
        let file = write(&format!("{who}.pem"), certificate.pem());
        (file, write(&format!("{who}.key"), key.serialize_pem()))
    };
    issue("server");
    EtcdTls { ca: write("ca.pem", ca.pem()), identity: Some(issue("client")) }
}

/// A way to etcd that can be cut: what is on it then stops, and nobody gets through.
struct Way {
    addr: SocketAddr,
    open: watch::Sender<bool>,
}

impl Way {
    async fn to(etcd: SocketAddr) -> Self {
        let listener = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let addr = listener.local_addr().expect("bound");
        let (open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let Ok(mut far) = net::TcpStream::connect(etcd).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { addr, open }
    }
}

/// With endpoints of etcd in the order they are tried.
fn start(mesh: &Mesh, etcd: &[SocketAddr]) -> Node {
    start_by(mesh, etcd, None)
}

fn start_by(mesh: &Mesh, etcd: &[SocketAddr], tls: Option<EtcdTls>) -> Node {
    let endpoints = etcd.iter().map(ToString::to_string).collect();
    let engine = Ok(Engine::Etcd(EtcdConfig { endpoints, ttl: TTL, tls }));
    let config = DirectoryConfig { port: 0, mdns: false, engine, ..DirectoryConfig::in_memory() };
    config.check().expect("can be used");
    Node::of(mesh, config)
}

/// Claims a name for the mesh until it is granted.
async fn claim_at_last(node: &Node, name: &str) -> Publication {
    found("the name is granted", async || node.claim(name, Scope::Lan, true).await.ok()).await
}

/// Two hosts that meet in one etcd, and the way of each to it.
struct Pair {
    etcd: Etcd,
    _folder: tempfile::TempDir,
    meshes: [Mesh; 2],
    ways: [Way; 2],
}

impl Pair {
    async fn new() -> Option<Self> {
        Self::with(false).await
    }

    async fn with(encrypted: bool) -> Option<Self> {
        let etcd = Etcd::start(encrypted).await?;
        let folder = tempfile::tempdir().expect("a folder");
        let a = Mesh::init(&folder.path().join("a"), None).expect("a mesh");
        let ways = [Way::to(etcd.addr()).await, Way::to(etcd.addr()).await];
        let first = start_by(&a, &[ways[0].addr], etcd.tls.clone());
        let addr = first.endpoint.listen_quic(None).await.expect("listens");
        let token = a.invite(Duration::from_secs(60), &addr.hints).expect("invites");
        let b = trust::join(&token, &folder.path().join("b"), Some("b")).await.expect("joins");
        first.stop().await;
        Some(Self { etcd, _folder: folder, meshes: [a, b], ways })
    }

    fn nodes(&self) -> [Node; 2] {
        let tls = || self.etcd.tls.clone();
        [0, 1].map(|at| start_by(&self.meshes[at], &[self.ways[at].addr], tls()))
    }
}

async fn available(subscription: &mut Subscription) -> (String, u64) {
    match next(subscription).await {
        Event::Available(record) => (record.name.to_string(), record.fence),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn names_are_known_on_both_hosts_and_an_exclusive_one_has_one_holder() {
    let Some(pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut seen = b.subscribe(".*", Scope::Lan).await;
    let began = Instant::now();
    let one = a.publish("kitchen:oven", Scope::Lan).await;
    assert_eq!(available(&mut seen).await.0, "kitchen:oven");
    println!("first name of a host on the other after {:?}", began.elapsed());
    let began = Instant::now();
    let two = a.publish("kitchen:sink", Scope::Lan).await;
    assert_eq!(available(&mut seen).await.0, "kitchen:sink");
    println!("next name on the other host after {:?}", began.elapsed());
    drop(two);
    assert_eq!(dropped(&mut seen).await, ("kitchen:sink".to_owned(), DropReason::Withdrawn));

    let mut times = Vec::new();
    for at in 0..200 {
        let began = Instant::now();
        let one = a.publish(&format!("dish:{at}"), Scope::Lan).await;
        available(&mut seen).await;
        times.push(began.elapsed());
        drop(one);
        dropped(&mut seen).await;
    }
    times.sort();
    println!("published to available: p50 {:?}, p99 {:?}", times[100], times[197]);
    let held = a.claim("leader", Scope::Lan, true).await.expect("nobody holds it");
    let (name, fence) = available(&mut seen).await;
    assert_eq!((name.as_str(), fence), ("leader", held.record().fence));
    match b.claim("leader", Scope::Lan, true).await {
        Err(NotPublished::Held(holder)) => assert_eq!(*holder, *held.record()),
        other => panic!("{other:?}"),
    }
    // Also within the host.
    let neighbour = start(&pair.meshes[0], &[pair.ways[0].addr]);
    assert!(matches!(
        neighbour.claim("leader", Scope::Lan, true).await,
        Err(NotPublished::Held(_))
    ));
    neighbour.stop().await;
    drop(held);
    let successor = claim_at_last(&b, "leader").await;
    assert!(successor.record().fence > fence, "the fencing number rises");

    // One leaves in order, and the other is told so.
    assert_eq!(dropped(&mut seen).await, ("leader".to_owned(), DropReason::Withdrawn));
    assert_eq!(available(&mut seen).await.0, "leader");
    a.stop().await;
    assert_eq!(dropped(&mut seen).await, ("kitchen:oven".to_owned(), DropReason::Withdrawn));
    let hosts = b.directory.hosts().await;
    assert!(hosts[1..].iter().all(|host| host.records == 0), "{hosts:?}");
    drop((one, successor));
    b.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_name_is_told_when_it_is_free_also_after_an_absence_of_etcd() {
    let Some(mut pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let held = a.claim("leader", Scope::Lan, true).await.expect("free");
    let fence = held.record().fence;
    let wait = |node: &Node| {
        let (directory, name) = (node.directory.clone(), Name::new("leader").expect("a name"));
        let meta = Bytes::new();
        let publish = Publish { name, scope: Scope::Lan, exclusive: true, actor: 1, meta };
        async move { directory.claim(publish).await.expect("gets in line") }
    };
    let next = wait(&b).await;
    assert!(next.is_waiting());
    let last = wait(&a).await;
    drop(held);
    let granted = tokio::time::timeout(SOON, async {
        tokio::select! {
            name = next.granted() => name,
            name = last.granted() => name,
        }
    });
    let granted = granted.await.expect("in time").expect("granted");
    assert!(granted.record().fence > fence);
    // Nobody can be asked for so long that who does not get in line is refused.
    pair.etcd.kill();
    let other = start(&pair.meshes[1], &[pair.ways[1].addr]);
    let patient = wait(&other).await;
    drop(granted);
    let impatient = other.claim("leader", Scope::Lan, true).await;
    assert!(matches!(impatient, Err(NotPublished::NoLease)), "{impatient:?}");
    pair.etcd.restart().await;
    let granted = tokio::time::timeout(SOON, patient.granted()).await.expect("in time");
    assert!(granted.expect("granted").record().fence > fence);
    a.stop().await;
    other.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn of_many_claims_at_once_one_is_granted() {
    let Some(pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut last = 0;
    for round in 0..10 {
        let (one, other) =
            tokio::join!(a.claim("leader", Scope::Lan, true), b.claim("leader", Scope::Lan, true));
        let granted: Vec<_> = [one, other].into_iter().filter_map(Result::ok).collect();
        assert_eq!(granted.len(), 1, "round {round}");
        let fence = granted[0].record().fence;
        assert!(fence > last);
        last = fence;
        drop(granted);
        // Whoever comes next waits until etcd has heard that it is free.
        drop(claim_at_last(&a, "leader").await);
        drop(claim_at_last(&b, "leader").await);
        last = last.max(claim_at_last(&a, "leader").await.record().fence);
        claim_at_last(&b, "leader").await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn etcd_is_killed_and_comes_back_and_nobody_has_gone() {
    let Some(mut pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut seen = b.subscribe(".*", Scope::Lan).await;
    let mut own = a.subscribe(".*", Scope::Lan).await;
    let _stays = a.publish("stays", Scope::Lan).await;
    let mut held = a.claim("leader", Scope::Lan, true).await.expect("free");
    for _ in 0..2 {
        available(&mut seen).await;
        available(&mut own).await;
    }
    pair.etcd.kill();
    // This host's own names go on working.
    let late = a.publish("meanwhile", Scope::Lan).await;
    assert_eq!(available(&mut own).await.0, "meanwhile");
    pair.etcd.restart().await;
    let back = Instant::now();
    assert_eq!(available(&mut seen).await.0, "meanwhile", "and nothing was dropped");
    println!("published while etcd was down: known {:?} after its return", back.elapsed());
    let _later = a.publish("later", Scope::Lan).await;
    assert_eq!(available(&mut seen).await.0, "later");
    assert!(matches!(b.claim("leader", Scope::Lan, true).await, Err(NotPublished::Held(_))));
    let lost = tokio::time::timeout(TTL, held.lost()).await;
    assert!(lost.is_err(), "its holder keeps it: {lost:?}");
    drop((late, held));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_is_cut_off_from_etcd_loses_its_exclusive_names_before_anybody_gets_them() {
    let Some(pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut seen = a.subscribe("leader|shared", Scope::Lan).await;
    b.directory.be_present();
    let mut held = b.claim("leader", Scope::Lan, true).await.expect("free");
    assert_eq!(available(&mut seen).await.0, "leader");
    let _shared = b.publish("shared", Scope::Lan).await;
    assert_eq!(available(&mut seen).await.0, "shared");
    let mut view = b.subscribe(".*", Scope::Lan).await;
    let _far = a.publish("far", Scope::Lan).await;
    let names =
        [available(&mut view).await.0, available(&mut view).await.0, available(&mut view).await.0];
    assert!(names.contains(&"far".to_owned()));
    let mut gone = a.directory.watch_node(b.endpoint.peer());

    let cut = Instant::now();
    pair.ways[1].open.send_replace(false);
    let (told, taken) = tokio::join!(
        async {
            let holder = held.lost().await;
            assert_eq!(holder.instance, held.record().instance, "nobody else is known to hold it");
            Instant::now()
        },
        async {
            let taken = claim_at_last(&a, "leader").await;
            (Instant::now(), taken)
        }
    );
    println!("cut off: loser told after {:?}, claimed after {:?}", told - cut, taken.0 - cut);
    assert!(told < taken.0, "told before somebody else has it");
    assert!(told - cut < TTL, "{:?}", told - cut);
    assert!(taken.1.record().fence > held.record().fence);
    assert!(matches!(b.claim("other", Scope::Lan, true).await, Err(NotPublished::NoLease)));
    // Others took it for lost; it keeps what it knew of them.
    assert_eq!(tokio::time::timeout(SOON, gone.gone()).await, Ok(NodeGone::HostLost));
    assert_eq!(dropped(&mut view).await.0, "leader");
    assert!(view.try_next().is_none());

    pair.ways[1].open.send_replace(true);
    let healed = Instant::now();
    // In whatever order they went.
    let mut went = Vec::new();
    loop {
        match next(&mut seen).await {
            Event::Dropped(record, DropReason::HostLost) => went.push(record.name.to_string()),
            Event::Available(record) if record.name.as_str() == "shared" => break,
            Event::Available(record) => assert_eq!(record.name.as_str(), "leader"),
            other => panic!("{other:?}"),
        }
    }
    println!("healed: back after {:?}", healed.elapsed());
    went.sort();
    assert_eq!(went, ["leader", "shared"]);
    assert_eq!(available(&mut view).await.0, "leader", "of its new holder");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn another_process_takes_the_directory_over_and_nobody_notices() {
    let Some(pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut seen = b.subscribe(".*", Scope::Lan).await;
    let first = a.publish("first", Scope::Lan).await;
    assert_eq!(available(&mut seen).await.0, "first");
    let second = start(&pair.meshes[0], &[pair.ways[0].addr]);
    let _name = second.publish("second", Scope::Lan).await;
    let mut held = second.claim("leader", Scope::Lan, true).await.expect("free");
    for name in ["second", "leader"] {
        assert_eq!(available(&mut seen).await.0, name);
    }
    assert!(a.directory.is_host_directory());
    a.stop().await;
    assert_eq!(dropped(&mut seen).await, ("first".to_owned(), DropReason::Withdrawn));
    let _more = second.publish("more", Scope::Lan).await;
    assert!(second.directory.is_host_directory());
    assert_eq!(available(&mut seen).await.0, "more", "and nothing was dropped");
    let lost = tokio::time::timeout(2 * TTL, held.lost()).await;
    assert!(lost.is_err(), "its holder keeps it: {lost:?}");
    assert!(matches!(b.claim("leader", Scope::Lan, true).await, Err(NotPublished::Held(_))));
    assert!(seen.try_next().is_none());
    drop((first, held));
    second.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_was_away_while_etcd_forgot_reads_everything_again() {
    let Some(pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut view = b.subscribe(".*", Scope::Lan).await;
    let old = a.publish("old", Scope::Lan).await;
    let _kept = a.publish("kept", Scope::Lan).await;
    let names = [available(&mut view).await.0, available(&mut view).await.0];
    assert_eq!(names, ["old", "kept"]);
    pair.ways[1].open.send_replace(false);
    let before = pair.etcd.revision();
    drop(old);
    let _new = a.publish("new", Scope::Lan).await;
    eventually("etcd is told", || pair.etcd.revision() >= before + 2).await;
    let body = format!(r#"{{"revision":"{}"}}"#, pair.etcd.revision());
    pair.etcd.post("kv/compaction", &body).expect("compacts");
    pair.ways[1].open.send_replace(true);
    // In this order, unless the other directory has only just begun: then what is new comes first.
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(match next(&mut view).await {
            Event::Dropped(record, DropReason::Withdrawn) => format!("-{}", record.name),
            Event::Available(record) => format!("+{}", record.name),
            other => panic!("{other:?}"),
        });
    }
    told.sort();
    assert_eq!(told, ["+new", "-old"]);
    assert!(view.try_next().is_none());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn where_one_endpoint_is_dead_the_next_one_is_used() {
    let Some(pair) = Pair::new().await else { return };
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    // It takes connections and never answers.
    let silent = nobody.local_addr().expect("bound");
    let a = start(&pair.meshes[0], &[silent, pair.ways[0].addr]);
    let b = start(&pair.meshes[1], &[pair.ways[1].addr]);
    let mut view = b.subscribe(".*", Scope::Lan).await;
    let _one = a.publish("one", Scope::Lan).await;
    assert_eq!(available(&mut view).await.0, "one");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn connections_to_etcd_are_encrypted_and_both_ends_known() {
    let Some(pair) = Pair::with(true).await else { return };
    let [a, b] = pair.nodes();
    let mut view = b.subscribe(".*", Scope::Lan).await;
    let _one = a.publish("one", Scope::Lan).await;
    assert_eq!(available(&mut view).await.0, "one");
    // One of another authority gets nothing.
    let folder = tempfile::tempdir().expect("a folder");
    let strange = certificates(folder.path());
    a.stop().await;
    dropped(&mut view).await;
    let stranger = start_by(&pair.meshes[0], &[pair.ways[0].addr], Some(strange));
    assert!(matches!(stranger.claim("leader", Scope::Lan, true).await, Err(NotPublished::NoLease)));
    assert!(view.try_next().is_none());
    stranger.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_thousand_names_and_the_largest_descriptions_come_through() {
    let Some(pair) = Pair::new().await else { return };
    let [a, b] = pair.nodes();
    let mut early = b.subscribe(".*", Scope::Lan).await;
    let mut names = Vec::new();
    let began = Instant::now();
    for at in 0..200 {
        let meta = Bytes::from(vec![at; MAX_META]);
        let name = format!("large:{at}");
        names.push(
            a.directory
                .publish(described(&name, Scope::Lan, false, meta))
                .await
                .expect("publishes"),
        );
    }
    for at in 0..1000 {
        names.push(a.publish(&format!("small:{at}"), Scope::Lan).await);
    }
    for _ in 0..1200 {
        available(&mut early).await;
    }
    println!("1,200 names, 12.5 MiB, on the other host after {:?}", began.elapsed());
    b.stop().await;
    let late = start(&pair.meshes[1], &[pair.ways[1].addr]);
    let began = Instant::now();
    let mut view = late.subscribe(".*", Scope::Lan).await;
    for _ in 0..1200 {
        available(&mut view).await;
    }
    println!("read by a host that comes later within {:?}", began.elapsed());
    let began = Instant::now();
    drop(names);
    for _ in 0..1200 {
        assert_eq!(dropped(&mut view).await.1, DropReason::Withdrawn);
    }
    println!("withdrawn within {:?}", began.elapsed());
    a.stop().await;
    late.stop().await;
}
