//! Questions about the whole mesh: from this process to its host directory, and from that to this node.

use std::{collections::HashMap, os::unix::fs::MetadataExt};

use bytes::BytesMut;
use layercake_wire::{
    Link,
    id::{HostId, NodeId},
    payload::{self, Encoding, MAX_MESSAGE},
};
use tokio::sync::oneshot;

use super::{Seat, Shell};
use crate::{
    agent,
    message::ToHost,
    network::{About, Network, NetworkEvent, NodeAnswer, Session, Transport},
};

/// What is asked and not answered yet. Bounded by those who wait: what nobody waits for any more goes
/// with the next question.
#[derive(Default)]
pub(super) struct Asking {
    next: u64,
    /// Who waits for a network, and what has come of it.
    networks: HashMap<u64, (oneshot::Sender<Network>, BytesMut)>,
    /// Who waits until there is a host directory to be asked.
    unasked: Vec<oneshot::Sender<Network>>,
    pings: HashMap<u64, oneshot::Sender<bool>>,
    /// How many watch what happens in the mesh.
    watchers: usize,
}

impl Shell {
    /// Finds out what process this is, for those who look at the mesh.
    pub(super) fn introduce(&mut self) {
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(std::path::Path::file_name);
        let about = About {
            program: program.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            pid: std::process::id(),
            parent: std::os::unix::process::parent_id(),
            started: self.wall_ms(),
            user: user().unwrap_or_default(),
        };
        self.agent.set_about(about.trimmed());
    }

    pub(super) fn on_network(&mut self, answer: oneshot::Sender<Network>) {
        self.asking.unasked.retain(|waiting| !waiting.is_closed());
        self.asking.unasked.push(answer);
        match self.seat {
            Seat::Client(_) | Seat::Holder(_) => self.ask_again(),
            Seat::None => self.seek(),
            Seat::Seeking | Seat::Broken(_) => {}
        }
    }

    /// There is a host directory: asks it what was not asked, or not answered, so far.
    pub(super) fn ask_again(&mut self) {
        let Asking { networks, pings, .. } = &mut self.asking;
        networks.retain(|_, (waiting, _)| !waiting.is_closed());
        pings.retain(|_, waiting| !waiting.is_closed());
        for answer in std::mem::take(&mut self.asking.unasked) {
            self.asking.next += 1;
            let request = self.asking.next;
            self.asking.networks.insert(request, (answer, BytesMut::new()));
            self.ask(ToHost::Network(request));
        }
    }

    /// The host directory is gone, and will not answer: the next one is asked.
    pub(super) fn forget_asked(&mut self) {
        let Asking { networks, unasked, pings, .. } = &mut self.asking;
        unasked.extend(networks.drain().map(|(_, (answer, _))| answer));
        pings.clear();
    }

    pub(super) fn on_network_part(&mut self, request: u64, part: &[u8], last: bool) {
        let Some((_, bytes)) = self.asking.networks.get_mut(&request) else { return };
        bytes.extend_from_slice(part);
        if !last && bytes.len() <= MAX_MESSAGE {
            return;
        }
        let Some((answer, bytes)) = self.asking.networks.remove(&request) else { return };
        match payload::decode(Encoding::Bincode, &bytes) {
            Ok(network) => {
                let _ = answer.send(network);
            }
            Err(error) => {
                tracing::warn!(%error, "the answer of the host directory is not understood");
            }
        }
    }

    pub(super) fn on_watch_network(&mut self, watch: bool) {
        let watchers = &mut self.asking.watchers;
        *watchers = if watch { *watchers + 1 } else { watchers.saturating_sub(1) };
        let watch = *watchers > 0;
        self.in_agent(|agent, out| agent.watch_network(watch, out));
        self.seek_if_needed();
    }

    pub(super) fn on_network_events(&self, events: Vec<NetworkEvent>) {
        let at = self.wall_ms();
        for event in events {
            // Nobody listens any more: the directory is told so in a moment.
            let _ = self.status.events.send(NetworkEvent { at, ..event });
        }
    }

    pub(super) fn on_ping(
        &mut self,
        host: HostId,
        node: Option<NodeId>,
        answer: oneshot::Sender<bool>,
    ) {
        if !matches!(self.seat, Seat::Client(_) | Seat::Holder(_)) {
            let _ = answer.send(false);
            return;
        }
        self.asking.pings.retain(|_, waiting| !waiting.is_closed());
        self.asking.next += 1;
        let request = self.asking.next;
        self.asking.pings.insert(request, answer);
        self.ask(ToHost::Ping { request, host, node });
    }

    pub(super) fn on_pong(&mut self, request: u64, reached: bool) {
        if let Some(answer) = self.asking.pings.remove(&request) {
            let _ = answer.send(reached);
        }
    }

    /// Tells the host directory what only this node knows.
    pub(super) fn tell(&mut self, round: u64, mut answer: NodeAnswer) {
        let now = self.wall_ms();
        let links = self.endpoint.links();
        answer.addresses = self.endpoint.addr().hints.to_vec();
        answer.sessions = links.iter().map(|link| self.session(link, now)).collect();
        answer.troubles = self.status.troubles().list(now);
        answer.story = self.status.story();
        self.ask(ToHost::Told { round, answer: answer.bounded() });
    }

    fn session(&self, link: &Link, now: u64) -> Session {
        let peer = link.peer();
        let age = u64::try_from(link.age().as_millis()).unwrap_or(u64::MAX);
        let (sent, received) = link.bytes();
        let (messages_sent, messages_received) = link.messages();
        Session {
            host: peer.host,
            node: peer.node,
            transport: match (self.endpoint.network(), link.is_local()) {
                (Some(_), _) => Transport::Memory,
                (None, true) => Transport::Unix,
                (None, false) => Transport::Quic,
            },
            dialled: link.is_dialled(),
            remote: link.remote(),
            since: now.saturating_sub(age),
            sent,
            received,
            messages_sent,
            messages_received,
        }
    }

    /// Says something to the host directory, after all that this node has to say before.
    fn ask(&mut self, message: ToHost) {
        self.agent_effects.push_back(agent::Effect::ToHost(message));
    }
}

/// The name of the user that this process runs as, or the number where there is none.
fn user() -> Option<String> {
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.or(Some(uid))
}
