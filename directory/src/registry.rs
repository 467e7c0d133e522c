//! The registry of one node: the records it knows, who on this node asked for them, and who of those
//! should hear about a change.
//!
//! It decides and does nothing: each method appends [`Effect`]s, to be carried out in order. It knows
//! neither links nor hosts' fates; [`crate::agent`] feeds it.
//!
//! # What always holds
//! - A subscription sees a record only if its own scope and the record's reach over the distance
//!   between the two: the same process, the same group of one host, the same host, the mesh.
//! - Of an exclusive name a subscription sees one record at most, and it is the nearest; between two
//!   equally near it is the older claim. Of a shared name it sees every instance.
//! - `Dropped` comes before the `Available` that replaces it, and each `Dropped` ends one `Available`.
//!   An `Available` for an instance that is there already tells a change of its record.
//!
//! Checked by the stories below and against a naive model in `registry/tests.rs`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use layercake_wire::id::{HostId, PeerId};

use crate::{
    group::Group,
    index::{Patterns, Shelf},
    name::{Name, Pattern, Scope},
    record::{DropReason, Instance, Record},
};

#[cfg(test)]
mod tests;

/// What a subscriber should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A record is there, or has changed.
    Available { subscription: u64, record: Arc<Record> },
    /// A record has gone.
    Dropped { subscription: u64, record: Arc<Record>, reason: DropReason },
}

/// Where a node is: what distances to records are reckoned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) peer: PeerId,
    pub(crate) group: Option<Group>,
}

impl From<PeerId> for Here {
    fn from(peer: PeerId) -> Self {
        Self { peer, group: None }
    }
}

impl Here {
    /// The smallest scope that holds both this node and a record's publisher.
    pub(crate) fn distance(&self, record: &Record) -> Scope {
        if record.instance.peer() == self.peer {
            Scope::Process
        } else if record.instance.host != self.peer.host {
            Scope::Lan
        } else if self.group.is_some() && self.group == record.group {
            Scope::Group
        } else {
            Scope::Host
        }
    }
}

struct Subscription {
    pattern: Pattern,
    scope: Scope,
    /// The shared records that it has been told of.
    shared: BTreeMap<Instance, Arc<Record>>,
    /// The holder of each exclusive name that it has been told of.
    holders: HashMap<Name, Arc<Record>>,
}

/// See the module.
pub(crate) struct Registry {
    here: Here,
    records: BTreeMap<Instance, Arc<Record>>,
    exclusive: Shelf,
    shared: Shelf,
    subscriptions: BTreeMap<u64, Subscription>,
    patterns: Patterns<u64>,
}

impl Registry {
    pub(crate) fn new(here: Here) -> Self {
        Self {
            here,
            records: BTreeMap::new(),
            exclusive: Shelf::default(),
            shared: Shelf::default(),
            subscriptions: BTreeMap::new(),
            patterns: Patterns::default(),
        }
    }

    /// Adds a record or replaces the one of the same instance.
    pub(crate) fn put(&mut self, record: Arc<Record>, out: &mut Vec<Effect>) {
        if let Some(old) = self.records.get(&record.instance) {
            if *old == record {
                return;
            }
            if (&old.name, old.scope, old.exclusive)
                != (&record.name, record.scope, record.exclusive)
            {
                self.remove(record.instance, DropReason::Withdrawn, out);
            }
        }
        self.records.insert(record.instance, record.clone());
        if record.exclusive {
            self.exclusive.put(record.clone());
            self.choose(&record.name, DropReason::Replaced, out);
            return;
        }
        self.shared.put(record.clone());
        for id in self.patterns.candidates(&record.name, ..) {
            if let Some(subscription) = self.subscriptions.get_mut(&id)
                && subscription.wants(&self.here, &record)
            {
                subscription.shared.insert(record.instance, record.clone());
                out.push(Effect::Available { subscription: id, record: record.clone() });
            }
        }
    }

    /// Takes a record away.
    pub(crate) fn remove(&mut self, instance: Instance, why: DropReason, out: &mut Vec<Effect>) {
        let Some(record) = self.records.remove(&instance) else { return };
        if record.exclusive {
            self.exclusive.remove(&record);
            self.choose(&record.name, why, out);
            return;
        }
        self.shared.remove(&record);
        for id in self.patterns.candidates(&record.name, ..) {
            let subscription = self.subscriptions.get_mut(&id);
            if let Some(record) = subscription.and_then(|s| s.shared.remove(&instance)) {
                out.push(Effect::Dropped { subscription: id, record, reason: why });
            }
        }
    }

    /// Takes away every record that passes a test, with the reason it gives.
    pub(crate) fn remove_where(
        &mut self,
        test: impl Fn(&Record) -> Option<DropReason>,
        out: &mut Vec<Effect>,
    ) {
        let doomed: Vec<_> =
            self.records.values().filter_map(|r| Some((r.instance, test(r)?))).collect();
        self.remove_all(doomed, out);
    }

    /// Takes away whatever a process has published.
    pub(crate) fn remove_of(&mut self, peer: PeerId, why: DropReason, out: &mut Vec<Effect>) {
        let doomed = self.records.range(Instance::all_of(peer)).map(|(at, _)| (*at, why)).collect();
        self.remove_all(doomed, out);
    }

    /// Takes several records away: the nearest holder of a name last, so that none that goes with it
    /// takes its place for a moment.
    pub(crate) fn remove_all(
        &mut self,
        mut doomed: Vec<(Instance, DropReason)>,
        out: &mut Vec<Effect>,
    ) {
        doomed.sort_by_key(|(instance, _)| {
            let record = self.records.get(instance).filter(|record| record.exclusive)?;
            Some(Reverse((self.here.distance(record), record.rank())))
        });
        for (instance, reason) in doomed {
            self.remove(instance, reason, out);
        }
    }

    /// Takes a complete set of the records of one host, this node's own excepted: what is the same
    /// stays untouched, what is missing goes with the reason that `missing` gives.
    pub(crate) fn set_host(
        &mut self,
        host: HostId,
        records: Vec<Arc<Record>>,
        missing: impl Fn(&Record) -> DropReason,
        out: &mut Vec<Effect>,
    ) {
        let me = self.here.peer;
        let listed: BTreeSet<_> = records.iter().map(|r| r.instance).collect();
        let stale = |r: &Record| {
            r.instance.host == host && r.instance.peer() != me && !listed.contains(&r.instance)
        };
        self.remove_where(|r| stale(r).then(|| missing(r)), out);
        for record in records {
            if record.instance.host == host && record.instance.peer() != me {
                self.put(record, out);
            }
        }
    }

    /// Adds a subscription; what matches already is available at once.
    pub(crate) fn subscribe(
        &mut self,
        id: u64,
        pattern: Pattern,
        scope: Scope,
        out: &mut Vec<Effect>,
    ) {
        self.unsubscribe(id);
        let mut subscription = Subscription {
            pattern: pattern.clone(),
            scope,
            shared: BTreeMap::new(),
            holders: HashMap::new(),
        };
        for record in self.shared.matching(&pattern) {
            if subscription.wants(&self.here, record) {
                subscription.shared.insert(record.instance, record.clone());
                out.push(Effect::Available { subscription: id, record: record.clone() });
            }
        }
        // They come in the order of their names.
        let mut last: Option<&Name> = None;
        for claim in self.exclusive.matching(&pattern) {
            if last.replace(&claim.name) == Some(&claim.name) {
                continue;
            }
            if let Some(holder) = subscription.nearest(&self.here, &claim.name, &self.exclusive) {
                out.push(Effect::Available { subscription: id, record: holder.clone() });
                subscription.holders.insert(holder.name.clone(), holder);
            }
        }
        self.patterns.insert(&pattern, id);
        self.subscriptions.insert(id, subscription);
    }

    /// Forgets a subscription, without a word to it.
    pub(crate) fn unsubscribe(&mut self, id: u64) {
        if let Some(subscription) = self.subscriptions.remove(&id) {
            self.patterns.remove(&subscription.pattern, id);
        }
    }

    /// What a subscription should see now.
    #[cfg(test)]
    pub(crate) fn visible(&self, id: u64) -> Vec<Arc<Record>> {
        let Some(subscription) = self.subscriptions.get(&id) else { return Vec::new() };
        subscription.shared.values().chain(subscription.holders.values()).cloned().collect()
    }

    /// The record of this node that a claim at [`Scope::Process`] meets: the holder of an exclusive
    /// name, or any instance of a shared one that is claimed exclusively.
    pub(crate) fn conflict(&self, name: &Name, exclusive: bool) -> Option<&Arc<Record>> {
        let near =
            |r: &&Arc<Record>| r.instance.peer() == self.here.peer && r.scope == Scope::Process;
        let holder = self.exclusive.of(name).find(near);
        holder.or_else(|| exclusive.then(|| self.shared.of(name).find(near))?)
    }

    /// Lets each subscription have the nearest holder of a name. `why` is what became of the old one
    /// where it is not known any more.
    fn choose(&mut self, name: &Name, why: DropReason, out: &mut Vec<Effect>) {
        for id in self.patterns.candidates(name, ..) {
            let Some(subscription) = self.subscriptions.get_mut(&id) else { continue };
            let old = subscription.holders.get(name).cloned();
            let new = subscription.nearest(&self.here, name, &self.exclusive);
            if old == new {
                continue;
            }
            if let Some(record) = old
                && new.as_ref().is_none_or(|new| new.instance != record.instance)
            {
                let known = self.records.contains_key(&record.instance);
                let reason = if known { DropReason::Replaced } else { why };
                subscription.holders.remove(name);
                out.push(Effect::Dropped { subscription: id, record, reason });
            }
            if let Some(record) = new {
                subscription.holders.insert(name.clone(), record.clone());
                out.push(Effect::Available { subscription: id, record });
            }
        }
    }
}

impl Subscription {
    fn wants(&self, here: &Here, record: &Record) -> bool {
        here.distance(record) <= self.scope.min(record.scope) && self.pattern.matches(&record.name)
    }

    fn nearest(&self, here: &Here, name: &Name, exclusive: &Shelf) -> Option<Arc<Record>> {
        let wanted = exclusive.of(name).filter(|record| self.wants(here, record));
        wanted.min_by_key(|record| (here.distance(record), record.rank())).cloned()
    }
}
