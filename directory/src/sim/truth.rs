//! What really happened, what everybody was told of it, and what must hold between the two.
//!
//! At every event: nothing is dropped twice or comes back from the dead; of an exclusive name nobody
//! sees two holders, and its number never falls; nobody is told that a host is lost to which nothing
//! happened; what has gone is forgotten in time. After quiet: everybody sees exactly what a naive
//! model of the rules says, and what is kept is what is there.

use super::*;

/// By when everybody who lives and is not stopped has forgotten what is gone. It takes so long only where
/// others vouch for a host while nothing comes over the own link to it: that is given up after ten
/// seconds, and the records two seconds later.
pub(super) const BOUND: Duration = Duration::from_secs(14);
/// So long after something happened to a host or between two, its consequences may show: a dead link
/// is given up after ten seconds, and what follows is noticed after two.
const CALM: Duration = Duration::from_secs(15);

/// What a subscription has been told.
pub(super) struct View {
    pattern: Pattern,
    scope: Scope,
    live: BTreeMap<Instance, Arc<Record>>,
}

/// What a process has been told.
#[derive(Default)]
pub(super) struct Told {
    /// By its subscription [`ALL`].
    pub(super) live: BTreeMap<Instance, Arc<Record>>,
    pub(super) log: Vec<(Duration, Instance, Option<DropReason>)>,
    views: BTreeMap<u64, View>,
    /// Its own publications: as they were granted or put in line, if they were.
    pub(super) own: BTreeMap<u64, Option<Arc<Record>>>,
    pub(super) lost: Vec<u64>,
    pub(super) refused: Vec<u64>,
    pub(super) granted: Vec<u64>,
    pub(super) waiting: Vec<u64>,
    /// What its watches were told, by the number of the watched process.
    pub(super) gone: Vec<(Duration, u64, NodeGone)>,
    /// The highest number seen of each holder.
    fences: BTreeMap<Instance, u64>,
    /// The highest number seen of any holder of a name of the mesh.
    highest: BTreeMap<Name, u64>,
    /// Processes that it was told are dead, and are.
    buried: BTreeSet<PeerId>,
    /// What operators were shown, and what they have of the next picture.
    pub(super) networks: Vec<Network>,
    network: Vec<u8>,
    pub(super) events: Vec<NetworkEvent>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) died: BTreeSet<PeerId>,
    pub(super) left: BTreeSet<PeerId>,
    pub(super) withdrawn: BTreeSet<Instance>,
    /// When something happened to a host, or between two, last; maybe in the future.
    hosts: BTreeMap<HostId, Duration>,
    pairs: BTreeMap<(HostId, HostId), Duration>,
}

impl Told {
    pub(super) fn on_subscribed(&mut self, id: u64, pattern: Pattern, scope: Scope) {
        self.views.insert(id, View { pattern, scope, live: BTreeMap::new() });
    }

    pub(super) fn on_published(&mut self, serial: u64) {
        if !self.refused.contains(&serial) {
            self.own.entry(serial).or_insert(None);
        }
    }

    pub(super) fn on_granted(&mut self, record: Arc<Record>) {
        let serial = record.instance.serial;
        self.granted.push(serial);
        if !record.name.is_reserved() {
            self.own.insert(serial, Some(record));
        }
    }

    pub(super) fn on_waiting(&mut self, record: Arc<Record>) {
        let serial = record.instance.serial;
        self.waiting.push(serial);
        self.own.insert(serial, Some(record));
    }

    pub(super) fn on_network(&mut self, part: &[u8], last: bool) {
        self.network.extend_from_slice(part);
        if last {
            let bytes = std::mem::take(&mut self.network);
            self.networks.push(payload::decode(Encoding::Bincode, &bytes).unwrap());
        }
    }

    pub(super) fn on_lost(&mut self, serial: u64) {
        self.lost.push(serial);
        self.own.remove(&serial);
    }

    pub(super) fn on_refused(&mut self, serial: u64) {
        self.refused.push(serial);
        self.own.remove(&serial);
    }

    pub(super) fn on_withdrawn(&mut self, serial: u64) {
        self.own.remove(&serial);
    }
}

impl Truth {
    /// Something happened to a host.
    pub(super) fn host_trouble(&mut self, host: HostId, at: Duration) {
        let last = self.hosts.entry(host).or_default();
        *last = at.max(*last);
    }

    pub(super) fn pair_trouble(&mut self, one: HostId, other: HostId, at: Duration) {
        let last = self.pairs.entry((one.min(other), one.max(other))).or_default();
        *last = at.max(*last);
    }
}

impl World {
    #[track_caller]
    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("seed {}, at {:.3} s: {what}", self.seed, self.now.as_secs_f64())
    }

    /// Whether nothing happened lately to two hosts and between them.
    fn is_calm(&self, one: HostId, other: HostId) -> bool {
        let open = self.is_open(one, other) && self.is_open(other, one);
        let hosts = [one, other].into_iter().filter_map(|h| self.truth.hosts.get(&h));
        let pair = self.truth.pairs.get(&(one.min(other), one.max(other)));
        let last = hosts.chain(pair).max();
        open && last.is_none_or(|last| self.now.saturating_sub(*last) > CALM && *last < self.now)
    }

    /// A subscriber is told something.
    pub(super) fn tell(&mut self, peer: PeerId, told: registry::Effect) {
        let now = self.now;
        self.note(|| match &told {
            registry::Effect::Available { subscription, record } => {
                format!(
                    "{} {subscription} + {} {}",
                    brief(peer),
                    record.name,
                    brief(record.instance.peer())
                )
            }
            registry::Effect::Dropped { subscription, record, reason } => {
                format!(
                    "{} {subscription} - {} {} {reason}",
                    brief(peer),
                    record.name,
                    brief(record.instance.peer())
                )
            }
        });
        match told {
            registry::Effect::Available { subscription, record } => {
                let instance = record.instance;
                if record.waiting {
                    self.fail(&format!("{} sees {}, which waits", brief(peer), short(&record)));
                }
                let told = self.told(peer);
                if told.buried.contains(&instance.peer()) {
                    self.fail(&format!(
                        "{} sees {} again, whose process is dead",
                        brief(peer),
                        short(&record)
                    ));
                }
                let highest = told.fences.entry(instance).or_default();
                if *highest > record.fence {
                    self.fail(&format!(
                        "{} sees the number of {} fall",
                        brief(peer),
                        short(&record)
                    ));
                }
                *highest = record.fence;
                if record.exclusive && record.scope == Scope::Lan {
                    let highest = told.highest.entry(record.name.clone()).or_default();
                    *highest = record.fence.max(*highest);
                }
                let Some(view) = told.views.get_mut(&subscription) else { return };
                let same = |r: &&Arc<Record>| {
                    r.exclusive && r.name == record.name && r.instance != instance
                };
                if record.exclusive && view.live.values().any(|r| same(&r)) {
                    self.fail(&format!(
                        "{} sees {} beside another holder",
                        brief(peer),
                        short(&record)
                    ));
                }
                view.live.insert(instance, record.clone());
                if subscription == ALL {
                    told.log.push((now, instance, None));
                    told.live.insert(instance, record);
                }
            }
            registry::Effect::Dropped { subscription, record, reason } => {
                let instance = record.instance;
                let told = self.told(peer);
                let Some(view) = told.views.get_mut(&subscription) else { return };
                let known = view.live.remove(&instance).is_some();
                if subscription == ALL {
                    told.log.push((now, instance, Some(reason)));
                    told.live.remove(&instance);
                }
                if !known {
                    self.fail(&format!(
                        "{} is told twice that {} is gone",
                        brief(peer),
                        short(&record)
                    ));
                }
                self.check_drop(peer, &record, reason);
            }
        }
    }

    /// Whether a reason may be true.
    fn check_drop(&mut self, viewer: PeerId, record: &Record, reason: DropReason) {
        let publisher = record.instance.peer();
        let gone = self.truth.died.contains(&publisher);
        let left =
            self.truth.left.contains(&publisher) || self.truth.withdrawn.contains(&record.instance);
        if gone && reason == DropReason::ProcessDied {
            self.told(viewer).buried.insert(publisher);
        }
        let true_or_troubled = match reason {
            DropReason::ProcessDied => gone,
            DropReason::Withdrawn => left,
            DropReason::Replaced | DropReason::Outranked => return,
            _ => false,
        } || !self.is_calm(viewer.host, publisher.host);
        if !true_or_troubled {
            self.fail(&format!("{} is told of {}: {reason}", brief(viewer), short(record)));
        }
    }

    /// What a watch is told must be true.
    pub(super) fn check_gone(&self, viewer: PeerId, (gone, how): (PeerId, NodeGone)) {
        let lies = match how {
            NodeGone::Left => !self.truth.left.contains(&gone) && !self.truth.died.contains(&gone),
            NodeGone::Died => !self.truth.died.contains(&gone),
            _ => true,
        };
        if lies && self.is_calm(viewer.host, gone.host) {
            self.fail(&format!("{} is told of {}: {how}", brief(viewer), brief(gone)));
        }
    }

    /// Nobody may see records of those who are gone, unless he was in trouble himself just now.
    pub(super) fn check_forgotten(&mut self, gone: Vec<PeerId>) {
        let mut again = false;
        let now = self.now;
        for (host, machine) in &self.machines {
            let last = self.truth.hosts.get(host).copied().unwrap_or_default();
            for (node, process) in &machine.processes {
                let late = process.told.live.keys().find(|i| gone.contains(&i.peer()));
                let Some(late) = late else { continue };
                if last + BOUND > now {
                    again = true;
                    continue;
                }
                let viewer = brief(PeerId { host: *host, node: *node });
                self.fail(&format!("{viewer} still sees {}/{}", brief(late.peer()), late.serial));
            }
        }
        if again {
            self.after(Duration::from_secs(1), Event::Forgotten(gone));
        }
    }

    /// After quiet: everybody sees what the rules say, one holder has each exclusive name, and
    /// nothing is left over in any directory.
    pub(super) fn check_all(&mut self) {
        let (waiting, all): (Vec<_>, Vec<_>) = self.standing().into_iter().partition(|r| r.waiting);
        let mut holders: BTreeMap<_, Vec<&Arc<Record>>> = BTreeMap::new();
        for record in all.iter().filter(|r| r.exclusive) {
            holders.entry(place(record)).or_default().push(record);
        }
        if let Some((_, two)) = holders.iter().find(|(_, holders)| holders.len() > 1) {
            self.fail(&format!(
                "two holders: {:?}",
                two.iter().map(|r| short(r)).collect::<Vec<_>>()
            ));
        }
        for record in all.iter().filter(|r| r.exclusive && r.scope == Scope::Lan) {
            let everybody = self.everybody();
            let higher = everybody.iter().copied().find(|peer| {
                let highest = self.told(*peer).highest.get(&record.name);
                highest.is_some_and(|highest| *highest > record.fence)
            });
            if let Some(peer) = higher {
                let who = brief(peer);
                self.fail(&format!(
                    "{who} has seen a higher number than that of {}",
                    short(record)
                ));
            }
        }
        if let Some(vain) = waiting.iter().find(|r| !holders.contains_key(&place(r))) {
            self.fail(&format!("{} waits in vain", short(vain)));
        }
        for peer in self.everybody() {
            let process = &self.machines[&peer.host].processes[&peer.node];
            for view in process.told.views.values() {
                let expected = rules(&process.here, &view.pattern, view.scope, &all);
                if view.live == expected {
                    continue;
                }
                let lacks = expected.values().filter(|r| view.live.get(&r.instance) != Some(r));
                let extra = view.live.values().filter(|r| expected.get(&r.instance) != Some(r));
                let (lacks, extra): (Vec<_>, Vec<_>) =
                    (lacks.map(|r| short(r)).collect(), extra.map(|r| short(r)).collect());
                let text = format!("{} lacks {lacks:?}, has too much: {extra:?}", brief(peer));
                self.fail(&text);
            }
        }
        self.check_watches();
        self.check_directories(&waiting);
    }

    /// All publications that are granted or wait. None may be without an answer.
    pub(super) fn standing(&mut self) -> Vec<Arc<Record>> {
        let mut all = Vec::new();
        for peer in self.everybody() {
            for (serial, record) in self.told(peer).own.clone() {
                let Some(record) = record else {
                    self.fail(&format!("{} waits for an answer to claim {serial}", brief(peer)))
                };
                all.push(record);
            }
        }
        all
    }

    /// After quiet: holders give their names up, one after the other, and each time the one that has
    /// waited longest is next, with a higher number.
    pub(super) fn serve_all(&mut self) {
        loop {
            let (waiting, all): (Vec<_>, Vec<_>) =
                self.standing().into_iter().partition(|r| r.waiting);
            let mut next: BTreeMap<Place, Arc<Record>> = BTreeMap::new();
            for record in waiting {
                let first = next.entry(place(&record)).or_insert_with(|| record.clone());
                if record.rank() < first.rank() {
                    *first = record;
                }
            }
            if next.is_empty() {
                return;
            }
            let mut before = BTreeMap::new();
            for holder in all.iter().filter(|r| r.exclusive && next.contains_key(&place(r))) {
                before.insert(place(holder), holder.fence);
                self.withdraw(holder.instance.peer(), holder.instance.serial);
            }
            self.run(secs(0.1));
            for (place, first) in next {
                let Instance { serial, .. } = first.instance;
                let now = self.told(first.instance.peer()).own[&serial].clone();
                let served = now.is_some_and(|r| !r.waiting && Some(&r.fence) > before.get(&place));
                if !served {
                    self.fail(&format!("{} is not the next holder", short(&first)));
                }
            }
        }
    }

    fn check_watches(&mut self) {
        let everybody: BTreeSet<_> = self.everybody().into_iter().collect();
        for peer in &everybody {
            let present = self.process(*peer).watches.present();
            if !present.is_empty() && present != everybody {
                let dead: Vec<_> = present.difference(&everybody).map(|p| brief(*p)).collect();
                let unseen: Vec<_> = everybody.difference(&present).map(|p| brief(*p)).collect();
                let who = brief(*peer);
                self.fail(&format!("{who} takes {dead:?} for present and does not see {unseen:?}"));
            }
        }
    }

    /// What a directory keeps is what is there.
    fn check_directories(&self, waiting: &[Arc<Record>]) {
        let hosts = self.machines.len();
        for (host, machine) in &self.machines {
            let Some((_, core)) = &machine.directory else { continue };
            let audit = core.audit();
            if audit.hosts > hosts || audit.timers > 40 + 8 * hosts || audit.dials > 2 * hosts {
                self.fail(&format!("{host} keeps too much: {audit:?}"));
            }
            if audit.claims != audit.records || audit.stale > 0 {
                self.fail(&format!("{host} keeps what is not there: {audit:?}"));
            }
            let known = |r: &&Arc<Record>| {
                r.scope == Scope::Lan || (r.scope > Scope::Process && r.instance.host == *host)
            };
            let line = waiting.iter().filter(known).count();
            if audit.waiting != line {
                self.fail(&format!("{host} knows {} of {line} claims that wait", audit.waiting));
            }
        }
    }
}

pub(super) fn brief(peer: PeerId) -> String {
    format!("{}/{}", peer.host.to_bits(), peer.node.to_bits())
}

fn short(record: &Record) -> String {
    let Record { name, scope, instance, claimed, fence, .. } = record;
    let who = brief(instance.peer());
    format!("{name} {scope} {who}/{} claimed {claimed} number {fence}", instance.serial)
}

/// Where a name has one holder.
type Place = (Title, Option<HostId>, Option<NodeId>);

fn place(record: &Record) -> Place {
    let Instance { host, node, .. } = record.instance;
    let (near, own) = (record.scope < Scope::Lan, record.scope == Scope::Process);
    (record.title(), near.then_some(host), own.then_some(node))
}

/// What a subscription sees, as simply as it can be said: every instance of a shared name in reach
/// of both scopes, and of an exclusive one the nearest, between equals the oldest claim.
fn rules(
    here: &Here,
    pattern: &Pattern,
    scope: Scope,
    all: &[Arc<Record>],
) -> BTreeMap<Instance, Arc<Record>> {
    let far = |r: &Record| match r.instance {
        i if i.peer() == here.peer => Scope::Process,
        i if i.host != here.peer.host => Scope::Lan,
        _ if here.group.is_some() && r.group == here.group => Scope::Group,
        _ => Scope::Host,
    };
    let rank = |r: &Record| (far(r), r.claimed, r.instance);
    let seen = |r: &&Arc<Record>| far(r) <= scope && far(r) <= r.scope && pattern.matches(&r.name);
    let seen: Vec<_> = all.iter().filter(seen).collect();
    let outdone = |r: &Record| {
        let mut rivals = seen.iter().filter(|o| o.exclusive && o.name == r.name);
        r.exclusive && rivals.any(|o| rank(o) < rank(r))
    };
    seen.iter().filter(|r| !outdone(r)).map(|r| (r.instance, (*r).clone())).collect()
}
