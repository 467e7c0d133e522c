//! A network that carries no multicast: one seed is enough, and then not even that.

mod support;

use std::time::Instant;

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, machine::Machine, machine::join};

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
    let mut worker = b.command(&["demo", "worker", "--workers", "1"]);
    let worker = Program::start(worker.env("LAYERCAKE_SEEDS", seed));
    let (first, _) = view.wait_line(|line| line.starts_with("available"), SOON);
    println!("found by its seed after {:?}", first - started);
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
}
