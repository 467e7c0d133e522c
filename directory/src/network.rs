//! The mesh as one host knows it, for operators and for programs that show it: who is there, who is
//! missing and since when, what is published, asked for, and linked.
//!
//! These types are what `layer-cake network --json` prints. They are plain: whoever has one may keep,
//! compare and print it. How a [`Network`] comes about is decided in `survey` and `host::view`; the
//! events come from `journal`. All times are milliseconds since 1970 by the clock of the host that was
//! asked, unless it is said otherwise; between people, identities are written as 16 hexadecimal digits.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use layercake_wire::id::{ActorSerial, HostId, NodeId, PeerId};
use serde::{Deserialize, Serialize};

use crate::{
    group::Group,
    name::{Name, Pattern, Scope},
    record::{Instance, Record},
    trouble::{MAX_TROUBLES, Trouble},
};

#[cfg(test)]
mod tests;
mod text;

/// The longest program name and user name of a node that are kept, in bytes.
pub const MAX_ABOUT: usize = 64;
/// Links, and names within the process, that a node tells of; of more only the number.
pub(crate) const MAX_TOLD: usize = 1024;
/// Bytes that a node may tell of itself besides; a longer text is left out.
pub const MAX_STORY: usize = 256 << 10;
/// Routes that [`Network::routes`] finds at most.
pub const MAX_ROUTES: usize = 65_536;

/// The mesh as the directory of one host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// When this was put together.
    pub at: u64,
    /// The host that was asked.
    #[serde(with = "text")]
    pub here: HostId,
    /// The host that was asked, then the others by name.
    pub hosts: Vec<NetworkHost>,
}

/// A host, as it says itself, or as far as others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkHost {
    /// Which host.
    #[serde(with = "text")]
    pub host: HostId,
    /// What it calls itself; empty when it has not said so yet.
    pub name: String,
    /// Whether it is there, and if not, how that is known.
    pub state: HostState,
    /// Since when that is so; of a host that is silent, when it was last heard. Of this host: when it
    /// got this directory.
    pub since: u64,
    /// Why it is not found or reached, as far as something is known about that.
    pub trouble: Option<String>,
    /// Where its directory is reached, or was.
    pub addresses: Vec<SocketAddr>,
    /// Its nodes. Of a host that does not answer these are only the ones that published something for
    /// the mesh, and of these only that; of one that has gone, none.
    pub nodes: Vec<NetworkNode>,
    /// Nodes, names, subscriptions and links beyond the limits, which are not listed.
    pub omitted: usize,
}

/// Whether a host is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostState {
    /// It is the host that was asked.
    Here,
    /// It is there, and has answered.
    Up,
    /// There is a link to it, and it has not answered in time.
    Silent,
    /// The link to it is lost; whether it lives is being found out.
    LinkLost,
    /// It was there, and cannot be reached any more.
    Lost,
    /// It has left in order.
    Left,
    /// It is heard of or remembered, and has not been reached since the directory started.
    NeverReached,
}

impl HostState {
    /// Whether the list lacks what only the host itself could tell.
    #[must_use]
    pub const fn is_missing(self) -> bool {
        !matches!(self, Self::Here | Self::Up)
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Here => "here",
            Self::Up => "up",
            Self::Silent => "does not answer",
            Self::LinkLost => "link lost",
            Self::Lost => "host lost",
            Self::Left => "left",
            Self::NeverReached => "never reached",
        })
    }
}

/// What a process says about itself when it registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The file name of its program, at most [`MAX_ABOUT`] bytes. Empty where it is not known.
    pub program: String,
    /// The number of the process; 0 where it is not known.
    pub pid: u32,
    /// The number of the process that started it; 0 where it is not known.
    pub parent: u32,
    /// When its node was started, by the clock of its host; 0 where it is not known.
    pub started: u64,
    /// The user it runs as, at most [`MAX_ABOUT`] bytes. Empty where it is not known.
    pub user: String,
}

impl About {
    /// Cuts what is too long.
    pub(crate) fn trimmed(mut self) -> Self {
        for text in [&mut self.program, &mut self.user] {
            let mut end = text.len().min(MAX_ABOUT);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            // It is shown on terminals.
            text.retain(|c| !c.is_control());
        }
        self
    }
}

/// A node, which is a process unless somebody runs several in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNode {
    /// Which node.
    #[serde(with = "text")]
    pub node: NodeId,
    /// What it says about itself.
    pub about: About,
    /// The group that it belongs to, if any.
    pub group: Option<Group>,
    /// Whether it embeds the directory of its host.
    pub directory: bool,
    /// Whether it has answered itself. Otherwise its links, its addresses and what it publishes within
    /// the process are not known.
    pub answered: bool,
    /// Where other hosts reach it; none where it does not listen for them.
    pub addresses: Vec<SocketAddr>,
    /// What it has published.
    pub published: Vec<NetworkRecord>,
    /// What it has asked for.
    pub subscribed: Vec<NetworkSubscription>,
    /// Its links to other nodes.
    pub sessions: Vec<Session>,
    /// What does not work for it in finding other hosts or the directory of its host.
    pub troubles: Vec<Trouble>,
    /// What else it tells of itself, opaque to the directory; empty where that is nothing. See
    /// [`Directory::tell`](crate::Directory::tell).
    pub story: String,
}

/// A name that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The name.
    pub name: Name,
    /// How far it is visible.
    #[serde(with = "text")]
    pub scope: Scope,
    /// Whether it has one holder in its scope.
    pub exclusive: bool,
    /// Whether it is a claim that waits for its turn, and nobody sees it.
    pub waiting: bool,
    /// The number of the publication within its node.
    pub serial: u64,
    /// The actor behind it.
    pub actor: ActorSerial,
    /// When it was granted, by the clock of its host.
    pub since: u64,
    /// Its fencing number.
    pub fence: u64,
}

impl From<&Record> for NetworkRecord {
    fn from(record: &Record) -> Self {
        Self {
            name: record.name.clone(),
            scope: record.scope,
            exclusive: record.exclusive,
            waiting: record.waiting,
            serial: record.instance.serial,
            actor: record.address.serial,
            since: record.claimed,
            fence: record.fence,
        }
    }
}

/// A pattern that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSubscription {
    /// The number of the subscription within its node.
    pub id: u64,
    /// The text of the pattern: as a regular expression it would be compiled wherever it passes.
    pub pattern: String,
    /// How far it looks.
    #[serde(with = "text")]
    pub scope: Scope,
}

impl NetworkSubscription {
    pub(crate) fn new(id: u64, pattern: &Pattern, scope: Scope) -> Self {
        Self { id, pattern: pattern.as_str().to_owned(), scope }
    }
}

/// A link of a node to another one, as that node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The host of the peer.
    #[serde(with = "text")]
    pub host: HostId,
    /// The peer.
    #[serde(with = "text")]
    pub node: NodeId,
    /// What carries it.
    pub transport: Transport,
    /// Whether this node made the connection.
    pub dialled: bool,
    /// The address at the other end; none within a host.
    pub remote: Option<SocketAddr>,
    /// Since when it is up.
    pub since: u64,
    /// Bytes that this node has written to it, datagrams not counted.
    pub sent: u64,
    /// Bytes that it has read.
    pub received: u64,
    /// Messages among what it has written: tells, asks, answers and their parts.
    pub messages_sent: u64,
    /// Messages among what it has read.
    pub messages_received: u64,
}

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transport {
    /// QUIC, between hosts.
    Quic,
    /// A Unix socket, within a host.
    Unix,
    /// A network in memory, in tests.
    Memory,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quic => "quic",
            Self::Unix => "unix",
            Self::Memory => "memory",
        })
    }
}

/// Who found whom: a subscription and a record that it sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host of the subscriber.
    #[serde(with = "text")]
    pub from_host: HostId,
    /// The subscriber.
    #[serde(with = "text")]
    pub from_node: NodeId,
    /// The number of its subscription.
    pub subscription: u64,
    /// The name that it found.
    pub name: Name,
    /// The smallest scope that holds both.
    #[serde(with = "text")]
    pub distance: Scope,
    /// The host of the publisher.
    #[serde(with = "text")]
    pub to_host: HostId,
    /// The publisher.
    #[serde(with = "text")]
    pub to_node: NodeId,
    /// The number of its publication.
    pub serial: u64,
}

/// Something that happened in the mesh, as the directory of one host saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEvent {
    /// When.
    pub at: u64,
    /// What.
    pub event: NetworkChange,
    /// The host that it is about.
    #[serde(with = "text")]
    pub host: HostId,
    /// What that host calls itself; empty where it has not said so.
    pub host_name: String,
    /// The node that it is about, where it is about one.
    #[serde(with = "text::opt")]
    pub node: Option<NodeId>,
    /// The name that it is about, where it is about one.
    pub name: Option<Name>,
    /// The number of the publication, where it is about one.
    pub serial: Option<u64>,
    /// Why something has gone, in the words of [`DropReason`](crate::DropReason).
    pub reason: Option<String>,
}

impl NetworkEvent {
    pub(crate) fn missed(host: HostId) -> Self {
        Self {
            at: 0,
            event: NetworkChange::Missed,
            host,
            host_name: String::new(),
            node: None,
            name: None,
            serial: None,
            reason: None,
        }
    }

    /// The publication that it is about.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        Some(Instance { host: self.host, node: self.node?, serial: self.serial? })
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkChange {
    /// A host is there.
    HostUp,
    /// A host cannot be reached any more.
    HostLost,
    /// A host has left in order.
    HostLeft,
    /// A node of this host has registered, or a node of another host has published its first name for
    /// the mesh or begun to talk to other hosts.
    NodeUp,
    /// A node of this host has gone, or a node of another host has nothing published any more.
    NodeGone,
    /// A name was published for the mesh.
    Published,
    /// It is published no more.
    Withdrawn,
    /// Something may have been missed: the reader was too slow, or another process has become the
    /// directory of this host. Who needs the whole picture takes a new snapshot.
    Missed,
}

impl fmt::Display for NetworkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HostUp => "host up",
            Self::HostLost => "host lost",
            Self::HostLeft => "host left",
            Self::NodeUp => "node up",
            Self::NodeGone => "node gone",
            Self::Published => "published",
            Self::Withdrawn => "withdrawn",
            Self::Missed => "missed",
        })
    }
}

/// What a node tells when its host directory asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeAnswer {
    pub(crate) addresses: Vec<SocketAddr>,
    /// What it publishes and asks for within the process.
    pub(crate) published: Vec<NetworkRecord>,
    pub(crate) subscribed: Vec<NetworkSubscription>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) omitted: usize,
    pub(crate) story: String,
}

impl NodeAnswer {
    /// Keeps to the limits, whoever says it.
    pub(crate) fn bounded(mut self) -> Self {
        self.addresses.truncate(layercake_wire::id::MAX_HINTS);
        let lists = [self.published.len(), self.subscribed.len(), self.sessions.len()];
        let beyond: usize = lists.into_iter().map(|length| length.saturating_sub(MAX_TOLD)).sum();
        self.omitted = self.omitted.saturating_add(beyond);
        self.published.truncate(MAX_TOLD);
        self.subscribed.truncate(MAX_TOLD);
        self.sessions.truncate(MAX_TOLD);
        self.troubles.truncate(MAX_TROUBLES);
        if self.story.len() > MAX_STORY {
            self.story = String::new();
            self.omitted = self.omitted.saturating_add(1);
        }
        self
    }
}

/// What a host tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostAnswer {
    pub(crate) nodes: Vec<NetworkNode>,
    pub(crate) omitted: usize,
}

impl HostAnswer {
    /// Leaves out what exceeds so many bytes, roughly: every node has its place before what it has.
    pub(crate) fn fit(&mut self, bytes: usize) {
        let mut left = bytes;
        let mut keep = |size: usize| {
            let fits = size <= left;
            left = if fits { left - size } else { 0 };
            fits
        };
        let head = |n: &NetworkNode| {
            let troubles = n.troubles.iter().map(|t| 40 + t.about.len() + t.why.len());
            let about = n.about.program.len() + n.about.user.len();
            96 + about + 24 * n.addresses.len() + troubles.sum::<usize>()
        };
        let heads = self.nodes.iter().take_while(|node| keep(head(node))).count();
        for node in self.nodes.drain(heads..) {
            self.omitted += 1 + node.published.len() + node.subscribed.len() + node.sessions.len();
        }
        for node in &mut self.nodes {
            if !node.story.is_empty() && !keep(node.story.len()) {
                node.story = String::new();
                self.omitted += 1;
            }
            let before = node.published.len() + node.subscribed.len() + node.sessions.len();
            node.subscribed.retain(|s| keep(32 + s.pattern.as_str().len()));
            node.sessions.retain(|_| keep(96));
            node.published.retain(|r| keep(48 + r.name.as_str().len()));
            let after = node.published.len() + node.subscribed.len() + node.sessions.len();
            self.omitted += before - after;
        }
    }
}

impl Network {
    /// Every node with its host.
    pub fn nodes(&self) -> impl Iterator<Item = (&NetworkHost, &NetworkNode)> {
        self.hosts.iter().flat_map(|host| host.nodes.iter().map(move |node| (host, node)))
    }

    /// The hosts that are missing, in part or whole.
    pub fn missing(&self) -> impl Iterator<Item = &NetworkHost> {
        self.hosts.iter().filter(|host| host.state.is_missing())
    }

    /// Who found whom, by the rules of the directory: a subscription sees what is within its own scope
    /// and the record's, and of an exclusive name the nearest holder. At most [`MAX_ROUTES`].
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for (from_host, from) in self.nodes() {
            let me = PeerId { host: from_host.host, node: from.node };
            for subscription in &from.subscribed {
                let Ok(pattern) = Pattern::read(&subscription.pattern) else { continue };
                let mut nearest = BTreeMap::new();
                for (to_host, to) in self.nodes() {
                    let them = PeerId { host: to_host.host, node: to.node };
                    let distance = distance((me, from), (them, to));
                    if distance > subscription.scope {
                        continue;
                    }
                    for record in to.published.iter().filter(|record| !record.waiting) {
                        if distance > record.scope || !pattern.matches(&record.name) {
                            continue;
                        }
                        let route = Route {
                            from_host: me.host,
                            from_node: me.node,
                            subscription: subscription.id,
                            name: record.name.clone(),
                            distance,
                            to_host: them.host,
                            to_node: them.node,
                            serial: record.serial,
                        };
                        if record.exclusive {
                            let rank = (distance, record.since, them, record.serial);
                            let best = nearest.entry(&record.name).or_insert((rank, route.clone()));
                            if rank < best.0 {
                                *best = (rank, route);
                            }
                        } else {
                            routes.push(route);
                        }
                        if routes.len() >= MAX_ROUTES {
                            return routes;
                        }
                    }
                }
                routes.extend(nearest.into_values().map(|(_, route)| route));
            }
        }
        routes.truncate(MAX_ROUTES);
        routes
    }
}

/// The smallest scope that holds both.
fn distance((a, from): (PeerId, &NetworkNode), (b, to): (PeerId, &NetworkNode)) -> Scope {
    if a == b {
        Scope::Process
    } else if a.host != b.host {
        Scope::Lan
    } else if from.group.is_some() && from.group == to.group {
        Scope::Group
    } else {
        Scope::Host
    }
}
