//! Actors as a user meets them: told and asked in one process and across two, by address and in
//! messages, up to their end.

extern crate layercake_node as layercake;

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{SOON, at_rest, until};
use layercake::{Address, AskError, Context, MAILBOX, Node, NodeConfig, TellError};
use layercake_macros::{actor, message};
use tokio::sync::Semaphore;

#[message(reply = u64)]
struct Add {
    amount: u64,
}

#[message(reply = u64)]
struct Total {}

#[message(reply = ())]
struct Fall {}

#[message(reply = ())]
struct Wait {}

#[message(reply = Address<Counter>)]
struct Who {}

#[message(reply = u64)]
struct AddTo {
    whom: Address<Counter>,
    amount: u64,
}

#[message]
struct Unheard {}

struct Counter {
    total: u64,
    gate: Arc<Semaphore>,
    waits: Arc<AtomicUsize>,
}

impl Counter {
    fn new() -> Self {
        Self { total: 0, gate: Arc::new(Semaphore::new(0)), waits: Arc::default() }
    }
}

#[actor]
impl Counter {
    async fn add(&mut self, Add { amount }: Add) -> u64 {
        self.total += amount;
        self.total
    }

    async fn total(&mut self, _: Total) -> u64 {
        self.total
    }

    async fn fall(&mut self, _: Fall) {
        panic!("it falls, as it was told to");
    }

    async fn wait(&mut self, _: Wait) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("the gate stays").forget();
    }

    async fn who(&mut self, _: Who, ctx: &mut Context<Self>) -> Address<Self> {
        ctx.address().clone()
    }

    async fn add_to(&mut self, AddTo { whom, amount }: AddTo) -> u64 {
        whom.ask(Add { amount }).await.unwrap_or(0)
    }
}

/// Nodes of one host, as processes would be.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    async fn node(&self) -> Node {
        let mesh = Some(self.folder.path().join("mesh"));
        Node::start_with(NodeConfig { mesh, ..NodeConfig::default() }).await.expect("a node")
    }
}

#[tokio::test]
async fn an_actor_is_told_and_asked_in_order() {
    let node = Host::new().node().await;
    let counter = node.spawn(Counter::new());
    for amount in 1..=100 {
        counter.tell(Add { amount }).await.expect("there");
    }
    assert_eq!(counter.ask(Total {}).await, Ok(5050));
    assert_eq!(counter.ask(Add { amount: 1 }).await, Ok(5051));
    node.close().await;
    let error = counter.ask(Total {}).await.expect_err("stopped");
    assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    assert!(!error.may_have_run());
}

#[tokio::test]
async fn another_process_is_asked_the_same_way() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let counter = there.spawn(Counter::new());
    let address: Address<Counter> = here.bind(counter.id());
    assert!(!address.is_local() && counter.is_local());
    assert_eq!(address, counter, "it is the same actor");
    for amount in 1..=100 {
        address.tell(Add { amount }).await.expect("there");
    }
    assert_eq!(address.ask(Total {}).await, Ok(5050));
    let asks = (0..200).map(|_| address.ask(Add { amount: 1 }));
    let answers = futures_util::future::join_all(asks).await;
    let totals: HashSet<u64> = answers.into_iter().filter_map(Result::ok).collect();
    assert_eq!(totals.len(), 200, "each was handled once");
    there.close().await;
    let error = address.ask(Total {}).await.expect_err("gone");
    assert!(matches!(error, AskError::Stopped { .. } | AskError::Lost { .. }), "{error}");
    let error = address.ask(Total {}).await.expect_err("gone");
    assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    let start = Instant::now();
    let Err(TellError::Stopped { message, .. }) = address.tell(Add { amount: 9 }).await else {
        panic!("it is known to have stopped")
    };
    assert_eq!(message.amount, 9, "the message comes back");
    assert!(start.elapsed() < Duration::from_secs(1));
    here.close().await;
}

#[tokio::test]
async fn an_address_travels_in_messages_and_still_works() {
    let host = Host::new();
    let (a, b, c) = (host.node().await, host.node().await, host.node().await);
    let (counter, relay) = (a.spawn(Counter::new()), b.spawn(Counter::new()));
    // `c` learns of `a`'s actor from itself, and hands it to `b`, which has never met `a`.
    let found: Address<Counter> = c.bind(counter.id());
    let told = found.ask(Who {}).await.expect("answers");
    assert_eq!(told, counter);
    let to_relay: Address<Counter> = c.bind(relay.id());
    let answer = to_relay.ask(AddTo { whom: told, amount: 7 }).await;
    assert_eq!(answer, Ok(7));
    assert_eq!(counter.ask(Total {}).await, Ok(7));
    for node in [a, b, c] {
        node.close().await;
    }
}

#[tokio::test]
async fn a_panic_is_told_to_the_asker_and_ends_the_actor_alone() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    for near in [true, false] {
        let (counter, neighbour) = (there.spawn(Counter::new()), there.spawn(Counter::new()));
        let address = if near { counter.clone() } else { here.bind(counter.id()) };
        assert_eq!(address.ask(Fall {}).await, Err(AskError::Panicked));
        let error = address.ask(Total {}).await.expect_err("it has ended");
        assert!(matches!(error, AskError::Stopped { .. }), "{error}");
        assert_eq!(neighbour.ask(Total {}).await, Ok(0));
    }
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn a_message_without_a_handler_is_refused_by_name() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let counter = there.spawn(Counter::new());
    for address in [counter.clone(), here.bind(counter.id())] {
        let error = address.cast::<Unheard>().ask(Unheard {}).await.expect_err("no handler");
        assert!(matches!(error, AskError::NotHandled { .. }), "{error}");
    }
    let told = counter.cast::<Unheard>().tell(Unheard {}).await;
    assert!(matches!(told, Err(TellError::Unsendable { .. })));
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn deadlines_hold_and_what_nobody_waits_for_is_not_begun() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let counter = Counter::new();
    let (gate, waits) = (counter.gate.clone(), counter.waits.clone());
    let counter = there.spawn(counter);
    for address in [counter.clone(), here.bind(counter.id())] {
        let before = waits.load(Ordering::SeqCst);
        let limit = Duration::from_millis(100);
        let both = futures_util::future::join(
            address.ask_within(Wait {}, limit),
            address.ask_within(Wait {}, limit),
        );
        let (first, second) = both.await;
        assert_eq!((first, second), (Err(AskError::Deadline), Err(AskError::Deadline)));
        gate.add_permits(1);
        assert!(address.ask(Total {}).await.is_ok());
        assert_eq!(waits.load(Ordering::SeqCst), before + 1, "the second was not begun");
    }
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn a_full_mailbox_makes_senders_wait_and_stop_overtakes_it() {
    let node = Host::new().node().await;
    let counter = Counter::new();
    let waits = counter.waits.clone();
    let gate = counter.gate.clone();
    let counter = node.spawn(counter);
    counter.tell(Wait {}).await.expect("room");
    while waits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let mut sent = 0;
    let full = loop {
        match counter.try_tell(Add { amount: 1 }) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, TellError::Full { .. }), "{full}");
    assert_eq!(sent, MAILBOX);
    let waiting = tokio::spawn({
        let counter = counter.clone();
        async move { counter.tell(Add { amount: 1 }).await.is_err() }
    });
    let asking = tokio::spawn({
        let counter = counter.clone();
        async move { counter.ask(Total {}).await }
    });
    counter.stop();
    gate.add_permits(1);
    let both = async { (waiting.await, asking.await) };
    let (waited, asked) = tokio::time::timeout(SOON, both).await.expect("stop overtakes");
    assert!(waited.expect("no panic"), "the sender hears that it has stopped");
    assert!(matches!(asked.expect("no panic"), Err(AskError::Stopped { .. })));
    // Nothing is silent: each tell that was accepted and not handled is counted.
    until("every dead letter is counted", || node.dead_letters() >= MAILBOX as u64).await;
    assert!(node.dead_letters() <= MAILBOX as u64 + 1, "{}", node.dead_letters());
    node.close().await;
}

#[tokio::test]
async fn a_slow_actor_elsewhere_holds_its_senders_back_and_nothing_is_lost() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let counter = Counter::new();
    let gate = counter.gate.clone();
    let counter = there.spawn(counter);
    let address: Address<Counter> = here.bind(counter.id());
    address.tell(Wait {}).await.expect("there");
    let (total, handled) = (5_000, Arc::new(AtomicUsize::new(0)));
    let sending = tokio::spawn({
        let (address, handled) = (address.clone(), handled.clone());
        async move {
            for _ in 0..total {
                address.tell(Add { amount: 1 }).await.expect("there");
                handled.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    // Another actor of the same process is not held up.
    let other: Address<Counter> = here.bind(there.spawn(Counter::new()).id());
    assert_eq!(other.ask(Add { amount: 3 }).await, Ok(3));
    // The sender comes to a stand: so much is under way and no more.
    until("it has begun", || handled.load(Ordering::SeqCst) > 0).await;
    let stood = at_rest("it stands", || handled.load(Ordering::SeqCst)).await;
    assert!(stood < total, "back-pressure crosses the process boundary");
    gate.add_permits(1);
    tokio::time::timeout(SOON, sending).await.expect("goes on").expect("no panic");
    assert_eq!(address.ask(Total {}).await, Ok(total as u64));
    here.close().await;
    there.close().await;
}
