//! The lab's own promises: packets cross, faults bite and heal, nothing is left behind.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use layercake_lab::{Host, Lab, Program, eventually, lab};

const SOON: Duration = Duration::from_secs(10);

/// Whether one of up to `tries` pings is answered within its second.
fn reaches(from: &Host, to: &Host, tries: usize) -> bool {
    (0..tries).any(|_| {
        let to = to.address().to_string();
        let ping = from.command("ping").args(["-c1", "-W1", &to]).output().expect("`ip` runs");
        ping.status.success()
    })
}

fn beacon(host: &Host, role: &str) -> Program {
    let mut command = host.command(env!("CARGO_BIN_EXE_layercake-lab-beacon"));
    Program::start(command.args([role, &host.address().to_string()]))
}

fn namespaces_of(story: &str) -> Vec<String> {
    let Ok(folder) = fs::read_dir("/run/netns") else { return Vec::new() };
    let names = folder.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(story)).collect()
}

#[test]
fn a_pulled_cable_stops_packets_until_it_is_back() {
    let Some(lab) = lab!("cable") else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    assert!(reaches(&a, &b, 3));
    b.cable(false);
    assert!(!reaches(&a, &b, 1));
    b.cable(true);
    eventually(SOON, "the ping after the cable is back", || reaches(&a, &b, 1).then_some(()));
}

#[test]
fn multicast_crosses_the_switch_unless_it_is_blocked() {
    let Some(lab) = lab!("multicast") else { return };
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    c.block_multicast();
    let listeners = [beacon(&b, "listen"), beacon(&c, "listen")];
    for listener in &listeners {
        listener.wait_line(|line| line == "listening", SOON);
    }
    let heard = format!("heard {}", a.address());
    let _sender = beacon(&a, "send");
    // Several greetings, so that silence at the blocked host means something.
    eventually(SOON, "three greetings at b", || {
        let count = listeners[0].lines().iter().filter(|line| line.text == heard).count();
        (count >= 3).then_some(())
    });
    assert!(listeners[1].lines().iter().all(|line| line.text != heard), "c was to hear nothing");
    assert!(reaches(&a, &c, 3), "c blocks multicast alone");
    c.heal();
    listeners[1].wait_line(|line| line == heard, SOON);
}

#[test]
fn a_filter_bites_on_one_side_and_heals() {
    let Some(lab) = lab!("filter") else { return };
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    b.block_from(&a);
    assert!(!reaches(&a, &b, 1));
    assert!(reaches(&c, &b, 3), "only a is blocked");
    b.heal();
    assert!(reaches(&a, &b, 3));
    b.drop_input(1.0);
    assert!(!reaches(&c, &b, 1));
    assert!(reaches(&b, &b, 1), "loopback is not touched");
    b.heal();
    b.drop_input(0.5);
    assert!(reaches(&c, &b, 20), "half of the packets arrive");
}

#[test]
fn a_dead_host_has_no_programs_and_no_word_left() {
    let Some(lab) = lab!("power") else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    let sleepers = [(); 3].map(|()| Program::start(b.command("sleep").arg("60")));
    eventually(SOON, "three programs on b", || (b.pids().len() == 3).then_some(()));
    assert!(b.pids().contains(&sleepers[0].pid()), "a program's pid is its own");
    b.lose_power();
    assert!(b.pids().is_empty());
    for sleeper in &sleepers {
        assert!(!sleeper.wait_end(SOON).1.success());
    }
    assert!(!reaches(&a, &b, 1));
    assert!(a.pids().is_empty(), "a had none to begin with");
}

#[test]
fn a_program_is_heard_signalled_and_ended() {
    let Some(lab) = lab!("program") else { return };
    let a = lab.host("a");
    let before = Instant::now();
    let script = "trap 'echo caught' TERM; echo one; echo two >&2; while :; do sleep 0.05; done";
    let program = Program::start(a.command("sh").args(["-c", script]));
    let (at, _) = program.wait_line(|line| line == "two", SOON);
    assert!(at >= before);
    program.signal(15);
    program.wait_line_since(at, |line| line == "caught", SOON);
    assert!(program.ended().is_none());
    drop(program);
    eventually(SOON, "an empty host", || a.pids().is_empty().then_some(()));

    let short = Program::start(a.command("sh").args(["-c", "echo all there is; exit 3"]));
    assert_eq!(short.wait_end(SOON).1.code(), Some(3));
    let missed = catch_unwind(AssertUnwindSafe(|| short.wait_line(|line| line == "more", SOON)));
    let message = *missed.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("all there is"), "the panic shows the output: {message}");
}

#[test]
fn everything_goes_when_the_story_panics() {
    let Some(lab) = lab!("panicking") else { return };
    let pids = catch_unwind(AssertUnwindSafe(move || {
        let a = lab.host("a");
        assert_eq!(namespaces_of("panicking").len(), 2, "a host and the switch");
        let pids = [(); 5].map(|()| {
            let program = Program::start(a.command("sleep").arg("60"));
            program.signal(19); // stopped, probably while it is still about to enter its host
            let pid = program.pid();
            assert!(a.pids().contains(&pid), "it counts, wherever it is");
            std::mem::forget(program); // as if it had been started by other means
            pid
        });
        std::panic::resume_unwind(Box::new(pids));
    }));
    let pids = *pids.unwrap_err().downcast::<[u32; 5]>().expect("the story ends with pids");
    assert_eq!(namespaces_of("panicking"), Vec::<String>::new());
    let gone = || pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    eventually(SOON, "the end of the programs", gone);
}

#[test]
fn what_a_killed_test_left_is_swept_by_the_next() {
    let Some(_lab) = lab!("sweeping") else { return };
    // No process has so high a pid: the kernel's limit is 2^22.
    let stale = "lclab-4194305-1-0-killedstory-a";
    let made = Command::new("ip").args(["netns", "add", stale]).status().unwrap();
    assert!(made.success());
    let next = Lab::new("sweeping_next").unwrap();
    assert_eq!(namespaces_of("killedstory"), Vec::<String>::new());
    assert!(!namespaces_of("sweeping_next").is_empty());
    drop(next);
}

/// As root the stories above take the direct way; this plays one of them as an ordinary user.
#[test]
fn an_ordinary_user_gets_a_lab_too() {
    let user = Command::new("id").arg("-u").output().expect("`ip` runs");
    if user.stdout != b"0\n" || env::var_os("LAYERCAKE_LAB_INSIDE").is_some() {
        return; // then the other stories have gone this way
    }
    // The target folder may be closed to others.
    let folder = env::temp_dir().join(format!("layercake-lab-test-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let binary = folder.join("lab");
    fs::copy(env::current_exe().unwrap(), &binary).unwrap();
    let story = "a_pulled_cable_stops_packets_until_it_is_back";
    let played = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(&binary)
        .args([story, "--exact", "--nocapture"])
        .current_dir(&folder)
        .env("TMPDIR", &folder)
        .env("HOME", &folder)
        .output();
    fs::remove_dir_all(&folder).unwrap();
    let played = played.unwrap();
    let said = String::from_utf8_lossy(&played.stdout);
    let complaint = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{said}{complaint}");
    if let Some(why) = said.lines().find(|line| line.contains("SKIPPED")) {
        assert!(env::var_os("CI").is_none(), "the unprivileged way must work in CI: {why}");
        println!("{why}");
        return;
    }
    // The outer test and its inner self each report one test that passed.
    assert_eq!(said.matches("1 passed").count(), 2, "{said}");
}
