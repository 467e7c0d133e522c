//! Nodes of an in-memory network under a paused clock: the same links as anywhere, faults between
//! them, and no real time at all.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use layercake_wire::{
    AskFailure, DIAL_TIME, DialError, Endpoint, Failure, FailureCode, Inbound, InboundKind,
    LANE_UNITS, LINK_UNITS, Link, LinkDown, Receive, Service, StartError, clock,
    id::{HostId, NodeId},
    memory::Network,
    payload::{Encoding, Fingerprint, Payload, Tag},
};
use tokio::sync::mpsc;

/// By the clock of the test, which costs nothing to wait for.
const SOON: Duration = Duration::from_secs(60);

/// Echoes asks for actor 1, holds what is for actor 2, and reports everything else.
struct Echo {
    seen: mpsc::UnboundedSender<Seen>,
}

#[derive(Debug)]
enum Seen {
    Up,
    Down(LinkDown),
    Post(Bytes),
    Held(#[expect(dead_code, reason = "held")] Keep),
}

/// Keeps a message from being handled.
struct Keep(#[expect(dead_code, reason = "held")] InboundKind);

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message")
    }
}

impl Receive for Echo {
    fn on_up(&self, _: Link) {
        let _ = self.seen.send(Seen::Up);
    }
    fn on_down(&self, _: &Link, down: LinkDown) {
        let _ = self.seen.send(Seen::Down(down));
    }
    fn on_post(&self, _: &Link, _: Service, body: Bytes) {
        let _ = self.seen.send(Seen::Post(body));
    }
    fn on_datagram(&self, _: &Link, body: Bytes) {
        let _ = self.seen.send(Seen::Post(body));
    }
    fn on_message(&self, message: Inbound) {
        match (message.to, message.kind) {
            (1, InboundKind::Ask(responder)) => responder.reply(message.payload),
            (2, kind) => {
                let _ = self.seen.send(Seen::Held(Keep(kind)));
            }
            (_, InboundKind::Ask(responder)) => {
                responder.fail(Failure::new(FailureCode::Stopped, "no such actor"));
            }
            (_, InboundKind::Tell(_)) => {}
        }
    }
}

struct Peer {
    endpoint: Endpoint,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Peer {
    fn start(network: &Network, host: HostId) -> Self {
        let (tx, seen) = mpsc::unbounded_channel();
        let receive = Arc::new(Echo { seen: tx });
        let endpoint = Endpoint::start_in(network, host, NodeId::random(), receive);
        Self { endpoint: endpoint.expect("starts"), seen }
    }

    async fn link(&self, to: &Self) -> Result<Link, DialError> {
        self.endpoint.link(&to.endpoint.addr()).await
    }

    async fn next(&mut self) -> Seen {
        tokio::time::timeout(SOON, self.seen.recv()).await.expect("in time").expect("open")
    }

    async fn down(&mut self) -> LinkDown {
        loop {
            if let Seen::Down(down) = self.next().await {
                return down;
            }
        }
    }

    fn id(&self) -> NodeId {
        self.endpoint.peer().node
    }

    fn host(&self) -> HostId {
        self.endpoint.peer().host
    }
}

/// Two nodes of two hosts.
fn hosts() -> (Network, Peer, Peer) {
    let network = Network::new();
    let near = Peer::start(&network, HostId::random());
    let far = Peer::start(&network, HostId::random());
    (network, near, far)
}

fn payload(bytes: impl Into<Bytes>) -> Payload {
    Payload { tag: Tag::of("T"), encoding: Encoding::Json, bytes: bytes.into() }
}

async fn ask_within(
    link: &Link,
    bytes: impl Into<Bytes>,
    time: Duration,
) -> Result<Bytes, AskFailure> {
    let lane = link.lane(1);
    let answer = lane.ask(payload(bytes), Fingerprint::NONE, clock::now() + time, None).await;
    answer.map(|payload| payload.bytes)
}

async fn ask(link: &Link, bytes: impl Into<Bytes>) -> Result<Bytes, AskFailure> {
    ask_within(link, bytes, SOON).await
}

/// What a future gives, and how long that took by the clock of the test.
async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let start = clock::now();
    let result = future.await;
    (result, clock::now() - start)
}

async fn echoes() {
    let network = Network::new();
    let host = HostId::random();
    let (near, far) = (Peer::start(&network, host), Peer::start(&network, host));
    let away = Peer::start(&network, HostId::random());
    for other in [&far, &away] {
        let link = near.link(other).await.expect("links");
        assert_eq!(link.peer(), other.endpoint.peer());
        assert_eq!(link.is_local(), other.host() == host);
        for size in [0, 1, 5_000, (32 << 10) + 1, 3 << 20] {
            let sent = Bytes::from(vec![7_u8; size]);
            assert_eq!(ask(&link, sent.clone()).await.expect("answers"), sent, "{size} bytes");
        }
        let asks = (0..500_u32).map(|n| {
            let link = link.clone();
            async move { ask(&link, n.to_le_bytes().to_vec()).await.expect("answers") }
        });
        let replies = futures_util::future::join_all(asks).await;
        for (n, reply) in (0_u32..).zip(replies) {
            assert_eq!(reply, n.to_le_bytes().to_vec());
        }
    }
    near.endpoint.close().await;
    assert!(matches!(far.link(&near).await, Err(DialError::Gone(node)) if node == near.id()));
}

#[tokio::test(start_paused = true)]
async fn small_and_large_asks_come_back() {
    echoes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_do_so_on_many_threads_and_in_real_time() {
    echoes().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_on_a_stalled_link_passes_in_a_moment() {
    let real = Instant::now();
    let (network, near, far) = hosts();
    let link = near.link(&far).await.expect("links");
    network.stall(near.id(), far.id());
    let deadline = Duration::from_secs(30);
    let (answer, took) = timed(ask_within(&link, "lost?", deadline)).await;
    assert_eq!(answer, Err(AskFailure::Deadline));
    assert!(took >= deadline && took < deadline + Duration::from_millis(100), "{took:?}");
    assert!(real.elapsed() < Duration::from_secs(10), "{:?}", real.elapsed());
    assert!(!link.is_closed(), "nobody has noticed anything");
    network.heal(far.id(), near.id());
    assert_eq!(ask(&link, "back").await.expect("the same link goes on"), "back");
}

#[tokio::test(start_paused = true)]
async fn a_dial_into_a_stall_takes_its_time_and_leaves_nothing_behind() {
    let (network, near, far) = hosts();
    network.stall(near.host(), far.host());
    let (failed, took) = timed(near.link(&far)).await;
    assert!(matches!(failed, Err(DialError::Unreachable(_))), "{failed:?}");
    assert_eq!(took.as_secs(), DIAL_TIME.as_secs());
    // Healed in time, a dial that hangs goes through; by address as well.
    far.endpoint.listen_quic(None).await.expect("listens");
    let addr = far.endpoint.addr();
    let mut dial = pin!(near.endpoint.dial_any(&addr.hints, None));
    let early = tokio::time::timeout(DIAL_TIME / 2, &mut dial).await;
    assert!(early.is_err(), "it hangs");
    network.heal(near.host(), far.host());
    let link = dial.await.expect("links");
    assert_eq!(ask(&link, "there").await.expect("answers"), "there");
    assert_eq!(link.remote(), addr.hints.first().copied());
}

#[tokio::test(start_paused = true)]
async fn a_dial_by_address_that_fails_does_not_hold_up_the_next() {
    let (network, near, far) = hosts();
    let addr = far.endpoint.listen_quic(None).await.expect("listens");
    network.stall(near.id(), far.id());
    near.endpoint.dial_any(&addr.hints, None).await.expect_err("no answer");
    network.heal(near.id(), far.id());
    let link = tokio::time::timeout(SOON, near.link(&far)).await.expect("in time");
    assert_eq!(ask(&link.expect("links"), "there").await.expect("answers"), "there");
}

#[tokio::test(start_paused = true)]
async fn who_has_ended_is_gone_and_behind_a_stall_nobody_says_so() {
    let (network, near, far) = hosts();
    let addr = far.endpoint.addr();
    far.endpoint.close().await;
    let (gone, took) = timed(near.endpoint.link(&addr)).await;
    assert!(matches!(gone, Err(DialError::Gone(_))), "{gone:?}");
    assert_eq!(took, Duration::ZERO);
    network.stall(near.host(), addr.peer.host);
    let (silent, took) = timed(near.endpoint.link(&addr)).await;
    assert!(matches!(silent, Err(DialError::Unreachable(_))), "{silent:?}");
    assert!(took >= DIAL_TIME);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_links_at_once_and_heals_for_new_ones() {
    let (network, mut near, mut far) = hosts();
    let bystander = Peer::start(&network, near.host());
    let (link, other) = (near.link(&far).await.unwrap(), near.link(&bystander).await.unwrap());
    let lane = link.lane(2);
    let held = lane.ask(payload("held"), Fingerprint::NONE, clock::now() + SOON, None);
    let cut = async {
        while !matches!(far.next().await, Seen::Held(_)) {}
        network.cut(near.host(), far.host());
    };
    let ((lost, took), ()) = tokio::join!(timed(held), cut);
    assert!(matches!(lost, Err(AskFailure::Lost(_) | AskFailure::Failed(_))), "{lost:?}");
    assert_eq!(took, Duration::ZERO);
    for peer in [&mut near, &mut far] {
        let down = peer.down().await;
        assert!(matches!(&down, LinkDown::Lost(why) if why.contains("cut")), "{down:?}");
    }
    let (failed, took) = timed(near.link(&far)).await;
    assert!(matches!(failed, Err(DialError::Unreachable(_))), "{failed:?}");
    assert_eq!(took, Duration::ZERO);
    assert_eq!(ask(&other, "not us").await.expect("others go on"), "not us");
    network.heal(near.host(), far.host());
    let link = near.link(&far).await.expect("links");
    assert_eq!(ask(&link, "new").await.expect("answers"), "new");
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_in_each_direction_and_keeps_the_order() {
    let (network, near, mut far) = hosts();
    let link = near.link(&far).await.expect("links");
    let delay = Duration::from_millis(250);
    network.delay(near.id(), far.id(), delay);
    let (answer, took) = timed(ask(&link, "slow")).await;
    assert_eq!(answer.expect("answers"), "slow");
    assert!(took >= 2 * delay && took < 2 * delay + Duration::from_millis(20), "{took:?}");
    for n in 0..100_u8 {
        link.post(Service::Peer, Bytes::from(vec![n])).expect("open");
        if n == 50 {
            network.delay(near.id(), far.id(), delay / 5);
        }
    }
    assert!(matches!(far.next().await, Seen::Up));
    for n in 0..100_u8 {
        let Seen::Post(body) = far.next().await else { panic!("a post arrives") };
        assert_eq!(body[0], n, "in order");
    }
    network.delay(near.id(), far.id(), Duration::ZERO);
    let (_, took) = timed(ask(&link, "fast")).await;
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_gone_without_a_goodbye() {
    let (network, mut near, far) = hosts();
    let link = near.link(&far).await.expect("links");
    let addr = far.endpoint.addr();
    let task = far.endpoint.spawn_io(std::future::pending::<()>());
    network.kill(far.id());
    let down = near.down().await;
    assert!(matches!(down, LinkDown::Lost(_)), "{down:?}");
    assert!(matches!(ask(&link, "x").await, Err(AskFailure::Unbegun(_))));
    assert!(matches!(near.endpoint.link(&addr).await, Err(DialError::Gone(_))));
    let own = far.link(&near).await;
    assert!(matches!(own, Err(DialError::Closed)), "{own:?}");
    assert!(far.endpoint.links().is_empty() && task.await.is_err());
    assert_eq!(network.nodes(), [near.endpoint.peer()]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_host_takes_all_its_nodes_along() {
    let (network, near, far) = hosts();
    let beside = Peer::start(&network, far.host());
    network.kill(far.host());
    for dead in [&far, &beside] {
        assert!(matches!(near.link(dead).await, Err(DialError::Gone(_))));
    }
    assert_eq!(network.nodes(), [near.endpoint.peer()]);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_dropped_is_the_end_of_its_links() {
    let (network, mut near, far) = hosts();
    let link = near.link(&far).await.expect("links");
    let addr = far.endpoint.addr();
    drop(far);
    assert_eq!(network.nodes(), [near.endpoint.peer()]);
    let down = near.down().await;
    assert!(matches!(down, LinkDown::Closed(_)), "{down:?}");
    assert!(link.is_closed());
    assert!(matches!(near.endpoint.link(&addr).await, Err(DialError::Gone(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_link_holds_so_much_and_then_its_senders_wait() {
    let (network, near, mut far) = hosts();
    let link = near.link(&far).await.expect("links");
    assert!(matches!(far.next().await, Seen::Up));
    network.stall(near.id(), far.id());
    // Nothing is read: the pipe fills, then the link's budget, whoever the messages are for.
    let megabyte = Bytes::from(vec![1; 1 << 20]);
    let mut sent = 0;
    for actor in 2.. {
        let lane = link.lane(actor);
        let time = Duration::from_secs(10);
        let tell = lane.tell(payload(megabyte.clone()));
        match tokio::time::timeout(time, tell).await {
            Ok(told) => told.expect("open"),
            Err(_) => break,
        }
        sent += 1;
        assert!(sent <= LINK_UNITS, "it never ends");
    }
    assert!(sent >= 8, "{sent} messages found room");
    network.heal(near.id(), far.id());
    assert_eq!(ask(&link, "flows").await.expect("answers"), "flows");
}

#[tokio::test(start_paused = true)]
async fn a_slow_actor_slows_who_sends_to_it_and_nobody_else() {
    let (_network, near, mut far) = hosts();
    let link = near.link(&far).await.expect("links");
    let lane = link.lane(2);
    for _ in 0..LANE_UNITS {
        lane.try_tell(payload("x")).expect("within the lane's units");
    }
    lane.try_tell(payload("x")).expect_err("one too many");
    assert_eq!(ask(&link, "others").await.expect("answers"), "others");
    assert!(matches!(far.next().await, Seen::Up));
    let more = lane.tell(payload("waits"));
    tokio::time::timeout(SOON, more).await.expect_err("it waits");
    drop(far.next().await);
    tokio::time::timeout(SOON, lane.tell(payload("goes"))).await.expect("room").expect("open");
}

#[tokio::test(start_paused = true)]
async fn two_dials_that_cross_end_in_one_link() {
    for delay in [0, 1, 100] {
        let (network, near, far) = hosts();
        network.delay(near.id(), far.id(), Duration::from_millis(delay));
        let (one, two) = tokio::join!(near.link(&far), far.link(&near));
        let (one, two) = (one.expect("links"), two.expect("links"));
        assert_eq!(one.nonce(), two.nonce(), "both ends hold the same connection");
        ask(&one, "a").await.expect("answers");
        ask(&two, "b").await.expect("answers");
        assert_eq!((near.endpoint.links().len(), far.endpoint.links().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_before_a_goodbye_arrives() {
    let (_network, near, mut far) = hosts();
    let link = near.link(&far).await.expect("links");
    assert!(matches!(far.next().await, Seen::Up));
    for n in 0..200_u8 {
        let size = if n % 50 == 0 { 200_000 } else { 5_000 };
        link.post(Service::Directory, Bytes::from(vec![n; size])).expect("open");
    }
    near.endpoint.close().await;
    for n in 0..200_u8 {
        let Seen::Post(body) = far.next().await else { panic!("post {n} arrives") };
        assert_eq!(body[0], n, "in order");
    }
    let down = far.down().await;
    assert!(matches!(down, LinkDown::Closed(_)), "{down:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_has_names_and_locks_without_a_file() {
    let network = Network::new();
    let host = HostId::random();
    let (mut near, far) = (Peer::start(&network, host), Peer::start(&network, host));
    let away = Peer::start(&network, HostId::random());
    let (name, lock) = ("d.sock".as_ref(), "d.lock".as_ref());
    let nobody = near.endpoint.dial_socket(name).await;
    assert!(matches!(nobody, Err(DialError::Unreachable(_))), "{nobody:?}");
    let key = far.endpoint.try_lock(lock).expect("no file").expect("free");
    let guard = far.endpoint.serve_socket(name).expect("no file");
    assert!(near.endpoint.try_lock(lock).expect("no file").is_none());
    assert!(away.endpoint.try_lock(lock).expect("no file").is_some(), "another host's is another");
    let link = near.endpoint.dial_socket(name).await.expect("links");
    assert_eq!(link.peer(), far.endpoint.peer());
    // Killed, it frees the lock and leaves its name behind, as a process does.
    network.kill(far.id());
    drop((guard, key));
    near.down().await;
    assert_eq!(near.endpoint.served_by(name), Some(far.id()));
    assert!(matches!(near.endpoint.dial_socket(name).await, Err(DialError::Gone(_))));
    assert!(near.endpoint.try_lock(lock).expect("no file").is_some());
    assert!(far.endpoint.try_lock(lock).expect("no file").is_none(), "the dead take nothing");
}

#[tokio::test(start_paused = true)]
async fn a_node_is_in_a_network_once() {
    let network = Network::new();
    let first = Peer::start(&network, HostId::random());
    let receive = Arc::new(Echo { seen: mpsc::unbounded_channel().0 });
    let again = Endpoint::start_in(&network, HostId::random(), first.id(), receive);
    assert!(matches!(again, Err(StartError::Taken(node)) if node == first.id()));
    assert_eq!(network.nodes(), [first.endpoint.peer()], "the first one stays");
    let own = first.link(&first).await;
    assert!(matches!(own, Err(DialError::Ourselves)), "{own:?}");
}

#[test]
fn outside_of_a_runtime_nothing_starts() {
    let receive = Arc::new(Echo { seen: mpsc::unbounded_channel().0 });
    let start = Endpoint::start_in(&Network::new(), HostId::random(), NodeId::random(), receive);
    assert!(matches!(start, Err(StartError::NoRuntime)));
}
