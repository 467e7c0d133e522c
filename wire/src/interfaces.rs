//! Which network interfaces of this host count: where it is announced, and at which addresses others
//! are told to dial it.
//!
//! By default bridges of containers and virtual machines are left out: nobody we want is behind them,
//! and their addresses are the same on every host. Tunnels (VPN) carry links but no multicast.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::id::MAX_HINTS;

/// The environment variable with the interfaces to be used; see [`Interfaces`].
pub const INTERFACES_VARIABLE: &str = "LAYERCAKE_INTERFACES";
/// Rules of a choice.
const MAX_RULES: usize = 32;
/// Interfaces of containers and virtual machines on this very machine.
const VIRTUAL: [&str; 12] = [
    "docker", "veth", "br-", "virbr", "vnet", "cni", "flannel", "cali", "podman", "lxc", "lxd",
    "vmnet",
];

/// A choice of interfaces: names separated by commas or spaces, `*` at the end standing for any rest,
/// `!` in front leaving out. `eth0`: this one and no other. `!wlan*`: all of the usual ones but these.
/// `*`: really all. Empty, the default: all but bridges of containers and virtual machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interfaces {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

/// Why a choice of interfaces is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterfacesError {
    /// A rule is no name of an interface.
    #[error(
        "`{0}` is no interface: write names as `eth0`, `eth*` or `!wlan0`, with commas between"
    )]
    Rule(String),
    /// There are more than 32 rules.
    #[error("more than {MAX_RULES} interfaces are named")]
    TooMany,
}

impl Interfaces {
    /// Whether an interface counts. Loopback is not asked for here.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        let any = |rules: &[String]| rules.iter().any(|rule| matches(rule, name));
        if any(&self.unwanted) {
            return false;
        }
        if self.wanted.is_empty() { !is_virtual(name) } else { any(&self.wanted) }
    }

    /// What of this host counts, is up and has a carrier, in a fixed order: when it changes, so does
    /// what can be reached. Empty where the system does not tell.
    #[must_use]
    pub fn running(&self) -> Vec<(String, IpAddr)> {
        let all = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        let running = all.filter(|i| !i.is_loopback() && i.is_oper_up() && self.admits(&i.name));
        let mut running: Vec<_> = running.map(|i| (i.name.clone(), i.ip())).collect();
        running.sort();
        running
    }

    /// Where a socket on this port may be reached: the addresses of the interfaces that count, those
    /// of tunnels last; loopback where there is no other. At most [`MAX_HINTS`].
    pub(crate) fn hints(&self, port: u16) -> Vec<SocketAddr> {
        let all = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        let usable = all.filter(|i| !i.is_loopback() && !i.is_link_local() && self.admits(&i.name));
        let mut found: Vec<_> = usable
            .map(|i| (is_tunnel(&i), i.ip().is_ipv6(), SocketAddr::new(i.ip(), port)))
            .collect();
        found.sort_by_key(|(tunnel, v6, _)| (*tunnel, *v6));
        let mut found: Vec<_> = found.into_iter().map(|(_, _, addr)| addr).collect();
        if found.is_empty() {
            found.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        found.truncate(MAX_HINTS);
        found
    }
}

impl FromStr for Interfaces {
    type Err = InterfacesError;

    fn from_str(text: &str) -> Result<Self, InterfacesError> {
        let mut choice = Self::default();
        let rules = text.split([',', ' ', '\t', '\n']).filter(|rule| !rule.is_empty());
        for (at, rule) in rules.enumerate() {
            if at >= MAX_RULES {
                return Err(InterfacesError::TooMany);
            }
            let (list, name) = match rule.strip_prefix('!') {
                Some(name) => (&mut choice.unwanted, name),
                None => (&mut choice.wanted, rule),
            };
            let stem = name.strip_suffix('*').unwrap_or(name);
            // The kernel's limit is 15 bytes.
            let fits = stem.len() <= 15 && !name.is_empty();
            if !fits || stem.contains(['*', '!', '/']) || stem.chars().any(char::is_control) {
                return Err(InterfacesError::Rule(rule.to_owned()));
            }
            list.push(name.to_owned());
        }
        Ok(choice)
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unwanted = self.unwanted.iter().map(|name| format!("!{name}"));
        let rules: Vec<_> = self.wanted.iter().cloned().chain(unwanted).collect();
        f.write_str(&rules.join(","))
    }
}

fn matches(rule: &str, name: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == name, |stem| name.starts_with(stem))
}

fn is_virtual(name: &str) -> bool {
    VIRTUAL.iter().any(|prefix| name.starts_with(prefix))
}

fn is_tunnel(interface: &if_addrs::Interface) -> bool {
    let named = ["tun", "tap", "wg", "tailscale", "zt", "ppp", "utun"];
    interface.is_p2p() || named.iter().any(|prefix| interface.name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> Interfaces {
        text.parse().expect(text)
    }

    #[test]
    fn bridges_of_containers_are_left_out_unless_they_are_wanted() {
        let usual = Interfaces::default();
        for name in ["docker0", "veth12ab", "br-12ab", "virbr0", "cni0", "podman0"] {
            assert!(!usual.admits(name), "{name}");
            assert!(choice("*").admits(name), "{name}");
        }
        for name in ["eth0", "wlan0", "enp3s0", "wg0", "tun0", "br0", "bond0"] {
            assert!(usual.admits(name), "{name}");
        }
        assert!(choice("docker0").admits("docker0") && !choice("docker0").admits("eth0"));
        assert!(choice("eth*").admits("eth1") && !choice("eth*").admits("enp3s0"));
        let without = choice("!wlan*, !eth1");
        assert!(without.admits("eth0") && !without.admits("eth1") && !without.admits("wlan7"));
        assert!(!without.admits("docker0"), "the usual rules hold beside an exception");
        assert!(!choice("eth*,!eth1").admits("eth1"));
    }

    #[test]
    fn a_choice_is_read_and_written() {
        assert_eq!(choice(" eth0, eth* !wlan0").to_string(), "eth0,eth*,!wlan0");
        assert_eq!(choice(""), Interfaces::default());
        for bad in ["!", "eth*0", "a-name-that-is-too-long", "eth/0"] {
            assert!(matches!(bad.parse::<Interfaces>(), Err(InterfacesError::Rule(_))), "{bad}");
        }
        let many = vec!["eth0"; MAX_RULES + 1].join(",");
        assert_eq!(many.parse::<Interfaces>(), Err(InterfacesError::TooMany));
    }

    #[test]
    fn there_is_always_somewhere_to_be_reached() {
        assert_eq!(choice("nothing0").hints(7), ["127.0.0.1:7".parse().unwrap()]);
        assert!(choice("nothing0").running().is_empty());
    }
}
