//! Pools over hosts under load: every worker is replaced, a host is cut off, and what becomes of the
//! requests.
//!
//! The suite does it briefly; `cargo xtask soak pools-roll` and `pools-partition` do it for longer.

mod support;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use layercake_lab::Program;
use support::{
    Folders, SOON,
    crew::{Load, logs, until},
    length, let_pass,
    machine::{Machine, join},
    workers_of,
};

const NAME: &str = "crew:worker";
const TERMINATE: i32 = 15;

impl Crew<'_> {
    fn command(&self, machine: &Machine, arguments: &[&str]) -> Command {
        let mut command = machine.program("crew", arguments);
        command.env("CREW_LOG", self.logs);
        command
    }

    /// Workers on a host.
    fn workers(&self, machine: &Machine, n: &str) -> Program {
        let workers = Program::start(&mut self.command(machine, &["workers", n]));
        workers.wait_line(|line| line == "ready", SOON);
        workers
    }

    fn load(&self, machine: &Machine, kind: &str) -> Load {
        Load::start(&mut self.command(machine, &["load", "hosts", "12", kind]))
    }
}

struct Crew<'a> {
    logs: &'a Path,
}

/// Hosts of one mesh, the directory of the first served by a program of its own.
fn joined(lab: &layercake_lab::Lab, folders: &Folders) -> ([Machine; 3], Program) {
    let machines = ["a", "b", "c"].map(|name| Machine::new(lab, folders, name));
    let [a, b, c] = &machines;
    let host = a.start(&["host"]);
    join(a, &[b, c]);
    (machines, host)
}

fn count(machine: &Machine) -> usize {
    machine.hosts_of(NAME).len()
}

#[test]
fn roll_every_worker_is_replaced_under_load_and_nothing_fails() {
    let Some(lab) = layercake_lab::lab!("roll") else { return };
    let folders = Folders::new();
    let logs = logs(&folders);
    let crew = Crew { logs: &logs };
    let (machines, _host) = joined(&lab, &folders);
    let mut programs: Vec<Program> = machines.iter().map(|m| crew.workers(m, "2")).collect();
    until("six workers in view", || count(&machines[0]) == 6);
    // What must not be repeated: a request that was begun may not be cut off.
    let load = crew.load(&machines[0], "once");
    let end = Instant::now() + length(1);
    let mut replaced = 0;
    loop {
        // One after the other, as a deploy does it that ends each process.
        for machine in &machines {
            for worker in workers_of(&machine.mesh, Some(&machine.host.pids())) {
                let done = Command::new("kill").args([worker.to_string()]).status();
                assert!(done.expect("kill is there").success());
                replaced += 1;
                until("the worker has gone", || !Path::new(&format!("/proc/{worker}")).exists());
                until("its successor is there", || count(&machines[0]) == 6);
            }
        }
        // And as a deploy does it that starts the next release before it ends the last.
        for (machine, program) in machines.iter().zip(&mut programs) {
            let next = crew.workers(machine, "2");
            until("both releases are there", || count(&machines[0]) == 8);
            let last = std::mem::replace(program, next);
            last.signal(TERMINATE);
            let (_, status) = last.wait_end(SOON);
            assert!(status.success(), "{status}: {:?}", last.lines());
            replaced += 2;
            until("the last release has gone", || count(&machines[0]) == 6);
        }
        if Instant::now() > end {
            break;
        }
    }
    println!("{replaced} workers replaced");
    let report = load.end(&logs);
    assert_eq!(report.judge(&logs, true), 0, "{:?}", report.failed);
    assert_eq!(report.late, 0);
}

/// Cuts a host off for so long while it is under load, and returns how many requests it had.
fn cut_off(crew: &Crew<'_>, machines: &[Machine; 3], kind: &str) -> (usize, support::crew::Report) {
    let [a, b, _] = machines;
    until("four workers in view", || count(a) == 4);
    let load = crew.load(a, kind);
    let id = b.id();
    // The pool spreads requests by what it has seen of its workers: that is to be something.
    let_pass(Duration::from_secs(2));
    b.host.cable(false);
    let pulled = Instant::now();
    // What was on its way when the cable was pulled is counted, too: until the number stays.
    let (mut had, mut same) = (0, 0);
    until("what it has in hand", || {
        let now = load.in_flight(&id[..4]);
        same = if now == had { same + 1 } else { 0 };
        had = now;
        same == 10
    });
    until("the host is lost", || count(a) == 2);
    println!("cut off: noticed after {:?}, it had {had} requests", pulled.elapsed());
    // The cut is to last.
    let_pass(length(4).saturating_sub(pulled.elapsed()));
    b.host.cable(true);
    until("four workers in view again", || count(a) == 4);
    until("its workers are asked again", || load.in_flight(&id[..4]) > 0);
    (had, load.end(crew.logs))
}

#[test]
fn partition_of_a_host_costs_at_most_what_it_had_in_hand() {
    let Some(lab) = layercake_lab::lab!("cutoff") else { return };
    let folders = Folders::new();
    let logs = logs(&folders);
    let crew = Crew { logs: &logs };
    let (machines, _host) = joined(&lab, &folders);
    let [_, b, c] = &machines;
    let _programs = [b, c].map(|machine| crew.workers(machine, "2"));
    let (_, report) = cut_off(&crew, &machines, "again");
    assert_eq!(report.judge(&logs, false), 0, "{:?}", report.failed);
    assert_eq!(report.late, 0);
    for log in std::fs::read_dir(&logs).expect("a folder").flatten() {
        // The workers live on, and go on writing there.
        std::fs::File::create(log.path()).expect("it can be emptied");
    }
    let (had, report) = cut_off(&crew, &machines, "once");
    let failed = report.judge(&logs, true);
    assert!(failed <= had, "{failed} failed, and {had} were in hand: {:?}", report.failed);
}
