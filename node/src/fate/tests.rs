//! What became of peers: nodes of this process that leave, and a child process, this test binary again,
//! that is killed. A mesh folder is a host.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use layercake_directory::DirectoryConfig;
use layercake_wire::trust;

use super::*;
use crate::node::NodeConfig;

const SOON: Duration = Duration::from_secs(10);
/// What takes a few milliseconds, and is promised within 100, on a machine that is busy with other
/// tests.
const AT_ONCE: Duration = Duration::from_millis(500);
const CHILD: &str = "LAYERCAKE_TEST_FATE";

async fn start(mesh: &Path, seeds: &[SocketAddr]) -> Node {
    let seeds = seeds.iter().map(ToString::to_string).collect();
    let directory = DirectoryConfig { seeds, mdns: false, port: 0, ..DirectoryConfig::in_memory() };
    Node::start_with(NodeConfig { mesh: Some(mesh.to_owned()), directory, ..NodeConfig::default() })
        .await
        .expect("starts")
}

/// A process with a node that lives until it is killed, or its parent is.
struct Process {
    child: Child,
    addr: NodeAddr,
}

impl Process {
    fn start(mesh: &Path, seeds: &[SocketAddr]) -> Self {
        let seeds: Vec<_> = seeds.iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "fate::tests::a_child_lives_until_it_is_killed", "--nocapture"])
            .env(CHILD, format!("{}\n{}", mesh.display(), seeds.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = out.lines().map_while(Result::ok);
        // Behind what the test harness has begun to say on that line.
        let ready = lines.find_map(|line| Some(line.split_once("ready ")?.1.to_owned()));
        let addr =
            serde_json::from_str(&ready.expect("the child ended early")).expect("an address");
        Self { child, addr }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_child_lives_until_it_is_killed() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (mesh, seeds) = task.split_once('\n').expect("two lines");
    let seeds: Vec<_> = seeds.split_whitespace().map(|s| s.parse().expect("an address")).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let node = start(Path::new(mesh), &seeds).await;
        let addr = node.endpoint().listen_quic(None).await.expect("listens");
        println!("ready {}", serde_json::to_string(&addr).expect("encodes"));
        // End of file on the standard input: the parent is gone.
        let wait = tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop));
        wait.await.expect("waits");
    });
    std::process::exit(0);
}

/// Two hosts that know each other: a node on each, the second one embeds the directory of its host.
async fn two_hosts() -> (tempfile::TempDir, Node, Node, PathBuf, Vec<SocketAddr>) {
    let folder = tempfile::tempdir().expect("a folder");
    let here = start(&folder.path().join("a"), &[]).await;
    let addr = here.endpoint().listen_quic(None).await.expect("listens");
    assert!(here.directory().serve_host().await);
    let token = here.mesh().invite(SOON, &addr.hints).expect("invites");
    let there = folder.path().join("b");
    trust::join(&token, &there, Some("b")).await.expect("joins");
    let neighbour = start(&there, &addr.hints).await;
    assert!(neighbour.directory().serve_host().await);
    (folder, here, neighbour, there, addr.hints.to_vec())
}

/// Looks until something is so: what a directory holds, and what a dial comes to, is told to nobody.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until so many nodes of the other host are seen here.
async fn sees(here: &Node, nodes: usize) {
    eventually("so many nodes of a linked host", async || {
        let hosts = here.directory().hosts().await;
        hosts.get(1).is_some_and(|host| host.linked && host.nodes == nodes)
    })
    .await;
}

async fn ended(link: &Link) {
    eventually("the link's end", async || link.is_closed()).await;
}

/// Dials end with `Gone`, at once.
async fn assert_gone(here: &Node, addr: &NodeAddr) {
    let gone = async || matches!(here.endpoint().link(addr).await, Err(DialError::Gone(_)));
    eventually("dials that end with `Gone`", gone).await;
}

#[tokio::test]
async fn on_one_host_a_peer_left_died_or_lost_its_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = folder.path().join("mesh");
    let (here, other) = (start(&mesh, &[]).await, start(&mesh, &[]).await);
    let link = here.endpoint().link(&other.addr()).await.expect("links");
    here.endpoint().close_link(other.peer().node, "a test");
    ended(&link).await;
    assert_eq!(here.fate(&other.addr()).await, None, "there is a link again");
    let link = here.endpoint().link(&other.addr()).await.expect("links again");
    other.close().await;
    ended(&link).await;
    assert_eq!(here.fate(&other.addr()).await, Some(Fate::Left));

    let mut process = Process::start(&mesh, &[]);
    let link = here.endpoint().link(&process.addr).await.expect("links");
    process.kill();
    ended(&link).await;
    assert_eq!(here.fate(&process.addr).await, Some(Fate::Died));
    here.close().await;
}

#[tokio::test]
async fn a_process_killed_on_another_host_is_dead_here_at_once() {
    let (_folder, here, neighbour, there, seeds) = two_hosts().await;
    let mut process = Process::start(&there, &seeds);
    let link = here.endpoint().link(&process.addr).await.expect("links");
    assert!(!link.is_local());
    // The two directories are linked themselves, so its neighbour is present, too.
    sees(&here, 2).await;
    let killed = Instant::now();
    process.kill();
    ended(&link).await;
    println!("killed: the link from another host ended after {:?}", killed.elapsed());
    assert_eq!(here.fate(&process.addr).await, Some(Fate::Died));
    assert_gone(&here, &process.addr).await;
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    // Its host is there all the while.
    assert!(here.endpoint().existing(neighbour.peer().node).is_some());
    here.close().await;
    neighbour.close().await;
}

#[tokio::test]
async fn a_peer_of_another_host_left_or_lost_its_link() {
    let (_folder, here, neighbour, there, seeds) = two_hosts().await;
    let other = start(&there, &seeds).await;
    let addr = other.endpoint().listen_quic(None).await.expect("listens");
    let link = here.endpoint().link(&addr).await.expect("links");
    sees(&here, 2).await;
    here.endpoint().close_link(addr.peer.node, "a test");
    ended(&link).await;
    assert_eq!(here.fate(&addr).await, None, "there is a link again");
    let link = here.endpoint().link(&addr).await.expect("it is still there");
    other.close().await;
    ended(&link).await;
    assert_eq!(here.fate(&addr).await, Some(Fate::Left));
    assert_gone(&here, &addr).await;
    here.close().await;
    neighbour.close().await;
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut state = State::default();
    for n in 0..2 * MAX_FATES as u64 {
        state.note(NodeId::from_bits(n), Fate::Died);
        state.note(NodeId::from_bits(n), Fate::Left);
    }
    assert_eq!((state.fates.len(), state.order.len()), (MAX_FATES, MAX_FATES));
    state.forget(NodeId::from_bits(2 * MAX_FATES as u64 - 1));
    assert_eq!((state.fates.len(), state.order.len()), (MAX_FATES - 1, MAX_FATES - 1));
}
