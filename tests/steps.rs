//! The eleven steps from a function call to a managed end under overload: each is a short program, each
//! serves tables, and from one to the next little changes.

mod support;

use std::{path::Path, process::Command, thread, time::Duration};

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, assert_table, built, curl, free_port, of_mesh};

const STEPS: std::ops::RangeInclusive<usize> = 1..=11;
/// Lines of a step, its head included.
const MOST_LINES: usize = 59;
/// Lines by which programs differ of which only the kind of worker changes.
const MOST_CHANGED: usize = 10;

fn text(name: &str) -> String {
    let path = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).expect(&path)
}

fn step(number: usize) -> String {
    format!("step_{number:02}")
}

/// A step as a command of a mesh, listening at an address.
fn command(number: usize, mesh: &Path, listen: &str, more: &[&str]) -> Command {
    let listen = format!("--listen={listen}");
    let arguments = [&[listen.as_str()], more].concat();
    of_mesh(Command::new(built(&step(number))), mesh, &arguments)
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Asks a program until it answers with this status.
fn answer(program: &Program, listen: &str, wanted: u16, what: &str) -> String {
    let url = format!("http://{listen}/Xy?x=2&y=2");
    eventually(SOON, what, || {
        assert!(program.ended().is_none(), "{what}: {:?}", program.lines());
        let (status, body) = curl(&[&url]);
        (status == wanted).then_some(body)
    })
}

fn table(program: &Program, listen: &str, what: &str) {
    assert_table(&answer(program, listen, 200, what), 2, 2);
}

fn end(program: Program, what: &str) {
    program.signal(15);
    let (_, status) = program.wait_end(SOON);
    assert!(status.success(), "{what}: {:?}", program.lines());
}

/// How many lines have to be replaced, added or removed to make one text of the other.
fn changed(one: &str, other: &str) -> usize {
    let program = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("//!")).map(str::to_owned).collect()
    };
    let (one, other) = (program(one), program(other));
    // Edit distance, a row at a time.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replaced = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[test]
fn every_step_is_short_and_says_what_it_shows() {
    for number in STEPS {
        let text = text(&step(number));
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{}: {lines} lines", step(number));
        assert!(text.starts_with(&format!("//! Step {number}: ")), "{}", step(number));
        assert!(text.contains(&format!("--example {}", step(number))), "{}", step(number));
    }
}

#[test]
fn from_a_task_to_many_hosts_little_changes() {
    // A task (3), a pool of threads (4), a process (7), a pool of them (8), many hosts (10).
    let versions = [3, 4, 7, 8, 10];
    for one in versions {
        for other in versions {
            let lines = changed(&text(&step(one)), &text(&step(other)));
            assert!(lines <= MOST_CHANGED, "step {one} to {other}: {lines} lines");
        }
    }
    // A task for each request, and a process for each.
    let lines = changed(&text(&step(2)), &text(&step(5)));
    assert!(lines <= MOST_CHANGED, "step 2 to 5: {lines} lines");
    // A pool of tasks, as the head of step 4 says.
    let threads = text(&step(4));
    let tasks = threads.replace(".threads(4)", ".tasks(4)");
    for version in [4, 8, 10] {
        let lines = changed(&tasks, &text(&step(version)));
        assert!((1..=MOST_CHANGED).contains(&lines), "tasks to step {version}: {lines} lines");
    }
}

#[test]
fn each_step_serves_tables_and_ends_when_it_is_asked() {
    for number in STEPS {
        let folders = Folders::new();
        let mesh = folders.mesh("host");
        let listen = address();
        let worker = (number == 9)
            .then(|| Program::start(&mut command(9, &mesh, &address(), &["--role=worker"])));
        let program = Program::start(&mut command(number, &mesh, &listen, &[]));
        table(&program, &listen, &step(number));
        end(program, &step(number));
        if let Some(worker) = worker {
            end(worker, "the worker of step 9");
        }
    }
}

#[test]
fn many_are_answered_at_once_by_a_process_each() {
    let folders = Folders::new();
    let listen = address();
    let program = Program::start(&mut command(6, &folders.mesh("host"), &listen, &[]));
    table(&program, &listen, "step 6");
    thread::scope(|all| {
        for _ in 0..8 {
            all.spawn(|| table(&program, &listen, "one of eight"));
        }
    });
    end(program, "step 6");
}

#[test]
fn a_gateway_finds_the_worker_that_comes_back() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let listen = address();
    let gateway = Program::start(&mut command(9, &mesh, &listen, &[]));
    answer(&gateway, &listen, 503, "the door, without a worker");
    for life in ["first", "second"] {
        let worker = Program::start(&mut command(9, &mesh, &address(), &["--role=worker"]));
        table(&gateway, &listen, life);
        end(worker, life);
        answer(&gateway, &listen, 503, "no worker");
    }
    end(gateway, "the gateway");
}

#[test]
fn under_overload_the_rest_is_turned_away_and_what_is_under_way_is_finished() {
    let folders = Folders::new();
    let listen = address();
    let settings = ["--workers=1", "--queue=1", "--drain=10s"];
    let program = Program::start(&mut command(11, &folders.mesh("host"), &listen, &settings));
    table(&program, &listen, "step 11");
    let url = format!("http://{listen}/Xy?x=2&y=2&pause=1s");
    let answers: Vec<(u16, String)> = thread::scope(|all| {
        let asked: Vec<_> = (0..6).map(|_| all.spawn(|| curl(&["-i", &url]))).collect();
        // One is at work, one waits, and four were turned away: then it is told to stop.
        let health = format!("http://{listen}/metrics");
        eventually(SOON, "four refusals", || {
            let refused = asked.iter().filter(|asked| asked.is_finished()).count();
            assert_eq!(curl(&[&health]).0, 200);
            (refused == 4).then_some(())
        });
        program.signal(15);
        asked.into_iter().map(|asked| asked.join().expect("curl")).collect()
    });
    let of = |status| answers.iter().filter(move |(s, _)| *s == status);
    assert_eq!((of(200).count(), of(503).count()), (2, 4), "{answers:?}");
    for (_, answer) in of(503) {
        assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
    }
    let (_, status) = program.wait_end(SOON + Duration::from_secs(10));
    assert!(status.success(), "{:?}", program.lines());
}
