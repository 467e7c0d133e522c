//! Trust, as an operator sees it: two hosts (two mesh folders) on one machine, joined by a token.

mod support;

use std::process::Command;

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, layer_cake, run};

fn show(folders: &Folders, host: &str) -> serde_json::Value {
    let (ok, out, err) = run(layer_cake(&folders.mesh(host), &["mesh", "show", "--json"]));
    assert!(ok, "{err}");
    serde_json::from_str(&out).expect(&out)
}

fn join(folders: &Folders, host: &str, token: &str) -> (bool, String, String) {
    run(layer_cake(&folders.mesh(host), &["mesh", "join", token]))
}

#[test]
fn a_token_admits_one_host_once() {
    let folders = Folders::new();
    let a = folders.mesh("a");
    let (ok, out, err) = run(layer_cake(&a, &["mesh", "init", "--name", "kitchen"]));
    assert!(ok && out.contains("kitchen"), "{out}{err}");
    let (ok, _, err) = run(layer_cake(&a, &["mesh", "init"]));
    assert!(!ok && err.contains("already in mesh `kitchen`"), "{err}");

    let (ok, out, err) = run(layer_cake(&a, &["mesh", "invite"]));
    assert!(!ok && out.is_empty(), "nothing runs that could answer: {out}");
    assert!(err.contains("hint: ") && err.contains("invite --wait"), "{err}");

    let demo = ["demo", "--pool", "tasks", "--listen", "127.0.0.1:0"];
    let demo = Program::start(&mut layer_cake(&a, &demo));
    demo.wait_line(|line| line.starts_with("ready: "), SOON);
    let (ok, token, err) = run(layer_cake(&a, &["mesh", "invite"]));
    assert!(ok && token.lines().count() == 1, "the token alone: {token}{err}");

    let (ok, out, err) = join(&folders, "b", &token);
    assert!(ok && out.contains("joined mesh `kitchen`"), "{out}{err}");
    let (a, b) = (show(&folders, "a"), show(&folders, "b"));
    assert_eq!(a["fingerprint"], b["fingerprint"]);
    assert_ne!(a["host"], b["host"]);
    assert_eq!((&a["holds_ca_key"], &b["holds_ca_key"]), (&true.into(), &false.into()));

    let (ok, _, err) = join(&folders, "c", &token);
    assert!(!ok && err.contains("used"), "{err}");
    let (ok, _, err) = join(&folders, "b", &token);
    assert!(!ok && err.contains("kitchen"), "{err}");
    let (rest, last) = token.split_at(token.len() - 1);
    let damaged = format!("{rest}{}", if last == "x" { "y" } else { "x" });
    let (ok, _, err) = join(&folders, "c", &damaged);
    assert!(!ok && err.contains("damaged"), "{err}");
}

#[test]
fn an_invitation_can_wait_where_nothing_runs() {
    let folders = Folders::new();
    let mut wait = layer_cake(&folders.mesh("a"), &["mesh", "invite", "--wait"]);
    let wait = Program::start(&mut wait);
    let (_, token) = wait.wait_line(|line| line.starts_with("lc1-"), SOON);
    let (ok, out, err) = join(&folders, "b", &token);
    assert!(ok, "{out}{err}");
    let (_, status) = wait.wait_end(SOON);
    assert!(status.success(), "{:?}", wait.lines());
    assert_eq!(show(&folders, "a")["fingerprint"], show(&folders, "b")["fingerprint"]);
}

#[test]
fn an_expired_token_says_so() {
    let folders = Folders::new();
    let mut wait = layer_cake(&folders.mesh("a"), &["mesh", "invite", "--wait", "--expires", "1s"]);
    let wait = Program::start(&mut wait);
    let (_, token) = wait.wait_line(|line| line.starts_with("lc1-"), SOON);
    let (_, status) = wait.wait_end(SOON);
    assert!(!status.success());
    let (ok, _, err) = join(&folders, "b", &token);
    assert!(!ok && err.contains("expired"), "{err}");
}

#[test]
fn two_meshes_on_one_machine_never_see_each_other() {
    let folders = Folders::new();
    let (a, b) = (folders.mesh("a"), folders.mesh("b"));
    let _workers = Program::start(&mut layer_cake(&a, &["demo", "worker", "--workers", "1"]));
    let names = |mesh, json: &[&str]| {
        let (ok, out, err) = run(layer_cake(mesh, &[&["ls"], json].concat()));
        assert!(ok, "{err}");
        out
    };
    eventually(SOON, "the name in its own mesh", || {
        names(&a, &[]).contains("textures:worker").then_some(())
    });
    // Both directories have run beside each other for a while.
    let mut watch = layer_cake(&b, &["ls", "--watch", "--json"]);
    let watch = Program::start(&mut watch);
    let mut own: Command = layer_cake(&b, &["demo", "worker", "--workers", "1"]);
    let _own = Program::start(&mut own);
    watch.wait_line(|line| line.contains("textures:worker"), SOON);
    for _ in 0..3 {
        assert_eq!(names(&b, &["--json"]).lines().count(), 1, "its own worker and no other");
        assert_eq!(names(&a, &["--json"]).lines().count(), 1, "its own worker and no other");
    }
    assert!(watch.lines().len() == 1, "{:?}", watch.lines());
    drop(watch);
}
