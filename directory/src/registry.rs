//! The registry of one node: the records it knows, who on this node asked for them, and who of those
//! should hear about a change.
//!
//! It decides and does nothing: each method appends [`Effect`]s, to be carried out in order. It knows
//! neither links nor hosts' fates; [`crate::agent`] feeds it.
//!
//! # What always holds
//! - A subscription sees a record only if its own scope and the record's reach over the distance
//!   between the two: the same process, the same host, the mesh.
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
    me: PeerId,
    records: BTreeMap<Instance, Arc<Record>>,
    exclusive: HashMap<Name, BTreeSet<Instance>>,
    subscriptions: BTreeMap<u64, Subscription>,
}

impl Registry {
    pub(crate) fn new(me: PeerId) -> Self {
        Self {
            me,
            records: BTreeMap::new(),
            exclusive: HashMap::new(),
            subscriptions: BTreeMap::new(),
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
            self.exclusive.entry(record.name.clone()).or_default().insert(record.instance);
            self.choose(&record.name, DropReason::Replaced, out);
            return;
        }
        for (id, subscription) in &mut self.subscriptions {
            if subscription.wants(self.me, &record) {
                subscription.shared.insert(record.instance, record.clone());
                out.push(Effect::Available { subscription: *id, record: record.clone() });
            }
        }
    }

    /// Takes a record away.
    pub(crate) fn remove(&mut self, instance: Instance, why: DropReason, out: &mut Vec<Effect>) {
        let Some(record) = self.records.remove(&instance) else { return };
        if record.exclusive {
            if let Some(claims) = self.exclusive.get_mut(&record.name) {
                claims.remove(&instance);
                if claims.is_empty() {
                    self.exclusive.remove(&record.name);
                }
            }
            self.choose(&record.name, why, out);
            return;
        }
        for (id, subscription) in &mut self.subscriptions {
            if let Some(record) = subscription.shared.remove(&instance) {
                out.push(Effect::Dropped { subscription: *id, record, reason: why });
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

    /// Takes several records away: the nearest holder of a name last, so that none that goes with it
    /// takes its place for a moment.
    pub(crate) fn remove_all(
        &mut self,
        mut doomed: Vec<(Instance, DropReason)>,
        out: &mut Vec<Effect>,
    ) {
        doomed.sort_by_key(|(instance, _)| {
            let record = self.records.get(instance).filter(|record| record.exclusive)?;
            Some(Reverse((distance(self.me, record), record.rank())))
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
        let me = self.me;
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
        let mut subscription =
            Subscription { pattern, scope, shared: BTreeMap::new(), holders: HashMap::new() };
        for record in self.records.values().filter(|r| !r.exclusive) {
            if subscription.wants(self.me, record) {
                subscription.shared.insert(record.instance, record.clone());
                out.push(Effect::Available { subscription: id, record: record.clone() });
            }
        }
        for claims in self.exclusive.values() {
            if let Some(holder) = subscription.nearest(self.me, claims, &self.records) {
                out.push(Effect::Available { subscription: id, record: holder.clone() });
                subscription.holders.insert(holder.name.clone(), holder);
            }
        }
        self.subscriptions.insert(id, subscription);
    }

    /// Forgets a subscription, without a word to it.
    pub(crate) fn unsubscribe(&mut self, id: u64) {
        self.subscriptions.remove(&id);
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
        let near = |r: &&Arc<Record>| r.instance.peer() == self.me && r.scope == Scope::Process;
        let holders = self.exclusive.get(name).into_iter().flatten();
        let holder = holders.filter_map(|instance| self.records.get(instance)).find(near);
        // Only an exclusive claim pays for a look at everything.
        holder.or_else(|| {
            exclusive.then(|| self.records.values().filter(near).find(|r| r.name == *name))?
        })
    }

    /// Lets each subscription have the nearest holder of a name. `why` is what became of the old one
    /// where it is not known any more.
    fn choose(&mut self, name: &Name, why: DropReason, out: &mut Vec<Effect>) {
        static NONE: BTreeSet<Instance> = BTreeSet::new();
        let claims = self.exclusive.get(name).unwrap_or(&NONE);
        for (id, subscription) in &mut self.subscriptions {
            let id = *id;
            let old = subscription.holders.get(name).cloned();
            let new = subscription.nearest(self.me, claims, &self.records);
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
    fn wants(&self, me: PeerId, record: &Record) -> bool {
        distance(me, record) <= self.scope.min(record.scope) && self.pattern.matches(&record.name)
    }

    fn nearest(
        &self,
        me: PeerId,
        claims: &BTreeSet<Instance>,
        records: &BTreeMap<Instance, Arc<Record>>,
    ) -> Option<Arc<Record>> {
        let claims = claims.iter().filter_map(|instance| records.get(instance));
        let wanted = claims.filter(|record| self.wants(me, record));
        wanted.min_by_key(|record| (distance(me, record), record.rank())).cloned()
    }
}

/// The smallest scope that holds both a node and a record's publisher.
pub(crate) fn distance(me: PeerId, record: &Record) -> Scope {
    if record.instance.peer() == me {
        Scope::Process
    } else if record.instance.host == me.host {
        Scope::Host
    } else {
        Scope::Lan
    }
}
