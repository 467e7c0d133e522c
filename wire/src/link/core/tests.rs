//! Stories of two cores joined by their frames, without sockets or clocks.

use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::{
    id::{HostId, NodeAddr, NodeId, PeerId},
    link::{AskCommand, LANE_UNITS, Link},
    payload::{Encoding, Tag},
};

fn link() -> Link {
    let peer = PeerId { host: HostId::from_bits(1), node: NodeId::from_bits(2) };
    Link::new(NodeAddr::new(peer, &[]), 1, true, None).0
}

fn payload(byte: u8, size: usize) -> Payload {
    Payload { tag: Tag(7), encoding: Encoding::Json, bytes: vec![byte; size].into() }
}

fn tell(lane: &Arc<Lane>, from: u64, payload: Payload) -> Command {
    Command::Tell { lane: lane.clone(), from, payload, units: 0 }
}

type Answer = oneshot::Receiver<Result<Payload, AskFailure>>;

fn ask(lane: &Arc<Lane>, deadline: Instant) -> (Command, Answer) {
    let (slot, answer) = oneshot::channel();
    let command = AskCommand {
        lane: lane.clone(),
        from: 1,
        payload: payload(1, 10),
        accept: Fingerprint::NONE,
        deadline,
        trace: None,
        waiting: Waiting::One { slot, courier: None },
        units: 1,
    };
    (Command::Ask(command), answer)
}

mod parts;

/// Moves what one core has in its output buffer, with one turn of large pieces, to another.
fn carry(from: &mut Core, to: &mut Core) -> Vec<Event> {
    from.pump();
    let mut pieces = Vec::new();
    from.out.take(&mut pieces);
    let mut bytes = BytesMut::from(&pieces.concat()[..]);
    let mut events = Vec::new();
    while let Some(body) = frame::split(&mut bytes).expect("well formed") {
        events.extend(to.on_body(body).expect("well behaved"));
    }
    assert!(bytes.is_empty(), "frames are written whole");
    events
}

fn tells(events: &[Event]) -> Vec<(u64, u8, usize)> {
    let of = |event: &Event| match event {
        Event::Tell { to, payload, .. } => Some((*to, payload.bytes[0], payload.bytes.len())),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn an_ask_brings_its_trace_however_large_it_is() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (lane, now) = (link().lane(1), Instant::now());
    let trace = Trace { id: 7, span: 8, sampled: true };
    let mut answers = Vec::new();
    for (size, trace) in
        [(10, Some(trace)), (300 << 10, Some(Trace { id: 9, ..trace })), (10, None)]
    {
        let (mut command, answer) = ask(&lane, now + Duration::from_secs(9));
        if let Command::Ask(ask) = &mut command {
            ask.payload = payload(1, size);
            ask.trace = trace.map(Arc::new);
        }
        near.on_command(command, now);
        answers.push(answer);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        for event in carry(&mut near, &mut far) {
            let Event::Ask { trace, payload, .. } = event else { panic!("{event:?}") };
            seen.push((payload.bytes.len(), trace.map(|t| t.id)));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(10, None), (10, Some(7)), (300 << 10, Some(9))]);
    assert!(far.traces.is_empty(), "each is taken by its ask");
}

#[test]
fn a_large_message_holds_up_nobody_but_its_own_pair() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (link, now) = (link(), Instant::now());
    let (one, two) = (link.lane(1), link.lane(2));
    near.on_command(tell(&one, 10, payload(1, 1 << 20)), now);
    near.on_command(tell(&one, 10, payload(2, 5)), now);
    near.on_command(tell(&two, 10, payload(3, 5)), now);
    near.on_command(tell(&one, 11, payload(4, 5)), now);
    let first = tells(&carry(&mut near, &mut far));
    assert_eq!(first, [(2, 3, 5), (1, 4, 5)], "other pairs overtake");
    let mut rest = Vec::new();
    for _ in 0..20 {
        rest.extend(tells(&carry(&mut near, &mut far)));
    }
    assert_eq!(rest, [(1, 1, 1 << 20), (1, 2, 5)], "its own pair waits its turn");
}

#[test]
fn many_large_messages_at_once_stay_within_what_the_peer_allows() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (link, now) = (link(), Instant::now());
    for from in 0..40 {
        near.on_command(tell(&link.lane(from), from, payload(from as u8, 200_000)), now);
    }
    let mut seen = Vec::new();
    while seen.len() < 40 {
        seen.extend(tells(&carry(&mut near, &mut far)));
    }
    seen.sort_unstable();
    let expected: Vec<_> = (0..40).map(|from| (from, from as u8, 200_000)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn an_ask_is_answered_once_and_gives_its_unit_back() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (link, now) = (link(), Instant::now());
    let lane = link.lane(1);
    assert!(lane.try_take(1));
    let (command, mut answer) = ask(&lane, now + Duration::from_secs(1));
    near.on_command(command, now);
    let events = carry(&mut near, &mut far);
    let [Event::Ask { id, to: 1, deadline_ms, .. }] = events[..] else { panic!("{events:?}") };
    assert!((900..=1000).contains(&deadline_ms));
    far.on_command(Command::Reply { id, payload: payload(9, 3) }, now);
    far.on_command(Command::Reply { id, payload: payload(8, 3) }, now);
    carry(&mut far, &mut near);
    assert_eq!(answer.try_recv(), Ok(Ok(payload(9, 3))));
    assert!(!near.has_asks());
    assert_eq!(lane.credit.available_permits(), LANE_UNITS);
}

#[test]
fn a_late_answer_does_not_reach_the_next_ask_in_its_place() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (link, now) = (link(), Instant::now());
    let lane = link.lane(1);
    let (first, mut gone) = ask(&lane, now + Duration::from_millis(1));
    near.on_command(first, now);
    let events = carry(&mut near, &mut far);
    let [Event::Ask { id, .. }] = events[..] else { panic!("{events:?}") };
    near.on_tick(now + Duration::from_millis(2));
    assert_eq!(gone.try_recv(), Ok(Err(AskFailure::Deadline)));
    let (second, mut waiting) = ask(&lane, now + Duration::from_secs(9));
    near.on_command(second, now);
    far.on_command(Command::Reply { id, payload: payload(9, 3) }, now);
    carry(&mut far, &mut near);
    assert!(waiting.try_recv().is_err(), "the second ask still waits");
    let events = carry(&mut near, &mut far);
    assert!(events.contains(&Event::Cancel { id }), "the peer hears of the cancellation");
}

#[test]
fn an_asker_that_goes_away_cancels() {
    let (mut near, mut far) = (Core::default(), Core::default());
    let (link, now) = (link(), Instant::now());
    let (command, answer) = ask(&link.lane(1), now + Duration::from_secs(9));
    near.on_command(command, now);
    carry(&mut near, &mut far);
    drop(answer);
    near.on_tick(now);
    let events = carry(&mut near, &mut far);
    assert!(matches!(events[..], [Event::Cancel { .. }]), "{events:?}");
}

#[test]
fn the_end_of_the_link_answers_every_ask() {
    let mut near = Core::default();
    let (link, now) = (link(), Instant::now());
    let mut answers = Vec::new();
    for _ in 0..3 {
        let (command, answer) = ask(&link.lane(1), now + Duration::from_secs(9));
        near.on_command(command, now);
        answers.push(answer);
    }
    near.on_close("cable pulled");
    for mut answer in answers {
        assert_eq!(answer.try_recv(), Ok(Err(AskFailure::Lost("cable pulled".to_owned()))));
    }
}

#[test]
fn a_peer_that_never_ends_its_message_is_cut_off() {
    let mut core = Core::default();
    let chunk = |lane| {
        let mut out = OutBuf::default();
        let body = Bytes::from(vec![0; CHUNK]);
        out.push(Frame::Chunk { lane, last: false, body });
        let mut pieces = Vec::new();
        out.take(&mut pieces);
        let mut bytes = BytesMut::from(&pieces.concat()[..]);
        frame::split(&mut bytes).expect("well formed").expect("whole")
    };
    let error = (0..10_000).find_map(|_| core.on_body(chunk(1)).err());
    assert_eq!(error, Some(ProtocolError::TooLarge));
    let mut core = Core::default();
    let error = (0..100).find_map(|lane| core.on_body(chunk(lane)).err());
    assert_eq!(error, Some(ProtocolError::TooMany));
}

proptest! {
    /// What one task sends to one actor arrives complete and in order, whatever the sizes.
    #[test]
    fn pairs_keep_their_order(
        sent in proptest::collection::vec((0_u64..3, 1_u64..3, 1_usize..150_000), 1..40),
        turns in 1_usize..5,
    ) {
        let (mut near, mut far) = (Core::default(), Core::default());
        let (link, now) = (link(), Instant::now());
        let mut seen = Vec::new();
        for (number, (from, to, size)) in sent.iter().enumerate() {
            let body = payload(number as u8, *size);
            near.on_command(tell(&link.lane(*to), *from, body), now);
            if number % turns == 0 {
                seen.extend(tells(&carry(&mut near, &mut far)));
            }
        }
        for _ in 0..200 {
            seen.extend(tells(&carry(&mut near, &mut far)));
        }
        prop_assert_eq!(seen.len(), sent.len());
        for (from, to) in (0..3).flat_map(|from| (1..3).map(move |to| (from, to))) {
            let expected: Vec<u8> = sent.iter().enumerate()
                .filter(|(_, s)| (s.0, s.1) == (from, to))
                .map(|(number, _)| number as u8)
                .collect();
            let got: Vec<u8> = seen.iter()
                .filter(|(_, number, _)| expected.contains(number))
                .map(|(_, number, _)| *number)
                .collect();
            prop_assert_eq!(got, expected);
        }
    }

    /// Any sequence of frame bodies from a hostile peer ends in values, never in a panic.
    #[test]
    fn hostile_bodies_do_no_harm(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..50)
    ) {
        let mut core = Core::default();
        for body in bodies {
            let _ = core.on_body(Bytes::from(body));
        }
        core.on_close("end");
    }
}
