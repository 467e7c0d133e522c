//! Stories of one node and its host directory, told without a link.

use super::*;
use crate::testing::{peer, record};

const ME: (u64, u64) = (1, 1);

fn agent() -> (Agent, Vec<Effect>) {
    (Agent::new(peer(ME.0, ME.1)), Vec::new())
}

fn draft(name: &str, scope: Scope, exclusive: bool) -> Draft {
    Draft { name: Name::new(name).unwrap(), scope, exclusive, actor: 7, meta: Bytes::new() }
}

fn addr() -> NodeAddr {
    NodeAddr::new(peer(ME.0, ME.1), &[])
}

fn to_host(out: &mut Vec<Effect>) -> Vec<ToHost> {
    out.drain(..)
        .filter_map(|effect| match effect {
            Effect::ToHost(message) => Some(message),
            _ => None,
        })
        .collect()
}

#[test]
fn a_name_within_the_process_needs_no_directory() {
    let (mut agent, mut out) = agent();
    assert!(agent.subscribe(1, Pattern::new("a").unwrap(), Scope::Process, &mut out));
    agent.publish(draft("a", Scope::Process, true), false, addr(), 5, &mut out);
    assert!(matches!(out[0], Effect::Tell(registry::Effect::Available { .. })), "{out:?}");
    assert!(matches!(out[1], Effect::Granted(_)) && !agent.needs_host());
    out.clear();
    agent.publish(draft("a", Scope::Process, false), false, addr(), 5, &mut out);
    let Effect::Refused { reason: Refusal::Held(holder), .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(holder.instance.serial, 1, "it says who holds it");
}

#[test]
fn a_wider_name_is_visible_once_it_is_granted() {
    let (mut agent, mut out) = agent();
    assert!(agent.subscribe(1, Pattern::new("a").unwrap(), Scope::Process, &mut out));
    let serial = agent.publish(draft("a", Scope::Lan, false), false, addr(), 5, &mut out);
    assert!(out.is_empty() && agent.needs_host());
    agent.on_host_up(&mut out);
    let said = to_host(&mut out);
    assert!(
        matches!(&said[..], [ToHost::Register { .. }, ToHost::Publish(p), ToHost::Registered]
        if p[0].fence == 0),
        "{said:?}"
    );
    agent.on_host(ToNode::Granted { serial, claimed: 5, fence: 9 }, &mut out);
    assert_eq!(out.len(), 2, "{out:?}");
}

#[test]
fn a_new_directory_gets_everything_again_and_subscribers_notice_nothing() {
    let (mut agent, mut out) = agent();
    let serial = agent.publish(draft("a", Scope::Lan, true), false, addr(), 5, &mut out);
    assert!(agent.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out));
    agent.on_host_up(&mut out);
    agent.on_host(ToNode::Granted { serial, claimed: 5, fence: 9 }, &mut out);
    let far = Arc::new(record(peer(2, 1), 1, "b", Scope::Lan));
    let put = vec![far.clone()];
    agent.on_host(ToNode::Changed { put, dropped: Vec::new() }, &mut out);
    out.clear();

    agent.on_host_down(None, &mut out);
    agent.on_host_up(&mut out);
    let said = to_host(&mut out);
    let ToHost::Publish(again) = &said[1] else { panic!("{said:?}") };
    assert_eq!((again[0].claimed, again[0].fence), (5, 9), "the grant is kept");
    let view = |records, last| ToNode::View {
        host: far.instance.host,
        nodes: [far.instance.node].into(),
        records,
        last,
    };
    agent.on_host(view(vec![far.clone()], false), &mut out);
    agent.on_host(view(Vec::new(), true), &mut out);
    assert!(out.is_empty(), "{out:?}");
    agent.on_host(ToNode::Known(BTreeSet::new()), &mut out);
    assert!(matches!(
        &out[..],
        [Effect::Tell(registry::Effect::Dropped { reason: DropReason::HostLost, .. })]
    ));
}

#[test]
fn an_older_claim_takes_a_name_away_and_its_holder_is_told() {
    let (mut agent, mut out) = agent();
    agent.on_host_up(&mut out);
    let serial = agent.publish(draft("a", Scope::Lan, true), false, addr(), 5, &mut out);
    agent.on_host(ToNode::Granted { serial, claimed: 5, fence: 9 }, &mut out);
    out.clear();
    let holder = Arc::new(record(peer(2, 1), 1, "a", Scope::Lan));
    let reason = Refusal::Held(holder.clone());
    agent.on_host(ToNode::Refused { serial, reason }, &mut out);
    assert_eq!(out, [Effect::Lost { serial, holder }]);
}

#[test]
fn nobody_else_speaks_for_this_nodes_records() {
    let (mut agent, mut out) = agent();
    assert!(agent.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out));
    agent.on_host_up(&mut out);
    let serial = agent.publish(draft("a", Scope::Lan, false), false, addr(), 5, &mut out);
    agent.on_host(ToNode::Granted { serial, claimed: 5, fence: 9 }, &mut out);
    out.clear();
    let me = peer(ME.0, ME.1);
    let instance = Instance { host: me.host, node: me.node, serial };
    let dropped = vec![(instance, DropReason::HostLost)];
    agent.on_host(ToNode::Changed { put: Vec::new(), dropped }, &mut out);
    agent.on_host(ToNode::ProcessGone(me), &mut out);
    agent.on_host(ToNode::HostGone(me.host), &mut out);
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn a_node_says_once_that_it_is_there_and_to_each_directory_again() {
    let (mut agent, mut out) = agent();
    agent.be_present(&mut out);
    agent.be_present(&mut out);
    assert!(out.is_empty() && agent.needs_host());
    agent.on_host_up(&mut out);
    let said = to_host(&mut out);
    let ToHost::Publish(records) = &said[1] else { panic!("{said:?}") };
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].name, Name::presence(peer(ME.0, ME.1).node));
    assert!(records[0].is_sound(peer(ME.0, ME.1)), "{records:?}");
    agent.on_address(&NodeAddr::new(peer(ME.0, ME.1), &[([10, 0, 0, 9], 7).into()]), &mut out);
    assert!(out.is_empty(), "where it is does not matter");
    agent.on_host_down(None, &mut out);
    agent.on_host_up(&mut out);
    assert_eq!(to_host(&mut out)[1], said[1], "{said:?}");
    agent.withdraw_all(&mut out);
    assert_eq!(to_host(&mut out), [ToHost::Withdraw(records[0].instance.serial)]);
}

#[test]
fn watches_take_no_room_from_subscriptions() {
    let (mut agent, mut out) = agent();
    agent.watch_presences(&mut out);
    agent.be_present(&mut out);
    let all = || Pattern::new(".*").unwrap();
    for id in 0..MAX_SUBSCRIPTIONS as u64 {
        assert!(agent.subscribe(id, all(), Scope::Lan, &mut out));
    }
    assert!(!agent.subscribe(5000, all(), Scope::Lan, &mut out));
    agent.unwatch_presences(&mut out);
    assert!(!agent.subscribe(5000, all(), Scope::Lan, &mut out));
    agent.watch_presences(&mut out);
    assert!(agent.subscriptions.contains_key(&PRESENCES));
}

#[test]
fn a_watch_that_begins_while_an_old_one_is_taken_back_hears_nothing_false() {
    let (mut agent, mut out) = agent();
    agent.on_host_up(&mut out);
    agent.watch_presences(&mut out);
    let name = Name::presence(peer(2, 9).node);
    let there =
        Arc::new(Record { name, meta: Bytes::new(), ..record(peer(2, 9), 1, "a", Scope::Lan) });
    let come = || ToNode::Changed { put: vec![there.clone()], dropped: Vec::new() };
    agent.on_host(come(), &mut out);
    agent.unwatch_presences(&mut out);
    out.clear();
    agent.watch_presences(&mut out);
    let dropped = vec![(there.instance, DropReason::Withdrawn)];
    agent.on_host(ToNode::Changed { put: Vec::new(), dropped }, &mut out);
    assert!(!out.iter().any(|effect| matches!(effect, Effect::Tell(_))), "{out:?}");
    agent.on_host(come(), &mut out);
    assert!(matches!(
        out.last(),
        Some(Effect::Tell(registry::Effect::Available { subscription: PRESENCES, .. }))
    ));
}

#[test]
fn a_moved_node_tells_its_new_address() {
    let (mut agent, mut out) = agent();
    let at = |ports: &[u16]| {
        let hints: Vec<_> = ports.iter().map(|port| ([10, 0, 0, 9], *port).into()).collect();
        NodeAddr::new(peer(ME.0, ME.1), &hints)
    };
    agent.on_host_up(&mut out);
    let serial = agent.publish(draft("a", Scope::Lan, false), false, at(&[7]), 5, &mut out);
    agent.on_host(ToNode::Granted { serial, claimed: 5, fence: 9 }, &mut out);
    out.clear();
    agent.on_address(&at(&[7, 8]), &mut out);
    assert!(out.is_empty(), "one more is no news");
    let moved = at(&[9]);
    agent.on_address(&moved, &mut out);
    let said = to_host(&mut out);
    assert!(
        matches!(&said[..], [ToHost::Publish(p)]
        if p[0].address.node == moved && p[0].fence == 9),
        "{said:?}"
    );
    agent.on_address(&moved, &mut out);
    assert!(out.is_empty());
}

#[test]
fn within_a_process_those_who_wait_are_served_in_order_without_a_directory() {
    let (mut agent, mut out) = agent();
    let [holder, second, third] = [5, 6, 6]
        .map(|wall| agent.publish(draft("a", Scope::Process, true), true, addr(), wall, &mut out));
    assert!(agent.publish(draft("a", Scope::Process, true), false, addr(), 7, &mut out) > third);
    let granted = |out: &mut Vec<Effect>| -> Vec<(u64, u64)> {
        let granted = out.drain(..).filter_map(|effect| match effect {
            Effect::Granted(r) => Some((r.instance.serial, r.fence)),
            _ => None,
        });
        granted.collect()
    };
    assert!(matches!(&out[1], Effect::Waiting(r) if r.instance.serial == second), "{out:?}");
    assert!(matches!(out.last(), Some(Effect::Refused { .. })), "{out:?}");
    let mut fences = granted(&mut out);
    assert_eq!((fences.len(), fences[0].0), (1, holder));
    agent.withdraw(holder, &mut out);
    fences.extend(granted(&mut out));
    agent.withdraw(second, &mut out);
    fences.extend(granted(&mut out));
    assert_eq!(
        fences.iter().map(|(serial, _)| *serial).collect::<Vec<_>>(),
        [holder, second, third]
    );
    assert!(fences.is_sorted_by(|a, b| a.1 < b.1), "{fences:?}");
    assert!(!agent.needs_host());
}

#[test]
fn a_claim_keeps_its_place_in_the_line_through_take_overs() {
    let (mut agent, mut out) = agent();
    agent.on_host_up(&mut out);
    let serial = agent.publish(draft("a", Scope::Lan, true), true, addr(), 5, &mut out);
    out.clear();
    agent.on_host(ToNode::Waiting { serial, claimed: 8 }, &mut out);
    assert!(matches!(&out[..], [Effect::Waiting(r)] if r.waiting && r.claimed == 8), "{out:?}");
    agent.on_host(ToNode::Fences(900), &mut out);
    out.clear();
    agent.on_host_down(None, &mut out);
    agent.on_host_up(&mut out);
    let said = to_host(&mut out);
    let [ToHost::Register { before: Some(900), .. }, ToHost::Publish(again), ..] = &said[..] else {
        panic!("{said:?}")
    };
    assert!(again[0].waiting && again[0].claimed == 8 && again[0].fence == 0);
    agent.on_host(ToNode::Granted { serial, claimed: 8, fence: 950 }, &mut out);
    assert!(matches!(out.last(), Some(Effect::Granted(r)) if !r.waiting && r.fence == 950));
}

#[test]
fn who_waits_for_the_directory_waits_for_the_next_one_too() {
    let (mut agent, mut out) = agent();
    agent.on_host_up(&mut out);
    out.clear();
    agent.sync(3, &mut out);
    assert_eq!(to_host(&mut out), [ToHost::Sync(3)]);
    agent.on_host_down(None, &mut out);
    agent.on_host_up(&mut out);
    assert_eq!(to_host(&mut out)[2..], [ToHost::Registered, ToHost::Sync(3)]);
    agent.on_host(ToNode::Synced(3), &mut out);
    agent.on_host(ToNode::Synced(3), &mut out);
    assert_eq!(out, [Effect::Synced(3)], "told once");
}

#[test]
fn a_node_notices_that_its_directory_is_behind() {
    let (mut agent, mut out) = agent();
    agent.on_host_up(&mut out);
    let mut said = 0;
    while !agent.is_ahead() {
        let serial = agent.publish(draft("a", Scope::Host, false), false, addr(), 5, &mut out);
        agent.withdraw(serial, &mut out);
        said += 2;
        assert!(said <= WINDOW, "it is told how far the directory is");
    }
    assert_eq!(said, WINDOW);
    agent.on_host(ToNode::Synced(MARKED), &mut out);
    assert!(!agent.is_ahead());
}
