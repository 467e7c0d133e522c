//! What became of the requests of one run.

use std::time::Duration;

use layercake::AskError;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    /// The worker answered with an error.
    Failed,
    /// Turned away: busy, overloaded, nobody there.
    Refused,
    Late,
    Lost,
}

pub(super) fn end(outcome: &Result<Result<(), String>, AskError>) -> End {
    match outcome {
        Ok(Ok(())) => End::Answered,
        Ok(Err(_)) => End::Failed,
        Err(AskError::Busy { .. } | AskError::Overloaded { .. } | AskError::Unavailable) => {
            End::Refused
        }
        Err(AskError::Deadline) => End::Late,
        Err(_) => End::Lost,
    }
}

/// All requests of one run: when due (from the beginning), how long they took, how they ended.
pub(super) struct Report(Vec<(Duration, Duration, End)>);

impl Report {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add(&mut self, due: Duration, took: Duration, end: End) {
        self.0.push((due, took, end));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Those that were due within a span.
    pub(super) fn between(&self, from: Duration, to: Duration) -> Self {
        Self(self.0.iter().filter(|(due, ..)| (from..to).contains(due)).copied().collect())
    }

    pub(super) fn all(&self) -> usize {
        self.0.len()
    }

    /// The bytes that it takes.
    pub(super) fn size(&self) -> f64 {
        (self.0.capacity() * size_of::<(Duration, Duration, End)>()) as f64
    }

    pub(super) fn count(&self, end: End) -> usize {
        self.0.iter().filter(|(.., e)| *e == end).count()
    }

    /// The time within which that share of the requests with such an end had it; zero where there is none.
    pub(super) fn quantile(&self, end: End, share: f64) -> Duration {
        let mut times: Vec<_> =
            self.0.iter().filter(|(.., e)| *e == end).map(|(_, took, _)| *took).collect();
        times.sort_unstable();
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let ms = |share| self.quantile(End::Answered, share).as_secs_f64() * 1e3;
        format!(
            "{:7} due, {:7} answered, p50 {:7.1} ms, p99 {:8.1} ms, {:5} refused, {:5} errors, {:4} late, {:4} lost",
            self.all(),
            self.count(End::Answered),
            ms(0.5),
            ms(0.99),
            self.count(End::Refused),
            self.count(End::Failed),
            self.count(End::Late),
            self.count(End::Lost),
        )
    }
}
