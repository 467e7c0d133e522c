//! The host directory without installation: it lives in the first process, and outlives it.

mod support;

use std::time::Instant;

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, assert_table, curl, free_port, layer_cake, run};

#[test]
fn when_the_process_with_the_directory_is_killed_another_takes_over() {
    let folders = Folders::new();
    let mesh = folders.mesh("host");
    // The first process on the host that needs the directory serves it.
    let directory = Program::start(&mut layer_cake(&mesh, &["ls", "--watch", "none:.*"]));
    let runtime = eventually(SOON, "the directory's socket", || directory_socket(&mesh));
    let first = std::fs::read_link(&runtime).expect("a well-known name");

    let workers = Program::start(&mut layer_cake(&mesh, &["demo", "worker", "--workers", "2"]));
    let listen = format!("127.0.0.1:{}", free_port());
    let gateway = Program::start(&mut layer_cake(&mesh, &["demo", "gateway", "--listen", &listen]));
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    let url = format!("http://{listen}/Xy?x=2&y=2");
    let watch = Program::start(&mut layer_cake(&mesh, &["ls", "--watch"]));
    eventually(SOON, "both workers in view", || {
        (watch.lines().iter().filter(|l| l.text.contains("textures:worker")).count() == 2)
            .then_some(())
    });

    directory.signal(9);
    directory.wait_end(SOON);
    let killed = Instant::now();
    // Sessions do not need the directory: not one request fails meanwhile.
    let mut asked = 0;
    let taken_over = loop {
        let (status, body) = curl(&[&url]);
        assert_eq!(status, 200, "after {asked} requests: {body}");
        assert_table(&body, 2, 2);
        asked += 1;
        let now = std::fs::read_link(&runtime).ok();
        if now.is_some_and(|now| now != first) {
            break killed.elapsed();
        }
        assert!(killed.elapsed() < SOON, "nobody took over");
    };
    let (ok, out, err) = run(layer_cake(&mesh, &["ls", "--json"]));
    assert!(ok, "{err}");
    assert_eq!(out.lines().filter(|l| l.contains("textures:worker")).count(), 2, "{out}");
    println!("taken over after {taken_over:?}, {asked} requests meanwhile");
    let flapped: Vec<_> =
        watch.lines().into_iter().filter(|l| l.text.contains("dropped")).collect();
    assert!(flapped.is_empty(), "no worker left, so none is dropped: {flapped:?}");
    drop((workers, gateway));
}

/// The well-known name of the directory's socket, once it is served.
fn directory_socket(mesh: &std::path::Path) -> Option<std::path::PathBuf> {
    let runtime = std::fs::read_to_string(mesh.join("runtime")).ok()?;
    let socket = std::path::Path::new(runtime.trim()).join("directory.sock");
    std::fs::read_link(&socket).is_ok().then_some(socket)
}

#[test]
fn a_name_is_seen_whoever_starts_first() {
    for watch_first in [true, false] {
        let folders = Folders::new();
        let mesh = folders.mesh("host");
        let watch = || Program::start(&mut layer_cake(&mesh, &["ls", "--watch"]));
        let worker =
            || Program::start(&mut layer_cake(&mesh, &["demo", "worker", "--workers", "1"]));
        let (watch, worker) = if watch_first {
            let watch = watch();
            (watch, worker())
        } else {
            let worker = worker();
            (watch(), worker)
        };
        watch.wait_line(|line| line.starts_with("available"), SOON);
        // Leaving in order is told apart from dying.
        worker.signal(15);
        let (_, line) = watch.wait_line(|line| line.starts_with("dropped"), SOON);
        assert!(line.contains("withdrawn"), "{line}");
    }
}
