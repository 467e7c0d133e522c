//! Automation of the workspace: `cargo xtask setup`, `test`, `soak`, `bench`.

mod setup;
mod steps;
mod test;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use steps::Steps;

const USAGE: &str = "\
usage: cargo xtask COMMAND

commands:
  setup           install what the tests need (Debian packages, as root, only what is missing)
  test [--fast]   set up, check format, lints and documents, then run every test;
                  --fast: only the tests that need no other host and no other process
  soak NAME [SECONDS]
                  a long run of what the tests do briefly, in a release build:
                  `chaos` (300 s): faults on three hosts at random;
                  on five hosts `loss` (60 s): a fifth of all packets; `partition` (30 s); `churn` (300 s): a
                  thousand names come and go a second; `starved` (600 s): twenty nodes beside four busy
                  loops, then a sick host; `idle` (60 s): what directories cost;
                  of pools under load `pools-kill` (30 s): a worker process is killed every second;
                  `pools-roll` (60 s): every worker of three hosts is replaced, again and again;
                  `pools-partition` (20 s): a host with workers is cut off for so long, twice
  soak directory [SEEDS]
                  the directory of 5 to 20 simulated hosts in trouble, from so many seeds (default:
                  10,000), and ten minutes of patience with the sick
  soak scale HOSTS NAMES
                  what so many simulated hosts with so many names each take
  simulate pools  the pool's scheduler beside other ways to spread requests: tables and plots of docs/pools.md
  bench [NAME...] measure all or these contestants side by side, in a release build
  bench actors [NAME...]
                  the same of actors within one process, beside other libraries
  bench load [SCENARIO...]
                  pools of processes with slow, failing and too few workers, and greedy callers";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("error: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    env::set_current_dir(top()?).context("cannot enter the workspace")?;
    match args[..] {
        ["setup"] => setup::run(),
        ["test"] => test::run(test::Extent::Everything),
        ["test", "--fast"] => test::run(test::Extent::Fast),
        ["soak", "directory"] => soak_directory("10000"),
        ["soak", "directory", seeds] => soak_directory(seeds),
        ["soak", "scale", hosts, names] => soak_scale(hosts, names),
        ["soak", name] => soak(name, None),
        ["soak", name, length] => soak(name, Some(length)),
        ["simulate", "pools"] => simulate_pools(),
        ["bench", "actors", ref names @ ..] => bench("actors", names),
        ["bench", "load", ref names @ ..] => bench("load", names),
        ["bench", ref names @ ..] => bench("ladder", names),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("cannot do `{}`\n{USAGE}", args.join(" ")),
    }
}

/// What can be soaked: its name, the test binary, the program that it starts beside `layer-cake`, what its
/// test begins with, and for how many seconds.
const SOAKS: [(&str, &str, &str, &str, u32); 9] = [
    ("chaos", "hosts_chaos", "", "", 300),
    ("loss", "hosts_names", "herald", "loss", 60),
    ("partition", "hosts_names", "herald", "partition", 30),
    ("churn", "hosts_names", "herald", "churn", 300),
    ("starved", "hosts_names", "herald", "starved", 600),
    ("idle", "hosts_names", "herald", "idle", 60),
    ("pools-kill", "pools_kill", "crew", "", 30),
    ("pools-roll", "hosts_pools", "crew", "roll", 60),
    ("pools-partition", "hosts_pools", "crew", "partition", 20),
];

fn soak(name: &str, seconds: Option<&str>) -> Result<()> {
    let Some((_, binary, program, test, usual)) = SOAKS.iter().find(|(known, ..)| *known == name)
    else {
        let names: Vec<_> = SOAKS.iter().map(|(name, ..)| *name).collect();
        bail!("there is no soak `{name}`; there are {}", names.join(", "));
    };
    let seconds: u32 = match seconds {
        Some(text) => text.parse().with_context(|| format!("`{text}` is no number of seconds"))?,
        None => *usual,
    };
    let mut steps = Steps::default();
    steps.act("setup", setup::run)?;
    let mut build = vec!["build", "--locked", "--release", "-p", "layercake", "--bins"];
    if !program.is_empty() {
        build.extend(["--example", program]);
    }
    steps.run("programs", cargo().args(build))?;
    let mut run = cargo();
    run.args(["test", "--locked", "--release", "-p", "layercake", "--test", binary]);
    run.args(["--", test, "--nocapture"]).env("LAYERCAKE_SOAK_SECONDS", seconds.to_string());
    steps.run(name, &mut run)?;
    steps.totals();
    Ok(())
}

fn soak_directory(seeds: &str) -> Result<()> {
    let _: u64 = seeds.parse().with_context(|| format!("`{seeds}` is no number of seeds"))?;
    let mut steps = Steps::default();
    steps.run("seeds", simulation("sim::chaos::").env("LAYERCAKE_SIM_SEEDS", seeds))?;
    steps.run("patience", &mut simulation("sim::patience::"))?;
    steps.totals();
    Ok(())
}

fn soak_scale(hosts: &str, names: &str) -> Result<()> {
    for number in [hosts, names] {
        let _: u32 = number.parse().with_context(|| format!("`{number}` is no number"))?;
    }
    let mut steps = Steps::default();
    let mut scale = simulation("sim::scale::");
    scale.arg("--test-threads=1");
    steps
        .run("scale", scale.env("LAYERCAKE_SIM_HOSTS", hosts).env("LAYERCAKE_SIM_NAMES", names))?;
    steps.totals();
    Ok(())
}

fn simulate_pools() -> Result<()> {
    let mut steps = Steps::default();
    let run = ["run", "--locked", "--quiet", "--package", "layercake-benches", "--"];
    steps.run("pools", cargo().args(run).args(["pools", "--write", "docs/pools.md"]))?;
    steps.totals();
    Ok(())
}

/// Some of the directory's simulations, in a release build.
fn simulation(which: &str) -> Command {
    let mut command = cargo();
    command.args(["test", "--locked", "--release", "-p", "layercake-directory", "--lib", which]);
    command.args(["--", "--nocapture"]);
    command
}

/// Runs `layercake-benches KIND NAMES`.
fn bench(kind: &str, names: &[&str]) -> Result<()> {
    if let Some(option) = names.iter().find(|name| name.starts_with('-')) {
        bail!("`{option}` is no contestant; for options run `layercake-benches {kind}` itself");
    }
    setup::for_measuring()?;
    let mut steps = Steps::default();
    let mut build = vec!["build", "--locked", "--release", "-p", "layercake-benches", "--bins"];
    if kind == "ladder" {
        build.extend(["-p", "layercake"]);
    }
    steps.run("build", cargo().args(build))?;
    let run = ["run", "--locked", "--release", "--quiet", "--package", "layercake-benches"];
    steps.run(kind, cargo().args(run).args(["--", kind]).args(names))?;
    steps.totals();
    Ok(())
}

/// The `cargo` that runs this program.
fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The top folder of the workspace.
fn top() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Path::to_path_buf).context("xtask is a folder of the workspace")
}
