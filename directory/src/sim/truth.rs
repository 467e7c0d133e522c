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
    /// Its own publications: as they were granted, if they were.
    pub(super) own: BTreeMap<u64, Option<Arc<Record>>>,
    pub(super) lost: Vec<u64>,
    pub(super) refused: Vec<u64>,
    pub(super) granted: Vec<u64>,
    /// What its watches were told, by the number of the watched process.
    pub(super) gone: Vec<(Duration, u64, NodeGone)>,
    /// The highest number seen of each holder.
    fences: BTreeMap<Instance, u64>,
    /// Processes that it was told are dead, and are.
    buried: BTreeSet<PeerId>,
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
        let mut all: Vec<Arc<Record>> = Vec::new();
        for peer in self.everybody() {
            let own = self.told(peer).own.clone();
            for (serial, record) in own {
                match record {
                    Some(record) => all.push(record),
                    None => {
                        self.fail(&format!("{} waits for an answer to claim {serial}", brief(peer)))
                    }
                }
            }
        }
        let mut holders: BTreeMap<_, Vec<&Arc<Record>>> = BTreeMap::new();
        for record in all.iter().filter(|r| r.exclusive && r.scope >= Scope::Host) {
            let host = (record.scope < Scope::Lan).then_some(record.instance.host);
            holders.entry((&record.name, record.scope, host)).or_default().push(record);
        }
        if let Some((_, two)) = holders.iter().find(|(_, holders)| holders.len() > 1) {
            self.fail(&format!(
                "two holders: {:?}",
                two.iter().map(|r| short(r)).collect::<Vec<_>>()
            ));
        }
        for peer in self.everybody() {
            for view in self.machines[&peer.host].processes[&peer.node].told.views.values() {
                let expected = rules(peer, &view.pattern, view.scope, &all);
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
        self.check_directories();
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
    fn check_directories(&self) {
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

/// What a subscription sees, as simply as it can be said: every instance of a shared name in reach
/// of both scopes, and of an exclusive one the nearest, between equals the oldest claim.
fn rules(
    me: PeerId,
    pattern: &Pattern,
    scope: Scope,
    all: &[Arc<Record>],
) -> BTreeMap<Instance, Arc<Record>> {
    let far = |r: &Record| match r.instance {
        i if i.peer() == me => Scope::Process,
        i if i.host == me.host => Scope::Host,
        _ => Scope::Lan,
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
