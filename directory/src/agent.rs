//! A node's side of the directory: what it has published and asked for, and what it knows.
//!
//! It decides and does nothing; the shell carries out its [`Effect`]s in order. It outlives host
//! directories: while there is none it keeps what it knew, and registers everything again with the
//! next one, so that a take-over changes nothing for its subscribers.
//!
//! # What always holds
//! - A publication is pending until it is granted or refused; only what is granted is visible.
//! - A grant is kept through take-overs, with its time and its fence, until it is withdrawn or an
//!   older claim takes the name.
//! - Of this node's own records nobody else can say anything but that a claim was lost.
//! - A claim that waits keeps its place in the line through take-overs, too.
//!
//! Stories in `agent/tests.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use layercake_wire::id::{ActorAddr, ActorSerial, HostId, NodeAddr, NodeId, PeerId};

use crate::{
    group::Group,
    host::pace,
    message::{self, HostView, Refusal, ToHost, ToNode},
    name::{Name, Pattern, Scope},
    network::{About, NetworkEvent, NetworkSubscription, NodeAnswer},
    record::{DropReason, Instance, MAX_RECORDS, MAX_SUBSCRIPTIONS, Record},
    registry::{self, Here, Registry},
};

#[cfg(test)]
mod tests;

/// The number of the subscription to the presences of all nodes, which serves every watch.
pub(crate) const PRESENCES: u64 = u64::MAX;

/// Changes that the host directory may be behind before further calls wait.
pub(crate) const WINDOW: u32 = 2048;
/// The directory says every so many changes how far it has come.
const MARK: u32 = 256;
/// The number of a mark; those who wait for something have others.
const MARKED: u64 = 0;

/// What the shell should do.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Post this to the host directory; dropped while there is none.
    ToHost(ToHost),
    /// A publication is granted, or has got another fencing number.
    Granted(Arc<Record>),
    /// A claim waits for its turn.
    Waiting(Arc<Record>),
    /// A publication is refused.
    Refused { serial: u64, reason: Refusal },
    /// A granted publication was lost to an older claim.
    Lost { serial: u64, holder: Arc<Record> },
    /// Tell a subscriber.
    Tell(registry::Effect),
    /// Close the links to a process that has ended.
    CloseProcess(PeerId),
    /// Close the links to a host that is lost.
    CloseHost(HostId),
    /// The host directory stops while its process goes on: look for another one.
    Reseat,
    /// The host directory answered.
    Hosts { request: u64, hosts: Vec<HostView> },
    /// Part of an encoded [`Network`](crate::Network) has come.
    Network { request: u64, part: Bytes, last: bool },
    /// The host directory asks what only the node knows: add its addresses and links, and send this.
    Told { round: u64, answer: NodeAnswer },
    /// Something has happened in the mesh, or may have.
    NetworkEvents(Vec<NetworkEvent>),
    /// A ping has ended.
    Pong { request: u64, reached: bool },
    /// The host directory has dealt with everything before this.
    Synced(u64),
}

/// What is to be published.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: Name,
    pub(crate) scope: Scope,
    pub(crate) exclusive: bool,
    pub(crate) actor: ActorSerial,
    pub(crate) meta: Bytes,
}

struct Own {
    record: Arc<Record>,
    granted: bool,
}

/// See the module.
pub(crate) struct Agent {
    me: PeerId,
    group: Option<Group>,
    registry: Registry,
    own: BTreeMap<u64, Own>,
    subscriptions: BTreeMap<u64, (Pattern, Scope)>,
    next: u64,
    /// The publication that says that this node is there.
    presence: Option<u64>,
    /// Claims within this process that wait, of each name the longest first.
    line: BTreeSet<(Name, u64, u64)>,
    /// The highest number that was seen, or may have been given as far as the directory says.
    last_fence: u64,
    connected: bool,
    /// Whether it was registered with a directory before.
    registered: bool,
    /// Who waits until the directory has dealt with something.
    syncs: BTreeSet<u64>,
    /// What was said since the last mark, and marks that the directory has not come to.
    unmarked: u32,
    marks: u32,
    directory: Option<NodeAddr>,
    /// Views of which the last part has not come.
    views: HashMap<HostId, Vec<Arc<Record>>>,
    about: About,
    /// Whether what happens in the mesh is of interest here.
    watching: bool,
    /// Whether it is to belong to the host's directory anyway.
    joined: bool,
}

impl Agent {
    pub(crate) fn new(here: impl Into<Here>) -> Self {
        let here = here.into();
        Self {
            me: here.peer,
            group: here.group.clone(),
            registry: Registry::new(here),
            own: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            next: 1,
            presence: None,
            line: BTreeSet::new(),
            last_fence: 0,
            connected: false,
            registered: false,
            syncs: BTreeSet::new(),
            unmarked: 0,
            marks: 0,
            directory: None,
            views: HashMap::new(),
            about: About::default(),
            watching: false,
            joined: false,
        }
    }

    /// What process this node is; told from the next registration on.
    pub(crate) fn set_about(&mut self, about: About) {
        self.about = about;
    }

    /// Asks to be told what happens in the mesh, or not any more.
    pub(crate) fn watch_network(&mut self, watch: bool, out: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.watching, watch) != watch {
            self.say(ToHost::WatchNetwork(watch), out);
        }
    }

    /// From now on this node belongs to the host's directory, whatever it publishes or asks for.
    pub(crate) fn join(&mut self) {
        self.joined = true;
    }

    /// Whether anything here reaches beyond the process.
    pub(crate) fn needs_host(&self) -> bool {
        self.watching
            || self.joined
            || self.subscriptions.values().any(|(_, scope)| *scope > Scope::Process)
            || self.own.values().any(|own| own.record.scope > Scope::Process)
    }

    /// Where the host directory is, as far as other hosts are concerned.
    pub(crate) fn directory(&self) -> Option<&NodeAddr> {
        self.directory.as_ref()
    }

    /// Claims a name; the answer comes as an effect, at once where the scope is this process.
    /// Returns the number of the publication. One that `waits` is put in line while somebody else
    /// holds the name.
    pub(crate) fn publish(
        &mut self,
        draft: Draft,
        waits: bool,
        addr: NodeAddr,
        wall_ms: u64,
        out: &mut Vec<Effect>,
    ) -> u64 {
        let serial = self.next;
        self.next += 1;
        if self.own.len() >= MAX_RECORDS + usize::from(self.presence.is_some()) {
            out.push(Effect::Refused { serial, reason: Refusal::TooMany });
            return serial;
        }
        let Draft { name, scope, exclusive, actor, meta } = draft;
        let record = Record {
            name,
            scope,
            group: self.group.clone(),
            exclusive,
            waiting: waits && exclusive,
            address: ActorAddr { node: addr, serial: actor },
            instance: Instance { host: self.me.host, node: self.me.node, serial },
            claimed: 0,
            fence: 0,
            meta,
        };
        if scope > Scope::Process {
            let record = Arc::new(record);
            self.own.insert(serial, Own { record: record.clone(), granted: false });
            self.say(ToHost::Publish(vec![record]), out);
            return serial;
        }
        let record = Record { claimed: wall_ms, ..record };
        let holder = self.registry.conflict(&record.name, exclusive).cloned();
        match holder {
            Some(_) if record.waiting => {
                self.line.insert((record.name.clone(), wall_ms, serial));
                let record = Arc::new(record);
                self.own.insert(serial, Own { record: record.clone(), granted: false });
                out.push(Effect::Waiting(record));
            }
            Some(holder) => {
                out.push(Effect::Refused { serial, reason: Refusal::Held(holder) });
            }
            None => self.grant(record, wall_ms, out),
        }
        serial
    }

    /// Grants a name within this process.
    fn grant(&mut self, record: Record, wall_ms: u64, out: &mut Vec<Effect>) {
        self.last_fence = fence(self.last_fence, wall_ms);
        let record = Arc::new(Record { fence: self.last_fence, waiting: false, ..record });
        self.own.insert(record.instance.serial, Own { record: record.clone(), granted: true });
        self.in_registry(out, |registry, out| registry.put(record.clone(), out));
        out.push(Effect::Granted(record));
    }

    /// Grants a name within this process to who has waited longest, if nobody has it.
    fn grant_next(&mut self, name: &Name, out: &mut Vec<Effect>) {
        let first = self.line.range((name.clone(), 0, 0)..).next().cloned();
        let Some(first) = first.filter(|(next, ..)| next == name) else { return };
        if self.registry.conflict(name, true).is_some() {
            return;
        }
        self.line.remove(&first);
        if let Some(own) = self.own.remove(&first.2) {
            // Numbers of this process only have to rise while it lives.
            self.grant(Arc::unwrap_or_clone(own.record), 0, out);
        }
    }

    /// Lets all hosts know that this node is there, until it ends. Said once, however often it is
    /// called, and without the addresses of the node, so that a move is no news.
    pub(crate) fn be_present(&mut self, out: &mut Vec<Effect>) {
        if self.presence.is_some() {
            return;
        }
        let serial = self.next;
        self.next += 1;
        self.presence = Some(serial);
        let record = Arc::new(Record {
            name: Name::presence(self.me.node),
            scope: Scope::Lan,
            group: self.group.clone(),
            exclusive: false,
            waiting: false,
            address: ActorAddr { node: NodeAddr::new(self.me, &[]), serial: 0 },
            instance: Instance { host: self.me.host, node: self.me.node, serial },
            claimed: 0,
            fence: 0,
            meta: Bytes::new(),
        });
        self.own.insert(serial, Own { record: record.clone(), granted: false });
        self.say(ToHost::Publish(vec![record]), out);
    }

    /// Gives a name back; also one that was not granted yet.
    pub(crate) fn withdraw(&mut self, serial: u64, out: &mut Vec<Effect>) {
        let Some(own) = self.own.remove(&serial) else { return };
        self.presence.take_if(|presence| *presence == serial);
        self.in_registry(out, |registry, out| {
            registry.remove(own.record.instance, DropReason::Withdrawn, out);
        });
        if own.record.scope > Scope::Process {
            self.say(ToHost::Withdraw(serial), out);
        } else {
            let name = &own.record.name;
            self.line.remove(&(name.clone(), own.record.claimed, serial));
            self.grant_next(name, out);
        }
    }

    /// Asks to be told, by an effect, when the host directory has dealt with everything so far. While
    /// there is none: when the next one has.
    pub(crate) fn sync(&mut self, id: u64, out: &mut Vec<Effect>) {
        self.syncs.insert(id);
        self.say(ToHost::Sync(id), out);
    }

    /// Nobody waits for that any more.
    pub(crate) fn forget_sync(&mut self, id: u64) {
        self.syncs.remove(&id);
    }

    /// Whether the host directory is so far behind that nothing more should be asked of it now.
    pub(crate) const fn is_ahead(&self) -> bool {
        self.marks >= WINDOW / MARK
    }

    /// Adds a subscription under a fresh number. `false` when there are too many.
    #[must_use]
    pub(crate) fn subscribe(
        &mut self,
        id: u64,
        pattern: Pattern,
        scope: Scope,
        out: &mut Vec<Effect>,
    ) -> bool {
        let watching = usize::from(self.subscriptions.contains_key(&PRESENCES));
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS + watching {
            return false;
        }
        self.ask_for(id, pattern, scope, out);
        true
    }

    fn ask_for(&mut self, id: u64, pattern: Pattern, scope: Scope, out: &mut Vec<Effect>) {
        self.subscriptions.insert(id, (pattern.clone(), scope));
        if scope > Scope::Process {
            self.say(ToHost::Subscribe { id, pattern: pattern.clone(), scope }, out);
        }
        self.in_registry(out, |registry, out| registry.subscribe(id, pattern, scope, out));
    }

    /// Asks for the presences of all nodes, under the number [`PRESENCES`].
    pub(crate) fn watch_presences(&mut self, out: &mut Vec<Effect>) {
        if !self.subscriptions.contains_key(&PRESENCES) {
            self.ask_for(PRESENCES, Pattern::presences(), Scope::Lan, out);
        }
    }

    /// Does not ask for them any more.
    pub(crate) fn unwatch_presences(&mut self, out: &mut Vec<Effect>) {
        self.unsubscribe(PRESENCES, out);
        // The directory will take them away, which is no news of any node: also not to a watch that
        // begins before it has done so.
        let me = self.me;
        self.in_registry(out, |registry, out| {
            let unwanted = |r: &Record| {
                let other = r.name.is_reserved() && r.instance.peer() != me;
                other.then_some(DropReason::Withdrawn)
            };
            registry.remove_where(unwanted, out);
        });
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, id: u64, out: &mut Vec<Effect>) {
        let Some((_, scope)) = self.subscriptions.remove(&id) else { return };
        self.registry.unsubscribe(id);
        if scope > Scope::Process {
            self.say(ToHost::Unsubscribe(id), out);
        }
    }

    /// This node is reached at other addresses now: records with one that is no more are told again.
    /// A further address is no news to those who can reach it already.
    pub(crate) fn on_address(&mut self, addr: &NodeAddr, out: &mut Vec<Effect>) {
        let mut changed = Vec::new();
        let stale = |own: &&mut Own| {
            if own.record.name.is_reserved() {
                return false;
            }
            let hints = &own.record.address.node.hints;
            hints.iter().any(|hint| !addr.hints.contains(hint))
                || (hints.is_empty() && !addr.hints.is_empty())
        };
        for own in self.own.values_mut().filter(stale) {
            let address = ActorAddr { node: addr.clone(), serial: own.record.address.serial };
            own.record = Arc::new(Record { address, ..(*own.record).clone() });
            changed.push((own.record.clone(), own.granted));
        }
        for (record, granted) in &changed {
            if *granted {
                self.in_registry(out, |registry, out| registry.put(record.clone(), out));
            }
        }
        let wider = changed.into_iter().map(|(r, _)| r).filter(|r| r.scope > Scope::Process);
        for part in message::parts(wider).into_iter().filter(|part| !part.is_empty()) {
            self.say(ToHost::Publish(part), out);
        }
    }

    /// A host directory is there: registers everything with it.
    pub(crate) fn on_host_up(&mut self, out: &mut Vec<Effect>) {
        self.connected = true;
        self.views.clear();
        (self.unmarked, self.marks) = (0, 0);
        let before = std::mem::replace(&mut self.registered, true).then_some(self.last_fence);
        self.say(ToHost::Register { group: self.group.clone(), before }, out);
        if self.about != About::default() {
            self.say(ToHost::About(self.about.clone()), out);
        }
        if self.watching {
            self.say(ToHost::WatchNetwork(true), out);
            // Whatever happened since the directory before this one.
            out.push(Effect::NetworkEvents(vec![NetworkEvent::missed(self.me.host)]));
        }
        let own = self.own.values().map(|own| own.record.clone());
        for part in message::parts(own.filter(|r| r.scope > Scope::Process)) {
            self.say(ToHost::Publish(part), out);
        }
        for (id, (pattern, scope)) in self.subscriptions.clone() {
            if scope > Scope::Process {
                self.say(ToHost::Subscribe { id, pattern, scope }, out);
            }
        }
        self.say(ToHost::Registered, out);
        for id in self.syncs.clone() {
            self.say(ToHost::Sync(id), out);
        }
    }

    /// The host directory is gone. What it told stays true until the next one says otherwise, except
    /// for what the process that embedded it had published itself, if that has `died`.
    pub(crate) fn on_host_down(&mut self, died: Option<PeerId>, out: &mut Vec<Effect>) {
        self.connected = false;
        self.directory = None;
        self.views.clear();
        (self.unmarked, self.marks) = (0, 0);
        if let Some(peer) = died {
            self.on_process_gone(peer, out);
        }
    }

    /// The host directory says something.
    pub(crate) fn on_host(&mut self, message: ToNode, out: &mut Vec<Effect>) {
        match message {
            ToNode::Welcome { addr } => self.directory = Some(addr),
            ToNode::Granted { serial, claimed, fence } => {
                self.on_granted(serial, claimed, fence, out);
            }
            ToNode::Waiting { serial, claimed } => self.on_waiting(serial, claimed, out),
            ToNode::Fences(last) => self.last_fence = self.last_fence.max(last),
            ToNode::Synced(MARKED) => self.marks = self.marks.saturating_sub(1),
            ToNode::Synced(id) => {
                if self.syncs.remove(&id) {
                    out.push(Effect::Synced(id));
                }
            }
            ToNode::Refused { serial, reason } => self.on_refused(serial, reason, out),
            ToNode::Changed { put, dropped } => {
                let me = self.me;
                self.in_registry(out, |registry, out| {
                    let others = dropped.into_iter().filter(|(i, _)| i.peer() != me).collect();
                    registry.remove_all(others, out);
                    for record in put.into_iter().filter(|r| r.instance.peer() != me) {
                        registry.put(record, out);
                    }
                });
            }
            ToNode::View { host, nodes, records, last } => {
                self.views.entry(host).or_default().extend(records);
                if last {
                    let records = self.views.remove(&host).unwrap_or_default();
                    self.on_view(host, &nodes, records, out);
                }
            }
            ToNode::Known(hosts) => {
                let ours = self.me.host;
                self.in_registry(out, |registry, out| {
                    let lost = |r: &Record| {
                        let host = r.instance.host;
                        (host != ours && !hosts.contains(&host)).then_some(DropReason::HostLost)
                    };
                    registry.remove_where(lost, out);
                });
            }
            ToNode::ProcessGone(peer) if peer != self.me => self.on_process_gone(peer, out),
            ToNode::HostGone(host) if host != self.me.host => {
                self.in_registry(out, |registry, out| {
                    let lost =
                        |r: &Record| (r.instance.host == host).then_some(DropReason::HostLost);
                    registry.remove_where(lost, out);
                });
                out.push(Effect::CloseHost(host));
            }
            ToNode::LinkGone(host) if host != self.me.host => {
                self.in_registry(out, |registry, out| {
                    let lost =
                        |r: &Record| (r.instance.host == host).then_some(DropReason::LinkLost);
                    registry.remove_where(lost, out);
                });
            }
            ToNode::ProcessGone(_) | ToNode::HostGone(_) | ToNode::LinkGone(_) => {}
            ToNode::Leaving => out.push(Effect::Reseat),
            // The shell's business.
            ToNode::Yielded | ToNode::Troubles { .. } => {}
            ToNode::Hosts { request, hosts } => out.push(Effect::Hosts { request, hosts }),
            ToNode::Tell(round) => out.push(Effect::Told { round, answer: self.within() }),
            ToNode::Network { request, part, last } => {
                out.push(Effect::Network { request, part, last });
            }
            ToNode::NetworkEvents(events) => out.push(Effect::NetworkEvents(events)),
            ToNode::Ping(number) => self.say(ToHost::Pong(number), out),
            ToNode::Pong { request, reached } => out.push(Effect::Pong { request, reached }),
        }
    }

    /// What is published and asked for within this process, of which nobody else knows.
    fn within(&self) -> NodeAnswer {
        let near = |scope: Scope| scope == Scope::Process;
        let own = self.own.values().filter(|own| near(own.record.scope));
        let asked = self.subscriptions.iter().filter(|(_, (_, scope))| near(*scope));
        NodeAnswer {
            published: own.map(|own| (&*own.record).into()).collect(),
            subscribed: asked
                .map(|(id, (pattern, scope))| NetworkSubscription::new(*id, pattern, *scope))
                .collect(),
            ..NodeAnswer::default()
        }
    }

    fn on_granted(&mut self, serial: u64, claimed: u64, fence: u64, out: &mut Vec<Effect>) {
        // Withdrawn meanwhile: the withdrawal is on its way.
        let Some(own) = self.own.get_mut(&serial) else { return };
        if own.granted && (own.record.claimed, own.record.fence) == (claimed, fence) {
            return;
        }
        own.granted = true;
        own.record = Arc::new(Record { claimed, fence, waiting: false, ..(*own.record).clone() });
        self.last_fence = self.last_fence.max(fence);
        let record = own.record.clone();
        self.in_registry(out, |registry, out| registry.put(record.clone(), out));
        out.push(Effect::Granted(record));
    }

    fn on_waiting(&mut self, serial: u64, claimed: u64, out: &mut Vec<Effect>) {
        let Some(own) = self.own.get_mut(&serial).filter(|own| own.record.waiting) else { return };
        own.record = Arc::new(Record { claimed, ..(*own.record).clone() });
        out.push(Effect::Waiting(own.record.clone()));
    }

    fn on_refused(&mut self, serial: u64, reason: Refusal, out: &mut Vec<Effect>) {
        let Some(own) = self.own.remove(&serial) else { return };
        self.presence.take_if(|presence| *presence == serial);
        match reason {
            Refusal::Held(holder) if own.granted => {
                let instance = own.record.instance;
                self.in_registry(out, |registry, out| {
                    registry.remove(instance, DropReason::Outranked, out);
                });
                out.push(Effect::Lost { serial, holder });
            }
            Refusal::NoLease if own.granted => {
                let instance = own.record.instance;
                self.in_registry(out, |registry, out| {
                    registry.remove(instance, DropReason::Withdrawn, out);
                });
                out.push(Effect::Lost { serial, holder: own.record });
            }
            reason => {
                let instance = own.record.instance;
                self.in_registry(out, |registry, out| {
                    registry.remove(instance, DropReason::Withdrawn, out);
                });
                out.push(Effect::Refused { serial, reason });
            }
        }
    }

    fn on_process_gone(&mut self, peer: PeerId, out: &mut Vec<Effect>) {
        self.in_registry(out, |registry, out| {
            registry.remove_of(peer, DropReason::ProcessDied, out);
        });
        out.push(Effect::CloseProcess(peer));
    }

    fn on_view(
        &mut self,
        host: HostId,
        nodes: &BTreeSet<NodeId>,
        records: Vec<Arc<Record>>,
        out: &mut Vec<Effect>,
    ) {
        let missing = |r: &Record| {
            let lives = nodes.contains(&r.instance.node);
            if lives { DropReason::Withdrawn } else { DropReason::ProcessDied }
        };
        self.in_registry(out, |registry, out| registry.set_host(host, records, missing, out));
    }

    /// Takes back everything that was published; for a node that stops.
    pub(crate) fn withdraw_all(&mut self, out: &mut Vec<Effect>) {
        for serial in self.own.keys().copied().collect::<Vec<_>>() {
            self.withdraw(serial, out);
        }
    }

    fn say(&mut self, message: ToHost, out: &mut Vec<Effect>) {
        if !self.connected {
            return;
        }
        self.unmarked = self.unmarked.saturating_add(pace::cost(&message));
        out.push(Effect::ToHost(message));
        if self.unmarked >= MARK {
            self.unmarked = 0;
            self.marks = self.marks.saturating_add(1);
            out.push(Effect::ToHost(ToHost::Sync(MARKED)));
        }
    }

    fn in_registry(
        &mut self,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Registry, &mut Vec<registry::Effect>),
    ) {
        let mut told = Vec::new();
        act(&mut self.registry, &mut told);
        out.extend(told.into_iter().map(Effect::Tell));
    }
}

/// The next fencing number: above every one seen, and above the clock in microseconds, so that a
/// directory that lost its memory goes on where it was.
pub(crate) const fn fence(last_seen: u64, wall_ms: u64) -> u64 {
    let (next, clock) = (last_seen.saturating_add(1), wall_ms.saturating_mul(1000));
    if next > clock { next } else { clock }
}
