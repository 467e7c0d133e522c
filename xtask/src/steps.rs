//! Steps of a longer job, each announced, timed, and the end of the job if it fails.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The steps done so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs a command that must succeed.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.act(name, || {
            let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
            if !status.success() {
                bail!("{command:?} failed ({status})");
            }
            Ok(())
        })
    }

    /// Does what must succeed.
    pub(crate) fn act(&mut self, name: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("== {name}");
        let start = Instant::now();
        act().with_context(|| format!("step `{name}`"))?;
        let took = start.elapsed();
        eprintln!("== {name}: {:.1} s", took.as_secs_f64());
        self.done.push((name.to_owned(), took));
        Ok(())
    }

    /// Says what each step took, and all together, on one line.
    pub(crate) fn totals(&self) {
        let sum: Duration = self.done.iter().map(|(_, took)| *took).sum();
        let each: Vec<String> = self
            .done
            .iter()
            .map(|(name, took)| format!("{name} {:.1} s", took.as_secs_f64()))
            .collect();
        eprintln!("== done in {:.1} s: {}", sum.as_secs_f64(), each.join(", "));
    }
}
