//! The way to other hosts: listening, mDNS and seeds, from the moment that somebody needs them.

use layercake_wire::id::{HostId, NodeAddr};
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::{Beacon, Lan, RETRY, Seat, Shell, THIS_HOST};
use crate::{
    dial::Target,
    discovery::{self, Announce, Mdns},
    etcd::Engine,
    inlet::{Inlet, Input},
    seeds::{self, SEEDS_FILE},
    trouble::{TroubleKind, chain},
};

impl Shell {
    pub(super) fn start_lan(&mut self) {
        let Seat::Holder(holder) = &mut self.seat else { return };
        holder.lan = Lan::Starting;
        let (endpoint, inlet, port) = (self.endpoint.clone(), self.inlet.clone(), self.config.port);
        self.tasks.spawn(async move {
            let listening = endpoint.listen_quic(Some(port)).await;
            inlet.send(Input::Listening(listening.map_err(|error| chain(&error))));
        });
    }

    pub(super) fn on_listening(&mut self, result: Result<NodeAddr, String>) {
        // Handed over meanwhile.
        if !matches!(self.seat, Seat::Holder(_)) {
            return;
        }
        let now = self.now();
        let addr = match result {
            Ok(addr) => addr,
            Err(trouble) => {
                self.trouble(TroubleKind::Listen, THIS_HOST, &trouble);
                if let Seat::Holder(holder) = &mut self.seat {
                    holder.lan = Lan::Broken(Instant::now() + RETRY);
                }
                return;
            }
        };
        self.settle(TroubleKind::Listen, THIS_HOST);
        let gossip = matches!(self.config.engine, Ok(Engine::Gossip));
        let beacon = if gossip && self.config.mdns { self.start_beacon(&addr) } else { None };
        let seeds = gossip.then(|| self.start_seeds());
        let Seat::Holder(holder) = &mut self.seat else { return };
        holder.core.start_lan(addr, now);
        holder.lan = Lan::On { beacon, next_store: Instant::now() + RETRY };
        holder.seeds = seeds;
        self.in_core(|core, _, out| core.tell_addr(out));
    }

    fn start_seeds(&mut self) -> AbortHandle {
        let mesh = self.endpoint.mesh();
        let file = self.config.seeds_file && !mesh.is_in_memory();
        let file = file.then(|| mesh.folder().join(SEEDS_FILE));
        let (given, inlet) = (self.config.seeds.clone(), self.inlet.clone());
        let tell = move |told| {
            inlet.send(match told {
                seeds::Told::Addr(addr) => Input::Found(Target::Addr(addr), vec![addr]),
                seeds::Told::Trouble(kind, about, why) => Input::Trouble(kind, about, why),
                seeds::Told::Settled(kind, about) => Input::Settled(kind, about),
            })
        };
        self.tasks.spawn(seeds::keep(given, file, seeds::look_up, tell))
    }

    /// Other interfaces or addresses than a moment ago: what could not be reached may be reached now.
    pub(super) fn look_at_interfaces(&mut self) {
        if self.endpoint.network().is_some() || !matches!(self.seat, Seat::Holder(_)) {
            return;
        }
        let running = self.config.interfaces.running();
        let more = running.iter().any(|interface| !self.interfaces.contains(interface));
        self.interfaces = running;
        if more {
            self.in_core(|core, now, _| core.on_network_change(now));
        }
    }

    fn start_beacon(&mut self, addr: &NodeAddr) -> Option<Beacon> {
        let Some(network) = self.endpoint.network() else {
            return self.start_mdns(addr).map(Beacon::Mdns);
        };
        let announcement = network.announce(addr.clone());
        self.tasks.spawn(browse(self.me.host, network.announced(), self.inlet.clone()));
        Some(Beacon::Network(announcement))
    }

    fn start_mdns(&mut self, addr: &NodeAddr) -> Option<Mdns> {
        let ports = || addr.hints.iter().map(std::net::SocketAddr::port);
        let port = ports().find(|port| *port == self.config.port).or_else(|| ports().next());
        let Some(port) = port else {
            let why = "this host has no address that others could reach";
            self.trouble(TroubleKind::Mdns, THIS_HOST, why);
            return None;
        };
        let mesh = self.endpoint.mesh();
        let announce = Announce {
            me: self.me,
            host_name: mesh.host_name().to_owned(),
            mesh: mesh.id().clone(),
            port,
            interfaces: self.config.interfaces.clone(),
        };
        let inlet = self.inlet.clone();
        let about = || THIS_HOST.to_owned();
        let tell = move |told| {
            inlet.send(match told {
                discovery::Told::Host(host, addrs) => Input::Heard(host, addrs),
                discovery::Told::Trouble(why) => Input::Trouble(TroubleKind::Mdns, about(), why),
                discovery::Told::Settled => Input::Settled(TroubleKind::Mdns, about()),
            });
        };
        Some(Mdns::start(announce, tell))
    }
}

/// Tells of every other host that announces itself in an in-memory network.
async fn browse(host: HostId, mut announced: watch::Receiver<Vec<NodeAddr>>, inlet: Inlet) {
    loop {
        let others: Vec<_> = announced.borrow_and_update().clone();
        for addr in others.into_iter().filter(|addr| addr.peer.host != host) {
            inlet.send(Input::Found(Target::Host(addr.peer.host), addr.hints.to_vec()));
        }
        if announced.changed().await.is_err() {
            return;
        }
    }
}
