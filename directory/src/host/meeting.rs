//! Where hosts meet in etcd: what this host offers goes there, and what the others offer comes from
//! there. Everything else of the host directory is as with gossip.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use layercake_wire::id::MeshId;

use super::{Change, Effect, HostCore};
use crate::{
    etcd::{
        self,
        core::{EtcdCore, Said},
    },
    message::{Refusal, ToNode},
    name::Scope,
    record::{DropReason, Instance, Record},
};

impl HostCore {
    /// Lets hosts meet in etcd from now on; before anything else is done.
    pub(crate) fn meet_in_etcd(&mut self, mesh: &MeshId, ttl: Duration, now: Duration) {
        let config = &self.config;
        let (addr, host_name) = (config.addr.clone(), config.host_name.clone());
        let etcd =
            EtcdCore::new(mesh, addr, host_name, config.incarnation, (ttl, config.seed), now);
        self.etcd = Some(etcd);
    }

    /// Etcd says something.
    pub(crate) fn on_etcd(&mut self, said: Said, now: Duration, out: &mut Vec<Effect>) {
        self.in_etcd(now, out, |etcd, out| etcd.on_said(said, now, out));
    }

    /// To be called after every input: writes what has changed.
    pub(crate) fn flush(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.in_etcd(now, out, |etcd, out| etcd.flush(now, out));
    }

    /// Whether etcd alone can grant a claim.
    pub(super) fn is_for_etcd(&self, record: &Record) -> bool {
        self.etcd.is_some() && record.exclusive && record.scope == Scope::Lan
    }

    /// Asks for a grant that comes later. `false` when too many claims are waiting.
    pub(super) fn ask_etcd(&mut self, claim: &Record, wall_ms: u64) -> bool {
        let Some(etcd) = &mut self.etcd else { return false };
        etcd.claim(&Arc::new(Record { claimed: wall_ms, ..claim.clone() }))
    }

    pub(super) fn in_etcd(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut EtcdCore, &mut Vec<etcd::core::Effect>),
    ) {
        let Some(etcd) = &mut self.etcd else { return };
        let mut effects = Vec::new();
        act(etcd, &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                self.on_meeting(effect, now, out);
            }
            // What was decided here is offered, too.
            if let Some(etcd) = &mut self.etcd {
                etcd.flush(now, &mut effects);
            }
        }
    }

    fn on_meeting(&mut self, effect: etcd::core::Effect, now: Duration, out: &mut Vec<Effect>) {
        use etcd::core::Effect as Meeting;
        match effect {
            Meeting::Ask(ask) => out.push(Effect::Etcd(ask)),
            Meeting::Host { host, addr, host_name } => {
                self.appear(host, addr, host_name, now);
            }
            Meeting::Snapshot { host, complete, records } => {
                // Of one that is missing it is not known how its process ended; it has withdrawn it,
                // unless that is told.
                let nodes: BTreeSet<_> =
                    self.records_of(host).iter().map(|r| r.instance.node).collect();
                self.on_snapshot(host, complete.then_some(&nodes), records, out);
            }
            Meeting::Whole(host) => {
                // For nodes that remember more of it, from a directory before this one.
                let records = self.records_of(host);
                self.on_snapshot(host, Some(&BTreeSet::new()), records, out);
            }
            Meeting::Changed { host, put, dropped } => self.on_delta(host, put, &dropped, out),
            Meeting::ProcessGone(peer) => self.on_process_gone(peer, out),
            Meeting::Lost { host, reason } => self.disappear(host, reason, now, out),
            Meeting::Granted(record) => self.on_granted(record, out),
            Meeting::Refused { instance, reason } => self.on_refused(instance, reason, out),
        }
    }

    fn on_granted(&mut self, record: Arc<Record>, out: &mut Vec<Effect>) {
        let Instance { node, serial, .. } = record.instance;
        if !self.nodes.contains_key(&node) {
            if let Some(etcd) = &mut self.etcd {
                etcd.offer(&[], [record.instance]);
            }
            return;
        }
        self.keep(&record);
        let (claimed, fence) = (record.claimed, record.fence);
        out.push(Effect::ToNode { node, message: ToNode::Granted { serial, claimed, fence } });
        self.spread(Change { put: vec![record], ..Change::default() }, out);
    }

    fn on_refused(&mut self, instance: Instance, reason: Refusal, out: &mut Vec<Effect>) {
        let Instance { node, serial, .. } = instance;
        let known = self.nodes.get(&node).and_then(|local| local.records.get(&serial)).cloned();
        let message = ToNode::Refused { serial, reason };
        out.push(Effect::ToNode { node, message });
        if let Some(record) = known {
            self.forget(&record);
            let dropped = vec![(record, DropReason::Withdrawn)];
            self.spread(Change { dropped, ..Change::default() }, out);
        }
    }
}
