//! Hosts with more addresses than lead anywhere, with two cables, and with a cable that was out for long.

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use layercake_lab::{Host, Program, eventually};
use support::{Folders, SOON, let_pass, machine::Machine, machine::join};

/// What is promised, and what a machine that is busy with other things may take.
const BUSY: Duration = Duration::from_secs(3);

fn available(line: &str) -> bool {
    line.starts_with("available")
}

/// By then a cable that was pulled has been noticed.
const NOTICED: Duration = Duration::from_secs(2);

/// How many sockets of a host are connected to another by QUIC cannot be asked of the kernel: so the
/// log of the links is counted, by the node at the other end.
fn links(program: &Program) -> usize {
    program.lines().iter().filter(|line| line.text.contains("linked to a host directory")).count()
}

/// Gives each host nine addresses from which nothing ever comes back to the others, in front of the one
/// that works.
fn black_holes(hosts: &[&Host]) {
    let address = |net: usize, last: usize| format!("10.0.{net}.{last}");
    for (net, on) in hosts.iter().enumerate() {
        let real = format!("{}/24", on.address());
        on.ip(&["address", "del", &real, "dev", "eth0"]);
        for last in 1..=9 {
            on.ip(&["address", "add", &format!("{}/32", address(net, last)), "dev", "eth0"]);
        }
        on.ip(&["address", "add", &real, "dev", "eth0"]);
        on.ip(&["route", "replace", "default", "dev", "eth0", "src", &on.address().to_string()]);
    }
    // A neighbour that no longer exists: packets leave and nobody takes them.
    for (own, from) in hosts.iter().enumerate() {
        for net in (0..hosts.len()).filter(|net| *net != own) {
            for last in 1..=9 {
                let gone = address(net, last);
                let neighbour = ["neigh", "replace", &gone, "lladdr", "02:00:00:00:00:99"];
                from.ip(&[&neighbour[..], &["dev", "eth0", "nud", "permanent"]].concat());
                let ping = from.command("ping").args(["-c1", "-W0.05", &gone]).output();
                assert!(!ping.expect("it is there").status.success(), "{gone} is a black hole");
            }
        }
    }
}

#[test]
fn nine_dead_addresses_of_ten_cost_nothing() {
    let Some(lab) = layercake_lab::lab!("blackholes") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let host = a.start(&["host"]);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    host.signal(15);
    host.wait_end(SOON);
    black_holes(&[&a.host, &b.host]);

    let _host = a.start(&["host"]);
    let view = a.start(&["ls", "--watch", "--json", "textures:worker"]);
    _host.wait_line(|line| line.starts_with("ready: "), SOON);
    let gateway = a.start(&["demo", "gateway"]);
    eventually(SOON, "a gateway that listens", || (a.get().0 == 503).then_some(()));
    let host = b.start(&["host"]);
    let (ready, _) = host.wait_line(|line| line.starts_with("ready: "), SOON);
    eventually(SOON, "each other", || {
        let hosts = b.run(&["ls", "--json", ".*"]);
        // Nothing is published yet: what counts is that the next line comes.
        hosts.is_empty().then_some(())
    });
    println!("a directory with ten addresses was asked after {:?}", ready.elapsed());
    let started = Instant::now();
    let _worker = b.start(&["demo", "worker", "--workers", "1"]);
    let (seen, line) = view.wait_line(|line| line.contains("available"), SOON);
    let (served, _) = gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    println!(
        "a worker seen {:?} and usable {:?} after its start",
        seen - started,
        served - started
    );
    let record: serde_json::Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(record["host"], b.id().as_str());
    assert!(served - started < BUSY, "{:?}", served - started);
    let asked = Instant::now();
    assert_eq!(a.get().0, 200);
    assert!(asked.elapsed() < BUSY, "{:?}", asked.elapsed());
}

#[test]
fn hosts_that_only_hear_of_each_other_find_the_one_address_of_ten_that_works() {
    let Some(lab) = layercake_lab::lab!("hearsay") else { return };
    let folders = Folders::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| Machine::new(&lab, &folders, name));
    let host = a.start(&["host"]);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b, &c]);
    black_holes(&[&b.host, &c.host]);
    // No multicast: b and c know of a and of nobody else.
    let seed = a.host.address().to_string();
    let start = |machine: &Machine, arguments: &[&str]| {
        let arguments = [arguments, &["--seed", &seed]].concat();
        let mut command = machine.command(&arguments);
        Program::start(command.env("LAYERCAKE_DISCOVERY", "seeds"))
    };
    let view = start(&b, &["ls", "--watch", "textures:worker"]);
    let started = Instant::now();
    let _worker = start(&c, &["demo", "worker", "--workers", "1"]);
    let (seen, _) = view.wait_line(available, SOON);
    println!("seen by who only heard of it after {:?}", seen - started);
    assert!(seen - started < BUSY, "{:?}", seen - started);
}

#[test]
fn two_cables_between_two_hosts_are_one_link_that_outlives_either() {
    let Some(lab) = layercake_lab::lab!("multihomed") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    for machine in [&a, &b] {
        machine.host.plug_in_second();
    }
    let mut command = a.command(&["host"]);
    let host = Program::start(command.env("LAYERCAKE_LOG", "info"));
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    let view = a.start(&["ls", "--watch", "textures:worker"]);
    let worker = b.start(&["demo", "worker", "--workers", "1"]);
    view.wait_line(available, SOON);
    // Both cables bring announcements all the time; more links would have been made by then.
    let_pass(Duration::from_secs(2));
    assert_eq!(links(&host), 1, "{:?}", host.lines());

    for pull in [|m: &Machine, up| m.host.cable(up), |m: &Machine, up| m.host.second_cable(up)] {
        let pulled = Instant::now();
        pull(&b, false);
        // If the link was on that cable it is made again on the other one: with or without a gap in
        // view, the worker is there when a failure would have been noticed, and answers.
        eventually(SOON, "the worker, by the other cable", || {
            let answers = a.command(&["ping", &b.id(), "-c", "1"]).output().expect("it starts");
            let there = answers.status.success() && a.hosts_of("textures:worker") == [b.id()];
            (there && pulled.elapsed() > NOTICED).then_some(())
        });
        println!("one cable out: in view, and answering, {:?} later", pulled.elapsed());
        pull(&b, true);
    }
    drop(worker);
}

#[test]
fn a_cable_that_was_out_for_long_is_found_at_once_when_it_is_back() {
    let Some(lab) = layercake_lab::lab!("longout") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let host = a.start(&["host"]);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    let view = a.start(&["ls", "--watch", "textures:worker"]);
    let _worker = b.start(&["demo", "worker", "--workers", "1"]);
    view.wait_line(available, SOON);
    // Not the cable but the interface itself: its addresses and routes go with it.
    let address = format!("{}/24", b.host.address());
    b.host.ip(&["link", "set", "eth0", "down"]);
    view.wait_line(|line| line.starts_with("dropped"), SOON);
    let seconds = std::env::var("LAYERCAKE_OUT_SECONDS").ok().and_then(|text| text.parse().ok());
    // So long that nobody tries often any more.
    let_pass(Duration::from_secs(seconds.unwrap_or(15)));
    let back = Instant::now();
    b.host.ip(&["link", "set", "eth0", "up"]);
    b.host.ip(&["address", "replace", &address, "dev", "eth0"]);
    b.host.ip(&["route", "replace", "default", "dev", "eth0"]);
    let (seen, _) = view.wait_line_since(back, available, SOON);
    println!("back in view after {:?}", seen - back);
    assert!(seen - back < BUSY, "{:?}", seen - back);
}

#[test]
fn a_lan_without_ipv4_will_do_and_an_interface_that_is_left_out_is_not_used() {
    let Some(lab) = layercake_lab::lab!("ipv6") else { return };
    if !fs::exists("/proc/sys/net/ipv6").unwrap_or_default() {
        println!("SKIPPED: this kernel has no IPv6");
        return;
    }
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let host = a.start(&["host"]);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    host.signal(15);
    host.wait_end(SOON);
    // What each remembers of the other would be IPv4.
    for (machine, last) in [(&a, 1), (&b, 2)] {
        let _ = fs::remove_file(machine.mesh.join("peers.json"));
        let address = format!("fd00:1a::{last}/64");
        machine.host.ip(&["address", "add", &address, "dev", "eth0", "nodad"]);
        machine.host.ip(&["-4", "address", "flush", "dev", "eth0"]);
    }
    let _host = a.start(&["host"]);
    _host.wait_line(|line| line.starts_with("ready: "), SOON);
    let view = a.start(&["ls", "--watch", "textures:worker"]);
    let started = Instant::now();
    let worker = b.start(&["demo", "worker", "--workers", "1"]);
    let (seen, _) = view.wait_line(available, SOON);
    println!("seen by IPv6 alone after {:?}", seen - started);
    worker.signal(15);
    let (gone, _) = view.wait_line(|line| line.starts_with("dropped"), SOON);
    worker.wait_end(SOON);

    // Told to stay off that interface, nobody hears of it.
    let _ = fs::remove_file(b.mesh.join("peers.json"));
    let mut command = b.command(&["host"]);
    let quiet = Program::start(
        command.env("LAYERCAKE_INTERFACES", "!eth0").env("LAYERCAKE_DISCOVERY", "mdns"),
    );
    quiet.wait_line(|line| line.contains("no network interface is up"), SOON);
    assert!(view.lines().iter().all(|line| line.at <= gone), "{:?}", view.lines());
}
