//! Stories of one host directory, told without a network.

use bytes::Bytes;

use super::*;
use crate::{
    group::Group,
    message::{Refusal, ToHost},
    name::{Name, Pattern},
    record::MAX_RECORDS,
    testing::{host_config, peer, record},
};

mod lines;
mod paces;

const T0: Duration = Duration::ZERO;
const WALL: u64 = 1000;

fn directory() -> HostCore {
    let mut core = HostCore::new(host_config(), T0);
    let addr = NodeAddr::new(peer(1, 1), &[([10, 0, 0, 1], 7).into()]);
    core.start_lan(addr, T0);
    core
}

/// A directory that knows so many hosts, each with so many names.
pub(crate) fn filled(hosts: u64, names: u64) -> HostCore {
    let mut core = directory();
    for host in 2..2 + hosts {
        let them = peer(host, 9);
        let addr = NodeAddr::new(them, &[([10, 0, 0, 2], 7).into()]);
        let hello = ToPeer::Hello {
            incarnation: 5,
            renewal: 0,
            addr,
            host_name: "h".to_owned(),
            met: false,
        };
        let named = |n| Arc::new(record(them, n, &format!("service:{host}:{n}"), Scope::Lan));
        let snapshot = ToPeer::Snapshot {
            incarnation: 5,
            sequence: 0,
            complete: true,
            nodes: [them.node].into(),
            records: (0..names).map(named).collect(),
            last: true,
        };
        for message in [hello, snapshot] {
            let bytes = message::encode(&message).unwrap();
            core.on_peer(them, message::decode(&bytes).unwrap(), T0, &mut Vec::new());
        }
    }
    core
}

/// Node `node` registers and asks for everything.
fn join(core: &mut HostCore, node: u64) {
    join_in(core, node, None);
}

fn join_in(core: &mut HostCore, node: u64, group: Option<&Group>) {
    let node = peer(1, node).node;
    let pattern = Pattern::new(".*").unwrap();
    for message in [
        ToHost::Register { group: group.cloned(), before: None },
        ToHost::Subscribe { id: 1, pattern, scope: Scope::Lan },
        ToHost::Registered,
    ] {
        core.on_node(node, message, T0, WALL, &mut Vec::new());
    }
}

#[test]
fn nodes_know_where_their_directory_is_though_it_could_not_be_reached_when_they_came() {
    let mut core = HostCore::new(host_config(), T0);
    join(&mut core, 2);
    let addr = NodeAddr::new(peer(1, 1), &[([10, 0, 0, 1], 7).into()]);
    core.start_lan(addr.clone(), T0);
    let mut out = Vec::new();
    core.tell_addr(&mut out);
    assert_eq!(out, [Effect::ToNode { node: peer(1, 2).node, message: ToNode::Welcome { addr } }]);
}

fn publish(core: &mut HostCore, node: u64, record: Record) -> Vec<Effect> {
    let mut out = Vec::new();
    let message = ToHost::Publish(vec![Arc::new(record)]);
    core.on_node(peer(1, node).node, message, T0, WALL, &mut out);
    out
}

/// Another host's directory is linked.
fn meet(core: &mut HostCore, them: PeerId, incarnation: u64) -> Vec<Effect> {
    let mut out = Vec::new();
    let addr = NodeAddr::new(them, &[([10, 0, 0, 2], 7).into()]);
    let hello =
        ToPeer::Hello { incarnation, renewal: 0, addr, host_name: "two".to_owned(), met: false };
    core.on_peer(them, hello, T0, &mut out);
    out
}

/// Whether a hello is among what is to be sent, and if so, whether it says that its sender has met the other.
fn says_hello(out: &[Effect]) -> Option<bool> {
    out.iter().find_map(|effect| match effect {
        Effect::ToPeer { message: ToPeer::Hello { met, .. }, .. } => Some(*met),
        _ => None,
    })
}

#[test]
fn who_says_hello_again_has_not_heard_ours() {
    let (mut core, them) = (directory(), peer(2, 9));
    let mut out = Vec::new();
    core.greet(them, &mut out);
    assert_eq!(says_hello(&out), Some(false), "ours, which goes down with its link");
    assert_eq!(
        says_hello(&meet(&mut core, them, 5)),
        None,
        "theirs is the answer, as far as we know"
    );
    // They look for us again: they have heard nothing.
    assert_eq!(says_hello(&meet(&mut core, them, 5)), Some(true), "so they are answered");
    // Who has met us is not answered for ever.
    let addr = NodeAddr::new(them, &[([10, 0, 0, 2], 7).into()]);
    let host_name = "two".to_owned();
    let hello = ToPeer::Hello { incarnation: 5, renewal: 0, addr, host_name, met: true };
    let mut out = Vec::new();
    core.on_peer(them, hello, T0, &mut out);
    assert_eq!(says_hello(&out), None);
}

fn snapshot(core: &mut HostCore, from: PeerId, sequence: u64, records: Vec<Record>) -> Vec<Effect> {
    let mut out = Vec::new();
    let message = ToPeer::Snapshot {
        incarnation: 5,
        sequence,
        complete: true,
        nodes: [from.node].into(),
        records: records.into_iter().map(Arc::new).collect(),
        last: true,
    };
    core.on_peer(from, message, T0, &mut out);
    out
}

fn delta(core: &mut HostCore, from: PeerId, sequence: u64, put: Vec<Record>) -> Vec<Effect> {
    let mut out = Vec::new();
    let put = put.into_iter().map(Arc::new).collect();
    let message = ToPeer::Delta { incarnation: 5, sequence, put, dropped: Vec::new() };
    core.on_peer(from, message, T0, &mut out);
    out
}

/// The names that a node is told of.
fn put_to(out: &[Effect], node: u64) -> Vec<String> {
    let told = out.iter().filter_map(|effect| match effect {
        Effect::ToNode { node: to, message: ToNode::Changed { put, .. } }
            if *to == peer(1, node).node =>
        {
            Some(put.iter().map(|r| r.name.to_string()))
        }
        _ => None,
    });
    told.flatten().collect()
}

fn asks_for_all(out: &[Effect]) -> bool {
    out.iter().any(|e| matches!(e, Effect::ToPeer { message: ToPeer::Pull, .. }))
}

#[test]
fn a_record_goes_as_far_as_its_scope() {
    let mut core = directory();
    join(&mut core, 2);
    join(&mut core, 3);
    meet(&mut core, peer(2, 9), 5);
    let near = publish(&mut core, 2, record(peer(1, 2), 1, "near", Scope::Host));
    assert_eq!(put_to(&near, 3), ["near"]);
    assert!(put_to(&near, 2).is_empty(), "its own node knows it already");
    assert!(!near.iter().any(|e| matches!(e, Effect::ToPeer { .. })));
    let far = publish(&mut core, 2, record(peer(1, 2), 2, "far", Scope::Lan));
    assert!(far.iter().any(|e| matches!(
        e,
        Effect::ToPeers { message: ToPeer::Delta { sequence: 1, put, .. }, .. } if put.len() == 1
    )));
}

#[test]
fn a_group_keeps_its_names_to_itself_and_has_holders_of_its_own() {
    let mut core = directory();
    let [kitchen, cellar] = ["kitchen", "cellar"].map(|name| Group::new(name).unwrap());
    for (node, group) in [(2, Some(&kitchen)), (3, Some(&kitchen)), (4, Some(&cellar)), (5, None)] {
        join_in(&mut core, node, group);
    }
    meet(&mut core, peer(2, 9), 5);
    let leader = |node, group: Option<&Group>, scope| Record {
        group: group.cloned(),
        exclusive: true,
        ..record(peer(1, node), 1, "leader", scope)
    };
    let out = publish(&mut core, 2, leader(2, Some(&kitchen), Scope::Group));
    assert_eq!([3, 4, 5].map(|node| put_to(&out, node).len()), [1, 0, 0]);
    assert!(!out.iter().any(|e| matches!(e, Effect::ToPeer { .. })));
    let out = publish(&mut core, 4, leader(4, Some(&cellar), Scope::Group));
    assert!(matches!(out[0], Effect::ToNode { message: ToNode::Granted { .. }, .. }), "{out:?}");
    let out = publish(&mut core, 3, leader(3, Some(&kitchen), Scope::Group));
    assert!(matches!(out[0], Effect::ToNode { message: ToNode::Refused { .. }, .. }), "{out:?}");
    let out = publish(&mut core, 3, leader(3, Some(&kitchen), Scope::Host));
    assert_eq!([2, 4, 5].map(|node| put_to(&out, node).len()), [1, 1, 1]);
    assert!(publish(&mut core, 5, leader(5, Some(&cellar), Scope::Group)).is_empty(), "a lie");
    assert!(publish(&mut core, 5, leader(5, None, Scope::Group)).is_empty(), "of no group");
}

#[test]
fn a_gap_is_repaired_by_a_snapshot() {
    let mut core = directory();
    join(&mut core, 2);
    let them = peer(2, 9);
    meet(&mut core, them, 5);
    let name = |n: u64| record(them, n, &format!("n{n}"), Scope::Lan);
    assert!(delta(&mut core, them, 1, vec![name(1)]).is_empty(), "nothing to add it to yet");
    snapshot(&mut core, them, 3, vec![name(1)]);
    assert!(delta(&mut core, them, 3, vec![name(9)]).is_empty(), "it is in the snapshot");
    assert_eq!(put_to(&delta(&mut core, them, 4, vec![name(2)]), 2), ["n2"]);
    assert!(asks_for_all(&delta(&mut core, them, 6, vec![name(4)])));
    assert!(!asks_for_all(&delta(&mut core, them, 7, vec![name(5)])), "once is enough");
    let repaired = snapshot(&mut core, them, 7, (1..=5).map(name).collect());
    assert_eq!(put_to(&repaired, 2), ["n3", "n4", "n5"]);
}

#[test]
fn hosts_that_differ_notice_by_their_digest() {
    let (mut core, them) = (directory(), peer(2, 9));
    meet(&mut core, them, 5);
    let known = record(them, 1, "a", Scope::Lan);
    snapshot(&mut core, them, 3, vec![known.clone()]);
    let mut says = |count, sum| {
        let mut out = Vec::new();
        let message = ToPeer::Digest { incarnation: 5, sequence: 3, count, sum };
        core.on_peer(them, message, T0, &mut out);
        asks_for_all(&out)
    };
    let (count, sum) = digest([Arc::new(known)].iter());
    assert!(!says(count, sum));
    assert!(says(count, sum ^ 1));
}

#[test]
fn a_host_speaks_for_itself_alone_and_only_of_the_mesh() {
    let (mut core, them) = (directory(), peer(2, 9));
    join(&mut core, 2);
    meet(&mut core, them, 5);
    let mut forged = record(them, 4, "forged", Scope::Lan);
    forged.address.node.peer = peer(3, 1);
    let mut huge = record(them, 5, "huge", Scope::Lan);
    huge.meta = Bytes::from(vec![0; 70_000]);
    let lies = vec![
        record(peer(3, 9), 1, "others", Scope::Lan),
        record(peer(1, 2), 2, "ours", Scope::Lan),
        record(them, 3, "inner", Scope::Host),
        forged,
        huge,
        record(them, 6, "true", Scope::Lan),
    ];
    snapshot(&mut core, them, 1, Vec::new());
    assert_eq!(put_to(&delta(&mut core, them, 2, lies), 2), ["true"]);
    let unknown = peer(4, 1);
    assert!(delta(&mut core, unknown, 1, vec![record(unknown, 1, "x", Scope::Lan)]).is_empty());
}

#[test]
fn a_former_directory_is_not_heard_any_more() {
    let (mut core, old, new) = (directory(), peer(2, 8), peer(2, 9));
    join(&mut core, 2);
    meet(&mut core, old, 4);
    meet(&mut core, new, 5);
    snapshot(&mut core, new, 1, vec![record(new, 1, "a", Scope::Lan)]);
    let later = Effect::ToPeer { peer: old, message: ToPeer::Later(5) };
    assert_eq!(meet(&mut core, old, 4), [later], "in case it lives");
    assert!(snapshot(&mut core, old, 9, Vec::new()).is_empty());
    core.on_peer_down(old, T0);
    assert_eq!(core.hosts()[1].records, 1);
    assert!(core.hosts()[1].linked);
}

#[test]
fn a_directory_that_others_remember_as_later_rises_above_it_and_not_for_ever() {
    let (mut core, them) = (directory(), peer(2, 9));
    meet(&mut core, them, 5);
    let mut says = |known| {
        let mut out = Vec::new();
        core.on_peer(them, ToPeer::Later(known), T0, &mut out);
        out.into_iter().find_map(|effect| match effect {
            Effect::ToPeer { message: ToPeer::Hello { incarnation, .. }, .. } => Some(incarnation),
            _ => None,
        })
    };
    assert_eq!(says(6), None, "it is above that already");
    let raised: Vec<_> = (1..=10).map(|n| says(n * 100)).collect();
    let expected: Vec<_> = (1..=10).map(|n| (n <= 8).then_some(n * 100 + 1)).collect();
    assert_eq!(raised, expected);
}

#[test]
fn a_name_that_another_host_holds_is_refused() {
    let (mut core, them) = (directory(), peer(2, 9));
    join(&mut core, 2);
    meet(&mut core, them, 5);
    let mut held = record(them, 1, "leader", Scope::Lan);
    held.exclusive = true;
    snapshot(&mut core, them, 1, vec![held.clone()]);
    let mut claim = record(peer(1, 2), 1, "leader", Scope::Lan);
    claim.exclusive = true;
    let out = publish(&mut core, 2, claim.clone());
    assert!(matches!(
        &out[..],
        [Effect::ToNode { message: ToNode::Refused { reason: Refusal::Held(by), .. }, .. }]
            if **by == held
    ));
    claim.scope = Scope::Host;
    let out = publish(&mut core, 2, claim);
    assert!(matches!(out[0], Effect::ToNode { message: ToNode::Granted { .. }, .. }), "{out:?}");
}

#[test]
fn a_node_has_only_so_many_records() {
    let mut core = directory();
    join(&mut core, 2);
    let records = |range: std::ops::Range<u64>| {
        range.map(|n| Arc::new(record(peer(1, 2), n, "a", Scope::Host))).collect()
    };
    let mut out = Vec::new();
    let node = peer(1, 2).node;
    // Which of them says that the node is there does not matter here: one more has room for that.
    let all = MAX_RECORDS as u64 + 1;
    core.on_node(node, ToHost::Publish(records(0..all)), T0, WALL, &mut out);
    assert!(
        !out.iter().any(|e| matches!(e, Effect::ToNode { message: ToNode::Refused { .. }, .. }))
    );
    out.clear();
    let one_more = all..all + 1;
    let later = Duration::from_secs(60);
    core.on_node(node, ToHost::Publish(records(one_more)), later, WALL, &mut out);
    assert!(matches!(
        &out[..],
        [Effect::ToNode { message: ToNode::Refused { reason: Refusal::TooMany, .. }, .. }]
    ));
}

#[test]
fn what_is_not_asked_for_any_more_is_taken_away() {
    let mut core = directory();
    join(&mut core, 2);
    join(&mut core, 3);
    publish(&mut core, 3, record(peer(1, 3), 1, "a", Scope::Host));
    let mut out = Vec::new();
    core.on_node(peer(1, 2).node, ToHost::Unsubscribe(1), T0, WALL, &mut out);
    assert!(matches!(
        &out[..],
        [Effect::ToNode { message: ToNode::Changed { put, dropped }, .. }]
            if put.is_empty() && dropped.len() == 1
    ));
    assert!(put_to(&publish(&mut core, 3, record(peer(1, 3), 2, "b", Scope::Host)), 2).is_empty());
}

/// What a node says to be there.
fn presence(of: PeerId) -> Record {
    Record { name: Name::presence(of.node), ..record(of, 77, "a", Scope::Lan) }
}

#[test]
fn presences_are_for_those_who_ask_for_them_alone() {
    let mut core = directory();
    join(&mut core, 2);
    join(&mut core, 3);
    let node = peer(1, 3).node;
    let (pattern, scope) = (Pattern::presences(), Scope::Lan);
    let message = ToHost::Subscribe { id: 2, pattern, scope };
    core.on_node(node, message, T0, WALL, &mut Vec::new());
    let out = publish(&mut core, 2, presence(peer(1, 2)));
    assert_eq!(put_to(&out, 3), [Name::presence(peer(1, 2).node).to_string()]);
    assert_eq!(core.hosts()[0].records, 0, "it is not offered to anybody");
    join(&mut core, 4);
    assert!(put_to(&out, 2).is_empty() && put_to(&out, 4).is_empty());
    let out = publish(&mut core, 2, record(peer(1, 2), 1, "b", Scope::Lan));
    assert_eq!((put_to(&out, 3), put_to(&out, 4)), (vec!["b".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn a_node_may_have_its_own_presence_and_no_other_name_of_the_system() {
    let mut core = directory();
    join(&mut core, 2);
    let own = presence(peer(1, 2));
    let other = Record { name: Name::presence(peer(1, 3).node), ..own.clone() };
    let near = Record { scope: Scope::Host, ..own.clone() };
    let only = Record { exclusive: true, ..own.clone() };
    let large = Record { meta: Bytes::from_static(b"x"), ..own.clone() };
    for lie in [other, near, only, large] {
        assert!(publish(&mut core, 2, lie).is_empty());
    }
    assert!(!publish(&mut core, 2, own).is_empty());
    let them = peer(2, 9);
    meet(&mut core, them, 5);
    join(&mut core, 4);
    let (pattern, scope) = (Pattern::presences(), Scope::Lan);
    let message = ToHost::Subscribe { id: 2, pattern, scope };
    core.on_node(peer(1, 4).node, message, T0, WALL, &mut Vec::new());
    snapshot(&mut core, them, 1, Vec::new());
    let lie = Record { name: Name::presence(peer(2, 8).node), ..presence(them) };
    assert!(put_to(&delta(&mut core, them, 2, vec![lie]), 4).is_empty());
    let told = delta(&mut core, them, 3, vec![presence(them)]);
    assert_eq!(put_to(&told, 4), [Name::presence(them.node).to_string()]);
    assert_eq!((core.hosts()[1].nodes, core.hosts()[1].records), (1, 0));
}
