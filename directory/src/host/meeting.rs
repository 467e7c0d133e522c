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
    pub(super) fn ask_etcd(&mut self, claim: &Record) -> bool {
        let claimed = if claim.waiting { claim.claimed } else { self.wall_ms() };
        let Some(etcd) = &mut self.etcd else { return false };
        let record = Arc::new(Record { claimed, waiting: false, ..claim.clone() });
        etcd.claim(&record, claim.waiting)
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
                self.appear_in_etcd(host, addr, host_name, now, out);
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
        if known.as_ref().is_some_and(|record| record.waiting) {
            return; // It stays in line, and is asked for again when the holder goes.
        }
        let message = ToNode::Refused { serial, reason };
        out.push(Effect::ToNode { node, message });
        if let Some(record) = known {
            self.forget(&record);
            let dropped = vec![(record, DropReason::Withdrawn)];
            self.spread(Change { dropped, ..Change::default() }, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use layercake_wire::id::{NodeAddr, PeerId};

    use super::*;
    use crate::{
        etcd::core::{Ask, Failure},
        host::{HostConfig, KNOWN_AFTER},
        message::ToHost,
        testing::{peer, record},
    };

    const WALL: u64 = 1000;

    fn directory() -> HostCore {
        let addr = NodeAddr::new(peer(1, 1), &[([10, 0, 0, 1], 7).into()]);
        let config = HostConfig {
            addr: addr.clone(),
            host_name: "one".to_owned(),
            incarnation: 7,
            departed: None,
            seed: 1,
        };
        let mut core = HostCore::new(config, Duration::ZERO);
        let mesh = MeshId { name: "cake".into(), fingerprint: [7; 32] };
        core.meet_in_etcd(&mesh, Duration::from_secs(10), Duration::ZERO);
        core.start_lan(addr, Duration::ZERO);
        core.on_node(
            peer(1, 2).node,
            ToHost::Register { group: None, before: None },
            Duration::ZERO,
            WALL,
            &mut Vec::new(),
        );
        core.on_node(peer(1, 2).node, ToHost::Registered, Duration::ZERO, WALL, &mut Vec::new());
        core
    }

    fn publish(core: &mut HostCore, serial: u64, exclusive: bool) -> Vec<Effect> {
        let mut out = Vec::new();
        let record = record(peer(1, 2), serial, "a", Scope::Lan);
        let message = ToHost::Publish(vec![Arc::new(Record { exclusive, ..record })]);
        core.on_node(peer(1, 2).node, message, Duration::ZERO, WALL, &mut out);
        out
    }

    fn says(out: &[Effect], test: impl Fn(&ToNode) -> bool) -> bool {
        out.iter().any(|e| matches!(e, Effect::ToNode { message, .. } if test(message)))
    }

    #[test]
    fn etcd_is_asked_for_exclusive_names_of_the_mesh_and_for_nothing_else() {
        let mut core = directory();
        let granted = |message: &ToNode| matches!(message, ToNode::Granted { .. });
        assert!(says(&publish(&mut core, 1, false), granted), "without etcd");
        let asked = publish(&mut core, 2, true);
        assert!(!says(&asked, granted));
        // It cannot be reached, and so the claim is refused in the end.
        let mut out = Vec::new();
        core.flush(Duration::ZERO, &mut out);
        core.on_time(Duration::from_secs(1), &mut out);
        let begun = out.iter().filter(|e| matches!(e, Effect::Etcd(Ask::Follow { .. }))).count();
        assert_eq!(begun, 1, "{out:?}");
        core.on_time(Duration::from_secs(10), &mut out);
        let refused =
            |m: &ToNode| matches!(m, ToNode::Refused { serial: 2, reason: Refusal::NoLease });
        assert!(says(&out, refused));
    }

    #[test]
    fn before_etcd_was_read_nothing_is_said_of_which_hosts_there_are() {
        let mut core = directory();
        let known = |message: &ToNode| matches!(message, ToNode::Known(_));
        let mut out = Vec::new();
        core.want_lan(&mut out);
        core.on_time(2 * KNOWN_AFTER, &mut out);
        assert!(!says(&out, known), "nodes keep what they remember");
        core.on_etcd(Said::Read { turn: 1, revision: 1 }, 2 * KNOWN_AFTER, &mut out);
        core.on_etcd(Said::Lease(Err(Failure::NoLease)), 2 * KNOWN_AFTER, &mut out);
        core.on_time(3 * KNOWN_AFTER, &mut out);
        assert!(says(&out, known));
    }

    #[test]
    fn a_host_that_gossips_is_not_answered() {
        let mut core = directory();
        let (mut out, them): (_, PeerId) = (Vec::new(), peer(2, 9));
        let hello = crate::message::ToPeer::Hello {
            incarnation: 1,
            renewal: 0,
            addr: NodeAddr::new(them, &[]),
            host_name: "two".to_owned(),
            met: false,
        };
        core.on_peer(them, hello, Duration::ZERO, &mut out);
        assert!(out.is_empty() && core.hosts().len() == 1, "{out:?}");
    }
}
