//! What operators see: the whole mesh as this host can find out within a second, and what happens in it.
//!
//! A node asks its host directory; that asks its own nodes and the directories that it has links to,
//! each of which asks its nodes. Who does not answer in time is shown with what is known of it anyway.
//! All of this is started by [`HostCore::view_on_time`], since only there the time is known: a question
//! that has come makes it due at once.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use layercake_wire::{
    id::{HostId, NodeId, PeerId},
    payload::{self, Encoding},
};

use super::{Effect, HostCore, locals::Local, peers::Remote};
use crate::{
    journal::Journal,
    message::{self, ToHost, ToNode, ToPeer},
    network::{
        HostAnswer, HostState, Network, NetworkHost, NetworkNode, NetworkSubscription, NodeAnswer,
    },
    record::DropReason,
    survey::{Ended, MAX_ASKERS_EACH, Rounds},
    trouble::TroubleKind,
};

#[cfg(test)]
mod tests;

/// How long the nodes of a host have to answer.
const NODES_ANSWER: Duration = Duration::from_millis(400);
/// How long the directories of other hosts have: they may be at their nodes for somebody else first.
const HOSTS_ANSWER: Duration = Duration::from_secs(1);
/// What one host tells of itself, in bytes; beyond it only the number of what is left out.
const MAX_ANSWER: usize = 4 << 20;
/// What all hosts together may tell, in bytes.
const MAX_NETWORK: usize = 24 << 20;
/// For how long a host that has gone is shown.
pub(crate) const SHOWN: Duration = Duration::from_secs(600);
/// How many hosts that have gone are shown: the last ones.
pub(crate) const MAX_SHOWN: usize = 64;

/// Who wants to know about the nodes of this host.
enum Asker {
    /// This directory, for a round over the mesh.
    Mesh(u64),
    Peer {
        peer: PeerId,
        round: u64,
        room: usize,
    },
}

/// A node that asks for everything.
struct Reader {
    node: NodeId,
    request: u64,
    wall_ms: u64,
}

/// What the host directory keeps for this.
pub(super) struct View {
    pub(super) journal: Journal,
    nodes: Rounds<NodeId, NodeAnswer, Asker>,
    hosts: Rounds<HostId, HostAnswer, Reader>,
    /// Answers of hosts of which the last part has not come.
    parts: BTreeMap<HostId, BytesMut>,
    /// What a host may tell in the present round.
    room: usize,
    /// The wall clock when `now` was zero, in milliseconds, as far as it is known.
    epoch: u64,
    started: Duration,
}

impl View {
    pub(super) fn new(me: HostId, now: Duration) -> Self {
        Self {
            journal: Journal::new(me),
            nodes: Rounds::new(NODES_ANSWER),
            hosts: Rounds::new(HOSTS_ANSWER),
            parts: BTreeMap::new(),
            room: 0,
            epoch: 0,
            started: now,
        }
    }

    /// When [`HostCore::view_on_time`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.nodes.deadline(), self.hosts.deadline()].into_iter().flatten().min()
    }

    /// A node of this host will not answer any more.
    pub(super) fn node_gone(&mut self, node: NodeId) {
        self.nodes.gone(&node);
    }

    /// Another host will not answer any more.
    pub(super) fn host_gone(&mut self, host: HostId) {
        self.hosts.gone(&host);
        self.parts.remove(&host);
    }

    fn wall(&self, at: Duration) -> u64 {
        self.epoch.saturating_add(millis(at))
    }
}

impl HostCore {
    /// A node of this host asks, or answers what it was asked.
    pub(super) fn on_node_view(
        &mut self,
        node: NodeId,
        message: ToHost,
        wall_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        match message {
            ToHost::About(about) => {
                if let Some(local) = self.nodes.get_mut(&node) {
                    local.about = about.trimmed();
                }
            }
            ToHost::Network(request) => {
                // Who asks for the mesh wants it to be found.
                self.want_lan(out);
                let reader = Reader { node, request, wall_ms };
                let alike = |other: &Reader| other.node == node;
                if self.view.hosts.ask(reader, MAX_ASKERS_EACH, alike).is_err() {
                    tracing::warn!(%node, "too many ask for the whole network at a time");
                }
            }
            ToHost::Told { round, answer } => {
                self.view.nodes.answer(round, node, answer.bounded());
            }
            ToHost::WatchNetwork(watch) => self.view.journal.watch(node, watch),
            ToHost::Ping { request, host, node: to } => {
                self.on_ping(node, request, host, to, out);
            }
            ToHost::Pong(number) => self.on_node_pong(node, number, out),
            _ => {}
        }
    }

    /// The directory of another host asks, or answers.
    pub(super) fn on_peer_view(&mut self, from: PeerId, message: ToPeer, out: &mut Vec<Effect>) {
        match message {
            ToPeer::Survey { round, room } => {
                let room = MAX_ANSWER.min(room as usize);
                // It has one round at a time.
                let asker = Asker::Peer { peer: from, round, room };
                let alike =
                    |other: &Asker| matches!(other, Asker::Peer { peer, .. } if *peer == from);
                if self.view.nodes.ask(asker, 1, alike).is_err() {
                    tracing::warn!(%from, "too many ask for the nodes of this host at a time");
                }
            }
            ToPeer::Surveyed { round, part, last } => {
                self.on_surveyed(from.host, round, &part, last);
            }
            ToPeer::Ping { number, node } => self.on_peer_ping(from, number, node, out),
            ToPeer::Pong { number, reached } => {
                self.on_peer_pong(from.host, number, reached, out);
            }
            _ => {}
        }
    }

    fn on_surveyed(&mut self, host: HostId, round: u64, part: &Bytes, last: bool) {
        let view = &mut self.view;
        if !view.hosts.awaits(round, &host) {
            view.parts.remove(&host);
            return;
        }
        let bytes = view.parts.entry(host).or_default();
        // It was told how much there is room for, and counts roughly.
        if bytes.len() + part.len() > 2 * view.room + message::MAX_PART {
            tracing::warn!(%host, "a host tells more of itself than it was asked for");
            view.host_gone(host);
            return;
        }
        bytes.extend_from_slice(part);
        if !last {
            return;
        }
        let bytes = view.parts.remove(&host).unwrap_or_default();
        match payload::decode::<HostAnswer>(Encoding::Bincode, &bytes) {
            Ok(mut answer) => {
                for node in &mut answer.nodes {
                    node.about = std::mem::take(&mut node.about).trimmed();
                }
                answer.fit(view.room);
                view.hosts.answer(round, host, answer);
            }
            Err(error) => {
                tracing::warn!(%host, %error, "what a host tells of itself is not understood");
                view.host_gone(host);
            }
        }
    }

    /// Begins and ends rounds.
    pub(super) fn view_on_time(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.view.deadline().is_none() {
            return;
        }
        let linked = self.linked();
        let me = self.me.host;
        let hosts = || linked.iter().map(|peer| peer.host).chain([me]).collect();
        if let Some(round) = self.view.hosts.begin(now, hosts) {
            let wall = self.view.hosts.askers().iter().map(|reader| reader.wall_ms).max();
            self.view.epoch = wall.unwrap_or_default().saturating_sub(millis(now));
            self.view.parts.clear();
            let room = MAX_ANSWER.min(MAX_NETWORK / (linked.len() + 1));
            self.view.room = room;
            let survey = ToPeer::Survey { round, room: u32::try_from(room).unwrap_or(u32::MAX) };
            out.extend(
                linked.iter().map(|peer| Effect::ToPeer { peer: *peer, message: survey.clone() }),
            );
            if self.view.nodes.ask(Asker::Mesh(round), 1, |_| false).is_err() {
                self.view.hosts.gone(&me);
            }
        }
        let nodes = self.registered();
        if let Some(round) = self.view.nodes.begin(now, || nodes.iter().copied().collect()) {
            out.extend(
                nodes
                    .iter()
                    .map(|node| Effect::ToNode { node: *node, message: ToNode::Tell(round) }),
            );
        }
        if let Some(ended) = self.view.nodes.end(now) {
            self.on_nodes_told(ended, out);
        }
        if let Some(ended) = self.view.hosts.end(now) {
            self.view.parts.clear();
            self.on_hosts_told(ended, now, out);
        }
    }

    fn on_nodes_told(&mut self, ended: Ended<NodeId, NodeAnswer, Asker>, out: &mut Vec<Effect>) {
        let Ended { askers, mut answers } = ended;
        let mut all = HostAnswer::default();
        for (node, local) in &self.nodes {
            let (mut shown, omitted) = show_local(*node, local, answers.remove(node));
            shown.directory = *node == self.me.node;
            if shown.directory && shown.addresses.is_empty() {
                shown.addresses = self.config.addr.hints.to_vec();
            }
            all.nodes.push(shown);
            all.omitted += omitted;
        }
        for asker in askers {
            let mut answer = all.clone();
            match asker {
                Asker::Mesh(round) => {
                    answer.fit(self.view.room);
                    self.view.hosts.answer(round, self.me.host, answer);
                }
                Asker::Peer { peer, round, room } => {
                    answer.fit(room);
                    let Ok(bytes) = payload::encode(Encoding::Bincode, &answer) else { continue };
                    out.extend(message::cut(bytes).into_iter().map(|(part, last)| {
                        let message = ToPeer::Surveyed { round, part, last };
                        Effect::ToPeer { peer, message }
                    }));
                }
            }
        }
    }

    fn on_hosts_told(
        &mut self,
        ended: Ended<HostId, HostAnswer, Reader>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Ended { askers, answers } = ended;
        let network = self.network(answers, now);
        let bytes = match payload::encode(Encoding::Bincode, &network) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "the network cannot be encoded");
                return;
            }
        };
        for Reader { node, request, .. } in askers {
            out.extend(message::cut(bytes.clone()).into_iter().map(|(part, last)| {
                let message = ToNode::Network { request, part, last };
                Effect::ToNode { node, message }
            }));
        }
    }

    /// Puts together what was answered, and what is known of those who did not.
    fn network(&self, mut answers: BTreeMap<HostId, HostAnswer>, now: Duration) -> Network {
        let view = &self.view;
        let HostAnswer { nodes, omitted } = answers.remove(&self.me.host).unwrap_or_default();
        let trouble_with = |host: HostId| {
            let about = host.to_string();
            let mut troubles = nodes.iter().flat_map(|node| &node.troubles);
            let dial = troubles.find(|t| t.kind == TroubleKind::Dial && t.about == about);
            dial.map(|trouble| trouble.why.clone())
        };
        let here = NetworkHost {
            host: self.me.host,
            name: self.config.host_name.clone(),
            state: HostState::Here,
            since: view.wall(view.started),
            trouble: None,
            addresses: self.config.addr.hints.to_vec(),
            nodes: nodes.clone(),
            omitted,
        };
        let mut others = Vec::new();
        let mut gone = Vec::new();
        for (host, remote) in &self.remotes {
            let answer = answers.remove(host);
            let (state, since) = remote.state(answer.is_some(), view.started);
            let HostAnswer { nodes, omitted } = answer.unwrap_or_else(|| {
                let mut answer = HostAnswer { nodes: remote.known_nodes(), omitted: 0 };
                answer.fit(view.room);
                answer
            });
            let shown = NetworkHost {
                host: *host,
                name: remote.host_name().to_owned(),
                state,
                since: view.wall(since),
                trouble: if state.is_missing() { trouble_with(*host) } else { None },
                addresses: remote.addresses(),
                nodes,
                omitted,
            };
            if remote.gone.is_some() {
                gone.push((since, shown));
            } else {
                others.push(shown);
            }
        }
        gone.retain(|(since, _)| now.saturating_sub(*since) < SHOWN);
        gone.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        others.extend(gone.into_iter().take(MAX_SHOWN).map(|(_, shown)| shown));
        let unmet = self.dialer.known().into_iter();
        others.extend(unmet.filter(|(host, _)| !self.remotes.contains_key(host)).map(
            |(host, addresses)| NetworkHost {
                host,
                name: String::new(),
                state: HostState::NeverReached,
                since: view.wall(view.started),
                trouble: trouble_with(host),
                addresses,
                nodes: Vec::new(),
                omitted: 0,
            },
        ));
        others.sort_by(|a, b| (&a.name, a.host).cmp(&(&b.name, b.host)));
        let hosts = std::iter::once(here).chain(others).collect();
        Network { at: view.wall(now), here: self.me.host, hosts }
    }

    /// Tells those who watch what has happened.
    pub(super) fn tell_events(&mut self, out: &mut Vec<Effect>) {
        let Some((watchers, mut events)) = self.view.journal.take() else { return };
        for event in &mut events {
            event.host_name = if event.host == self.me.host {
                self.config.host_name.clone()
            } else {
                let remote = self.remotes.get(&event.host);
                remote.map(|remote| remote.host_name().to_owned()).unwrap_or_default()
            };
        }
        for node in watchers {
            let message = ToNode::NetworkEvents(events.clone());
            out.push(Effect::ToNode { node, message });
        }
    }
}

/// A node of this host, with what it has told, and how much of that is not listed.
fn show_local(node: NodeId, local: &Local, answer: Option<NodeAnswer>) -> (NetworkNode, usize) {
    let answered = answer.is_some();
    let answer = answer.unwrap_or_default();
    let NodeAnswer { addresses, mut published, mut subscribed, sessions, troubles, .. } = answer;
    let named = local.records.values().filter(|record| !record.name.is_reserved());
    published.extend(named.map(|record| (&**record).into()));
    published.sort_by(|a, b| (&a.name, a.serial).cmp(&(&b.name, b.serial)));
    let named = local.subscriptions.iter().filter(|(_, (pattern, _))| !pattern.is_reserved());
    subscribed
        .extend(named.map(|(id, (pattern, scope))| NetworkSubscription::new(*id, pattern, *scope)));
    let about = local.about.clone();
    let shown = NetworkNode {
        node,
        about,
        group: local.here.group.clone(),
        directory: false,
        answered,
        addresses,
        published,
        subscribed,
        sessions,
        troubles,
        story: answer.story,
    };
    (shown, answer.omitted)
}

impl Remote {
    /// Whether it is there, and since when that is so.
    fn state(&self, answered: bool, started: Duration) -> (HostState, Duration) {
        match (self.gone, self.link) {
            (Some((since, DropReason::Withdrawn)), _) => (HostState::Left, since),
            (Some((since, _)), _) => (HostState::Lost, since),
            (None, Some(_)) if answered => (HostState::Up, self.up.unwrap_or(started)),
            (None, Some(_)) => (HostState::Silent, self.heard),
            (None, None) if self.up.is_some() => (HostState::LinkLost, self.since),
            (None, None) => (HostState::NeverReached, started),
        }
    }

    /// Its nodes, as far as its records tell.
    fn known_nodes(&self) -> Vec<NetworkNode> {
        let directory = self.link.or(self.addr.as_ref().map(|addr| addr.peer));
        let mut nodes: BTreeMap<NodeId, NetworkNode> = BTreeMap::new();
        for record in self.records.values() {
            let node = record.instance.node;
            let shown = nodes.entry(node).or_insert_with(|| NetworkNode {
                node,
                about: crate::About::default(),
                group: record.group.clone(),
                directory: directory.is_some_and(|peer| peer.node == node),
                answered: false,
                addresses: Vec::new(),
                published: Vec::new(),
                subscribed: Vec::new(),
                sessions: Vec::new(),
                troubles: Vec::new(),
                story: String::new(),
            });
            if !record.name.is_reserved() {
                shown.addresses = record.address.node.hints.to_vec();
                shown.published.push((&**record).into());
            }
        }
        nodes.into_values().collect()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
