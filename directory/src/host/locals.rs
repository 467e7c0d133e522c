//! The nodes of this host: what they publish and ask for.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeBounds,
    sync::Arc,
    time::Duration,
};

use layercake_wire::id::{HostId, NodeId, PeerId};

use super::{
    Change, Effect, HostCore, changed,
    pace::{self, Pace},
};
use crate::{
    group::Group,
    message::{self, Refusal, ToHost, ToNode, ToPeer},
    name::{Pattern, Scope},
    network::About,
    record::{DropReason, Instance, MAX_RECORDS, MAX_SUBSCRIPTIONS, Record},
    registry::Here,
};

/// A node of this host.
pub(super) struct Local {
    pub(super) here: Here,
    pub(super) records: BTreeMap<u64, Arc<Record>>,
    pub(super) subscriptions: BTreeMap<u64, (Pattern, Scope)>,
    pub(super) about: About,
    pace: Pace,
    /// What it has said beyond its allowance.
    backlog: VecDeque<ToHost>,
    /// What that costs.
    behind: u32,
    /// The foreign records that it has been told of, or will be once it is registered.
    pub(super) sent: BTreeSet<Instance>,
    pub(super) registered: bool,
    /// What it has published since it began to register.
    fresh: BTreeSet<u64>,
}

impl Local {
    fn new(peer: PeerId) -> Self {
        Self {
            here: peer.into(),
            records: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            about: About::default(),
            pace: Pace::default(),
            backlog: VecDeque::new(),
            behind: 0,
            sent: BTreeSet::new(),
            registered: false,
            fresh: BTreeSet::new(),
        }
    }

    /// When something of what has been put off may be dealt with.
    pub(super) fn ready(&self) -> Option<Duration> {
        (!self.backlog.is_empty()).then(|| self.pace.ready())
    }

    /// Whether a record is near enough for one of this node's subscriptions. Of its own it knows.
    fn reaches(&self, record: &Record, scope: Scope) -> bool {
        let distance = self.here.distance(record);
        !record.waiting && distance > Scope::Process && distance <= record.scope.min(scope)
    }
}

impl HostCore {
    /// The nodes that a record is for.
    pub(super) fn wanted_by(&self, record: &Record) -> BTreeSet<NodeId> {
        self.wanting(record, ..).collect()
    }

    /// Whether a record is for a node.
    fn wants(&self, node: NodeId, record: &Record) -> bool {
        self.wanting(record, (node, 0)..=(node, u64::MAX)).next().is_some()
    }

    /// The nodes within a range that a record is for, once for each subscription.
    fn wanting<'a>(
        &'a self,
        record: &'a Record,
        range: impl RangeBounds<(NodeId, u64)> + Clone + 'a,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let candidates = self.patterns.candidates(&record.name, range);
        candidates.filter_map(|(node, id)| {
            let local = self.nodes.get(&node)?;
            let (pattern, scope) = local.subscriptions.get(&id)?;
            let wanted = local.reaches(record, *scope) && pattern.matches(&record.name);
            wanted.then_some(node)
        })
    }

    /// A node of this host says something. What it says too fast is put off, and then so is
    /// everything after it.
    pub(crate) fn on_node(
        &mut self,
        node: NodeId,
        message: ToHost,
        now: Duration,
        wall_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        self.set_clock(now, wall_ms);
        match message {
            ToHost::Register { group, before } => {
                return self.on_register(node, group, before, out);
            }
            ToHost::Hosts(request) => {
                let message = ToNode::Hosts { request, hosts: self.hosts() };
                out.push(Effect::ToNode { node, message });
                return;
            }
            ToHost::Bye => return self.on_node_down(node, false, out),
            // Questions of operators have bounds of their own.
            ToHost::About(_)
            | ToHost::Network(_)
            | ToHost::Told { .. }
            | ToHost::WatchNetwork(_)
            | ToHost::Ping { .. }
            | ToHost::Pong(_) => return self.on_node_view(node, message, wall_ms, out),
            _ => {}
        }
        let Some(local) = self.nodes.get_mut(&node) else { return };
        // Who registers again after a take-over must not wait.
        if local.registered {
            let cost = pace::cost(&message);
            if !local.backlog.is_empty() || !local.pace.take(cost, now) {
                // Also what is free takes place here.
                local.behind = local.behind.saturating_add(cost.max(1));
                // The node that embeds this directory has no link that could be closed.
                if local.behind <= pace::MAX_BACKLOG || node == self.me.node {
                    local.backlog.push_back(message);
                } else {
                    tracing::warn!(%node, "a node says more than it may, and does not wait");
                    self.on_node_down(node, false, out);
                    out.push(Effect::CloseNode(node));
                }
                return;
            }
        }
        self.deal_with(node, message, out);
    }

    /// Does what was put off and is due.
    pub(super) fn work_off(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        let due = self.nodes.iter().filter(|(_, local)| local.ready().is_some_and(|at| at <= now));
        for node in due.map(|(node, _)| *node).collect::<Vec<_>>() {
            while let Some(local) = self.nodes.get_mut(&node)
                && let Some(message) = local.backlog.front()
            {
                let cost = pace::cost(message);
                if !local.pace.take(cost, now) {
                    break;
                }
                local.behind = local.behind.saturating_sub(cost.max(1));
                if let Some(message) = local.backlog.pop_front() {
                    self.deal_with(node, message, out);
                }
            }
        }
    }

    fn on_register(
        &mut self,
        node: NodeId,
        group: Option<Group>,
        before: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let peer = PeerId { host: self.me.host, node };
        let local = self.nodes.entry(node).or_insert_with(|| Local::new(peer));
        local.here.group = group;
        local.registered = false;
        local.backlog.clear();
        local.behind = 0;
        local.sent.clear();
        local.fresh.clear();
        for (id, (pattern, _)) in std::mem::take(&mut local.subscriptions) {
            self.patterns.remove(&pattern, (node, id));
        }
        self.drop_held_back(node, None);
        if let Some(etcd) = &mut self.etcd {
            etcd.give_up_all(node);
        }
        if let Some(fences) = before {
            self.succeed(fences, out);
        }
        let message = ToNode::Welcome { addr: self.config.addr.clone() };
        out.push(Effect::ToNode { node, message });
    }

    fn deal_with(&mut self, node: NodeId, message: ToHost, out: &mut Vec<Effect>) {
        let Some(local) = self.nodes.get_mut(&node) else { return };
        match message {
            ToHost::Publish(records) => self.publish(node, records, out),
            ToHost::Withdraw(serial) => {
                if let Some(record) = local.records.get(&serial).cloned() {
                    self.forget(&record);
                    let dropped = vec![(record, DropReason::Withdrawn)];
                    self.spread(Change { dropped, ..Change::default() }, out);
                } else {
                    self.drop_held_back(node, Some(serial));
                    if let Some(etcd) = &mut self.etcd {
                        etcd.give_up(Instance { host: self.me.host, node, serial });
                    }
                }
            }
            ToHost::Subscribe { id, pattern, scope } => {
                // The node keeps the limit itself; this is for one that does not.
                let limit = MAX_SUBSCRIPTIONS + 1; // The one that serves watches.
                if local.subscriptions.len() >= limit || local.subscriptions.contains_key(&id) {
                    tracing::warn!(%node, limit, "a subscription too many");
                    return;
                }
                local.subscriptions.insert(id, (pattern.clone(), scope));
                self.patterns.insert(&pattern, (node, id));
                if self.nodes.get(&node).is_some_and(|local| local.registered) {
                    self.tell_new(node, Some(id), out);
                }
                if scope == Scope::Lan {
                    self.want_lan(out);
                }
            }
            ToHost::Unsubscribe(id) => {
                if let Some((pattern, _)) = local.subscriptions.remove(&id) {
                    self.patterns.remove(&pattern, (node, id));
                    self.tell_unwanted(node, &pattern, out);
                }
            }
            ToHost::Registered => self.on_registered(node, out),
            ToHost::Sync(id) => {
                out.push(Effect::ToNode { node, message: ToNode::Synced(id) });
            }
            ToHost::Register { .. }
            | ToHost::Hosts(_)
            | ToHost::Bye
            | ToHost::About(_)
            | ToHost::Network(_)
            | ToHost::Told { .. }
            | ToHost::WatchNetwork(_)
            | ToHost::Ping { .. }
            | ToHost::Pong(_) => {}
            // The shell's business.
            ToHost::Yield | ToHost::Taken | ToHost::Troubles(_) => {}
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
        self.view.node_gone(node);
        let gone = std::mem::take(&mut local.records);
        for record in gone.values() {
            self.claims.remove(record);
        }
        for (id, (pattern, _)) in &local.subscriptions {
            self.patterns.remove(pattern, (node, *id));
        }
        self.drop_held_back(node, None);
        let dropped = gone.into_values().map(|record| (record, reason)).collect();
        self.spread(Change { dropped, ..Change::default() }, out);
        self.view.journal.gone(node, reason);
        self.tell_events(out);
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
        let wanted: Vec<_> = records.into_iter().filter(|r| self.wants(node, r)).collect();
        let Some(local) = self.nodes.get_mut(&node) else { return };
        local.sent.retain(|instance| instance.host != host);
        local.sent.extend(wanted.iter().map(|r| r.instance));
        let parts = message::parts(wanted);
        let count = parts.len();
        for (at, records) in parts.into_iter().enumerate() {
            let (nodes, last) = (nodes.clone(), at + 1 == count);
            out.push(Effect::ToNode { node, message: ToNode::View { host, nodes, records, last } });
        }
    }

    pub(super) fn publish(
        &mut self,
        node: NodeId,
        records: Vec<Arc<Record>>,
        out: &mut Vec<Effect>,
    ) {
        let from = PeerId { host: self.me.host, node };
        let mut change = Change::default();
        for record in records {
            let Some(local) = self.nodes.get_mut(&node) else { return };
            let own = record.is_sound(from) && record.group == local.here.group;
            if !own || record.scope == Scope::Process {
                tracing::warn!(%node, name = %record.name, "a node says what it may not say");
                continue;
            }
            let serial = record.instance.serial;
            let refuse =
                |reason| Effect::ToNode { node, message: ToNode::Refused { serial, reason } };
            let limit = MAX_RECORDS + 1; // The one that says that the node is there.
            if local.records.len() >= limit && !local.records.contains_key(&serial) {
                out.push(refuse(Refusal::TooMany));
                continue;
            }
            local.fresh.insert(serial);
            let known = local.records.get(&serial).cloned();
            let registered = local.registered;
            if known.as_ref().is_some_and(|k| k.title() != record.title()) {
                tracing::warn!(%node, name = %record.name, "a record cannot become another one");
                continue;
            }
            let record = if record.fence > 0 || (record.waiting && record.claimed > 0) {
                let granted = record.fence > 0 && self.is_for_etcd(&record);
                if known.is_none() && registered && granted {
                    continue; // Its loss is on its way to the node.
                }
                // Granted, or put in line, by a directory before this one, or by this one.
                match known.filter(|known| known.fence > record.fence) {
                    // The node has not heard of its last grant yet.
                    Some(known) => {
                        let (claimed, fence) = (known.claimed, known.fence);
                        Arc::new(Record { claimed, fence, waiting: false, ..(*record).clone() })
                    }
                    None => record,
                }
            } else if let Some(known) = known {
                // Told twice, as by a node that moved while its first claim was on the way.
                let Record { claimed, fence, waiting, .. } = *known;
                Arc::new(Record { claimed, fence, waiting, ..(*record).clone() })
            } else if self.is_for_etcd(&record) && !record.waiting {
                if !self.ask_etcd(&record) {
                    out.push(refuse(Refusal::TooMany));
                }
                self.want_lan(out);
                continue;
            } else if record.exclusive && self.is_taking_over() {
                if !self.hold_back(node, record) {
                    out.push(refuse(Refusal::TooMany));
                }
                continue;
            } else if let Some(holder) = self.conflict(&record) {
                if !record.waiting {
                    out.push(refuse(Refusal::Held(holder)));
                    continue;
                }
                Arc::new(Record { claimed: self.wall_ms().max(1), ..(*record).clone() })
            } else if self.is_for_etcd(&record) {
                // In line by itself: it is asked for as soon as that is known.
                Arc::new(Record { claimed: self.wall_ms().max(1), ..(*record).clone() })
            } else {
                let (claimed, fence) = (self.wall_ms(), self.next_fence(out));
                Arc::new(Record { claimed, fence, waiting: false, ..(*record).clone() })
            };
            self.keep(&record);
            let Record { claimed, fence, .. } = *record;
            let message = if record.waiting {
                ToNode::Waiting { serial, claimed }
            } else {
                ToNode::Granted { serial, claimed, fence }
            };
            out.push(Effect::ToNode { node, message });
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
            self.view.journal.registered(node);
            self.tell_events(out);
        }
        if let Some(departed) = self.config.departed {
            let gone = PeerId { host: self.me.host, node: departed };
            out.push(Effect::ToNode { node, message: ToNode::ProcessGone(gone) });
        }
        self.tell_fences(node, out);
        // What is known completely is told completely, the rest as far as it is known.
        if self.settles.is_none() {
            self.view(node, self.me.host, out);
        }
        let synced: Vec<_> =
            self.remotes.iter().filter(|(_, r)| r.synced).map(|(host, _)| *host).collect();
        for host in synced {
            self.view(node, host, out);
        }
        self.tell_new(node, None, out);
        if self.known.is_none() {
            out.push(Effect::ToNode { node, message: self.known_message() });
        }
    }

    /// Tells a node what it wants and has not been told of, for one subscription or for all.
    fn tell_new(&mut self, node: NodeId, only: Option<u64>, out: &mut Vec<Effect>) {
        let Some(local) = self.nodes.get_mut(&node) else { return };
        let mut wanted = Vec::new();
        let mut sent = std::mem::take(&mut local.sent);
        let asked =
            local.subscriptions.iter().filter(|(id, _)| only.is_none_or(|only| only == **id));
        let looked_at = Cell::new(0);
        for (_, (pattern, scope)) in asked {
            let matching = self.claims.matching(pattern, &looked_at);
            let new = matching.filter(|r| local.reaches(r, *scope) && sent.insert(r.instance));
            wanted.extend(new.cloned());
        }
        local.sent = sent;
        if local.registered && only.is_some() {
            local.pace.looked_at(looked_at.get(), self.now);
        }
        changed(node, wanted, Vec::new(), out);
    }

    /// Takes from a node what it does not want any more, of what matches.
    fn tell_unwanted(&mut self, node: NodeId, pattern: &Pattern, out: &mut Vec<Effect>) {
        let Some(local) = self.nodes.get(&node) else { return };
        let looked_at = Cell::new(0);
        let matching = self.claims.matching(pattern, &looked_at);
        let unwanted: Vec<_> = matching
            .filter(|r| local.sent.contains(&r.instance) && !self.wants(node, r))
            .map(|r| (r.instance, DropReason::Withdrawn))
            .collect();
        if let Some(local) = self.nodes.get_mut(&node) {
            for (instance, _) in &unwanted {
                local.sent.remove(instance);
            }
            local.pace.looked_at(looked_at.get(), self.now);
        }
        changed(node, Vec::new(), unwanted, out);
    }
}
