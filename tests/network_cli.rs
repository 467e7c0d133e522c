//! What an operator sees of one host: `layer-cake network` and `layer-cake ping`.

mod support;

use std::{path::Path, process::Command};

use layercake_lab::{Program, eventually};
use serde_json::Value;
use support::{Folders, SOON, kill_9, layer_cake, run, workers_of};

fn network(mesh: &Path, more: &[&str]) -> Value {
    let (ok, out, err) = run(layer_cake(mesh, &[&["network", "--json"], more].concat()));
    assert!(ok, "{err}");
    serde_json::from_str(&out).expect(&out)
}

/// The nodes of this host that publish something.
fn publishers(network: &Value) -> Vec<&Value> {
    let nodes = network["hosts"][0]["nodes"].as_array().expect("nodes");
    nodes.iter().filter(|node| node["published"][0].is_object()).collect()
}

/// A pool of published workers behind a gateway, once they are there.
fn demo(mesh: &Path) -> Program {
    let demo = ["demo", "--pool", "hosts", "--workers", "2", "--listen", "127.0.0.1:0"];
    let demo = Program::start(&mut layer_cake(mesh, &demo));
    demo.wait_line(|line| line.starts_with("ready: "), SOON);
    eventually(SOON, "two workers", || (publishers(&network(mesh, &[])).len() == 2).then_some(()));
    demo
}

#[test]
fn the_tree_shows_processes_names_and_who_found_whom() {
    let folders = Folders::new();
    let mesh = folders.mesh("a");
    let demo = demo(&mesh);

    let shown = network(&mesh, &["--routes"]);
    assert_eq!(shown["hosts"].as_array().map(Vec::len), Some(1));
    let host = &shown["hosts"][0];
    assert_eq!((&host["state"], &host["host"]), (&"here".into(), &shown["here"]));
    for worker in publishers(&shown) {
        assert_eq!(worker["about"]["parent"], demo.pid(), "{worker}");
        assert_eq!(worker["published"][0]["name"], "textures:worker");
        assert_eq!(worker["published"][0]["scope"], "lan");
        assert!(!worker["sessions"][0]["node"].is_null(), "{worker}");
    }
    let nodes = host["nodes"].as_array().expect("nodes");
    let gateway =
        nodes.iter().find(|node| node["about"]["pid"] == demo.pid()).expect("it is there");
    let found = shown["routes"].as_array().expect("routes");
    let by_gateway = |route: &&Value| route["from_node"] == gateway["node"];
    assert!(found.iter().filter(by_gateway).count() >= 2, "{found:?}");

    let mut command = layer_cake(
        &mesh,
        &["network", "--published", "--subscribed", "--routes", "--sessions", "--addresses"],
    );
    command.env_remove("NO_COLOR");
    let (ok, tree, err) = run(command);
    assert!(ok, "{err}");
    assert!(!tree.contains('\u{1b}'), "colours are for terminals: {tree:?}");
    let lines: Vec<_> = tree.lines().collect();
    assert!(lines[0].starts_with("[mesh] ") && lines[1].starts_with("+   [host] "), "{tree}");
    for mark in [
        "+   +   +   [process] layer-cake (",
        "# \"textures:worker\"  lan  actor ",
        "? \"textures:worker\"  lan",
        "> \"textures:worker\"  host  (",
        "= to ",
        "@ ",
    ] {
        assert!(tree.contains(mark), "`{mark}` in\n{tree}");
    }
    let (_, plain, _) = run(layer_cake(&mesh, &["network"]));
    assert!(!plain.contains("textures:worker"), "only what was asked for: {plain}");
    assert!(!plain.contains(host["host"].as_str().expect("an id")), "short: {plain}");
    let (_, full, _) = run(layer_cake(&mesh, &["network", "--full-ids"]));
    assert!(full.contains(host["host"].as_str().expect("an id")), "{full}");
}

#[test]
fn a_process_that_hangs_is_shown_as_one() {
    let folders = Folders::new();
    let mesh = folders.mesh("a");
    let _demo = demo(&mesh);
    let watcher = Program::start(&mut layer_cake(&mesh, &["ls", "--watch"]));
    watcher.wait_line(|line| line.contains("textures:worker"), SOON);
    watcher.signal(19);
    let shown = eventually(SOON, "a process that does not answer", || {
        let shown = network(&mesh, &[]);
        let silent = |node: &&Value| node["answered"] == false;
        shown["hosts"][0]["nodes"].as_array()?.iter().find(silent).cloned()
    });
    assert_eq!(shown["about"]["pid"], watcher.pid());
    assert_eq!(shown["subscribed"][0]["pattern"], ".*", "what its directory knows is shown");
    watcher.signal(18);
    eventually(SOON, "its answer", || {
        let shown = network(&mesh, &[]);
        let all = shown["hosts"][0]["nodes"].as_array()?;
        all.iter().all(|node| node["answered"] == true).then_some(())
    });
}

#[test]
fn changes_are_shown_as_they_happen() {
    let folders = Folders::new();
    let mesh = folders.mesh("a");
    let _demo = demo(&mesh);
    let watch = Program::start(&mut layer_cake(&mesh, &["network", "--watch"]));
    let json = Program::start(&mut layer_cake(&mesh, &["network", "--watch", "--json"]));
    for program in [&watch, &json] {
        program.wait_line(|line| line.contains("textures:worker") || line.contains("[mesh]"), SOON);
    }
    kill_9(workers_of(&mesh, None)[0]);
    watch.wait_line(|line| line.contains("withdrawn") && line.contains("(process died)"), SOON);
    watch.wait_line(|line| line.contains("node gone"), SOON);
    watch.wait_line(|line| line.contains("published"), SOON);
    let gone = |line: &str| {
        serde_json::from_str::<Value>(line).is_ok_and(|event| event["event"] == "node_gone")
    };
    json.wait_line(gone, SOON);
    for program in [watch, json] {
        program.signal(2);
        let (_, status) = program.wait_end(SOON);
        assert!(status.success(), "{:?}", program.lines());
    }
}

#[test]
fn a_ping_times_each_hop_and_says_what_it_cannot_find() {
    let folders = Folders::new();
    let mesh = folders.mesh("a");
    let _demo = demo(&mesh);
    let ping = |arguments: &[&str]| run(layer_cake(&mesh, &[&["ping"], arguments].concat()));

    let (ok, out, err) = ping(&["textures:worker", "-c", "2"]);
    assert!(ok, "{out}{err}");
    assert_eq!(out.matches("PING ").count(), 2, "each instance: {out}");
    assert_eq!(out.matches("2 of 2 answered, min/avg/max ").count(), 4, "two hops each: {out}");

    let (ok, out, err) = ping(&["textures:worker", "-c", "1", "--json"]);
    assert!(ok, "{err}");
    let report: Value = serde_json::from_str(out.lines().next().expect("a line")).expect(&out);
    assert_eq!(report["hops"].as_array().map(Vec::len), Some(2), "{report}");
    assert!(report["hops"][1]["avg_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report}");

    let shown = network(&mesh, &[]);
    let host = shown["here"].as_str().expect("an id");
    let node = publishers(&shown)[0]["node"].as_str().expect("an id").to_owned();
    for target in [host, &host[..8], &node, &node[..8], &format!("{node}.1")] {
        let (ok, out, err) = ping(&[target, "-c", "1"]);
        assert!(ok, "{target}: {out}{err}");
    }
    let (ok, out, _) = ping(&[&format!("{node}.99"), "-c", "1"]);
    assert!(!ok && out.contains("has no actor 99"), "{out}");
    for unknown in ["nobody:here", "0000000000000000", "no name at all"] {
        let (ok, out, err) = ping(&[unknown]);
        assert!(!ok && out.is_empty(), "{out}");
        assert!(err.contains(unknown) && err.contains("hint: "), "{err}");
    }
}

#[test]
fn processes_of_a_group_stand_together() {
    let folders = Folders::new();
    let mesh = folders.mesh("a");
    let mut worker = layer_cake(&mesh, &["demo", "worker", "--workers", "1"]);
    let _worker = Program::start(worker.env("LAYERCAKE_GROUP", "textures"));
    eventually(SOON, "a worker", || (publishers(&network(&mesh, &[])).len() == 1).then_some(()));
    let shown = network(&mesh, &[]);
    assert_eq!(publishers(&shown)[0]["group"], "textures", "its process inherits it");
    let (ok, tree, err) = run(layer_cake(&mesh, &["network"]));
    assert!(ok, "{err}");
    let lines: Vec<_> = tree.lines().collect();
    let group = lines.iter().position(|line| *line == "+   +   [group] textures").expect(&tree);
    assert!(lines[group + 1].starts_with("+   +   +   [process] "), "{tree}");
    assert!(lines[group + 2].starts_with("+   +   +   +   [process] "), "{tree}");
    assert!(lines[group + 3].ends_with("this command"), "on its own: {tree}");
}

#[test]
fn where_nothing_runs_there_is_only_the_command_itself() {
    let folders = Folders::new();
    let mut command: Command = layer_cake(&folders.mesh("a"), &["network"]);
    command.env("LAYERCAKE_LOG", "error");
    let (ok, out, err) = run(command);
    assert!(ok, "{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(out.contains("directory  this command"), "{out}");
}

#[test]
fn a_pool_is_shown_with_its_workers_and_what_they_do() {
    let folders = Folders::new();
    let mesh = folders.mesh("a");
    let (ok, out, err) = run(layer_cake(&mesh, &["pool"]));
    assert!(ok && out.starts_with("no pools in mesh "), "{out}{err}");
    let demo = Program::start(&mut layer_cake(
        &mesh,
        &["demo", "--workers", "2", "--listen", "127.0.0.1:0"],
    ));
    let (_, line) = demo.wait_line(|line| line.starts_with("ready: "), SOON);
    let url = line["ready: ".len()..].to_owned();
    for _ in 0..5 {
        assert_eq!(support::curl(&[&format!("{url}/Xy?x=2&y=2")]).0, 200);
    }
    let shown = || -> Value {
        let (ok, out, err) = run(layer_cake(&mesh, &["pool", "textures", "--json"]));
        assert!(ok, "{err}");
        serde_json::from_str(&out).expect(&out)
    };
    let pool = eventually(SOON, "both workers", || {
        let pool = shown()["pools"][0].clone();
        (pool["ready"] == 2).then_some(pool)
    });
    assert_eq!(pool["totals"]["answered"], 5, "{pool}");
    assert_eq!(pool["latency"]["count"], 5, "{pool}");
    assert_eq!(pool["about"]["pid"], demo.pid(), "{pool}");
    let pids = workers_of(&mesh, None);
    for worker in pool["workers"].as_array().expect("workers") {
        assert_eq!(worker["place"], "process", "{pool}");
        assert!(pids.iter().any(|pid| worker["pid"] == *pid), "{pool}");
    }
    let (ok, text, err) = run(layer_cake(&mesh, &["pool", "textures"]));
    assert!(ok, "{err}");
    assert!(text.starts_with("textures  2 of 2 ready on "), "{text}");
    assert!(text.contains("requests     5 answered"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("  worker") && line.ends_with("restarts")));
    assert_eq!(text.lines().filter(|line| line.contains("  serving  ")).count(), 2, "{text}");
    let (ok, out, err) = run(layer_cake(&mesh, &["pool", "nobody"]));
    assert!(!ok && out.is_empty() && err.contains("no pool `nobody`"), "{out}{err}");

    // One is killed: the pool says so, and metrics do.
    kill_9(pids[0]);
    eventually(SOON, "a restart", || (shown()["pools"][0]["restarts"] == 1).then_some(()));
    let (_, metrics) = support::curl(&[&format!("{url}/metrics")]);
    assert!(metrics.contains("layercake_pool_restarts_total{pool=\"textures\"} 1"), "{metrics}");
}
