//! Writing what is different: one transaction at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use super::{
    Ask, Change, Condition, Effect, EtcdCore, Failure, Instance, Outcome, Pair, Phase, Record,
    Refusal, Step, Stepped, Txn,
};
use crate::{etcd::keys::Key, message};

/// Steps of one transaction; etcd takes 128 unless told otherwise.
const MAX_STEPS: usize = 100;
/// Bytes of one transaction, about; etcd takes 1.5 MiB unless told otherwise.
const MAX_BYTES: usize = 768 << 10;
/// How long the watch may take to show what was written. Beyond that it is not believed any more.
const SHOWS_UP: Duration = Duration::from_secs(3);

/// Whose answer a step is.
#[derive(Clone)]
enum Sent {
    Claim(Instance),
    Gone(usize),
    Other,
}

/// See the module.
#[derive(Default)]
pub(super) struct Writer {
    sent: Option<Vec<Sent>>,
    again: Duration,
    /// The revision that the watch should show, and until when.
    expected: Option<(u64, Duration)>,
    failures: u32,
    revoked: bool,
}

impl Writer {
    pub(super) const fn is_busy(&self) -> bool {
        self.sent.is_some()
    }

    fn awaits(&self, seen: u64) -> Option<Duration> {
        self.expected.filter(|(revision, _)| *revision > seen).map(|(_, until)| until)
    }

    /// Whether something written should have been seen by now.
    pub(super) fn is_unseen(&self, now: Duration, seen: u64) -> bool {
        self.awaits(seen).is_some_and(|until| until <= now)
    }

    pub(super) fn on_reached(&mut self, now: Duration) {
        self.again = self.again.min(now);
    }

    /// Everything is read again: what was written is in there.
    pub(super) const fn forget(&mut self, now: Duration) {
        self.expected = None;
        self.again = now;
    }

    pub(super) fn next_deadline(&self, seen: u64) -> Option<Duration> {
        let again = (self.sent.is_none() && self.failures > 0).then_some(self.again);
        [again, self.awaits(seen)].into_iter().flatten().min()
    }
}

impl EtcdCore {
    /// Writes what is different, if that is possible now.
    pub(super) fn pump(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if !self.started || self.left {
            return;
        }
        self.stamp(now);
        self.renew(now, out);
        if !matches!(self.follow.phase, Phase::Following)
            || self.writer.is_busy()
            || now < self.writer.again
            || self.writer.awaits(self.follow.revision).is_some()
        {
            return;
        }
        let Some(lease) = self.lease.id() else { return };
        if self.epoch.is_none() {
            // Above every fencing number before: those of gossip and of an etcd that was lost are
            // about the clock in microseconds, as this is, and revisions rise more slowly. The
            // incarnation is the clock when this directory began.
            let since =
                u64::try_from(now.saturating_sub(self.began).as_micros()).unwrap_or(u64::MAX);
            let clock = self.ours.incarnation.saturating_mul(1000).saturating_add(since);
            let epoch = clock.max(self.last_fence.saturating_add(1));
            let only_if = Condition { key: self.keys.text(&Key::Epoch), modified: 0 };
            let change = put(only_if.key.clone(), &epoch, 0);
            self.write(only_if, vec![(Step { only_if: None, change }, Sent::Other)], out);
            return;
        }
        let Some(registered) = self.register(lease, out) else { return };
        if self.ours.leaving {
            if !std::mem::replace(&mut self.writer.revoked, true) {
                out.push(Effect::Ask(Ask::Revoke(lease)));
            }
            return;
        }
        let steps = self.differences(lease, now, out);
        if !steps.is_empty() {
            let only_if =
                Condition { key: self.keys.text(&Key::Host(self.me)), modified: registered };
            self.write(only_if, steps, out);
        } else if self.settled && !self.ours.complete && self.dirty.is_empty() {
            self.ours.complete = true;
            self.register(lease, out);
        }
    }

    /// Sees to it that this host's own key is as it should be; `Some` when it is.
    fn register(&mut self, lease: u64, out: &mut Vec<Effect>) -> Option<u64> {
        let stored = self.hosts.get(&self.me);
        if stored.is_some_and(|s| s.value.incarnation > self.ours.incarnation) {
            self.tell_once(
                "another directory of this host is in etcd: are two machines using one mesh folder?",
            );
            return None;
        }
        let fresh =
            stored.is_none_or(|s| s.lease != lease || s.value.incarnation != self.ours.incarnation);
        if fresh {
            self.ours.complete = false;
        } else if let Some(stored) = stored.filter(|s| s.value == self.ours) {
            return Some(stored.modified);
        }
        let modified = stored.map_or(0, |stored| stored.modified);
        let only_if = Condition { key: self.keys.text(&Key::Host(self.me)), modified };
        let change = put(only_if.key.clone(), &self.ours, lease);
        self.write(only_if, vec![(Step { only_if: None, change }, Sent::Other)], out);
        None
    }

    fn write(&mut self, only_if: Condition, steps: Vec<(Step, Sent)>, out: &mut Vec<Effect>) {
        let (steps, sent) = steps.into_iter().unzip();
        self.writer.sent = Some(sent);
        out.push(Effect::Ask(Ask::Write(Txn { only_if, steps })));
    }

    /// The next steps, as many as fit.
    fn differences(
        &mut self,
        lease: u64,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Vec<(Step, Sent)> {
        let mut steps = Vec::new();
        let mut size = 0;
        let mut names = BTreeSet::new();
        if !self.gone.is_empty() {
            let key = self.keys.text(&Key::Gone(self.me));
            let step = Step { only_if: None, change: put(key, &self.gone, lease) };
            steps.push((step, Sent::Gone(self.gone.len())));
        }
        let mut clean = Vec::new();
        for instance in self.dirty.iter().copied() {
            if steps.len() >= MAX_STEPS || size >= MAX_BYTES {
                break;
            }
            let record = self.wanted.get(&instance).map(|wanted| &wanted.record);
            let stored = self.stored.get(&instance).map(|stored| &stored.value);
            let name = record.or(stored).filter(|r| r.exclusive).map(|r| r.name.clone());
            // What happens to one name happens in turn.
            if name.is_some_and(|name| !names.insert(name)) {
                continue;
            }
            match self.difference(instance, lease) {
                Some((step, sent)) => {
                    size += record_size(&step);
                    steps.push((step, sent));
                }
                None => clean.push(instance),
            }
        }
        for instance in clean {
            self.dirty.remove(&instance);
            self.confirm(instance, now, out);
        }
        steps
    }

    /// What makes etcd hold what it should of one record; `None` when it does.
    fn difference(&self, instance: Instance, lease: u64) -> Option<(Step, Sent)> {
        let wanted = self.wanted.get(&instance).map(|wanted| &wanted.record);
        let stored = self.stored.get(&instance);
        match (wanted, stored) {
            (None, None) => None,
            (None, Some(stored)) => {
                let key = self.key_of(&stored.value);
                let only_if = stored
                    .value
                    .exclusive
                    .then(|| Condition { key: key.clone(), modified: stored.modified });
                Some((Step { only_if, change: Change::Delete { key } }, Sent::Other))
            }
            (Some(wanted), Some(stored))
                if stored.lease == lease && is_same(wanted, &stored.value) =>
            {
                None
            }
            (Some(wanted), stored) => {
                let key = self.key_of(wanted);
                if !wanted.exclusive {
                    let change = put(key, wanted, lease);
                    return Some((Step { only_if: None, change }, Sent::Other));
                }
                // Where somebody else holds it, the answer says who.
                let modified = stored.map_or(0, |stored| stored.modified);
                let claimed = stored.map_or(wanted.claimed, |stored| stored.value.claimed);
                let value = Record { fence: 0, claimed, ..(**wanted).clone() };
                let only_if = Some(Condition { key: key.clone(), modified });
                Some((Step { only_if, change: put(key, &value, lease) }, Sent::Claim(instance)))
            }
        }
    }

    fn key_of(&self, record: &Record) -> String {
        self.keys.text(&if record.exclusive {
            Key::Name(record.name.clone())
        } else {
            Key::Record(record.instance)
        })
    }

    pub(super) fn on_written(
        &mut self,
        answer: Result<Outcome, Failure>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Some(sent) = self.writer.sent.take() else { return };
        let mut progress = false;
        match answer {
            Ok(Outcome { revision, steps: Some(steps) }) => {
                for (sent, stepped) in sent.into_iter().zip(steps) {
                    match (sent, stepped) {
                        (Sent::Claim(instance), Stepped::LeftOut(Some(pair))) => {
                            progress |= self.refuse(instance, &pair, out);
                        }
                        (_, Stepped::LeftOut(_)) => {}
                        (sent, Stepped::Done(changed)) => {
                            if let Sent::Gone(told) = sent {
                                self.gone.drain(..told);
                            }
                            if changed {
                                progress = true;
                                self.writer.expected = Some((revision, now + SHOWS_UP));
                            }
                        }
                    }
                }
            }
            // This host's own key, or the epoch, was written by somebody else: the watch will tell.
            Ok(Outcome { steps: None, .. }) => {}
            Err(Failure::NoLease) => {
                if let Some(lease) = self.lease.id() {
                    self.on_expired(lease, now, out);
                }
            }
            Err(Failure::Other(why)) => {
                if self.writer.failures == 1 {
                    tracing::warn!(why, "cannot write to etcd; trying again");
                }
            }
        }
        if progress {
            self.writer.failures = 0;
            self.writer.again = now;
        } else {
            self.writer.failures += 1;
            self.writer.again = now + self.pause(self.writer.failures);
        }
    }

    /// Somebody else holds the name that a node of this host claims.
    fn refuse(&mut self, instance: Instance, pair: &Pair, out: &mut Vec<Effect>) -> bool {
        let Some(wanted) = self.wanted.get(&instance) else { return false };
        let key = Key::Name(wanted.record.name.clone());
        let Some(holder) = self.record_at(&key, pair) else { return false };
        if holder.instance == instance {
            // An earlier transaction was carried out after all; the watch will show it.
            return false;
        }
        self.unwant(instance);
        out.push(Effect::Refused { instance, reason: Refusal::Held(holder) });
        true
    }
}

/// Whether a record stands as it is wanted, apart from what etcd decides.
fn is_same(wanted: &Arc<Record>, stored: &Arc<Record>) -> bool {
    if wanted == stored {
        return true;
    }
    let (claimed, fence) = (stored.claimed, stored.fence);
    stored.exclusive && Record { claimed, fence, ..(**wanted).clone() } == **stored
}

fn put<T: Serialize>(key: String, value: &T, lease: u64) -> Change {
    let value = message::encode(value).unwrap_or_else(|error| {
        // Nothing here has a form that cannot be encoded.
        tracing::error!(key, %error, "a value for etcd cannot be encoded");
        Bytes::new()
    });
    Change::Put { key, value, lease }
}

fn record_size(step: &Step) -> usize {
    match &step.change {
        Change::Put { key, value, .. } => 2 * key.len() + value.len(),
        Change::Delete { key } => 2 * key.len(),
    }
}
