//! Actors within one process: ours, the bare tokio task that many write instead, and other actor
//! libraries.
//!
//! Every measurement is a fresh child process (`layercake-benches actor NAME JOB`), so that what one
//! contestant leaves in the allocator, the runtime or a process-wide registry meets no other.
//! [`mod@work`] says what is done there and is the same code for all; [`kind`] is all that differs.
//! [`rounds`] runs the children in turn and compares.

mod actix;
mod bare;
mod kameo;
mod kind;
mod ours;
mod ractor;
mod rounds;
mod work;

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

use work::{Figures, Job, Size};

/// The contestant that all are compared with.
const YARDSTICK: &str = "tokio-bounded";
/// The libraries whose best is the other yardstick.
const LIBRARIES: [&str; 3] = ["ractor", "kameo", "actix"];
/// All, in the order of the tables.
const NAMES: [&str; 6] = [YARDSTICK, "tokio-unbounded", "ractor", "kameo", "actix", "layercake"];

/// What a mailbox holds before senders wait, where the contestant lets one choose; ours is fixed.
const MAILBOX: usize = layercake::MAILBOX;
/// A child that takes longer than this hangs.
const CHILD_TIME: Duration = Duration::from_secs(600);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// One task asks one actor and waits for each reply.
    #[value(name = "ask-1")]
    Ask1,
    /// As `ask-1`, 64 tasks.
    #[value(name = "ask-64")]
    Ask64,
    /// One task tells one actor; counted is what the actor has handled.
    #[value(name = "tell-1")]
    Tell1,
    /// As `tell-1`, four tasks.
    #[value(name = "tell-4")]
    Tell4,
    /// Many idle actors are started, asked once each, and ended.
    Spawn,
    /// The memory of these.
    Memory,
}

/// The options of `layercake-benches actors`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these contestants (default: all).
    names: Vec<String>,
    /// Rounds; each measures every contestant once, in a rotating order.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement of asks or tells, after a fifth of that to warm up.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Actors that `spawn` and `memory` start.
    #[arg(long, default_value_t = 1_000_000)]
    actors: usize,
    /// Only these measures (default: all).
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Also writes the result as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The options of the child process.
#[derive(Debug, Args)]
pub(crate) struct ChildOptions {
    name: String,
    #[command(subcommand)]
    job: ChildJob,
}

#[derive(Debug, Subcommand)]
enum ChildJob {
    Ask { askers: usize, seconds: f64 },
    Tell { senders: usize, seconds: f64 },
    Population { actors: usize },
}

/// Measures and prints.
///
/// # Errors
/// Options out of range, and children that fail.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds is at least 1");
    ensure!((0.05..=60.0).contains(&options.seconds), "--seconds is from 0.05 to 60");
    ensure!((1..=10_000_000).contains(&options.actors), "--actors is from 1 to 10000000");
    let size = Size { duration: Duration::from_secs_f64(options.seconds), actors: options.actors };
    let names = choose(&options.names)?;
    let result = rounds::run(&names, &options.only, options.rounds, &size)?;
    print!("{result}");
    if let Some(file) = &options.json {
        std::fs::write(file, result.to_json()?)?;
    }
    Ok(())
}

/// Prints the names of all contestants.
pub(crate) fn list() {
    for name in NAMES {
        println!("actors {name}");
    }
}

/// The child process: does one job with one contestant, and prints its figures as JSON.
///
/// # Errors
/// A contestant that fails.
pub(crate) fn run_child(options: &ChildOptions) -> Result<()> {
    thread::spawn(|| {
        thread::sleep(CHILD_TIME);
        eprintln!("error: no result within {CHILD_TIME:?}");
        std::process::exit(1);
    });
    let (job, size) = match options.job {
        ChildJob::Ask { askers, seconds } => (Job::Ask(askers), Size::lasting(seconds)?),
        ChildJob::Tell { senders, seconds } => (Job::Tell(senders), Size::lasting(seconds)?),
        ChildJob::Population { actors } => {
            (Job::Population, Size { duration: Duration::ZERO, actors })
        }
    };
    println!("{}", serde_json::to_string(&work(&options.name, job, &size)?)?);
    Ok(())
}

fn work(name: &str, job: Job, size: &Size) -> Result<Figures> {
    match name {
        "tokio-bounded" => work::run::<bare::Bounded>(job, size),
        "tokio-unbounded" => work::run::<bare::Unbounded>(job, size),
        "ractor" => work::run::<ractor::Ractor>(job, size),
        "kameo" => work::run::<kameo::Kameo>(job, size),
        "actix" => work::run::<actix::Actix>(job, size),
        "layercake" => work::run::<ours::Layercake>(job, size),
        _ => bail!("no contestant `{name}`: there are {}", NAMES.join(", ")),
    }
}

/// The contestants with these names, in the order of [`NAMES`]; all if there are none.
fn choose(wanted: &[String]) -> Result<Vec<&'static str>> {
    for name in wanted {
        if !NAMES.contains(&name.as_str()) {
            bail!("no contestant `{name}`: there are {}", NAMES.join(", "));
        }
    }
    let is_wanted = |name: &&str| wanted.is_empty() || wanted.iter().any(|other| other == name);
    Ok(NAMES.into_iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each contestant in turn, within this process and briefly.
    fn each(job: Job) -> Vec<(&'static str, Figures)> {
        let size = Size { duration: Duration::from_millis(50), actors: 200 };
        let figures = |name| work(name, job, &size).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        NAMES.iter().map(|name| (*name, figures(name))).collect()
    }

    #[test]
    fn every_contestant_answers_what_it_is_asked() {
        for (name, figures) in each(Job::Ask(4)) {
            assert!(figures.iter().all(|(_, value)| *value > 0.0), "{name}: {figures:?}");
        }
    }

    #[test]
    fn every_contestant_handles_all_that_it_is_told() {
        for (name, figures) in each(Job::Tell(2)) {
            assert!(figures.iter().all(|(_, value)| *value > 0.0), "{name}: {figures:?}");
        }
    }

    #[test]
    fn every_contestant_starts_many_actors_and_ends_them() {
        for (name, figures) in each(Job::Population) {
            assert_eq!(figures.len(), 5, "{name}: {figures:?}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let wanted = choose(&["layercake".into(), YARDSTICK.into()]).unwrap();
        assert_eq!(wanted, [YARDSTICK, "layercake"], "always in the same order");
        let refusal = choose(&["erlang".into()]).unwrap_err().to_string();
        assert!(refusal.contains("erlang") && refusal.contains("layercake"), "{refusal}");
    }
}
