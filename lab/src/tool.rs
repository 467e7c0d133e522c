//! Running the system's programs: where they are, and what to say when one fails.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::Unavailable;

/// Programs every lab needs, with the Debian package of each. `iptables` is asked for where a filter is
/// used.
const NEEDED: [(&str, &str); 1] = [("ip", "iproute2")];

/// Where administration programs are although an ordinary user's `PATH` leaves them out.
const ADMIN_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Checks that every program the lab is made with is there.
pub(crate) fn check_all() -> Result<(), Unavailable> {
    for (tool, package) in NEEDED {
        find(tool).ok_or(Unavailable::ToolMissing { tool, package })?;
    }
    Ok(())
}

/// Finds a program on `PATH` or in the folders for administration.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ADMIN_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command for a program, found as [`find`] does; if absent, the error comes when it is started.
pub(crate) fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// Runs to the end and returns what was printed; the error is the command line and its complaint.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let shown = show(command);
    let done = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| format!("cannot run `{shown}`: {cause}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    Err(format!("`{shown}`: {} ({})", complaint.trim(), done.status))
}

/// The command line as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args().map(OsStr::to_string_lossy) {
        shown.push(' ');
        shown.push_str(&arg);
    }
    shown
}
