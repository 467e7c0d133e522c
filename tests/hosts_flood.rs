//! Somebody on the network floods it with forged announcements. Those who are linked do not notice, those
//! who are known find each other again, and nobody is made to dial or to remember without bound.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, built, let_pass, machine::Machine, machine::join, resident};

/// Datagrams that a host has sent.
fn sent(machine: &Machine) -> u64 {
    let output = machine.host.command("cat").arg("/proc/net/snmp").output().expect("cat is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names: Vec<_> = lines.next().expect("names").split_whitespace().collect();
    let values: Vec<_> = lines.next().expect("values").split_whitespace().collect();
    let at = names.iter().position(|name| *name == "OutDatagrams").expect("a counter");
    values[at].parse().expect("a number")
}

/// What a program has in memory, in bytes.
fn memory(program: &Program) -> u64 {
    resident(program.pid()) * 1024
}

#[test]
fn a_flood_of_forged_announcements_does_no_harm() {
    let Some(lab) = layercake_lab::lab!("flood") else { return };
    let flood = built("flood");
    assert!(flood.exists(), "`cargo build --examples` makes it");
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let evil = lab.host("evil");
    let host = a.start(&["host"]);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    let view = a.start(&["ls", "--watch", "textures:worker"]);
    let worker = b.start(&["demo", "worker", "--workers", "1"]);
    view.wait_line(|line| line.starts_with("available"), SOON);
    let facts: serde_json::Value =
        serde_json::from_str(&a.run(&["mesh", "show", "--json"])).expect("facts");
    let mesh = facts["fingerprint"].as_str().expect("a fingerprint")[..16].to_owned();

    let before = memory(&host);
    let b_id = b.id();
    // The host that is linked is claimed to be elsewhere, too.
    let forge = |seconds, rate| {
        let arguments = [&*mesh, &b_id, seconds, rate];
        let forger = Program::start(evil.command(&flood.display().to_string()).args(arguments));
        forger.wait_line(|line| line == "flooding", SOON);
        forger
    };
    let watch = |what: &str| {
        let (began, at_first) = (Instant::now(), sent(&a));
        let_pass(Duration::from_secs(5));
        let rate = (sent(&a) - at_first) as f64 / began.elapsed().as_secs_f64();
        let grown = memory(&host).saturating_sub(before);
        println!("{what}: {rate:.0} datagrams a second sent, {} MiB more memory", grown >> 20);
        // Eight attempts of five packets each in three seconds, and the life of the link.
        assert!(rate < 500.0, "{rate}");
        assert!(grown < 200 << 20, "{grown}");
        assert_eq!(view.lines().len(), 1, "who is linked does not notice: {:?}", view.lines());
    };
    // So few that all are believed as far as anything is.
    let forger = forge("6", "200");
    watch("200 a second");
    forger.wait_end(SOON);
    let forger = forge("25", "3000");
    // How soon it is noticed depends on how busy the machine is; what counts is that it is.
    let (_, told) = host.wait_line(|line| line.contains("floods this network"), SOON);
    println!("{told}");
    watch("3000 a second");

    // The known host goes, and comes back in the middle of it.
    worker.signal(15);
    view.wait_line(|line| line.starts_with("dropped"), SOON);
    worker.wait_end(SOON);
    let again = Instant::now();
    let _again = b.start(&["demo", "worker", "--workers", "1"]);
    eventually(SOON, "the worker again", || {
        let available = |line: &&layercake_lab::Line| line.text.starts_with("available");
        (view.lines().iter().filter(available).count() == 2).then_some(())
    });
    println!("a known host is back after {:?}", again.elapsed());
    assert!(again.elapsed() < Duration::from_secs(5), "{:?}", again.elapsed());
    assert!(forger.ended().is_none(), "all this was during the flood");
    forger.wait_end(SOON * 2);
    let left = memory(&host).saturating_sub(before);
    println!("after the flood: {} MiB more memory than before", left >> 20);
}
