//! Workers that write down what they begin, and who asks them all the time: the program
//! `tests/programs/crew.rs`, and the judgement of what became of the requests.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    process::Command,
};

use layercake_lab::{Program, eventually};
use serde::Deserialize;

use super::{Folders, SOON};

/// A folder for what workers write down.
pub fn logs(folders: &Folders) -> PathBuf {
    let path = folders.mesh("logs");
    std::fs::create_dir_all(&path).expect("a temporary folder");
    path
}

/// Somebody who asks, and says in the end how that went.
pub struct Load(Program);

#[derive(Debug, Deserialize)]
pub struct Report {
    pub answered: Vec<u64>,
    pub failed: Vec<Failed>,
    pub late: u64,
    pub slowest: u64,
}

#[derive(Debug, Deserialize)]
pub struct Failed {
    pub id: u64,
    pub may_have_run: bool,
    pub error: String,
}

impl Load {
    /// Begins to ask, and waits until there is a worker.
    pub fn start(command: &mut Command) -> Self {
        let load = Program::start_listening(command);
        load.wait_line(|line| line == "ready", SOON);
        Self(load)
    }

    /// How many requests the workers at each address have now, those summed whose address has `part`.
    pub fn in_flight(&self, part: &str) -> usize {
        let asked = std::time::Instant::now();
        self.0.say("now");
        let (_, line) = self.0.wait_line_since(asked, |line| line.starts_with('{'), SOON);
        let each: BTreeMap<String, usize> = serde_json::from_str(&line).expect(&line);
        each.iter().filter(|(at, _)| at.contains(part)).map(|(_, n)| n).sum()
    }

    /// Ends it, and hears what has become of all requests.
    pub fn end(self, logs: &Path) -> Report {
        self.0.signal(15);
        self.0.wait_line(|line| line == "reported", SOON);
        let report = std::fs::read(logs.with_extension("json")).expect("a report");
        serde_json::from_slice(&report).expect("JSON")
    }
}

impl Report {
    /// Compares what was said of each request with what the workers have written down: what was answered
    /// has run, once where `once`; what has surely not run has not. Returns how many have failed.
    pub fn judge(&self, logs: &Path, once: bool) -> usize {
        let mut ran: HashMap<u64, u32> = HashMap::new();
        for log in std::fs::read_dir(logs).expect("a folder").flatten() {
            let text = std::fs::read_to_string(log.path()).expect("text");
            for id in text.lines() {
                *ran.entry(id.parse().expect("a number")).or_default() += 1;
            }
        }
        let times = |id: &u64| ran.get(id).copied().unwrap_or(0);
        for id in &self.answered {
            assert!(times(id) >= 1, "{id} was answered, and nobody has begun it");
            assert!(!once || times(id) == 1, "{id} ran {} times", times(id));
        }
        for failed in &self.failed {
            let times = times(&failed.id);
            assert!(failed.may_have_run || times == 0, "it ran, and should not have: {failed:?}");
            assert!(!once || times <= 1, "ran {times} times: {failed:?}");
        }
        let may = self.failed.iter().filter(|failed| failed.may_have_run).count();
        let mut errors: BTreeMap<&str, usize> = BTreeMap::new();
        for failed in &self.failed {
            // Without the address, which differs.
            let words = failed.error.split_once(' ').map_or("", |(_, words)| words);
            *errors.entry(words).or_default() += 1;
        }
        println!(
            "{} answered, {} failed ({may} of them may have run), {} late, slowest {} ms {errors:?}",
            self.answered.len(),
            self.failed.len(),
            self.late,
            self.slowest,
        );
        self.failed.len()
    }
}

/// Waits until something is so; a story's way of saying it.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(2 * SOON, what, || is_so().then_some(()));
}
