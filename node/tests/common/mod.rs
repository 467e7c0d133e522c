//! What the stories share: nodes of one host, and waiting for a condition under a deadline.
#![allow(dead_code, reason = "no story needs all of it")]

use std::time::{Duration, Instant};

use layercake::{Node, NodeConfig, PingError, wire::id::ActorAddr};

/// No condition takes that long unless something is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What has not moved for so long stands still.
const WHILE: Duration = Duration::from_millis(150);

/// Nodes of one host, as processes would be.
pub(crate) struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) async fn node(&self) -> Node {
        let mesh = Some(self.folder.path().join("mesh"));
        Node::start_with(NodeConfig { mesh, ..NodeConfig::default() }).await.expect("a node")
    }
}

/// Waits for something that has to come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("in time")
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, waiting).await.is_ok(), "not in time: {what}");
}

/// Waits until a number has stood still for a while, and says where.
pub(crate) async fn at_rest(what: &str, now: impl Fn() -> usize) -> usize {
    let (mut last, mut since) = (now(), Instant::now());
    until(what, || {
        if now() != last {
            (last, since) = (now(), Instant::now());
        }
        since.elapsed() >= WHILE
    })
    .await;
    last
}

/// Waits until a node has got whatever was sent to it over the link from here: a link keeps its order.
pub(crate) async fn arrived(here: &Node, there: &ActorAddr) {
    // What was only just begun is sent first.
    tokio::task::yield_now().await;
    let answer = soon(here.ping(there)).await;
    assert!(matches!(answer, Ok(_) | Err(PingError::NoActor(_))), "{answer:?}");
}
