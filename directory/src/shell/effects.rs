//! What the cores decided, carried out in order.

use layercake_wire::{
    Link, Service,
    id::{NodeId, PeerId},
};
use tokio::sync::watch;

use std::sync::{Arc, atomic::Ordering};

use super::{Seat, Shell, post};
use crate::{
    agent::{self, PRESENCES},
    host,
    inlet::Input,
    message::Refusal,
    publication::Standing,
    queue::Event,
    record::Record,
    registry,
    service::NotPublished,
};

impl Shell {
    pub(super) fn carry_out(&mut self) {
        loop {
            if let Some(effect) = self.agent_effects.pop_front() {
                self.on_agent_effect(effect);
            } else if let Some(effect) = self.host_effects.pop_front() {
                self.on_host_effect(effect);
            } else if !self.agent.is_ahead()
                && let Some(call) = self.calls.pop_front()
            {
                self.on_next_call(call);
            } else {
                return;
            }
        }
    }

    /// The publication stands: granted, or in line.
    fn on_standing(&mut self, record: Arc<Record>) {
        let serial = record.instance.serial;
        let Some(published) = self.published.get_mut(&serial) else { return };
        if let Some(standing) = &published.standing {
            standing.send_modify(|standing| standing.record = record);
        } else if let Some(answer) = published.answer.take() {
            let (sender, standing) = watch::channel(Standing { record, lost_to: None });
            published.standing = Some(sender);
            if answer.send(Ok(standing)).is_err() {
                self.on_input(Input::Withdraw(serial));
            }
        }
    }

    fn on_agent_effect(&mut self, effect: agent::Effect) {
        match effect {
            agent::Effect::ToHost(message) => match &self.seat {
                Seat::Client(link) => post(link, Service::Directory, &message),
                Seat::Holder(_) => {
                    let (node, wall) = (self.me.node, self.wall_ms());
                    self.in_core(|core, now, out| core.on_node(node, message, now, wall, out));
                }
                Seat::None | Seat::Seeking | Seat::Broken(_) => {}
            },
            agent::Effect::Granted(record) | agent::Effect::Waiting(record) => {
                self.on_standing(record);
            }
            agent::Effect::Synced(id) => {
                if let Some(answer) = self.syncing.remove(&id) {
                    let _ = answer.send(());
                }
            }
            agent::Effect::Refused { serial, reason } => {
                if let Some(answer) = self.published.remove(&serial).and_then(|p| p.answer) {
                    let _ = answer.send(Err(NotPublished::from(reason)));
                } else if let Refusal::Held(holder) = reason {
                    tracing::warn!(name = %holder.name, "a publication was taken back");
                }
            }
            agent::Effect::Lost { serial, holder } => {
                if let Some(standing) = self.published.remove(&serial).and_then(|p| p.standing) {
                    standing.send_modify(|standing| standing.lost_to = Some(holder));
                }
            }
            agent::Effect::Tell(registry::Effect::Available {
                subscription: PRESENCES,
                record,
            }) => {
                if self.watches.on_available(record.instance) {
                    tracing::info!(peer = %record.instance.peer(), "a node that had gone is back");
                    self.endpoint.mark_back(record.instance.node);
                }
            }
            agent::Effect::Tell(registry::Effect::Dropped {
                subscription: PRESENCES,
                record,
                reason,
            }) => {
                let ended = self.watches.on_dropped(record.instance, reason, self.now());
                self.end_watches(ended);
            }
            agent::Effect::Tell(told) => {
                let (subscription, event) = match told {
                    registry::Effect::Available { subscription, record } => {
                        (subscription, Event::Available(record))
                    }
                    registry::Effect::Dropped { subscription, record, reason } => {
                        (subscription, Event::Dropped(record, reason))
                    }
                };
                if let Some(feed) = self.feeds.get(&subscription) {
                    feed.push(event);
                }
            }
            agent::Effect::CloseProcess(peer) => {
                self.endpoint.close_link(peer.node, "the process has ended");
            }
            agent::Effect::CloseHost(host) => {
                for link in self.endpoint.links() {
                    if link.peer().host == host {
                        self.endpoint.close_link(link.peer().node, "the host is lost");
                    }
                }
            }
            agent::Effect::Reseat => {
                if matches!(self.seat, Seat::Client(_)) {
                    self.unseat(None);
                }
            }
            agent::Effect::Network { request, part, last } => {
                self.on_network_part(request, &part, last);
            }
            agent::Effect::Told { round, answer } => self.tell(round, answer),
            agent::Effect::NetworkEvents(events) => self.on_network_events(events),
            agent::Effect::Pong { request, reached } => self.on_pong(request, reached),
            agent::Effect::Hosts { request, hosts } => {
                if let Some(answer) = self.asked.remove(&request) {
                    let _ = answer.send(hosts);
                }
            }
        }
    }

    fn on_host_effect(&mut self, effect: host::Effect) {
        match effect {
            host::Effect::ToNode { node, message } if node == self.me.node => {
                self.status.progress.fetch_add(1, Ordering::Relaxed);
                self.in_agent(|agent, out| agent.on_host(message, out));
            }
            host::Effect::ToNode { node, message } => {
                if let Some(link) = self.link_to_node(node) {
                    post(link, Service::Agent, &message);
                }
            }
            host::Effect::ToPeer { peer, message } => {
                if let Some(link) = self.links.get(&peer) {
                    post(link, Service::Peer, &message);
                }
            }
            host::Effect::ToPeers { peers, message } => {
                let Some(body) = super::encoded(&message) else { return };
                for link in peers.iter().filter_map(|peer| self.links.get(peer)) {
                    let _ = link.post(Service::Peer, body.clone());
                }
            }
            host::Effect::Datagram { peer, packet } => {
                if let Some(link) = self.links.get(&peer) {
                    link.datagram(packet);
                }
            }
            host::Effect::CloseNode(node) => {
                self.endpoint.close_link(node, "more changes than its directory can take");
            }
            host::Effect::StartLan => self.start_lan(),
            host::Effect::ClosePeer(peer) => {
                self.endpoint.close_link(peer.node, "the host does not answer probes");
            }
            #[cfg(feature = "etcd")]
            host::Effect::Etcd(ask) => {
                if let Seat::Holder(holder) = &mut self.seat
                    && let Some(client) = &mut holder.etcd
                {
                    client.ask(ask, &mut self.tasks);
                }
            }
            #[cfg(not(feature = "etcd"))]
            host::Effect::Etcd(_) => {}
        }
    }

    fn link_to_node(&self, node: NodeId) -> Option<&Link> {
        self.links.get(&PeerId { host: self.me.host, node })
    }
}
