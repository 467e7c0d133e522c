//! One host of a lab: its address, its programs, and what can go wrong with it.

use std::{net::Ipv4Addr, path::Path, process::Command};

use crate::{Unavailable, namespace::Namespace, tool};

/// A host of a [`Lab`](crate::Lab). A cheap handle; the host itself goes with the lab.
///
/// Faults add up until [`heal`](Self::heal). They touch only what passes the cable, never the
/// host's loopback. Methods panic when the system refuses a step; filters need `iptables`.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: Namespace,
    switch: Namespace,
    /// The switch's end of the cable.
    port: String,
    address: Ipv4Addr,
}

impl Host {
    pub(crate) fn plug_in(
        name: &str,
        namespace: Namespace,
        switch: &Namespace,
        number: u8,
        address: Ipv4Addr,
    ) -> Result<Self, String> {
        let port = format!("port{number}");
        let inside = namespace.name();
        switch
            .ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", inside])?;
        switch.ip(&["link", "set", &port, "master", "br0", "up"])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        // Multicast has nowhere to go without a route, and so mDNS would find nobody.
        namespace.ip(&["route", "add", "default", "dev", "eth0"])?;
        Ok(Self { name: name.into(), namespace, switch: switch.clone(), port, address })
    }

    /// The name it was plugged in under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address the other hosts reach it at.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that will run a program on this host. Its pid is the program's own.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Pulls the cable (`false`) or plugs it back in (`true`).
    pub fn cable(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        self.must(self.switch.ip(&["link", "set", &self.port, state]));
    }

    /// Gives the host a second cable, `eth1`, to a second switch, and returns its address there. Filters
    /// do not touch it.
    pub fn plug_in_second(&self) -> Ipv4Addr {
        let switch = &self.switch;
        if switch.ip(&["link", "show", "br1"]).is_err() {
            let bridge = ["link", "add", "br1", "type", "bridge", "mcast_snooping", "0"];
            self.must(switch.ip(&bridge).and_then(|_| switch.ip(&["link", "set", "br1", "up"])));
        }
        let [_, x, y, number] = self.address.octets();
        let address = Ipv4Addr::new(172, 16 + x % 16, y, number);
        let (inside, port) = (self.namespace.name(), self.second_port());
        let veth = ["link", "add", &port, "type", "veth", "peer", "name", "eth1", "netns", inside];
        self.must(
            switch
                .ip(&veth)
                .and_then(|_| switch.ip(&["link", "set", &port, "master", "br1", "up"]))
                .and_then(|_| {
                    let address = format!("{address}/24");
                    self.namespace.ip(&["address", "add", &address, "dev", "eth1"])
                })
                .and_then(|_| self.namespace.ip(&["link", "set", "eth1", "up"])),
        );
        address
    }

    /// Pulls the second cable (`false`) or plugs it back in (`true`).
    pub fn second_cable(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        self.must(self.switch.ip(&["link", "set", &self.second_port(), state]));
    }

    fn second_port(&self) -> String {
        format!("{}b", self.port)
    }

    /// Runs `ip` on the links, addresses and routes of the host.
    pub fn ip(&self, args: &[&str]) -> String {
        self.must(self.namespace.ip(args))
    }

    /// Loses this share of the arriving packets, from 0 to 1.
    pub fn drop_input(&self, probability: f64) {
        let share = format!("{:.6}", probability.clamp(0.0, 1.0));
        let mode = ["-m", "statistic", "--mode", "random", "--probability", &share];
        self.filter("iptables", &[&["-A", "INPUT", "-i", "eth0"], &mode[..], DROP].concat());
    }

    /// Discards what arrives from `other`. For a partition, block on both sides.
    pub fn block_from(&self, other: &Self) {
        let from = other.address.to_string();
        self.filter("iptables", &[&["-A", "INPUT", "-i", "eth0", "-s", &from], DROP].concat());
    }

    /// Discards multicast in both directions, as many wireless networks do.
    pub fn block_multicast(&self) {
        for direction in [["OUTPUT", "-o"], ["INPUT", "-i"]] {
            let [chain, side] = direction;
            let rule = |group| [&["-A", chain, side, "eth0", "-d", group], DROP].concat();
            self.filter("iptables", &rule("224.0.0.0/4"));
            if has_ipv6() {
                // Only the mDNS group: without the others IPv6 does not find its neighbours.
                self.filter("ip6tables", &rule("ff02::fb"));
            }
        }
    }

    /// Undoes every fault: all filters go and the cable is plugged in. Ended programs stay ended.
    pub fn heal(&self) {
        // Without the program there has been no filter.
        if tool::find("iptables").is_some() {
            self.filter("iptables", &["-F"]);
            if has_ipv6() {
                self.filter("ip6tables", &["-F"]);
            }
        }
        self.cable(true);
    }

    /// The programs that run on this host now.
    pub fn pids(&self) -> Vec<u32> {
        self.must(self.namespace.pids())
    }

    /// Ends every program with SIGKILL and returns when they are gone. The kernel still says
    /// good-bye for them (TCP resets): for a host that dies without a word see
    /// [`lose_power`](Self::lose_power).
    pub fn kill_all(&self) {
        self.must(self.namespace.empty());
    }

    /// The host dies: nothing leaves it any more, and its programs are gone.
    pub fn lose_power(&self) {
        self.cable(false);
        self.kill_all();
    }

    fn filter(&self, program: &'static str, args: &[&str]) {
        if tool::find(program).is_none() {
            let why = Unavailable::ToolMissing { tool: program, package: "iptables" };
            panic!("host {}: a filter is needed: {why}", self.name);
        }
        // `-w`: two labs may be at the kernel's tables at the same time.
        self.must(tool::output(self.namespace.command(program).args(["-w", "5"]).args(args)));
    }

    fn must<T>(&self, outcome: Result<T, String>) -> T {
        outcome.unwrap_or_else(|cause| panic!("host {}: {cause}", self.name))
    }
}

/// What becomes of a packet a rule applies to.
const DROP: &[&str] = &["-j", "DROP"];

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
