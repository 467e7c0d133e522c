//! Interleaved rounds of child processes, and the tables that come of them.
//!
//! Every round does each job once with each contestant, starting with another one each time. Compared
//! are medians; a ratio is the median of the ratios within each round.

use std::{env, fmt, process::Command, process::Stdio, thread};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    LIBRARIES, MAILBOX, Measure, YARDSTICK,
    work::{Figure, Figures, Job, Size},
};
use crate::ladder::{SPREAD_MAX, Spread};

/// What all rounds have yielded.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    cores: usize,
    rounds: usize,
    seconds: f64,
    actors: usize,
    mailbox: usize,
    tables: Vec<Table>,
}

/// One figure of all contestants.
#[derive(Debug, Serialize)]
struct Table {
    name: String,
    unit: &'static str,
    less_is_better: bool,
    rows: Vec<Row>,
}

/// One figure of one contestant.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    median: f64,
    min: f64,
    max: f64,
    /// Over that of the yardstick, where it takes part.
    to_bare: Option<f64>,
    /// Over that of the best library of each round, where one takes part.
    to_best_library: Option<f64>,
}

/// Runs all jobs that the measures need, and keeps the figures that they are.
pub(super) fn run(names: &[&str], only: &[Measure], rounds: usize, size: &Size) -> Result<Outcome> {
    let jobs = jobs(only);
    // By job, then by contestant, then by round.
    let mut samples: Vec<Vec<Vec<Figures>>> =
        vec![vec![Vec::with_capacity(rounds); names.len()]; jobs.len()];
    for round in 0..rounds {
        for (job, samples) in jobs.iter().zip(&mut samples) {
            for turn in 0..names.len() {
                let at = (round + turn) % names.len();
                let name = names[at];
                let figures = child(name, job.job, size)
                    .with_context(|| format!("measuring {} of {name}", job.name))?;
                eprintln!("round {}/{rounds}: {} {name} {figures:.0?}", round + 1, job.name);
                samples[at].push(figures);
            }
        }
    }
    let mut tables = Vec::new();
    for (job, samples) in jobs.into_iter().zip(&samples) {
        for figure in job.figures {
            tables.push(table(job.name, figure, names, samples)?);
        }
    }
    Ok(Outcome {
        cores: thread::available_parallelism().map_or(1, usize::from),
        rounds,
        seconds: size.duration.as_secs_f64(),
        actors: size.actors,
        mailbox: MAILBOX,
        tables,
    })
}

/// A job and which of its figures are wanted.
struct Wanted {
    name: &'static str,
    job: Job,
    figures: Vec<Figure>,
}

fn jobs(only: &[Measure]) -> Vec<Wanted> {
    let wants = |measure| only.is_empty() || only.contains(&measure);
    let loads = [
        (Measure::Ask1, "ask-1", Job::Ask(1)),
        (Measure::Ask64, "ask-64", Job::Ask(64)),
        (Measure::Tell1, "tell-1", Job::Tell(1)),
        (Measure::Tell4, "tell-4", Job::Tell(4)),
    ];
    let mut jobs: Vec<_> = loads
        .into_iter()
        .filter(|(measure, ..)| wants(*measure))
        .map(|(_, name, job)| Wanted { name, job, figures: vec![Figure::Rate] })
        .collect();
    let mut figures = Vec::new();
    if wants(Measure::Spawn) {
        figures.extend([Figure::Spawned, Figure::Answered, Figure::Ended]);
    }
    if wants(Measure::Memory) {
        figures.extend([Figure::Idle, Figure::Used]);
    }
    if !figures.is_empty() {
        jobs.push(Wanted { name: "population", job: Job::Population, figures });
    }
    jobs
}

fn child(name: &str, job: Job, size: &Size) -> Result<Figures> {
    let seconds = size.duration.as_secs_f64();
    let words = match job {
        Job::Ask(askers) => ["ask".to_owned(), askers.to_string(), seconds.to_string()].to_vec(),
        Job::Tell(senders) => {
            ["tell".to_owned(), senders.to_string(), seconds.to_string()].to_vec()
        }
        Job::Population => ["population".to_owned(), size.actors.to_string()].to_vec(),
    };
    let output = Command::new(env::current_exe()?)
        .args(["actor", name])
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("it prints no figures")
}

/// Compares one figure of all contestants; `samples` are theirs, round by round.
fn table(job: &str, figure: Figure, names: &[&str], samples: &[Vec<Figures>]) -> Result<Table> {
    let (name, unit, less_is_better) = describe(job, figure);
    let mut values = Vec::new();
    for rounds in samples {
        let of_round = |figures: &Figures| {
            let found = figures.iter().find(|(other, _)| *other == figure);
            found.map(|(_, value)| *value).with_context(|| format!("no {figure:?} was measured"))
        };
        values.push(rounds.iter().map(of_round).collect::<Result<Vec<f64>>>()?);
    }
    let bare = names.iter().position(|name| *name == YARDSTICK).map(|at| values[at].clone());
    let libraries = names.iter().zip(&values).filter(|(name, _)| LIBRARIES.contains(name));
    let best = libraries.map(|(_, values)| values.clone()).reduce(|one, other| {
        let better = if less_is_better { f64::min } else { f64::max };
        one.into_iter().zip(other).map(|(one, other)| better(one, other)).collect()
    });
    let ratio = |own: &[f64], to: &Option<Vec<f64>>| {
        let to = to.as_ref()?;
        Some(Spread::of(own.iter().zip(to).map(|(own, to)| own / to)).median)
    };
    let row = |(name, own): (&&str, &Vec<f64>)| {
        let spread = Spread::of(own.iter().copied());
        Row {
            name: (*name).to_owned(),
            median: spread.median,
            min: spread.min,
            max: spread.max,
            to_bare: ratio(own, &bare),
            to_best_library: ratio(own, &best),
        }
    };
    Ok(Table { name, unit, less_is_better, rows: names.iter().zip(&values).map(row).collect() })
}

/// Name and unit of a table, and whether less is better.
fn describe(job: &str, figure: Figure) -> (String, &'static str, bool) {
    let (name, unit, less_is_better) = match figure {
        Figure::Rate => (job, "messages/s", false),
        Figure::Spawned => ("spawn, until the last has answered", "actors/s", false),
        Figure::Answered => ("spawn, until each has answered", "actors/s", false),
        Figure::Ended => ("end", "actors/s", false),
        Figure::Idle => ("memory, idle", "bytes/actor", true),
        Figure::Used => ("memory, after one message each", "bytes/actor", true),
    };
    (name.to_owned(), unit, less_is_better)
}

impl Outcome {
    /// The same facts for a program.
    pub(super) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds of {} s or {} actors, mailboxes of {} where bounded, {} cores",
            self.rounds, self.seconds, self.actors, self.mailbox, self.cores
        )?;
        self.tables.iter().try_for_each(|table| self.write_table(f, table))
    }
}

impl Outcome {
    fn write_table(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let less = if table.less_is_better { " (less is better)" } else { "" };
        writeln!(f, "\n{}, {}{less}", table.name, table.unit)?;
        let width = table.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let in_seconds = table.unit == "actors/s";
        let total = if in_seconds { "seconds" } else { "" };
        writeln!(
            f,
            "{:width$}  {:>11}  {:>26}  {total:>7}  {:>7}  {:>12}",
            "", "median", "least to most", "to bare", "best library"
        )?;
        for row in &table.rows {
            let range = format!("{:.0} to {:.0}", row.min, row.max);
            let noisy = (row.max - row.min) / row.median > SPREAD_MAX;
            let total = match in_seconds {
                true => format!("{:.2}", self.actors as f64 / row.median),
                false => String::new(),
            };
            writeln!(
                f,
                "{:width$}  {:>11.0}  {range:>26}  {total:>7}  {:>7}  {:>12}{}",
                row.name,
                row.median,
                ratio(row.to_bare),
                ratio(row.to_best_library),
                if noisy { "  noisy" } else { "" },
            )?;
        }
        Ok(())
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(figure: Figure, names: &[&str], values: &[&[f64]]) -> Table {
        let samples: Vec<Vec<Figures>> = values
            .iter()
            .map(|rounds| rounds.iter().map(|value| vec![(figure, *value)]).collect())
            .collect();
        table("ask-1", figure, names, &samples).unwrap()
    }

    #[test]
    fn each_round_has_its_own_best_library() {
        let names = [YARDSTICK, "ractor", "kameo", "layercake"];
        let values: [&[f64]; 4] =
            [&[10.0, 20.0, 10.0], &[4.0, 1.0, 5.0], &[2.0, 5.0, 1.0], &[8.0, 10.0, 20.0]];
        let table = compare(Figure::Rate, &names, &values);
        let ours = &table.rows[3];
        assert_eq!((ours.median, ours.min, ours.max), (10.0, 8.0, 20.0));
        assert_eq!(ours.to_bare, Some(0.8), "the median of 0.8, 0.5 and 2");
        assert_eq!(ours.to_best_library, Some(2.0), "the median of 8/4, 10/5 and 20/5");
        let memory = compare(Figure::Idle, &names, &values);
        assert_eq!(memory.rows[3].to_best_library, Some(10.0), "of 8/2, 10/1 and 20/1");
    }

    #[test]
    fn without_yardsticks_there_are_no_ratios() {
        let table = compare(Figure::Spawned, &["layercake"], &[&[250.0]]);
        assert_eq!((table.rows[0].to_bare, table.rows[0].to_best_library), (None, None));
        let size = Size { duration: std::time::Duration::from_secs(1), actors: 1000 };
        let outcome = Outcome {
            cores: 2,
            rounds: 1,
            seconds: size.duration.as_secs_f64(),
            actors: size.actors,
            mailbox: MAILBOX,
            tables: vec![table],
        };
        let text = outcome.to_string();
        assert!(text.contains("actors/s") && text.contains("4.00"), "{text}");
        assert!(outcome.to_json().unwrap().contains("\"to_bare\": null"));
    }

    #[test]
    fn one_child_serves_spawn_and_memory() {
        let names: Vec<_> = jobs(&[]).into_iter().map(|job| job.name).collect();
        assert_eq!(names, ["ask-1", "ask-64", "tell-1", "tell-4", "population"]);
        let memory = jobs(&[Measure::Memory]);
        assert_eq!(memory.len(), 1);
        assert_eq!(memory[0].figures, [Figure::Idle, Figure::Used]);
    }
}
