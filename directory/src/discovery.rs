//! Finding hosts on the local network by mDNS (RFC 6762, 6763).
//!
//! What it finds is a hint where to dial and nothing else: nothing here is authenticated, and anybody
//! may flood it. So hints pass at a bounded rate, and a daemon that has been made to remember too much
//! is ended and begins anew later. The daemon has a thread of its own and is started only when somebody on
//! this host needs the mesh.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use layercake_wire::{
    Interfaces,
    id::{HostId, MeshId, PeerId},
};
use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, Receiver, ResolvedService, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

/// What hosts announce themselves as.
pub(crate) const SERVICE_TYPE: &str = "_layercake._udp.local.";
/// How long leaving waits until the goodbye has been said twice.
const GOODBYE: Duration = Duration::from_millis(250);
/// After so long the daemon has repeated a goodbye, for those who missed the first.
const REPEATED: Duration = Duration::from_millis(140);
/// The pause before browsing again where it ended.
const AGAIN: Duration = Duration::from_secs(1);
/// How often everything that is announced is told again, and asked for.
const REFRESH: Duration = Duration::from_secs(60);
/// How often the daemon's memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Records that the daemon may remember: a thousand hosts with several addresses each.
const MAX_RECORDS: i64 = 16_384;
/// The pause after a flood, or after the daemon could not be started.
const REST: Duration = Duration::from_secs(30);
/// Hints that are passed on at once, and in each second from then on.
const BURST: f64 = 256.0;
const RATE: f64 = 64.0;
/// Bytes of this host's name in its announcement.
const MAX_LABEL: usize = 40;
/// How long this host may take to hear its own announcement.
const ECHO: Duration = Duration::from_secs(5);

/// What is announced, and where.
#[derive(Debug, Clone)]
pub(crate) struct Announce {
    pub(crate) me: PeerId,
    pub(crate) host_name: String,
    pub(crate) mesh: MeshId,
    pub(crate) port: u16,
    pub(crate) interfaces: Interfaces,
}

/// What comes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Host(HostId, Vec<SocketAddr>),
    /// It does not work, and why.
    Trouble(String),
    /// It works.
    Settled,
}

/// An announcement and a search, until it is stopped or dropped.
pub(crate) struct Mdns {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Mdns {
    /// Announces this host's directory and tells about every other one of the mesh, on the present
    /// runtime.
    pub(crate) fn start(announce: Announce, tell: impl Fn(Told) + Send + Sync + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop: Some(stop), task: tokio::spawn(run(announce, tell, stopped)) }
    }

    /// Begins to say goodbye.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take();
    }

    /// Says goodbye and ends the daemon.
    pub(crate) async fn stop(mut self) {
        self.begin_stop();
        let _ = tokio::time::timeout(GOODBYE, self.task).await;
    }
}

/// Why a daemon's time is over.
enum Over {
    Stopped,
    Flooded,
    Failed(mdns_sd::Error),
}

async fn run(announce: Announce, tell: impl Fn(Told) + Sync, mut stopped: oneshot::Receiver<()>) {
    loop {
        let why = match session(&announce, &tell, &mut stopped).await {
            Over::Stopped => return,
            Over::Flooded => {
                format!("somebody floods this network with announcements; it is off for {REST:?}")
            }
            Over::Failed(error) => format!("{error}"),
        };
        tell(Told::Trouble(why));
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            _ = &mut stopped => return,
        }
    }
}

/// One daemon, from its start to its end.
async fn session(
    announce: &Announce,
    tell: &(impl Fn(Told) + Sync),
    stopped: &mut oneshot::Receiver<()>,
) -> Over {
    let (daemon, fullname) = match begin(announce) {
        Ok(begun) => begun,
        Err(error) => return Over::Failed(error),
    };
    let over = tokio::select! {
        over = browse(&daemon, announce, tell) => over,
        _ = &mut *stopped => Over::Stopped,
    };
    if let Ok(done) = daemon.unregister(&fullname)
        && done.recv_async().await.is_ok()
    {
        tokio::time::sleep(REPEATED).await;
    }
    let _ = daemon.shutdown();
    over
}

/// Announces this host's directory.
fn begin(announce: &Announce) -> mdns_sd::Result<(ServiceDaemon, String)> {
    let daemon = ServiceDaemon::new()?;
    let interfaces = announce.interfaces.clone();
    daemon.disable_interface(IfKind::Predicate(IfPredicate::new(move |interface| {
        !interface.is_loopback() && !interfaces.admits(&interface.name)
    })))?;
    daemon.set_ip_check_interval(1)?;
    let PeerId { host, node } = announce.me;
    let properties: HashMap<String, String> = [
        ("v", "1".to_owned()),
        ("mesh", announce.mesh.short()),
        ("host", host.to_string()),
        ("node", node.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let instance = instance_name(&announce.host_name, &node.to_string());
    let server = format!("{node}.local.");
    let port = announce.port;
    let mut service = ServiceInfo::new(SERVICE_TYPE, &instance, &server, "", port, properties)?;
    // A node id is drawn at random: there is nobody to ask whether it is taken.
    service.set_requires_probe(false);
    let service = service.enable_addr_auto();
    let fullname = service.get_fullname().to_owned();
    daemon.register(service)?;
    Ok((daemon, fullname))
}

/// What people see in a browser: the host's name, and the id that makes it unique.
fn instance_name(host_name: &str, node: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = host_name.chars().map(plain).take(MAX_LABEL).collect();
    format!("{label}-{node}")
}

/// Tells about each host of the mesh that announces itself, until the daemon ends or is flooded.
async fn browse(
    daemon: &ServiceDaemon,
    announce: &Announce,
    tell: &(impl Fn(Told) + Sync),
) -> Over {
    let events = match daemon.monitor() {
        Ok(events) => events,
        Err(error) => return Over::Failed(error),
    };
    let started = Instant::now();
    let mut echo = Echo::Awaited;
    let mut rate = Rate::new(started);
    let mesh = announce.mesh.short();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let found = match daemon.browse(SERVICE_TYPE) {
            Ok(found) => found,
            // Its queue of commands is full for the moment.
            Err(mdns_sd::Error::Again) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Over::Failed(error),
        };
        let refresh = Instant::now() + REFRESH;
        loop {
            tokio::select! {
                event = found.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) => {
                        if echo != Echo::Heard && is_echo(&service, announce.me.host) {
                            echo = Echo::Heard;
                            tell(Told::Settled);
                        }
                        if let Some((host, addrs)) = hint(&service, announce.me.host, &mesh)
                            && rate.admits(Instant::now())
                        {
                            tell(Told::Host(host, addrs));
                        }
                    }
                    Ok(_) => {}
                    // A search that falls behind is ended by the daemon.
                    Err(_) => {
                        tokio::time::sleep(AGAIN).await;
                        break;
                    }
                },
                Ok(event) = events.recv_async() => {
                    if let DaemonEvent::Error(error) = event {
                        tell(Told::Trouble(error.to_string()));
                    }
                },
                _ = look.tick() => {
                    if echo == Echo::Awaited && started.elapsed() > ECHO {
                        echo = Echo::Missed;
                        tell(Told::Trouble(silence(&announce.interfaces)));
                    }
                    if remembered(daemon).await > MAX_RECORDS {
                        return Over::Flooded;
                    }
                }
                () = tokio::time::sleep_until(refresh) => break,
            }
        }
    }
}

/// Whether this host has heard its own announcement, as it does where multicast works.
#[derive(PartialEq, Eq)]
enum Echo {
    Awaited,
    Missed,
    Heard,
}

fn is_echo(service: &ResolvedService, own: HostId) -> bool {
    let host = service.get_property_val_str("host").and_then(|host| host.parse().ok());
    let outside = |ip: &mdns_sd::ScopedIp| !ip.is_loopback();
    host == Some(own) && service.get_addresses().iter().any(outside)
}

fn silence(interfaces: &Interfaces) -> String {
    if interfaces.running().is_empty() {
        return "no network interface is up (or none that may be used)".to_owned();
    }
    "this host does not hear its own announcement: multicast is blocked here, or no interface carries \
     it"
        .to_owned()
}

/// How many records the daemon remembers; none where it does not say.
async fn remembered(daemon: &ServiceDaemon) -> i64 {
    let Ok(answer) = daemon.get_metrics() else { return 0 };
    let answer: Receiver<HashMap<String, i64>> = answer;
    let metrics = tokio::time::timeout(AGAIN, answer.recv_async()).await;
    let Ok(Ok(metrics)) = metrics else { return 0 };
    metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count).sum()
}

/// A bound for hints.
struct Rate {
    left: f64,
    at: Instant,
}

impl Rate {
    const fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    fn admits(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * RATE).min(BURST);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
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
    fn what_people_see_is_a_name_and_an_id() {
        assert_eq!(instance_name("rack 1.left", "3f2a"), "rack-1-left-3f2a");
        let long = instance_name(&"é".repeat(300), "3f2a3f2a3f2a3f2a");
        assert!(long.len() <= 63, "a label of DNS has at most 63 bytes: {long}");
    }

    #[test]
    fn hints_pass_at_a_bounded_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let passed = |rate: &mut Rate, seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..10_000).filter(|_| rate.admits(now)).count()
        };
        assert_eq!(passed(&mut rate, 0), 256);
        assert_eq!(passed(&mut rate, 1), 64);
        assert_eq!(passed(&mut rate, 100), 256);
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out() {
        let ips = |text: &[&str]| text.iter().map(|ip| ip.parse().unwrap()).collect();
        let some = usable(ips(&["fe80::1", "fd00::1", "127.0.0.1", "10.0.0.2"]), 7);
        assert_eq!(some, ["10.0.0.2:7".parse().unwrap(), "[fd00::1]:7".parse().unwrap()]);
        assert_eq!(usable(ips(&["127.0.0.1"]), 7), ["127.0.0.1:7".parse().unwrap()]);
    }
}
