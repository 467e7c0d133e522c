//! Lives: from `started` to `stopped`, children before parents, and who is told how it ended.

extern crate layercake_node as layercake;

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Host, arrived, soon, until};
use layercake::{Address, AskError, Context, Exit, Node, STOP_GRACE};
use layercake_macros::{actor, message};
use parking_lot::Mutex;

#[message(reply = ())]
struct Ping {}

#[message]
struct End {
    how: String,
}

/// Handled for ever.
#[message]
struct Hang {}

#[message(reply = ())]
struct Link {
    to: Address<Member>,
}

type Log = Arc<Mutex<Vec<String>>>;

/// A member of a family: it has so many generations below it.
struct Member {
    name: String,
    below: usize,
    log: Log,
    children: Vec<Address<Self>>,
}

impl Member {
    fn new(name: &str, below: usize, log: &Log) -> Self {
        Self { name: name.to_owned(), below, log: log.clone(), children: Vec::new() }
    }

    fn note(&self, what: &str) {
        self.log.lock().push(format!("{} {what}", self.name));
    }
}

#[message(reply = Vec<Address<Member>>)]
struct Children {}

#[actor(output = u64, no_entry)]
impl Member {
    async fn started(&mut self, ctx: &mut Context<Self>) {
        self.note("started");
        if self.below > 0 {
            for number in 1..=2 {
                let name = format!("{}{number}", self.name);
                let child = Self::new(&name, self.below - 1, &self.log);
                self.children.push(ctx.spawn(child));
            }
        }
    }

    async fn ping(&mut self, _: Ping) {}

    async fn children(&mut self, _: Children) -> Vec<Address<Self>> {
        self.children.clone()
    }

    async fn end(&mut self, End { how }: End, ctx: &mut Context<Self>) {
        match how.as_str() {
            "finish" => ctx.finish(42),
            "fail" => ctx.fail("it gave up"),
            "stop" => ctx.stop(),
            other => panic!("{other}"),
        }
    }

    async fn hang(&mut self, _: Hang) {
        self.note("hangs");
        std::future::pending::<()>().await;
    }

    async fn link(&mut self, Link { to }: Link, ctx: &mut Context<Self>) {
        ctx.link(&to);
    }

    async fn stopping(&mut self, _ctx: &mut Context<Self>) {
        self.note("stopping");
    }

    async fn stopped(&mut self) {
        self.note("stopped");
    }
}

fn end(how: &str) -> End {
    End { how: how.to_owned() }
}

async fn family(node: &Node, below: usize, log: &Log) -> Address<Member> {
    let root = node.spawn(Member::new("a", below, log));
    let all = (2 << below) - 1;
    until("all have started", || log.lock().len() == all).await;
    root
}

#[tokio::test]
async fn children_end_before_their_parents_last_started_first() {
    for close in [false, true] {
        let (node, log) = (Host::new().node().await, Log::default());
        let root = family(&node, 2, &log).await;
        assert_eq!(node.actors(), 7);
        log.lock().clear();
        let watch = node.watch(&root);
        if close {
            node.close().await;
        } else {
            root.stop();
        }
        assert_eq!(soon(watch).await, Exit::Stopped);
        let expected = [
            "a stopping",
            "a2 stopping",
            "a22 stopping",
            "a22 stopped",
            "a21 stopping",
            "a21 stopped",
            "a2 stopped",
            "a1 stopping",
            "a12 stopping",
            "a12 stopped",
            "a11 stopping",
            "a11 stopped",
            "a1 stopped",
            "a stopped",
        ];
        assert_eq!(*log.lock(), expected);
        assert_eq!(node.actors(), 0);
        node.close().await;
    }
}

#[tokio::test]
async fn a_child_that_is_stuck_is_ended_after_the_grace_and_its_siblings_in_order() {
    let (node, log) = (Host::new().node().await, Log::default());
    let root = family(&node, 1, &log).await;
    let children = soon(root.ask(Children {})).await.expect("answers");
    children[1].tell(Hang {}).await.expect("there");
    until("it hangs", || log.lock().iter().any(|line| line == "a2 hangs")).await;
    let watches: Vec<_> = children.iter().map(|child| node.watch(child)).collect();
    let (start, watch) = (Instant::now(), node.watch(&root));
    root.stop();
    assert_eq!(soon(watch).await, Exit::Stopped);
    assert!(start.elapsed() >= STOP_GRACE - Duration::from_millis(50));
    let exits = soon(futures_util::future::join_all(watches)).await;
    assert_eq!(exits, [Exit::Stopped, Exit::Aborted], "who could end, did");
    let log = log.lock().clone();
    assert!(log.iter().any(|line| line == "a1 stopped"), "{log:?}");
    assert!(!log.iter().any(|line| line == "a2 stopped"));
    assert_eq!(log.last().map(String::as_str), Some("a stopped"));
    node.close().await;
}

#[tokio::test]
async fn a_panicking_parent_takes_its_children_along_in_order() {
    let (node, log) = (Host::new().node().await, Log::default());
    let root = family(&node, 1, &log).await;
    log.lock().clear();
    let watch = node.watch(&root);
    root.tell(end("oh no")).await.expect("there");
    assert_eq!(soon(watch).await, Exit::Panicked("oh no".to_owned()));
    assert_eq!(*log.lock(), ["a2 stopping", "a2 stopped", "a1 stopping", "a1 stopped"]);
    assert_eq!(node.actors(), 0);
    node.close().await;
}

#[tokio::test]
async fn each_way_to_end_is_told_to_who_joins_and_to_who_watches_here_and_there() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    for (how, left, exit) in [
        ("finish", Ok(42), Exit::Finished),
        ("stop", Err(Exit::Stopped), Exit::Stopped),
        ("fail", Err(Exit::Failed("it gave up".to_owned())), Exit::Failed("it gave up".to_owned())),
        ("crash", Err(Exit::Panicked("crash".to_owned())), Exit::Panicked("crash".to_owned())),
    ] {
        let mut running = there.launch(Member::new("b", 0, &Log::default()));
        let far: Address<Member> = here.bind(running.address().id());
        let gone: Address<Member> = far.clone();
        assert_eq!(soon(far.ask(Ping {})).await, Ok(()));
        let (near_watch, far_watch) = (there.watch(running.address()), here.watch(&far));
        let far_watch = tokio::spawn(far_watch);
        arrived(&here, &far.id()).await;
        far.tell(end(how)).await.expect("there");
        assert_eq!(soon(running.join()).await, left);
        assert_eq!(soon(near_watch).await, exit);
        assert_eq!(soon(far_watch).await.expect("no panic"), exit);
        // Afterwards only who has known it knows.
        assert_eq!(soon(there.watch(running.address())).await, exit);
        assert_eq!(soon(here.watch(&gone)).await, Exit::Unknown);
        let error = soon(far.ask(Ping {})).await.expect_err("it has ended");
        assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    }
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn the_end_of_a_node_is_the_end_of_its_actors_for_who_watches_from_elsewhere() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let actors: Vec<_> =
        (0..20).map(|_| there.spawn(Member::new("c", 0, &Log::default()))).collect();
    let far: Address<Member> = here.bind(actors[0].id());
    assert_eq!(soon(far.ask(Ping {})).await, Ok(()));
    let watches: Vec<_> = actors
        .iter()
        .map(|actor| {
            let far: Address<Member> = here.bind(actor.id());
            tokio::spawn(here.watch(&far))
        })
        .collect();
    arrived(&here, &far.id()).await;
    there.close().await;
    for watch in watches {
        assert_eq!(soon(watch).await.expect("no panic"), Exit::Stopped);
    }
    here.close().await;
}

#[tokio::test]
async fn a_link_passes_a_failure_on_and_nothing_else() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    for near in [true, false] {
        for (how, fails) in [("finish", false), ("stop", false), ("fail", true), ("ouch", true)] {
            let other = there.spawn(Member::new("d", 0, &Log::default()));
            let node = if near { &there } else { &here };
            let linked = node.spawn(Member::new("e", 0, &Log::default()));
            let to = if near { other.clone() } else { here.bind(other.id()) };
            soon(linked.ask(Link { to })).await.expect("linked");
            let watch = node.watch(&linked);
            arrived(&here, &other.id()).await;
            other.tell(end(how)).await.expect("there");
            soon(there.watch(&other)).await;
            if fails {
                let exit = soon(watch).await;
                let Exit::Failed(why) = &exit else { panic!("{exit}") };
                assert!(why.contains("to which it is linked"), "{why}");
            } else {
                arrived(&here, &other.id()).await;
                assert_eq!(soon(linked.ask(Ping {})).await, Ok(()), "{how}");
            }
        }
    }
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn closing_a_node_ends_also_what_is_stuck() {
    let (node, log) = (Host::new().node().await, Log::default());
    let root = node.spawn(Member::new("f", 0, &log));
    let waiting = tokio::spawn({
        let root = root.clone();
        async move {
            root.tell(Hang {}).await.expect("there");
            root.ask(Ping {}).await
        }
    });
    until("it hangs", || log.lock().iter().any(|line| line == "f hangs")).await;
    let watch = node.watch(&root);
    soon(node.close()).await;
    assert_eq!(soon(watch).await, Exit::Aborted);
    let error = soon(waiting).await.expect("no panic").expect_err("never begun");
    assert!(matches!(error, AskError::Stopped { .. }), "{error}");
}
