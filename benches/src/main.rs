//! Measurements: layer-cake and the yardsticks beside it, taken in the same run.
//!
//! Absolute figures belong to a machine and a day; ratios between contestants of one run travel.
//! `layercake-benches ladder` measures requests to other processes, `layercake-benches actors` actors
//! within one, `layercake-benches names` a host directory with very many names; `layercake-benches pools`
//! simulates a pool's scheduler. `serve` is the other process of a contestant and `actor` the process of one
//! measurement; both are started by the former.

mod actors;
mod contestant;
mod ladder;
mod load;
mod load_tools;
mod names;
mod other_end;
mod ours;
mod pools;
mod sample;
mod yard;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use contestant::{Contestant, Load};

#[derive(Parser)]
#[command(about = "Measures layer-cake beside its yardsticks")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures contestants in interleaved rounds and prints medians and ratios.
    Ladder {
        /// Only these contestants (default: all).
        names: Vec<String>,
        /// Rounds; each measures every contestant once, in a rotating order.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each measurement, after a fifth of that to warm up.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Requests in flight (connections, for HTTP).
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
        /// Bytes of each request and of each reply (not for HTTP).
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// The contestant the others are compared with (default: the first measured).
        #[arg(long)]
        against: Option<String>,
        /// Also writes the result as JSON to this file.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Measures actors within one process, ours beside bare tokio tasks and other libraries.
    Actors(actors::Options),
    /// Fills a host directory with names: memory, publications each second, time of a pattern.
    Names(names::Options),
    /// Simulates the pool's scheduler beside other ways to spread requests.
    Pools(pools::Options),
    /// Puts pools of worker processes under load: slow, failing and too few workers, greedy callers.
    Load(load::Options),
    /// Lists the contestants.
    List,
    /// Serves one contestant until its starter goes away.
    #[command(hide = true)]
    Serve { name: String, args: Vec<String> },
    /// Takes one measurement of `actors`.
    #[command(hide = true)]
    Actor(actors::ChildOptions),
}

/// Everybody on the ladder, strongest yardstick first.
fn contestants() -> Vec<Box<dyn Contestant>> {
    yard::contestants().into_iter().chain(ours::contestants()).collect()
}

/// Runs the serving process of a contestant.
fn serve(name: &str, args: &[String]) -> Result<()> {
    if name == names::PUBLISHER {
        return names::publish(args);
    }
    if let (load::door::DOOR, [mesh]) = (name, args) {
        return load::door::serve(mesh);
    }
    ours::serve(name, args).unwrap_or_else(|| yard::serve(name, args))
}

fn main() -> Result<ExitCode> {
    // The worker processes of our own pools are this program too.
    if let Some(code) = layercake::run_as_worker() {
        return Ok(code);
    }
    run().map(|()| ExitCode::SUCCESS)
}

fn run() -> Result<()> {
    match Args::parse().command {
        Command::List => {
            for contestant in contestants() {
                println!("{}", contestant.name());
            }
            actors::list();
            Ok(())
        }
        Command::Actors(options) => actors::run(&options),
        Command::Names(options) => names::run(&options),
        Command::Pools(options) => pools::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Actor(options) => actors::run_child(&options),
        Command::Serve { name, args } => serve(&name, &args),
        Command::Ladder { names, rounds, seconds, in_flight, size, against, json } => {
            ensure!(in_flight > 0 && rounds > 0, "--in-flight and --rounds are at least 1");
            ensure!((0.05..=3600.0).contains(&seconds), "--seconds is from 0.05 to 3600");
            let load = Load { in_flight, size, duration: Duration::from_secs_f64(seconds) };
            let chosen = ladder::choose(contestants(), &names)?;
            let table = ladder::climb(chosen, rounds, &load, against.as_deref())?;
            print!("{table}");
            if let Some(file) = json {
                std::fs::write(&file, table.to_json()?)?;
            }
            Ok(())
        }
    }
}
