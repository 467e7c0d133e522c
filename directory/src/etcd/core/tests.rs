//! Stories of several hosts that meet in a model of etcd, and random ones with what always holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    name::Scope,
    testing::{peer, record},
};

const TTL: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(50);

/// etcd, as far as we use it: what its documentation promises and no more.
#[derive(Default)]
struct Model {
    revision: u64,
    cluster: u64,
    keys: BTreeMap<String, Pair>,
    log: Vec<Event>,
    /// Events up to this revision are forgotten.
    compacted: u64,
    leases: BTreeMap<u64, (u64, Duration)>,
    next_lease: u64,
}

impl Model {
    fn new(cluster: u64) -> Self {
        Self { revision: 1, cluster, next_lease: 100 * cluster, ..Self::default() }
    }

    fn holds(&self, condition: &Condition) -> bool {
        self.keys.get(&condition.key).map_or(0, |pair| pair.modified) == condition.modified
    }

    fn write(&mut self, txn: &Txn) -> Result<Outcome, Failure> {
        let unknown = |change: &Change| matches!(change, Change::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease));
        if txn.steps.iter().any(|step| unknown(&step.change)) {
            return Err(Failure::NoLease);
        }
        let mut touched: Vec<_> = txn.steps.iter().map(|step| key_of(&step.change)).collect();
        touched.sort();
        assert!(touched.windows(2).all(|two| two[0] != two[1]), "etcd takes a key once");
        if !self.holds(&txn.only_if) {
            return Ok(Outcome { revision: self.revision, steps: None });
        }
        let revision = self.revision + 1;
        let mut steps = Vec::new();
        for step in &txn.steps {
            if let Some(condition) = step.only_if.as_ref().filter(|c| !self.holds(c)) {
                steps.push(Stepped::LeftOut(self.keys.get(&condition.key).cloned()));
                continue;
            }
            steps.push(Stepped::Done(self.change(&step.change, revision)));
        }
        Ok(Outcome { revision: self.revision, steps: Some(steps) })
    }

    fn change(&mut self, change: &Change, revision: u64) -> bool {
        match change {
            Change::Put { key, value, lease } => {
                let created = self.keys.get(key).map_or(revision, |pair| pair.created);
                let (key, value) = (key.clone(), value.clone());
                let text = Bytes::from(key.clone());
                let pair = Pair { key: text, value, created, modified: revision, lease: *lease };
                self.keys.insert(key, pair.clone());
                self.log.push(Event { pair, deleted: false });
            }
            Change::Delete { key } => {
                if self.keys.remove(key).is_none() {
                    return false;
                }
                let pair = Pair {
                    key: Bytes::from(key.clone()),
                    value: Bytes::new(),
                    created: 0,
                    modified: revision,
                    lease: 0,
                };
                self.log.push(Event { pair, deleted: true });
            }
        }
        self.revision = revision;
        true
    }

    fn end_lease(&mut self, lease: u64) {
        self.leases.remove(&lease);
        let under: Vec<_> =
            self.keys.iter().filter(|(_, p)| p.lease == lease).map(|(k, _)| k.clone()).collect();
        let revision = self.revision + 1;
        for key in under {
            self.change(&Change::Delete { key }, revision);
        }
    }

    fn expire(&mut self, now: Duration) {
        let over: Vec<_> =
            self.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(l, _)| *l).collect();
        for lease in over {
            self.end_lease(lease);
        }
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put { key, .. } | Change::Delete { key } => key,
    }
}

/// A host: its directory's core, what it believes of others, and who holds what on it.
struct Site {
    core: EtcdCore,
    asks: Vec<Ask>,
    cut: bool,
    /// Whether answers to writes are lost, though they are carried out.
    mute: bool,
    /// Whether the watch shows nothing.
    blind: bool,
    following: Option<(u64, u64)>,
    /// What its nodes were told, also by a directory before this one.
    others: BTreeMap<Instance, Arc<Record>>,
    /// What this directory knows.
    known: BTreeSet<Instance>,
    hosts: BTreeSet<HostId>,
    /// Whether its directory is new and has not said yet which hosts there are.
    fresh: bool,
    held: BTreeMap<Instance, Arc<Record>>,
    refused: Vec<(Instance, Refusal)>,
    gone: Vec<PeerId>,
    lost: Vec<(HostId, DropReason)>,
    /// What this host offers that is not exclusive.
    shared: BTreeMap<Instance, Arc<Record>>,
}

struct World {
    now: Duration,
    etcd: Model,
    sites: Vec<Site>,
}

fn mesh() -> MeshId {
    MeshId { name: "cake".into(), fingerprint: [7; 32] }
}

fn core(host: u64, incarnation: u64, now: Duration) -> EtcdCore {
    let addr = NodeAddr::new(peer(host, 1), &[([10, 0, 0, 1], 7).into()]);
    let mut core =
        EtcdCore::new(&mesh(), addr.clone(), format!("h{host}"), incarnation, (TTL, host), now);
    core.start(addr);
    core
}

fn site(host: u64) -> Site {
    Site {
        core: core(host, 1000, Duration::ZERO),
        asks: Vec::new(),
        cut: false,
        mute: false,
        blind: false,
        following: None,
        others: BTreeMap::new(),
        known: BTreeSet::new(),
        hosts: BTreeSet::new(),
        fresh: true,
        held: BTreeMap::new(),
        refused: Vec::new(),
        gone: Vec::new(),
        lost: Vec::new(),
        shared: BTreeMap::new(),
    }
}

fn shared(host: u64, serial: u64, name: &str) -> Arc<Record> {
    Arc::new(Record { fence: 5, ..record(peer(host, 1), serial, name, Scope::Lan) })
}

fn claim(host: u64, serial: u64, name: &str) -> Arc<Record> {
    let record = record(peer(host, 1), serial, name, Scope::Lan);
    Arc::new(Record { exclusive: true, claimed: 77, ..record })
}

impl Site {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ask(ask) => self.asks.push(ask),
                Effect::Host { host, .. } => {
                    self.hosts.insert(host);
                }
                Effect::Snapshot { host, complete, records } => {
                    if complete {
                        self.others.retain(|instance, _| instance.host != host);
                        self.known.retain(|instance| instance.host != host);
                    }
                    self.known.extend(records.iter().map(|r| r.instance));
                    self.others.extend(records.into_iter().map(|r| (r.instance, r)));
                }
                Effect::Changed { put, dropped, .. } => {
                    for (instance, _) in dropped {
                        self.others.remove(&instance);
                        self.known.remove(&instance);
                    }
                    self.known.extend(put.iter().map(|r| r.instance));
                    self.others.extend(put.into_iter().map(|r| (r.instance, r)));
                }
                Effect::Whole(host) => {
                    let known = &self.known;
                    self.others.retain(|i, _| i.host != host || known.contains(i));
                }
                Effect::ProcessGone(peer) => {
                    self.known.retain(|instance| instance.peer() != peer);
                    self.others.retain(|instance, _| instance.peer() != peer);
                    self.gone.push(peer);
                }
                Effect::Lost { host, reason } => {
                    self.others.retain(|instance, _| instance.host != host);
                    self.known.retain(|instance| instance.host != host);
                    self.hosts.remove(&host);
                    self.lost.push((host, reason));
                }
                Effect::Granted(record) => {
                    self.core.offer(std::slice::from_ref(&record), []);
                    self.held.insert(record.instance, record);
                }
                Effect::Refused { instance, reason } => {
                    self.held.remove(&instance);
                    self.refused.push((instance, reason));
                }
            }
        }
    }

    fn offer(&mut self, record: &Arc<Record>) {
        self.shared.insert(record.instance, record.clone());
        self.core.offer(std::slice::from_ref(record), []);
    }

    fn drop_it(&mut self, instance: Instance) {
        self.shared.remove(&instance);
        self.held.remove(&instance);
        self.core.offer(&[], [instance]);
    }
}

impl World {
    fn new(hosts: u64) -> Self {
        let sites = (1..=hosts).map(site).collect();
        let mut world = Self { now: Duration::from_secs(1), etcd: Model::new(1), sites };
        for site in &mut world.sites {
            site.core.settle(&[peer(1, 1).node].into());
        }
        world.pass(Duration::from_secs(1));
        world
    }

    /// Lets everybody say and hear what there is to say and hear now.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut quiet = true;
            for at in 0..self.sites.len() {
                let (now, site) = (self.now, &mut self.sites[at]);
                let mut out = Vec::new();
                site.core.flush(now, &mut out);
                site.take(out);
                for ask in std::mem::take(&mut site.asks) {
                    quiet = false;
                    self.answer(at, ask);
                }
                quiet &= !self.show(at);
            }
            if quiet {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn say(&mut self, at: usize, said: Said) {
        let mut out = Vec::new();
        self.sites[at].core.on_said(said, self.now, &mut out);
        self.sites[at].take(out);
    }

    fn answer(&mut self, at: usize, ask: Ask) {
        let (now, cut) = (self.now, self.sites[at].cut);
        let unreachable = || Failure::Other("unreachable".to_owned());
        let etcd = &mut self.etcd;
        match ask {
            Ask::Follow { turn, .. } if cut => {
                self.sites[at].following = None;
                self.say(at, Said::Broken { turn, why: "unreachable".to_owned() });
            }
            Ask::Follow { turn, after } => {
                let (cluster, revision) = (etcd.cluster, etcd.revision);
                if after.is_some_and(|after| after < etcd.compacted) {
                    self.sites[at].following = None;
                    self.say(at, Said::Following { turn, cluster, revision });
                    self.say(at, Said::Behind { turn });
                    return;
                }
                self.sites[at].following = Some((turn, after.unwrap_or(revision)));
                if after.is_none() {
                    let pairs: Vec<_> = self.etcd.keys.values().cloned().collect();
                    for page in pairs.chunks(2) {
                        self.say(at, Said::Page { turn, pairs: page.to_vec() });
                    }
                    self.say(at, Said::Read { turn, revision });
                }
                self.say(at, Said::Following { turn, cluster, revision });
            }
            Ask::Write(_) if cut => self.say(at, Said::Written(Err(unreachable()))),
            Ask::Write(txn) => {
                assert!(txn.steps.len() <= 128, "etcd takes no more");
                let outcome = etcd.write(&txn);
                let answer = if self.sites[at].mute { Err(unreachable()) } else { outcome };
                self.say(at, Said::Written(answer));
            }
            Ask::Grant(_) | Ask::KeepAlive(_) if cut => {
                self.say(at, Said::Lease(Err(unreachable())));
            }
            Ask::Grant(seconds) => {
                etcd.next_lease += 1;
                let lease = etcd.next_lease;
                etcd.leases.insert(lease, (seconds, now + Duration::from_secs(seconds)));
                self.say(at, Said::Lease(Ok(Some(Granted { lease, seconds }))));
            }
            Ask::KeepAlive(lease) => {
                let granted = etcd.leases.get_mut(&lease).map(|(seconds, end)| {
                    *end = now + Duration::from_secs(*seconds);
                    Granted { lease, seconds: *seconds }
                });
                self.say(at, Said::Lease(Ok(granted)));
            }
            Ask::Revoke(lease) => {
                if !cut {
                    etcd.end_lease(lease);
                }
                self.say(at, Said::Revoked);
            }
        }
    }

    /// Shows a site the next revision, if it watches and there is one.
    fn show(&mut self, at: usize) -> bool {
        let site = &mut self.sites[at];
        let Some((turn, seen)) = site.following else { return false };
        if site.cut {
            site.following = None;
            self.say(at, Said::Broken { turn, why: "cut".to_owned() });
            return true;
        }
        if site.blind {
            return false;
        }
        let next = self.etcd.log.iter().map(|e| e.pair.modified).find(|r| *r > seen);
        let Some(next) = next else { return false };
        let events: Vec<_> =
            self.etcd.log.iter().filter(|e| e.pair.modified == next).cloned().collect();
        self.sites[at].following = Some((turn, next));
        self.say(at, Said::Changed { turn, events });
        true
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now < end {
            self.now += STEP;
            self.etcd.expire(self.now);
            for at in 0..self.sites.len() {
                let due = self.sites[at].core.next_deadline();
                if due.is_some_and(|due| due <= self.now) {
                    let mut out = Vec::new();
                    self.sites[at].core.on_time(self.now, &mut out);
                    self.sites[at].take(out);
                }
            }
            self.settle();
            for site in self.sites.iter_mut().filter(|site| site.fresh && site.core.is_known()) {
                site.fresh = false;
                site.others.retain(|instance, _| site.hosts.contains(&instance.host));
            }
            self.check_holders();
        }
    }

    /// Whatever happens, nobody holds a name that somebody else holds.
    fn check_holders(&self) {
        let mut holders: BTreeMap<Name, Instance> = BTreeMap::new();
        for held in self.sites.iter().flat_map(|site| site.held.values()) {
            if let Some(other) = holders.insert(held.name.clone(), held.instance) {
                panic!("{} is held by {other} and {}", held.name, held.instance);
            }
        }
    }

    /// Everybody knows what the others offer, and nothing else.
    fn check_agreement(&self) {
        for (at, site) in self.sites.iter().enumerate() {
            let mut expected = BTreeMap::new();
            for (_, other) in self.sites.iter().enumerate().filter(|(other, _)| *other != at) {
                let all = other.shared.values().chain(other.held.values());
                expected.extend(all.map(|r| (r.instance, r.clone())));
            }
            assert_eq!(site.others, expected, "as host {} sees it", at + 1);
        }
    }
}

#[test]
fn what_a_host_offers_is_known_to_the_others_until_it_goes() {
    let mut world = World::new(3);
    world.sites[0].offer(&shared(1, 1, "a"));
    world.sites[0].offer(&shared(1, 2, "a"));
    world.settle();
    world.check_agreement();
    assert_eq!(world.sites[1].others.len(), 2);
    world.sites[0].drop_it(shared(1, 1, "a").instance);
    world.settle();
    world.check_agreement();
    // In order.
    world.sites[0].core.leave(true);
    world.settle();
    assert!(world.sites[0].core.has_left());
    assert_eq!(world.sites[1].lost, [(peer(1, 1).host, DropReason::Withdrawn)]);
    assert!(world.etcd.keys.values().all(|pair| pair.lease != 1));
    // Without a word.
    world.sites[1].cut = true;
    world.pass(2 * TTL);
    assert_eq!(world.sites[2].lost[1..], [(peer(2, 1).host, DropReason::HostLost)]);
}

#[test]
fn many_records_go_in_few_transactions() {
    let mut world = World::new(2);
    let before = world.etcd.revision;
    for serial in 0..1000 {
        world.sites[0].offer(&shared(1, serial, "a"));
    }
    world.settle();
    world.check_agreement();
    assert!(world.etcd.revision - before <= 11, "{}", world.etcd.revision - before);
}

#[test]
fn an_exclusive_name_has_one_holder_and_the_next_one_a_higher_number() {
    let mut world = World::new(2);
    assert!(world.sites[0].core.claim(&claim(1, 1, "leader"), false));
    assert!(world.sites[1].core.claim(&claim(2, 1, "leader"), false));
    world.settle();
    world.check_agreement();
    let first = world.sites[0].held[&claim(1, 1, "x").instance].clone();
    assert!(first.fence > 1_000_000, "above what the clock said: {}", first.fence);
    let held = Refusal::Held(first.clone());
    assert_eq!(world.sites[1].refused, [(claim(2, 1, "x").instance, held)]);
    // Another node of the same host has no advantage.
    assert!(world.sites[0].core.claim(&claim(1, 2, "leader"), false));
    world.settle();
    assert_eq!(world.sites[0].refused.len(), 1);

    world.sites[0].drop_it(first.instance);
    assert!(world.sites[1].core.claim(&claim(2, 2, "leader"), false));
    world.settle();
    let second = world.sites[1].held.values().next().expect("granted");
    assert!(second.fence > first.fence);
    world.check_agreement();
}

#[test]
fn who_cannot_reach_etcd_holds_nothing_when_others_may_have_it() {
    let mut world = World::new(2);
    assert!(world.sites[0].core.claim(&claim(1, 1, "leader"), false));
    world.settle();
    let first = world.sites[0].held.values().next().expect("granted").clone();
    world.sites[0].cut = true;
    // `pass` checks that there are never two holders.
    let mut granted = false;
    for serial in 0..200 {
        assert!(world.sites[1].core.claim(&claim(2, serial, "leader"), false));
        world.pass(STEP);
        granted = granted || !world.sites[1].held.is_empty();
    }
    assert!(granted);
    assert_eq!(world.sites[0].refused, [(first.instance, Refusal::NoLease)]);
    // While cut off it is not kept waiting for ever.
    assert!(world.sites[0].core.claim(&claim(1, 9, "other"), false));
    world.pass(CLAIM_PATIENCE + STEP);
    assert_eq!(world.sites[0].refused[1], (claim(1, 9, "x").instance, Refusal::NoLease));
    world.sites[0].cut = false;
    world.pass(2 * TTL);
    world.check_agreement();
    let second = world.sites[1].held.values().next().expect("kept");
    assert!(second.fence > first.fence);
}

#[test]
fn a_short_absence_of_etcd_is_no_news() {
    let mut world = World::new(2);
    world.sites[0].offer(&shared(1, 1, "a"));
    assert!(world.sites[0].core.claim(&claim(1, 2, "leader"), false));
    world.settle();
    for site in &mut world.sites {
        site.cut = true;
    }
    world.pass(TTL / 2);
    world.sites[0].offer(&shared(1, 3, "b"));
    for site in &mut world.sites {
        site.cut = false;
    }
    world.pass(TTL);
    world.check_agreement();
    assert_eq!((world.sites[0].held.len(), world.sites[1].lost.len()), (1, 0));
}

#[test]
fn an_answer_that_is_lost_is_found_in_what_the_watch_shows() {
    let mut world = World::new(2);
    world.sites[0].mute = true;
    assert!(world.sites[0].core.claim(&claim(1, 1, "leader"), false));
    world.sites[0].offer(&shared(1, 2, "a"));
    world.settle();
    assert_eq!(world.sites[0].held.len(), 1);
    world.sites[0].mute = false;
    world.pass(TTL);
    world.check_agreement();
    assert!(world.sites[0].refused.is_empty());
}

#[test]
fn a_watch_that_shows_nothing_is_not_believed() {
    let mut world = World::new(2);
    world.sites[0].blind = true;
    world.sites[0].offer(&shared(1, 1, "a"));
    world.sites[1].offer(&shared(2, 1, "b"));
    world.settle();
    assert!(world.sites[0].others.is_empty());
    world.sites[0].offer(&shared(1, 2, "c"));
    world.pass(Duration::from_secs(4));
    assert_eq!(world.sites[0].others.len(), 1, "read, not watched");
}

#[test]
fn the_next_directory_of_a_host_goes_on_under_the_same_lease() {
    let mut world = World::new(2);
    let (kept, dead) = (shared(1, 1, "kept"), record(peer(1, 2), 1, "dead", Scope::Lan));
    world.sites[0].offer(&kept);
    world.sites[0].core.offer(&[Arc::new(dead.clone())], []);
    assert!(world.sites[0].core.claim(&claim(1, 2, "leader"), false));
    world.settle();
    let leader = world.sites[0].held.values().next().expect("granted").clone();
    let leases = world.etcd.leases.len();

    let now = world.now;
    world.sites[0].core = core(1, 2000, now);
    world.sites[0].following = None;
    world.sites[0].asks.clear();
    world.sites[0].offer(&kept);
    world.sites[0].core.offer(std::slice::from_ref(&leader), []);
    world.pass(STEP);
    assert_eq!(world.sites[1].others.len(), 3, "until it has settled nothing goes");
    world.sites[0].core.settle(&[peer(1, 1).node].into());
    world.pass(STEP);
    assert_eq!(world.sites[1].gone, [peer(1, 2)]);
    world.check_agreement();
    assert_eq!(world.etcd.leases.len(), leases);
    assert!(world.sites[0].refused.is_empty() && world.sites[1].lost.is_empty());
    assert_eq!(world.sites[0].held.values().next(), Some(&leader), "with the number it had");
    world.pass(3 * TTL);
    assert_eq!(world.sites[0].held.len(), 1);
}

#[test]
fn a_directory_that_was_superseded_changes_nothing() {
    let mut world = World::new(2);
    let mut old = site(1);
    old.core = std::mem::replace(&mut world.sites[0].core, core(1, 2000, world.now));
    world.sites[0].following = None;
    world.sites[0].core.settle(&[peer(1, 1).node].into());
    world.pass(STEP);
    old.following = Some((1, world.etcd.revision - 1));
    old.core.offer(&[shared(1, 1, "ghost")], []);
    world.sites.push(old);
    world.pass(2 * TTL);
    assert!(world.sites[1].others.is_empty());
}

#[test]
fn a_process_that_died_is_told_apart_from_one_that_left() {
    let mut world = World::new(2);
    for serial in 0..300 {
        world.sites[0].offer(&shared(1, serial, "a"));
    }
    world.settle();
    world.sites[0].core.mourn(peer(1, 1).node);
    let all: Vec<_> = world.sites[0].shared.keys().copied().collect();
    world.sites[0].shared.clear();
    world.sites[0].core.offer(&[], all);
    world.settle();
    assert_eq!(world.sites[1].gone, [peer(1, 1)]);
    world.check_agreement();
    assert!(!world.etcd.keys.keys().any(|key| key.contains("/records/")));
}

#[test]
fn where_changes_were_forgotten_everything_is_read_again() {
    let mut world = World::new(2);
    world.sites[0].offer(&shared(1, 1, "old"));
    world.sites[0].offer(&shared(1, 2, "kept"));
    world.settle();
    world.sites[1].cut = true;
    world.settle();
    world.sites[0].drop_it(shared(1, 1, "old").instance);
    world.sites[0].offer(&shared(1, 3, "new"));
    world.settle();
    world.etcd.compacted = world.etcd.revision;
    world.sites[1].cut = false;
    world.pass(TTL);
    world.check_agreement();
}

#[test]
fn an_etcd_that_lost_everything_is_filled_again_and_nobody_is_lost_who_comes_back() {
    let mut world = World::new(3);
    for host in [1, 2] {
        world.sites[host as usize - 1].offer(&shared(host, 1, "a"));
    }
    assert!(world.sites[0].core.claim(&claim(1, 2, "leader"), false));
    world.settle();
    let fence = world.sites[0].held.values().next().expect("granted").fence;
    for site in &mut world.sites {
        site.cut = true;
    }
    world.settle();
    world.etcd = Model::new(2);
    // The third one stays away.
    world.sites[0].cut = false;
    world.sites[1].cut = false;
    world.pass(TTL / 2);
    assert!(world.sites[0].lost.is_empty() && world.sites[1].lost.is_empty());
    // What was held is not known to be held any more; what is offered never went.
    assert_eq!((world.sites[0].refused.len(), world.sites[1].others.len()), (1, 1));
    world.pass(2 * TTL);
    assert_eq!(world.sites[0].lost, [(peer(3, 1).host, DropReason::HostLost)]);
    world.sites[2].cut = false;
    world.pass(2 * TTL);
    world.check_agreement();
    assert!(world.sites[2].core.claim(&claim(3, 1, "leader"), false));
    world.settle();
    let next = world.sites[2].held.values().next().expect("granted");
    assert!(next.fence > fence, "although etcd counts from one again");
    world.check_agreement();
}

/// Hosts that claim, give back, publish, are cut off, take over and lose answers, in any order.
fn random_story(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut world = World::new(3);
    let mut serial = 10;
    let mut fences: BTreeMap<Name, u64> = BTreeMap::new();
    for _ in 0..120 {
        let at = rng.random_range(0..world.sites.len());
        let host = at as u64 + 1;
        serial += 1;
        let name = ["x", "y"][rng.random_range(0..2)];
        let (now, revision) = (world.now, world.etcd.revision);
        let site = &mut world.sites[at];
        match rng.random_range(0..12) {
            0 | 1 => site.offer(&shared(host, serial, name)),
            2..=4 => assert!(site.core.claim(&claim(host, serial, name), false)),
            5 => {
                let any = site.held.keys().chain(site.shared.keys()).next().copied();
                any.into_iter().for_each(|instance| site.drop_it(instance));
            }
            6 => site.cut = !site.cut,
            7 => site.mute = !site.mute,
            8 => site.blind = !site.blind,
            9 => world.etcd.compacted = revision,
            10 => {
                let incarnation = 2000 + serial;
                site.core = core(host, incarnation, now);
                site.following = None;
                site.asks.clear();
                site.hosts.clear();
                site.known.clear();
                site.fresh = true;
                let all: Vec<_> = site.shared.values().chain(site.held.values()).cloned().collect();
                site.core.offer(&all, []);
                site.core.settle(&[peer(1, 1).node].into());
            }
            _ => {
                let lease = world.etcd.leases.keys().next().copied();
                lease.into_iter().for_each(|lease| {
                    // A clock that runs ahead would break the promise; an operator may not.
                    if world.sites.iter().all(|s| s.held.is_empty()) {
                        world.etcd.end_lease(lease);
                    }
                });
            }
        }
        world.pass(Duration::from_millis(rng.random_range(0..2500)));
        for held in world.sites.iter().flat_map(|site| site.held.values()) {
            let last = fences.entry(held.name.clone()).or_default();
            assert!(held.fence >= *last, "seed {seed}: {} fell", held.name);
            *last = held.fence;
        }
    }
    for site in &mut world.sites {
        (site.cut, site.mute, site.blind) = (false, false, false);
    }
    world.pass(4 * TTL);
    world.check_agreement();
}

#[test]
fn whatever_happens_one_holds_a_name_and_in_the_end_all_agree() {
    let seeds = std::env::var("LAYERCAKE_ETCD_STORIES").ok().and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(60) {
        let result = std::panic::catch_unwind(|| random_story(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
