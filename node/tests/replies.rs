//! Replies that come later, from elsewhere, in parts, or are not wanted any more.

extern crate layercake_node as layercake;

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Host, at_rest, soon, until};
use layercake::{Address, AskError, Context, Outlet, Reply, STREAM};
use layercake_macros::{actor, message};
use tokio::sync::Semaphore;

#[message(reply = u64)]
struct Double {
    number: u64,
}

/// Answered by a task.
#[message(reply = u64)]
struct Later {
    number: u64,
}

#[message(reply = u64)]
struct Forward {
    number: u64,
    to: Address<Server>,
}

#[message(reply = ())]
struct Long {}

#[message(reply = ())]
struct Ping {}

/// Asked of another, while the actor goes on.
#[message(reply = u64)]
struct Through {
    number: u64,
    to: Address<Server>,
}

#[message(reply = u64)]
struct Piped {
    number: u64,
}

/// Says how many milliseconds are left for it.
#[message(reply = u64)]
struct Left {
    hops: Vec<Address<Server>>,
}

/// Asks one that never answers, and says how that ended.
#[message(reply = ())]
struct AskLong {
    to: Address<Server>,
}

#[message(stream = u64)]
struct Count {
    to: u64,
    fall_at: Option<u64>,
}

struct Server {
    begun: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
    piped: u64,
    gate: Arc<Semaphore>,
}

impl Default for Server {
    fn default() -> Self {
        let [begun, dropped, sent, gone] = std::array::from_fn(|_| Arc::default());
        Self { begun, dropped, sent, gone, piped: 0, gate: Arc::new(Semaphore::new(0)) }
    }
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[actor(no_entry)]
impl Server {
    async fn double(&mut self, Double { number }: Double) -> u64 {
        2 * number
    }

    async fn later(&mut self, Later { number }: Later, reply: Reply<u64>) {
        let gate = self.gate.clone();
        tokio::spawn(async move {
            let _open = gate.acquire().await;
            reply.send(2 * number);
        });
    }

    async fn forward(&mut self, Forward { number, to }: Forward, reply: Reply<u64>) {
        reply.forward(&to, Later { number }).await;
    }

    #[cancel]
    async fn long(&mut self, _: Long) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _dropped = OnDrop(self.dropped.clone());
        std::future::pending::<()>().await;
    }

    async fn ping(&mut self, _: Ping) {}

    async fn through(&mut self, m: Through, ctx: &mut Context<Self>, reply: Reply<u64>) {
        let Through { number, to } = m;
        ctx.then(async move { to.ask(Later { number }).await }, move |actor, answer, _| {
            actor.sent.fetch_add(1, Ordering::SeqCst);
            match answer {
                Ok(answer) => reply.send(answer),
                Err(error) => reply.fail(&error.to_string()),
            }
        });
    }

    async fn piped(&mut self, Piped { number }: Piped, ctx: &mut Context<Self>) -> u64 {
        if number > 0 {
            self.piped += number;
            ctx.pipe(async move { Piped { number: number - 1 } });
        }
        self.piped
    }

    async fn left(&mut self, Left { mut hops }: Left, ctx: &mut Context<Self>) -> u64 {
        match hops.pop() {
            Some(next) => next.ask(Left { hops }).await.unwrap_or(u64::MAX),
            None => ctx.deadline().map_or(u64::MAX, |at| {
                at.saturating_duration_since(Instant::now()).as_millis() as u64
            }),
        }
    }

    async fn ask_long(&mut self, AskLong { to }: AskLong) {
        assert_eq!(to.ask(Long {}).await, Err(AskError::Deadline));
        self.gone.fetch_add(1, Ordering::SeqCst);
    }

    async fn count(&mut self, Count { to, fall_at }: Count, out: &mut Outlet<u64>) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        for number in 0..to {
            assert!(fall_at != Some(number), "it falls");
            if out.send(number).await.is_err() {
                self.gone.fetch_add(1, Ordering::SeqCst);
                return;
            }
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Stage {
    here: layercake::Node,
    there: layercake::Node,
}

impl Stage {
    async fn new() -> Self {
        let host = Host::new();
        Self { here: host.node().await, there: host.node().await }
    }

    /// A server's address as its own node sees it, or the other one.
    fn address(&self, server: Server, near: bool) -> Address<Server> {
        let address = self.there.spawn(server);
        if near { address } else { self.here.bind(address.id()) }
    }

    async fn close(self) {
        self.here.close().await;
        self.there.close().await;
    }
}

#[tokio::test]
async fn an_answer_comes_later_and_the_actor_is_free_meanwhile() {
    let stage = Stage::new().await;
    for near in [true, false] {
        let server = Server::default();
        let gate = server.gate.clone();
        let address = stage.address(server, near);
        let asks: Vec<_> = (0..10)
            .map(|number| {
                let address = address.clone();
                tokio::spawn(async move { address.ask(Later { number }).await })
            })
            .collect();
        assert_eq!(soon(address.ask(Double { number: 4 })).await, Ok(8));
        gate.add_permits(1);
        for (number, asked) in asks.into_iter().enumerate() {
            assert_eq!(soon(asked).await.expect("no panic"), Ok(2 * number as u64));
        }
    }
    stage.close().await;
}

#[tokio::test]
async fn a_question_is_forwarded_and_the_asker_gets_the_answer() {
    let stage = Stage::new().await;
    for first in [true, false] {
        for second in [&stage.here, &stage.there] {
            let (last, gate) = (Server::default(), Arc::new(Semaphore::new(1)));
            let last = second.spawn(Server { gate, ..last });
            let address = stage.address(Server::default(), first);
            let to = last.clone();
            assert_eq!(soon(address.ask(Forward { number: 21, to })).await, Ok(42));
            last.stop();
            soon(second.watch(&last)).await;
            let error = soon(address.ask(Forward { number: 21, to: last })).await;
            let error = error.expect_err("it has stopped");
            assert!(matches!(error, AskError::Stopped { .. }), "{error}");
        }
    }
    stage.close().await;
}

#[tokio::test]
async fn a_handler_marked_cancel_is_dropped_when_nobody_waits() {
    let stage = Stage::new().await;
    for near in [true, false] {
        let server = Server::default();
        let (begun, dropped) = (server.begun.clone(), server.dropped.clone());
        let address = stage.address(server, near);
        let asking = tokio::spawn({
            let address = address.clone();
            async move { address.ask(Long {}).await }
        });
        until("it has begun", || begun.load(Ordering::SeqCst) == 1).await;
        asking.abort();
        until("the asker has gone", || dropped.load(Ordering::SeqCst) == 1).await;
        let asked = address.ask_within(Long {}, Duration::from_millis(50));
        assert_eq!(soon(asked).await, Err(AskError::Deadline));
        until("its time is over", || dropped.load(Ordering::SeqCst) == 2).await;
        assert_eq!(soon(address.ask(Ping {})).await, Ok(()));
    }
    stage.close().await;
}

#[tokio::test]
async fn a_thousand_asks_in_flight_do_not_keep_an_actor_from_its_mail() {
    let stage = Stage::new().await;
    for near in [true, false] {
        let (slow, busy) = (Server::default(), Server::default());
        let (gate, done) = (slow.gate.clone(), busy.sent.clone());
        let to = stage.address(slow, near);
        let busy = stage.there.spawn(busy);
        let asks: Vec<_> = (0..1000)
            .map(|number| {
                let (busy, to) = (busy.clone(), to.clone());
                tokio::spawn(async move { busy.ask(Through { number, to }).await })
            })
            .collect();
        for number in 0..20 {
            assert_eq!(soon(busy.ask(Double { number })).await, Ok(2 * number));
        }
        assert_eq!(done.load(Ordering::SeqCst), 0);
        gate.add_permits(1);
        for (number, asked) in asks.into_iter().enumerate() {
            assert_eq!(soon(asked).await.expect("no panic"), Ok(2 * number as u64));
        }
    }
    let server = stage.there.spawn(Server::default());
    soon(server.ask(Piped { number: 4 })).await.expect("answers");
    let start = Instant::now();
    while soon(server.ask(Piped { number: 0 })).await != Ok(10) {
        assert!(start.elapsed() < common::SOON, "each is handled in its turn");
    }
    stage.close().await;
}

#[tokio::test]
async fn what_a_handler_asks_ends_with_what_it_was_asked() {
    let stage = Stage::new().await;
    for near in [true, false] {
        let chain: Vec<_> =
            (0..4).map(|hop| stage.address(Server::default(), near || hop % 2 == 0)).collect();
        let (first, hops) = (chain[0].clone(), chain[1..].to_vec());
        let left = soon(first.ask_within(Left { hops }, Duration::from_secs(3))).await;
        assert!(left.as_ref().is_ok_and(|left| (1..=3_000).contains(left)), "{left:?}");
        let left = soon(first.ask(Left { hops: Vec::new() })).await;
        assert!(left.is_ok_and(|left| left > 3_000), "another ask has a time of its own");

        let (asker, long) = (Server::default(), Server::default());
        let (gone, dropped) = (asker.gone.clone(), long.dropped.clone());
        let (asker, to) = (stage.address(asker, near), stage.address(long, true));
        let start = Instant::now();
        let asked = soon(asker.ask_within(AskLong { to }, Duration::from_millis(100))).await;
        // Both end at the same time: either may be heard of first.
        assert!(matches!(asked, Ok(()) | Err(AskError::Deadline)), "{asked:?}");
        until("its own ask has ended", || gone.load(Ordering::SeqCst) == 1).await;
        until("and so has the other handler", || dropped.load(Ordering::SeqCst) == 1).await;
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    stage.close().await;
}

fn count(to: u64) -> Count {
    Count { to, fall_at: None }
}

#[tokio::test]
async fn parts_come_in_order_and_a_slow_taker_holds_the_handler_back() {
    let stage = Stage::new().await;
    for near in [true, false] {
        let server = Server::default();
        let sent = server.sent.clone();
        let address = stage.address(server, near);
        let all = soon(address.stream(count(500))).await.expect("sent");
        assert_eq!(soon(all.collect()).await, Ok((0..500).collect::<Vec<_>>()));
        sent.store(0, Ordering::SeqCst);
        let mut parts = soon(address.stream(count(100_000))).await.expect("sent");
        for expected in 0..10 {
            assert_eq!(soon(parts.next()).await, Some(Ok(expected)));
        }
        let now = at_rest("the producer waits", || sent.load(Ordering::SeqCst)).await;
        assert!(now < 10_000, "{now} were sent");
        assert!(!near || now <= STREAM + 11, "{now} were sent");
        for expected in 10..5_000 {
            assert_eq!(soon(parts.next()).await, Some(Ok(expected)));
        }
    }
    stage.close().await;
}

#[tokio::test]
async fn a_taker_that_goes_away_or_is_late_ends_the_handler() {
    let stage = Stage::new().await;
    for near in [true, false] {
        let server = Server::default();
        let gone = server.gone.clone();
        let address = stage.address(server, near);
        let mut parts = soon(address.stream(count(u64::MAX))).await.expect("sent");
        assert_eq!(soon(parts.next()).await, Some(Ok(0)));
        drop(parts);
        until("the handler hears of it", || gone.load(Ordering::SeqCst) == 1).await;
        assert_eq!(soon(address.ask(Ping {})).await, Ok(()));
        // Held, and not taken from: the time ends it.
        let deadline = Instant::now() + Duration::from_millis(200);
        let mut parts = soon(address.stream_by(count(u64::MAX), deadline)).await.expect("sent");
        until("its time is over", || gone.load(Ordering::SeqCst) == 2).await;
        let end = async {
            loop {
                match parts.next().await {
                    Some(Ok(_)) => {}
                    other => break other,
                }
            }
        };
        assert_eq!(soon(end).await, Some(Err(AskError::Deadline)), "near: {near}");
        assert_eq!(soon(parts.next()).await, None);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_stream_whose_time_is_over_is_not_begun() {
    let stage = Stage::new().await;
    let server = Server::default();
    let begun = server.begun.clone();
    let address = stage.address(server, true);
    let long = tokio::spawn({
        let address = address.clone();
        async move { address.ask_within(Long {}, Duration::from_millis(200)).await }
    });
    until("it is busy", || begun.load(Ordering::SeqCst) == 1).await;
    let deadline = Instant::now() + Duration::from_millis(50);
    let parts = soon(address.stream_by(count(5), deadline)).await.expect("sent");
    assert_eq!(soon(long).await.expect("no panic"), Err(AskError::Deadline));
    assert_eq!(soon(address.ask(Ping {})).await, Ok(()));
    assert_eq!(begun.load(Ordering::SeqCst), 1, "the stream was not");
    drop(parts);
    stage.close().await;
}

#[tokio::test]
async fn a_panic_between_two_parts_is_told_after_those_that_were_sent() {
    let stage = Stage::new().await;
    for near in [true, false] {
        for fall_at in [0, 5, 150] {
            let address = stage.address(Server::default(), near);
            let ask = Count { to: 500, fall_at: Some(fall_at) };
            let mut parts = soon(address.stream(ask)).await.expect("sent");
            for expected in 0..fall_at {
                assert_eq!(soon(parts.next()).await, Some(Ok(expected)));
            }
            assert_eq!(soon(parts.next()).await, Some(Err(AskError::Panicked)), "near: {near}");
            assert_eq!(soon(parts.next()).await, None);
        }
    }
    stage.close().await;
}
