//! What the process and host stories share: the built command, mesh folders, curl.
#![allow(dead_code, unreachable_pub)]

pub mod browser;
pub mod crew;
pub mod machine;
pub mod offer;

use std::{
    fs::DirBuilder,
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// For what takes no time but may meet a machine that is busy.
pub const SOON: Duration = Duration::from_secs(15);

/// The command under test.
pub const LAYER_CAKE: &str = env!("CARGO_BIN_EXE_layer-cake");

/// An example or a program for tests, built beside the test's own binary, which is in `deps`.
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this test's path");
    own.ancestors().nth(2).expect("a target folder").join("examples").join(name)
}

/// Lets time pass where time itself is the story: a load, a fault or a measurement that is to last. The one
/// place where a story waits for nothing else; every other wait is for a condition.
pub fn let_pass(span: Duration) {
    thread::sleep(span);
}

/// For how long the part of a story lasts that is to be long: what a soak was told, or so many seconds.
pub fn length(seconds: u64) -> Duration {
    let told = std::env::var("LAYERCAKE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(told.unwrap_or(seconds))
}

/// A place for mesh folders that goes with the test.
pub struct Folders(tempfile::TempDir);

impl Folders {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// The mesh folder of a host.
    pub fn mesh(&self, host: &str) -> PathBuf {
        self.0.path().join(host)
    }
}

/// Makes a command a `layer-cake` of that mesh folder.
pub fn of_mesh(mut command: Command, mesh: &Path, arguments: &[&str]) -> Command {
    command.args(arguments).env("LAYERCAKE_MESH", mesh).env("NO_COLOR", "1");
    // Beside the mesh folder, so that it goes with the test.
    let runtime = mesh.with_extension("run");
    let _ = DirBuilder::new().mode(0o700).create(&runtime);
    command.env("XDG_RUNTIME_DIR", runtime);
    command.env("LAYERCAKE_LOG", std::env::var("LAYERCAKE_LOG").unwrap_or_else(|_| "warn".into()));
    command
}

/// `layer-cake` on this machine.
pub fn layer_cake(mesh: &Path, arguments: &[&str]) -> Command {
    of_mesh(Command::new(LAYER_CAKE), mesh, arguments)
}

/// Runs a command to its end: whether it succeeded, its stdout, its stderr.
pub fn run(mut command: Command) -> (bool, String, String) {
    let output = command.output().expect("the command starts");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    )
}

/// Makes a command a curl that prints the body and, on a line of its own, the status (0: no answer).
pub fn curl_by(mut command: Command, arguments: &[&str]) -> (u16, String) {
    command.args(["-s", "--max-time", "40", "-w", "\n%{http_code}"]).args(arguments);
    let output = command.output().expect("curl is installed: `cargo xtask setup`");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    (status.parse().unwrap_or(0), body.to_owned())
}

/// curl on this machine.
pub fn curl(arguments: &[&str]) -> (u16, String) {
    curl_by(Command::new("curl"), arguments)
}

/// Milliseconds since 1970, by the clock that all hosts of a lab have.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("not that late")
}

/// A port on loopback that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").port()
}

/// Checks that a body is a table of that size with numbers from 0 to 1.
pub fn assert_table(body: &str, columns: usize, rows: usize) {
    let table: Vec<Vec<f64>> = serde_json::from_str(body).expect(body);
    assert_eq!(table.len(), rows, "{body}");
    for row in table {
        assert_eq!(row.len(), columns, "{body}");
        assert!(row.iter().all(|v| (0.0..1.0).contains(v)), "{body}");
    }
}

/// The worker processes among some process ids (all of this machine's where none are given) that
/// belong to a mesh folder.
pub fn workers_of(mesh: &Path, among: Option<&[u32]>) -> Vec<u32> {
    let all = || {
        std::fs::read_dir("/proc")
            .expect("a Linux machine")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    };
    let mut pids: Vec<u32> = among.map_or_else(all, <[u32]>::to_vec);
    pids.retain(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_worker = command.split(|b| *b == 0).nth(1) == Some(b"layercake-worker");
        let wanted = format!("LAYERCAKE_MESH={}", mesh.display());
        is_worker && environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes())
    });
    pids
}

/// The resident memory of a process that runs, in KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("process {pid} has memory: {status}"))
}

/// Kills a process that a test of ours has started.
pub fn kill_9(pid: u32) {
    let done = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(done.expect("kill is there").success(), "process {pid} was there to be killed");
}
