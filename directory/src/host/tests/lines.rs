//! Who waits for a name, and who is next: several host directories, linked, without a network.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Hosts 1 to n, whose directories know each other. What they say waits until it is delivered.
struct Mesh {
    hosts: Vec<HostCore>,
    /// What is under way from one host to another.
    posts: BTreeMap<(usize, usize), VecDeque<ToPeer>>,
    /// What each claim was told last: `None` while it has no answer.
    standing: BTreeMap<Instance, Standing>,
    now: Duration,
    /// How far the clock of each host is ahead, in milliseconds.
    ahead: Vec<u64>,
    /// The highest number granted, and in what order claims were granted.
    grants: Vec<(Instance, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waiting,
    Granted(u64),
    Refused,
}

fn at(host: usize) -> PeerId {
    peer(host as u64 + 1, 1)
}

impl Mesh {
    fn new(ahead: &[u64]) -> Self {
        let cores = (0..ahead.len()).map(|host| {
            let config = HostConfig {
                addr: NodeAddr::new(at(host), &[([10, 0, 0, 1], 7).into()]),
                host_name: String::new(),
                incarnation: 5,
                departed: None,
                seed: 1,
            };
            let mut core = HostCore::new(config, T0);
            core.settles = None;
            core.start_lan(NodeAddr::new(at(host), &[]), T0);
            core
        });
        let mut mesh = Self {
            hosts: cores.collect(),
            posts: BTreeMap::new(),
            standing: BTreeMap::new(),
            now: T0,
            ahead: ahead.to_vec(),
            grants: Vec::new(),
        };
        for host in 0..mesh.hosts.len() {
            mesh.say(host, 1, ToHost::Register { group: None, before: None });
            mesh.say(host, 1, ToHost::Registered);
            mesh.say(host, 2, ToHost::Register { group: None, before: None });
            mesh.say(host, 2, ToHost::Registered);
        }
        for (a, b) in mesh.pairs() {
            mesh.link(a, b);
        }
        mesh.deliver_all();
        mesh
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let all = 0..self.hosts.len();
        all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).filter(|(a, b)| a < b).collect()
    }

    fn link(&mut self, a: usize, b: usize) {
        self.posts.insert((a, b), VecDeque::new());
        self.posts.insert((b, a), VecDeque::new());
        for (from, to) in [(a, b), (b, a)] {
            let mut out = Vec::new();
            self.hosts[from].greet(at(to), &mut out);
            self.effects(from, out);
        }
    }

    /// Two hosts lose each other.
    fn part(&mut self, a: usize, b: usize) {
        for (here, there) in [(a, b), (b, a)] {
            self.posts.remove(&(here, there));
            self.hosts[here].on_peer_down(at(there), self.now);
            let (mut out, now) = (Vec::new(), self.now);
            self.hosts[here].lose(at(there).host, DropReason::HostLost, now, &mut out);
            self.effects(here, out);
        }
    }

    fn say(&mut self, host: usize, node: u64, message: ToHost) {
        let mut out = Vec::new();
        self.now += Duration::from_millis(1);
        let wall = 1_000_000 + self.now.as_millis() as u64 + self.ahead[host];
        self.hosts[host].on_node(
            peer(at(host).host.to_bits(), node).node,
            message,
            self.now,
            wall,
            &mut out,
        );
        self.effects(host, out);
    }

    /// A claim of the name: one that gets in line, or one that does not.
    fn claim(&mut self, host: usize, node: u64, serial: u64, waits: bool) -> Instance {
        let me = peer(at(host).host.to_bits(), node);
        let record = record(me, serial, "leader", Scope::Lan);
        let record = Record { exclusive: true, waiting: waits, ..record };
        let instance = record.instance;
        self.say(host, node, ToHost::Publish(vec![Arc::new(record)]));
        instance
    }

    fn withdraw(&mut self, instance: Instance) {
        self.standing.remove(&instance);
        let host = instance.host.to_bits() as usize - 1;
        self.say(host, instance.node.to_bits(), ToHost::Withdraw(instance.serial));
    }

    /// A node dies, and comes back without anything.
    fn kill(&mut self, host: usize, node: u64) {
        let me = peer(at(host).host.to_bits(), node);
        self.standing.retain(|instance, _| instance.peer() != me);
        let mut out = Vec::new();
        self.hosts[host].on_node_down(me.node, true, &mut out);
        self.effects(host, out);
        self.say(host, node, ToHost::Register { group: None, before: None });
        self.say(host, node, ToHost::Registered);
    }

    fn post(&mut self, from: usize, to: PeerId, message: ToPeer) {
        let to = to.host.to_bits() as usize - 1;
        if let Some(posts) = self.posts.get_mut(&(from, to)) {
            posts.push_back(message);
        }
    }

    fn effects(&mut self, host: usize, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::ToPeer { peer, message } => self.post(host, peer, message),
                Effect::ToPeers { peers, message } => {
                    for peer in peers {
                        self.post(host, peer, message.clone());
                    }
                }
                Effect::ToNode { node, message } => {
                    let (serial, standing) = match message {
                        ToNode::Granted { serial, fence, .. } => (serial, Standing::Granted(fence)),
                        ToNode::Waiting { serial, .. } => (serial, Standing::Waiting),
                        ToNode::Refused { serial, .. } => (serial, Standing::Refused),
                        _ => continue,
                    };
                    let instance = Instance { host: at(host).host, node, serial };
                    self.standing.insert(instance, standing);
                    if let Standing::Granted(fence) = standing {
                        self.grants.push((instance, fence));
                    }
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let message = self.posts.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let Some(message) = message else { return false };
        let mut out = Vec::new();
        self.hosts[to].on_peer(at(from), message, self.now, &mut out);
        self.effects(to, out);
        true
    }

    fn deliver_all(&mut self) {
        loop {
            let ways: Vec<_> = self.posts.keys().copied().collect();
            if !ways.into_iter().fold(false, |any, (from, to)| self.deliver(from, to) || any) {
                return;
            }
        }
    }

    /// Everything arrives, and so much time passes that nothing more is to be expected.
    fn settle(&mut self) {
        self.deliver_all();
        self.now += grants::DISPUTE;
        for host in 0..self.hosts.len() {
            let mut out = Vec::new();
            self.hosts[host].now = self.now;
            self.hosts[host].end_disputes(&mut out);
            self.effects(host, out);
        }
        self.deliver_all();
    }

    fn granted(&self) -> Vec<Instance> {
        let all = self.standing.iter();
        all.filter(|(_, s)| matches!(s, Standing::Granted(_))).map(|(i, _)| *i).collect()
    }

    /// The records of the name that a host knows.
    fn known(&self, host: usize) -> Vec<Arc<Record>> {
        let core = &self.hosts[host];
        let hosts = (0..self.hosts.len()).flat_map(|h| core.records_of(at(h).host));
        let mut known: Vec<_> = hosts.collect();
        known.sort_by_key(|r| r.instance);
        known
    }
}

#[test]
fn those_who_wait_are_served_in_the_order_of_their_claims_whatever_their_host() {
    let mut mesh = Mesh::new(&[0, 0, 0]);
    let holder = mesh.claim(1, 1, 1, true);
    assert_eq!(mesh.granted(), [holder], "nobody has it");
    mesh.deliver_all();
    let mut line = Vec::new();
    for (host, node) in [(2, 1), (0, 2), (1, 2), (2, 2), (0, 1)] {
        line.push(mesh.claim(host, node, 2, true));
        mesh.deliver_all();
    }
    let hasty = mesh.claim(0, 1, 3, false);
    assert_eq!(mesh.standing[&hasty], Standing::Refused, "who does not wait is not served");
    let mut last = holder;
    for next in line {
        assert_eq!(mesh.granted(), [last]);
        mesh.withdraw(last);
        mesh.deliver_all();
        last = next;
    }
    assert_eq!(mesh.granted(), [last]);
    let fences: Vec<_> = mesh.grants.iter().map(|(_, fence)| *fence).collect();
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

#[test]
fn who_dies_in_line_is_passed_over_and_a_new_claim_does_not_push_in() {
    let mut mesh = Mesh::new(&[0, 0]);
    let holder = mesh.claim(0, 1, 1, true);
    mesh.deliver_all();
    let dead = mesh.claim(1, 1, 1, true);
    let next = mesh.claim(1, 2, 1, true);
    mesh.deliver_all();
    mesh.kill(1, 1);
    mesh.deliver_all();
    assert!(!mesh.standing.contains_key(&dead));
    mesh.withdraw(holder);
    // Before host 1 has heard of it, somebody on host 0 wants the name.
    let hasty = mesh.claim(0, 2, 2, false);
    assert_eq!(mesh.standing[&hasty], Standing::Refused);
    mesh.deliver_all();
    assert_eq!(mesh.granted(), [next]);
}

#[test]
fn after_a_partition_the_older_claim_stays_and_the_loser_may_wait_again() {
    let mut mesh = Mesh::new(&[0, 5_000_000]);
    let older = mesh.claim(0, 1, 1, true);
    mesh.deliver_all();
    let waits = mesh.claim(1, 1, 1, true);
    mesh.deliver_all();
    mesh.part(0, 1);
    assert_eq!(mesh.granted(), [older, waits], "each side has one");
    let Standing::Granted(theirs) = mesh.standing[&waits] else { panic!() };
    mesh.link(0, 1);
    mesh.deliver_all();
    assert_eq!(mesh.standing[&waits], Standing::Refused, "told at once");
    let Standing::Granted(ours) = mesh.standing[&older] else { panic!() };
    assert!(ours > theirs, "{ours} {theirs}: although their clock is ahead");
    let again = mesh.claim(1, 1, 2, true);
    mesh.deliver_all();
    mesh.kill(0, 1);
    mesh.deliver_all();
    let Standing::Granted(after) = mesh.standing[&again] else { panic!() };
    assert!(after > ours);
}

#[test]
fn nobody_is_granted_what_a_loser_has_lost_to_somebody_unknown() {
    let mut mesh = Mesh::new(&[0, 0, 0]);
    let older = mesh.claim(0, 1, 1, true);
    mesh.part(0, 1);
    mesh.part(0, 2);
    let younger = mesh.claim(1, 1, 1, true);
    mesh.deliver_all();
    let waits = mesh.claim(2, 1, 1, true);
    mesh.deliver_all();
    // The first two meet again, and the third has not yet found the way.
    mesh.link(0, 1);
    mesh.deliver_all();
    assert_eq!(mesh.standing[&younger], Standing::Refused);
    assert_eq!(mesh.standing[&waits], Standing::Waiting);
    let hasty = mesh.claim(2, 2, 1, false);
    assert_eq!(mesh.standing[&hasty], Standing::Refused);
    mesh.link(0, 2);
    mesh.settle();
    assert_eq!(mesh.granted(), [older]);
    // Where nobody turns up, the line moves on.
    mesh.part(0, 1);
    mesh.part(0, 2);
    mesh.deliver_all();
    assert_eq!(mesh.granted(), [older, waits]);
}

#[test]
fn a_holder_hears_of_the_number_of_a_loser_that_it_never_met() {
    let mut mesh = Mesh::new(&[0, 5_000_000]);
    let older = mesh.claim(0, 1, 1, true);
    mesh.part(0, 1);
    let younger = mesh.claim(1, 1, 1, true);
    let Standing::Granted(theirs) = mesh.standing[&younger] else { panic!() };
    mesh.link(0, 1);
    // Host 1 hears everything, host 0 nothing but hello, and then the link is gone.
    while mesh.deliver(0, 1) || mesh.posts[&(1, 0)].len() > 99 {}
    assert!(mesh.deliver(1, 0));
    while mesh.deliver(0, 1) {}
    assert_eq!(mesh.standing[&younger], Standing::Refused);
    mesh.part(0, 1);
    mesh.link(0, 1);
    mesh.deliver_all();
    let Standing::Granted(ours) = mesh.standing[&older] else { panic!() };
    assert!(ours > theirs, "{ours} {theirs}");
}

#[test]
fn a_directory_that_takes_over_grants_nothing_before_it_knows_who_is_there() {
    let config = HostConfig {
        addr: NodeAddr::new(peer(1, 1), &[]),
        host_name: String::new(),
        incarnation: 8,
        departed: Some(peer(1, 9).node),
        seed: 1,
    };
    let mut core = HostCore::new(config, T0);
    let leader =
        |node| Record { exclusive: true, ..record(peer(1, node), 1, "leader", Scope::Host) };
    let waiting = |node, claimed| Record { waiting: true, claimed, ..leader(node) };
    join(&mut core, 4);
    let told = |out: &[Effect], node| {
        let told = out.iter().filter_map(|effect| match effect {
            Effect::ToNode { node: to, message } if *to == peer(1, node).node => match message {
                ToNode::Granted { fence, .. } => Some(format!("granted {}", *fence > 900)),
                ToNode::Waiting { .. } => Some("waiting".to_owned()),
                ToNode::Refused { .. } => Some("refused".to_owned()),
                _ => None,
            },
            _ => None,
        });
        told.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(told(&publish(&mut core, 4, leader(4)), 4), "", "it has to be patient");
    join(&mut core, 3);
    assert_eq!(told(&publish(&mut core, 3, waiting(3, 70)), 3), "waiting");
    // The holder is the last to come.
    join(&mut core, 2);
    let held = Record { claimed: 50, fence: 900, ..leader(2) };
    assert_eq!(told(&publish(&mut core, 2, held), 2), "granted false");
    let mut out = Vec::new();
    core.on_time(SETTLE, &mut out);
    assert_eq!([2, 3, 4].map(|node| told(&out, node)), ["", "", "refused"]);
    let mut out = Vec::new();
    core.on_node_down(peer(1, 2).node, true, &mut out);
    assert_eq!([3, 4].map(|node| told(&out, node)), ["granted true", ""]);
}

#[test]
fn numbers_ahead_of_the_clock_are_known_to_the_next_directory() {
    let mut core = directory();
    join(&mut core, 2);
    join(&mut core, 3);
    let them = peer(2, 9);
    meet(&mut core, them, 5);
    // A host whose clock is an hour ahead.
    let ahead = WALL * 1000 + 3_600_000_000;
    snapshot(&mut core, them, 1, vec![Record { fence: ahead, ..record(them, 1, "x", Scope::Lan) }]);
    let out = publish(&mut core, 2, record(peer(1, 2), 1, "a", Scope::Host));
    let fence = out.iter().find_map(|e| match e {
        Effect::ToNode { message: ToNode::Granted { fence, .. }, .. } => Some(*fence),
        _ => None,
    });
    let told = out.iter().find_map(|e| match e {
        Effect::ToNode { node, message: ToNode::Fences(last) } if *node == peer(1, 3).node => {
            Some(*last)
        }
        _ => None,
    });
    let (fence, told) = (fence.unwrap(), told.unwrap());
    assert!(fence > ahead && told >= fence);
    assert!(publish(&mut core, 2, record(peer(1, 2), 2, "b", Scope::Host)).len() < out.len());
    // Whoever held `a` has died with the directory; node 3 lives on.
    let mut next = directory();
    let before = Some(told);
    next.on_node(
        peer(1, 3).node,
        ToHost::Register { group: None, before },
        T0,
        WALL,
        &mut Vec::new(),
    );
    let out = publish(&mut next, 3, record(peer(1, 3), 1, "a", Scope::Host));
    let [Effect::ToNode { message: ToNode::Granted { fence: later, .. }, .. }, ..] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert!(*later > fence);
}

#[derive(Debug, Clone)]
enum Step {
    Claim {
        host: usize,
        node: u64,
        waits: bool,
    },
    /// One of the claims that stand.
    Withdraw(usize),
    Kill(usize, u64),
    Deliver(usize, usize, usize),
    Part(usize, usize),
    Link(usize, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let host = || 0..3_usize;
    prop_oneof![
        4 => (host(), 1..3_u64, any::<bool>())
            .prop_map(|(host, node, waits)| Step::Claim { host, node, waits }),
        3 => any::<usize>().prop_map(Step::Withdraw),
        1 => (host(), 1..3_u64).prop_map(|(host, node)| Step::Kill(host, node)),
        6 => (host(), host(), 1..4_usize).prop_map(|(a, b, n)| Step::Deliver(a, b, n)),
        1 => (host(), host()).prop_map(|(a, b)| Step::Part(a, b)),
        1 => (host(), host()).prop_map(|(a, b)| Step::Link(a, b)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_one_holds_the_name_in_the_end_and_it_is_the_oldest(
        ahead in prop::collection::vec(0..50_u64, 3),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut mesh = Mesh::new(&ahead);
        let mut serial = 10;
        let mut apart = BTreeSet::new();
        for step in steps {
            match step {
                Step::Claim { host, node, waits } => {
                    serial += 1;
                    mesh.claim(host, node, serial, waits);
                }
                Step::Withdraw(which) => {
                    let all: Vec<_> = mesh.standing.keys().copied().collect();
                    if !all.is_empty() {
                        mesh.withdraw(all[which % all.len()]);
                    }
                }
                Step::Kill(host, node) => mesh.kill(host, node),
                Step::Deliver(a, b, n) => (0..n).for_each(|_| { mesh.deliver(a, b); }),
                Step::Part(a, b) if a != b && apart.insert((a.min(b), a.max(b))) => mesh.part(a, b),
                Step::Link(a, b) if apart.remove(&(a.min(b), a.max(b))) => mesh.link(a, b),
                Step::Part(..) | Step::Link(..) => {}
            }
        }
        for (a, b) in apart {
            mesh.link(a, b);
        }
        mesh.settle();
        let known = mesh.known(0);
        for host in 1..3 {
            prop_assert_eq!(&mesh.known(host), &known, "all hosts agree");
        }
        let granted = mesh.granted();
        let holders: Vec<_> = known.iter().filter(|r| !r.waiting).map(|r| r.instance).collect();
        prop_assert_eq!(&holders, &granted, "who holds it and who was told so are the same");
        prop_assert_eq!(granted.len(), usize::from(!known.is_empty()), "nobody waits in vain");
        if let Some(holder) = known.iter().find(|r| !r.waiting) {
            let highest = mesh.grants.iter().map(|(_, fence)| *fence).max();
            prop_assert_eq!(Some(holder.fence), highest, "its number is the highest ever given");
        }
        // Those in line are served one after the other, in order.
        let mut line: Vec<_> = known.iter().filter(|r| r.waiting).collect();
        line.sort_by_key(|r| (r.claimed, r.instance));
        let mut holder = granted.first().copied();
        for next in line {
            mesh.withdraw(holder.unwrap());
            mesh.deliver_all();
            prop_assert_eq!(mesh.granted(), [next.instance]);
            let highest = mesh.grants.iter().map(|(_, fence)| *fence).max();
            prop_assert_eq!(mesh.grants.last().map(|(_, fence)| *fence), highest);
            holder = Some(next.instance);
        }
    }
}
