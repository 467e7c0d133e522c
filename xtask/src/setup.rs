//! Debian packages that tests and measurements need.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// Programs that must be there, with the package of each.
const NEEDED: [(&str, &str); 12] = [
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
];

/// Where administration programs are although `PATH` may leave them out.
const ADMIN_FOLDERS: &str = "/usr/sbin:/sbin";

/// What measurements need besides.
const MEASURING: [(&str, &str); 2] = [("nginx", "nginx-light"), ("h2load", "nghttp2-client")];

/// Installs what tests need and is missing, as root; otherwise says what to install and goes on.
pub(crate) fn run() -> Result<()> {
    install(&NEEDED)
}

/// Installs what measurements need, in the same way.
pub(crate) fn for_measuring() -> Result<()> {
    install(&[&NEEDED[..], &MEASURING].concat())
}

fn install(needed: &[(&'static str, &'static str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !is_root() || !has("apt-get") {
        eprintln!("note: not everything can run; install {packages} for that");
        return Ok(());
    }
    apt_get(&["update", "-qq"])?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    apt_get(&[&install[..], &missing].concat())
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
