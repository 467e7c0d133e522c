//! Three hosts that find each other in etcd, on a fourth: no multicast, no seed, no gossip. The same
//! story as with gossip, and what becomes of it when etcd is cut off, killed and started again.
//!
//! Needs `etcd` (Debian's `etcd-server`; `cargo xtask setup` installs it); without it the test says so
//! and does nothing. Every promise about time is checked with slack for a busy machine; the figure is
//! printed.

mod support;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use layercake_lab::{Host, Lab, Program, eventually};
use support::{Folders, SOON, kill_9, machine::Machine, machine::gateway_and_workers, workers_of};

/// The time to live of a host's lease.
const TTL: Duration = Duration::from_secs(3);

/// An etcd on a host of its own.
struct Etcd {
    host: Host,
    data: tempfile::TempDir,
}

impl Etcd {
    fn new(lab: &Lab) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: no etcd here; `cargo xtask setup` as root installs etcd-server");
            return None;
        }
        let host = lab.host("etcd");
        Some(Self { host, data: tempfile::tempdir().expect("a folder") })
    }

    fn url(&self) -> String {
        format!("http://{}:2379", self.host.address())
    }

    fn start(&self) -> Program {
        let mut command = self.host.command("etcd");
        let (client, peer) = (self.url(), "http://127.0.0.1:2380");
        command
            .args(["--name", "test", "--log-level", "error", "--data-dir"])
            .arg(self.data.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("test={peer}")]);
        let program = Program::start(&mut command);
        eventually(SOON, "an etcd that answers", || {
            let mut curl = self.host.command("curl");
            let url = format!("{client}/v3/kv/range");
            curl.args(["-sf", "-m", "5", "-o", "/dev/null", "-d", r#"{"key":"YQ=="}"#, &url]);
            curl.status().is_ok_and(|status| status.success()).then_some(())
        });
        program
    }
}

/// The program of `tests/programs/crown.rs` on a host.
fn crown(machine: &Machine) -> Program {
    Program::start(&mut machine.program("crown", &[]))
}

fn fence(line: &str) -> u64 {
    line.strip_prefix("held ").and_then(|number| number.parse().ok()).expect("a number")
}

fn held(line: &str) -> bool {
    line.starts_with("held ")
}

fn of<'a>(event: &'a str, host: &'a str, reason: &'a str) -> impl Fn(&str) -> bool + 'a {
    move |line| line.contains(event) && line.contains(host) && line.contains(reason)
}

#[test]
fn hosts_meet_in_etcd_and_the_story_is_the_same() {
    let Some(lab) = layercake_lab::lab!("etcd") else { return };
    let Some(etcd) = Etcd::new(&lab) else { return };
    let folders = Folders::new();
    let server = etcd.start();
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let machine = Machine::new(&lab, &folders, name);
        machine.host.block_multicast();
        machine.with_env(&[
            ("LAYERCAKE_DIRECTORY", "etcd"),
            ("LAYERCAKE_ETCD", &etcd.url()),
            ("LAYERCAKE_ETCD_TTL", &TTL.as_secs().to_string()),
        ])
    });
    let _running = gateway_and_workers(&a, [&b, &c]);
    let (b_id, c_id) = (b.id(), c.id());
    assert_eq!(a.get().0, 200);
    let view = a.start(&["ls", "--watch", "--json", "textures:worker"]);
    eventually(SOON, "a full view", || (view.lines().len() == 4).then_some(()));

    // A process dies.
    let victim = workers_of(&b.mesh, Some(&b.host.pids()))[0];
    let killed = Instant::now();
    kill_9(victim);
    let (at, _) = view.wait_line_since(killed, of("\"dropped\"", &b_id, "died"), SOON);
    println!("process killed: dropped elsewhere after {:?}", at - killed);
    assert!(at - killed < Duration::from_millis(500), "{:?}", at - killed);
    view.wait_line_since(killed, of("\"available\"", &b_id, ""), SOON);

    // One crown, and an heir.
    let first = crown(&b);
    let (_, line) = first.wait_line(held, SOON);
    let old = fence(&line);
    let heir = crown(&c);
    let (_, line) = heir.wait_line(|line| line.starts_with("refused"), SOON);
    assert!(line.contains(&b_id[..4]), "{line}");
    let killed = Instant::now();
    first.signal(9);
    let (at, line) = heir.wait_line_since(killed, held, SOON);
    println!("holder killed: handed over after {:?}", at - killed);
    assert!(at - killed < Duration::from_secs(2), "{:?}", at - killed);
    let new = fence(&line);
    assert!(new > old, "{new} after {old}");

    // The holder's host loses etcd: it is told before the next one gets it.
    let next = crown(&a);
    next.wait_line(|line| line.starts_with("refused"), SOON);
    let cut = Instant::now();
    etcd.host.block_from(&c.host);
    let (told, _) = heir.wait_line_since(cut, |line| line == "lost", SOON);
    let (taken, line) = next.wait_line_since(cut, held, SOON);
    println!("cut off from etcd: told after {:?}, next holder after {:?}", told - cut, taken - cut);
    assert!(told < taken && told - cut < TTL, "{:?}, {:?}", told - cut, taken - cut);
    assert!(fence(&line) > new);
    let (at, _) = view.wait_line_since(cut, of("\"dropped\"", &c_id, "host"), SOON);
    println!("its other names dropped elsewhere after {:?}", at - cut);
    // It goes on with what it knew, and is back at once.
    assert_eq!(c.hosts_of("textures:worker").len(), 4);
    etcd.host.heal();
    let healed = Instant::now();
    let (at, _) = view.wait_line_since(healed, of("\"available\"", &c_id, ""), SOON);
    println!("etcd reached again: back after {:?}", at - healed);

    // etcd is killed, and comes back with its data: nothing is dropped, and nothing is missed.
    eventually(SOON, "all four again", || (a.hosts_of("textures:worker").len() == 4).then_some(()));
    let killed = Instant::now();
    server.signal(9);
    server.wait_end(SOON);
    assert_eq!(a.get().0, 200, "links do not need etcd");
    let _server = etcd.start();
    let back = Instant::now();
    println!("etcd killed and answering again after {:?}", back - killed);
    let _more = b.start(&["demo", "worker", "--workers", "1"]);
    let (at, _) = view.wait_line_since(back, of("\"available\"", &b_id, ""), SOON);
    println!("a new name is known {:?} after etcd's return", at - back);
    let since = |line: &&layercake_lab::Line| line.at > killed;
    let lines = view.lines();
    let dropped = lines.iter().filter(since).find(|line| line.text.contains("\"dropped\""));
    assert!(dropped.is_none(), "{dropped:?}");

    // A host dies: gone when its lease is.
    let lost = Instant::now();
    b.host.lose_power();
    let (at, _) = view.wait_line_since(lost, of("\"dropped\"", &b_id, "host"), SOON);
    println!("power lost: dropped after {:?}", at - lost);
    assert!(at - lost < TTL + Duration::from_secs(3), "{:?}", at - lost);
    eventually(SOON, "answers from the other host", || {
        (0..5).all(|_| a.get().0 == 200).then_some(())
    });
}
