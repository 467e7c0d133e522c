//! The task that owns a node's [`Agent`] and, where this node embeds it, the host's directory.
//!
//! It runs where the links are carried, by default on the I/O thread, where no handler can starve it.
//! Everything that can happen comes through one queue; between two inputs it carries out all effects, in
//! order. It never waits for anything else.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use layercake_wire::{
    Endpoint, Link, LinkDown, Service,
    id::{HostId, NodeAddr, NodeId, PeerId},
    memory::{Announcement, Network},
};
use serde::Serialize;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    agent::{self, Agent},
    dial::Target,
    discovery::Mdns,
    hints,
    host::{self, HostCore},
    inlet::{Inlet, Input, Outlet},
    message::{self, HostView, ToHost, ToNode, ToPeer},
    presence::{Ended, NodeGone, Watches},
    publication::Standing,
    registry::Here,
    seat::Held,
    service::{DirectoryConfig, Feed, Granted, Status, WatchCall},
    trouble::{Trouble, TroubleKind},
};

use self::{
    asking::Asking,
    calls::{CALLS, Call},
};

mod asking;
mod calls;
mod effects;
mod network;
mod seating;
mod troubles;

/// How often the node's own addresses are looked at.
const ADDRESS_PERIOD: Duration = Duration::from_secs(1);
/// The pause after which something that failed locally is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long leaving waits until the other hosts have heard it.
const FAREWELL: Duration = Duration::from_millis(300);
/// What a trouble is about that is about no other host, seed or file.
const THIS_HOST: &str = "this host";
/// Inputs that are read before time is looked at again.
const BATCH: usize = 256;

/// Runs until it is closed.
pub(crate) async fn run(
    endpoint: Endpoint,
    outlet: Outlet,
    config: DirectoryConfig,
    status: Arc<Status>,
) {
    let Outlet { inlet, mut inputs } = outlet;
    let mut shell = Shell::new(endpoint, inlet, config, status);
    shell.introduce();
    let done = loop {
        let first = tokio::select! {
            biased; // what has arrived is heard before time passes
            input = inputs.recv() => input,
            () = tokio::time::sleep_until(shell.next_deadline()) => None,
        };
        // It holds a sender itself: the queue never ends.
        let mut next = first;
        let mut read = 0;
        let mut done = None;
        while let Some(input) = next {
            if let Input::Close(answer) = input {
                done = Some(answer);
                break;
            }
            shell.on_input(input);
            shell.carry_out();
            read += 1;
            next = if read < BATCH { inputs.try_recv().ok() } else { None };
        }
        if done.is_some() {
            break done;
        }
        shell.on_time();
        shell.carry_out();
    };
    shell.leave();
    let deadline = Instant::now() + FAREWELL;
    while !shell.has_left() {
        tokio::select! {
            Some(input) = inputs.recv() => {
                shell.on_input(input);
                shell.carry_out();
            }
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    shell.end().await;
    inputs.close();
    if let Some(answer) = done {
        let _ = answer.send(());
    }
}

/// Where the host directory is.
enum Seat {
    /// Nobody here needs one.
    None,
    Seeking,
    /// Looking for one failed; again at that time.
    Broken(Instant),
    Client(Link),
    Holder(Box<Holder>),
}

struct Holder {
    core: HostCore,
    held: Held,
    /// Until when it waits for another node to become the directory in its place.
    yielding: Option<Instant>,
    lan: Lan,
    seeds: Option<AbortHandle>,
    #[cfg(feature = "etcd")]
    etcd: Option<crate::etcd::client::Client>,
    stored: Vec<(HostId, Vec<std::net::SocketAddr>)>,
}

/// How far looking for other hosts has got.
enum Lan {
    Off,
    Starting,
    Broken(Instant),
    On { beacon: Option<Beacon>, next_store: Instant },
}

/// What shows this host to others, for as long as it is held.
enum Beacon {
    Mdns(Mdns),
    Network(#[expect(dead_code, reason = "held until it is dropped")] Announcement),
}

/// A publication of this node.
struct Published {
    standing: Option<watch::Sender<Standing>>,
    answer: Option<oneshot::Sender<Granted>>,
}

struct Shell {
    endpoint: Endpoint,
    me: PeerId,
    inlet: Inlet,
    config: DirectoryConfig,
    status: Arc<Status>,
    agent: Agent,
    seat: Seat,
    /// Whether this node should become the directory whenever it can.
    serve: bool,
    seeking: Option<AbortHandle>,
    /// Waits for the lock while another node is the directory.
    waiting: Option<AbortHandle>,
    /// The lock is free.
    freed: Arc<Notify>,
    /// The node that has let go of the lock for this one, and when.
    yielded: Option<(NodeId, Instant)>,
    started: Instant,
    links: HashMap<PeerId, Link>,
    published: HashMap<u64, Published>,
    feeds: HashMap<u64, Arc<Feed>>,
    watches: Watches,
    watchers: HashMap<u64, oneshot::Sender<NodeGone>>,
    asked: HashMap<u64, oneshot::Sender<Vec<HostView>>>,
    asking: Asking,
    asked_troubles: HashMap<u64, oneshot::Sender<Vec<Trouble>>>,
    next_request: u64,
    /// Who waits until the host directory has dealt with something.
    syncing: HashMap<u64, oneshot::Sender<()>>,
    syncing_swept: usize,
    /// Calls that wait because the host directory is behind, and how many make a sweep worth while.
    calls: VecDeque<Call>,
    calls_swept: usize,
    addr: NodeAddr,
    interfaces: Vec<(String, IpAddr)>,
    next_address: Instant,
    agent_effects: VecDeque<agent::Effect>,
    host_effects: VecDeque<host::Effect>,
    tasks: JoinSet<()>,
    /// Troubles that were told, so that each is told once.
    told: HashSet<String>,
}

impl Shell {
    fn new(endpoint: Endpoint, inlet: Inlet, config: DirectoryConfig, status: Arc<Status>) -> Self {
        let started = Instant::now();
        let mut shell = Self {
            me: endpoint.peer(),
            agent: Agent::new(Here { peer: endpoint.peer(), group: config.group.clone() }),
            addr: endpoint.addr(),
            endpoint,
            inlet,
            config,
            status,
            seat: Seat::None,
            serve: false,
            seeking: None,
            waiting: None,
            freed: Arc::default(),
            yielded: None,
            started,
            links: HashMap::new(),
            published: HashMap::new(),
            feeds: HashMap::new(),
            watches: Watches::default(),
            watchers: HashMap::new(),
            asked: HashMap::new(),
            asking: Asking::default(),
            asked_troubles: HashMap::new(),
            next_request: 0,
            syncing: HashMap::new(),
            syncing_swept: CALLS,
            calls: VecDeque::new(),
            calls_swept: CALLS,
            interfaces: Vec::new(),
            next_address: started + ADDRESS_PERIOD,
            agent_effects: VecDeque::new(),
            host_effects: VecDeque::new(),
            tasks: JoinSet::new(),
            told: HashSet::new(),
        };
        for complaint in std::mem::take(&mut shell.config.complaints) {
            shell.trouble(TroubleKind::Setting, "the environment", &complaint);
        }
        shell
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        wall_ms(&self.endpoint)
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Up(link) => self.on_up(link),
            Input::Down(link, down) => self.on_down(&link, &down),
            Input::Post(link, service, body) => {
                self.inlet.give_back(body.len());
                self.on_post(&link, service, &body);
            }
            Input::Datagram(from, body) => {
                self.inlet.give_back(body.len());
                self.in_core(|core, now, out| core.on_datagram(from, &body, now, out));
            }
            Input::Overrun(peer) => {
                tracing::warn!(%peer, "a peer sends more directory messages than can be read");
                self.endpoint.close_link(peer.node, "too many directory messages");
            }
            Input::Publish(call) => self.on_call(Call::Publish(call)),
            Input::WithdrawAll => {
                for serial in self.published.keys().copied().collect::<Vec<_>>() {
                    self.on_input(Input::Withdraw(serial));
                }
            }
            Input::Withdraw(serial) => {
                self.published.remove(&serial);
                self.in_agent(|agent, out| agent.withdraw(serial, out));
            }
            Input::Subscribe(call) => self.on_call(Call::Subscribe(call)),
            Input::Sync(answer) => self.on_sync(answer),
            Input::Unsubscribe(id) => {
                self.feeds.remove(&id);
                self.in_agent(|agent, out| agent.unsubscribe(id, out));
            }
            Input::Present => {
                self.in_agent(Agent::be_present);
                self.seek_if_needed();
            }
            Input::Join => {
                self.agent.join();
                self.seek_if_needed();
            }
            Input::Watch(call) => self.on_watch(call),
            Input::Unwatch(id) => {
                self.watchers.remove(&id);
                self.watches.unwatch(id, self.now());
            }
            Input::Serve => {
                self.serve = true;
                self.in_core(|core, _, out| core.want_lan(out));
                match self.seat {
                    Seat::None => self.seek(),
                    Seat::Client(_) => self.wait_turn(),
                    Seat::Seeking | Seat::Broken(_) | Seat::Holder(_) => {}
                }
            }
            Input::Hosts(answer) => self.on_hosts(answer),
            Input::Network(answer) => self.on_network(answer),
            Input::WatchNetwork(watch) => self.on_watch_network(watch),
            Input::Ping(host, node, answer) => self.on_ping(host, node, answer),
            Input::Troubles(answer) => self.on_troubles(answer),
            Input::Seated(seated) => self.on_seated(seated),
            Input::Dialled(target, result) => self.on_dialled(target, result),
            Input::Found(target, addrs) => {
                self.in_core(|core, now, _| core.on_hint(target, &addrs, now));
            }
            Input::Heard(host, addrs) => {
                self.in_core(|core, now, _| core.on_heard(host, &addrs, now));
            }
            Input::Trouble(kind, about, why) => self.trouble(kind, &about, &why),
            Input::Settled(kind, about) => self.settle(kind, &about),
            Input::Listening(result) => self.on_listening(result),
            #[cfg(feature = "etcd")]
            Input::Etcd(said, _room) => self.in_core(|core, now, out| core.on_etcd(said, now, out)),
            Input::Close(_) => {}
        }
    }

    fn on_up(&mut self, link: Link) {
        let peer = link.peer();
        if peer.host != self.me.host {
            self.settle(TroubleKind::Dial, &peer.host.to_string());
        }
        let old = self.links.insert(peer, link.clone());
        if old.is_some_and(|old| old != link) && peer.host != self.me.host {
            // Its own end comes later, and is not taken for the end of the new one.
            self.in_core(|core, now, _| core.on_peer_down(peer, now));
        }
    }

    fn on_down(&mut self, link: &Link, down: &LinkDown) {
        let peer = link.peer();
        let current = self.links.get(&peer) == Some(link);
        if current {
            self.links.remove(&peer);
        }
        // End of file within the host: the process is gone. (Not so where a newer link replaced it.)
        let died = matches!(down, LinkDown::Lost(_))
            && link.is_local()
            && self.endpoint.existing(peer.node).is_none();
        if matches!(&self.seat, Seat::Client(directory) if directory == link) {
            tracing::debug!(%peer, %down, "the host directory is gone");
            self.unseat(died.then_some(peer));
        }
        if !current {
            return;
        }
        if peer.host == self.me.host {
            self.in_core(|core, _, out| core.on_node_down(peer.node, died, out));
        } else {
            self.in_core(|core, now, _| core.on_peer_down(peer, now));
        }
    }

    fn on_post(&mut self, link: &Link, service: Service, body: &[u8]) {
        let from = link.peer();
        let result = match service {
            Service::Directory if from.host == self.me.host => {
                message::decode::<ToHost>(body).map(|message| match message {
                    ToHost::Yield => self.on_yield(link),
                    ToHost::Taken => self.on_taken(),
                    ToHost::Troubles(request) => {
                        let troubles = self.status.troubles().list(self.wall_ms());
                        post(link, Service::Agent, &ToNode::Troubles { request, troubles });
                    }
                    message => {
                        let wall = self.wall_ms();
                        self.in_core(|core, now, out| {
                            core.on_node(from.node, message, now, wall, out);
                        });
                    }
                })
            }
            Service::Agent => message::decode::<ToNode>(body).map(|message| {
                // Only the directory that this node has chosen is believed.
                if !matches!(&self.seat, Seat::Client(directory) if directory == link) {
                    return;
                }
                self.status.progress.fetch_add(1, Ordering::Relaxed);
                match message {
                    ToNode::Yielded => self.on_yielded(from.node),
                    ToNode::Troubles { request, troubles } => {
                        if let Some(answer) = self.asked_troubles.remove(&request) {
                            let _ = answer.send(troubles);
                        }
                    }
                    message => self.in_agent(|agent, out| agent.on_host(message, out)),
                }
            }),
            Service::Peer => {
                message::decode::<ToPeer>(body).map(|message| self.on_peer(link, message))
            }
            Service::Directory => {
                tracing::warn!(%from, "a node of another host takes this one for its directory");
                Ok(())
            }
        };
        if let Err(error) = result {
            self.tell_once(format!("{} says what this node does not understand: {error}", from));
        }
    }

    fn on_peer(&mut self, link: &Link, message: ToPeer) {
        let from = link.peer();
        if matches!(self.seat, Seat::Holder(_)) {
            self.in_core(|core, now, out| core.on_peer(from, message, now, out));
        } else if matches!(message, ToPeer::Hello { .. })
            && let Some(addr) = self.agent.directory()
        {
            post(link, Service::Peer, &ToPeer::Elsewhere(addr.clone()));
        }
    }

    fn on_watch(&mut self, call: WatchCall) {
        let WatchCall { id, peer, answer } = call;
        self.watchers.insert(id, answer);
        let ended = self.watches.watch(id, peer, self.now());
        self.end_watches(ended);
        self.in_agent(Agent::watch_presences);
        self.seek_if_needed();
    }

    fn end_watches(&mut self, ended: impl IntoIterator<Item = Ended>) {
        for Ended { watch, gone } in ended {
            if let Some(answer) = self.watchers.remove(&watch) {
                let _ = answer.send(gone);
            }
        }
    }

    fn on_hosts(&mut self, answer: oneshot::Sender<Vec<HostView>>) {
        match &self.seat {
            Seat::Holder(holder) => {
                let _ = answer.send(holder.core.hosts());
            }
            Seat::Client(link) => {
                self.asked.retain(|_, waiting| !waiting.is_closed());
                self.next_request += 1;
                self.asked.insert(self.next_request, answer);
                post(link, Service::Directory, &ToHost::Hosts(self.next_request));
            }
            Seat::None | Seat::Seeking | Seat::Broken(_) => {
                let _ = answer.send(Vec::new());
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let mut next = self.next_address;
        if let Some(due) = self.watches.next_deadline() {
            next = next.min(self.started + due);
        }
        match &self.seat {
            Seat::Broken(again) => next = next.min(*again),
            Seat::Holder(holder) => {
                let due = [holder.core.next_deadline(), holder.core.next_dial()];
                for due in due.into_iter().flatten() {
                    next = next.min(self.started + due);
                }
                if let Some(until) = holder.yielding {
                    next = next.min(until);
                }
                match &holder.lan {
                    Lan::Broken(again) => next = next.min(*again),
                    Lan::On { next_store, .. } => next = next.min(*next_store),
                    Lan::Off | Lan::Starting => {}
                }
            }
            Seat::None | Seat::Seeking | Seat::Client(_) => {}
        }
        next
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        while self.tasks.try_join_next().is_some() {}
        if self.next_address <= now {
            self.next_address = now + ADDRESS_PERIOD;
            // A daemon that could not wait for its turn, for a full disk say, tries again.
            let waits = self.waiting.as_ref().is_some_and(|waiting| !waiting.is_finished());
            if self.serve && !waits && matches!(self.seat, Seat::Client(_)) {
                self.wait_turn();
            }
            self.look_at_address();
            self.look_at_interfaces();
            self.forget_abandoned();
        }
        if matches!(self.seat, Seat::Broken(again) if again <= now) {
            self.seek();
        }
        let since = self.now();
        let ended = self.watches.on_time(since);
        self.end_watches(ended);
        if self.watches.is_idle(since) {
            self.in_agent(Agent::unwatch_presences);
        }
        let mut attempts = Vec::new();
        let mut restart = false;
        let yielding = |holder: &Holder| holder.yielding.is_some_and(|until| until <= now);
        if matches!(&self.seat, Seat::Holder(holder) if yielding(holder)) {
            self.end_yielding();
        }
        if let Seat::Holder(holder) = &mut self.seat {
            if holder.core.next_deadline().is_some_and(|due| due <= since) {
                let mut out = Vec::new();
                holder.core.on_time(since, &mut out);
                self.host_effects.extend(out);
            }
            attempts = holder.core.dials(since);
            match &mut holder.lan {
                Lan::Broken(again) => restart = *again <= now,
                Lan::On { next_store, .. } if *next_store <= now => {
                    *next_store = now + RETRY;
                    let known = holder.core.known_hosts();
                    if let Some(folder) = &holder.held.folder
                        && known != holder.stored
                    {
                        holder.stored.clone_from(&known);
                        let (folder, inlet) = (folder.clone(), self.inlet.clone());
                        tokio::task::spawn_blocking(move || {
                            let about = folder.display().to_string();
                            inlet.send(match hints::store_peers(&folder, &known) {
                                Ok(()) => Input::Settled(TroubleKind::Peers, about),
                                Err(error) => {
                                    Input::Trouble(TroubleKind::Peers, about, error.to_string())
                                }
                            });
                        });
                    }
                }
                Lan::Off | Lan::Starting | Lan::On { .. } => {}
            }
        }
        if restart {
            self.start_lan();
        }
        for attempt in attempts {
            tracing::debug!(target = ?attempt.target, addrs = ?attempt.addrs, "dialling");
            let (endpoint, inlet) = (self.endpoint.clone(), self.inlet.clone());
            self.tasks.spawn(async move {
                let host = match attempt.target {
                    Target::Host(host) => Some(host),
                    Target::Addr(_) => None,
                };
                let link = endpoint.dial_any(&attempt.addrs, host).await;
                inlet.send(Input::Dialled(attempt.target, link));
            });
        }
    }

    /// Addresses change: a cable, a new lease, another network.
    fn look_at_address(&mut self) {
        let addr = self.endpoint.addr();
        if addr == self.addr {
            return;
        }
        self.addr = addr.clone();
        self.in_agent(|agent, out| agent.on_address(&addr, out));
        self.in_core(|core, _, out| {
            core.set_addr(addr);
            core.tell_addr(out);
        });
    }

    /// Claims that nobody waits for any more while no directory answers them.
    fn forget_abandoned(&mut self) {
        let abandoned = |p: &Published| p.answer.as_ref().is_some_and(oneshot::Sender::is_closed);
        let all = self.published.iter();
        let serials: Vec<_> = all.filter(|(_, p)| abandoned(p)).map(|(s, _)| *s).collect();
        for serial in serials {
            self.on_input(Input::Withdraw(serial));
        }
    }

    fn in_agent<T>(&mut self, act: impl FnOnce(&mut Agent, &mut Vec<agent::Effect>) -> T) -> T {
        let mut out = Vec::new();
        let result = act(&mut self.agent, &mut out);
        self.agent_effects.extend(out);
        result
    }

    /// Where this node embeds the directory; nothing happens otherwise.
    fn in_core(&mut self, act: impl FnOnce(&mut HostCore, Duration, &mut Vec<host::Effect>)) {
        let now = self.now();
        if let Seat::Holder(holder) = &mut self.seat {
            let mut out = Vec::new();
            act(&mut holder.core, now, &mut out);
            holder.core.flush(now, &mut out);
            self.host_effects.extend(out);
        }
    }

    fn set_trouble(&self, trouble: String) {
        *self.status.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn tell_once(&mut self, trouble: String) {
        // Bounded, since what peers do may be part of it.
        if self.told.len() < 256 && self.told.insert(trouble.clone()) {
            tracing::warn!("{trouble}");
        }
    }

    /// Notes where other hosts were last, for whoever serves the directory next.
    fn remember(&self) {
        if let Seat::Holder(holder) = &self.seat
            && let Lan::On { .. } = holder.lan
            && let Some(folder) = &holder.held.folder
        {
            let known = holder.core.known_hosts();
            if known != holder.stored
                && let Err(error) = hints::store_peers(folder, &known)
            {
                tracing::debug!(%error, "cannot remember the peers");
            }
        }
    }

    /// Says goodbye to everybody.
    fn leave(&mut self) {
        self.remember();
        self.in_agent(Agent::withdraw_all);
        self.carry_out();
        match &mut self.seat {
            Seat::Client(link) => post(link, Service::Directory, &ToHost::Bye),
            Seat::Holder(holder) => {
                // From here on nobody should come to this directory.
                drop(holder.held.socket.take());
                if let Lan::On { beacon: Some(Beacon::Mdns(mdns)), .. } = &mut holder.lan {
                    mdns.begin_stop();
                }
            }
            Seat::None | Seat::Seeking | Seat::Broken(_) => {}
        }
        self.in_core(HostCore::leave);
        self.carry_out();
    }

    fn has_left(&self) -> bool {
        match &self.seat {
            Seat::Holder(holder) => holder.core.has_left(),
            _ => true,
        }
    }

    async fn end(&mut self) {
        self.tasks.abort_all();
        self.published.clear();
        self.calls.clear();
        self.syncing.clear();
        self.watchers.clear();
        for (_, feed) in self.feeds.drain() {
            feed.close();
        }
        let seat = std::mem::replace(&mut self.seat, Seat::None);
        self.status.holder.send_replace(false);
        if let Seat::Holder(holder) = seat {
            let Holder { held, lan, .. } = *holder;
            // Others may take over while this host is still saying goodbye on the network.
            drop(held);
            if let Lan::On { beacon: Some(Beacon::Mdns(mdns)), .. } = lan {
                mdns.stop().await;
            }
        }
    }
}

/// Encodes and posts; a link that is closed is noticed elsewhere.
fn post<T: Serialize>(link: &Link, service: Service, message: &T) {
    if let Some(body) = encoded(message) {
        let _ = link.post(service, body);
    }
}

fn encoded<T: Serialize>(message: &T) -> Option<Bytes> {
    let body = message::encode(message);
    body.inspect_err(|error| tracing::error!(%error, "a directory message cannot be encoded")).ok()
}

/// Milliseconds since 1970, by the clock that the node lives by.
pub(crate) fn wall_ms(endpoint: &Endpoint) -> u64 {
    let now = endpoint.network().map_or_else(SystemTime::now, Network::wall);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
