//! Stories of answers in parts.

use std::task::{Context, Poll};

use futures_util::task::noop_waker;
use tokio::sync::mpsc;

use super::*;
use crate::link::{
    PART_UNITS, Parts,
    parts::{Inlet, end},
};

/// Two cores, and one stream from `far` to `near`.
struct Stream {
    near: Core,
    far: Core,
    lane: Arc<Lane>,
    parts: Parts,
    /// What the asker's handle says to its core.
    commands: mpsc::UnboundedReceiver<Command>,
    id: u64,
    window: Arc<Window>,
    now: Instant,
}

fn stream() -> Stream {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (lane, now) = (link().lane(1), Instant::now());
    assert!(lane.try_take(1));
    let (sender, commands) = mpsc::unbounded_channel();
    let (inlet, parts) = Inlet::over_link(sender);
    let command = AskCommand {
        lane: lane.clone(),
        from: 1,
        payload: payload(1, 10),
        accept: Fingerprint::NONE,
        deadline: now + Duration::from_secs(9),
        trace: None,
        waiting: Waiting::Parts(inlet),
        units: 1,
    };
    near.on_command(Command::Ask(command), now);
    let mut events = carry(&mut near, &mut far);
    let Some(Event::Ask { id, window: Some(window), .. }) = events.pop() else {
        panic!("{events:?}")
    };
    Stream { near, far, lane, parts, commands, id, window, now }
}

impl Stream {
    /// What an honest responder does.
    fn send(&mut self, payload: Payload) -> bool {
        self.window.try_take(part_units(&payload)) && {
            self.send_anyway(payload);
            true
        }
    }

    fn send_anyway(&mut self, payload: Payload) {
        self.far.on_command(Command::Part { id: self.id, payload }, self.now);
    }

    /// To the asker, one turn.
    fn carry(&mut self) {
        assert_eq!(carry(&mut self.far, &mut self.near), []);
    }

    /// Back to the one who answers.
    fn carry_back(&mut self) -> Vec<Event> {
        while let Ok(command) = self.commands.try_recv() {
            self.near.on_command(command, self.now);
        }
        carry(&mut self.near, &mut self.far)
    }

    fn next(&mut self) -> Poll<Option<Result<Payload, AskFailure>>> {
        self.parts.poll_next(&mut Context::from_waker(&noop_waker()))
    }

    fn sizes(&mut self) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Poll::Ready(Some(part)) = self.next() {
            sizes.push(part.expect("a part").bytes.len());
        }
        sizes
    }
}

/// How the reader of a link takes what a peer sends that does not behave.
fn breach(from: &mut Core, to: &mut Core) -> Option<ProtocolError> {
    from.pump();
    let mut pieces = Vec::new();
    from.out.take(&mut pieces);
    let mut bytes = BytesMut::from(&pieces.concat()[..]);
    let mut bodies = std::iter::from_fn(|| frame::split(&mut bytes).expect("well formed"));
    bodies.find_map(|body| to.on_body(body).err())
}

#[test]
fn parts_come_in_order_and_then_the_end() {
    let mut stream = stream();
    for n in 1..=3 {
        assert!(stream.send(payload(1, n)));
    }
    stream.carry();
    assert_eq!(stream.sizes(), [1, 2, 3]);
    assert_eq!(stream.next(), Poll::Pending);
    assert_eq!(stream.lane.credit.available_permits(), LANE_UNITS - 1);
    let (id, now) = (stream.id, stream.now);
    stream.far.on_command(Command::Reply { id, payload: end() }, now);
    stream.carry();
    assert_eq!(stream.next(), Poll::Ready(None));
    assert_eq!(stream.next(), Poll::Ready(None));
    assert!(!stream.near.has_asks() && stream.far.serving.is_empty());
    assert_eq!(stream.lane.credit.available_permits(), LANE_UNITS, "its unit came back");
}

#[test]
fn a_reply_is_the_last_part_also_when_the_window_is_used_up() {
    let mut stream = stream();
    while stream.send(payload(1, 1)) {}
    let (id, now) = (stream.id, stream.now);
    stream.far.on_command(Command::Reply { id, payload: payload(2, 7) }, now);
    stream.carry();
    let sizes = stream.sizes();
    assert_eq!((sizes.len(), sizes.last()), (PART_UNITS as usize + 1, Some(&7)));
    assert_eq!(stream.next(), Poll::Ready(None));
}

#[test]
fn a_failure_comes_behind_the_parts_before_it() {
    let mut stream = stream();
    assert!(stream.send(payload(1, 400_000)) && stream.send(payload(1, 1)));
    let failure = Failure::new(FailureCode::Panicked, "fell");
    let (id, now) = (stream.id, stream.now);
    stream.far.on_command(Command::Fail { id, failure: failure.clone() }, now);
    for _ in 0..10 {
        stream.carry();
    }
    let failed = Poll::Ready(Some(Err(AskFailure::Failed(failure))));
    let Poll::Ready(Some(Ok(large))) = stream.next() else { panic!("the large part is first") };
    assert_eq!(large.bytes.len(), 400_000);
    assert!(matches!(stream.next(), Poll::Ready(Some(Ok(_)))));
    assert_eq!(stream.next(), failed);
    assert_eq!(stream.next(), Poll::Ready(None));
}

#[test]
fn a_large_part_holds_up_its_own_stream_only() {
    let mut stream = stream();
    let (id, now, other) = (stream.id, stream.now, link().lane(5));
    assert!(stream.send(payload(1, 1 << 20)) && stream.send(payload(1, 3)));
    stream.far.on_command(Command::Reply { id, payload: end() }, now);
    stream.far.on_command(tell(&other, 10, payload(3, 5)), now);
    let first = carry(&mut stream.far, &mut stream.near);
    assert_eq!(tells(&first), [(5, 3, 5)], "others overtake");
    assert_eq!(stream.next(), Poll::Pending);
    for n in 0..20 {
        stream.far.on_command(tell(&other, 10, payload(n, 5)), now);
        let events = carry(&mut stream.far, &mut stream.near);
        assert_eq!(tells(&events), [(5, n, 5)], "also between its pieces");
    }
    assert_eq!(stream.sizes(), [1 << 20, 3]);
    assert_eq!(stream.next(), Poll::Ready(None));
}

#[test]
fn who_takes_nothing_gets_a_window_and_no_more() {
    let mut stream = stream();
    let mut sent = 0;
    while stream.send(payload(1, 1)) {
        sent += 1;
    }
    assert_eq!(sent, PART_UNITS);
    stream.carry();
    // Units come back a quarter at a time.
    for _ in 1..PART_UNITS / 4 {
        assert!(matches!(stream.next(), Poll::Ready(Some(Ok(_)))));
    }
    stream.carry_back();
    assert!(!stream.send(payload(1, 1)));
    assert!(matches!(stream.next(), Poll::Ready(Some(Ok(_)))));
    stream.carry_back();
    for _ in 0..PART_UNITS / 4 {
        assert!(stream.send(payload(1, 1)));
    }
    assert!(!stream.send(payload(1, 1)));
    stream.carry();
}

#[test]
fn a_peer_that_sends_beyond_the_window_is_cut_off() {
    let mut stream = stream();
    for _ in 0..PART_UNITS {
        stream.send_anyway(payload(1, 1));
    }
    assert_eq!(breach(&mut stream.far, &mut stream.near), None);
    stream.send_anyway(payload(1, 1));
    let error = breach(&mut stream.far, &mut stream.near);
    assert_eq!(error, Some(ProtocolError::Window("a part")));
}

#[test]
fn a_peer_that_gives_back_what_it_was_not_sent_is_cut_off() {
    let mut stream = stream();
    assert!(stream.send(payload(1, 1)));
    // Queued in pieces: not sent yet.
    assert!(stream.send(payload(1, 1 << 20)));
    stream.carry();
    let id = stream.id;
    stream.near.out.push(Frame::More { id, units: 1 });
    assert_eq!(breach(&mut stream.near, &mut stream.far), None);
    stream.near.out.push(Frame::More { id, units: 1 });
    let error = breach(&mut stream.near, &mut stream.far);
    assert_eq!(error, Some(ProtocolError::Window("units given back")));
}

#[test]
fn a_part_of_a_single_answer_breaks_the_protocol() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let now = Instant::now();
    let (command, _answer) = ask(&link().lane(1), now + Duration::from_secs(9));
    near.on_command(command, now);
    let events = carry(&mut near, &mut far);
    let [Event::Ask { id, window: None, .. }] = events[..] else { panic!("{events:?}") };
    far.out.push(Frame::Part { id, payload: payload(1, 1) });
    let error = breach(&mut far, &mut near);
    assert!(matches!(error, Some(ProtocolError::Misplaced(_))), "{error:?}");
}

#[test]
fn a_taker_that_goes_away_ends_the_stream() {
    let mut stream = stream();
    assert!(stream.send(payload(1, 1)));
    stream.parts = Inlet::over_link(mpsc::unbounded_channel().0).1;
    // What crosses the cancellation does no harm.
    stream.near.on_tick(stream.now);
    stream.carry();
    let id = stream.id;
    assert_eq!(stream.carry_back(), [Event::Cancel { id }]);
    assert!(!stream.window.try_take(1), "who waits for room hears of it");
    stream.send_anyway(payload(1, 1));
    assert_eq!(stream.far.out.len(), 0, "nothing is sent in vain");
    assert_eq!(stream.lane.credit.available_permits(), LANE_UNITS);
}

#[test]
fn the_deadline_ends_a_stream_behind_what_has_come() {
    let mut stream = stream();
    assert!(stream.send(payload(1, 1)));
    stream.carry();
    stream.near.on_tick(stream.now + Duration::from_secs(10));
    assert!(matches!(stream.next(), Poll::Ready(Some(Ok(_)))));
    assert_eq!(stream.next(), Poll::Ready(Some(Err(AskFailure::Deadline))));
    assert_eq!(stream.next(), Poll::Ready(None));
    assert!(matches!(stream.carry_back()[..], [Event::Cancel { .. }]));
}

#[test]
fn the_end_of_the_link_ends_streams_on_both_sides() {
    let mut stream = stream();
    assert!(stream.send(payload(1, 1)));
    stream.carry();
    stream.near.on_close("cable pulled");
    assert!(matches!(stream.next(), Poll::Ready(Some(Ok(_)))));
    let lost = AskFailure::Lost("cable pulled".to_owned());
    assert_eq!(stream.next(), Poll::Ready(Some(Err(lost))));
    stream.far.on_close("cable pulled");
    assert!(!stream.window.try_take(1));
    // Dropped without a word it is not taken for an end in order.
    let mut other = self::stream();
    drop(std::mem::take(&mut other.near));
    assert!(matches!(other.next(), Poll::Ready(Some(Err(AskFailure::Lost(_))))));
    drop(std::mem::take(&mut other.far));
    assert!(!other.window.try_take(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the sizes and however the asker takes them: everything arrives in order, nothing gets
    /// stuck, and neither side breaks the protocol.
    #[test]
    fn every_stream_comes_to_its_end(
        sizes in proptest::collection::vec(
            prop_oneof![6 => 1_usize..50, 2 => 30_000_usize..200_000, 1 => 1_000_000_usize..2_000_000],
            0..120,
        ),
        takes in 1_usize..70,
    ) {
        let mut stream = stream();
        let (mut sent, mut seen) = (0, Vec::new());
        let mut idle = 0;
        while seen.len() < sizes.len() {
            let before = (sent, seen.len());
            while sent < sizes.len() && stream.send(payload(1, sizes[sent])) {
                sent += 1;
            }
            stream.carry();
            for _ in 0..takes {
                let Poll::Ready(Some(Ok(part))) = stream.next() else { break };
                seen.push(part.bytes.len());
            }
            stream.carry_back();
            // A large part needs many turns of 128 KiB.
            idle = if before == (sent, seen.len()) { idle + 1 } else { 0 };
            prop_assert!(idle < 60, "stuck at {sent} sent, {} seen", seen.len());
        }
        let (id, now) = (stream.id, stream.now);
        stream.far.on_command(Command::Reply { id, payload: end() }, now);
        stream.carry();
        prop_assert_eq!(stream.next(), Poll::Ready(None));
        prop_assert_eq!(seen, sizes);
    }
}
