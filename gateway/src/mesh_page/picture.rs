//! What is shown: the latest snapshot of the mesh, brought up to date by events, and the log of these.
//!
//! A plain value. A snapshot takes as long as the slowest host; an event is there at once. So what an
//! event says has gone is taken out at once, and a snapshot that was begun before does not bring it back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use layercake_node::{
    NodeStory,
    directory::{HostState, Network, NetworkChange, NetworkEvent, NetworkHost, NetworkNode},
};
use layercake_wire::id::NodeId;
use serde::Serialize;

/// Events that are kept and shown.
pub(super) const MAX_LOG: usize = 500;
/// Nodes, names and links that are shown; of more only the number.
const MAX_NODES: usize = 1_000;
const MAX_NAMES: usize = 4_000;
const MAX_LINKS: usize = 4_000;
/// What nodes tell of themselves, all together, in bytes; what is beyond is not shown.
const MAX_STORIES: usize = 4 << 20;
/// For how long a node that has gone is kept out of snapshots, which may have been begun before.
const GONE: Duration = Duration::from_secs(10);

/// An event, numbered.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    pub(super) number: u64,
    #[serde(flatten)]
    pub(super) event: NetworkEvent,
}

/// What nodes tell of themselves, by node.
pub(super) type Stories = BTreeMap<String, NodeStory>;

/// A snapshot, bounded and read.
pub(super) struct Snapshot {
    network: Network,
    stories: Stories,
}

/// See the module. Its large parts are shared with who writes them out while events go on.
#[derive(Default)]
pub(super) struct Picture {
    network: Option<Arc<Network>>,
    stories: Arc<Stories>,
    /// Why there is no newer snapshot.
    trouble: Option<String>,
    gone: BTreeMap<NodeId, Duration>,
    log: VecDeque<Entry>,
    logged: u64,
}

impl Snapshot {
    /// Reads what came, which takes a while where the mesh is large.
    pub(super) fn read(mut network: Network) -> Self {
        bound(&mut network);
        let stories = stories(&mut network);
        Self { network, stories }
    }
}

impl Picture {
    /// A snapshot has come.
    pub(super) fn on_snapshot(&mut self, snapshot: Snapshot, now: Duration) {
        let Snapshot { mut network, stories } = snapshot;
        self.forget(now);
        for node in self.gone.keys() {
            take_out(&mut network, *node);
        }
        self.stories = Arc::new(stories);
        self.network = Some(Arc::new(network));
        self.trouble = None;
    }

    fn forget(&mut self, now: Duration) {
        self.gone.retain(|_, since| now.saturating_sub(*since) < GONE);
    }

    /// There is none.
    pub(super) fn on_trouble(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Something has happened.
    pub(super) fn on_event(&mut self, event: NetworkEvent, now: Duration) {
        if let Some(network) = &mut self.network {
            apply(Arc::make_mut(network), &event);
        }
        if let (NetworkChange::NodeGone, Some(node)) = (event.event, event.node) {
            self.forget(now);
            self.gone.insert(node, now);
        }
        self.logged += 1;
        if self.log.len() == MAX_LOG {
            self.log.pop_front();
        }
        self.log.push_back(Entry { number: self.logged, event });
    }

    /// Nobody looks any more: what was seen will not be true when somebody does again.
    pub(super) fn fade(&mut self) {
        self.network = None;
        self.stories = Arc::default();
        self.trouble = None;
    }

    /// The latest snapshot.
    pub(super) const fn network(&self) -> Option<&Arc<Network>> {
        self.network.as_ref()
    }

    pub(super) const fn stories(&self) -> &Arc<Stories> {
        &self.stories
    }

    /// Nodes that have gone lately: pools of others may still tell of them.
    pub(super) fn gone(&self) -> Vec<String> {
        self.gone.keys().map(ToString::to_string).collect()
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The number of the latest event.
    pub(super) const fn logged(&self) -> u64 {
        self.logged
    }

    /// The events after that one which are kept, oldest first.
    pub(super) fn log_after(&self, number: u64) -> Vec<&Entry> {
        self.log.iter().filter(|entry| entry.number > number).collect()
    }
}

fn apply(network: &mut Network, event: &NetworkEvent) {
    let host = network.hosts.iter_mut().find(|host| host.host == event.host);
    match (event.event, event.node) {
        (NetworkChange::NodeGone, Some(node)) => take_out(network, node),
        (NetworkChange::HostLost | NetworkChange::HostLeft, _) => {
            let Some(host) = host else { return };
            let left = event.event == NetworkChange::HostLeft;
            host.state = if left { HostState::Left } else { HostState::Lost };
            host.since = event.at;
            for NetworkNode { node, .. } in std::mem::take(&mut host.nodes) {
                take_out(network, node);
            }
        }
        (NetworkChange::Withdrawn, Some(node)) => {
            let node = host.and_then(|host| host.nodes.iter_mut().find(|n| n.node == node));
            let Some(node) = node else { return };
            node.published.retain(|record| Some(record.serial) != event.serial);
        }
        // What has come is shown as the next snapshot has it.
        _ => {}
    }
}

/// Takes a node out, and with it its links.
fn take_out(network: &mut Network, gone: NodeId) {
    for host in &mut network.hosts {
        host.nodes.retain(|node| node.node != gone);
        for node in &mut host.nodes {
            node.sessions.retain(|session| session.node != gone);
        }
    }
}

/// Leaves out what nobody could look through, and counts it.
fn bound(network: &mut Network) {
    let (mut nodes, mut names, mut links) = (MAX_NODES, MAX_NAMES, MAX_LINKS);
    for NetworkHost { nodes: of_host, omitted, .. } in &mut network.hosts {
        *omitted += cut(of_host, &mut nodes);
        for node in of_host {
            *omitted += cut(&mut node.published, &mut names);
            *omitted += cut(&mut node.subscribed, &mut names);
            *omitted += cut(&mut node.sessions, &mut links);
        }
    }
}

/// Takes out what nodes tell of themselves, read: so what is passed on has the form that the page knows,
/// whoever wrote it. What is not understood is left out.
fn stories(network: &mut Network) -> Stories {
    let mut room = MAX_STORIES;
    let nodes = network.hosts.iter_mut().flat_map(|host| &mut host.nodes);
    nodes
        .filter_map(|node| {
            let story = std::mem::take(&mut node.story);
            room = room.checked_sub(story.len())?;
            Some((node.node.to_string(), serde_json::from_str(&story).ok()?))
        })
        .collect()
}

/// Keeps what there is room for; how much goes.
fn cut<T>(list: &mut Vec<T>, room: &mut usize) -> usize {
    let beyond = list.len().saturating_sub(*room);
    list.truncate(*room);
    *room -= list.len();
    beyond
}

#[cfg(test)]
mod tests {
    use layercake_node::directory::{Session, Transport};
    use layercake_wire::id::HostId;

    use super::*;

    const T0: Duration = Duration::ZERO;

    fn node(number: u64) -> NetworkNode {
        let json = serde_json::json!({
            "node": format!("{number:016x}"), "about": {"program": "cook", "pid": 1, "parent": 0,
            "started": 0, "user": "me"}, "group": null, "directory": false, "answered": true,
            "addresses": [], "published": [], "subscribed": [], "sessions": [], "troubles": [],
            "story": r#"{"actor_count":3}"#,
        });
        serde_json::from_value(json).unwrap()
    }

    /// Host 1 with a gateway that has links to the nodes 20 and 21 of host 2.
    fn network() -> Network {
        let mut gateway = node(10);
        gateway.sessions = [20, 21].map(link).to_vec();
        let host = |number, state, nodes| NetworkHost {
            host: HostId::from_bits(number),
            name: format!("rack{number}"),
            state,
            since: 0,
            trouble: None,
            addresses: Vec::new(),
            nodes,
            omitted: 0,
        };
        let hosts = vec![
            host(1, HostState::Here, vec![gateway]),
            host(2, HostState::Up, vec![node(20), node(21)]),
        ];
        Network { at: 0, here: HostId::from_bits(1), hosts }
    }

    fn link(to: u64) -> Session {
        Session {
            host: HostId::from_bits(2),
            node: NodeId::from_bits(to),
            transport: Transport::Quic,
            dialled: true,
            remote: None,
            since: 0,
            sent: 0,
            received: 0,
            messages_sent: 0,
            messages_received: 0,
        }
    }

    fn event(change: NetworkChange, node: Option<u64>) -> NetworkEvent {
        NetworkEvent {
            at: 7,
            event: change,
            host: HostId::from_bits(2),
            host_name: "rack2".to_owned(),
            node: node.map(NodeId::from_bits),
            name: None,
            serial: None,
            reason: None,
        }
    }

    /// The nodes of host 2, and those that the gateway has links to.
    fn seen(picture: &Picture) -> (Vec<u64>, Vec<u64>) {
        let network = picture.network().unwrap();
        let nodes = network.hosts[1].nodes.iter().map(|n| n.node.to_bits()).collect();
        let links = &network.hosts[0].nodes[0].sessions;
        (nodes, links.iter().map(|link| link.node.to_bits()).collect())
    }

    #[test]
    fn who_has_gone_is_taken_out_at_once_and_an_older_snapshot_does_not_bring_it_back() {
        let mut picture = Picture::default();
        picture.on_snapshot(Snapshot::read(network()), T0);
        assert_eq!(seen(&picture), (vec![20, 21], vec![20, 21]));
        picture.on_event(event(NetworkChange::NodeGone, Some(20)), T0);
        assert_eq!(seen(&picture), (vec![21], vec![21]));
        assert_eq!(
            picture.gone(),
            [NodeId::from_bits(20).to_string()],
            "of which pools may still tell"
        );
        picture.on_snapshot(Snapshot::read(network()), Duration::from_secs(1));
        assert_eq!(seen(&picture), (vec![21], vec![21]), "begun before it went");
        picture.on_snapshot(Snapshot::read(network()), GONE);
        assert_eq!(seen(&picture), (vec![20, 21], vec![20, 21]), "a snapshot has the last word");
    }

    #[test]
    fn who_has_gone_is_forgotten_also_while_nobody_looks() {
        let mut picture = Picture::default();
        for second in 0..1000 {
            let gone = event(NetworkChange::NodeGone, Some(second));
            picture.on_event(gone, Duration::from_secs(second));
        }
        assert_eq!(picture.gone().len(), GONE.as_secs() as usize);
    }

    #[test]
    fn a_lost_host_stays_with_its_state_and_without_its_nodes() {
        let mut picture = Picture::default();
        picture.on_snapshot(Snapshot::read(network()), T0);
        picture.on_event(event(NetworkChange::HostLost, None), T0);
        assert_eq!(seen(&picture), (vec![], vec![]));
        let host = &picture.network().unwrap().hosts[1];
        assert_eq!((host.state, host.since), (HostState::Lost, 7));
    }

    #[test]
    fn the_log_keeps_the_latest_in_order() {
        let mut picture = Picture::default();
        for _ in 0..MAX_LOG + 3 {
            picture.on_event(event(NetworkChange::NodeUp, Some(5)), T0);
        }
        let all = picture.log_after(0);
        assert_eq!((all.len(), all[0].number), (MAX_LOG, 4));
        let last = picture.logged();
        assert_eq!(picture.log_after(last - 1).len(), 1);
        assert!(picture.log_after(last).is_empty());
    }

    #[test]
    fn a_mesh_that_nobody_could_look_through_is_cut_and_the_rest_is_counted() {
        let mut large = network();
        large.hosts[1].nodes = (0..MAX_NODES as u64 + 50).map(|n| node(n + 100)).collect();
        let mut picture = Picture::default();
        picture.on_snapshot(Snapshot::read(large), T0);
        let hosts = &picture.network().unwrap().hosts;
        assert_eq!(hosts.iter().map(|host| host.nodes.len()).sum::<usize>(), MAX_NODES);
        assert_eq!(hosts[1].omitted, 51);
    }

    #[test]
    fn what_nodes_tell_of_themselves_has_the_form_that_the_page_knows_or_is_left_out() {
        let mut network = network();
        let story = |node: &mut NetworkNode, text: &str| node.story = text.to_owned();
        story(&mut network.hosts[1].nodes[0], r#"{"actor_count": "many"}"#);
        story(&mut network.hosts[1].nodes[1], "</script>");
        let mut picture = Picture::default();
        picture.on_snapshot(Snapshot::read(network), T0);
        let told = picture.stories().iter().map(|(node, s)| (node.as_str(), s.actor_count));
        assert_eq!(told.collect::<Vec<_>>(), [("000000000000000a", 3)]);
    }
}
