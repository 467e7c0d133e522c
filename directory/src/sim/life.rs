//! Processes and hosts: how they start, act, stop and end.

use super::*;

/// How long a process that leaves in order waits until the other hosts have heard it.
const FAREWELL: Duration = Duration::from_millis(300);

/// A host.
pub(super) struct Machine {
    pub(super) processes: BTreeMap<NodeId, Process>,
    pub(super) directory: Option<(NodeId, HostCore)>,
    /// When the directory's timers are served next.
    wake: Option<Duration>,
    /// What the runtime folder remembers.
    pub(super) incarnation: u64,
    pub(super) peers: Vec<(HostId, Vec<SocketAddr>)>,
    /// Who embedded the directory before and has died.
    left_behind: Option<NodeId>,
    pub(super) cut: bool,
    /// By how many milliseconds its wall clock is wrong.
    pub(super) clock: i64,
}

/// Where the directory of the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    Seeking,
    Client(PeerId),
    Holder,
}

pub(super) struct Process {
    pub(super) agent: Agent,
    pub(super) here: Here,
    pub(super) told: Told,
    pub(super) watches: Watches,
    pub(super) seat: Seat,
    agent_effects: VecDeque<agent::Effect>,
    host_effects: VecDeque<host::Effect>,
    /// Until when it is stopped.
    pub(super) stopped: Option<Duration>,
    /// What came meanwhile.
    pub(super) inbox: VecDeque<net::Arrival>,
    wake: Option<Duration>,
    pub(super) leaving: bool,
    /// Until when it waits for others to hear that it leaves.
    stop_waiting: Option<Duration>,
}

impl Machine {
    pub(super) const fn new(peers: Vec<(HostId, Vec<SocketAddr>)>) -> Self {
        Self {
            processes: BTreeMap::new(),
            directory: None,
            wake: None,
            incarnation: 0,
            peers,
            left_behind: None,
            cut: false,
            clock: 0,
        }
    }
}

impl World {
    /// A process starts: it joins the directory of its host, or becomes it.
    pub(super) fn start(&mut self, peer: PeerId) {
        self.start_in(peer, None);
    }

    /// The same with a process that belongs to a group.
    pub(super) fn start_in(&mut self, peer: PeerId, group: Option<Group>) {
        let here = Here { peer, group };
        let process = Process {
            agent: Agent::new(here.clone()),
            here,
            told: Told::default(),
            watches: Watches::default(),
            seat: Seat::Seeking,
            agent_effects: VecDeque::new(),
            host_effects: VecDeque::new(),
            stopped: None,
            inbox: VecDeque::new(),
            wake: None,
            leaving: false,
            stop_waiting: None,
        };
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.processes.insert(peer.node, process);
        self.subscribe(peer, ALL, self.interest, Scope::Lan);
        self.seek(peer);
    }

    pub(super) fn subscribe(&mut self, peer: PeerId, id: u64, pattern: &str, scope: Scope) {
        let pattern = Pattern::new(pattern).unwrap();
        self.told(peer).on_subscribed(id, pattern.clone(), scope);
        let room = self.agent(peer, |agent, out| agent.subscribe(id, pattern, scope, out));
        assert!(room);
    }

    pub(super) fn running(&mut self, peer: PeerId) -> Option<&mut Process> {
        self.machines.get_mut(&peer.host)?.processes.get_mut(&peer.node)
    }

    pub(super) fn is_stopped(&self, peer: PeerId) -> bool {
        let process = self.machines[&peer.host].processes.get(&peer.node);
        process.is_some_and(|process| process.stopped.is_some())
    }

    pub(super) fn embeds(&self, peer: PeerId) -> bool {
        self.holder(peer.host) == Some(peer)
    }

    /// The process that embeds the directory of a host.
    pub(super) fn holder(&self, host: HostId) -> Option<PeerId> {
        let (node, _) = self.machines[&host].directory.as_ref()?;
        Some(PeerId { host, node: *node })
    }

    pub(super) fn seek(&mut self, peer: PeerId) {
        let now = self.now;
        let Some(process) = self.running(peer) else { return };
        if process.seat != Seat::Seeking || process.leaving {
            return;
        }
        if let Some(until) = process.stopped {
            self.at(until.max(now), Event::Seek(peer));
            return;
        }
        match self.holder(peer.host) {
            None => self.embed(peer),
            // Nobody finds a directory that leaves, and nobody gets its lock yet.
            Some(holder) if self.process(holder).leaving => {
                let wait = self.millis(15..35);
                self.after(wait, Event::Seek(peer));
            }
            Some(holder) => {
                self.process(peer).seat = Seat::Client(holder);
                self.connect(peer, holder);
                self.agent(peer, Agent::on_host_up);
            }
        }
    }

    fn embed(&mut self, peer: PeerId) {
        self.note(|| format!("embed {}", truth::brief(peer)));
        let (now, seed, wall) = (self.now, self.seed, self.wall(peer.host));
        let planted = self.planted;
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.incarnation = wall.max(machine.incarnation + 1);
        let config = HostConfig {
            addr: addr(peer),
            host_name: format!("host{}", peer.host.to_bits()),
            incarnation: machine.incarnation,
            departed: machine.left_behind.take(),
            seed: seed ^ peer.node.to_bits(),
        };
        let mut core = HostCore::new(config, now);
        core.plant(planted);
        for (host, addrs) in machine.peers.clone() {
            core.on_hint(Target::Host(host), &addrs, now);
        }
        machine.directory = Some((peer.node, core));
        self.truth.host_trouble(peer.host, now);
        self.process(peer).seat = Seat::Holder;
        self.agent(peer, Agent::on_host_up);
    }

    /// Lets a node act, and carries out what follows.
    pub(super) fn agent<T>(
        &mut self,
        peer: PeerId,
        act: impl FnOnce(&mut Agent, &mut Vec<agent::Effect>) -> T,
    ) -> T {
        let process = self.process(peer);
        let mut out = Vec::new();
        let result = act(&mut process.agent, &mut out);
        process.agent_effects.extend(out);
        self.carry_out(peer);
        result
    }

    /// The same with the directory of a host, if it has one.
    pub(super) fn directory(
        &mut self,
        host: HostId,
        act: impl FnOnce(&mut HostCore, &mut Vec<host::Effect>),
    ) {
        let machine = self.machines.get_mut(&host).unwrap();
        let Some((node, core)) = &mut machine.directory else { return };
        let mut out = Vec::new();
        act(core, &mut out);
        let holder = PeerId { host, node: *node };
        if let Some(process) = machine.processes.get_mut(node) {
            process.host_effects.extend(out);
            self.carry_out(holder);
        }
    }

    /// All effects, in the order of the task that does it in earnest.
    fn carry_out(&mut self, peer: PeerId) {
        while let Some(process) = self.running(peer) {
            if let Some(effect) = process.agent_effects.pop_front() {
                self.on_agent_effect(peer, effect);
            } else if let Some(effect) = process.host_effects.pop_front() {
                self.on_host_effect(peer, effect);
            } else {
                break;
            }
        }
        self.set_timers(peer);
    }

    fn set_timers(&mut self, peer: PeerId) {
        if self.embeds(peer) {
            let machine = self.machines.get_mut(&peer.host).unwrap();
            let Some((_, core)) = &machine.directory else { return };
            let due = core.next_deadline().into_iter().chain(core.next_dial()).min();
            if let Some(due) = due
                && machine.wake.is_none_or(|wake| due < wake)
            {
                let due = due.max(self.now);
                machine.wake = Some(due);
                self.at(due, Event::Wake(peer.host));
            }
        }
        let Some(process) = self.running(peer) else { return };
        if let Some(due) = process.watches.next_deadline()
            && process.wake.is_none_or(|wake| due < wake)
        {
            process.wake = Some(due);
            self.at(due, Event::Watch(peer));
        }
    }

    pub(super) fn wake(&mut self, host: HostId) {
        let now = self.now;
        let machine = self.machines.get_mut(&host).unwrap();
        if machine.wake.is_none_or(|wake| wake > now) {
            return;
        }
        machine.wake = None;
        let Some(holder) = self.holder(host) else { return };
        if self.is_stopped(holder) {
            return;
        }
        self.serve(holder);
    }

    /// Serves what is due in a directory.
    fn serve(&mut self, holder: PeerId) {
        let now = self.now;
        let machine = self.machines.get_mut(&holder.host).unwrap();
        let Some((_, core)) = &mut machine.directory else { return };
        let due = core.next_deadline().is_some_and(|at| at <= now);
        if due {
            self.directory(holder.host, |core, out| core.on_time(now, out));
        }
        let machine = self.machines.get_mut(&holder.host).unwrap();
        let Some((_, core)) = &mut machine.directory else { return };
        for attempt in core.dials(now) {
            self.dial(holder, attempt.target, &attempt.addrs);
        }
        self.set_timers(holder);
    }

    pub(super) fn on_watches(&mut self, peer: PeerId) {
        let now = self.now;
        let Some(process) = self.running(peer) else { return };
        process.wake = None;
        if process.stopped.is_some() {
            return;
        }
        for ended in process.watches.on_time(now) {
            process.told.gone.push((now, ended.watch, ended.gone));
        }
        if process.watches.is_idle(now) {
            self.agent(peer, Agent::unwatch_presences);
        }
        self.set_timers(peer);
    }

    fn on_agent_effect(&mut self, peer: PeerId, effect: agent::Effect) {
        let now = self.now;
        let seat = self.process(peer).seat;
        match effect {
            agent::Effect::ToHost(message) => self.say(peer, &message),
            agent::Effect::Tell(registry::Effect::Available {
                subscription: PRESENCES,
                record,
            }) => {
                self.note(|| format!("{} present + {}", truth::brief(peer), record.name));
                self.process(peer).watches.on_available(record.instance);
            }
            agent::Effect::Tell(registry::Effect::Dropped {
                subscription: PRESENCES,
                record,
                reason,
            }) => {
                self.note(|| format!("{} present - {} {reason}", truth::brief(peer), record.name));
                let process = self.process(peer);
                let ended = process.watches.on_dropped(record.instance, reason, now);
                process.told.gone.extend(ended.iter().map(|e| (now, e.watch, e.gone)));
                for ended in ended {
                    self.check_gone(peer, (record.instance.peer(), ended.gone));
                }
            }
            agent::Effect::Tell(told) => self.tell(peer, told),
            agent::Effect::CloseProcess(gone) => self.close(&|a, b| a == gone && b == peer),
            agent::Effect::CloseHost(gone) => self.close(&|a, b| a.host == gone && b == peer),
            agent::Effect::Lost { serial, .. } => self.process(peer).told.on_lost(serial),
            agent::Effect::Refused { serial, .. } => self.process(peer).told.on_refused(serial),
            agent::Effect::Granted(record) => {
                self.process(peer).told.on_granted(record);
            }
            agent::Effect::Reseat => {
                if matches!(seat, Seat::Client(_)) {
                    self.unseat(peer, None);
                }
            }
            agent::Effect::Waiting(record) => self.process(peer).told.on_waiting(record),
            agent::Effect::Told { round, answer } => {
                self.say(peer, &ToHost::Told { round, answer });
            }
            agent::Effect::Network { part, last, .. } => {
                self.process(peer).told.on_network(&part, last);
            }
            agent::Effect::NetworkEvents(events) => self.process(peer).told.events.extend(events),
            agent::Effect::Hosts { .. } | agent::Effect::Pong { .. } | agent::Effect::Synced(_) => {
            }
        }
    }

    /// A process says something to the directory of its host.
    pub(super) fn say(&mut self, peer: PeerId, message: &ToHost) {
        match self.process(peer).seat {
            Seat::Client(directory) => {
                let bytes = message::encode(message).unwrap();
                self.send(peer, directory, Parcel::ToHost(bytes));
            }
            Seat::Holder => {
                let (message, now, wall) = (recode(message), self.now, self.wall(peer.host));
                let machine = self.machines.get_mut(&peer.host).unwrap();
                let Some((_, core)) = &mut machine.directory else { return };
                let mut out = Vec::new();
                core.on_node(peer.node, message, now, wall, &mut out);
                self.process(peer).host_effects.extend(out);
            }
            Seat::Seeking => {}
        }
    }

    fn on_host_effect(&mut self, me: PeerId, effect: host::Effect) {
        let (host, now) = (me.host, self.now);
        match effect {
            host::Effect::ToNode { node, message } if node == me.node => {
                let message: ToNode = recode(&message);
                let process = self.process(me);
                let mut out = Vec::new();
                process.agent.on_host(message, &mut out);
                process.agent_effects.extend(out);
            }
            host::Effect::ToNode { node, message } => {
                let bytes = message::encode(&message).unwrap();
                self.send(me, PeerId { host, node }, Parcel::ToNode(bytes));
            }
            host::Effect::ToPeer { peer, message } => {
                self.send(me, peer, Parcel::Post(message::encode(&message).unwrap()));
            }
            host::Effect::ToPeers { peers, message } => {
                let bytes = message::encode(&message).unwrap();
                for peer in peers {
                    self.send(me, peer, Parcel::Post(bytes.clone()));
                }
            }
            host::Effect::Datagram { peer, packet } => {
                assert!(packet.len() <= 1100);
                self.send(me, peer, Parcel::Datagram(packet));
            }
            host::Effect::StartLan => {
                let machine = self.machines.get_mut(&host).unwrap();
                if let Some((_, core)) = &mut machine.directory {
                    core.start_lan(addr(me), now);
                }
                self.after(Duration::from_millis(50), Event::Announce(me));
            }
            host::Effect::ClosePeer(peer) => self.close(&|a, b| a == peer && b == me),
            // None of these meets others there.
            host::Effect::Etcd(_) => {}
            host::Effect::CloseNode(node) => self.fail(&format!("{node} says too much")),
        }
    }

    fn unseat(&mut self, peer: PeerId, died: Option<PeerId>) {
        self.process(peer).seat = Seat::Seeking;
        self.agent(peer, |agent, out| agent.on_host_down(died, out));
        let wait = self.millis(1..35);
        self.after(wait, Event::Seek(peer));
    }

    /// A process hears from the kernel that another one of its host is gone.
    pub(super) fn notice(&mut self, by: PeerId, gone: PeerId, died: bool) {
        let now = self.now;
        let Some(process) = self.running(by) else { return };
        if let Some(until) = process.stopped {
            self.at(until.max(now), Event::Noticed { by, gone, died });
            return;
        }
        match process.seat {
            Seat::Client(directory) if directory == gone => {
                self.unseat(by, died.then_some(gone));
            }
            Seat::Holder => {
                self.directory(by.host, |core, out| core.on_node_down(gone.node, died, out));
            }
            _ => {}
        }
    }

    /// Kills a process; others of its host notice, and one takes over if it embedded the directory.
    /// Other hosts hear nothing more of it.
    pub(super) fn kill(&mut self, peer: PeerId) {
        self.note(|| format!("kill {}", truth::brief(peer)));
        self.remove(peer, true);
        self.truth.died.insert(peer);
        self.after(truth::BOUND, Event::Forgotten(vec![peer]));
    }

    fn remove(&mut self, peer: PeerId, died: bool) {
        let (now, embedded) = (self.now, self.embeds(peer));
        let machine = self.machines.get_mut(&peer.host).unwrap();
        machine.processes.remove(&peer.node).expect("it runs");
        if embedded {
            if let Some((_, core)) = machine.directory.take() {
                machine.peers = core.known_hosts();
            }
            machine.wake = None;
            machine.left_behind = died.then_some(peer.node);
            self.truth.host_trouble(peer.host, now);
        }
        self.drop_ends(peer);
        for node in self.machines[&peer.host].processes.keys().copied().collect::<Vec<_>>() {
            let by = PeerId { node, ..peer };
            let wait = Duration::from_micros(self.rng.random_range(50..1000));
            self.after(wait, Event::Noticed { by, gone: peer, died });
        }
    }

    /// The power of a host fails.
    pub(super) fn power_off(&mut self, host: HostId) {
        self.note(|| format!("power off {}", host.to_bits()));
        let now = self.now;
        let machine = self.machines.get_mut(&host).unwrap();
        let gone: Vec<_> =
            machine.processes.keys().map(|node| PeerId { host, node: *node }).collect();
        machine.processes.clear();
        machine.wake = None;
        machine.left_behind = None;
        // The runtime folder is not there any more after a start.
        machine.incarnation = 0;
        if let Some((_, core)) = machine.directory.take() {
            machine.peers = core.known_hosts();
        }
        for peer in &gone {
            self.drop_ends(*peer);
        }
        self.truth.host_trouble(host, now);
        self.truth.died.extend(gone.iter().copied());
        self.after(truth::BOUND, Event::Forgotten(gone));
    }

    /// A process ends in order.
    pub(super) fn leave(&mut self, peer: PeerId) {
        self.note(|| format!("leave {}", truth::brief(peer)));
        let now = self.now;
        self.truth.left.insert(peer);
        self.process(peer).told.own.clear();
        self.process(peer).leaving = true;
        self.agent(peer, Agent::withdraw_all);
        match self.process(peer).seat {
            Seat::Client(directory) => {
                let bytes = message::encode(&ToHost::Bye).unwrap();
                self.send(peer, directory, Parcel::ToHost(bytes));
                self.after(Duration::from_millis(1), Event::End(peer));
            }
            Seat::Holder => {
                self.truth.host_trouble(peer.host, now);
                self.directory(peer.host, |core, out| core.leave(now, out));
                self.process(peer).stop_waiting = Some(now + FAREWELL);
                self.after(Duration::from_millis(1), Event::End(peer));
            }
            Seat::Seeking => self.after(Duration::from_millis(1), Event::End(peer)),
        }
    }

    pub(super) fn end(&mut self, peer: PeerId) {
        let now = self.now;
        let Some(process) = self.running(peer) else { return };
        let patient = process.stop_waiting.is_some_and(|until| now < until);
        let unheard = |(_, core): &(NodeId, HostCore)| !core.has_left();
        let embeds = self.embeds(peer);
        let waits = embeds && self.machines[&peer.host].directory.as_ref().is_some_and(unheard);
        if self.is_stopped(peer) || (patient && waits) {
            self.after(Duration::from_millis(5), Event::End(peer));
            return;
        }
        for there in self.neighbours(peer) {
            self.send(peer, there, Parcel::Close);
        }
        self.remove(peer, false);
        self.after(truth::BOUND, Event::Forgotten(vec![peer]));
    }

    /// Stops a process, as SIGSTOP does, or as a host without a free processor.
    pub(super) fn stop(&mut self, peer: PeerId, time: Duration) {
        self.note(|| format!("stop {}", truth::brief(peer)));
        let until = self.now + time;
        self.truth.host_trouble(peer.host, until);
        let process = self.process(peer);
        process.stopped = Some(process.stopped.unwrap_or_default().max(until));
        self.at(until, Event::Resume(peer, until));
    }

    pub(super) fn stop_host(&mut self, host: HostId, time: Duration) {
        for node in self.machines[&host].processes.keys().copied().collect::<Vec<_>>() {
            self.stop(PeerId { host, node }, time);
        }
    }

    pub(super) fn resume(&mut self, peer: PeerId, until: Duration) {
        let Some(process) = self.running(peer) else { return };
        if process.stopped != Some(until) {
            return;
        }
        process.stopped = None;
        for arrival in std::mem::take(&mut process.inbox) {
            if self.running(peer).is_some() {
                self.deliver(arrival);
            }
        }
        if self.embeds(peer) {
            self.serve(peer);
        }
        self.on_watches(peer);
    }
}

/// Through the codec, as on a link.
fn recode<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> T {
    message::decode(&message::encode(message).unwrap()).unwrap()
}
