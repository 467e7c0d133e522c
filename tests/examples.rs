//! The four examples of a pool: they differ in one argument, and each of them runs.

mod support;

use std::process::Command;

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, assert_table, built, curl, free_port, layer_cake, of_mesh};

const EXAMPLES: [&str; 4] = ["tasks", "threads", "processes", "hosts"];

/// The program text of an example, without the comment at its head.
fn program(name: &str) -> Vec<String> {
    let path = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect(&path);
    text.lines().filter(|line| !line.starts_with("//!")).map(str::to_owned).collect()
}

#[test]
fn one_argument_is_all_that_changes() {
    let first = program("tasks");
    for name in &EXAMPLES[1..] {
        let other = program(name);
        assert_eq!(first.len(), other.len(), "{name}");
        let different: Vec<_> = first.iter().zip(&other).filter(|(a, b)| a != b).collect();
        assert_eq!(different.len(), 1, "{name}: {different:?}");
        assert!(different[0].0.contains(".tasks(4)"), "{name}: {different:?}");
    }
}

#[test]
fn each_of_them_serves_tables() {
    for name in EXAMPLES {
        let folders = Folders::new();
        let mesh = folders.mesh("host");
        let _workers = (name == "hosts")
            .then(|| Program::start(&mut layer_cake(&mesh, &["demo", "worker", "--workers", "2"])));
        let listen = format!("127.0.0.1:{}", free_port());
        let example = Command::new(built(name));
        let example = Program::start(&mut of_mesh(example, &mesh, &[&listen]));
        let url = format!("http://{listen}/Xy?x=3&y=2");
        let body = eventually(SOON, name, || {
            let (status, body) = curl(&[&url]);
            (status == 200).then_some(body)
        });
        assert_table(&body, 3, 2);
        example.signal(15);
        let (_, status) = example.wait_end(SOON);
        assert!(status.success(), "{name}: {:?}", example.lines());
    }
}
