//! What is read from a history.

use super::world::{History, Request, Result, SECOND, Time};

/// The value below which a share of sorted values lies; zero where there are none.
pub(super) fn quantile(sorted: &[Time], share: f64) -> Time {
    let at = ((sorted.len() as f64 * share).ceil() as usize).max(1) - 1;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// Some of the requests.
pub(super) struct Chosen<'a>(pub(super) Vec<&'a Request>);

impl History {
    /// The requests that arrive in a span of time.
    pub(super) fn within(&self, from: Time, to: Time) -> Chosen<'_> {
        Chosen(self.requests.iter().filter(|r| (from..to).contains(&r.arrives)).collect())
    }

    /// The share of what was sent in a span of time that one worker got.
    pub(super) fn share(&self, worker: usize, from: Time, to: Time) -> f64 {
        let sent = || self.sent.iter().filter(|(at, _)| (from..to).contains(at));
        sent().filter(|(_, to)| *to == worker).count() as f64 / sent().count().max(1) as f64
    }

    /// Answers that came in a span of time, for each second.
    pub(super) fn goodput(&self, from: Time, to: Time) -> f64 {
        let good = self.requests.iter().filter(|request| {
            matches!(request.ended, Some((at, Result::Answered)) if (from..to).contains(&at))
        });
        good.count() as f64 / ((to - from) as f64 / SECOND as f64)
    }
}

impl<'a> Chosen<'a> {
    pub(super) fn of_caller(self, caller: u64) -> Self {
        Self(self.0.into_iter().filter(|request| request.caller == caller).collect())
    }

    fn times(&self, result: Result) -> Vec<Time> {
        let ended = self.0.iter().filter_map(|request| {
            request.ended.filter(|(_, how)| *how == result).map(|(at, _)| at - request.arrives)
        });
        let mut times: Vec<_> = ended.collect();
        times.sort_unstable();
        times
    }

    /// How long the answers took, sorted.
    pub(super) fn answered(&self) -> Vec<Time> {
        self.times(Result::Answered)
    }

    /// How long it took to be turned away, sorted.
    pub(super) fn rejected(&self) -> Vec<Time> {
        self.times(Result::Rejected)
    }

    /// How long whoever was not turned away waited for an answer, or in vain, sorted.
    pub(super) fn accepted(&self) -> Vec<Time> {
        let mut all = self.answered();
        all.extend(self.times(Result::Failed));
        all.extend(self.times(Result::TimedOut));
        all.sort_unstable();
        all
    }

    pub(super) fn share(&self, result: Result) -> f64 {
        let count = self.0.iter().filter(|r| r.ended.is_some_and(|(_, how)| how == result)).count();
        count as f64 / self.0.len().max(1) as f64
    }
}
