//! The process that embeds a host's directory is killed while other hosts use what it offers.

mod support;

use std::time::Instant;

use layercake_lab::eventually;
use support::{Folders, SOON, machine::Machine, machine::join, run};

#[test]
fn names_outlive_the_process_that_served_them_and_no_request_fails() {
    let Some(lab) = layercake_lab::lab!("takeover") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let gateway = a.start(&["demo", "gateway"]);
    eventually(SOON, "a gateway that listens", || (a.get().0 == 503).then_some(()));
    join(&a, &[&b]);
    // The first on its host: this one embeds the directory.
    let first = b.start(&["host"]);
    first.wait_line(|line| line.starts_with("ready: "), SOON);
    let _workers = b.start(&["demo", "worker", "--workers", "2"]);
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    let view = a.start(&["ls", "--watch", "textures:worker"]);
    eventually(SOON, "both workers in view", || (view.lines().len() == 2).then_some(()));

    first.signal(9);
    first.wait_end(SOON);
    let killed = Instant::now();
    // Whoever starts now on that host is told of by its new directory.
    let more = b.start(&["demo", "worker", "--workers", "1"]);
    let mut asked = 0;
    let seen = eventually(SOON, "the new worker, by way of the new directory", || {
        let (status, body) = a.get();
        assert_eq!(status, 200, "links between surviving nodes stay: {body}");
        asked += 1;
        (view.lines().len() >= 3).then(|| killed.elapsed())
    });
    println!(
        "a name published after the kill is seen elsewhere after {seen:?}; {asked} requests meanwhile"
    );
    assert!(view.lines().iter().all(|line| !line.text.contains("dropped")), "{:?}", view.lines());
    let (ok, names, err) = run(a.command(&["ls", "--json"]));
    assert!(ok, "{err}");
    assert_eq!(names.lines().count(), 3, "{names}");
    drop(more);
}
