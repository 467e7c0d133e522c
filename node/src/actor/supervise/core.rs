//! What a supervisor decides when a child ends. A plain value: the caller has the clock and draws the
//! random numbers.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::restart::StandDown;

/// Which children begin anew when one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// That one alone: the children know nothing of each other.
    OneForOne,
    /// All of them: each is of no use without the others.
    OneForAll,
    /// That one and those that were started after it, which may rest upon it.
    RestForOne,
}

/// When a child begins anew by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Whenever it has ended, unless it was asked to stop.
    Always,
    /// When it has ended in a failure.
    OnFailure,
    /// Never.
    Never,
}

impl Restart {
    fn wants(self, failed: bool) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => failed,
            Self::Never => false,
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It and the others named begin anew, after a while.
    Anew { others: Vec<usize>, after: Duration },
    /// It has ended for good.
    End,
    /// Too many ends in too short a time: the supervisor fails.
    GiveUp,
}

struct Child {
    restart: Restart,
    stand_down: StandDown,
    born: Instant,
    alive: bool,
}

pub(super) struct Core {
    strategy: Strategy,
    /// More restarts than so many within the period are too many.
    intensity: usize,
    period: Duration,
    first: Duration,
    restarts: VecDeque<Instant>,
    children: Vec<Child>,
}

impl Core {
    pub(super) fn new(
        strategy: Strategy,
        intensity: usize,
        period: Duration,
        first: Duration,
    ) -> Self {
        let (restarts, children) = (VecDeque::new(), Vec::new());
        Self { strategy, intensity, period, first, restarts, children }
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    /// Takes a child in; its number.
    pub(super) fn add(&mut self, restart: Restart, now: Instant) -> usize {
        let stand_down = StandDown::new(self.first);
        self.children.push(Child { restart, stand_down, born: now, alive: true });
        self.children.len() - 1
    }

    /// A child has begun anew.
    pub(super) fn on_begin(&mut self, child: usize, now: Instant) {
        self.children[child].born = now;
    }

    /// A child has ended by itself. `draw` is a random number in `0.0..1.0`.
    pub(super) fn on_end(
        &mut self,
        child: usize,
        failed: bool,
        now: Instant,
        draw: f64,
    ) -> Verdict {
        let ended = &mut self.children[child];
        if !ended.restart.wants(failed) {
            ended.alive = false;
            return Verdict::End;
        }
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > self.period) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.intensity {
            return Verdict::GiveUp;
        }
        self.restarts.push_back(now);
        let after = ended.stand_down.next(now.duration_since(ended.born), false, draw);
        let others = match self.strategy {
            Strategy::OneForOne => 0..0,
            Strategy::OneForAll => 0..self.children.len(),
            Strategy::RestForOne => child + 1..self.children.len(),
        };
        let others =
            others.filter(|other| *other != child && self.children[*other].alive).collect();
        Verdict::Anew { others, after }
    }

    /// A child was stopped on purpose.
    pub(super) fn on_stop(&mut self, child: usize) {
        self.children[child].alive = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    fn core(strategy: Strategy, children: &[Restart], now: Instant) -> Core {
        let mut core = Core::new(strategy, 3, Duration::from_secs(10), FIRST);
        for restart in children {
            core.add(*restart, now);
        }
        core
    }

    fn others(verdict: Verdict) -> Vec<usize> {
        match verdict {
            Verdict::Anew { others, .. } => others,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_strategy_says_who_begins_anew() {
        let now = Instant::now();
        let all = [Restart::Always; 3];
        for (strategy, expected) in [
            (Strategy::OneForOne, vec![]),
            (Strategy::OneForAll, vec![0, 2]),
            (Strategy::RestForOne, vec![2]),
        ] {
            let verdict = core(strategy, &all, now).on_end(1, true, now, 0.5);
            assert_eq!(others(verdict), expected, "{strategy:?}");
        }
        let mut core = core(Strategy::OneForAll, &all, now);
        core.on_stop(0);
        assert_eq!(others(core.on_end(1, true, now, 0.5)), [2], "who was stopped stays so");
    }

    #[test]
    fn the_kind_of_end_counts() {
        let now = Instant::now();
        for (restart, after_failure, after_success) in [
            (Restart::Always, true, true),
            (Restart::OnFailure, true, false),
            (Restart::Never, false, false),
        ] {
            for (failed, anew) in [(true, after_failure), (false, after_success)] {
                let verdict =
                    core(Strategy::OneForOne, &[restart], now).on_end(0, failed, now, 0.5);
                assert_eq!(verdict != Verdict::End, anew, "{restart:?} {failed}");
            }
        }
    }

    #[test]
    fn too_many_in_a_short_time_are_given_up_and_a_quiet_time_forgives() {
        let now = Instant::now();
        let mut core = core(Strategy::OneForOne, &[Restart::Always], now);
        let waits: Vec<_> = (0..3)
            .map(|_| match core.on_end(0, true, now, 0.5) {
                Verdict::Anew { after, .. } => after,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(waits, [FIRST, 2 * FIRST, 4 * FIRST], "a crash loop slows down");
        assert_eq!(core.on_end(0, true, now, 0.5), Verdict::GiveUp);
        let later = now + Duration::from_secs(60);
        assert!(matches!(core.on_end(0, true, later, 0.5), Verdict::Anew { .. }));
    }
}
