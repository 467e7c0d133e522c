//! Directories over real endpoints: one mesh folder is one host, two joined folders are two hosts that
//! reach each other over QUIC. What is to be killed is a child process: this test binary again.

mod common;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Node, SOON, available, dropped, eventually, found, later_than, next};
use layercake_directory::{
    DirectoryConfig, DropReason, Event, Name, NodeGone, NodeWatch, NotPublished, NotSubscribed,
    Publish, Scope, Subscription, Trouble, TroubleKind,
};
use layercake_wire::{
    id::{NodeId, PeerId},
    trust::{self, Mesh},
};

/// What takes a few milliseconds, and is promised within 100, on a machine that is busy with other
/// tests.
const AT_ONCE: Duration = Duration::from_millis(500);
/// What is promised within a second, likewise.
const TAKEN_OVER: Duration = Duration::from_secs(3);
const CHILD: &str = "LAYERCAKE_TEST_CHILD";

impl Node {
    fn start(mesh: &Mesh) -> Self {
        Self::with_seeds(mesh, &[])
    }

    fn with_seeds(mesh: &Mesh, seeds: &[SocketAddr]) -> Self {
        let seeds = seeds.iter().map(ToString::to_string).collect();
        let (mdns, port, remember) = (false, 0, true);
        let config =
            DirectoryConfig { seeds, mdns, port, remember, ..DirectoryConfig::in_memory() };
        Self::of(mesh, config)
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

/// Nothing more is told for a while.
async fn quiet(subscription: &mut Subscription, time: Duration) {
    if let Ok(event) = tokio::time::timeout(time, subscription.next()).await {
        panic!("{event:?}");
    }
}

/// A process that publishes a name, exclusively where that begins with `only:`, and lives until it is killed, or its parent is.
struct Worker {
    child: Child,
    /// Of its node; it is present.
    node: NodeId,
}

impl Worker {
    fn start(mesh: &Path, name: &str, seeds: &[SocketAddr]) -> Self {
        let seeds: Vec<_> = seeds.iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "a_child_publishes_until_it_is_killed", "--nocapture"])
            .env(CHILD, format!("{}\n{name}\n{}", mesh.display(), seeds.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = out.lines().map_while(Result::ok);
        // Behind what the test harness has begun to say on that line.
        let ready = lines.find_map(|line| Some(line.split_once("ready ")?.1.to_owned()));
        let node = ready.expect("the child ended early").parse().expect("an id");
        Self { child, node }
    }

    fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_child_publishes_until_it_is_killed() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let mut task = task.split('\n');
    let folder = PathBuf::from(task.next().expect("a folder"));
    let name = task.next().expect("a name");
    let seeds = task.next().unwrap_or_default().split_whitespace();
    let seeds: Vec<_> = seeds.map(|seed| seed.parse().expect("an address")).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mesh = Mesh::open(&folder).expect("opens");
        let node = Node::with_seeds(&mesh, &seeds);
        let exclusive = name.starts_with("only:");
        let _publication = node.claim(name, Scope::Lan, exclusive).await.expect("publishes");
        node.directory.be_present();
        println!("ready {}", node.endpoint.peer().node);
        // End of file on the standard input: the parent is gone.
        let wait = tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop));
        wait.await.expect("waits");
    });
    std::process::exit(0);
}

#[tokio::test]
async fn what_one_process_publishes_another_on_the_host_finds() {
    let (_folder, mesh) = host();
    let (one, two) = (Node::start(&mesh), Node::start(&mesh));
    assert!(!one.directory.is_host_directory() && one.directory.hosts().await.is_empty());
    let mut seen = two.subscribe("w:.*", Scope::Host).await;
    let first = one.publish("w:1", Scope::Host).await;
    let _private = one.publish("w:private", Scope::Process).await;
    assert_eq!(available(&mut seen).await, "w:1");
    let second = two.publish("w:2", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:2");
    assert_eq!(&first.record().meta[..], b"api");
    drop(first);
    assert_eq!(dropped(&mut seen).await, ("w:1".to_owned(), DropReason::Withdrawn));
    assert!(one.directory.is_host_directory() != two.directory.is_host_directory());
    let hosts = one.directory.hosts().await;
    assert_eq!((hosts.len(), hosts[0].nodes, hosts[0].records), (1, 2, 1));
    assert_eq!(two.directory.hosts().await, hosts, "whoever asks");
    drop(second);
    assert_eq!(dropped(&mut seen).await, ("w:2".to_owned(), DropReason::Withdrawn));
    two.directory.close().await;
    assert_eq!(seen.next().await, None);
}

#[tokio::test]
async fn an_exclusive_name_has_one_holder_and_the_other_is_told_who() {
    let (_folder, mesh) = host();
    let (one, two) = (Node::start(&mesh), Node::start(&mesh));
    let held = one.claim("leader", Scope::Host, true).await.expect("is free");
    let refused = two.claim("leader", Scope::Host, true).await.expect_err("is held");
    let NotPublished::Held(holder) = &refused else { panic!("{refused}") };
    assert_eq!(holder.instance, held.record().instance);
    assert!(refused.to_string().contains("`leader` is held at scope host by node"), "{refused}");
    assert!(two.claim("leader", Scope::Host, false).await.is_err(), "nor shared");
    let fence = held.record().fence;
    let mut seen = two.subscribe("leader", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "leader");
    drop(held);
    dropped(&mut seen).await;
    let again = two.claim("leader", Scope::Host, true).await.expect("is free again");
    assert!(again.record().fence > fence);
    let refused = two.claim("x", Scope::Group, false).await.expect_err("it is in no group");
    assert!(refused.to_string().contains("scope group needs a group"), "{refused}");
}

#[tokio::test]
async fn a_killed_process_is_dropped_within_100_ms() {
    let (folder, mesh) = host();
    let here = Node::start(&mesh);
    let mut seen = here.subscribe(".*", Scope::Host).await;
    eventually("the directory is here", || here.directory.is_host_directory()).await;
    let mut worker = Worker::start(&folder.path().join("mesh"), "w:child", &[]);
    assert_eq!(available(&mut seen).await, "w:child");
    let killed = Instant::now();
    worker.kill();
    assert_eq!(dropped(&mut seen).await, ("w:child".to_owned(), DropReason::ProcessDied));
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn who_is_next_has_the_name_of_a_killed_process_at_once() {
    let (folder, mesh) = host();
    let here = Node::start(&mesh);
    let mut seen = here.subscribe("only:.*", Scope::Host).await;
    eventually("the directory is here", || here.directory.is_host_directory()).await;
    let mut worker = Worker::start(&folder.path().join("mesh"), "only:one", &[]);
    let Event::Available(held) = next(&mut seen).await else { panic!("it is there") };
    let claim = here.wait_for("only:one", Scope::Lan).await;
    assert!(claim.is_waiting() && claim.record().fence == 0);
    let killed = Instant::now();
    worker.kill();
    let granted = tokio::time::timeout(SOON, claim.granted()).await.expect("in time");
    let fence = granted.expect("granted").record().fence;
    println!("a holder killed: the next one has the name after {:?}", killed.elapsed());
    assert!(killed.elapsed() < AT_ONCE && fence > held.fence, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn the_line_outlives_the_directory_that_is_killed_together_with_the_holder() {
    let (folder, mesh) = host();
    let mut worker = Worker::start(&folder.path().join("mesh"), "only:one", &[]);
    let (one, two) = (Node::start(&mesh), Node::start(&mesh));
    let mut seen = one.subscribe("only:.*", Scope::Host).await;
    let Event::Available(held) = next(&mut seen).await else { panic!("it is there") };
    let first = two.wait_for("only:one", Scope::Lan).await;
    later_than(&first).await;
    let second = one.wait_for("only:one", Scope::Lan).await;
    assert!(first.is_waiting() && second.is_waiting());
    let killed = Instant::now();
    worker.kill();
    // Also this one comes before the new directory knows who is there.
    let hasty =
        one.claim("only:one", Scope::Lan, true).await.expect_err("it is held, or waited for");
    assert!(matches!(hasty, NotPublished::Held(_)), "{hasty}");
    let granted = tokio::time::timeout(SOON, first.granted()).await.expect("in time");
    let granted = granted.expect("granted");
    assert!(killed.elapsed() < TAKEN_OVER, "{:?}", killed.elapsed());
    assert!(granted.record().fence > held.fence && second.is_waiting());
    granted.withdraw().await;
    tokio::time::timeout(SOON, second.granted()).await.expect("in time").expect("granted");
}

#[tokio::test]
async fn when_the_directory_is_killed_another_takes_over_and_names_stay() {
    let (folder, mesh) = host();
    let mut worker = Worker::start(&folder.path().join("mesh"), "w:child", &[]);
    let (one, two) = (Node::start(&mesh), Node::start(&mesh));
    let mut seen = one.subscribe(".*", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:child");
    let _kept = two.publish("w:kept", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:kept");
    let link = one.endpoint.link(&two.endpoint.addr()).await.expect("a conversation");
    let killed = Instant::now();
    worker.kill();
    assert_eq!(dropped(&mut seen).await, ("w:child".to_owned(), DropReason::ProcessDied));
    let _fresh = two.publish("w:fresh", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:fresh");
    assert!(killed.elapsed() < TAKEN_OVER, "{:?}", killed.elapsed());
    let mut late = two.subscribe(".*", Scope::Host).await;
    let mut names = [available(&mut late).await, available(&mut late).await];
    names.sort();
    assert_eq!(names, ["w:fresh", "w:kept"]);
    // Beyond the time after which the new directory says what has gone.
    quiet(&mut seen, Duration::from_millis(3500)).await;
    assert!(!link.is_closed(), "conversations go on");
}

#[tokio::test]
async fn a_directory_that_leaves_in_order_is_followed_by_another() {
    let (_folder, mesh) = host();
    let first = Node::start(&mesh);
    let gone = first.publish("w:gone", Scope::Host).await;
    assert!(first.directory.is_host_directory());
    let (one, two) = (Node::start(&mesh), Node::start(&mesh));
    let mut seen = one.subscribe(".*", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:gone");
    let _kept = two.publish("w:kept", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:kept");
    first.stop().await;
    drop(gone);
    assert_eq!(dropped(&mut seen).await, ("w:gone".to_owned(), DropReason::Withdrawn));
    eventually("somebody takes over", || {
        one.directory.is_host_directory() || two.directory.is_host_directory()
    })
    .await;
    let _fresh = two.publish("w:fresh", Scope::Host).await;
    assert_eq!(available(&mut seen).await, "w:fresh");
    quiet(&mut seen, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_daemon_takes_over_from_a_process_that_embeds_the_directory_and_nobody_notices() {
    let (_folder, embeds, mesh, seeds) = two_hosts().await;
    let first = embeds.publish("w:first", Scope::Lan).await;
    assert!(embeds.directory.is_host_directory());
    let second = Node::start(embeds.endpoint.mesh());
    let _second = second.publish("w:second", Scope::Lan).await;
    let afar = Node::with_seeds(&mesh, &seeds);
    let mut views =
        [second.subscribe("w:.*", Scope::Lan).await, afar.subscribe("w:.*", Scope::Lan).await];
    for view in &mut views {
        let both = [available(view).await, available(view).await];
        assert!(both.contains(&"w:first".to_owned()) && both.contains(&"w:second".to_owned()));
    }

    let daemon = Node::with_seeds(embeds.endpoint.mesh(), &[]);
    let asked = Instant::now();
    let held = tokio::time::timeout(SOON, daemon.directory.serve_host()).await;
    assert!(held.expect("it is handed over"));
    println!("handed over after {:?}", asked.elapsed());
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    eventually("the other steps down", || !embeds.directory.is_host_directory()).await;
    // Whoever comes now comes to the daemon, and is seen by all: also from afar.
    let third = Node::start(embeds.endpoint.mesh());
    let _third = third.publish("w:third", Scope::Lan).await;
    for view in &mut views {
        assert_eq!(available(view).await, "w:third");
    }
    // Longer than a new directory takes to settle, and than a host takes to be lost.
    for view in &mut views {
        quiet(view, Duration::from_millis(2500)).await;
    }
    assert!(daemon.directory.is_host_directory());
    drop(first);
    for view in &mut views {
        assert_eq!(dropped(view).await, ("w:first".to_owned(), DropReason::Withdrawn));
    }
    // And back, when the daemon ends.
    daemon.stop().await;
    eventually("another one takes over", || {
        [&embeds, &second, &third].iter().any(|node| node.directory.is_host_directory())
    })
    .await;
    for view in &mut views {
        quiet(view, Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_daemon_waits_for_another_one() {
    let (_folder, mesh) = host();
    let first = Node::start(&mesh);
    assert!(first.directory.serve_host().await);
    let daemon = Node::start(&mesh);
    let waiting = daemon.directory.serve_host();
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    first.stop().await;
    assert!(tokio::time::timeout(SOON, waiting).await.expect("its turn comes"));
    assert!(daemon.directory.is_host_directory());
}

#[tokio::test]
async fn hosts_find_each_other_by_a_seed_and_names_cross() {
    let (_folder, first, mesh, seeds) = two_hosts().await;
    let mut seen = first.subscribe("w:.*", Scope::Lan).await;
    let second = Node::with_seeds(&mesh, &seeds);
    let near = second.publish("w:near", Scope::Host).await;
    let far = second.publish("w:far", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:far");
    let refused = first.claim("w:far", Scope::Lan, true).await.expect_err("is taken");
    let NotPublished::Held(holder) = refused else { panic!("{refused}") };
    assert_eq!(holder.instance, far.record().instance);
    assert!(!far.record().address.node.hints.is_empty(), "it can be reached");
    let sent = Instant::now();
    let _more = second.publish("w:more", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:more");
    assert!(sent.elapsed() < Duration::from_millis(500), "{:?}", sent.elapsed());
    let hosts = first.directory.hosts().await;
    assert!(hosts.len() == 2 && hosts[1].linked && hosts[1].host_name == "b", "{hosts:?}");
    second.stop().await;
    drop(near);
    for _ in 0..2 {
        assert_eq!(dropped(&mut seen).await.1, DropReason::Withdrawn);
    }
    quiet(&mut seen, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_process_killed_on_another_host_is_dropped_within_100_ms() {
    let (folder, first, mesh, seeds) = two_hosts().await;
    let mut seen = first.subscribe("w:.*", Scope::Lan).await;
    let second = Node::with_seeds(&mesh, &seeds);
    let _kept = second.publish("w:kept", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:kept");
    let mut worker = Worker::start(&folder.path().join("b"), "w:child", &seeds);
    assert_eq!(available(&mut seen).await, "w:child");
    let killed = Instant::now();
    worker.kill();
    assert_eq!(dropped(&mut seen).await, ("w:child".to_owned(), DropReason::ProcessDied));
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    quiet(&mut seen, Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_directory_killed_on_another_host_takes_nothing_with_it_but_its_own() {
    let (folder, first, mesh, seeds) = two_hosts().await;
    let mut seen = first.subscribe("w:.*", Scope::Lan).await;
    let mut worker = Worker::start(&folder.path().join("b"), "w:child", &seeds);
    assert_eq!(available(&mut seen).await, "w:child");
    let second = Node::with_seeds(&mesh, &seeds);
    let _kept = second.publish("w:kept", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:kept");
    let link = first.endpoint.link(&second.endpoint.addr()).await.expect("a conversation");
    let killed = Instant::now();
    worker.kill();
    assert_eq!(dropped(&mut seen).await, ("w:child".to_owned(), DropReason::ProcessDied));
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    let _fresh = second.publish("w:fresh", Scope::Lan).await;
    assert_eq!(available(&mut seen).await, "w:fresh");
    assert!(killed.elapsed() < TAKEN_OVER, "{:?}", killed.elapsed());
    quiet(&mut seen, Duration::from_millis(3500)).await;
    assert!(!link.is_closed(), "conversations go on");
}

#[tokio::test]
async fn another_mesh_sees_nothing() {
    let (_ours, mesh) = host();
    let (_theirs, other) = host();
    let us = Node::start(&mesh);
    let _name = us.publish("w:1", Scope::Lan).await;
    let here = us.endpoint.addr().hints.to_vec();
    let them = Node::with_seeds(&other, &here);
    let mut seen = them.subscribe(".*", Scope::Lan).await;
    quiet(&mut seen, Duration::from_secs(2)).await;
    assert_eq!(them.directory.hosts().await.len(), 1);
    assert_eq!(us.directory.hosts().await.len(), 1);
}

async fn gone(watch: &mut NodeWatch) -> NodeGone {
    tokio::time::timeout(SOON, watch.gone()).await.expect("in time")
}

/// The presence of a node has arrived: told by a watch that goes on beyond its patience.
async fn is_seen(here: &Node, peer: PeerId) -> NodeWatch {
    let mut watch = here.directory.watch_node(peer);
    let patience = Duration::from_millis(5500);
    assert!(tokio::time::timeout(patience, watch.gone()).await.is_err(), "{peer} is not there");
    watch
}

#[tokio::test]
async fn who_watches_a_node_of_another_host_hears_at_once_how_it_ended() {
    let (folder, first, mesh, seeds) = two_hosts().await;
    let mut seen = first.subscribe(".*", Scope::Lan).await;
    // On the other host one process embeds the directory, and others come and go.
    let second = Node::with_seeds(&mesh, &seeds);
    let _kept = second.publish("w:kept", Scope::Lan).await;
    second.directory.be_present();
    assert_eq!(available(&mut seen).await, "w:kept");
    let mut worker = Worker::start(&folder.path().join("b"), "w:child", &seeds);
    assert_eq!(available(&mut seen).await, "w:child");
    let third = Node::start(&mesh);
    third.directory.be_present();
    third.directory.be_present();
    let host = second.endpoint.peer().host;
    let (died, left, lives) = tokio::join!(
        is_seen(&first, PeerId { host, node: worker.node }),
        is_seen(&first, third.endpoint.peer()),
        is_seen(&first, second.endpoint.peer()),
    );
    let [mut died, mut left, mut lives] = [died, left, lives];

    let killed = Instant::now();
    worker.kill();
    assert_eq!(gone(&mut died).await, NodeGone::Died);
    println!("killed: known on another host after {:?}", killed.elapsed());
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    assert_eq!(gone(&mut died).await, NodeGone::Died, "it stays true");
    let mut late = first.directory.watch_node(PeerId { host, node: worker.node });
    assert_eq!(gone(&mut late).await, NodeGone::Died, "also for who comes just too late");

    third.stop().await;
    assert_eq!(gone(&mut left).await, NodeGone::Left);
    assert!(tokio::time::timeout(Duration::from_millis(200), lives.gone()).await.is_err());
    let hosts = first.directory.hosts().await;
    assert_eq!(hosts[1].records, 1, "presences are offered to nobody: {hosts:?}");
    assert_eq!(dropped(&mut seen).await.0, "w:child");
    quiet(&mut seen, Duration::from_millis(200)).await;
    first.directory.close().await;
    assert_eq!(gone(&mut lives).await, NodeGone::Unknown);
}

#[tokio::test]
async fn a_directory_killed_on_another_host_ends_no_watch_but_its_own() {
    let (folder, first, mesh, seeds) = two_hosts().await;
    let mut seen = first.subscribe("w:.*", Scope::Lan).await;
    let mut worker = Worker::start(&folder.path().join("b"), "w:child", &seeds);
    assert_eq!(available(&mut seen).await, "w:child");
    let second = Node::with_seeds(&mesh, &seeds);
    let _kept = second.publish("w:kept", Scope::Lan).await;
    second.directory.be_present();
    assert_eq!(available(&mut seen).await, "w:kept");
    let host = second.endpoint.peer().host;
    let (died, lives) = tokio::join!(
        is_seen(&first, PeerId { host, node: worker.node }),
        is_seen(&first, second.endpoint.peer()),
    );
    let [mut died, mut lives] = [died, lives];
    let killed = Instant::now();
    worker.kill();
    assert_eq!(gone(&mut died).await, NodeGone::Died);
    println!("a directory killed: known on another host after {:?}", killed.elapsed());
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    assert!(tokio::time::timeout(Duration::from_millis(3500), lives.gone()).await.is_err());
}

#[tokio::test]
async fn the_names_of_the_system_are_not_for_users() {
    let (_folder, mesh) = host();
    let node = Node::start(&mesh);
    let name: Name = serde_json::from_str("\"layercake:node:1\"").expect("as it comes over a link");
    let (actor, meta) = (1, Bytes::new());
    let publish = Publish { name, scope: Scope::Process, exclusive: false, actor, meta };
    let refused = node.directory.publish(publish).await.expect_err("is reserved");
    assert!(matches!(refused, NotPublished::Reserved(_)), "{refused}");
    let pattern = serde_json::from_str("\"*layercake:node:.*\"").expect("as it comes over a link");
    let refused = node.directory.subscribe(pattern, Scope::Process).await.expect_err("is reserved");
    assert_eq!(refused, NotSubscribed::Reserved);
}

#[tokio::test]
async fn what_does_not_work_is_listed_for_every_node_of_the_host() {
    let (_folder, mesh) = host();
    // An address on this machine that is open and says nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let silent = silent.local_addr().expect("bound");
    let embeds = Node::with_seeds(&mesh, &[silent]);
    let _name = embeds.publish("w:1", Scope::Lan).await;
    let other = Node::start(&mesh);
    let _seen = other.subscribe("w:.*", Scope::Host).await;
    let told = found("the seed is a trouble", async || {
        let troubles = other.directory.troubles().await;
        troubles.into_iter().find(|trouble: &Trouble| trouble.about == silent.to_string())
    })
    .await;
    assert_eq!(told.kind, TroubleKind::Dial);
    assert!(told.why.contains(&silent.to_string()), "{told}");
    assert!(told.since_ms > 0 && told.last_ms >= told.since_ms);
}
