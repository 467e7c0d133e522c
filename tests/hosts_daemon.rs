//! The host directory as a daemon: it takes over from whatever program embeds the directory, and nobody
//! notices. Several meshes on one machine; a machine that gives it nowhere to put a socket, and one that
//! carries no multicast.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use layercake_lab::{Program, eventually};
use serde_json::Value;
use support::{Folders, SOON, curl_by, machine::Machine, machine::join, of_mesh, run};

#[test]
fn a_daemon_takes_over_and_hands_on_while_requests_are_served() {
    let Some(lab) = layercake_lab::lab!("daemon") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let gateway = a.start(&["demo", "gateway"]);
    eventually(SOON, "a gateway that listens", || (a.get().0 == 503).then_some(()));
    join(&a, &[&b]);
    // One of the workers embeds the directory of its host, the gateway that of the other.
    let _workers = b.start(&["demo", "worker", "--workers", "2"]);
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    let views = [&a, &b].map(|m| m.start(&["ls", "--watch", "textures:worker"]));
    for view in &views {
        eventually(SOON, "both workers in view", || (view.lines().len() == 2).then_some(()));
    }
    let calm = |what: &str| {
        let until = Instant::now() + Duration::from_millis(2500);
        let mut asked = 0;
        while Instant::now() < until {
            let (status, body) = a.get();
            assert_eq!(status, 200, "{what}: {body}");
            asked += 1;
        }
        for view in &views {
            assert_eq!(view.lines().len(), 2, "{what}: {:?}", view.lines());
        }
        println!("{what}: {asked} requests, all answered, and nothing changed in any view");
    };
    for machine in [&b, &a] {
        let started = Instant::now();
        let daemon = machine.start(&["host"]);
        let (ready, _) = daemon.wait_line(|line| line.starts_with("ready: "), SOON);
        println!("the daemon has the directory {:?} after its start", ready - started);
        assert!(ready - started < Duration::from_secs(2), "{:?}", ready - started);
        calm("taken over by a daemon");
        // A second one waits for the first.
        let second = machine.start(&["host"]);
        second.wait_line(|line| line.starts_with("waiting: "), SOON);
        let stopped = Instant::now();
        daemon.signal(15);
        let (next, _) = second.wait_line(|line| line.starts_with("ready: "), SOON);
        println!("the next daemon has it {:?} after the first was stopped", next - stopped);
        daemon.wait_end(SOON);
        calm("handed on to the next daemon");
        second.signal(15);
        second.wait_end(SOON);
        calm("handed back to whoever is there");
    }
}

#[test]
fn a_seed_leads_to_the_daemon_though_another_process_has_the_usual_port() {
    let Some(lab) = layercake_lab::lab!("port") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    for machine in [&a, &b] {
        machine.host.block_multicast();
    }
    // The gateway embeds the directory first, and keeps the port when the daemon takes over.
    let gateway = a.start(&["demo", "gateway"]);
    eventually(SOON, "a gateway that listens", || (a.get().0 == 503).then_some(()));
    join(&a, &[&b]);
    let daemon = a.start(&["host"]);
    daemon.wait_line(|line| line.starts_with("ready: "), SOON);
    let started = Instant::now();
    let seed = a.host.address().to_string();
    let _worker = b.start(&["demo", "worker", "--workers", "1", "--seed", &seed]);
    let (served, _) = gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    println!("found by its seed after {:?}", served - started);
    assert!(served - started < Duration::from_secs(5), "{:?}", served - started);
}

#[test]
fn several_meshes_on_one_machine_do_not_meet() {
    let Some(lab) = layercake_lab::lab!("meshes") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    // The second mesh, on the same two machines.
    let other = [&a, &b].map(|m| folders.mesh(&format!("{}-other", m.host.name())));
    let on = |m: &Machine, at: usize, arguments: &[&str]| {
        of_mesh(m.host.command(support::LAYER_CAKE), &other[at], arguments)
    };
    let said = |command| {
        let (ok, out, err) = run(command);
        assert!(ok, "{err}");
        out
    };
    let hosts = [a.start(&["host"]), Program::start(&mut on(&a, 0, &["host"]))];
    for host in &hosts {
        host.wait_line(|line| line.starts_with("ready: "), SOON);
    }
    join(&a, &[&b]);
    let token = said(on(&a, 0, &["mesh", "invite"]));
    said(on(&b, 1, &["mesh", "join", &token]));
    let workers = [
        b.start(&["demo", "worker", "--workers", "1"]),
        Program::start(&mut on(&b, 1, &["demo", "worker", "--workers", "2"])),
    ];
    eventually(SOON, "one worker in the one mesh, two in the other", || {
        let one = a.hosts_of("textures:worker").len();
        let two = said(on(&a, 0, &["ls", "--json", "textures:worker"])).lines().count();
        (one == 1 && two == 2).then_some(())
    });
    drop((hosts, workers));
}

#[test]
fn several_users_on_one_machine_have_a_directory_each() {
    let Some(lab) = layercake_lab::lab!("users") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    // The other user may not look into the folders of this one: a place and a program of its own.
    let place = tempfile::tempdir().expect("a folder");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777));
    let program = place.path().join("layer-cake");
    fs::copy(support::LAYER_CAKE, &program).expect("room for a copy");
    open(place.path()).and_then(|()| open(&program)).expect("it is ours");
    let user = |m: &Machine, arguments: &[&str]| {
        let mut command = m.host.command("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(&program);
        command.args(arguments).env_remove("XDG_RUNTIME_DIR").env("NO_COLOR", "1");
        command.env("LAYERCAKE_MESH", place.path().join(format!("mesh-{}", m.host.name())));
        command
    };
    if let (false, _, why) = run(user(&a, &["mesh", "init"])) {
        println!("SKIPPED: cannot be somebody else here: {why}");
        return;
    }
    let hosts = [a.start(&["host"]), Program::start(&mut user(&a, &["host"]))];
    for host in &hosts {
        host.wait_line(|line| line.starts_with("ready: "), SOON);
    }
    join(&a, &[&b]);
    let (ok, token, why) = run(user(&a, &["mesh", "invite"]));
    assert!(ok, "{why}");
    let (ok, _, why) = run(user(&b, &["mesh", "join", &token]));
    assert!(ok, "{why}");
    let workers = [
        b.start(&["demo", "worker", "--workers", "1"]),
        Program::start(&mut user(&b, &["demo", "worker", "--workers", "2"])),
    ];
    eventually(SOON, "one worker for the one user, two for the other", || {
        let (_, names, _) = run(user(&a, &["ls", "--json", "textures:worker"]));
        (a.hosts_of("textures:worker").len() == 1 && names.lines().count() == 2).then_some(())
    });
    drop((hosts, workers));
}

/// A machine on which nobody may write where sockets go: neither the runtime area nor the last resort.
const READ_ONLY: &str = "mkdir -p \"$XDG_RUNTIME_DIR\" /tmp/layer-cake-$(id -u) && \
    mount -t tmpfs -o ro,mode=700 none \"$XDG_RUNTIME_DIR\" && \
    mount -t tmpfs -o ro,mode=700 none /tmp/layer-cake-$(id -u) && exec \"$@\"";

#[test]
fn without_a_place_for_sockets_what_is_within_a_process_works_and_the_rest_is_told() {
    let Some(lab) = layercake_lab::lab!("readonly") else { return };
    let folders = Folders::new();
    let a = Machine::new(&lab, &folders, "a");
    a.run(&["mesh", "init"]);
    let start = |arguments: &[&str]| {
        let mut plain = of_mesh(a.host.command("sh"), &a.mesh, &["-c", READ_ONLY, "sh"]);
        Program::start(plain.arg(support::LAYER_CAKE).args(arguments))
    };
    let demo = start(&["demo", "--pool", "tasks", "--workers", "1"]);
    let (_, told) = demo.wait_line(|line| line.contains("still work"), SOON);
    println!("{told}");
    assert!(told.contains("Read-only file system"), "{told}");
    demo.wait_line(|line| line.starts_with("ready: "), SOON);
    let (status, body) = curl_by(a.host.command("curl"), &["http://127.0.0.1:5050/Xy?x=2"]);
    assert_eq!(status, 200, "{body}");

    let host = start(&["host"]);
    let (_, told) = host.wait_line(|line| line.starts_with("waiting: "), SOON);
    println!("{told}");
    assert!(told.contains("names within each process still work"), "{told}");
}

#[test]
fn without_multicast_it_is_told_what_still_works() {
    let Some(lab) = layercake_lab::lab!("silence") else { return };
    let folders = Folders::new();
    let a = Machine::new(&lab, &folders, "a");
    a.host.block_multicast();
    let mut command = a.command(&["host", "--seed", "192.0.2.1", "--seed", "nowhere.invalid"]);
    let host = Program::start(&mut command);
    host.wait_line(|line| line.starts_with("ready: "), SOON);
    for (about, why) in [
        ("mDNS", "multicast is blocked here"),
        ("nowhere.invalid", "tried again and again"),
        ("192.0.2.1:54195", "no answer"),
    ] {
        let (_, told) = host.wait_line(|line| line.contains(about), SOON);
        println!("{told}");
        assert!(told.contains(why), "{told}");
    }
    eventually(SOON, "more attempts", || {
        let shown: Value = serde_json::from_str(&a.run(&["network", "--json"])).expect("JSON");
        let nodes = shown["hosts"][0]["nodes"].as_array()?;
        let troubles = nodes.iter().filter_map(|node| node["troubles"].as_array()).flatten();
        let again = |t: &&Value| t["last_ms"].as_u64() > t["since_ms"].as_u64();
        let again: Vec<_> = troubles.filter(again).filter_map(|t| t["about"].as_str()).collect();
        let all = ["nowhere.invalid", "192.0.2.1:54195"];
        all.iter().all(|about| again.contains(about)).then_some(())
    });
    let warnings = host.lines().iter().filter(|line| line.text.contains("WARN")).count();
    assert_eq!(warnings, 3, "each is told once: {:?}", host.lines());
}
