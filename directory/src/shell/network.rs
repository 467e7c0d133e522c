//! The way to other hosts: listening, mDNS and seeds, from the moment that somebody needs them.

use layercake_wire::id::{HostId, NodeAddr};
use tokio::{sync::watch, time::Instant};

use super::{Beacon, Lan, RETRY, SEED_PERIOD, Seat, Shell};
use crate::{
    dial::Target,
    discovery::Mdns,
    etcd::Engine,
    hints,
    inlet::{Inlet, Input},
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
        let now = self.now();
        let addr = match result {
            Ok(addr) => addr,
            Err(trouble) => {
                self.tell_once(format!(
                    "cannot be reached by other hosts: {trouble}; names within this host still work"
                ));
                if let Seat::Holder(holder) = &mut self.seat {
                    holder.lan = Lan::Broken(Instant::now() + RETRY);
                }
                return;
            }
        };
        let gossip = matches!(self.config.engine, Ok(Engine::Gossip));
        let beacon = if gossip && self.config.mdns { self.start_beacon(&addr) } else { None };
        let Seat::Holder(holder) = &mut self.seat else { return };
        holder.core.start_lan(addr, now);
        holder.lan = Lan::On { beacon, next_store: Instant::now() + RETRY };
        for seed in self.config.seeds.iter().take(hints::MAX_SEEDS).filter(|_| gossip) {
            self.tasks.spawn(resolve(seed.clone(), self.inlet.clone()));
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
            self.tell_once("this host has no address that others could reach".to_owned());
            return None;
        };
        let mesh = self.endpoint.mesh().id();
        match Mdns::start(self.me, mesh, port) {
            Ok(mdns) => {
                let inlet = self.inlet.clone();
                let found = move |host, addrs| inlet.found(host, addrs);
                self.tasks.spawn(mdns.browse(self.me.host, mesh, found));
                self.tasks.spawn(mdns.watch());
                Some(mdns)
            }
            Err(error) => {
                self.tell_once(format!(
                    "mDNS does not work: {error}; hosts are still found by seeds, by other hosts and \
                     where they were before"
                ));
                None
            }
        }
    }
}

/// Tells of every other host that announces itself in an in-memory network.
async fn browse(host: HostId, mut announced: watch::Receiver<Vec<NodeAddr>>, inlet: Inlet) {
    loop {
        let others: Vec<_> = announced.borrow_and_update().clone();
        for addr in others.into_iter().filter(|addr| addr.peer.host != host) {
            inlet.found(addr.peer.host, addr.hints.to_vec());
        }
        if announced.changed().await.is_err() {
            return;
        }
    }
}

/// Resolves a seed now and then: what it stands for may change, and may not be there yet.
async fn resolve(seed: String, inlet: Inlet) {
    let name = hints::with_port(&seed);
    let mut told = false;
    loop {
        match tokio::net::lookup_host(&name).await {
            Ok(addrs) => {
                for addr in addrs.take(hints::MAX_SEEDS) {
                    if !inlet.send(Input::Found(Target::Addr(addr), vec![addr])) {
                        return;
                    }
                }
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(seed, %error, "cannot resolve a seed; it will be tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(SEED_PERIOD).await;
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
