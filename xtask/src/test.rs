//! Every check a change must pass, in the order in which they fail soonest.

use std::process::Command;

use anyhow::Result;

use crate::{
    cargo,
    setup::{self, has},
    steps::Steps,
};

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All there is.
    Everything,
    /// What runs within the test's own process, without hosts to set up.
    Fast,
}

/// Runs the checks; the first that fails ends the run.
pub(crate) fn run(extent: Extent) -> Result<()> {
    let mut steps = Steps::default();
    steps.act("setup", setup::run)?;
    steps.run("format", cargo().args(["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    steps.run("lints", cargo().args(lints))?;
    let documents = ["doc", "--workspace", "--no-deps", "--locked"];
    steps.run("documents", cargo().args(documents).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    // Tests start these as programs of their own.
    let programs = ["build", "--workspace", "--locked", "--bins", "--examples"];
    steps.run("programs", cargo().args(programs))?;
    if has("cargo-nextest") {
        steps.run("tests", &mut nextest(extent))?;
    } else {
        eprintln!("note: without cargo-nextest no test has a time limit");
        plain_tests(&mut steps, extent)?;
    }
    let doc_tests = ["test", "--workspace", "--locked", "--doc"];
    steps.run("doc tests", cargo().args(doc_tests))?;
    if has("cargo-deny") {
        let rules = ["deny", "--locked", "check", "bans", "licenses", "sources"];
        steps.run("dependencies", cargo().args(rules))?;
    } else {
        eprintln!("note: cargo-deny is not installed, so deny.toml is not checked");
    }
    steps.totals();
    Ok(())
}

/// `.config/nextest.toml` has the time limits, what runs one at a time, and what is `fast`.
fn nextest(extent: Extent) -> Command {
    let mut command = cargo();
    command.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    if extent == Extent::Fast {
        command.args(["--profile", "fast"]);
    }
    command
}

fn plain_tests(steps: &mut Steps, extent: Extent) -> Result<()> {
    let test = ["test", "--workspace", "--locked"];
    steps.run("unit tests", cargo().args(test).args(["--lib", "--bins"]))?;
    if extent == Extent::Everything {
        // One at a time, as stories with several hosts want.
        let stories = ["--test", "*", "--", "--test-threads=1"];
        steps.run("stories", cargo().args(test).args(stories))?;
    }
    Ok(())
}
