//! A network that carries no multicast: one seed is enough, and then not even that.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, machine::Machine, machine::join};

/// What is promised within three seconds, on a machine that may be busy.
const BUSY: Duration = Duration::from_secs(5);

#[test]
fn where_multicast_is_blocked_a_seed_finds_the_mesh_and_memory_finds_it_again() {
    let Some(lab) = layercake_lab::lab!("seeds") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    for machine in [&a, &b] {
        machine.host.block_multicast();
    }
    let host = a.start(&["host"]);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);
    let view = a.start(&["ls", "--watch"]);

    let started = Instant::now();
    let seed = a.host.address().to_string();
    let worker = b.start(&["demo", "worker", "--workers", "1", "--seed", &seed]);
    let (first, _) = view.wait_line(|line| line.starts_with("available"), SOON);
    println!("found by its seed after {:?}", first - started);
    assert!(first - started < BUSY, "{:?}", first - started);
    worker.signal(15);
    let (left, line) = view.wait_line(|line| line.starts_with("dropped"), SOON);
    assert!(left > first && line.contains("withdrawn"), "{line}");
    worker.wait_end(SOON);

    let again = Instant::now();
    // The host remembers where the others were.
    let _again = b.start(&["demo", "worker", "--workers", "1"]);
    eventually(SOON, "the worker without a seed", || {
        let available = |line: &&layercake_lab::Line| line.text.starts_with("available");
        (view.lines().iter().filter(available).count() == 2).then_some(())
    });
    println!("found by memory after {:?}", again.elapsed());
    assert!(again.elapsed() < BUSY, "{:?}", again.elapsed());
}

#[test]
fn seeds_come_from_a_file_too_and_each_way_can_be_switched_off() {
    let Some(lab) = layercake_lab::lab!("seedsfile") else { return };
    let folders = Folders::new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Machine::new(&lab, &folders, name));
    let with = |machine: &Machine, ways: &str| {
        let mut command = machine.command(&["host"]);
        let host = Program::start(command.env("LAYERCAKE_DISCOVERY", ways));
        host.wait_line(|line| line.starts_with("ready: "), SOON);
        host
    };
    let first = with(&a, "seeds,peers");
    join(&a, &[&b, &c, &d]);
    let view = a.start(&["ls", "--watch"]);
    let host = with(&b, "seeds");
    let _worker = b.start(&["demo", "worker", "--workers", "1"]);
    eventually(SOON, "the worker on its own host", || {
        (b.hosts_of("textures:worker").len() == 1).then_some(())
    });
    // Multicast works here, as who comes later and listens to it sees; these two do not, and have no seed.
    let listening = [&c, &d].map(|machine| with(machine, "mdns"));
    let mut later = d.command(&["demo", "worker", "--workers", "1"]);
    let later = Program::start(later.env("LAYERCAKE_DISCOVERY", "mdns"));
    eventually(SOON, "a worker found by multicast", || {
        (c.hosts_of("textures:worker") == [d.id()]).then_some(())
    });
    assert_eq!(b.hosts_of("textures:worker"), [b.id()]);
    assert_eq!(view.lines().len(), 0, "{:?}", view.lines());
    let written = Instant::now();
    let seeds = format!("# the first host\n{}\n", a.host.address());
    std::fs::write(b.mesh.join("seeds"), seeds).expect("a mesh folder");
    let (seen, _) = view.wait_line(|line| line.starts_with("available"), SOON);
    println!("found by the file after {:?}", seen - written);
    assert!(seen - written < BUSY, "{:?}", seen - written);
    eventually(SOON, "a remembers it", || a.mesh.join("peers.json").exists().then_some(()));
    assert!(!b.mesh.join("peers.json").exists(), "b was told not to remember");
    drop((first, host, listening, later));
}

#[test]
fn a_name_that_stands_for_several_hosts_is_resolved_again() {
    let Some(lab) = layercake_lab::lab!("headless") else { return };
    let folders = Folders::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| Machine::new(&lab, &folders, name));
    for machine in [&a, &b, &c] {
        machine.host.block_multicast();
    }
    // The resolver of a: a file of names that is bound over the system's.
    let names = folders.mesh("names");
    let put = |text: String| std::fs::write(&names, text).expect("a folder for the test");
    put("127.0.0.1 localhost\n".to_owned());
    let bound = format!("mount --bind {} /etc/hosts && exec \"$@\"", names.display());
    let mut plain = support::of_mesh(a.host.command("sh"), &a.mesh, &["-c", &bound, "sh"]);
    let first = Program::start(plain.arg(support::LAYER_CAKE).args(["host", "--seed", "workers"]));
    first.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b, &c]);
    let view = a.start(&["ls", "--watch", "--json", "textures:worker"]);
    let _workers = [&b, &c].map(|m| {
        let mut command = m.command(&["demo", "worker", "--workers", "1"]);
        Program::start(command.env("LAYERCAKE_DISCOVERY", "none"))
    });
    let line = |machine: &Machine| format!("{} workers\n", machine.host.address());
    put(format!("127.0.0.1 localhost\n{}{}", line(&b), line(&c)));
    // Resolved every ten seconds.
    let slow = SOON * 2;
    for id in [b.id(), c.id()] {
        view.wait_line(|line| line.contains("available") && line.contains(&id), slow);
    }
}
