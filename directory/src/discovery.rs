//! Finding hosts on the local network by mDNS (RFC 6762, 6763).
//!
//! What it finds is a hint where to dial and nothing else: nothing here is authenticated. The daemon
//! has a thread of its own and is started only when somebody on this host needs the mesh.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use layercake_wire::id::{HostId, MeshId, PeerId};
use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, Receiver, ResolvedService, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};

/// What hosts announce themselves as.
pub(crate) const SERVICE_TYPE: &str = "_layercake._udp.local.";
/// Interfaces of containers and virtual machines on this very machine: nobody we want is there.
const SKIPPED: [&str; 4] = ["docker", "veth", "br-", "virbr"];
/// How long leaving waits until the goodbye is sent.
const GOODBYE: Duration = Duration::from_millis(250);
/// The pause before browsing again where it ended.
const AGAIN: Duration = Duration::from_secs(1);

/// An announcement and a search, until it is stopped.
pub(crate) struct Mdns {
    daemon: ServiceDaemon,
    fullname: String,
}

impl Mdns {
    /// Announces this host's directory.
    pub(crate) fn start(me: PeerId, mesh: &MeshId, port: u16) -> mdns_sd::Result<Self> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::Predicate(IfPredicate::new(|interface| {
            is_skipped(&interface.name)
        })))?;
        let node = me.node.to_string();
        let properties: HashMap<String, String> = [
            ("v", "1".to_owned()),
            ("mesh", mesh.short()),
            ("host", me.host.to_string()),
            ("node", node.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let name = format!("{node}.local.");
        let mut service = ServiceInfo::new(SERVICE_TYPE, &node, &name, "", port, properties)?;
        // A node id is drawn at random: there is nobody to ask whether it is taken.
        service.set_requires_probe(false);
        let service = service.enable_addr_auto();
        let fullname = service.get_fullname().to_owned();
        daemon.register(service)?;
        Ok(Self { daemon, fullname })
    }

    /// Tells about each host of the mesh that announces itself, until the daemon ends.
    pub(crate) fn browse(
        &self,
        own: HostId,
        mesh: &MeshId,
        found: impl Fn(HostId, Vec<SocketAddr>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (daemon, mesh) = (self.daemon.clone(), mesh.short());
        async move {
            // A search that falls behind is ended by the daemon; one that the daemon cannot begin is
            // over.
            while let Ok(events) = daemon.browse(SERVICE_TYPE) {
                while let Ok(event) = events.recv_async().await {
                    if let ServiceEvent::ServiceResolved(service) = event
                        && let Some((host, addrs)) = hint(&service, own, &mesh)
                    {
                        found(host, addrs);
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Reports the first thing that does not work.
    pub(crate) fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        let events: mdns_sd::Result<Receiver<DaemonEvent>> = self.daemon.monitor();
        async move {
            let Ok(events) = events else { return };
            while let Ok(event) = events.recv_async().await {
                if let DaemonEvent::Error(error) = event {
                    tracing::warn!(
                        %error,
                        "mDNS does not work everywhere; hosts are still found by seeds, by other \
                         hosts and where they were before"
                    );
                    return;
                }
            }
        }
    }

    /// Says goodbye and ends the daemon.
    pub(crate) async fn stop(self) {
        if let Ok(done) = self.daemon.unregister(&self.fullname) {
            let _ = tokio::time::timeout(GOODBYE, done.recv_async()).await;
        }
        let _ = self.daemon.shutdown();
    }
}

fn is_skipped(interface: &str) -> bool {
    SKIPPED.iter().any(|prefix| interface.starts_with(prefix))
}

/// The host and addresses of an announcement, if it is of our mesh and not our own.
fn hint(service: &ResolvedService, own: HostId, mesh: &str) -> Option<(HostId, Vec<SocketAddr>)> {
    if service.get_property_val_str("mesh") != Some(mesh) {
        return None;
    }
    let host: HostId = service.get_property_val_str("host")?.parse().ok()?;
    let ips = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr);
    let addrs = usable(ips.collect(), service.get_port());
    (host != own && !addrs.is_empty()).then_some((host, addrs))
}

/// IPv4 first. Link-local IPv6 needs a scope that does not survive the way; loopback is another
/// host's only where there is nothing else.
fn usable(mut ips: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    ips.retain(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    if ips.iter().any(|ip| !ip.is_loopback()) {
        ips.retain(|ip| !ip.is_loopback());
    }
    ips.sort();
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    fn announced(mesh: &str, host: &str) -> ResolvedService {
        let properties = [("mesh", mesh), ("host", host)];
        let ips = "10.0.0.2,127.0.0.1";
        let service = ServiceInfo::new(SERVICE_TYPE, "n", "n.local.", ips, 77, &properties[..]);
        service.expect("a good service").as_resolved_service()
    }

    #[test]
    fn only_other_hosts_of_our_mesh_are_hints() {
        let (own, other) = (peer(1, 1).host, peer(2, 1).host);
        let found = hint(&announced("cafe", &other.to_string()), own, "cafe");
        assert_eq!(found, Some((other, vec![([10, 0, 0, 2], 77).into()])));
        assert_eq!(hint(&announced("beef", &other.to_string()), own, "cafe"), None);
        assert_eq!(hint(&announced("cafe", &own.to_string()), own, "cafe"), None);
        assert_eq!(hint(&announced("cafe", "nonsense"), own, "cafe"), None);
    }

    #[test]
    fn interfaces_of_containers_are_skipped() {
        assert!(["docker0", "veth12ab", "br-12ab", "virbr0"].into_iter().all(is_skipped));
        assert!(!["eth0", "lo", "wlan0", "enp3s0"].into_iter().any(is_skipped));
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out() {
        let ips = |text: &[&str]| text.iter().map(|ip| ip.parse().unwrap()).collect();
        let some = usable(ips(&["fe80::1", "fd00::1", "127.0.0.1", "10.0.0.2"]), 7);
        assert_eq!(some, ["10.0.0.2:7".parse().unwrap(), "[fd00::1]:7".parse().unwrap()]);
        assert_eq!(usable(ips(&["127.0.0.1"]), 7), ["127.0.0.1:7".parse().unwrap()]);
    }
}
