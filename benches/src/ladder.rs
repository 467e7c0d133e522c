//! Interleaved rounds of contestants, and their table.
//!
//! Every round measures each contestant once, starting with another one each time, so that what
//! else the machine does meets all of them alike. Compared are medians; a ratio is the median of
//! the ratios within each round.

use std::{fmt, thread};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{
    contestant::{Contestant, Load},
    sample::Sample,
};

/// Spreads above this share of the median are pointed out.
pub(crate) const SPREAD_MAX: f64 = 0.20;

/// The outcome of a ladder.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    cores: usize,
    rounds: usize,
    seconds: f64,
    in_flight: usize,
    size_bytes: usize,
    against: String,
    rows: Vec<Row>,
}

/// One contestant: medians over the rounds.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    rps: f64,
    rps_min: f64,
    rps_max: f64,
    p50_us: f64,
    p99_us: f64,
    /// Requests per second, over those of the contestant compared with.
    ratio: f64,
    ratio_min: f64,
    ratio_max: f64,
}

/// Keeps the contestants with these names, or all if there are none.
///
/// # Errors
/// A name that no contestant has.
pub(crate) fn choose(
    all: Vec<Box<dyn Contestant>>,
    names: &[String],
) -> Result<Vec<Box<dyn Contestant>>> {
    for name in names {
        if !all.iter().any(|contestant| contestant.name() == name) {
            let known: Vec<_> = all.iter().map(|contestant| contestant.name()).collect();
            bail!("no contestant `{name}`: there are {}", known.join(", "));
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    Ok(all.into_iter().filter(|contestant| wanted(contestant.name())).collect())
}

/// Measures all contestants `rounds` times.
pub(crate) fn climb(
    contestants: Vec<Box<dyn Contestant>>,
    rounds: usize,
    load: &Load,
    against: Option<&str>,
) -> Result<Table> {
    let names: Vec<&str> = contestants.iter().map(|contestant| contestant.name()).collect();
    let yardstick = match against {
        None => 0,
        Some(wanted) => names
            .iter()
            .position(|name| *name == wanted)
            .with_context(|| format!("`{wanted}` is not among the contestants of this run"))?,
    };
    ensure!(!contestants.is_empty(), "nobody to measure");
    let mut samples = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let name = names[at];
            let sample =
                measure(&*contestants[at], load).with_context(|| format!("measuring {name}"))?;
            eprintln!("round {}/{rounds}: {name} {:.0}/s", round + 1, sample.rps);
            samples[at].push(sample);
        }
    }
    let rows =
        names.iter().zip(&samples).map(|(name, own)| row(name, own, &samples[yardstick])).collect();
    Ok(Table {
        cores: thread::available_parallelism().map_or(1, usize::from),
        rounds,
        seconds: load.duration.as_secs_f64(),
        in_flight: load.in_flight,
        size_bytes: load.size,
        against: names[yardstick].to_owned(),
        rows,
    })
}

fn measure(contestant: &dyn Contestant, load: &Load) -> Result<Sample> {
    let mut running = contestant.start()?;
    running.run(&Load { duration: load.duration / 5, ..*load })?;
    running.run(load)
}

fn row(name: &str, own: &[Sample], yardstick: &[Sample]) -> Row {
    let rps = Spread::of(own.iter().map(|sample| sample.rps));
    let ratio = Spread::of(own.iter().zip(yardstick).map(|(own, other)| own.rps / other.rps));
    Row {
        name: name.to_owned(),
        rps: rps.median,
        rps_min: rps.min,
        rps_max: rps.max,
        p50_us: Spread::of(own.iter().map(|sample| sample.p50.as_secs_f64() * 1e6)).median,
        p99_us: Spread::of(own.iter().map(|sample| sample.p99.as_secs_f64() * 1e6)).median,
        ratio: ratio.median,
        ratio_min: ratio.min,
        ratio_max: ratio.max,
    }
}

/// The middle and the ends of some values.
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
        Self {
            min: sorted[0],
            median: f64::midpoint(sorted[low], sorted[high]),
            max: sorted[sorted.len() - 1],
        }
    }
}

impl Table {
    /// The same facts for a program.
    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds of {} s, {} in flight, {} bytes, {} cores; medians (least to most)",
            self.rounds, self.seconds, self.in_flight, self.size_bytes, self.cores
        )?;
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>21}  {:>7}  {:>7}  ratio to {}",
            "", "req/s", "", "p50 µs", "p99 µs", self.against
        )?;
        for row in &self.rows {
            let range = format!("({:.0} to {:.0})", row.rps_min, row.rps_max);
            let noisy = (row.rps_max - row.rps_min) / row.rps > SPREAD_MAX;
            writeln!(
                f,
                "{:width$}  {:>9.0}  {range:>21}  {:>7.0}  {:>7.0}  {:.3} ({:.3} to {:.3}){}",
                row.name,
                row.rps,
                row.p50_us,
                row.p99_us,
                row.ratio,
                row.ratio_min,
                row.ratio_max,
                if noisy { "  noisy" } else { "" },
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc, time::Duration};

    use super::*;
    use crate::contestant::Running;

    /// Answers with the figures it was given, one for each measurement.
    struct Scripted(&'static str, Rc<RefCell<Vec<f64>>>);

    impl Contestant for Scripted {
        fn name(&self) -> &'static str {
            self.0
        }

        fn start(&self) -> Result<Box<dyn Running>> {
            Ok(Box::new(Self(self.0, Rc::clone(&self.1))))
        }
    }

    impl Running for Scripted {
        fn run(&mut self, load: &Load) -> Result<Sample> {
            let is_warm_up = load.duration < Duration::from_secs(1);
            let rps = if is_warm_up { 1.0 } else { self.1.borrow_mut().remove(0) };
            let micros = Duration::from_micros;
            Ok(Sample { rps, p50: micros(10), p99: micros(30) })
        }
    }

    fn scripted() -> Vec<Box<dyn Contestant>> {
        let new = |name, figures: &[f64]| -> Box<dyn Contestant> {
            Box::new(Scripted(name, Rc::new(RefCell::new(figures.to_vec()))))
        };
        vec![new("bare", &[100.0, 200.0, 400.0]), new("ours", &[50.0, 150.0, 200.0])]
    }

    #[test]
    fn medians_and_ratios_are_taken_round_by_round() {
        let load = Load { in_flight: 1, size: 1, duration: Duration::from_secs(1) };
        let table = climb(scripted(), 3, &load, Some("bare")).unwrap();
        let [bare, ours] = &table.rows[..] else { panic!("two rows") };
        assert_eq!((bare.rps, bare.ratio), (200.0, 1.0));
        assert_eq!((ours.rps, ours.rps_min, ours.rps_max), (150.0, 50.0, 200.0));
        assert_eq!((ours.ratio, ours.ratio_min, ours.ratio_max), (0.5, 0.5, 0.75));
        let text = table.to_string();
        assert!(text.contains("0.500 (0.500 to 0.750)  noisy"), "{text}");
        assert!(table.to_json().unwrap().contains("\"against\": \"bare\""));
    }

    #[test]
    fn unknown_names_are_refused() {
        let wanted = choose(scripted(), &["ours".into()]).unwrap();
        assert_eq!(wanted.len(), 1);
        let refusal = choose(scripted(), &["theirs".into()]).err().unwrap().to_string();
        assert!(refusal.contains("theirs") && refusal.contains("bare, ours"), "{refusal}");
        let load = Load { in_flight: 1, size: 1, duration: Duration::from_secs(1) };
        assert!(climb(scripted(), 1, &load, Some("theirs")).is_err());
    }
}
