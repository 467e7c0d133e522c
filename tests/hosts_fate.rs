//! How an actor of another host ended, told to whoever asks it or watches it.
//!
//! Every promise about time is checked with slack for a busy machine; the figure is printed.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::Program;
use support::{
    Folders, SOON, kill_9,
    machine::{Machine, join},
};

/// What takes some milliseconds.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The program of `tests/programs/fate.rs` on a host.
fn fate(machine: &Machine, role: &str) -> Program {
    Program::start(&mut machine.program("fate", &[role]))
}

/// Two hosts of one mesh, on each of which `layer-cake host` runs.
fn two_hosts(lab: &layercake_lab::Lab, folders: &Folders) -> ([Machine; 2], Vec<Program>) {
    let machines = ["a", "b"].map(|name| Machine::new(lab, folders, name));
    let first = machines[0].start(&["host"]);
    join(&machines[0], &[&machines[1]]);
    let second = machines[1].start(&["host"]);
    (machines, vec![first, second])
}

/// An actor on the first host that is in the middle of an ask by the second.
fn mid_ask(machines: &[Machine; 2]) -> (Program, Program) {
    let serving = fate(&machines[0], "serve");
    serving.wait_line(|line| line == "ready", SOON);
    let asking = fate(&machines[1], "ask");
    asking.wait_line(|line| line == "linked", SOON);
    serving.wait_line(|line| line == "asleep", SOON);
    (serving, asking)
}

#[test]
fn a_killed_process_is_known_to_be_dead_on_another_host_within_a_tenth_of_a_second() {
    let Some(lab) = layercake_lab::lab!("fate") else { return };
    let folders = Folders::new();
    let (machines, _directories) = two_hosts(&lab, &folders);
    for round in 1..=3 {
        let (serving, asking) = mid_ask(&machines);
        let killed = Instant::now();
        kill_9(serving.pid());
        for (what, wanted) in
            [("asked: ", "Lost"), ("watched: ", "ProcessDied"), ("again: ", "Stopped")]
        {
            let told = |line: &str| line.starts_with(what);
            let (at, line) = asking.wait_line_since(killed, told, SOON);
            println!("round {round}, killed: after {:?}, {line}", at - killed);
            assert!(line.strip_prefix(what).is_some_and(|rest| rest.starts_with(wanted)), "{line}");
            assert!(at - killed < AT_ONCE, "{:?}", at - killed);
        }
        let (_, status) = asking.wait_end(SOON);
        assert!(status.success(), "{:?}", asking.lines());
    }
}

#[test]
fn who_leaves_and_whose_host_is_lost_is_told_apart() {
    let Some(lab) = layercake_lab::lab!("left") else { return };
    let folders = Folders::new();
    let (machines, _directories) = two_hosts(&lab, &folders);
    let watched = |asking: &Program, since| {
        let told = |line: &str| line.starts_with("watched: ");
        let (at, line) = asking.wait_line_since(since, told, SOON);
        println!("after {:?}, {line}", at - since);
        line
    };

    // Its actor is in the middle of a message that never ends: it is not said when that is given up.
    let (serving, asking) = mid_ask(&machines);
    let asked = Instant::now();
    serving.signal(15);
    let line = watched(&asking, asked);
    assert!(line == "watched: Aborted" || line == "watched: Stopped", "{line}");
    drop((serving, asking));

    let (_serving, asking) = mid_ask(&machines);
    let pulled = Instant::now();
    machines[0].host.cable(false);
    assert_eq!(watched(&asking, pulled), "watched: HostLost");
}
