//! The other process of a contestant: this program again, as `serve NAME`.
//!
//! It says `ready` and what a client needs to know on one line, and ends when its standard input
//! does, so that it never outlives the measurement.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    process::{self, Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};

/// A serving process, ended on drop.
pub(crate) struct OtherEnd {
    child: Child,
    /// What it said about how to reach it.
    pub(crate) reach: Vec<String>,
}

impl OtherEnd {
    /// Starts `serve NAME ARGS` and waits until it is ready.
    pub(crate) fn start(name: &str, args: &[&str]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["serve", name])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the server of {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut other_end = Self { child, reach: Vec::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        ensure!(words.next().as_deref() == Some("ready"), "the server of {name} did not start");
        other_end.reach = words.collect();
        Ok(other_end)
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The word at this place of what it said.
    pub(crate) fn word(&self, place: usize) -> Result<&str> {
        self.reach.get(place).map(String::as_str).context("the server said too little")
    }
}

impl Drop for OtherEnd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Called by the serving process once it can answer.
pub(crate) fn ready(reach: &[&str]) -> Result<()> {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0); // the starter is gone
    });
    let mut stdout = io::stdout();
    writeln!(stdout, "ready {}", reach.join(" "))?;
    Ok(stdout.flush()?)
}
