//! A program that publishes services of which no gateway has ever heard: `tests/programs/offer.rs`.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use layercake_lab::Program;

use super::SOON;

/// One that runs.
pub struct Offer(pub Program);

/// A moment, by the clock that all hosts have.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Micros(u64);

impl Micros {
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The last word of a line.
    fn of(line: &str) -> Self {
        let word = line.rsplit(' ').next().unwrap_or_default();
        Self(word.parse().unwrap_or_else(|_| panic!("no time in `{line}`")))
    }
}

impl Offer {
    pub fn start(command: &mut Command) -> Self {
        let program = Program::start_listening(command);
        program.wait_line(|line| line == "ready", SOON);
        Self(program)
    }

    fn obey(&self, command: &str) -> String {
        let since = Instant::now();
        self.0.say(command);
        self.0.wait_line_since(since, |line| line.starts_with("done "), SOON).1
    }

    /// Publishes a version of the greeter, and says when that was done.
    pub fn publish(&self, version: u8, name: &str) -> Micros {
        Micros::of(&self.obey(&format!("publish {version} {name}")))
    }

    /// Withdraws a name, and says when that was done.
    pub fn withdraw(&self, name: &str) -> Micros {
        Micros::of(&self.obey(&format!("withdraw {name}")))
    }

    /// Begins to ask a gateway for a path, on and on.
    pub fn probe(&self, address: &str, path: &str) {
        self.obey(&format!("probe {address} {path}"));
    }

    /// Waits until the path has a status, from some moment on, and says since when.
    pub fn status_since(&self, since: Instant, status: u16) -> Micros {
        let wanted = format!("status {status} ");
        Micros::of(&self.0.wait_line_since(since, |line| line.starts_with(&wanted), SOON).1)
    }
}
