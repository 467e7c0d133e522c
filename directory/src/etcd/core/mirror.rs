//! What etcd holds, as reading and watching show it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use layercake_wire::id::{HostId, PeerId};
use serde::de::DeserializeOwned;

use super::{Effect, EtcdCore, Event, Pair, REREAD, Stored};
use crate::{
    etcd::keys::{GoneValue, HostValue, Key},
    message::{self, Refusal},
    record::{DropReason, Instance, Record},
};

impl EtcdCore {
    /// Everything there is, in place of all that was known.
    pub(super) fn on_read(&mut self, pairs: Vec<Pair>, now: Duration, out: &mut Vec<Effect>) {
        let before = std::mem::take(&mut self.hosts);
        self.stored.clear();
        self.names.clear();
        self.epoch = None;
        let mut records: BTreeMap<HostId, Vec<Arc<Record>>> = BTreeMap::new();
        // The epoch first: fencing numbers depend on it.
        for pair in &pairs {
            if self.keys.parse(&pair.key) == Some(Key::Epoch) {
                self.epoch = decode(pair);
            }
        }
        for pair in &pairs {
            match self.keys.parse(&pair.key) {
                Some(Key::Host(host)) => {
                    if let Some(value) = decode(pair) {
                        self.hosts.insert(host, Stored::of(pair, value));
                    }
                }
                Some(key @ (Key::Record(_) | Key::Name(_))) => {
                    if let Some(record) = self.record_at(&key, pair) {
                        self.mirror(&key, pair, &record);
                        if record.instance.host != self.me {
                            self.yield_to(&record, out);
                            records.entry(record.instance.host).or_default().push(record);
                        }
                    }
                }
                Some(Key::Epoch | Key::Gone(_)) | None => {}
            }
        }
        self.missing.retain(|host, _| !self.hosts.contains_key(host));
        for host in before.into_keys().filter(|host| *host != self.me) {
            if !self.hosts.contains_key(&host) {
                self.unsure.insert(host);
                self.missing.entry(host).or_insert(now + self.lease.ttl());
            }
        }
        for (host, stored) in self.hosts.iter().filter(|(host, _)| **host != self.me) {
            let records = records.remove(host).unwrap_or_default();
            let HostValue { addr, host_name, complete, .. } = stored.value.clone();
            if complete {
                self.unsure.remove(host);
            } else {
                self.unsure.insert(*host);
            }
            out.push(Effect::Host { host: *host, addr, host_name });
            out.push(Effect::Snapshot { host: *host, complete, records });
        }
        self.dirty.extend(self.wanted.keys());
        if self.settled {
            self.dirty.extend(self.stored.keys());
        }
    }

    pub(super) fn on_events(
        &mut self,
        mut events: Vec<Event>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        // With its lease a host goes before what it offered.
        let hosts_first = |event: &Event| {
            let host =
                event.deleted && matches!(self.keys.parse(&event.pair.key), Some(Key::Host(_)));
            (event.pair.modified, !host)
        };
        events.sort_by_key(hosts_first);
        for event in events {
            let Event { pair, deleted } = event;
            self.follow.revision = self.follow.revision.max(pair.modified);
            match self.keys.parse(&pair.key) {
                Some(Key::Epoch) => self.epoch = if deleted { None } else { decode(&pair) },
                Some(Key::Host(host)) if host == self.me => {
                    self.hosts.remove(&host);
                    if deleted {
                        // Maybe with the lease; that is asked.
                        self.lease.renew_now(now);
                    } else if let Some(value) = decode(&pair) {
                        self.hosts.insert(host, Stored::of(&pair, value));
                    }
                }
                Some(Key::Host(host)) => self.on_host(host, &pair, deleted, now, out),
                Some(Key::Gone(host)) => {
                    let gone = if deleted { None } else { decode::<GoneValue>(&pair) };
                    for node in gone.into_iter().flatten().filter(|_| host != self.me) {
                        out.push(Effect::ProcessGone(PeerId { host, node }));
                    }
                }
                Some(key @ (Key::Record(_) | Key::Name(_))) => {
                    self.on_record(&key, &pair, deleted, now, out);
                }
                None => {}
            }
        }
    }

    fn on_host(
        &mut self,
        host: HostId,
        pair: &Pair,
        deleted: bool,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        if deleted {
            let left = self.hosts.remove(&host).is_some_and(|stored| stored.value.leaving);
            self.missing.remove(&host);
            self.unsure.remove(&host);
            let reason = if left { DropReason::Withdrawn } else { DropReason::HostLost };
            out.push(Effect::Lost { host, reason });
            return;
        }
        let Some(value) = decode::<HostValue>(pair) else { return };
        let HostValue { addr, host_name, complete, .. } = value.clone();
        self.hosts.insert(host, Stored::of(pair, value));
        out.push(Effect::Host { host, addr, host_name });
        self.missing.remove(&host);
        if !complete {
            return;
        }
        if self.unsure.remove(&host) {
            // What it offers is known, but not what it does not.
            self.reread.get_or_insert(now + REREAD);
        } else {
            out.push(Effect::Whole(host));
        }
    }

    fn on_record(
        &mut self,
        key: &Key,
        pair: &Pair,
        deleted: bool,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let old = match key {
            Key::Record(instance) => Some(*instance),
            Key::Name(name) => self.names.get(name).copied(),
            _ => None,
        };
        let record = if deleted { None } else { self.record_at(key, pair) };
        let new = record.as_ref().map(|r| r.instance);
        if let Some(old) = old.filter(|old| Some(*old) != new) {
            if let Key::Name(name) = key {
                self.names.remove(name);
            }
            if old.host == self.me {
                self.stored.remove(&old);
                self.dirty.insert(old);
            } else {
                let dropped = vec![(old, DropReason::Withdrawn)];
                out.push(Effect::Changed { host: old.host, put: Vec::new(), dropped });
            }
        }
        if let Some(record) = &record {
            self.mirror(key, pair, record);
            self.doubt(record.instance);
        }
        let Some(record) = record else { return };
        let instance = record.instance;
        if instance.host == self.me {
            self.confirm(instance, now, out);
        } else {
            // Those of this host that lose it hear so before anybody hears of another holder.
            self.yield_to(&record, out);
            let (host, dropped) = (instance.host, Vec::new());
            out.push(Effect::Changed { host, put: vec![record], dropped });
        }
    }

    /// The record under a key, as everybody reads it.
    pub(super) fn record_at(&self, key: &Key, pair: &Pair) -> Option<Arc<Record>> {
        let mut record: Record = decode(pair)?;
        let instance = record.instance;
        let sound = record.is_sound(instance.peer())
            && match key {
                Key::Record(at) => *at == instance && !record.exclusive,
                Key::Name(name) => *name == record.name && record.exclusive,
                _ => false,
            };
        if !sound {
            tracing::debug!(key = %String::from_utf8_lossy(&pair.key), "an odd record in etcd");
            return None;
        }
        if record.exclusive {
            record.fence = self.epoch.unwrap_or(0).saturating_add(pair.created);
        }
        if let Some(wanted) = self.wanted.get(&instance)
            && *wanted.record == record
        {
            // One copy is enough.
            return Some(wanted.record.clone());
        }
        Some(Arc::new(record))
    }

    fn mirror(&mut self, key: &Key, pair: &Pair, record: &Arc<Record>) {
        let instance = record.instance;
        self.last_fence = self.last_fence.max(record.fence);
        if let Key::Name(name) = key {
            self.names.insert(name.clone(), instance);
        }
        if instance.host == self.me {
            self.stored.insert(instance, Stored::of(pair, record.clone()));
        }
    }

    /// An exclusive name is held elsewhere: nobody on this host holds it.
    fn yield_to(&mut self, holder: &Arc<Record>, out: &mut Vec<Effect>) {
        let claimants = self.claimants.get(&holder.name).into_iter().flatten();
        let lost = claimants.filter(|i| self.wanted.get(i).is_some_and(|w| w.granted));
        for instance in lost.copied().collect::<Vec<_>>() {
            self.unwant(instance);
            out.push(Effect::Refused { instance, reason: Refusal::Held(holder.clone()) });
        }
    }

    /// Grants a claim that stands in etcd, while that is sure.
    pub(super) fn confirm(&mut self, instance: Instance, now: Duration, out: &mut Vec<Effect>) {
        let lease = self.lease.sure(now);
        let (Some(wanted), Some(stored)) =
            (self.wanted.get_mut(&instance), self.stored.get(&instance))
        else {
            return;
        };
        if !stored.value.exclusive
            || lease.is_none()
            || Some(stored.lease) != lease
            || self.ours.leaving
        {
            return;
        }
        let (claimed, fence) = (stored.value.claimed, stored.value.fence);
        if wanted.granted && wanted.record.fence == fence {
            return;
        }
        wanted.granted = true;
        wanted.record = Arc::new(Record { claimed, fence, ..(*wanted.record).clone() });
        out.push(Effect::Granted(wanted.record.clone()));
        let since = wanted.since.take();
        self.wait_no_more(instance, since);
    }
}

impl<T> Stored<T> {
    const fn of(pair: &Pair, value: T) -> Self {
        Self { value, modified: pair.modified, lease: pair.lease }
    }
}

/// `None` for what another version wrote, or somebody else.
fn decode<T: DeserializeOwned>(pair: &Pair) -> Option<T> {
    let result = message::decode(&pair.value);
    result
        .inspect_err(|error| {
            let key = String::from_utf8_lossy(&pair.key);
            tracing::debug!(%key, %error, "a value in etcd is not understood");
        })
        .ok()
}
