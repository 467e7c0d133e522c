//! Any mDNS browser sees the hosts of a mesh while they are there: here Avahi's, on a host that knows
//! nothing of layer-cake.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::{Host, Program, eventually};
use support::{Folders, SOON, machine::Machine, machine::join, run};

/// Starts Avahi with a message bus of its own: it needs one, and everything of it is within the host.
const AVAHI: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/avahi-daemon
cat > /run/bus.conf <<EOC
<busconfig>
  <type>session</type>
  <listen>unix:path=$BUS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/>
  </policy>
</busconfig>
EOC
cat > /run/avahi.conf <<EOC
[server]
use-ipv4=yes
use-ipv6=yes
allow-interfaces=eth0
enable-dbus=yes
[publish]
disable-publishing=yes
EOC
dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile &
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -S "$BUS" ] && break; sleep 0.1; done
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$BUS
exec avahi-daemon --no-drop-root --no-chroot --no-rlimits --no-proc-title -f /run/avahi.conf
"#;

struct Browser<'a> {
    host: &'a Host,
    bus: String,
    _daemon: Program,
}

impl<'a> Browser<'a> {
    /// None where Avahi is not installed.
    fn start(host: &'a Host, folder: &std::path::Path) -> Option<Self> {
        for tool in ["avahi-daemon", "avahi-browse", "dbus-daemon"] {
            let found = host.command("sh").args(["-c", &format!("command -v {tool}")]).output();
            if !found.is_ok_and(|found| found.status.success()) {
                println!("SKIPPED: `{tool}` is not installed: run `cargo xtask setup`");
                return None;
            }
        }
        let bus = folder.join("bus.sock").display().to_string();
        let mut command = host.command("sh");
        command.args(["-c", AVAHI]).env("BUS", &bus);
        let daemon = Program::start(&mut command);
        daemon.wait_line(|line| line.contains("Server startup complete"), SOON);
        Some(Self { host, bus, _daemon: daemon })
    }

    fn command(&self, options: &str) -> std::process::Command {
        let mut command = self.host.command("avahi-browse");
        command.args([options, "_layercake._udp"]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.bus));
        command
    }

    /// `avahi-browse -rt _layercake._udp`: what is there, in lines for machines.
    fn all(&self) -> Vec<String> {
        let (ok, out, err) = run(self.command("-rtp"));
        assert!(ok, "avahi-browse: {err}");
        out.lines().filter(|line| line.starts_with('=')).map(str::to_owned).collect()
    }
}

#[test]
fn avahi_sees_each_host_and_sees_it_leave() {
    let Some(lab) = layercake_lab::lab!("browse") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let looker = lab.host("looker");
    let place = tempfile::tempdir().expect("a folder");
    let Some(browser) = Browser::start(&looker, place.path()) else { return };

    let first = a.start(&["host"]);
    first.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    let second = b.start(&["host"]);
    second.wait_line(|line| line.starts_with("ready: "), SOON);
    let (a_id, b_id) = (a.id(), b.id());
    eventually(SOON, "both hosts in Avahi's list", || {
        let all = browser.all();
        let seen = |machine: &Machine, id: &str| {
            let address = machine.host.address().to_string();
            let of = |line: &&String| line.contains(id) && line.contains(&address);
            all.iter().any(|line| of(&line))
        };
        (seen(&a, &a_id) && seen(&b, &b_id)).then_some(())
    });
    for line in browser.all() {
        println!("{line}");
        // interface;protocol;name;type;domain;host;address;port;text
        let fields: Vec<_> = line.split(';').collect();
        assert_eq!(fields[4], "_layercake._udp", "{line}");
        assert!(fields[8].parse::<u16>().is_ok_and(|port| port == 54195), "{line}");
        assert!(!fields[7].starts_with("127."), "{line}");
        assert!(fields[9].contains("mesh=") && fields[9].contains("host="), "{line}");
    }

    let watch = Program::start(&mut browser.command("-rp"));
    let gone = |line: &str| line.starts_with('-') && line.contains("IPv4");
    watch.wait_line(|line| line.contains(&b_id), SOON);
    let stopped = Instant::now();
    second.signal(15);
    let (_, status) = second.wait_end(SOON);
    assert!(status.success(), "{:?}", second.lines());
    let ended = stopped.elapsed();
    let (at, _) = watch.wait_line_since(stopped, gone, SOON);
    println!("stopped after {ended:?}, gone from the list after {:?}", at - stopped);
    // A goodbye leaves the list a second after it was said.
    assert!(at - stopped < Duration::from_secs(3), "{:?}", at - stopped);
    // By both protocols.
    eventually(SOON, "a list without the host that stopped", || {
        let left = browser.all();
        assert!(left.iter().any(|line| line.contains(&a_id)), "{left:?}");
        (!left.iter().any(|line| line.contains(&b_id))).then_some(())
    });
    println!("no trace of it after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
}
