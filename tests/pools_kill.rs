//! A pool of processes whose workers are killed one after the other under load: nothing is lost that may be
//! repeated, and of everything else it is known whether it may have run.
//!
//! The suite does it for a few seconds; `cargo xtask soak pools-kill` for longer.

mod support;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rand::seq::IndexedRandom;
use support::{
    Folders, built,
    crew::{Load, Report, logs},
    kill_9, length, let_pass, of_mesh, workers_of,
};

/// Kills a worker every second while a pool of four is under load.
fn killed_under_load(folders: &Folders, logs: &Path, kind: &str) -> Report {
    let mesh = folders.mesh(kind);
    let arguments = ["load", "processes", "4", "16", kind];
    let mut command = of_mesh(Command::new(built("crew")), &mesh, &arguments);
    let load = Load::start(command.env("CREW_LOG", logs));
    let end = Instant::now() + length(6);
    let mut killed = 0;
    while Instant::now() < end {
        // A pool that is killed faster than it starts workers is another story.
        let_pass(Duration::from_secs(1));
        let alive = workers_of(&mesh, None);
        if let Some(victim) = alive.choose(&mut rand::rng()) {
            kill_9(*victim);
            killed += 1;
        }
    }
    assert!(killed >= 3, "there was somebody to be killed");
    println!("{kind}: {killed} killed");
    load.end(logs)
}

#[test]
fn what_may_be_repeated_never_fails() {
    let folders = Folders::new();
    let logs = logs(&folders);
    let report = killed_under_load(&folders, &logs, "again");
    assert_eq!(report.judge(&logs, false), 0, "{:?}", report.failed);
    assert_eq!(report.late, 0);
}

#[test]
fn of_what_must_not_be_repeated_it_is_known_whether_it_may_have_run() {
    let folders = Folders::new();
    let logs = logs(&folders);
    let report = killed_under_load(&folders, &logs, "once");
    report.judge(&logs, true);
    assert!(report.failed.iter().all(|failed| failed.may_have_run), "{:?}", report.failed);
    assert_eq!(report.late, 0);
}
