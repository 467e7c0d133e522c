//! A new process takes the port of the running one, under load, twenty times: no connection is refused and
//! no request fails.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, layer_cake};

const ROUNDS: usize = 20;

fn start(folders: &Folders, listen: &str, more: &[&str]) -> (Program, SocketAddr) {
    let usual = ["demo", "--workers", "1", "--listen", listen];
    let demo = Program::start(&mut layer_cake(&folders.mesh("host"), &[&usual[..], more].concat()));
    let (_, line) = demo.wait_line(|line| line.starts_with("ready: "), SOON);
    (demo, line["ready: http://".len()..].parse().expect(&line))
}

/// Asks over one connection, until it is told that it ends or `once`; how many answers came.
fn ask(addr: SocketAddr, once: bool, over: &AtomicBool) -> Result<usize, String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect(addr).map_err(|e| failed("connect", e))?;
    stream.set_read_timeout(Some(SOON)).map_err(|e| failed("set", e))?;
    let mut reader = BufReader::new(stream.try_clone().map_err(|e| failed("clone", e))?);
    let mut answers = 0;
    loop {
        let request = b"GET /Xy?x=2&y=2 HTTP/1.1\r\nhost: test\r\n\r\n";
        stream.write_all(request).map_err(|e| failed("send", e))?;
        let (mut head, mut length, mut last) = (String::new(), 0, once);
        loop {
            let mut line = String::new();
            let count = reader.read_line(&mut line).map_err(|e| failed("head", e))?;
            if count == 0 {
                return Err(format!("closed after {answers} answers and `{head}`"));
            }
            let lower = line.trim().to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length: ") {
                length = value.parse().map_err(|_| line.clone())?;
            }
            last |= lower == "connection: close";
            if lower.is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(|e| failed("body", e))?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{head}{}", String::from_utf8_lossy(&body)));
        }
        answers += 1;
        if last || over.load(Relaxed) {
            return Ok(answers);
        }
    }
}

#[test]
fn twenty_processes_follow_each_other_and_no_request_fails() {
    let folders = Folders::new();
    let (mut running, addr) = start(&folders, "127.0.0.1:0", &[]);
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|n| {
            let (over, answered) = (over.clone(), answered.clone());
            thread::spawn(move || {
                while !over.load(Relaxed) {
                    answered.fetch_add(ask(addr, n % 2 == 0, &over)?, Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let (next, _) = start(&folders, &addr.to_string(), &["--take-over"]);
        let (_, status) = running.wait_end(SOON);
        assert!(status.success(), "round {round}: {status}: {:?}", running.lines());
        running = next;
        let before = answered.load(Relaxed);
        eventually(SOON, "answers of the new one", || {
            (answered.load(Relaxed) > before + 20).then_some(())
        });
        if let Some(failed) = clients.iter().position(thread::JoinHandle::is_finished) {
            println!("client {failed} has ended in round {round}");
            break;
        }
    }
    over.store(true, Relaxed);
    for client in clients {
        client.join().expect("no panic").expect("no failure");
    }
    println!("{ROUNDS} hand-overs, {} answers, none failed", answered.load(Relaxed));
}

#[test]
fn a_listener_that_systemd_opened_is_used() {
    let folders = Folders::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    // A shell in systemd's place: descriptor 3, and the variables for the process that it becomes.
    let activated = layer_cake(&folders.mesh("host"), &[]);
    let program = activated.get_program().to_owned();
    let script = format!(
        r#"exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" demo --pool tasks --workers 1 --listen {addr}"#
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(program);
    let copy = listener.try_clone().expect("a copy");
    shell.stdin(OwnedFd::from(copy));
    for (name, value) in activated.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let mut demo = shell.stdout(Stdio::piped()).spawn().expect("a shell");
    let mut said = BufReader::new(demo.stdout.take().expect("its output"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    let answer = ask(addr, true, &AtomicBool::new(false));
    demo.kill().expect("an end");
    let _ = demo.wait();
    assert_eq!(line.trim(), format!("ready: http://{addr}"));
    answer.expect("an answer");
}

#[test]
fn a_process_that_dies_before_it_is_ready_changes_nothing() {
    let folders = Folders::new();
    let (running, addr) = start(&folders, "127.0.0.1:0", &[]);
    // No worker, so that it never becomes ready: those of the gateway are on the LAN, and there are none.
    let arguments = ["demo", "gateway", "--listen", &addr.to_string(), "--take-over"];
    let doomed = Program::start(&mut layer_cake(&folders.mesh("host"), &arguments));
    let never = AtomicBool::new(false);
    for _ in 0..20 {
        ask(addr, true, &never).expect("an answer of the one that runs");
    }
    doomed.signal(9);
    let _ = doomed.wait_end(SOON);
    ask(addr, true, &never).expect("an answer of the one that runs");

    let (next, _) = start(&folders, &addr.to_string(), &["--take-over"]);
    let (_, status) = running.wait_end(SOON);
    assert!(status.success(), "{status}");
    ask(addr, true, &never).expect("an answer of the next one");
    next.signal(15);
    assert!(next.wait_end(SOON).1.success());
}
