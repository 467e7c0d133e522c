//! Stories of one registry, and nearest-wins against a naive model under any order of events.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::{peer, record};

fn registry() -> Registry {
    Registry::new(peer(1, 1).into())
}

/// `+host/node/serial` and `-host/node/serial reason`, without the subscription.
fn told(out: &mut Vec<Effect>) -> Vec<String> {
    let short = |r: &Record| {
        let (host, node) = (r.instance.host.to_bits(), r.instance.node.to_bits());
        format!("{host}/{node}/{}", r.instance.serial)
    };
    out.drain(..)
        .map(|effect| match effect {
            Effect::Available { record, .. } => format!("+{}", short(&record)),
            Effect::Dropped { record, reason, .. } => format!("-{} {reason}", short(&record)),
        })
        .collect()
}

fn exclusive(host: u64, node: u64, scope: Scope) -> Arc<Record> {
    let mut record = record(peer(host, node), 1, "leader", scope);
    record.exclusive = true;
    Arc::new(record)
}

fn shared(host: u64, node: u64, scope: Scope) -> Arc<Record> {
    Arc::new(record(peer(host, node), 1, "worker", scope))
}

#[test]
fn a_nearer_holder_replaces_a_further_one_and_falls_back_when_it_goes() {
    let (mut registry, mut out) = (registry(), Vec::new());
    registry.subscribe(1, Pattern::new("lead.*").unwrap(), Scope::Lan, &mut out);
    registry.put(exclusive(2, 1, Scope::Lan), &mut out);
    assert_eq!(told(&mut out), ["+2/1/1"]);
    registry.put(exclusive(1, 2, Scope::Host), &mut out);
    assert_eq!(told(&mut out), ["-2/1/1 replaced by a nearer one", "+1/2/1"]);
    registry.put(exclusive(3, 1, Scope::Lan), &mut out);
    assert!(told(&mut out).is_empty(), "a further one changes nothing");
    let near = exclusive(1, 2, Scope::Host).instance;
    registry.remove(near, DropReason::ProcessDied, &mut out);
    assert_eq!(told(&mut out), ["-1/2/1 process died", "+2/1/1"]);
}

#[test]
fn every_instance_of_a_shared_name_is_seen() {
    let (mut registry, mut out) = (registry(), Vec::new());
    registry.put(shared(1, 1, Scope::Process), &mut out);
    registry.put(shared(1, 2, Scope::Host), &mut out);
    registry.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out);
    registry.put(shared(2, 1, Scope::Lan), &mut out);
    assert_eq!(told(&mut out), ["+1/1/1", "+1/2/1", "+2/1/1"]);
}

#[test]
fn a_subscription_sees_no_further_than_its_scope() {
    for (scope, expected) in [
        (Scope::Process, vec!["+1/1/1"]),
        (Scope::Host, vec!["+1/1/1", "+1/2/1"]),
        (Scope::Lan, vec!["+1/1/1", "+1/2/1", "+2/1/1"]),
    ] {
        let (mut registry, mut out) = (registry(), Vec::new());
        for (host, node) in [(1, 1), (1, 2), (2, 1)] {
            registry.put(shared(host, node, Scope::Lan), &mut out);
        }
        registry.subscribe(1, Pattern::new(".*").unwrap(), scope, &mut out);
        assert_eq!(told(&mut out), expected, "{scope}");
    }
}

#[test]
fn a_record_is_seen_no_further_than_its_scope() {
    let (mut registry, mut out) = (registry(), Vec::new());
    registry.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out);
    registry.put(shared(2, 1, Scope::Host), &mut out);
    registry.put(shared(1, 2, Scope::Process), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_group_sees_its_own_names_and_nearer_ones_first() {
    let kitchen = Group::new("kitchen").unwrap();
    let here = Here { peer: peer(1, 1), group: Some(kitchen.clone()) };
    let (mut registry, mut out) = (Registry::new(here), Vec::new());
    let of = |record: Arc<Record>, group: &str| {
        Arc::new(Record { group: Some(Group::new(group).unwrap()), ..(*record).clone() })
    };
    registry.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out);
    registry.subscribe(2, Pattern::new(".*").unwrap(), Scope::Group, &mut out);
    registry.put(of(exclusive(1, 2, Scope::Group), "cellar"), &mut out);
    assert!(out.is_empty(), "another group is another world");
    registry.put(of(exclusive(1, 2, Scope::Host), "cellar"), &mut out);
    assert_eq!(told(&mut out), ["+1/2/1"], "beyond its group it is seen");
    registry.put(of(exclusive(1, 3, Scope::Lan), "kitchen"), &mut out);
    assert_eq!(told(&mut out), ["-1/2/1 replaced by a nearer one", "+1/3/1", "+1/3/1"]);
    registry.put(of(exclusive(2, 1, Scope::Group), "kitchen"), &mut out);
    assert!(out.is_empty(), "groups are of one host");
}

#[test]
fn a_complete_set_changes_only_what_differs() {
    let (mut registry, mut out) = (registry(), Vec::new());
    registry.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out);
    for node in [1, 2] {
        registry.put(shared(2, node, Scope::Lan), &mut out);
    }
    registry.put(shared(1, 1, Scope::Lan), &mut out);
    out.clear();
    let same = vec![shared(2, 1, Scope::Lan), shared(2, 2, Scope::Lan)];
    registry.set_host(peer(2, 1).host, same, |_| DropReason::ProcessDied, &mut out);
    assert!(out.is_empty(), "a directory that takes over tells nothing new");
    let fewer = vec![shared(2, 1, Scope::Lan), shared(2, 3, Scope::Lan)];
    registry.set_host(peer(2, 1).host, fewer, |_| DropReason::ProcessDied, &mut out);
    assert_eq!(told(&mut out), ["-2/2/1 process died", "+2/3/1"]);
    registry.set_host(peer(1, 1).host, Vec::new(), |_| DropReason::ProcessDied, &mut out);
    assert!(out.is_empty(), "a node knows its own records best");
}

#[test]
fn a_changed_record_is_told_without_a_drop() {
    let (mut registry, mut out) = (registry(), Vec::new());
    registry.subscribe(1, Pattern::new(".*").unwrap(), Scope::Lan, &mut out);
    let record = exclusive(2, 1, Scope::Lan);
    registry.put(record.clone(), &mut out);
    registry.put(Arc::new(Record { fence: 99, ..(*record).clone() }), &mut out);
    assert_eq!(told(&mut out), ["+2/1/1", "+2/1/1"]);
    assert_eq!(registry.visible(1)[0].fence, 99);
}

#[derive(Debug, Clone)]
enum Step {
    Put(Record),
    Remove(Instance),
    Subscribe(u64, u8, Scope),
    Unsubscribe(u64),
    SetHost(u64, Vec<Record>),
}

/// Nodes 1 and 2 of each host are in its group, the third is in none. All groups have the same name.
fn group_of(peer: PeerId) -> Option<Group> {
    (peer.node.to_bits() < 3).then(|| Group::new("kitchen").unwrap())
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Process), Just(Scope::Group), Just(Scope::Host), Just(Scope::Lan)]
}

/// The smallest scope that holds two nodes, worked out the long way.
fn model_distance(me: PeerId, record: &Record) -> Scope {
    let them = record.instance.peer();
    match (me == them, me.host == them.host, group_of(me), group_of(them)) {
        (true, ..) => Scope::Process,
        (_, false, ..) => Scope::Lan,
        (_, _, Some(ours), Some(theirs)) if ours == theirs => Scope::Group,
        _ => Scope::Host,
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    (1..4_u64, 1..4_u64, 0..3_u64, 0..2_u8, any_scope(), 0..3_u64, any::<bool>()).prop_map(
        |(host, node, serial, name, scope, claimed, exclusive)| {
            let name = ["a", "b"][usize::from(name)];
            let mut record = record(peer(host, node), serial, name, scope);
            record.exclusive = exclusive;
            record.claimed = claimed;
            record.group = group_of(peer(host, node));
            record
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_record().prop_map(Step::Put),
        2 => any_record().prop_map(|r| Step::Remove(r.instance)),
        1 => (0..3_u64, 0..3_u8, any_scope()).prop_map(|(id, p, s)| Step::Subscribe(id, p, s)),
        1 => (0..3_u64).prop_map(Step::Unsubscribe),
        1 => (1..4_u64, prop::collection::vec(any_record(), 0..4)).prop_map(|(host, mut records)| {
            records.iter_mut().for_each(|r| {
                r.instance.host = HostId::from_bits(host);
            });
            records.sort_by_key(|r| r.instance);
            records.dedup_by_key(|r| r.instance);
            Step::SetHost(host, records)
        }),
    ]
}

/// What a subscription should see, worked out from nothing but the records.
fn expected(
    me: PeerId,
    records: &BTreeMap<Instance, Record>,
    pattern: &Pattern,
    scope: Scope,
) -> BTreeMap<Instance, Record> {
    let reach = |r: &&Record| {
        let distance = model_distance(me, r);
        distance <= scope && distance <= r.scope && pattern.matches(&r.name)
    };
    let mut seen = BTreeMap::new();
    for record in records.values().filter(reach) {
        let beaten = records.values().filter(reach).any(|other| {
            other.exclusive
                && other.name == record.name
                && (model_distance(me, other), other.claimed, other.instance)
                    < (model_distance(me, record), record.claimed, record.instance)
        });
        if !record.exclusive || !beaten {
            seen.insert(record.instance, record.clone());
        }
    }
    seen
}

proptest! {
    #[test]
    fn subscribers_see_the_nearest_under_any_order(
        node in 1..4_u64,
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let me = peer(1, node);
        let mut registry = Registry::new(Here { peer: me, group: group_of(me) });
        let mut records = BTreeMap::new();
        let mut views: BTreeMap<u64, (Pattern, Scope, BTreeMap<Instance, Record>)> = BTreeMap::new();
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::Put(record) => {
                    records.insert(record.instance, record.clone());
                    registry.put(Arc::new(record), &mut out);
                }
                Step::Remove(instance) => {
                    records.remove(&instance);
                    registry.remove(instance, DropReason::Withdrawn, &mut out);
                }
                Step::Subscribe(id, pattern, scope) => {
                    registry.unsubscribe(id);
                    let pattern = Pattern::new(["a", "b", ".*"][usize::from(pattern)]).unwrap();
                    views.insert(id, (pattern.clone(), scope, BTreeMap::new()));
                    registry.subscribe(id, pattern, scope, &mut out);
                }
                Step::Unsubscribe(id) => {
                    views.remove(&id);
                    registry.unsubscribe(id);
                }
                Step::SetHost(host, listed) => {
                    records.retain(|i, _| i.host.to_bits() != host || i.peer() == me);
                    for record in listed.iter().filter(|r| r.instance.peer() != me) {
                        records.insert(record.instance, record.clone());
                    }
                    let listed = listed.into_iter().map(Arc::new).collect();
                    let host = HostId::from_bits(host);
                    registry.set_host(host, listed, |_| DropReason::Withdrawn, &mut out);
                }
            }
            for effect in out {
                match effect {
                    Effect::Available { subscription, record } => {
                        let view = &mut views.get_mut(&subscription).expect("it is live").2;
                        view.insert(record.instance, (*record).clone());
                    }
                    Effect::Dropped { subscription, record, .. } => {
                        let view = &mut views.get_mut(&subscription).expect("it is live").2;
                        prop_assert!(view.remove(&record.instance).is_some(), "dropped twice");
                    }
                }
            }
            for (id, (pattern, scope, view)) in &views {
                prop_assert_eq!(view, &expected(me, &records, pattern, *scope));
                let resync: BTreeMap<_, _> =
                    registry.visible(*id).iter().map(|r| (r.instance, (**r).clone())).collect();
                prop_assert_eq!(view, &resync);
            }
        }
    }
}
