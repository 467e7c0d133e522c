//! The nodes of this host: what they publish and ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use layercake_wire::id::{HostId, NodeId, PeerId};

use super::{Change, Effect, HostCore, changed};
use crate::{
    agent,
    message::{self, Refusal, ToHost, ToNode, ToPeer},
    name::{Pattern, Scope},
    record::{DropReason, Instance, MAX_RECORDS, MAX_SUBSCRIPTIONS, Record},
    registry,
};

/// A node of this host.
#[derive(Default)]
pub(super) struct Local {
    pub(super) records: BTreeMap<u64, Arc<Record>>,
    subscriptions: BTreeMap<u64, (Pattern, Scope)>,
    /// The foreign records that it has been told of, or will be once it is registered.
    pub(super) sent: BTreeSet<Instance>,
    pub(super) registered: bool,
    /// What it has published since it began to register.
    fresh: BTreeSet<u64>,
}

impl Local {
    /// Whether a foreign record is for this node.
    pub(super) fn wants(&self, me: PeerId, record: &Record) -> bool {
        let distance = registry::distance(me, record);
        distance > Scope::Process
            && distance <= record.scope
            && self
                .subscriptions
                .values()
                .any(|(pattern, scope)| distance <= *scope && pattern.matches(&record.name))
    }
}

impl HostCore {
    /// A node of this host says something.
    pub(crate) fn on_node(
        &mut self,
        node: NodeId,
        message: ToHost,
        wall_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        if message == ToHost::Register {
            let local = self.nodes.entry(node).or_default();
            local.registered = false;
            local.subscriptions.clear();
            local.sent.clear();
            local.fresh.clear();
            if let Some(etcd) = &mut self.etcd {
                etcd.give_up_all(node);
            }
            let message = ToNode::Welcome { addr: self.config.addr.clone() };
            out.push(Effect::ToNode { node, message });
            return;
        }
        let Some(local) = self.nodes.get_mut(&node) else { return };
        match message {
            ToHost::Register => {}
            ToHost::Publish(records) => self.publish(node, records, wall_ms, out),
            ToHost::Withdraw(serial) => {
                if let Some(record) = local.records.get(&serial).cloned() {
                    self.forget(&record);
                    let dropped = vec![(record, DropReason::Withdrawn)];
                    self.spread(Change { dropped, ..Change::default() }, out);
                } else if let Some(etcd) = &mut self.etcd {
                    etcd.give_up(Instance { host: self.me.host, node, serial });
                }
            }
            ToHost::Subscribe { id, pattern, scope } => {
                // The node keeps the limit itself; this is for one that does not.
                let limit = MAX_SUBSCRIPTIONS + usize::from(pattern.is_reserved());
                if local.subscriptions.len() >= limit {
                    tracing::warn!(%node, limit, "too many subscriptions");
                    return;
                }
                local.subscriptions.insert(id, (pattern, scope));
                if local.registered {
                    self.tell_new(node, out);
                }
                if scope == Scope::Lan {
                    self.want_lan(out);
                }
            }
            ToHost::Unsubscribe(id) => {
                local.subscriptions.remove(&id);
                self.tell_unwanted(node, out);
            }
            ToHost::Registered => self.on_registered(node, out),
            ToHost::Hosts(request) => {
                let message = ToNode::Hosts { request, hosts: self.hosts() };
                out.push(Effect::ToNode { node, message });
            }
            ToHost::Bye => self.on_node_down(node, false, out),
        }
    }

    /// The link to a node of this host is down. `died` says that the process has ended without a
    /// word; otherwise it left, or may come back.
    pub(crate) fn on_node_down(&mut self, node: NodeId, died: bool, out: &mut Vec<Effect>) {
        let Some(mut local) = self.nodes.remove(&node) else { return };
        if let Some(etcd) = &mut self.etcd {
            etcd.give_up_all(node);
            if died {
                etcd.mourn(node);
            }
        }
        if died {
            for peer in self.linked() {
                out.push(Effect::ToPeer { peer, message: ToPeer::ProcessGone(node) });
            }
        }
        let reason = if died { DropReason::ProcessDied } else { DropReason::Withdrawn };
        let gone = std::mem::take(&mut local.records);
        for record in gone.values() {
            self.claims.remove(record);
        }
        let dropped = gone.into_values().map(|record| (record, reason)).collect();
        self.spread(Change { dropped, ..Change::default() }, out);
        if died {
            let gone = PeerId { host: self.me.host, node };
            self.tell_all(&ToNode::ProcessGone(gone), out);
        }
    }

    /// Tells every registered node.
    pub(super) fn tell_all(&self, message: &ToNode, out: &mut Vec<Effect>) {
        for node in self.registered() {
            out.push(Effect::ToNode { node, message: message.clone() });
        }
    }

    /// Tells a node the complete set of what it wants of one host.
    pub(super) fn view(&mut self, node: NodeId, host: HostId, out: &mut Vec<Effect>) {
        let records = self.records_of(host);
        let nodes: BTreeSet<_> = if host == self.me.host {
            self.nodes.keys().copied().collect()
        } else {
            records.iter().map(|r| r.instance.node).collect()
        };
        let Some(local) = self.nodes.get_mut(&node) else { return };
        let me = PeerId { host: self.me.host, node };
        let wanted: Vec<_> = records.into_iter().filter(|r| local.wants(me, r)).collect();
        local.sent.retain(|instance| instance.host != host);
        local.sent.extend(wanted.iter().map(|r| r.instance));
        let parts = message::parts(wanted);
        let count = parts.len();
        for (at, records) in parts.into_iter().enumerate() {
            let (nodes, last) = (nodes.clone(), at + 1 == count);
            out.push(Effect::ToNode { node, message: ToNode::View { host, nodes, records, last } });
        }
    }

    fn publish(
        &mut self,
        node: NodeId,
        records: Vec<Arc<Record>>,
        wall_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let from = PeerId { host: self.me.host, node };
        let mut change = Change::default();
        for record in records {
            if !record.is_sound(from) || record.scope < Scope::Host {
                tracing::warn!(%node, name = %record.name, "a node says what it may not say");
                continue;
            }
            let Some(local) = self.nodes.get_mut(&node) else { return };
            let serial = record.instance.serial;
            let refuse =
                |reason| Effect::ToNode { node, message: ToNode::Refused { serial, reason } };
            let limit = MAX_RECORDS + usize::from(record.name.is_reserved());
            if local.records.len() >= limit && !local.records.contains_key(&serial) {
                out.push(refuse(Refusal::TooMany));
                continue;
            }
            local.fresh.insert(serial);
            let known = local.records.get(&serial);
            let registered = local.registered;
            let record = if record.fence > 0 {
                if known.is_none() && registered && self.is_for_etcd(&record) {
                    continue; // Its loss is on its way to the node.
                }
                record
            } else if let Some(known) = known {
                // Told twice, as by a node that moved while its first claim was on the way.
                let (claimed, fence) = (known.claimed, known.fence);
                Arc::new(Record { claimed, fence, ..(*record).clone() })
            } else if self.is_for_etcd(&record) {
                if !self.ask_etcd(&record, wall_ms) {
                    out.push(refuse(Refusal::TooMany));
                }
                self.want_lan(out);
                continue;
            } else if let Some(holder) = self.claims.conflict(&record) {
                out.push(refuse(Refusal::Held(holder)));
                continue;
            } else {
                let fence = agent::fence(self.last_fence, wall_ms);
                Arc::new(Record { claimed: wall_ms, fence, ..(*record).clone() })
            };
            self.keep(&record);
            let (claimed, fence) = (record.claimed, record.fence);
            out.push(Effect::ToNode { node, message: ToNode::Granted { serial, claimed, fence } });
            if record.scope == Scope::Lan {
                self.want_lan(out);
            }
            change.put.push(record);
        }
        self.spread(change, out);
    }

    fn on_registered(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let Some(local) = self.nodes.get_mut(&node) else { return };
        let again = std::mem::take(&mut local.fresh);
        let all = local.records.values();
        let stale: Vec<_> = all.filter(|r| !again.contains(&r.instance.serial)).cloned().collect();
        for record in &stale {
            self.forget(record);
        }
        let dropped = stale.into_iter().map(|r| (r, DropReason::Withdrawn)).collect();
        self.spread(Change { dropped, ..Change::default() }, out);
        if let Some(local) = self.nodes.get_mut(&node) {
            local.registered = true;
            local.sent.clear();
        }
        if let Some(departed) = self.config.departed {
            let gone = PeerId { host: self.me.host, node: departed };
            out.push(Effect::ToNode { node, message: ToNode::ProcessGone(gone) });
        }
        // What is known completely is told completely, the rest as far as it is known.
        if self.settles.is_none() {
            self.view(node, self.me.host, out);
        }
        let synced: Vec<_> =
            self.remotes.iter().filter(|(_, r)| r.synced).map(|(host, _)| *host).collect();
        for host in synced {
            self.view(node, host, out);
        }
        self.tell_new(node, out);
        if self.known.is_none() {
            out.push(Effect::ToNode { node, message: self.known_message() });
        }
    }

    /// Tells a node what it wants and has not been told of.
    fn tell_new(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let me = PeerId { host: self.me.host, node };
        let hosts = std::iter::once(me.host).chain(self.remotes.keys().copied());
        let records: Vec<_> = hosts.flat_map(|host| self.records_of(host)).collect();
        let Some(local) = self.nodes.get_mut(&node) else { return };
        let wanted: Vec<_> = records
            .into_iter()
            .filter(|r| !local.sent.contains(&r.instance) && local.wants(me, r))
            .collect();
        local.sent.extend(wanted.iter().map(|r| r.instance));
        changed(node, wanted, Vec::new(), out);
    }

    /// Takes from a node what it does not want any more.
    fn tell_unwanted(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let me = PeerId { host: self.me.host, node };
        let Some(local) = self.nodes.get(&node) else { return };
        let unwanted: Vec<_> = local
            .sent
            .iter()
            .filter(|instance| !self.record(**instance).is_some_and(|r| local.wants(me, r)))
            .map(|instance| (*instance, DropReason::Withdrawn))
            .collect();
        if let Some(local) = self.nodes.get_mut(&node) {
            for (instance, _) in &unwanted {
                local.sent.remove(instance);
            }
        }
        changed(node, Vec::new(), unwanted, out);
    }

    fn record(&self, instance: Instance) -> Option<&Arc<Record>> {
        if instance.host == self.me.host {
            self.nodes.get(&instance.node)?.records.get(&instance.serial)
        } else {
            self.remotes.get(&instance.host)?.records.get(&instance)
        }
    }
}
