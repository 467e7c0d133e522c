//! When an ended worker is started again: at once the first time, ever later in a crash loop.
//!
//! A plain value; the caller owns the clock and draws the random number.

use std::time::Duration;

/// How long a worker stands down before it is started again.
#[derive(Debug, Clone)]
pub(crate) struct StandDown {
    first: Duration,
    step: u32,
    /// The last one, before jitter.
    last: Duration,
}

/// The longest stand-down, before jitter.
pub(crate) const STAND_DOWN_MAX: Duration = Duration::from_secs(30);
/// A worker that has lived this long, or so many times as long as it stood down but for this long at least,
/// is healthy: its end is a first one. So is one that has lived for the least time and was of use.
const HEALTHY: Duration = Duration::from_secs(30);
const TIMES: u32 = 10;
const LEAST: Duration = Duration::from_secs(1);

impl StandDown {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, step: 0, last: Duration::ZERO }
    }

    /// The stand-down after a worker that has lived for `lived` and was of use or not: doubled with each early end, up to
    /// [`STAND_DOWN_MAX`], and spread by a quarter either way, so that many do not return at once.
    /// `draw` is a random number in `0.0..1.0`.
    pub(crate) fn next(&mut self, lived: Duration, useful: bool, draw: f64) -> Duration {
        let enough = if useful { LEAST } else { (self.last * TIMES).clamp(LEAST, HEALTHY) };
        if lived >= enough {
            self.step = 0;
        }
        let base = self.first.saturating_mul(1 << self.step.min(16)).min(STAND_DOWN_MAX);
        self.step += 1;
        self.last = base;
        base.mul_f64(0.75 + draw.clamp(0.0, 1.0) / 2.0)
    }

    /// How many times in a row it has ended early.
    pub(crate) fn early_ends(&self) -> u32 {
        self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_slows_down_and_a_healthy_life_forgives() {
        let mut restart = StandDown::new(Duration::from_millis(200));
        let waits: Vec<_> = (0..12)
            .map(|_| restart.next(Duration::from_millis(5), true, 0.5).as_millis())
            .collect();
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(restart.next(HEALTHY, false, 0.5).as_millis(), 200);
    }

    #[test]
    fn who_lives_long_for_a_restart_or_was_of_use_is_in_no_loop() {
        let second = Duration::from_secs(1);
        let mut restart = StandDown::new(Duration::from_millis(200));
        let mut next = |lived, useful| restart.next(lived, useful, 0.5).as_millis();
        assert_eq!(
            [next(second, false), next(second, false), next(second, false)],
            [200, 400, 800]
        );
        assert_eq!(next(8 * second, false), 200);
        assert_eq!([next(second / 2, true), next(second, true)], [400, 200]);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for (draw, expected) in [(0.0, 150), (1.0, 250)] {
            let wait = StandDown::new(Duration::from_millis(200)).next(Duration::ZERO, false, draw);
            assert_eq!(wait.as_millis(), expected);
        }
    }
}
