//! The network between hosts, and the sockets within one.

use super::*;

/// After so long without a sign of life from its other end a link is dead.
const IDLE: Duration = Duration::from_secs(10);
/// What a dial to nobody takes.
const DIAL_TIME: Duration = Duration::from_secs(3);
/// Datagrams that wait for a process which is stopped.
const MAX_WAITING: usize = 400;
/// The longest that a post waits for its retransmission after a cable is in again.
const RETRANSMIT: u64 = 300;

/// How often a directory shows itself.
const ANNOUNCE: Duration = Duration::from_secs(5);

/// What is under way on a link.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    /// Between directories.
    Post(Bytes),
    Datagram(Bytes),
    /// Between a node and its directory.
    ToHost(Bytes),
    ToNode(Bytes),
    /// The other end has closed it.
    Close,
}

#[derive(Debug)]
pub(super) struct Arrival {
    link: u64,
    from: PeerId,
    to: PeerId,
    parcel: Parcel,
}

/// What one end of a link sends.
struct End {
    link: u64,
    /// When the last post arrives.
    last: Duration,
    /// Posts that a cut holds up.
    held: VecDeque<Parcel>,
    /// When the other end was heard last.
    heard: Duration,
}

/// See the module.
#[derive(Default)]
pub(super) struct Net {
    /// The ends of links, by who has it and who is on the other side.
    ends: BTreeMap<(PeerId, PeerId), End>,
    links: u64,
    /// Directions in which nothing passes.
    blocked: BTreeSet<(HostId, HostId)>,
    /// What a direction loses beyond the usual, and how much slower it is.
    pub(super) lossy: BTreeMap<(HostId, HostId), f64>,
    pub(super) slow: BTreeMap<(HostId, HostId), Duration>,
    /// The share of datagrams that comes twice, and of those that others overtake.
    pub(super) doubled: f64,
    pub(super) overtaken: f64,
    /// What was sent between hosts: packets and bytes.
    pub(super) datagrams: (u64, u64),
    pub(super) posts: (u64, u64),
}

impl World {
    /// Whether something gets from one host to another.
    pub(super) fn is_open(&self, from: HostId, to: HostId) -> bool {
        from == to
            || !(self.machines[&from].cut
                || self.machines[&to].cut
                || self.net.blocked.contains(&(from, to)))
    }

    pub(super) fn block(&mut self, from: HostId, to: HostId) {
        self.net.blocked.insert((from, to));
    }

    /// Pulls the cable of a host, or puts it in again.
    pub(super) fn cut(&mut self, host: u64, out: bool) {
        let host = HostId::from_bits(host);
        self.machines.get_mut(&host).unwrap().cut = out;
        self.truth.host_trouble(host, self.now);
    }

    /// All cables are in.
    pub(super) fn unblock_all(&mut self) {
        let blocked = std::mem::take(&mut self.net.blocked);
        for (from, to) in blocked {
            self.truth.pair_trouble(from, to, self.now);
        }
        let now = self.now;
        for (host, machine) in &mut self.machines {
            if std::mem::take(&mut machine.cut) {
                self.truth.host_trouble(*host, now);
            }
        }
        self.reopen();
    }

    pub(super) fn unblock(&mut self, from: HostId, to: HostId) {
        if self.net.blocked.remove(&(from, to)) {
            self.truth.pair_trouble(from, to, self.now);
        }
        self.reopen();
    }

    pub(super) fn blocked(&self) -> Vec<(HostId, HostId)> {
        self.net.blocked.iter().copied().collect()
    }

    /// What was held up goes on where it can.
    pub(super) fn reopen(&mut self) {
        let held = self.net.ends.iter().filter(|(_, end)| !end.held.is_empty());
        let held: Vec<_> = held.map(|(between, end)| (*between, end.link)).collect();
        for ((from, to), link) in held {
            if self.is_open(from.host, to.host) {
                let wait = self.millis(1..RETRANSMIT);
                self.after(wait, Event::Flush { link, from, to });
            }
        }
    }

    pub(super) fn send(&mut self, from: PeerId, to: PeerId, parcel: Parcel) {
        let Some(link) = self.net.ends.get(&(from, to)).map(|end| end.link) else { return };
        let local = from.host == to.host;
        let mut wait = Duration::from_micros(if local {
            self.rng.random_range(20..200)
        } else {
            self.rng.random_range(200..2000)
        });
        if local {
            self.post(link, from, to, wait, parcel);
            return;
        }
        let between = (from.host, to.host);
        wait += self.net.slow.get(&between).copied().unwrap_or_default();
        let more = self.net.lossy.get(&between).copied().unwrap_or_default();
        let loss = 1.0 - (1.0 - self.loss) * (1.0 - more);
        match parcel {
            Parcel::Datagram(packet) => {
                self.net.datagrams.0 += 1;
                self.net.datagrams.1 += packet.len() as u64;
                if (loss > 0.0 && self.rng.random_bool(loss)) || !self.is_open(from.host, to.host) {
                    return;
                }
                if self.net.overtaken > 0.0 && self.rng.random_bool(self.net.overtaken) {
                    wait += self.millis(1..60);
                }
                if self.net.doubled > 0.0 && self.rng.random_bool(self.net.doubled) {
                    let parcel = Parcel::Datagram(packet.clone());
                    let again = wait + self.millis(0..40);
                    self.after(again, Event::Arrive(Arrival { link, from, to, parcel }));
                }
                let parcel = Parcel::Datagram(packet);
                self.after(wait, Event::Arrive(Arrival { link, from, to, parcel }));
            }
            parcel => {
                if let Parcel::Post(bytes) = &parcel {
                    self.net.posts.0 += 1;
                    self.net.posts.1 += bytes.len() as u64;
                }
                while loss > 0.0 && self.rng.random_bool(loss) {
                    wait += self.millis(5..60);
                }
                self.post(link, from, to, wait, parcel);
            }
        }
    }

    /// Sends in order.
    fn post(&mut self, link: u64, from: PeerId, to: PeerId, wait: Duration, parcel: Parcel) {
        let Some(end) = self.net.ends.get_mut(&(from, to)) else { return };
        end.last = end.last.max(self.now + wait);
        let at = end.last;
        self.at(at, Event::Arrive(Arrival { link, from, to, parcel }));
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let Arrival { link, from, to, .. } = arrival;
        // The sender may have gone meanwhile; what it sent is under way all the same.
        if let Some(end) = self.net.ends.get_mut(&(from, to)).filter(|end| end.link == link) {
            let late = !end.held.is_empty() && !matches!(arrival.parcel, Parcel::Datagram(_));
            if late {
                end.held.push_back(arrival.parcel);
                return;
            }
        }
        if !self.is_open(from.host, to.host) {
            if let Some(end) = self.net.ends.get_mut(&(from, to)).filter(|end| end.link == link)
                && !matches!(arrival.parcel, Parcel::Datagram(_))
            {
                end.held.push_back(arrival.parcel);
            }
            return;
        }
        let Some(process) = self.running(to) else { return };
        if process.stopped.is_some() {
            let full = process.inbox.len() >= MAX_WAITING;
            if !(full && matches!(arrival.parcel, Parcel::Datagram(_))) {
                process.inbox.push_back(arrival);
            }
            return;
        }
        self.deliver(arrival);
    }

    pub(super) fn flush(&mut self, link: u64, from: PeerId, to: PeerId) {
        if !self.is_open(from.host, to.host) {
            return;
        }
        let Some(end) = self.net.ends.get_mut(&(from, to)).filter(|end| end.link == link) else {
            return;
        };
        for parcel in std::mem::take(&mut end.held) {
            self.arrive(Arrival { link, from, to, parcel });
        }
    }

    /// To a process that runs and is not stopped.
    pub(super) fn deliver(&mut self, arrival: Arrival) {
        let Arrival { link, from, to, parcel } = arrival;
        let now = self.now;
        // The receiver's own end must be that link.
        let Some(end) = self.net.ends.get_mut(&(to, from)).filter(|end| end.link == link) else {
            return;
        };
        end.heard = now;
        let embeds = self.embeds(to);
        match parcel {
            Parcel::Datagram(packet) if embeds => {
                self.directory(to.host, |core, out| core.on_datagram(from, &packet, now, out));
            }
            Parcel::Post(bytes) if embeds => {
                let message: ToPeer = message::decode(&bytes).unwrap();
                self.directory(to.host, |core, out| core.on_peer(from, message, now, out));
            }
            Parcel::Post(bytes) => {
                let hello = matches!(message::decode(&bytes).unwrap(), ToPeer::Hello { .. });
                let directory = self.process(to).agent.directory().cloned().filter(|_| hello);
                if let Some(addr) = directory {
                    let reply = message::encode(&ToPeer::Elsewhere(addr)).unwrap();
                    self.send(to, from, Parcel::Post(reply));
                }
            }
            Parcel::Datagram(_) => {}
            Parcel::ToHost(bytes) if embeds => {
                let message: ToHost = message::decode(&bytes).unwrap();
                let wall = self.wall(to.host);
                self.directory(to.host, |core, out| {
                    core.on_node(from.node, message, now, wall, out);
                });
            }
            Parcel::ToHost(_) => {}
            Parcel::ToNode(bytes) => {
                let message: ToNode = message::decode(&bytes).unwrap();
                if self.process(to).seat == Seat::Client(from) {
                    self.agent(to, |agent, out| agent.on_host(message, out));
                }
            }
            Parcel::Close => self.end_link(to, from),
        }
    }

    /// Both ends have a link to each other.
    pub(super) fn is_linked(&self, one: PeerId, other: PeerId) -> bool {
        let link = |a, b| self.net.ends.get(&(a, b)).map(|end| end.link);
        link(one, other).is_some() && link(one, other) == link(other, one)
    }

    pub(super) fn connect(&mut self, one: PeerId, other: PeerId) {
        self.net.links += 1;
        for between in [(one, other), (other, one)] {
            let (link, heard) = (self.net.links, self.now);
            let end = End { link, last: self.now, held: VecDeque::new(), heard };
            self.net.ends.insert(between, end);
        }
    }

    /// Takes down the links that a test on both ends (there, here) picks, from here. The far end
    /// hears it, if anything gets there.
    pub(super) fn close(&mut self, which: &dyn Fn(PeerId, PeerId) -> bool) {
        let ends = self.net.ends.keys().filter(|(a, b)| a.host != b.host && which(*b, *a));
        for (here, there) in ends.copied().collect::<Vec<_>>() {
            self.send(here, there, Parcel::Close);
            self.end_link(here, there);
        }
    }

    /// One end of a link is no more.
    pub(super) fn end_link(&mut self, here: PeerId, there: PeerId) {
        let now = self.now;
        let ended = self.net.ends.remove(&(here, there)).is_some();
        if ended && here.host != there.host && self.embeds(here) {
            self.directory(here.host, |core, _| core.on_peer_down(there, now));
        }
    }

    /// All ends of links that a process has, without a word.
    pub(super) fn drop_ends(&mut self, peer: PeerId) {
        self.net.ends.retain(|(here, _), _| *here != peer);
    }

    pub(super) fn neighbours(&self, peer: PeerId) -> Vec<PeerId> {
        let nobody = PeerId { host: HostId::from_bits(0), node: NodeId::from_bits(0) };
        let all = self.net.ends.range((peer, nobody)..);
        all.take_while(|((here, _), _)| *here == peer).map(|((_, there), _)| *there).collect()
    }

    /// Once a second: who hears nothing of the other end gives a link up after [`IDLE`], and at once
    /// where the other end says that it knows nothing of it.
    pub(super) fn reap(&mut self) {
        let mut dead = Vec::new();
        let now = self.now;
        let ends = std::mem::take(&mut self.net.ends);
        let alive = |there: PeerId, here: PeerId, link: u64| {
            ends.get(&(there, here)).is_some_and(|end| end.link == link)
        };
        let mut heard = Vec::new();
        for ((here, there), end) in &ends {
            if here.host == there.host || self.is_stopped(*here) {
                continue;
            }
            let back = self.is_open(there.host, here.host);
            let both = back && self.is_open(here.host, there.host);
            let runs = self.machines[&there.host].processes.contains_key(&there.node);
            let answers = back && !self.is_stopped(*there);
            let known = alive(*there, *here, end.link);
            // It says that it knows nothing of the link.
            let reset = answers && !known && runs && both;
            if answers && known {
                heard.push((*here, *there));
            } else if reset || now.saturating_sub(end.heard) >= IDLE {
                dead.push((*here, *there));
            }
        }
        self.net.ends = ends;
        for between in heard {
            if let Some(end) = self.net.ends.get_mut(&between) {
                end.heard = now;
            }
        }
        for (here, there) in dead {
            self.end_link(here, there);
        }
        self.after(Duration::from_secs(1), Event::Reap);
    }

    /// Whoever is in reach hears where a directory is.
    pub(super) fn announce(&mut self, me: PeerId) {
        let now = self.now;
        if !self.embeds(me) {
            return;
        }
        for host in self.machines.keys().copied().collect::<Vec<_>>() {
            let hears = |holder| !self.is_stopped(me) && !self.is_stopped(holder);
            if host != me.host
                && self.is_open(me.host, host)
                && self.holder(host).is_some_and(hears)
            {
                let (target, addr) = (Target::Host(me.host), addr(me));
                self.directory(host, |core, _| core.on_hint(target, &addr.hints, now));
            }
        }
        self.after(ANNOUNCE, Event::Announce(me));
    }

    pub(super) fn dial(&mut self, from: PeerId, target: Target, addrs: &[SocketAddr]) {
        let answer = addrs.iter().find_map(|addr| {
            let std::net::IpAddr::V4(ip) = addr.ip() else { return None };
            let [_, a, b, c] = ip.octets();
            let host = HostId::from_bits(u64::from(u32::from_be_bytes([0, a, b, c])));
            let mut nodes = self.machines.get(&host)?.processes.keys();
            let node = nodes.find(|node| port(**node) == addr.port())?;
            Some(PeerId { host, node: *node })
        });
        let reachable = answer.filter(|to| self.reaches(from, *to));
        let wait = if reachable.is_some() { self.millis(3..9) } else { DIAL_TIME };
        self.after(wait, Event::Dialled { from, target, to: reachable });
    }

    fn reaches(&self, from: PeerId, to: PeerId) -> bool {
        let runs = self.machines[&to.host].processes.contains_key(&to.node);
        let open = self.is_open(from.host, to.host) && self.is_open(to.host, from.host);
        runs && open && !self.is_stopped(to)
    }

    pub(super) fn dialled(&mut self, from: PeerId, target: Target, to: Option<PeerId>) {
        if !self.machines[&from.host].processes.contains_key(&from.node) {
            return;
        }
        if self.is_stopped(from) {
            self.after(Duration::from_millis(50), Event::Dialled { from, target, to });
            return;
        }
        let to = to.filter(|to| self.reaches(from, *to));
        if let Some(to) = to
            && !self.is_linked(from, to)
        {
            // A new link replaces what one end still takes for one.
            self.end_link(from, to);
            self.end_link(to, from);
            self.connect(from, to);
        }
        if self.embeds(from) {
            self.directory(from.host, |core, out| core.on_dialled(target, to, out));
        }
    }
}
