//! Supervision: who begins anew, in which order, with whose mail, and when it is given up.

extern crate layercake_node as layercake;

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{Host, arrived, soon, until};
use layercake::{Address, AskError, Context, Exit, Node, Restart, Strategy, Supervisor};
use layercake_macros::{actor, message};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

#[message(reply = usize)]
struct Life {}

#[message(reply = ())]
struct Fall {}

#[message(reply = ())]
struct Wait {}

type Log = Arc<Mutex<Vec<String>>>;

struct Child {
    name: &'static str,
    life: usize,
    log: Log,
    gate: Arc<Semaphore>,
    waits: Arc<AtomicUsize>,
}

#[actor(no_entry)]
impl Child {
    async fn started(&mut self, _ctx: &mut Context<Self>) {
        self.log.lock().push(format!("{} starts", self.name));
    }

    async fn life(&mut self, _: Life) -> usize {
        self.life
    }

    async fn fall(&mut self, _: Fall) {
        panic!("it falls");
    }

    async fn wait(&mut self, _: Wait) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("the gate stays").forget();
        panic!("it has waited too long");
    }

    async fn stopped(&mut self) {
        self.log.lock().push(format!("{} stops", self.name));
    }
}

#[derive(Clone, Default)]
struct Nursery {
    log: Log,
    waits: Arc<AtomicUsize>,
    gate: Arc<Mutex<Option<Arc<Semaphore>>>>,
}

impl Nursery {
    fn gate(&self) -> Arc<Semaphore> {
        self.gate.lock().get_or_insert_with(|| Arc::new(Semaphore::new(0))).clone()
    }

    fn child(&self, supervisor: &Supervisor, name: &'static str) -> Address<Child> {
        let (log, gate, lives) = (self.log.clone(), self.gate(), AtomicUsize::new(0));
        let waits = self.waits.clone();
        let make = move || {
            let life = lives.fetch_add(1, Ordering::SeqCst) + 1;
            Child { name, life, log: log.clone(), waits: waits.clone(), gate: gate.clone() }
        };
        supervisor.child(Restart::Always, make).expect("room")
    }

    async fn logs(&self, expected: &[&str]) {
        until(&format!("{expected:?}"), || self.log.lock().len() >= expected.len()).await;
        assert_eq!(*self.log.lock(), expected);
        self.log.lock().clear();
    }
}

const SHORT: Duration = Duration::from_millis(5);

fn supervisor(node: &Node, strategy: Strategy) -> Supervisor {
    node.supervise(strategy).backoff(SHORT).start()
}

#[tokio::test]
async fn a_child_begins_anew_in_place_and_its_successor_handles_what_waits() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let nursery = Nursery::default();
    let supervisor = supervisor(&there, Strategy::OneForOne);
    let child = nursery.child(&supervisor, "a");
    let far: Address<Child> = here.bind(child.id());
    assert_eq!(soon(far.ask(Life {})).await, Ok(1));
    let ask = |address: &Address<Child>| {
        let address = address.clone();
        tokio::spawn(async move { address.ask(Life {}).await })
    };
    let fatal = tokio::spawn({
        let child = child.clone();
        async move { child.ask(Wait {}).await }
    });
    until("it waits", || nursery.waits.load(Ordering::SeqCst) == 1).await;
    let waiting: Vec<_> = (0..50).flat_map(|_| [ask(&child), ask(&far)]).collect();
    arrived(&here, &far.id()).await;
    nursery.gate().add_permits(1);
    assert_eq!(soon(fatal).await.expect("no panic"), Err(AskError::Panicked));
    for asked in waiting {
        assert_eq!(soon(asked).await.expect("no panic"), Ok(2), "by the second one");
    }
    assert_eq!(soon(far.ask(Fall {})).await, Err(AskError::Panicked));
    assert_eq!(soon(far.ask(Life {})).await, Ok(3));
    assert_eq!(there.dead_letters(), 0);
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn together_all_end_before_the_first_begins_in_the_order_of_their_start() {
    for (strategy, ends, begins) in [
        (Strategy::OneForOne, vec![], vec!["b starts"]),
        (Strategy::OneForAll, vec!["a stops", "c stops"], vec!["a starts", "b starts", "c starts"]),
        (Strategy::RestForOne, vec!["c stops"], vec!["b starts", "c starts"]),
    ] {
        let node = Host::new().node().await;
        let nursery = Nursery::default();
        let supervisor = supervisor(&node, strategy);
        let [a, b, c] = ["a", "b", "c"].map(|name| nursery.child(&supervisor, name));
        until("all started", || nursery.log.lock().len() == 3).await;
        nursery.log.lock().clear();
        for again in 1..=3 {
            assert_eq!(soon(b.ask(Fall {})).await, Err(AskError::Panicked));
            until("all are back", || nursery.log.lock().len() >= ends.len() + begins.len()).await;
            let mut log = std::mem::take(&mut *nursery.log.lock());
            let begun = log.split_off(ends.len());
            log.sort_unstable();
            assert_eq!((log, begun), (to_owned(&ends), to_owned(&begins)), "{strategy:?}");
            assert_eq!(soon(b.ask(Life {})).await, Ok(again + 1));
        }
        let lives = (soon(a.ask(Life {})).await, soon(c.ask(Life {})).await);
        let expected = match strategy {
            Strategy::OneForOne => (Ok(1), Ok(1)),
            Strategy::OneForAll => (Ok(4), Ok(4)),
            Strategy::RestForOne => (Ok(1), Ok(4)),
        };
        assert_eq!(lives, expected, "{strategy:?}");
        node.close().await;
    }
}

fn to_owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn children_that_fail_at_the_same_time_all_come_back() {
    let node = Host::new().node().await;
    let nursery = Nursery::default();
    let builder = node.supervise(Strategy::OneForAll).intensity(10_000, Duration::from_secs(60));
    let supervisor = builder.backoff(Duration::from_millis(1)).start();
    let children: Vec<_> = (0..8).map(|_| nursery.child(&supervisor, "one of many")).collect();
    // What each one waits doubles with each round.
    for _ in 0..6 {
        let falls = children.iter().map(|child| child.ask(Fall {}));
        for fell in soon(futures_util::future::join_all(falls)).await {
            assert_eq!(fell, Err(AskError::Panicked));
        }
        for child in &children {
            assert!(soon(child.ask(Life {})).await.is_ok());
        }
    }
    node.close().await;
}

#[tokio::test]
async fn one_for_one_a_child_that_waits_long_does_not_hold_up_the_others() {
    let node = Host::new().node().await;
    let nursery = Nursery::default();
    let builder = node.supervise(Strategy::OneForOne).intensity(1000, Duration::from_secs(60));
    let supervisor = builder.backoff(Duration::from_millis(150)).start();
    let (a, b) = (nursery.child(&supervisor, "a"), nursery.child(&supervisor, "b"));
    // Each fall doubles what the next one waits: the last time more than two seconds.
    for _ in 0..4 {
        assert_eq!(soon(a.ask(Fall {})).await, Err(AskError::Panicked));
    }
    assert_eq!(soon(a.ask(Fall {})).await, Err(AskError::Panicked));
    assert_eq!(soon(b.ask(Fall {})).await, Err(AskError::Panicked));
    let back = tokio::time::timeout(Duration::from_secs(1), b.ask(Life {})).await;
    assert_eq!(back, Ok(Ok(2)), "it has waited for its own turn alone");
    assert_eq!(soon(a.ask(Life {})).await, Ok(6));
    node.close().await;
}

#[tokio::test]
async fn too_many_restarts_end_the_supervisor_and_its_children() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let nursery = Nursery::default();
    let builder = there.supervise(Strategy::OneForOne).intensity(2, Duration::from_secs(60));
    let supervisor = builder.backoff(SHORT).start();
    let (a, b) = (nursery.child(&supervisor, "a"), nursery.child(&supervisor, "b"));
    let (watch, sibling) = (there.watch(supervisor.address()), there.watch(&b));
    let far: Address<Supervisor> = here.bind(supervisor.address().id());
    let far = tokio::spawn(here.watch(&far));
    let own = there.watch(&a);
    for _ in 0..3 {
        assert_eq!(soon(a.ask(Fall {})).await, Err(AskError::Panicked));
    }
    let exit = soon(watch).await;
    let Exit::Failed(why) = &exit else { panic!("{exit}") };
    assert!(why.contains("more than 2 restarts") && why.contains("it falls"), "{why}");
    assert_eq!(soon(far).await.expect("no panic"), exit);
    assert_eq!(soon(sibling).await, Exit::Stopped);
    assert_eq!(soon(own).await, Exit::Panicked("it falls".to_owned()));
    assert_eq!(there.actors(), 0);
    let late = supervisor.child(Restart::Always, || Child {
        name: "late",
        life: 0,
        log: Log::default(),
        waits: Arc::default(),
        gate: Arc::default_gate(),
    });
    assert!(late.is_err(), "it takes no child any more");
    here.close().await;
    there.close().await;
}

trait DefaultGate {
    fn default_gate() -> Self;
}

impl DefaultGate for Arc<Semaphore> {
    fn default_gate() -> Self {
        Self::new(Semaphore::new(0))
    }
}

#[tokio::test]
async fn a_failure_goes_up_through_a_supervisor_under_a_supervisor() {
    let node = Host::new().node().await;
    let nursery = Nursery::default();
    let builder = node.supervise(Strategy::OneForOne).intensity(1, Duration::from_secs(60));
    let top = builder.backoff(SHORT).start();
    let latest: Arc<Mutex<Option<Address<Child>>>> = Arc::default();
    let below = {
        let (nursery, latest) = (nursery.clone(), latest.clone());
        let setup = move |supervisor: &Supervisor| {
            *latest.lock() = Some(nursery.child(supervisor, "deep"));
        };
        top.supervisor(Restart::Always, Strategy::OneForOne, setup).expect("room")
    };
    until("it has begun", || latest.lock().is_some()).await;
    let (up, middle) = (node.watch(top.address()), node.watch(&below));
    let mut families = 0;
    // One restart is borne by the lower one, whose own restart is borne once by the upper one.
    while node.actors() > 0 {
        until("a family, or the end", || latest.lock().is_some() || node.actors() == 0).await;
        let Some(child) = latest.lock().take() else { break };
        families += 1;
        for _ in 0..2 {
            assert_eq!(soon(child.ask(Fall {})).await, Err(AskError::Panicked));
        }
        soon(node.watch(&child)).await;
    }
    assert_eq!(families, 2);
    for exit in [soon(up).await, soon(middle).await] {
        assert!(
            matches!(&exit, Exit::Failed(why) if why.contains("more than 1 restarts")),
            "{exit}"
        );
    }
    node.close().await;
}

#[tokio::test]
async fn a_factory_that_panics_is_a_failure_like_any_other() {
    let node = Host::new().node().await;
    let supervisor = supervisor(&node, Strategy::OneForOne);
    let broken = Arc::new(AtomicBool::new(true));
    let child = supervisor
        .child(Restart::OnFailure, {
            let broken = broken.clone();
            move || {
                assert!(!broken.swap(false, Ordering::SeqCst), "nothing to make it from");
                let gate = Arc::default_gate();
                Child { name: "made", life: 7, log: Log::default(), waits: Arc::default(), gate }
            }
        })
        .expect("room");
    assert_eq!(soon(child.ask(Life {})).await, Ok(7), "what waits is handled all the same");
    let never = supervisor.child(Restart::Always, || -> Child { panic!("never") }).expect("room");
    let exit = soon(node.watch(supervisor.address())).await;
    assert!(matches!(&exit, Exit::Failed(why) if why.contains("never")), "{exit}");
    let error = soon(never.ask(Life {})).await.expect_err("it was given up");
    assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    node.close().await;
}

#[tokio::test]
async fn stopping_a_supervisor_stops_its_children_in_reverse() {
    let node = Host::new().node().await;
    let nursery = Nursery::default();
    let supervisor = supervisor(&node, Strategy::OneForAll);
    let children = ["a", "b", "c"].map(|name| nursery.child(&supervisor, name));
    until("all started", || nursery.log.lock().len() == 3).await;
    nursery.log.lock().clear();
    let watch = node.watch(supervisor.address());
    // One that was stopped on purpose stays so, and the others are not touched.
    children[1].stop();
    nursery.logs(&["b stops"]).await;
    assert_eq!(soon(children[0].ask(Life {})).await, Ok(1));
    assert_eq!(soon(children[2].ask(Fall {})).await, Err(AskError::Panicked));
    nursery.logs(&["a stops", "a starts", "c starts"]).await;
    supervisor.stop();
    assert_eq!(soon(watch).await, Exit::Stopped);
    nursery.logs(&["c stops", "a stops"]).await;
    assert_eq!(node.actors(), 0);
    node.close().await;
}
