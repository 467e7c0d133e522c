//! Links between real endpoints: over Unix sockets (one mesh folder, as on one host) and over QUIC
//! (two folders joined by token, as on two hosts).

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use layercake_wire::{
    AskFailure, Carrier, DialError, Endpoint, EndpointConfig, Failure, FailureCode, Gone, Inbound,
    InboundKind, LANE_UNITS, Link, LinkDown, PART_UNITS, Parts, Receive, Responder, Service,
    StartError,
    id::{HostId, NodeAddr, NodeId},
    payload::{Encoding, Fingerprint, Payload, Tag},
    trust::Mesh,
};
use tokio::sync::{mpsc, watch};

const SOON: Duration = Duration::from_secs(5);

/// Echoes asks for actor 1, holds those for actor 2, notes and echoes those for actor 3, and reports
/// everything else.
struct Echo {
    seen: mpsc::UnboundedSender<Seen>,
}

enum Seen {
    Up,
    Down(LinkDown),
    Post(Bytes),
    Held(Inbound),
    Begun(Bytes),
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
            (3, InboundKind::Ask(responder)) => {
                let _ = self.seen.send(Seen::Begun(message.payload.bytes.clone()));
                responder.reply(message.payload);
            }
            (2, kind) => {
                let _ = self.seen.send(Seen::Held(Inbound { kind, ..message }));
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
    _folder: Arc<OnceLock<tempfile::TempDir>>,
}

fn peer(mesh: &Mesh, folder: &Arc<OnceLock<tempfile::TempDir>>) -> Peer {
    peer_on(Carrier::OwnThread, mesh, folder)
}

fn peer_on(carrier: Carrier, mesh: &Mesh, folder: &Arc<OnceLock<tempfile::TempDir>>) -> Peer {
    let (tx, seen) = mpsc::unbounded_channel();
    let config = EndpointConfig { mesh: mesh.clone(), node: NodeId::random(), carrier };
    let endpoint = Endpoint::start(config, Arc::new(Echo { seen: tx })).expect("starts");
    Peer { endpoint, seen, _folder: folder.clone() }
}

/// Two nodes of one host.
fn neighbours() -> (Peer, Peer) {
    neighbours_on(Carrier::OwnThread)
}

/// The same, of which the second has its links carried so.
fn neighbours_on(carrier: Carrier) -> (Peer, Peer) {
    let folder = Arc::new(OnceLock::from(tempfile::tempdir().expect("a folder")));
    let path = folder.get().expect("set").path().join("mesh");
    let mesh = Mesh::init(&path, None).expect("a mesh");
    (peer(&mesh, &folder), peer_on(carrier, &mesh, &folder))
}

/// Two nodes of two hosts of one mesh, reachable over loopback.
async fn hosts() -> (Peer, Peer) {
    hosts_on(Carrier::OwnThread).await
}

async fn hosts_on(carrier: Carrier) -> (Peer, Peer) {
    let folder = Arc::new(OnceLock::from(tempfile::tempdir().expect("a folder")));
    let path = folder.get().expect("set").path();
    let mesh = Mesh::init(&path.join("a"), None).expect("a mesh");
    let near = peer(&mesh, &folder);
    let addr = near.endpoint.listen_quic(None).await.expect("listens");
    let token = mesh.invite(Duration::from_secs(60), &addr.hints).expect("invites");
    let joined = layercake_wire::trust::join(&token, &path.join("b"), Some("b")).await;
    let far = peer_on(carrier, &joined.expect("joins"), &folder);
    far.endpoint.listen_quic(None).await.expect("listens");
    (near, far)
}

fn payload(bytes: impl Into<Bytes>) -> Payload {
    Payload { tag: Tag::of("T"), encoding: Encoding::Json, bytes: bytes.into() }
}

async fn ask(link: &Link, actor: u64, bytes: impl Into<Bytes>) -> Result<Payload, AskFailure> {
    link.lane(actor).ask(payload(bytes), Fingerprint::NONE, Instant::now() + SOON, None).await
}

async fn next(peer: &mut Peer) -> Seen {
    tokio::time::timeout(SOON, peer.seen.recv()).await.expect("in time").expect("open")
}

async fn echoes(near: &Peer, far: &Peer) {
    let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
    assert_eq!(link.peer(), far.endpoint.peer());
    for size in [0, 1, 64, 5_000, 32 << 10, (32 << 10) + 1, 3 << 20, (32 << 20) - 64] {
        let sent = Bytes::from(vec![7_u8; size]);
        let reply = ask(&link, 1, sent.clone()).await.expect("answers");
        assert_eq!(reply.bytes, sent, "{size} bytes");
    }
    let asks = (0..500_u32).map(|n| {
        let link = link.clone();
        async move { ask(&link, 1, n.to_le_bytes().to_vec()).await.expect("answers").bytes }
    });
    for (n, reply) in futures_util::future::join_all(asks).await.into_iter().enumerate() {
        assert_eq!(reply, (n as u32).to_le_bytes().to_vec());
    }
    let gone = ask(&link, 99, "x").await.expect_err("no such actor");
    let AskFailure::Failed(failure) = gone else { panic!("{gone:?}") };
    assert_eq!(failure.code, FailureCode::Stopped);
    // Each ask was a message there, each answer one back; a failure is none.
    assert_eq!(link.messages(), (509, 508));
}

#[tokio::test]
async fn small_and_large_asks_come_back_over_a_unix_socket() {
    let (near, far) = neighbours();
    echoes(&near, &far).await;
    assert!(near.endpoint.links()[0].is_local());
}

#[tokio::test]
async fn small_and_large_asks_come_back_over_quic() {
    let (near, far) = hosts().await;
    echoes(&near, &far).await;
    assert!(!near.endpoint.links()[0].is_local());
}

#[tokio::test]
async fn a_program_may_carry_its_links_in_its_own_runtime() {
    let (near, far) = neighbours_on(Carrier::Runtime);
    echoes(&near, &far).await;
    let (near, mut far) = hosts_on(Carrier::Runtime).await;
    echoes(&near, &far).await;
    near.endpoint.close().await;
    assert!(matches!(next(&mut far).await, Seen::Up));
    assert!(matches!(next(&mut far).await, Seen::Down(LinkDown::Closed(_))));
}

#[test]
fn without_a_thread_of_its_own_an_endpoint_needs_a_runtime() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::init(&folder.path().join("mesh"), None).expect("a mesh");
    let config = EndpointConfig { mesh, node: NodeId::random(), carrier: Carrier::Runtime };
    let (seen, _) = mpsc::unbounded_channel();
    let started = Endpoint::start(config, Arc::new(Echo { seen }));
    assert!(matches!(started, Err(StartError::NoRuntime)), "{started:?}");
}

#[test]
fn nobody_waits_on_a_link_whose_runtime_has_ended() {
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let (ours, theirs) = (one(), one());
    let (mut near, far) = theirs.block_on(async { neighbours_on(Carrier::Runtime) });
    let far_addr = far.endpoint.addr();
    let (near_addr, near_end) = (near.endpoint.addr(), near.endpoint.clone());
    let link = theirs.block_on(far.endpoint.link(&near_addr)).expect("links");
    let asked = ours.spawn({
        let link = link.clone();
        async move { ask(&link, 2, "held").await }
    });
    // The asker begins; what it asks leaves while the other runtime is driven.
    ours.block_on(tokio::task::yield_now());
    theirs.block_on(async {
        assert!(matches!(next(&mut near).await, Seen::Up));
        assert!(matches!(next(&mut near).await, Seen::Held(_)));
    });

    drop(theirs);
    ours.block_on(in_time(async {
        let failure = asked.await.expect("does not panic").expect_err("its link has ended");
        assert!(matches!(failure, AskFailure::Lost(_)), "{failure:?}");
        assert!(link.is_closed());
        assert!(matches!(next(&mut near).await, Seen::Down(LinkDown::Lost(_))));
        // Who dials it hears that there is nobody, and is not kept waiting.
        near_end.link(&far_addr).await.expect_err("nobody carries links there");
        far.endpoint.link(&near_addr).await.expect_err("nobody carries links here");
    }));
}

#[tokio::test]
async fn crossing_dials_end_in_one_link() {
    for _ in 0..20 {
        let (near, far) = neighbours();
        let (to_far, to_near) = (far.endpoint.addr(), near.endpoint.addr());
        let (one, two) = tokio::join!(near.endpoint.link(&to_far), far.endpoint.link(&to_near));
        let (one, two) = (one.expect("links"), two.expect("links"));
        assert_eq!(one.nonce(), two.nonce(), "both ends hold the same connection");
        ask(&one, 1, "a").await.expect("answers");
        ask(&two, 1, "b").await.expect("answers");
    }
}

#[tokio::test]
async fn crossing_dials_over_quic_end_in_one_link() {
    let (near, far) = hosts().await;
    let (to_far, to_near) = (far.endpoint.addr(), near.endpoint.addr());
    let (one, two) = tokio::join!(near.endpoint.link(&to_far), far.endpoint.link(&to_near));
    let (one, two) = (one.expect("links"), two.expect("links"));
    assert_eq!(one.nonce(), two.nonce(), "both ends hold the same connection");
}

#[tokio::test]
async fn an_unreachable_address_costs_nothing() {
    let (near, far) = hosts().await;
    let mut hints = far.endpoint.addr().hints.to_vec();
    // Addresses for documentation (RFC 5737): nobody answers there.
    hints.splice(0..0, (1..10).map(|n| ([192, 0, 2, n], 9).into()));
    let addr = NodeAddr::new(far.endpoint.peer(), &hints);
    let start = Instant::now();
    near.endpoint.link(&addr).await.expect("links");
    assert!(start.elapsed() < layercake_wire::DIAL_TIME, "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_end_of_a_process_is_told_at_once_and_its_asks_fail() {
    let (mut near, far) = neighbours();
    let addr = far.endpoint.addr();
    let link = near.endpoint.link(&addr).await.expect("links");
    assert!(matches!(next(&mut near).await, Seen::Up));
    let pending = tokio::spawn({
        let link = link.clone();
        async move { ask(&link, 2, "held").await }
    });
    let mut far = far;
    assert!(matches!(next(&mut far).await, Seen::Up));
    let Seen::Held(held) = next(&mut far).await else { panic!("the ask arrives") };
    far.endpoint.close().await;
    let failure = pending.await.expect("no panic").expect_err("nobody answers");
    assert!(matches!(failure, AskFailure::Lost(_)), "{failure:?}");
    assert!(matches!(next(&mut near).await, Seen::Down(LinkDown::Closed(_))));
    assert!(link.is_closed());
    drop(held);
    let error = near.endpoint.link(&addr).await.expect_err("it is gone");
    assert!(matches!(error, DialError::Gone(_)), "{error:?}");
}

#[tokio::test]
async fn a_slow_actor_slows_its_senders_and_nobody_else() {
    let (near, mut far) = neighbours();
    let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
    let lane = link.lane(2);
    for _ in 0..LANE_UNITS {
        lane.try_tell(payload("x")).expect("within the lane's units");
    }
    lane.try_tell(payload("x")).expect_err("one too many");
    ask(&link, 1, "others go on").await.expect("answers");
    assert!(matches!(next(&mut far).await, Seen::Up));
    let waiting = tokio::spawn({
        let lane = lane.clone();
        async move { lane.tell(payload("waits")).await.is_ok() }
    });
    // Handled, that is dropped: its unit comes back and the sender goes on.
    let Seen::Held(first) = next(&mut far).await else { panic!("a tell arrives") };
    assert!(!waiting.is_finished());
    drop(first);
    assert!(tokio::time::timeout(SOON, waiting).await.expect("in time").expect("no panic"));
}

#[tokio::test]
async fn another_mesh_cannot_link_by_any_way() {
    let (near, _) = hosts().await;
    let (stranger, _) = hosts().await;
    let addr = near.endpoint.addr();
    let error = stranger.endpoint.link(&addr).await.expect_err("another authority");
    assert!(matches!(error, DialError::Unreachable(_) | DialError::Refused(_)), "{error:?}");
    let error = stranger.endpoint.dial_any(&addr.hints, None).await.expect_err("another authority");
    assert!(matches!(error, DialError::Unreachable(_) | DialError::Refused(_)), "{error:?}");
    assert!(near.endpoint.links().is_empty());
}

/// An address on this machine that is open and says nothing.
fn black_hole() -> (std::net::UdpSocket, std::net::SocketAddr) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

#[tokio::test]
async fn dead_addresses_cost_nothing_and_a_wrong_one_leads_nowhere() {
    let (near, far) = hosts().await;
    let holes: Vec<_> = (0..9).map(|_| black_hole()).collect();
    let good = far.endpoint.addr().hints.to_vec();
    let addrs: Vec<_> = holes.iter().map(|(_, addr)| *addr).chain(good).collect();
    // Somebody claims that a host lives where another one does.
    let other = HostId::random();
    let error = near.endpoint.dial_any(&addrs[9..], Some(other)).await.expect_err("not that host");
    assert!(error.to_string().contains("another node lives there now"), "{error}");
    assert!(near.endpoint.links().is_empty());
    let begun = Instant::now();
    let wanted = far.endpoint.peer();
    let link = near.endpoint.dial_any(&addrs, Some(wanted.host)).await.expect("the tenth is good");
    assert_eq!(link.peer(), wanted);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let own = near.endpoint.addr();
    let error = near.endpoint.dial_any(&own.hints[..1], None).await.expect_err("oneself");
    assert!(matches!(error, DialError::Ourselves), "{error:?}");
}

#[tokio::test]
async fn a_well_known_name_leads_to_who_serves_it() {
    let (mut near, mut far) = neighbours();
    let folder = near.endpoint.mesh().runtime_folder().expect("a folder");
    let path = folder.join("directory.sock");
    let error = near.endpoint.dial_socket(&path).await.expect_err("nobody yet");
    assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
    let guard = far.endpoint.serve_socket(&path).expect("serves");
    let link = near.endpoint.dial_socket(&path).await.expect("links");
    assert_eq!(link.peer(), far.endpoint.peer());
    assert!(matches!(next(&mut near).await, Seen::Up));
    assert!(matches!(next(&mut far).await, Seen::Up));
    for n in 0..100_u8 {
        link.post(Service::Directory, Bytes::from(vec![n; 1 + 1000 * usize::from(n)]))
            .expect("open");
    }
    for n in 0..100_u8 {
        let Seen::Post(body) = next(&mut far).await else { panic!("posts arrive") };
        assert_eq!(body[0], n, "in order");
    }
    drop(guard);
    assert!(!path.exists());
}

#[tokio::test]
async fn datagrams_cross_quic() {
    let (near, mut far) = hosts().await;
    let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
    assert!(matches!(next(&mut far).await, Seen::Up));
    link.datagram(Bytes::from(vec![9; Link::MAX_DATAGRAM]));
    let Seen::Post(body) = next(&mut far).await else { panic!("a datagram arrives") };
    assert_eq!(body.len(), Link::MAX_DATAGRAM);
}

#[tokio::test]
async fn where_a_socket_is_out_of_reach_neighbours_use_quic() {
    let (near, far) = neighbours();
    far.endpoint.listen_quic(None).await.expect("listens");
    let folder = far.endpoint.mesh().runtime_folder().expect("a folder");
    let socket = folder.join(format!("{}.sock", far.endpoint.peer().node));
    std::fs::remove_file(socket).expect("it was there");
    let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
    assert!(!link.is_local());
    assert_eq!(ask(&link, 1, "x").await.expect("answers").bytes, "x");
}

#[tokio::test]
async fn a_neighbour_that_has_left_is_not_looked_for_elsewhere() {
    let (mut near, far) = neighbours();
    far.endpoint.listen_quic(None).await.expect("listens");
    let addr = far.endpoint.addr();
    let link = near.endpoint.link(&addr).await.expect("links");
    assert!(link.is_local() && matches!(next(&mut near).await, Seen::Up));
    far.endpoint.close().await;
    assert!(matches!(next(&mut near).await, Seen::Down(LinkDown::Closed(_))));
    // Somebody else answers where it was.
    let (_, other) = neighbours();
    let elsewhere = other.endpoint.listen_quic(None).await.expect("listens");
    let addr = NodeAddr::new(addr.peer, &elsewhere.hints);
    let error = near.endpoint.link(&addr).await.expect_err("it has left");
    assert!(matches!(error, DialError::Gone(_)), "{error:?}");
}

#[tokio::test]
async fn who_links_to_a_node_that_is_about_to_close_hears_of_its_end() {
    // One of them is at times done with the dial before the other one has its link.
    for _ in 0..40 {
        let (mut near, far) = neighbours();
        near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        far.endpoint.close().await;
        assert!(matches!(next(&mut near).await, Seen::Up));
        let Seen::Down(end) = next(&mut near).await else { panic!("it ends") };
        assert!(matches!(end, LinkDown::Closed(_)), "{end:?}");
    }
}

#[tokio::test]
async fn a_closed_endpoint_says_so_and_keeps_nobody_waiting() {
    let (near, far) = neighbours();
    let addr = far.endpoint.addr();
    near.endpoint.close().await;
    let dial = tokio::time::timeout(SOON, near.endpoint.link(&addr)).await.expect("at once");
    assert!(matches!(dial, Err(DialError::Closed)), "{dial:?}");
}

#[tokio::test]
async fn what_was_queued_before_a_goodbye_arrives() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        assert!(matches!(next(&mut far).await, Seen::Up));
        for n in 0..200_u8 {
            // Some of them leave in pieces.
            let size = if n % 50 == 0 { 200_000 } else { 5000 };
            link.post(Service::Directory, Bytes::from(vec![n; size])).expect("open");
        }
        near.endpoint.close().await;
        for n in 0..200_u8 {
            let Seen::Post(body) = next(&mut far).await else { panic!("post {n} arrives") };
            assert_eq!(body[0], n, "in order");
        }
        assert!(matches!(next(&mut far).await, Seen::Down(LinkDown::Closed(_))));
    }
}

#[tokio::test]
async fn an_ask_fails_at_once_when_its_link_is_closed() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let pending = tokio::spawn({
            let link = link.clone();
            async move { ask(&link, 2, "held").await }
        });
        assert!(matches!(next(&mut far).await, Seen::Up));
        let Seen::Held(_held) = next(&mut far).await else { panic!("the ask arrives") };
        near.endpoint.close_link(far.endpoint.peer().node, "the host is lost");
        let failure = pending.await.expect("no panic").expect_err("nobody answers");
        assert!(matches!(&failure, AskFailure::Lost(why) if why.contains("lost")), "{failure:?}");
        let Seen::Down(down) = next(&mut far).await else { panic!("the peer hears of it") };
        assert!(matches!(down, LinkDown::Closed(_)), "{down:?}");
        // And the next use makes another one.
        let again = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        assert_eq!(ask(&again, 1, "x").await.expect("answers").bytes, "x");
    }
}

#[tokio::test]
async fn an_ask_that_crosses_a_goodbye_has_its_answer_or_was_never_begun() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let mut crossed = 0;
        for round in 0..40_u64 {
            let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
            let asking: Vec<_> = (0..8_u64)
                .map(|asker| {
                    let link = link.clone();
                    tokio::spawn(async move {
                        for n in 0.. {
                            let id = (round << 40 | asker << 32 | n).to_le_bytes();
                            if let Err(failure) = ask(&link, 3, id.to_vec()).await {
                                return (Bytes::from(id.to_vec()), failure);
                            }
                        }
                        unreachable!("the link is closed before")
                    })
                })
                .collect();
            // While all are at it.
            let mut begun = std::collections::HashSet::new();
            while begun.len() < 100 {
                if let Seen::Begun(id) = next(&mut far).await {
                    begun.insert(id);
                }
            }
            far.endpoint.close_link(near.endpoint.peer().node, "it leaves");
            let failed: Vec<_> = futures_util::future::join_all(asking).await;
            loop {
                match next(&mut far).await {
                    Seen::Begun(id) => drop(begun.insert(id)),
                    Seen::Down(_) => break,
                    _ => {}
                }
            }
            for (id, failure) in failed.into_iter().map(|asker| asker.expect("no panic")) {
                crossed += usize::from(
                    matches!(&failure, AskFailure::Unbegun(why) if why.contains("left")),
                );
                assert!(matches!(failure, AskFailure::Unbegun(_)), "{failure:?}");
                assert!(!begun.contains(&id), "round {round}: it was begun");
            }
        }
        // Some were on their way, the others had not been sent.
        assert!(crossed > 0, "nothing has crossed");
    }
}

#[tokio::test]
async fn an_ask_that_the_peer_had_begun_is_lost_when_it_leaves() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let pending = tokio::spawn(async move { ask(&link, 2, "held").await });
        let _held = loop {
            if let Seen::Held(held) = next(&mut far).await {
                break held;
            }
        };
        far.endpoint.close_link(near.endpoint.peer().node, "it leaves");
        let failure = pending.await.expect("no panic").expect_err("nobody answers");
        assert!(matches!(failure, AskFailure::Lost(_)), "{failure:?}");
    }
}

#[tokio::test]
async fn the_last_handle_dropped_says_goodbye() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        assert!(matches!(next(&mut far).await, Seen::Up));
        drop(near);
        let Seen::Down(LinkDown::Closed(_)) = next(&mut far).await else { panic!("a goodbye") };
        assert!(link.is_closed());
    }
}

async fn ask_stream(link: &Link, actor: u64) -> Parts {
    let deadline = Instant::now() + 4 * SOON;
    let parts = link.lane(actor).ask_stream(payload("go"), Fingerprint::NONE, deadline, None).await;
    parts.expect("sends")
}

/// The next ask that the peer holds, with what came before it passed over.
async fn held(peer: &mut Peer) -> Responder {
    loop {
        if let Seen::Held(Inbound { kind: InboundKind::Ask(responder), .. }) = next(peer).await {
            return responder;
        }
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

#[tokio::test]
async fn parts_of_any_size_come_in_order_and_then_the_end() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let mut parts = ask_stream(&link, 2).await;
        let responder = held(&mut far).await;
        assert!(responder.takes_parts());
        let size = |n: usize| if n % 40 == 7 { (n << 14) + 1 } else { n };
        let produce = tokio::spawn(async move {
            for n in 0..500 {
                responder.part(payload(vec![n as u8; size(n)])).await.expect("is taken");
            }
            responder.finish();
        });
        for n in 0..500 {
            let part = in_time(parts.next()).await.expect("more").expect("a part");
            assert_eq!(
                (part.bytes.len(), part.bytes.last()),
                (size(n), (n > 0).then_some(&(n as u8)))
            );
        }
        assert_eq!(in_time(parts.next()).await, None);
        assert_eq!(parts.next().await, None);
        produce.await.expect("no panic");
        // An answer that is all in its reply.
        let mut parts = ask_stream(&link, 1).await;
        assert_eq!(in_time(parts.next()).await, Some(Ok(payload("go"))));
        assert_eq!(in_time(parts.next()).await, None);
        // And none at all.
        let mut parts = ask_stream(&link, 99).await;
        let failed = in_time(parts.next()).await;
        assert!(matches!(failed, Some(Err(AskFailure::Failed(_)))), "{failed:?}");
        assert_eq!(parts.next().await, None);
    }
}

#[tokio::test]
async fn a_slow_taker_holds_the_producer_back() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let mut parts = ask_stream(&link, 2).await;
        let responder = held(&mut far).await;
        let (counts, mut produced) = watch::channel(0);
        let produce = tokio::spawn(async move {
            while responder.part(payload("part")).await.is_ok() {
                counts.send_modify(|count| *count += 1);
            }
        });
        let window = PART_UNITS as usize;
        in_time(produced.wait_for(|count| *count >= window)).await.expect("goes on");
        for taken in 1..=1000 {
            in_time(parts.next()).await.expect("more").expect("a part");
            let ahead = *produced.borrow();
            assert!(ahead <= taken + window, "{ahead} parts with {taken} taken");
            if taken % window == 0 {
                // Others are not held back meanwhile, and what was taken makes room.
                ask(&link, 1, "others go on").await.expect("answers");
                let more = produced.wait_for(|count| *count >= taken + window / 2);
                in_time(more).await.expect("goes on");
            }
        }
        assert!(!produce.is_finished());
        drop(parts);
        in_time(produce).await.expect("no panic");
    }
}

#[tokio::test]
async fn a_producer_in_the_middle_of_a_part_hears_that_its_taker_has_gone() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let parts = ask_stream(&link, 2).await;
        let responder = Arc::new(held(&mut far).await);
        let (count, mut counted) = watch::channel(0);
        let stuck = tokio::spawn({
            let responder = responder.clone();
            async move {
                while responder.part(payload("part")).await != Err(Gone) {
                    count.send_modify(|count| *count += 1);
                }
                *count.borrow()
            }
        });
        let gone = tokio::spawn({
            let responder = responder.clone();
            async move { responder.cancelled().await }
        });
        in_time(counted.wait_for(|count| *count == PART_UNITS)).await.expect("produces");
        ask(&link, 1, "others go on").await.expect("answers");
        assert!(!stuck.is_finished() && !gone.is_finished());
        drop(parts);
        assert_eq!(in_time(stuck).await.expect("no panic"), PART_UNITS);
        in_time(gone).await.expect("no panic");
        assert!(!responder.is_wanted());
    }
}

#[tokio::test]
async fn who_works_for_a_cancelled_ask_hears_of_it() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let start = || {
            let link = link.clone();
            tokio::spawn(async move { ask(&link, 2, "work").await })
        };
        let mut work = Vec::new();
        for _ in 0..20 {
            let asking = start();
            let responder = held(&mut far).await;
            work.push((asking, tokio::spawn(async move { responder.cancelled().await })));
        }
        // One goes away, the others go on.
        let (asking, cancelled) = work.remove(3);
        asking.abort();
        in_time(cancelled).await.expect("no panic");
        assert!(work.iter().all(|(_, cancelled)| !cancelled.is_finished()));
        // A deadline is one too.
        let short = tokio::spawn({
            let (lane, deadline) = (link.lane(2), Instant::now() + Duration::from_millis(50));
            async move { lane.ask(payload("work"), Fingerprint::NONE, deadline, None).await }
        });
        in_time(held(&mut far).await.cancelled()).await;
        // Whichever side says so first: the responder was given up because of it.
        let over = in_time(short).await.expect("no panic").expect_err("nobody answered");
        let late = |failure: &Failure| failure.code == FailureCode::Deadline;
        assert!(
            matches!(&over, AskFailure::Deadline)
                || matches!(&over, AskFailure::Failed(failure) if late(failure)),
            "{over:?}"
        );
        // And so is the end of the link, for streams also.
        let mut parts = ask_stream(&link, 2).await;
        let stream = held(&mut far).await;
        stream.part(payload("first")).await.expect("is taken");
        assert_eq!(in_time(parts.next()).await, Some(Ok(payload("first"))));
        near.endpoint.close_link(far.endpoint.peer().node, "the host is lost");
        for (asking, cancelled) in work {
            in_time(cancelled).await.expect("no panic");
            in_time(asking).await.expect("no panic").expect_err("lost");
        }
        in_time(stream.cancelled()).await;
        assert!(!stream.is_wanted());
        assert_eq!(stream.part(payload("second")).await, Err(Gone));
        let lost = in_time(parts.next()).await;
        assert!(matches!(lost, Some(Err(AskFailure::Lost(_)))), "{lost:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_gone_is_cut_off_and_not_dialled_until_it_shows_that_it_lives() {
    for (near, mut far) in [neighbours(), hosts().await] {
        let (addr, node) = (far.endpoint.addr(), far.endpoint.peer().node);
        let link = near.endpoint.link(&addr).await.expect("links");
        let pending = tokio::spawn({
            let link = link.clone();
            async move { ask(&link, 2, "held").await }
        });
        assert!(matches!(next(&mut far).await, Seen::Up));
        let Seen::Held(_held) = next(&mut far).await else { panic!("the ask arrives") };
        near.endpoint.mark_gone(node, "the process has died");
        let failure = pending.await.expect("no panic").expect_err("nobody answers");
        assert!(matches!(&failure, AskFailure::Lost(why) if why.contains("died")), "{failure:?}");
        assert!(link.is_closed() && near.endpoint.is_gone(node));
        let error = near.endpoint.link(&addr).await.expect_err("it is gone");
        assert!(matches!(error, DialError::Gone(gone) if gone == node), "{error:?}");
        assert!(matches!(next(&mut far).await, Seen::Down(_)));
        // It was no such thing: a node that dials lives.
        let back = far.endpoint.link(&near.endpoint.addr()).await.expect("links");
        assert_eq!(ask(&back, 1, "x").await.expect("answers").bytes, "x");
        assert!(!near.endpoint.is_gone(node));
        assert_eq!(near.endpoint.link(&addr).await.expect("links").nonce(), back.nonce());
        near.endpoint.mark_gone(node, "the process has died");
        near.endpoint.mark_back(node);
        near.endpoint.link(&addr).await.expect("links");
    }
}

#[tokio::test]
async fn who_waits_for_a_dial_hears_at_once_that_the_node_is_gone() {
    let (near, far) = hosts().await;
    // Addresses for documentation (RFC 5737): nobody answers there.
    let addr = NodeAddr::new(far.endpoint.peer(), &[([192, 0, 2, 1], 9).into()]);
    let start = Instant::now();
    let dial = tokio::spawn({
        let (endpoint, addr) = (near.endpoint.clone(), addr.clone());
        async move { endpoint.link(&addr).await }
    });
    tokio::task::yield_now().await;
    near.endpoint.mark_gone(addr.peer.node, "the process has died");
    let error = dial.await.expect("no panic").expect_err("it is gone");
    assert!(matches!(error, DialError::Gone(_)), "{error:?}");
    assert!(start.elapsed() < layercake_wire::DIAL_TIME, "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_hears_that_an_ask_failed_with_its_link_asks_again_over_another() {
    let (near, mut far) = neighbours();
    for round in 0..300 {
        let link = near.endpoint.link(&far.endpoint.addr()).await.expect("links");
        let pending = ask(&link, 2, "held");
        let close = async {
            let held = loop {
                if let Seen::Held(held) = next(&mut far).await {
                    break held;
                }
            };
            near.endpoint.close_link(far.endpoint.peer().node, "a test");
            held
        };
        let (failure, _held) = tokio::join!(pending, close);
        assert!(matches!(failure, Err(AskFailure::Lost(_))), "{failure:?}");
        assert!(link.is_closed(), "round {round}: another ask would get onto it");
    }
}
