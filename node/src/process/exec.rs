//! Becoming another program: what a process of this binary does that was started for a foreign one. It
//! sets what must not outlive the parent, and the limits, and then turns into that program.

use std::{os::unix::process::CommandExt, process::Command};

use rustix::process::{Resource, Rlimit, Signal, getppid, setrlimit};
use serde::{Deserialize, Serialize};

/// The first argument of a process that is to become a foreign program; the second one says how.
pub(crate) const EXEC_ARGUMENT: &str = "layercake-exec";

/// Limits of a process; those left out are the parent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of address space.
    pub memory: Option<u64>,
    /// Seconds of processor time, after which it is ended.
    pub cpu_seconds: Option<u64>,
    /// Open files.
    pub files: Option<u64>,
}

impl Limits {
    /// Binds this process.
    pub(crate) fn apply(&self) -> Result<(), String> {
        let limits = [
            (Resource::As, self.memory),
            (Resource::Cpu, self.cpu_seconds),
            (Resource::Nofile, self.files),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                let both = Rlimit { current: Some(limit), maximum: Some(limit) };
                setrlimit(resource, both)
                    .map_err(|e| format!("cannot limit {resource:?} to {limit}: {e}"))?;
            }
        }
        Ok(())
    }
}

/// What to become.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) program: std::path::PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) limits: Limits,
    /// Who started it; where that is no longer the parent, the parent has died meanwhile.
    pub(crate) parent: u32,
}

/// Becomes the program, or says why not.
pub(crate) fn become_program(what: &str) -> String {
    let exec: Exec = match serde_json::from_str(what) {
        Ok(exec) => exec,
        Err(error) => return format!("`{EXEC_ARGUMENT}` is for child processes only: {error}"),
    };
    // It stays set when the program is replaced.
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("cannot be tied to the parent process: {error}");
    }
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(exec.parent) {
        return "the parent process has ended".to_owned();
    }
    if let Err(reason) = exec.limits.apply() {
        return reason;
    }
    let error = Command::new(&exec.program).args(&exec.arguments).exec();
    format!("cannot start `{}`\n  cause: {error}", exec.program.display())
}
