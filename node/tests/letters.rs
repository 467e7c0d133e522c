//! Messages that nobody knows, and messages that nobody handles: none is silently lost.

extern crate layercake_node as layercake;

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use common::{Host, soon, until};
use layercake::{Address, AskError, Context, MAILBOX, Reply, TellError, Unknown, Why};
use layercake_macros::{actor, message};
use tokio::sync::Semaphore;

#[message(reply = u64)]
struct Add {
    amount: u64,
}

#[message(reply = Address<Counter>)]
struct Who {}

#[message(reply = ())]
struct Wait {}

#[message(reply = u64)]
struct Unheard {}

struct Counter {
    handled: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
}

#[actor(no_entry)]
impl Counter {
    async fn add(&mut self, Add { amount }: Add) -> u64 {
        self.handled.fetch_add(1, Ordering::SeqCst);
        amount
    }

    async fn who(&mut self, _: Who, ctx: &mut Context<Self>) -> Address<Self> {
        ctx.address().clone()
    }

    async fn wait(&mut self, _: Wait) {
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }
}

fn counter() -> (Counter, Arc<AtomicU64>, Arc<Semaphore>) {
    let (handled, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    (Counter { handled: handled.clone(), gate: gate.clone() }, handled, gate)
}

/// Knows `Wait` alone and hands on all else.
struct Broker {
    to: Address<Counter>,
    seen: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
}

#[actor(no_entry)]
impl Broker {
    async fn wait(&mut self, _: Wait) {
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }

    async fn unknown(&mut self, message: Unknown) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        message.forward(&self.to).await;
    }
}

/// Hands a told message on from a task that works for no node.
struct Deputy {
    to: Address<Counter>,
}

#[actor(no_entry)]
impl Deputy {
    async fn add(&mut self, add: Add, reply: Reply<u64>) {
        let to = self.to.clone();
        tokio::spawn(async move { reply.forward(&to, add).await });
    }
}

#[tokio::test]
async fn what_a_broker_does_not_know_comes_to_whom_it_is_handed_on() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    for target in [&here, &there] {
        let (counter, handled, gate) = counter();
        let counter = target.spawn(counter);
        let seen = Arc::new(AtomicU64::new(0));
        let broker = Broker { to: counter.clone(), seen: seen.clone(), gate };
        let broker = there.spawn(broker);
        let far: Address<Broker> = here.bind(broker.id());
        for address in [&broker, &far] {
            let address = address.cast::<Counter>();
            assert_eq!(soon(address.ask(Add { amount: 3 })).await, Ok(3));
            assert_eq!(soon(address.ask(Who {})).await, Ok(counter.clone()));
            let who = soon(address.ask(Who {})).await.expect("answers");
            assert_eq!(soon(who.ask(Add { amount: 1 })).await, Ok(1), "a usable address");
            let before = handled.load(Ordering::SeqCst);
            address.tell(Add { amount: 1 }).await.expect("taken");
            address.try_tell(Add { amount: 1 }).expect("taken");
            until("both are handled", || handled.load(Ordering::SeqCst) == before + 2).await;
            // The same, handed on by somebody who knows the message to one who does not.
            let deputy = there.spawn(Deputy { to: address.clone() });
            assert_eq!(soon(deputy.ask(Add { amount: 5 })).await, Ok(5));
            deputy.tell(Add { amount: 1 }).await.expect("taken");
            until("both are handled", || handled.load(Ordering::SeqCst) == before + 4).await;
            let error = soon(address.cast::<Unheard>().ask(Unheard {})).await;
            let error = error.expect_err("nobody knows it");
            assert!(matches!(error, AskError::NotHandled { .. }), "{error}");
        }
        assert_eq!(seen.load(Ordering::SeqCst), 16);
        counter.stop();
        soon(target.watch(&counter)).await;
        let error = soon(far.cast::<Counter>().ask(Add { amount: 1 })).await;
        assert!(matches!(error, Err(AskError::Stopped { .. })), "{error:?}");
    }
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn unknown_messages_take_room_like_all_others() {
    let node = Host::new().node().await;
    let (counter, handled, _) = counter();
    let gate = Arc::new(Semaphore::new(0));
    let broker = Broker { to: node.spawn(counter), seen: Arc::default(), gate: gate.clone() };
    let broker = node.spawn(broker);
    broker.tell(Wait {}).await.expect("there");
    let unknown = broker.cast::<Counter>();
    let mut sent = 0;
    let full = loop {
        tokio::task::yield_now().await;
        match unknown.try_tell(Add { amount: 1 }) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent <= 2 * MAILBOX as u64, "there is no end of it");
    };
    assert!(matches!(full, TellError::Full { .. }), "{full}");
    gate.add_permits(1);
    until("all are handed on", || handled.load(Ordering::SeqCst) == sent).await;
    assert_eq!(node.dead_letters(), 0);
    node.close().await;
}

#[tokio::test]
async fn messages_without_a_handler_cost_a_full_mailbox_no_room() {
    let node = Host::new().node().await;
    let (counter, handled, gate) = counter();
    let counter = node.spawn(counter);
    for _ in 0..3 {
        counter.tell(Wait {}).await.expect("there");
        while counter.try_tell(Add { amount: 1 }).is_ok() {
            tokio::task::yield_now().await;
        }
        let begun = Arc::new(AtomicU64::new(0));
        let unheard: Vec<_> = (0..MAILBOX)
            .map(|_| {
                let (counter, begun) = (counter.cast::<Unheard>(), begun.clone());
                tokio::spawn(async move {
                    // On the one thread of this test: who has begun waits in line by the next look.
                    begun.fetch_add(1, Ordering::SeqCst);
                    counter.tell(Unheard {}).await.is_err()
                })
            })
            .collect();
        until("all wait", || begun.load(Ordering::SeqCst) == MAILBOX as u64).await;
        gate.add_permits(1);
        for told in unheard {
            assert!(soon(told).await.expect("no panic"), "it comes back");
        }
        until("all are handled", || handled.load(Ordering::SeqCst) >= MAILBOX as u64).await;
        handled.store(0, Ordering::SeqCst);
        assert!(soon(counter.ask(Add { amount: 1 })).await.is_ok(), "there is room again");
        handled.store(0, Ordering::SeqCst);
    }
    node.close().await;
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_its_reason() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    let mut letters = there.watch_dead_letters();
    let (counter, ..) = counter();
    let counter = there.spawn(counter);
    let far: Address<Counter> = here.bind(counter.id());
    far.cast::<Unheard>().tell(Unheard {}).await.expect("sent");
    let letter = soon(letters.next()).await.expect("the node lives");
    assert_eq!((letter.name, &letter.why, letter.count), (Some("Unheard"), &Why::NotHandled, 1));
    let deputy = there.spawn(Deputy { to: counter.clone() });
    counter.stop();
    soon(there.watch(&counter)).await;
    far.tell(Add { amount: 1 }).await.expect("sent");
    let letter = soon(letters.next()).await.expect("the node lives");
    assert_eq!((letter.name, &letter.why, letter.count), (Some("Add"), &Why::Stopped, 2));
    deputy.tell(Add { amount: 1 }).await.expect("there");
    let letter = soon(letters.next()).await.expect("the node lives");
    assert_eq!((letter.name, &letter.why, letter.count), (Some("Add"), &Why::Stopped, 3));
    here.close().await;
    there.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_handled_or_returned_or_a_dead_letter() {
    let host = Host::new();
    let (here, there) = (host.node().await, host.node().await);
    for near in [true, false] {
        let (counter, handled, _) = counter();
        let counter = there.spawn(counter);
        let address = if near { counter.clone() } else { here.bind(counter.id()) };
        let before = there.dead_letters();
        let each = 2_000_u64;
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let address = address.clone();
                tokio::spawn(async move {
                    let mut returned = 0;
                    for amount in 0..each {
                        returned += u64::from(address.tell(Add { amount }).await.is_err());
                    }
                    returned
                })
            })
            .collect();
        until("some are handled", || handled.load(Ordering::SeqCst) > 1_000).await;
        counter.stop();
        let mut returned = 0;
        for sender in senders {
            returned += soon(sender).await.expect("no panic");
        }
        let ended = || handled.load(Ordering::SeqCst) + returned + there.dead_letters() - before;
        until("they add up", || ended() >= 8 * each).await;
        assert_eq!(ended(), 8 * each, "near: {near}");
        assert_ne!(handled.load(Ordering::SeqCst), 8 * each, "it was stopped in the middle");
    }
    here.close().await;
    there.close().await;
}
