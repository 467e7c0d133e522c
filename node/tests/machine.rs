//! Machines: a turnstile whose transitions, refusals and deferrals are met from outside.

extern crate layercake_node as layercake;

mod common;

use std::sync::Arc;

use common::{Host, soon, until};
use layercake::{Address, AskError, Context, MAILBOX, Node, Restart, Strategy};
use layercake_macros::{machine, message, states};
use parking_lot::Mutex;

#[message(reply = bool)]
struct Coin {}

/// Goes through; with a number, so that the order is seen.
#[message(reply = u32)]
struct Push {
    number: u32,
}

/// Takes the turnstile to pieces; only while it is locked.
#[message(reply = ())]
struct Service {}

#[message(reply = ())]
struct Repair {}

#[message(reply = ())]
struct Break {}

type Log = Arc<Mutex<Vec<u32>>>;

#[states]
enum Turnstile {
    Locked { log: Log },
    Open { log: Log },
    InPieces { log: Log },
}

#[machine(defer(Locked: Push, InPieces: Push, InPieces: Coin))]
impl Turnstile {
    async fn coin(state: Locked, _: Coin) -> (bool, Open) {
        (true, Open { log: state.log })
    }

    /// A second coin is lost.
    async fn more(state: Open, _: Coin, _ctx: &mut Context<Self>) -> (bool, Self) {
        (false, state.into())
    }

    async fn push(state: Open, Push { number }: Push) -> (u32, Locked) {
        state.log.lock().push(number);
        (number, Locked { log: state.log })
    }

    async fn service(state: Locked, _: Service) -> ((), InPieces) {
        ((), InPieces { log: state.log })
    }

    async fn repair(state: InPieces, _: Repair) -> ((), Locked) {
        ((), Locked { log: state.log })
    }

    async fn fall(_state: Locked, _: Break) -> ((), InPieces) {
        panic!("it falls over");
    }
}

fn turnstile(node: &Node) -> (Address<Turnstile>, Log) {
    let log = Log::default();
    (node.spawn(Turnstile::from(Locked { log: log.clone() })), log)
}

fn push(
    address: &Address<Turnstile>,
    number: u32,
) -> tokio::task::JoinHandle<Result<u32, AskError>> {
    let address = address.clone();
    tokio::spawn(async move { address.ask(Push { number }).await })
}

#[tokio::test]
async fn a_state_takes_what_it_has_a_transition_for_and_refuses_the_rest() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    for near in [true, false] {
        let (turnstile, _) = turnstile(&there);
        let address = if near { turnstile.clone() } else { here.bind(turnstile.id()) };
        assert_eq!(soon(address.ask(Coin {})).await, Ok(true));
        assert_eq!(soon(address.ask(Coin {})).await, Ok(false));
        let error = soon(address.ask(Service {})).await.expect_err("it is open");
        assert!(matches!(error, AskError::NotNow { .. }), "{error}");
        assert!(error.to_string().ends_with("does not take `Service` in state `Open`"), "{error}");
        assert!(error.is_retryable() && !error.may_have_run());
        assert_eq!(soon(address.ask(Push { number: 7 })).await, Ok(7));
        assert_eq!(soon(address.ask(Service {})).await, Ok(()), "it may later");
        let before = there.dead_letters();
        address.tell(Service {}).await.expect("there");
        until("a refused tell is a dead letter", || there.dead_letters() == before + 1).await;
    }
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn what_is_put_off_comes_again_in_its_order() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let (turnstile, log) = turnstile(&there);
    let far: Address<Turnstile> = here.bind(turnstile.id());
    for number in 1..=5 {
        turnstile.tell(Push { number }).await.expect("there");
    }
    for number in 6..=8 {
        far.tell(Push { number }).await.expect("there");
    }
    let last = push(&far, 9);
    // Each coin lets one through, the first that came; the others are put off again.
    for through in 1..=9 {
        assert_eq!(soon(turnstile.ask(Coin {})).await, Ok(true));
        until("one goes through", || log.lock().len() >= through).await;
        assert_eq!(*log.lock(), (1..=through as u32).collect::<Vec<_>>());
    }
    assert_eq!(soon(last).await.expect("no panic"), Ok(9));
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn deferred_coins_and_pushes_keep_their_order_through_several_states() {
    let node = Host::new().node().await;
    let (turnstile, log) = turnstile(&node);
    soon(turnstile.ask(Service {})).await.expect("locked");
    for number in 1..=3 {
        turnstile.tell(Push { number }).await.expect("there");
        turnstile.tell(Coin {}).await.expect("there");
    }
    soon(turnstile.ask(Repair {})).await.expect("in pieces");
    until("all went through", || log.lock().len() == 3).await;
    assert_eq!(*log.lock(), [1, 2, 3]);
    node.close().await;
}

#[tokio::test]
async fn more_than_a_mailbox_is_not_put_off() {
    let node = Host::new().node().await;
    let (turnstile, log) = turnstile(&node);
    for number in 0..MAILBOX as u32 {
        turnstile.tell(Push { number }).await.expect("there");
    }
    let error = soon(push(&turnstile, 1)).await.expect("no panic").expect_err("one too many");
    assert!(matches!(error, AskError::Overloaded { pending: MAILBOX, .. }), "{error:?}");
    turnstile.tell(Push { number: 0 }).await.expect("there");
    until("the tell is a dead letter", || node.dead_letters() == 1).await;
    assert_eq!(soon(turnstile.ask(Coin {})).await, Ok(true));
    until("one goes through", || log.lock().len() == 1).await;
    let waiting = push(&turnstile, 1);
    turnstile.stop();
    let error = soon(waiting).await.expect("no panic").expect_err("it was never begun");
    assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    until("the others are dead letters", || node.dead_letters() == MAILBOX as u64).await;
    node.close().await;
}

#[tokio::test]
async fn what_was_put_off_waits_for_the_successor_of_a_machine_that_failed() {
    let node = Host::new().node().await;
    let supervisor = node.supervise(Strategy::OneForOne).start();
    let log = Log::default();
    let turnstile = supervisor
        .child(Restart::Always, {
            let log = log.clone();
            move || Turnstile::from(Locked { log: log.clone() })
        })
        .expect("room");
    let pushes = [push(&turnstile, 1)];
    for number in 2..=3 {
        turnstile.tell(Push { number }).await.expect("there");
    }
    assert_eq!(soon(turnstile.ask(Break {})).await, Err(AskError::Panicked));
    for through in 1..=3 {
        assert_eq!(soon(turnstile.ask(Coin {})).await, Ok(true));
        until("one goes through", || log.lock().len() >= through).await;
    }
    let mut numbers = log.lock().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3], "nobody was sent away");
    for push in pushes {
        assert_eq!(soon(push).await.expect("no panic"), Ok(1));
    }
    assert_eq!(node.dead_letters(), 0);
    node.close().await;
}
