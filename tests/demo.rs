//! The demo on one machine, as a newcomer uses it: it answers, refuses, survives and ends.

mod support;

use std::time::Duration;

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, assert_table, curl, kill_9, layer_cake, workers_of};

fn start(folders: &Folders, arguments: &[&str]) -> (Program, String) {
    let mut all = vec!["demo", "--listen", "127.0.0.1:0"];
    all.extend(arguments);
    let demo = Program::start(&mut layer_cake(&folders.mesh("host"), &all));
    let (_, line) = demo.wait_line(|line| line.starts_with("ready: "), SOON);
    (demo, line["ready: ".len()..].to_owned())
}

fn ends_cleanly(demo: &Program, signal: i32) {
    demo.signal(signal);
    let (_, status) = demo.wait_end(SOON);
    assert!(status.success(), "{status}: {:?}", demo.lines());
}

const INTERRUPT: i32 = 2;
const KILL: i32 = 9;
const TERMINATE: i32 = 15;

#[test]
fn a_table_comes_from_every_kind_of_pool() {
    for kind in ["tasks", "threads", "processes", "hosts"] {
        let folders = Folders::new();
        let (demo, url) = start(&folders, &["--pool", kind, "--workers", "2"]);
        let (status, body) = curl(&[&format!("{url}/Xy?x=2&y=2")]);
        assert_eq!(status, 200, "{kind}: {body}");
        assert_table(&body, 2, 2);
        let json = ["-H", "content-type: application/json", "-d", r#"{"x":3,"y":1}"#];
        let (status, body) = curl(&[&json[..], &[&format!("{url}/Xy")]].concat());
        assert_eq!(status, 200, "{kind}: {body}");
        assert_table(&body, 3, 1);
        ends_cleanly(&demo, if kind == "tasks" { INTERRUPT } else { TERMINATE });
    }
}

#[test]
fn bad_input_gets_a_clear_answer_and_nothing_is_lost() {
    let folders = Folders::new();
    let (demo, url) = start(&folders, &["--workers", "2"]);
    let xy = format!("{url}/Xy");
    let large = folders.mesh("large.json");
    std::fs::write(&large, vec![b' '; 10_000_000]).expect("a folder to write to");
    let large = format!("@{}", large.display());
    let json = "content-type: application/json";
    let cases: [(&[&str], u16, &str); 8] = [
        (&[&format!("{xy}?x=abc&y=2")], 400, "\"x\""),
        (&[&format!("{xy}?x=-1&y=2")], 400, "\"x\""),
        (&[&format!("{xy}?y=2")], 400, "\"x\""),
        (&[&format!("{xy}?x=99999999999&y=2")], 400, "\"x\""),
        (&[&format!("{url}/Nope")], 404, "Nope"),
        (&["-H", json, "--data-binary", &large, &xy], 413, "1048576"),
        (&["-H", json, "-d", r#"{"x":2,"#, &xy], 400, "JSON"),
        (&["-H", "content-type: text/plain", "-d", "x", &xy], 415, "application/json"),
    ];
    for (arguments, expected, word) in cases {
        let (status, body) = curl(arguments);
        assert_eq!(status, expected, "{arguments:?}: {body}");
        let problem: serde_json::Value = serde_json::from_str(&body).expect(&body);
        assert_eq!(problem["status"], expected, "{body}");
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{body}");
        assert!(body.contains(word), "{arguments:?} names {word}: {body}");
        let (status, body) = curl(&[&format!("{xy}?x=1&y=1")]);
        assert_eq!(status, 200, "after {arguments:?}: {body}");
    }
    let (status, body) = curl(&["-X", "DELETE", "-D", "-", &xy]);
    assert_eq!(status, 405, "{body}");
    assert!(body.to_lowercase().contains("\nallow: "), "{body}");
    for (path, word) in [("healthz", ""), ("readyz", ""), ("metrics", "# TYPE")] {
        let (status, body) = curl(&[&format!("{url}/{path}")]);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains(word), "{path}: {body}");
    }
    ends_cleanly(&demo, TERMINATE);
}

#[test]
fn the_largest_table_passes_and_small_ones_do_not_wait_for_it() {
    let folders = Folders::new();
    let (demo, url) = start(&folders, &["--workers", "2"]);
    let large = std::thread::spawn({
        let url = format!("{url}/Xy?x=1000&y=1000");
        move || curl(&[&url])
    });
    while !large.is_finished() {
        let (status, body) = curl(&[&format!("{url}/Xy?x=1&y=1")]);
        assert_eq!(status, 200, "{body}");
    }
    let (status, body) = large.join().expect("no panic");
    assert_eq!(status, 200, "{}", &body[..body.len().min(500)]);
    assert_table(&body, 1000, 1000);
    ends_cleanly(&demo, TERMINATE);
}

#[test]
fn a_killed_worker_is_replaced_and_no_request_fails() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let (demo, url) = start(&folders, &["--workers", "3"]);
    let before = eventually(SOON, "three workers", || {
        let workers = workers_of(&mesh, None);
        (workers.len() == 3).then_some(workers)
    });
    kill_9(before[0]);
    for _ in 0..20 {
        let (status, body) = curl(&[&format!("{url}/Xy?x=2&y=2")]);
        assert_eq!(status, 200, "the message is idempotent, so another worker gets it: {body}");
    }
    eventually(SOON, "a new third worker", || {
        let workers = workers_of(&mesh, None);
        (workers.len() == 3 && !workers.contains(&before[0])).then_some(())
    });
    ends_cleanly(&demo, TERMINATE);
    eventually(SOON, "no worker left behind", || workers_of(&mesh, None).is_empty().then_some(()));
}

#[test]
fn a_killed_parent_leaves_no_orphan() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let (demo, _) = start(&folders, &["--workers", "3"]);
    eventually(SOON, "three workers", || (workers_of(&mesh, None).len() == 3).then_some(()));
    demo.signal(KILL);
    eventually(Duration::from_secs(3), "no orphan", || {
        workers_of(&mesh, None).is_empty().then_some(())
    });
}

#[test]
fn two_demos_of_one_port_do_not_both_say_ready() {
    let folders = Folders::new();
    let (_first, url) = start(&folders, &["--pool", "tasks"]);
    let address = &url["http://".len()..];
    let arguments = ["demo", "--pool", "tasks", "--listen", address];
    let (ok, out, err) = support::run(layer_cake(&folders.mesh("host"), &arguments));
    assert!(!ok && out.is_empty(), "{out}");
    assert!(err.contains(address), "{err}");
}
