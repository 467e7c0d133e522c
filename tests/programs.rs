//! Programs and their processes as a user meets them: arguments and results on a command line, actors
//! started as processes by another program, their end, and that nothing outlives who started it.

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use layercake_lab::{Program, eventually};
use serde_json::{Value, json};
use support::{Folders, SOON, built, kill_9, layer_cake, of_mesh};

/// Within which the death of a process is known.
const NOTICED: u64 = 100;
/// Within which everything below a dead process is gone.
const GONE: Duration = Duration::from_secs(1);

fn program(name: &str, mesh: &Path, arguments: &[&str]) -> Command {
    of_mesh(Command::new(built(name)), mesh, arguments)
}

fn chef(scene: &str, mesh: &Path) -> Command {
    let cook = format!("--cook={}", built("cook").display());
    let mark = format!("--mark={}", mesh.with_extension("mark").display());
    program("chef", mesh, &[&format!("--scene={scene}"), &cook, &mark])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn output(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    (status.code(), text(&stdout), text(&stderr))
}

/// What a scene came to.
fn play(scene: &str) -> Vec<Value> {
    let folders = Folders::new();
    let (code, out, err) = output(chef(scene, &folders.mesh("host")));
    assert_eq!(code, Some(0), "{scene}: {err}");
    serde_json::from_str(&out).expect(&out)
}

fn exit<'a>(outcome: &'a Value, kind: &str) -> &'a str {
    outcome["exit"][kind].as_str().unwrap_or_else(|| panic!("no {kind} in {outcome}"))
}

fn millis(outcome: &Value) -> u64 {
    outcome["millis"].as_u64().expect("a time")
}

#[test]
fn arguments_are_read_by_their_types_and_the_result_is_printed() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let arguments =
        ["--x=40", "--pause=1m30s", "--sizes=[1,2.5]", r#"--place={"table":1,"seat":3}"#];
    let (code, out, err) = output(program("cook", &mesh, &arguments));
    assert_eq!(code, Some(0), "{err}");
    let served: Value = serde_json::from_str(&out).expect(&out);
    assert_eq!(served, json!({"sum": 42, "pause": "1m30s", "sizes": [1.0, 2.5], "seat": 3}));

    for (arguments, wanted) in [
        (&["--x=1", "--y=300"][..], "--y"),
        (&["--x=two"], "--x"),
        (&["--y=1"], "--x"),
        (&["--x=1", "--pouse=1s"], "--pouse"),
        (&["--x=1", "--pause=1 fortnight"], "--pause"),
    ] {
        let (code, out, err) = output(program("cook", &mesh, arguments));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.starts_with("error: ") && err.contains(wanted), "{arguments:?}: {err}");
    }
    let (code, out, err) = output(program("cook", &mesh, &["--x=1", "--fail"]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("No such file"), "{err}");
}

#[test]
fn a_program_tells_what_it_takes_and_what_it_can_be_started_as() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let (code, help, _) = output(program("cook", &mesh, &["--help"]));
    assert_eq!(code, Some(0));
    for wanted in ["usage: cook --x=INTEGER", "Adds two numbers", "The first number."] {
        assert!(help.contains(wanted), "{help}");
    }
    let (code, out, _) = output(program("cook", &mesh, &["--describe"]));
    assert_eq!(code, Some(0));
    let described: Value = serde_json::from_str(&out).expect(&out);
    assert_eq!(described["arguments"]["required"], json!(["x"]));
    let entries = described["entries"].as_array().expect("entries");
    let names: Vec<_> =
        entries.iter().map(|entry| entry["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["cook::kitchen::Branch", "cook::kitchen::Till"]);
    let till = &entries[1];
    assert_eq!(till["arguments"]["properties"]["amount"]["maximum"], 1000);
    assert_eq!(till["output"]["properties"]["total"]["type"], "integer");
    assert_eq!(till["messages"][0]["name"], "Add");
    assert_eq!(till["messages"][0]["schema"]["required"], json!(["amount"]));
}

#[test]
fn a_process_of_another_program_answers_and_leaves_a_typed_value() {
    let outcomes = play("serves");
    let left: Vec<_> = outcomes[1..].iter().map(|outcome| &outcome["left"]).collect();
    assert_eq!(left, ["42", "soup 42"]);
    println!("started after {} ms", millis(&outcomes[0]));
}

#[test]
fn a_process_that_cannot_be_says_why() {
    let outcomes = play("refused");
    let wanted = ["no actor `Waiter`", "arguments of `Till`", "cannot start `/no/such/binary`"];
    for (outcome, wanted) in outcomes.iter().zip(wanted) {
        assert!(outcome["left"].as_str().is_some_and(|text| text.contains(wanted)), "{outcome}");
    }
}

#[test]
fn a_panic_in_a_process_comes_with_its_last_words() {
    let outcomes = play("panics");
    assert_eq!(outcomes[0]["left"], "Some(Panicked)");
    let panicked = exit(&outcomes[1], "Panicked");
    assert!(panicked.starts_with("out of gas"), "{panicked}");
    // A long backtrace may have displaced what was said before.
    assert!(panicked.contains("\n  | "), "{panicked}");
}

#[test]
fn the_death_of_a_process_is_known_at_once() {
    for outcome in play("killed") {
        println!("{}: {} ms", outcome["what"], millis(&outcome));
        assert!(millis(&outcome) < NOTICED, "{outcome}");
        let reason = exit(&outcome, "ProcessDied");
        assert!(outcome["what"] != "joined" || reason.contains("SIGKILL"), "{outcome}");
    }
}

#[test]
fn who_does_not_stop_within_the_grace_is_killed() {
    let outcomes = play("stubborn");
    assert_eq!(outcomes[0]["exit"], "Aborted");
    let hung = millis(&outcomes[0]);
    assert!((300..1500).contains(&hung), "{hung} ms");
    assert_eq!(outcomes[1]["exit"], "Stopped");
    println!("killed after {hung} ms, stopped after {} ms", millis(&outcomes[1]));
}

#[test]
fn a_limit_of_memory_refuses_what_is_above_it() {
    assert_eq!(play("limited")[0]["left"], "true false");
}

#[test]
fn foreign_programs_leave_their_output_or_a_reason() {
    let outcomes = play("foreign");
    let of = |what: &str| outcomes.iter().find(|o| o["what"] == what).expect(what);
    assert_eq!(of("cat")["left"], "a line\n");
    assert_eq!(exit(of("false"), "Failed"), "exit status: 1");
    assert_eq!(exit(of("sh"), "Failed"), "exit status: 3\n  | the pot is empty");
    // What it has started holds its output open for 5 s, and nobody waits for that.
    assert_eq!(of("background")["left"], "out\n");
    assert!(millis(of("background")) < 3000, "{}", of("background"));
    assert!(exit(of("signal"), "Failed").contains("SIGKILL"));
    assert!(exit(of("absent"), "Failed").contains("No such file"));
    let deaf = of("deaf");
    assert_eq!(deaf["exit"], "Stopped");
    assert!((300..1500).contains(&millis(deaf)), "{deaf}");
}

#[test]
fn child_processes_inherit_the_group_however_it_was_chosen() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let mut command = chef("groups", &mesh);
    command.env("LAYERCAKE_GROUP", "kitchen");
    let (code, out, err) = output(command);
    assert_eq!(code, Some(0), "{err}");
    let outcomes: Vec<Value> = serde_json::from_str(&out).expect(&out);
    let left: Vec<_> = outcomes.iter().map(|outcome| outcome["left"].as_str()).collect();
    assert_eq!(left, [Some("kitchen"), Some("kitchen\n"), Some("cellar"), Some("cellar\n")]);
    let mut command = chef("groups", &mesh);
    command.env("LAYERCAKE_GROUP", "no/group");
    let (code, _, err) = output(command);
    assert_ne!(code, Some(0));
    assert!(err.contains("LAYERCAKE_GROUP") && err.contains("`no/group` names no group"), "{err}");
}

/// The process that has this parent.
fn child_of(parent: u32) -> Option<u32> {
    let pids = std::fs::read_dir("/proc").expect("a Linux machine").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}

/// Whether a process is there and no zombie.
fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// A program, and the processes below it, from the top down: three levels of actors, and a `sleep`.
fn tree(mesh: &Path) -> (Program, Vec<u32>) {
    let top = Program::start(&mut chef("tree", mesh));
    let mut pids = vec![top.pid()];
    for level in [3, 2, 1] {
        let said = format!("level {level} is ");
        let (_, line) = top.wait_line(|line| line.starts_with(&said), SOON);
        pids.push(line[said.len()..].parse().expect("a process id"));
    }
    let sleep = eventually(SOON, "the sleep", || {
        let child = child_of(pids[3])?;
        let command = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
        command.starts_with(b"sleep\0").then_some(child)
    });
    pids.push(sleep);
    assert!(pids.iter().all(|pid| lives(*pid)));
    (top, pids)
}

fn all_gone(pids: &[u32], since: Instant) {
    eventually(GONE, "the end of everything below", || {
        pids.iter().all(|pid| !lives(*pid)).then_some(())
    });
    println!("{} processes below were gone after {:?}", pids.len(), since.elapsed());
}

#[test]
fn nothing_outlives_the_top_of_a_tree() {
    let folders = Folders::new();
    let (_top, pids) = tree(&folders.mesh("host"));
    let since = Instant::now();
    kill_9(pids[0]);
    all_gone(&pids[1..], since);
}

#[test]
fn nothing_outlives_the_middle_of_a_tree_and_what_is_above_hears_of_it() {
    let folders = Folders::new();
    let (top, pids) = tree(&folders.mesh("host"));
    let since = Instant::now();
    kill_9(pids[2]);
    all_gone(&pids[3..], since);
    let heard = "level 3 heard: its process died: signal: 9 (SIGKILL)";
    let (at, _) = top.wait_line(|line| line == heard, SOON);
    println!("level 3 heard of it after {:?}", at - since);
    // The one above has done what it was for, and leaves what it heard.
    let (_, status) = top.wait_end(SOON);
    assert!(status.success());
    top.wait_line(|line| line.contains(r#""left":"its process died"#), SOON);
    assert!(!lives(pids[1]));
}

#[test]
fn the_command_line_describes_and_starts_the_actors_of_a_program() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    let (cook, step) = (built("cook"), built("step_05"));
    let (cook, step) = (cook.to_str().expect("a path"), step.to_str().expect("a path"));
    let run = |arguments: &[&str]| output(layer_cake(&mesh, arguments));

    let (code, list, err) = run(&["describe", cook]);
    assert_eq!(code, Some(0), "{err}");
    for wanted in ["usage: cook", "actor cook::kitchen::Till", "--amount=", "message Add -> "] {
        assert!(list.contains(wanted), "{list}");
    }
    let (_, json, _) = run(&["describe", cook, "--json"]);
    assert!(serde_json::from_str::<Value>(&json).expect(&json)["entries"].is_array());
    let (code, _, err) = run(&["describe", "/bin/true"]);
    assert!(code == Some(1) && err.contains("does not describe itself"), "{err}");

    let (code, table, err) = run(&["actor", step, "Texture", "--x=3", "-y=2"]);
    assert_eq!(code, Some(0), "{err}");
    support::assert_table(&table, 3, 2);
    let (code, help, _) = run(&["actor", cook, "Till", "--help"]);
    assert!(code == Some(0) && help.contains("What it begins with."), "{help}");
    for (arguments, wanted) in [
        (&["actor", cook, "Till"][..], "--amount"),
        (&["actor", cook, "Till", "--amount=2000"], "--amount"),
        (&["actor", cook, "Waiter"], "no actor `Waiter`"),
    ] {
        let (code, _, err) = run(arguments);
        assert!(code == Some(2) && err.contains(wanted), "{arguments:?}: {err}");
    }

    // One that goes on until it is told to stop, and leaves a value then.
    for signal in [2, 15] {
        let branch = ["actor", cook, "Branch", "--below=2"];
        let actor = Program::start(&mut layer_cake(&mesh, &branch));
        actor.wait_line(|line| line.starts_with("level 1 is "), SOON);
        actor.signal(signal);
        let (_, status) = actor.wait_end(SOON);
        assert!(status.success(), "{:?}", actor.lines());
        actor.wait_line(|line| line == r#""asked to stop""#, SOON);
    }

    // One that is killed: the reason is told.
    let actor = Program::start(&mut layer_cake(&mesh, &["actor", cook, "Branch", "--below=2"]));
    let said = "level 2 is ";
    let (_, line) = actor.wait_line(|line| line.starts_with(said), SOON);
    kill_9(line[said.len()..].parse().expect("a process id"));
    let (_, status) = actor.wait_end(SOON);
    assert_eq!(status.code(), Some(1));
    let told = |line: &str| line.starts_with("error: ") && line.contains("its process died");
    actor.wait_line(told, SOON);
}
