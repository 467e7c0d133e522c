//! The lease that everything of this host is under, and until when it is sure.

use std::time::Duration;

use super::{Ask, Effect, EtcdCore, Failure, Granted, Phase};

/// Which lease was asked for.
#[derive(Clone, Copy)]
enum Wish {
    New,
    Again(u64),
}

/// See the module.
pub(super) struct Lease {
    ttl: Duration,
    id: Option<u64>,
    /// It lasts at least until then, by this host's clock.
    until: Duration,
    renew: Duration,
    /// What was asked, and when.
    asked: Option<(Wish, Duration)>,
    /// One that is known to have expired, or is of another length than ours.
    dead: Option<u64>,
    lapsed: bool,
    failures: u32,
}

impl Lease {
    pub(super) fn new(ttl: Duration, now: Duration) -> Self {
        Self {
            ttl,
            id: None,
            // What nodes of this host were granted under the directory before this one lasts no longer
            // than that directory was sure of, plus the time for holders to hear it.
            until: now + ttl / 8 + ttl / 10,
            renew: now,
            asked: None,
            dead: None,
            lapsed: false,
            failures: 0,
        }
    }

    pub(super) const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The lease, whether or not it still lasts.
    pub(super) const fn id(&self) -> Option<u64> {
        self.id
    }

    /// The lease, if it surely lasts.
    pub(super) fn sure(&self, now: Duration) -> Option<u64> {
        self.id.filter(|_| now < self.lapses())
    }

    /// Somewhat before its end: holders need time to hear it.
    fn lapses(&self) -> Duration {
        self.until.saturating_sub(self.ttl / 8)
    }

    pub(super) fn is_due_to_lapse(&self, now: Duration) -> bool {
        !self.lapsed && self.lapses() <= now
    }

    pub(super) const fn note_lapse(&mut self) {
        self.lapsed = true;
    }

    /// There is something again that may lapse.
    pub(super) const fn watch_lapse(&mut self) {
        self.lapsed = false;
    }

    pub(super) fn on_reached(&mut self, now: Duration) {
        if self.failures > 0 {
            self.renew = self.renew.min(now);
        }
    }

    /// Somebody has reason to doubt it.
    pub(super) const fn renew_now(&mut self, now: Duration) {
        self.renew = now;
    }

    pub(super) fn next_deadline(&self, can_ask: bool) -> Option<Duration> {
        let renew = (can_ask && self.asked.is_none()).then_some(self.renew);
        let lapses = (!self.lapsed).then(|| self.lapses());
        renew.into_iter().chain(lapses).min()
    }
}

impl EtcdCore {
    pub(super) fn can_ask_lease(&self) -> bool {
        let following = matches!(self.follow.phase, Phase::Following);
        self.leaving.is_none() && (self.lease.id.is_some() || following)
    }

    /// Asks for a lease, or for it to go on.
    pub(super) fn renew(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.lease.asked.is_some() || now < self.lease.renew || !self.can_ask_lease() {
            return;
        }
        // The directory before this one had a lease, and everything is under it.
        let found = self.hosts.get(&self.me).map(|stored| stored.lease);
        let found = found.filter(|lease| *lease != 0 && Some(*lease) != self.lease.dead);
        let (wish, ask) = match self.lease.id.or(found) {
            Some(lease) => (Wish::Again(lease), Ask::KeepAlive(lease)),
            None => (Wish::New, Ask::Grant(self.lease.ttl.as_secs())),
        };
        self.lease.asked = Some((wish, now));
        out.push(Effect::Ask(ask));
    }

    pub(super) fn on_lease(
        &mut self,
        answer: Result<Option<Granted>, Failure>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Some((wish, asked)) = self.lease.asked.take() else { return };
        if answer.is_ok() {
            self.lease.failures = 0;
            self.on_reached(now);
        }
        match answer {
            Ok(Some(Granted { lease, seconds })) => {
                if self.lease.id.is_none() && seconds != self.lease.ttl.as_secs() {
                    if let Wish::Again(_) = wish {
                        self.lease.dead = Some(lease);
                        return;
                    }
                    self.tell_once("etcd gives leases of another length than asked for");
                }
                self.lease.ttl = Duration::from_secs(seconds.max(1));
                self.lease.id = Some(lease);
                self.lease.until = asked + self.lease.ttl;
                self.lease.renew = asked + self.lease.ttl / 3;
                self.lease.lapsed = false;
                // What stood in etcd while the lease was in doubt.
                self.dirty.extend(self.waiting.iter().map(|(_, instance)| *instance));
            }
            Ok(None) | Err(Failure::NoLease) => match wish {
                Wish::Again(lease) => self.on_expired(lease, now, out),
                Wish::New => self.lease_failed("it gave none", now),
            },
            Err(Failure::Other(why)) => self.lease_failed(&why, now),
        }
    }

    fn lease_failed(&mut self, why: &str, now: Duration) {
        self.lease.failures += 1;
        if self.lease.failures == 2 {
            tracing::warn!(why, "no lease of etcd; this host keeps what it knows and tries again");
        }
        if self.lease.failures == 1 && matches!(self.follow.phase, Phase::Following) {
            // The member that is watched may be cut off from the others; the next answer about the
            // lease comes from another one.
            self.rest(now);
        }
        let pause = self.pause(self.lease.failures).min(self.lease.ttl / 6);
        self.lease.renew = now + pause;
    }

    /// Etcd says that a lease is no more: all that was under it has gone.
    pub(super) fn on_expired(&mut self, lease: u64, now: Duration, out: &mut Vec<Effect>) {
        self.lease.dead = Some(lease);
        if self.lease.id.is_some_and(|id| id != lease) {
            return;
        }
        if self.lease.id.take().is_some() {
            tracing::warn!("the lease of etcd has expired; this host registers again");
        }
        self.lease.renew = now;
        self.lapse(out);
    }
}
