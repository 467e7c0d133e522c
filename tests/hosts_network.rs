//! Three hosts, seen by an operator on one of them: also while one is cut off, and hop by hop.

mod support;

use std::time::Duration;

use layercake_lab::eventually;
use serde_json::Value;
use support::{
    Folders, SOON,
    machine::{Machine, join},
    now_ms, run,
};

fn network(machine: &Machine) -> Value {
    let out = machine.run(&["network", "--json"]);
    serde_json::from_str(&out).expect(&out)
}

/// The entry of a host.
fn host<'a>(network: &'a Value, id: &str) -> &'a Value {
    let hosts = network["hosts"].as_array().expect("hosts");
    let found = hosts.iter().find(|host| host["host"] == id);
    found.unwrap_or_else(|| panic!("{id} in {network}"))
}

/// Waits until all hosts are there and answer, with a publishing node each.
fn whole(by: &Machine, ids: &[String]) {
    eventually(SOON, "the whole mesh", || {
        let shown = network(by);
        let there = |id: &String| {
            let host = host_or_none(&shown, id)?;
            let up = host["state"] == "up" || host["state"] == "here";
            let named = |node: &Value| node["answered"] == true && node["published"][0].is_object();
            (up && host["nodes"].as_array()?.iter().any(named)).then_some(())
        };
        ids.iter().all(|id| there(id).is_some()).then_some(())
    });
}

fn host_or_none<'a>(network: &'a Value, id: &str) -> Option<&'a Value> {
    network["hosts"].as_array()?.iter().find(|host| host["host"] == id)
}

#[test]
fn a_partition_is_seen_for_what_it_is_and_pings_go_between_hosts() {
    let Some(lab) = layercake_lab::lab!("network") else { return };
    let folders = Folders::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| Machine::new(&lab, &folders, name));
    let _a = a.start(&["demo", "worker", "--workers", "1"]);
    join(&a, &[&b, &c]);
    let _b = b.start(&["demo", "worker", "--workers", "1"]);
    let _c = c.start(&["demo", "worker", "--workers", "1"]);
    let ids = [&a, &b, &c].map(Machine::id);
    for by in [&a, &b, &c] {
        whole(by, &ids);
    }

    // From host to host, hop by hop: to a name, to a host, to a node that listens for nobody.
    let out = a.run(&["ping", "textures:worker", "-c", "3"]);
    println!("{out}");
    assert_eq!(out.matches("PING ").count(), 3, "{out}");
    assert_eq!(out.matches("3 of 3 answered").count(), 2 + 3 + 3, "{out}");
    let out = a.run(&["ping", &ids[1], "-c", "3"]);
    assert_eq!(out.matches("3 of 3 answered").count(), 2, "{out}");
    let deaf = b.start(&["network", "--watch"]);
    let node = eventually(SOON, "the node that watches", || {
        let shown = network(&a);
        let nodes = host(&shown, &ids[1])["nodes"].as_array()?.clone();
        let node = nodes.iter().find(|node| node["about"]["pid"] == deaf.pid())?;
        node["node"].as_str().map(str::to_owned)
    });
    let out = a.run(&["ping", &node, "-c", "1"]);
    assert!(out.contains("through its directory: 1 of 1 answered"), "{out}");

    let events = a.start(&["network", "--watch", "--json"]);
    events.wait_line(|line| line.contains("\"hosts\""), SOON);
    let cut = now_ms();
    for other in [&a, &b] {
        other.host.block_from(&c.host);
        c.host.block_from(&other.host);
    }
    let lost = eventually(SOON, "a host that is lost", || {
        let shown = network(&a);
        let lost = host(&shown, &ids[2]);
        (lost["state"] == "lost").then(|| lost.clone())
    });
    let after = lost["since"].as_u64().expect("a time").saturating_sub(cut);
    println!("cut off: lost after {after} ms");
    assert!(after < 4000, "{after}");
    events.wait_line(|line| line.contains("host_lost") && line.contains(&ids[2]), SOON);
    let tree = a.run(&["network"]);
    println!("{tree}");
    assert!(tree.contains("1 missing") && tree.contains("(host lost)"), "{tree}");
    let shown = network(&a);
    assert_eq!(host(&shown, &ids[1])["state"], "up", "the others are whole");
    // The other side says the same of them, and nobody waits for those who are gone.
    let shown = eventually(SOON, "both others lost", || {
        let shown = network(&c);
        (host(&shown, &ids[0])["state"] == "lost" && host(&shown, &ids[1])["state"] == "lost")
            .then_some(shown)
    });
    assert_eq!(host(&shown, &ids[2])["state"], "here");
    let (ok, out, err) = run(a.command(&["ping", &ids[2], "-c", "1"]));
    assert!(!ok && out.contains("no link to the directory"), "{out}{err}");

    for machine in [&a, &b, &c] {
        machine.host.heal();
    }
    let healed = std::time::Instant::now();
    whole(&a, &ids);
    println!("healed: whole after {:?}", healed.elapsed());
    assert!(healed.elapsed() < Duration::from_secs(10));
    events.wait_line(|line| line.contains("host_up") && line.contains(&ids[2]), SOON);
    whole(&c, &ids);
}
