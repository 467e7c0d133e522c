//! What tests and measurements need: Debian packages, and the ancestor, a Python package.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// Programs that must be there, with the package of each.
const NEEDED: [(&str, &str); 14] = [
    ("curl", "curl"),
    ("etcd", "etcd-server"),
    ("wrk", "wrk"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("ping", "iputils-ping"),
    ("ps", "procps"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("dbus-daemon", "dbus-daemon"),
    ("avahi-daemon", "avahi-daemon"),
    ("avahi-browse", "avahi-utils"),
    // The mesh page is tested in a real browser.
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// The ancestor, as Python's package.
const ANCESTOR: &str = "seven-layer-cake==1.0.10";
/// How long it may take to make a folder for it, and to fetch it, in seconds.
const VENV_TIME: u32 = 60;
const PIP_TIME: u32 = 120;

/// Where administration programs are although `PATH` may leave them out.
const ADMIN_FOLDERS: &str = "/usr/sbin:/sbin";

/// What measurements need besides.
const MEASURING: [(&str, &str); 2] = [("nginx", "nginx-light"), ("h2load", "nghttp2-client")];

/// Installs what tests need and is missing, as root; otherwise says what to install and goes on.
pub(crate) fn run() -> Result<()> {
    install(&NEEDED)?;
    ancestor();
    Ok(())
}

/// Installs what measurements need, in the same way.
pub(crate) fn for_measuring() -> Result<()> {
    install(&[&NEEDED[..], &MEASURING].concat())
}

fn install(needed: &[(&'static str, &'static str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { debian(&missing) }
}

fn debian(missing: &[&str]) -> Result<()> {
    let packages = missing.join(" ");
    if !is_root() || !has("apt-get") {
        eprintln!("note: not everything can run; install {packages} for that");
        return Ok(());
    }
    apt_get(&["update", "-qq"])?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    apt_get(&[&install[..], missing].concat())
}

/// Installs the ancestor in a folder of its own, for the story that its client is served. Without it that
/// story is skipped, which is no failure: a registry may be out of reach, or silent.
fn ancestor() {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let place = Path::new(&target).join("ancestor");
    let python = place.join("bin/python");
    if done(Command::new(&python).args(["-c", "import layer_cake"])).is_ok() {
        return;
    }
    let venv = || done(within(VENV_TIME).args(["python3", "-m", "venv"]).arg(&place));
    let pip = || {
        let install = ["-m", "pip", "install", "--quiet", "--no-input"];
        let patience = ["--disable-pip-version-check", "--retries", "1", "--timeout", "10"];
        done(within(PIP_TIME).arg(&python).args(install).args(patience).arg(ANCESTOR))
    };
    if let Err(why) = venv().and_then(|()| pip()) {
        eprintln!("note: the ancestor's client will be SKIPPED, {ANCESTOR} cannot be had: {why}");
    }
}

/// A command that is ended after so many seconds.
fn within(seconds: u32) -> Command {
    let mut command = Command::new("timeout");
    command.arg(seconds.to_string());
    command
}

/// Runs a command, silently.
///
/// # Errors
/// The last thing that it said, or how it ended.
fn done(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    Err(last.map_or_else(|| format!("{command:?}: {}", output.status), str::to_owned))
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(env::split_paths(ADMIN_FOLDERS));
    folders.map(|folder| folder.join(program)).any(|candidate| candidate.is_file())
}

fn is_root() -> bool {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
