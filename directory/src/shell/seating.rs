//! Getting a host directory, losing it, and becoming it.

use layercake_wire::{
    Link, Service,
    id::{NodeId, PeerId},
};
use tokio::time::Instant;

use super::{Beacon, Holder, Lan, RETRY, Seat, Shell, THIS_HOST, post};
#[cfg(feature = "etcd")]
use crate::etcd::{Engine, client::Client, keys::Keys};
use crate::{
    agent::Agent,
    dial::Target,
    host::{HostConfig, HostCore},
    inlet::Input,
    membership::Patience,
    message::{ToHost, ToNode},
    seat::{self, HANDOVER, Held, Seated},
    trouble::TroubleKind,
};

impl Shell {
    pub(super) fn seek_if_needed(&mut self) {
        if matches!(self.seat, Seat::None) && self.agent.needs_host() {
            self.seek();
        }
    }

    pub(super) fn seek(&mut self) {
        if let Err(error) = self.config.check() {
            self.on_seated(Seated::Failed(error.to_string()));
            return;
        }
        self.seat = Seat::Seeking;
        let (endpoint, inlet) = (self.endpoint.clone(), self.inlet.clone());
        let remember = self.config.remember;
        self.seeking = Some(self.tasks.spawn(async move {
            inlet.send(Input::Seated(seat::seek(endpoint, remember).await));
        }));
    }

    /// Asks for precedence, and waits for the lock. For a daemon that is a client.
    pub(super) fn wait_turn(&mut self) {
        if let Seat::Client(link) = &self.seat {
            post(link, Service::Directory, &ToHost::Yield);
        }
        if self.waiting.as_ref().is_some_and(|waiting| !waiting.is_finished()) {
            return;
        }
        let (endpoint, inlet) = (self.endpoint.clone(), self.inlet.clone());
        let (remember, freed) = (self.config.remember, self.freed.clone());
        self.waiting = Some(self.tasks.spawn(async move {
            let seated = seat::wait_turn(endpoint, remember, freed).await;
            inlet.send(Input::Seated(seated));
        }));
    }

    /// The present directory has let go of the lock.
    pub(super) fn on_yielded(&mut self, directory: NodeId) {
        self.yielded = Some((directory, Instant::now()));
        self.freed.notify_one();
    }

    /// A daemon wants to be the directory. One that is a daemon itself stays it.
    pub(super) fn on_yield(&mut self, link: &Link) {
        if self.serve {
            return;
        }
        // It begins with what is known here.
        self.remember();
        let Seat::Holder(holder) = &mut self.seat else { return };
        if holder.yielding.is_none() {
            tracing::info!(to = %link.peer().node, "a daemon takes over the host directory");
            holder.held.release();
        }
        holder.yielding = Some(Instant::now() + HANDOVER);
        post(link, Service::Agent, &ToNode::Yielded);
    }

    /// Another node is the directory now.
    pub(super) fn on_taken(&mut self) {
        let Seat::Holder(holder) = &self.seat else { return };
        if holder.yielding.is_none() {
            return;
        }
        self.in_core(|core, _, out| core.step_down(out));
        self.carry_out();
        let Seat::Holder(holder) = std::mem::replace(&mut self.seat, Seat::None) else { return };
        if let Lan::On { beacon: Some(Beacon::Mdns(mdns)), .. } = holder.lan {
            self.tasks.spawn(mdns.stop());
        }
        if let Some(seeds) = holder.seeds {
            seeds.abort();
        }
        self.status.holder.send_replace(false);
        self.unseat(None);
    }

    /// Whoever asked for the lock has not taken it, or has not said so.
    pub(super) fn end_yielding(&mut self) {
        let Seat::Holder(holder) = &mut self.seat else { return };
        if holder.held.retake(&self.endpoint) {
            tracing::info!("nobody has taken over the host directory; this node keeps it");
            holder.yielding = None;
        } else {
            self.on_taken();
        }
    }

    /// The directory is gone; `died` is the process that had it, if that is known to have ended.
    pub(super) fn unseat(&mut self, died: Option<PeerId>) {
        self.in_agent(|agent, out| agent.on_host_down(died, out));
        self.asked.clear();
        self.forget_asked();
        self.asked_troubles.clear();
        self.seek();
    }

    pub(super) fn on_seated(&mut self, seated: Seated) {
        match seated {
            // A daemon whose turn came while it was looking for the next directory.
            Seated::Client(_) | Seated::Failed(_) if matches!(self.seat, Seat::Holder(_)) => {}
            Seated::Client(link) => {
                if link.is_closed() {
                    self.seek();
                    return;
                }
                self.set_trouble(String::new());
                self.settle(TroubleKind::Seat, THIS_HOST);
                self.yielded = None;
                self.seat = Seat::Client(link);
                self.in_agent(Agent::on_host_up);
                self.ask_again();
                if self.serve {
                    self.wait_turn();
                }
            }
            Seated::Holder(mut held) => {
                for search in [self.seeking.take(), self.waiting.take()].into_iter().flatten() {
                    search.abort();
                }
                let before = match &self.seat {
                    Seat::Client(link) => Some(link.clone()),
                    _ => None,
                };
                if before.is_some() {
                    self.in_agent(|agent, out| agent.on_host_down(None, out));
                    self.forget_asked();
                }
                // Who handed over has not died.
                let yielded = self.yielded.take().filter(|(_, at)| at.elapsed() < HANDOVER);
                held.departed.take_if(|node| yielded.is_some_and(|(from, _)| from == *node));
                self.hold(*held);
                if let Some(link) = before {
                    post(&link, Service::Directory, &ToHost::Taken);
                }
            }
            // A daemon that cannot wait for its turn has the present directory still.
            Seated::Failed(trouble) if matches!(self.seat, Seat::Client(_)) => {
                self.trouble(TroubleKind::Seat, THIS_HOST, &trouble);
            }
            Seated::Failed(trouble) => {
                self.trouble(TroubleKind::Seat, THIS_HOST, &trouble);
                self.set_trouble(trouble);
                self.seat = Seat::Broken(Instant::now() + RETRY);
            }
        }
    }

    #[cfg(feature = "etcd")]
    fn choose_engine(&self, holder: &mut Holder, now: std::time::Duration) {
        if let Ok(Engine::Etcd(config)) = &self.config.engine {
            let mesh = self.endpoint.mesh().id();
            holder.core.meet_in_etcd(mesh, config.ttl, now);
            let prefix = Keys::new(mesh).prefix().to_owned();
            holder.etcd = Some(Client::new(config, prefix, self.inlet.clone()));
        }
    }

    #[cfg(not(feature = "etcd"))]
    #[expect(clippy::unused_self, reason = "as with etcd")]
    const fn choose_engine(&self, _: &mut Holder, _: std::time::Duration) {}

    pub(super) fn hold(&mut self, held: Held) {
        let now = self.now();
        tracing::info!(incarnation = held.incarnation, "this node embeds the host directory");
        let config = HostConfig {
            addr: self.endpoint.addr(),
            host_name: self.endpoint.mesh().host_name().to_owned(),
            incarnation: held.incarnation,
            departed: held.departed,
            seed: self.me.node.to_bits() ^ held.incarnation,
        };
        let mut core = HostCore::new(config, now);
        core.set_patience(Patience::new(self.config.patience));
        for (host, addrs) in &held.peers {
            core.on_hint(Target::Host(*host), addrs, now);
        }
        let stored = held.peers.clone();
        let mut holder = Holder {
            core,
            held,
            yielding: None,
            lan: Lan::Off,
            seeds: None,
            #[cfg(feature = "etcd")]
            etcd: None,
            stored,
        };
        self.choose_engine(&mut holder, now);
        self.seat = Seat::Holder(Box::new(holder));
        self.set_trouble(String::new());
        self.settle(TroubleKind::Seat, THIS_HOST);
        self.status.holder.send_replace(true);
        self.in_agent(Agent::on_host_up);
        self.ask_again();
        if self.serve {
            self.in_core(|core, _, out| core.want_lan(out));
        }
    }
}
