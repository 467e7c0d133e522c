//! Getting a host directory, losing it, and becoming it.

use layercake_wire::id::PeerId;
use tokio::time::Instant;

use super::{Holder, Lan, RETRY, Seat, Shell};
#[cfg(feature = "etcd")]
use crate::etcd::{Engine, client::Client, keys::Keys};
use crate::{
    agent::Agent,
    dial::Target,
    host::{HostConfig, HostCore},
    inlet::Input,
    seat::{self, Held, Seated},
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
        let wall = self.wall_ms();
        self.tasks.spawn(async move {
            inlet.send(Input::Seated(seat::seek(endpoint, wall).await));
        });
    }

    pub(super) fn wait_turn(&mut self) {
        let (endpoint, inlet) = (self.endpoint.clone(), self.inlet.clone());
        let wall = self.wall_ms();
        self.tasks.spawn(async move {
            inlet.send(Input::Seated(seat::wait_turn(endpoint, wall).await));
        });
    }

    /// The directory is gone; `died` is the process that had it, if that is known to have ended.
    pub(super) fn unseat(&mut self, died: Option<PeerId>) {
        self.in_agent(|agent, out| agent.on_host_down(died, out));
        self.asked.clear();
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
                self.seat = Seat::Client(link);
                self.in_agent(Agent::on_host_up);
                if self.serve {
                    self.wait_turn();
                }
            }
            Seated::Holder(held) => {
                if matches!(self.seat, Seat::Client(_)) {
                    self.in_agent(|agent, out| agent.on_host_down(None, out));
                }
                self.hold(*held);
            }
            Seated::Failed(trouble) => {
                self.tell_once(format!(
                    "no host directory: {trouble}; names within this process still work"
                ));
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
        for (host, addrs) in &held.peers {
            core.on_hint(Target::Host(*host), addrs, now);
        }
        let stored = held.peers.clone();
        let mut holder = Holder {
            core,
            held,
            lan: Lan::Off,
            #[cfg(feature = "etcd")]
            etcd: None,
            stored,
        };
        self.choose_engine(&mut holder, now);
        self.seat = Seat::Holder(Box::new(holder));
        self.set_trouble(String::new());
        self.status.holder.send_replace(true);
        self.in_agent(Agent::on_host_up);
        if self.serve {
            self.in_core(|core, _, out| core.want_lan(out));
        }
    }
}
