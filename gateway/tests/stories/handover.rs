//! A new gateway takes the port from the one that runs, and no client notices.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use layercake_gateway::{BindError, Gateway, GatewayConfig};
use tokio::task::JoinSet;

use crate::{
    client::{Client, eventually, found, soon},
    fake::Running,
};

async fn first(folder: &Path) -> Running {
    Running::with(|config| config.hand_over = Some(folder.to_owned())).await
}

async fn next(folder: &Path, listen: SocketAddr) -> Running {
    Running::with(|config| {
        config.listen = listen;
        config.hand_over = Some(folder.to_owned());
        config.take_over = true;
    })
    .await
}

#[tokio::test]
async fn twenty_hand_overs_under_load_fail_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = first(folder.path()).await;
    let addr = running.addr;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for n in 0..8 {
        let (over, answered) = (over.clone(), answered.clone());
        // Half of them keep their connection until they are told that it ends.
        let keeps = n % 2 == 0;
        clients.spawn(async move {
            let mut client = Client::connect(addr).await;
            while !over.load(Ordering::Relaxed) {
                let answer = client.get("/Xy?x=2").await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "[2,8]"));
                answered.fetch_add(1, Ordering::Relaxed);
                if !keeps || answer.header("connection") == Some("close") {
                    client = Client::connect(addr).await;
                }
            }
        });
    }
    for round in 0..20 {
        let successor = next(folder.path(), addr).await;
        // The predecessor leaves by itself, with nothing cut off.
        let drained = soon("the end of the predecessor", running.task).await.unwrap();
        assert_eq!(drained.unfinished, 0, "round {round}");
        running = successor;
        let before = answered.load(Ordering::Relaxed);
        eventually("more answers", || answered.load(Ordering::Relaxed) > before + 20).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = soon("the clients", clients.join_next()).await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn the_old_one_serves_until_the_new_one_can() {
    let folder = tempfile::tempdir().unwrap();
    let old = first(folder.path()).await;
    // One that never becomes ready, and one that goes away before it is.
    for _ in 0..2 {
        let mut config = GatewayConfig::new(old.addr);
        (config.hand_over, config.take_over) = (Some(folder.path().to_owned()), true);
        let successor = soon("bind", Gateway::bind(config, Arc::new(Unready))).await.unwrap();
        assert_eq!(successor.local_addr(), old.addr);
        let run = tokio::spawn(successor.run(Default::default()));
        for _ in 0..20 {
            old.still_answers().await;
        }
        run.abort();
    }
    assert!(!old.task.is_finished());

    // What is under way at the old one is finished there.
    let mut slow = old.client().await;
    slow.send("GET /Wait HTTP/1.1\r\nhost: test\r\n\r\n").await;
    eventually("the call", || old.fake.begun.load(Ordering::SeqCst) > 40).await;
    let begun = old.fake.begun.load(Ordering::SeqCst);
    let new = next(folder.path(), old.addr).await;
    soon("not served by the old one any more", async {
        while new.fake.begun.load(Ordering::SeqCst) == 0 {
            new.still_answers().await;
        }
    })
    .await;
    for _ in 0..20 {
        new.still_answers().await;
    }
    assert!(old.fake.begun.load(Ordering::SeqCst) <= begun + 20, "the old one accepts no more");
    old.fake.gate.add_permits(1);
    let answer = slow.answer().await;
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("\"done\"", Some("close")));
    assert_eq!(soon("the end of the old one", old.task).await.unwrap().unfinished, 0);
}

#[tokio::test]
async fn without_being_asked_nobody_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let running = first(folder.path()).await;
    let mut config = GatewayConfig::new(running.addr);
    config.hand_over = Some(folder.path().to_owned());
    let error = Gateway::bind(config.clone(), running.fake.clone()).await.err().expect("in use");
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("--take-over"), "{error}");

    // Another mesh has another folder.
    let elsewhere = tempfile::tempdir().unwrap();
    (config.hand_over, config.take_over) = (Some(elsewhere.path().to_owned()), true);
    let error = Gateway::bind(config, running.fake.clone()).await.err().expect("in use");
    assert!(matches!(error, BindError::InUse { .. }), "{error}");

    // Where nobody is, taking over is listening; a socket that was left behind is no obstacle.
    let addr = running.addr;
    let fake = running.fake.clone();
    running.task.abort();
    found("the port", async || tokio::net::TcpStream::connect(addr).await.is_err()).await;
    let left_over = folder.path().join(format!("http-{addr}"));
    assert!(!left_over.exists(), "the socket goes with its gateway");
    drop(std::os::unix::net::UnixListener::bind(&left_over).unwrap());
    next(folder.path(), addr).await.still_answers().await;
    drop(fake);
}

/// A service that is never ready.
struct Unready;

impl layercake_node::service::Service for Unready {
    fn api(&self) -> layercake_node::Api {
        layercake_node::Api::default()
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn call(&self, _: layercake_node::service::Call) -> layercake_node::service::Reply<'_> {
        Box::pin(async { Err(layercake_node::AskError::Unavailable) })
    }
}
