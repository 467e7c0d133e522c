//! The tree of a mesh, as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use layercake::{
    HostState, Network, NetworkHost, NetworkNode, Route,
    wire::id::{NodeId, PeerId},
};

use super::Lists;

/// How many digits of identities are shown: as few as tell all of them apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids(usize);

impl Ids {
    pub(crate) fn of(network: &Network, full: bool) -> Self {
        let hosts: BTreeSet<_> = network.hosts.iter().map(|h| h.host.to_string()).collect();
        let nodes: BTreeSet<_> = network.nodes().map(|(_, n)| n.node.to_string()).collect();
        let apart = |ids: &BTreeSet<String>, digits: usize| {
            ids.iter().map(|id| &id[..digits]).collect::<BTreeSet<_>>().len() == ids.len()
        };
        let digits = if full { 16 } else { 4 };
        Self((digits..16).find(|n| apart(&hosts, *n) && apart(&nodes, *n)).unwrap_or(16))
    }

    pub(crate) fn show(self, id: impl ToString) -> String {
        let text = id.to_string();
        text.get(..self.0).unwrap_or(&text).to_owned()
    }
}

/// A span in milliseconds, in the largest two units.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = parts.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(3);
    let mut left = seconds;
    let mut text = String::new();
    for (at, (unit, name)) in parts.iter().enumerate().skip(first).take(2) {
        if at == first || left / unit > 0 {
            let _ = write!(text, "{}{name}", left / unit);
        }
        left %= unit;
    }
    text
}

/// A time of day in UTC.
pub(crate) fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A number of bytes.
fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB"];
    let mut value = Duration::from_secs(count).as_secs_f64();
    let mut at = 0;
    while value >= 1000.0 && at + 1 < units.len() {
        value /= 1000.0;
        at += 1;
    }
    if at == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[at]) }
}

struct Drawing<'a> {
    network: &'a Network,
    me: PeerId,
    lists: Lists,
    ids: Ids,
    colours: bool,
    routes: BTreeMap<(PeerId, u64), Vec<Route>>,
    text: String,
}

/// Draws a mesh; `me` is the node of this command.
pub(super) fn draw(
    network: &Network,
    mesh: &str,
    me: PeerId,
    lists: Lists,
    colours: bool,
) -> String {
    let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    if lists.routes {
        for route in network.routes() {
            let from = PeerId { host: route.from_host, node: route.from_node };
            routes.entry((from, route.subscription)).or_default().push(route);
        }
    }
    let ids = Ids::of(network, lists.full_ids);
    let mut drawing = Drawing { network, me, lists, ids, colours, routes, text: String::new() };
    let missing = network.missing().count();
    let whole = if missing > 0 { format!(", {missing} missing") } else { String::new() };
    let count = network.hosts.len();
    let hosts = if count == 1 { "host" } else { "hosts" };
    drawing.line(0, &format!("[mesh] {mesh}  {count} {hosts}{whole}  at {}", clock(network.at)));
    for host in &network.hosts {
        drawing.host(host);
    }
    drawing.text
}

impl Drawing<'_> {
    /// One line; what others say of themselves may be anything, so no escape sequences of theirs.
    fn line(&mut self, level: usize, text: &str) {
        self.painted(level, text, None);
    }

    fn painted(&mut self, level: usize, text: &str, colour: Option<&str>) {
        self.text.push_str(&"+   ".repeat(level));
        let colour = colour.filter(|_| self.colours);
        if let Some(colour) = colour {
            let _ = write!(self.text, "\u{1b}[{colour}m");
        }
        self.text.extend(text.chars().filter(|c| !c.is_control()));
        if colour.is_some() {
            self.text.push_str("\u{1b}[0m");
        }
        self.text.push('\n');
    }

    fn ago(&self, since: u64) -> String {
        span(self.network.at.saturating_sub(since))
    }

    fn name_of(&self, peer: PeerId) -> String {
        let node = self.ids.show(peer.node);
        if peer.host == self.me.host {
            return node;
        }
        let known = self.network.hosts.iter().find(|host| host.host == peer.host);
        let host = known.map(|host| &*host.name).filter(|name| !name.is_empty());
        format!("{node}@{}", host.map_or_else(|| self.ids.show(peer.host), str::to_owned))
    }

    fn host(&mut self, host: &NetworkHost) {
        let name = if host.name.is_empty() { "(no name)" } else { &host.name };
        let (ago, at) = (self.ago(host.since), clock(host.since));
        let state = match host.state {
            HostState::Here => "here".to_owned(),
            HostState::Up => format!("up for {ago}"),
            HostState::Silent => format!("does not answer, last heard {ago} ago, at {at}"),
            HostState::LinkLost => format!("link lost {ago} ago, at {at}"),
            HostState::Lost => format!("lost {ago} ago, at {at} (host lost)"),
            HostState::Left => format!("left {ago} ago, at {at}"),
            HostState::NeverReached => format!("never reached, tried for {ago}"),
            other => other.to_string(),
        };
        let trouble = host.trouble.as_ref().map_or(String::new(), |why| format!("  {why}"));
        let text = format!("[host] {name} ({})  {state}{trouble}", self.ids.show(host.host));
        let colour = match host.state {
            HostState::Here | HostState::Up => "1",
            HostState::Left => "2",
            _ => "31",
        };
        self.painted(1, &text, Some(colour));
        if self.lists.addresses {
            for address in &host.addresses {
                self.line(2, &format!("@ {address}"));
            }
        }
        // Processes below those that started them.
        let pids: BTreeMap<u32, NodeId> = host
            .nodes
            .iter()
            .filter(|node| node.about.pid != 0)
            .map(|node| (node.about.pid, node.node))
            .collect();
        let parent = |node: &NetworkNode| {
            pids.get(&node.about.parent).copied().filter(|parent| *parent != node.node)
        };
        let mut children: BTreeMap<Option<NodeId>, Vec<&NetworkNode>> = BTreeMap::new();
        let mut nodes: Vec<_> = host.nodes.iter().collect();
        nodes.sort_by_key(|node| (node.about.started, node.node));
        for node in nodes {
            children.entry(parent(node)).or_default().push(node);
        }
        let mut shown = BTreeSet::new();
        // Those that belong together, then those that are on their own.
        let roots = children.remove(&None).unwrap_or_default();
        let groups: BTreeSet<_> = roots.iter().filter_map(|node| node.group.as_ref()).collect();
        for group in groups {
            self.line(2, &format!("[group] {group}"));
            let roots: Vec<_> =
                roots.iter().copied().filter(|node| node.group.as_ref() == Some(group)).collect();
            self.nodes(host, &roots, &children, 3, &mut shown);
        }
        let alone: Vec<_> = roots.iter().copied().filter(|node| node.group.is_none()).collect();
        self.nodes(host, &alone, &children, 2, &mut shown);
        // Numbers of processes come again: who claims to be its own ancestor is shown nevertheless.
        for node in &host.nodes {
            if shown.insert(node.node) {
                self.node(host, node, 2);
            }
        }
        if host.omitted > 0 {
            self.line(2, &format!("… and {} more that are not listed", host.omitted));
        }
    }

    fn nodes(
        &mut self,
        host: &NetworkHost,
        nodes: &[&NetworkNode],
        children: &BTreeMap<Option<NodeId>, Vec<&NetworkNode>>,
        level: usize,
        shown: &mut BTreeSet<NodeId>,
    ) {
        for node in nodes {
            if shown.insert(node.node) {
                self.node(host, node, level);
                let below = children.get(&Some(node.node)).map_or(&[][..], Vec::as_slice);
                self.nodes(host, below, children, level + 1, shown);
            }
        }
    }

    fn node(&mut self, host: &NetworkHost, node: &NetworkNode, level: usize) {
        let about = &node.about;
        let peer = PeerId { host: host.host, node: node.node };
        let program = if about.program.is_empty() { "(unknown)" } else { &about.program };
        let mut text = format!("[process] {program} ({})", self.ids.show(node.node));
        if about.pid != 0 {
            let _ = write!(text, "  pid {}", about.pid);
        }
        if !about.user.is_empty() {
            let _ = write!(text, "  {}", about.user);
        }
        if about.started != 0 {
            let _ = write!(text, "  for {}", self.ago(about.started));
        }
        if node.directory {
            text.push_str("  directory");
        }
        if peer == self.me {
            text.push_str("  this command");
        }
        if !node.answered {
            text.push_str("  does not answer");
        }
        self.line(level, &text);
        let level = level + 1;
        for trouble in &node.troubles {
            let ago = self.ago(trouble.since_ms);
            self.painted(level, &format!("! {trouble}  for {ago}"), Some("31"));
        }
        if self.lists.addresses {
            for address in &node.addresses {
                self.line(level, &format!("@ {address}"));
            }
        }
        if self.lists.published {
            for record in &node.published {
                let exclusive = match (record.exclusive, record.waiting) {
                    (_, true) => "  waiting for its turn",
                    (true, false) => "  exclusive",
                    (false, false) => "",
                };
                let (scope, actor) = (record.scope, record.actor);
                let since = self.ago(record.since);
                let text = format!(
                    "# \"{}\"  {scope}{exclusive}  actor {}.{actor}  for {since}",
                    record.name,
                    self.ids.show(node.node)
                );
                self.line(level, &text);
            }
        }
        for subscription in &node.subscribed {
            if self.lists.subscribed || self.lists.routes {
                let (pattern, scope) = (subscription.pattern.as_str(), subscription.scope);
                self.line(level, &format!("? \"{pattern}\"  {scope}"));
            }
            for route in self.routes.remove(&(peer, subscription.id)).unwrap_or_default() {
                let to = self.name_of(PeerId { host: route.to_host, node: route.to_node });
                let from = self.name_of(peer);
                let text = format!("> \"{}\"  {}  ({from} -> {to})", route.name, route.distance);
                self.line(level + 1, &text);
            }
        }
        if self.lists.sessions {
            for session in &node.sessions {
                let to = self.name_of(PeerId { host: session.host, node: session.node });
                let (way, by) =
                    if session.dialled { ("to", "dialled") } else { ("from", "accepted") };
                let remote = session.remote.map_or(String::new(), |remote| format!("  {remote}"));
                let text = format!(
                    "= {way} {to}  {}{remote}  {by}  for {}  {} out  {} in",
                    session.transport,
                    self.ago(session.since),
                    bytes(session.sent),
                    bytes(session.received),
                );
                self.line(level, &text);
            }
        }
    }
}
