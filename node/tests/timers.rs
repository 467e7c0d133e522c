//! Timers: one after a while, one each while, by name, and before all mail.

extern crate layercake_node as layercake;

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Host, soon, until};
use layercake::{Address, Context, MAILBOX};
use layercake_macros::{actor, message};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

#[message(reply = ())]
#[derive(Clone)]
struct Note {
    text: String,
}

#[message]
struct After {
    millis: u64,
    text: String,
}

#[message]
struct Set {
    name: String,
    millis: u64,
    every: bool,
}

#[message(reply = bool)]
struct Cancel {
    name: String,
}

#[message]
struct Wait {}

#[derive(Default)]
struct Clock {
    notes: Arc<Mutex<Vec<(String, Duration)>>>,
    gate: Option<Arc<Semaphore>>,
    start: Option<Instant>,
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

#[actor(no_entry)]
impl Clock {
    async fn started(&mut self, _ctx: &mut Context<Self>) {
        self.start = Some(Instant::now());
    }

    async fn note(&mut self, Note { text }: Note) {
        let at = self.start.map_or(Duration::ZERO, |start| start.elapsed());
        self.notes.lock().push((text, at));
    }

    async fn after(&mut self, After { millis, text }: After, ctx: &mut Context<Self>) {
        ctx.after(Duration::from_millis(millis), note(&text));
    }

    async fn set(&mut self, Set { name, millis, every }: Set, ctx: &mut Context<Self>) {
        let (time, note) = (Duration::from_millis(millis), note(&name));
        let timer = ctx.timer(name);
        if every {
            timer.every(time, note);
        } else {
            timer.after(time, note);
        }
    }

    async fn cancel(&mut self, Cancel { name }: Cancel, ctx: &mut Context<Self>) -> bool {
        ctx.timer(name).cancel()
    }

    async fn wait(&mut self, _: Wait) {
        if let Some(gate) = &self.gate {
            gate.acquire().await.expect("the gate stays").forget();
        }
    }
}

type Notes = Arc<Mutex<Vec<(String, Duration)>>>;

async fn clock(host: &Host) -> (layercake::Node, Address<Clock>, Notes, Arc<Semaphore>) {
    let (node, gate) = (host.node().await, Arc::new(Semaphore::new(0)));
    let clock = Clock { gate: Some(gate.clone()), ..Clock::default() };
    let notes = clock.notes.clone();
    let address = node.spawn(clock);
    (node, address, notes, gate)
}

fn set(name: &str, millis: u64, every: bool) -> Set {
    Set { name: name.to_owned(), millis, every }
}

fn texts(notes: &Notes) -> Vec<String> {
    notes.lock().iter().map(|(text, _)| text.clone()).collect()
}

#[tokio::test]
async fn what_is_due_sooner_comes_sooner() {
    let (node, clock, notes, _) = clock(&Host::new()).await;
    for (millis, text) in [(150, "third"), (50, "first"), (100, "second")] {
        clock.tell(After { millis, text: text.to_owned() }).await.expect("there");
    }
    until("all are due", || notes.lock().len() == 3).await;
    assert_eq!(texts(&notes), ["first", "second", "third"]);
    let least = [50, 100, 150].map(Duration::from_millis);
    assert!(notes.lock().iter().zip(least).all(|((_, at), least)| *at >= least), "not before");
    node.close().await;
}

#[tokio::test]
async fn a_timer_that_repeats_goes_on_until_it_is_cancelled() {
    let (node, clock, notes, _) = clock(&Host::new()).await;
    let cancel = |name: &str| Cancel { name: name.to_owned() };
    clock.tell(set("tick", 10, true)).await.expect("there");
    until("five ticks", || notes.lock().len() >= 5).await;
    assert!(notes.lock()[4].1 >= Duration::from_millis(50), "each after one period");
    assert_eq!(soon(clock.ask(cancel("tick"))).await, Ok(true));
    let ticks = notes.lock().len();
    clock.tell(After { millis: 60, text: "later".to_owned() }).await.expect("there");
    until("a while", || notes.lock().len() > ticks).await;
    assert_eq!(texts(&notes).last().map(String::as_str), Some("later"), "no tick after that");
    assert_eq!(soon(clock.ask(cancel("tick"))).await, Ok(false), "it is cancelled already");
    assert_eq!(soon(clock.ask(cancel("tock"))).await, Ok(false), "there was none");
    node.close().await;
}

#[tokio::test]
async fn a_timer_of_the_same_name_replaces_the_first_one() {
    let (node, clock, notes, _) = clock(&Host::new()).await;
    clock.tell(set("once", 30, false)).await.expect("there");
    clock.tell(set("once", 80, false)).await.expect("there");
    clock.tell(set("other", 120, false)).await.expect("there");
    until("the other one", || texts(&notes).contains(&"other".to_owned())).await;
    assert_eq!(texts(&notes), ["once", "other"]);
    assert!(notes.lock()[0].1 >= Duration::from_millis(80), "at the later time");
    let ended = soon(clock.ask(Cancel { name: "once".to_owned() })).await;
    assert_eq!(ended, Ok(false), "it has come to its end");
    node.close().await;
}

#[tokio::test]
async fn a_time_without_end_is_no_fault() {
    let (node, clock, notes, _) = clock(&Host::new()).await;
    for every in [true, false] {
        clock.tell(set("never", u64::MAX, every)).await.expect("there");
    }
    let asked = clock.ask_within(note("still there"), Duration::MAX);
    assert_eq!(soon(asked).await, Ok(()));
    assert_eq!(texts(&notes), ["still there"]);
    node.close().await;
}

#[tokio::test]
async fn a_timer_and_stop_overtake_a_full_mailbox() {
    let (node, clock, notes, gate) = clock(&Host::new()).await;
    clock.ask(set("timer", 20, false)).await.expect("there");
    // One that nothing holds up, whose timer is due later.
    let later = Clock::default();
    let rung = later.notes.clone();
    node.spawn(later).ask(set("later", 25, false)).await.expect("there");
    clock.tell(Wait {}).await.expect("there");
    let filled = async { while clock.try_tell(note("mail")).is_ok() {} };
    filled.await;
    until("the timer is due", || !rung.lock().is_empty()).await;
    gate.add_permits(1);
    until("all is read", || notes.lock().len() > MAILBOX / 2).await;
    assert_eq!(texts(&notes)[0], "timer", "due while a message was handled, before any other");
    clock.tell(Wait {}).await.expect("there");
    while clock.try_tell(note("mail")).is_ok() {
        tokio::task::yield_now().await;
    }
    // Full: one waits in its handler, and the rest behind it.
    until("it has come to the gate", || clock.try_tell(note("mail")).is_err()).await;
    let before = notes.lock().len();
    clock.stop();
    gate.add_permits(1);
    soon(node.watch(&clock)).await;
    assert!(notes.lock().len() <= before + MAILBOX, "what waited was not handled");
    assert!(node.dead_letters() > 0);
    node.close().await;
}

#[tokio::test(start_paused = true)]
async fn with_a_paused_clock_an_hour_is_nothing() {
    let (node, clock, notes, _) = clock(&Host::new()).await;
    clock.ask(set("hour", 3_600_000, true)).await.expect("there");
    for hours in 1..=3 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        until("it has rung", || notes.lock().len() == hours).await;
    }
    assert_eq!(notes.lock().len(), 3);
    node.close().await;
}
