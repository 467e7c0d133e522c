//! A look inside a directory, for the simulation.

use super::{HostCore, Membership};
use crate::record::Instance;

/// What a directory keeps.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Other hosts, and dials that are planned.
    pub(crate) hosts: usize,
    pub(crate) dials: usize,
    /// Timers of the membership.
    pub(crate) timers: usize,
    /// Records, and those that are listed as claims.
    pub(crate) records: usize,
    pub(crate) claims: usize,
    /// Claims that wait.
    pub(crate) waiting: usize,
    /// Records that a node was told of and that are not there.
    pub(crate) stale: usize,
}

impl HostCore {
    pub(crate) fn audit(&self) -> Audit {
        let own = self.nodes.values().map(|local| local.records.len()).sum::<usize>();
        let others = self.remotes.values().map(|remote| remote.records.len()).sum::<usize>();
        let sent = self.nodes.values().flat_map(|local| &local.sent);
        Audit {
            hosts: self.remotes.len(),
            dials: self.dialer.known().len(),
            timers: self.membership.as_ref().map_or(0, Membership::timers),
            records: own + others,
            claims: self.claims.count(),
            waiting: self.claims.count_waiting(),
            stale: sent.filter(|instance| !self.keeps(**instance)).count(),
        }
    }

    /// Whether it has a record that may be shown.
    fn keeps(&self, instance: Instance) -> bool {
        let record = if instance.host == self.me.host {
            let local = self.nodes.get(&instance.node);
            local.and_then(|local| local.records.get(&instance.serial))
        } else {
            let remote = self.remotes.get(&instance.host);
            remote.and_then(|remote| remote.records.get(&instance))
        };
        record.is_some_and(|record| !record.waiting)
    }

    /// Plants a bug: what comes from a former directory of a host is taken like any other.
    pub(crate) const fn plant(&mut self, planted: bool) {
        self.planted = planted;
    }
}
