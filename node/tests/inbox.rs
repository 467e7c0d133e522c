//! Functions as actors: what they receive, in which order, and what becomes of what they do not.

extern crate layercake_node as layercake;

mod common;

use std::time::Duration;

use common::{Host, arrived, soon, until};
use layercake::{Address, AskError, Exit, Inbox, MAILBOX, NoMail};
use layercake_macros::{mail, message};
use tokio::sync::oneshot;

#[message(reply = u64)]
struct Add {
    amount: u64,
}

#[message(reply = u64)]
struct Total {}

#[message(reply = ())]
struct Finish {}

#[message]
struct Other {
    number: u64,
}

#[mail]
enum Request {
    Add(Add),
    Total(Total),
    Finish(Finish),
    Rest(Unknown),
}

async fn counter(mut inbox: Inbox<Request>) -> u64 {
    let (mut total, mut rest) = (0, 0);
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Add(Add { amount }, reply) => {
                total += amount;
                reply.send(total);
            }
            Request::Total(Total {}, reply) => reply.send(total),
            Request::Finish(Finish {}, reply) => {
                reply.send(());
                break;
            }
            Request::Rest(unknown) => {
                assert_eq!(unknown.name(), Some("Other"));
                rest += unknown.unpack::<Other>().and_then(layercake::Packet::into_parts).map_or(
                    0,
                    |(other, reply)| {
                        reply.send(());
                        other.number
                    },
                );
            }
        }
    }
    total + 1000 * rest
}

#[tokio::test]
async fn a_function_answers_in_order_and_leaves_a_value() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let mut running = there.launch(counter);
    let near: Address<Request> = running.address().clone();
    let far: Address<Request> = here.bind(near.id());
    for address in [&near, &far] {
        for amount in 1..=100 {
            address.tell(Add { amount }).await.expect("there");
        }
        // Behind the tells of the same task.
        assert!(soon(address.ask(Total {})).await.expect("answers") >= 5050);
        address.cast::<Other>().tell(Other { number: 1 }).await.expect("taken as unknown");
        assert_eq!(soon(address.cast::<Other>().ask(Other { number: 2 })).await, Ok(()));
    }
    assert_eq!(soon(near.ask(Total {})).await, Ok(10_100));
    assert_eq!(soon(far.ask(Finish {})).await, Ok(()));
    assert_eq!(soon(running.join()).await, Ok(10_100 + 6_000));
    assert_eq!(soon(there.watch(&near)).await, Exit::Finished);
    here.close().await;
    there.close().await;
}

/// Receives what is asked for by number, the rest in order, and returns all numbers as they came.
async fn choosy(mut inbox: Inbox<Add>) -> Vec<u64> {
    let mut got = Vec::new();
    for wanted in [50, 20] {
        let Some((Add { amount }, reply)) = inbox.recv_where(|(add, _)| add.amount == wanted).await
        else {
            return got;
        };
        reply.send(amount);
        got.push(amount);
    }
    while let Some((Add { amount }, reply)) = inbox.recv().await {
        reply.send(amount);
        got.push(amount);
        if amount == 60 {
            break;
        }
    }
    got
}

#[tokio::test]
async fn a_selective_receive_keeps_the_rest_in_order() {
    let node = Host::new().node().await;
    let mut running = node.launch(choosy);
    for amount in 1..=60 {
        running.address().tell(Add { amount }).await.expect("there");
    }
    let expected: Vec<u64> =
        [50, 20].into_iter().chain((1..=60).filter(|n| ![20, 50].contains(n))).collect();
    assert_eq!(soon(running.join()).await, Ok(expected));
    node.close().await;
}

#[tokio::test]
async fn what_is_passed_over_is_bounded_and_senders_wait() {
    let node = Host::new().node().await;
    let never = |mut inbox: Inbox<Add>| async move {
        let nothing = inbox.recv_where(|_| false).await;
        assert!(nothing.is_none(), "it is asked to stop");
    };
    let address = node.spawn(never);
    let mut sent = 0;
    let waits = loop {
        let told = address.tell(Add { amount: 1 });
        match tokio::time::timeout(Duration::from_millis(300), told).await {
            Ok(told) => told.expect("there"),
            Err(_) => break sent,
        }
        sent += 1;
    };
    assert!((MAILBOX..=3 * MAILBOX).contains(&waits), "{waits}");
    address.stop();
    soon(node.watch(&address)).await;
    until("each tell is a dead letter", || node.dead_letters() == waits as u64).await;
    node.close().await;
}

#[tokio::test]
async fn a_receive_waits_no_longer_than_it_may_and_loses_nothing() {
    let node = Host::new().node().await;
    let ((told, hears), (last, ends)) = (oneshot::channel(), oneshot::channel());
    let waiting = |mut inbox: Inbox<Add>| async move {
        let short = Duration::from_millis(20);
        assert_eq!(inbox.recv_within(short).await.err(), Some(NoMail::TimedOut));
        let _ = told.send(());
        let ten = inbox.recv_where_within(Duration::MAX, |(add, _)| add.amount == 10).await;
        assert!(ten.is_ok());
        let eleven = inbox.recv_where_within(short, |(add, _)| add.amount == 11).await;
        assert_eq!(eleven.err(), Some(NoMail::TimedOut));
        let (first, _) = inbox.recv_within(Duration::from_secs(9)).await.expect("kept");
        assert_eq!(first.amount, 1);
        let _ = last.send(());
        assert_eq!(inbox.recv_within(Duration::MAX).await.err(), Some(NoMail::Stopped));
        assert_eq!(inbox.recv_within(short).await.err(), Some(NoMail::Stopped));
    };
    let mut running = node.launch(waiting);
    soon(hears).await.expect("no panic");
    for amount in [1, 10] {
        running.address().tell(Add { amount }).await.expect("there");
    }
    soon(ends).await.expect("no panic");
    running.stop();
    assert_eq!(soon(running.join()).await, Ok(()));
    node.close().await;
}

#[tokio::test]
async fn stop_overtakes_a_full_mailbox_and_all_that_waits_has_an_end() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let (open, gate) = oneshot::channel::<()>();
    let (came, comes) = oneshot::channel::<()>();
    let slow = |mut inbox: Inbox<Request>| async move {
        // One is begun, some are passed over, the others are not even looked at.
        let begun = inbox.recv().await;
        let finish = inbox.recv_where(|r| matches!(r, Request::Finish(..))).await;
        assert!(begun.is_some() && finish.is_some());
        let _ = came.send(());
        let _ = gate.await;
        let more = inbox.recv().await;
        assert!(more.is_none(), "stop comes before mail");
    };
    let address = there.spawn(slow);
    let far: Address<Request> = here.bind(address.id());
    address.tell(Add { amount: 0 }).await.expect("begun");
    for _ in 0..10 {
        address.tell(Add { amount: 1 }).await.expect("passed over");
        address.cast::<Other>().tell(Other { number: 1 }).await.expect("passed over");
    }
    let ask = |address: Address<Request>| tokio::spawn(async move { address.ask(Total {}).await });
    let asks = [ask(address.clone()), ask(far.clone())];
    let other = tokio::spawn({
        let address = address.cast::<Other>();
        async move { address.ask(Other { number: 1 }).await }
    });
    arrived(&here, &far.id()).await;
    address.tell(Finish {}).await.expect("begun");
    soon(comes).await.expect("no panic");
    for _ in 0..10 {
        address.tell(Add { amount: 1 }).await.expect("waits in the mailbox");
    }
    address.stop();
    let _ = open.send(());
    for asked in asks {
        let error = soon(asked).await.expect("no panic").expect_err("it was not begun");
        assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    }
    let error = soon(other).await.expect("no panic").expect_err("it was not begun");
    assert!(matches!(error, AskError::Stopped { .. }), "{error}");
    until("all tells that were not begun", || there.dead_letters() >= 30).await;
    assert_eq!(there.dead_letters(), 30);
    assert_eq!(soon(there.watch(&address)).await, Exit::Finished, "it returned");
    here.close().await;
    there.close().await;
}

/// An actor that always has mail, for it writes to itself.
async fn restless(mut inbox: Inbox<Add>) {
    let own = inbox.address().clone();
    while let Some((Add { amount }, _)) = inbox.recv().await {
        own.tell(Add { amount: amount + 1 }).await.expect("it lives");
    }
}

#[tokio::test]
async fn an_actor_that_never_runs_dry_lets_others_run() {
    let node = Host::new().node().await;
    let address = node.spawn(restless);
    address.tell(Add { amount: 0 }).await.expect("there");
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // The one thread of the test may be taken: somebody else looks.
    std::thread::spawn(move || {
        if is_done.recv_timeout(common::SOON).is_err() {
            eprintln!("the runtime is taken by one actor");
            std::process::abort();
        }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let _ = done.send(());
    address.stop();
    soon(node.watch(&address)).await;
    node.close().await;
}

#[tokio::test]
async fn a_function_that_panics_has_ended_so() {
    let node = Host::new().node().await;
    let mut running = node.launch(|mut inbox: Inbox<Add>| async move {
        let begun = inbox.recv().await;
        assert!(begun.is_none(), "it cannot count");
    });
    let watch = node.watch(running.address());
    let asked = soon(running.address().ask(Add { amount: 1 })).await;
    assert_eq!(asked, Err(AskError::Panicked));
    let exit = Exit::Panicked("it cannot count".to_owned());
    assert_eq!(soon(running.join()).await, Err(exit.clone()));
    assert_eq!(soon(watch).await, exit);
    node.close().await;
}
