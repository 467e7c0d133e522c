//! When an ended worker is started again: at once the first time, ever later in a crash loop.
//!
//! A plain value; the caller owns the clock and draws the random number.

use std::time::Duration;

/// How long a worker stands down before it is started again.
#[derive(Debug, Clone)]
pub(crate) struct StandDown {
    first: Duration,
    step: u32,
}

/// The longest stand-down, before jitter.
pub(crate) const STAND_DOWN_MAX: Duration = Duration::from_secs(30);
/// A worker that has lived this long is healthy: its next end is a first one.
const HEALTHY: Duration = Duration::from_secs(30);

impl StandDown {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, step: 0 }
    }

    /// The stand-down after a worker that has lived for `lived`: doubled with each early end, up to
    /// [`STAND_DOWN_MAX`], and spread by a quarter either way, so that many do not return at once.
    /// `draw` is a random number in `0.0..1.0`.
    pub(crate) fn next(&mut self, lived: Duration, draw: f64) -> Duration {
        if lived >= HEALTHY {
            self.step = 0;
        }
        let base = self.first.saturating_mul(1 << self.step.min(16)).min(STAND_DOWN_MAX);
        self.step += 1;
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
        let waits: Vec<_> =
            (0..12).map(|_| restart.next(Duration::from_millis(5), 0.5).as_millis()).collect();
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(restart.next(HEALTHY, 0.5).as_millis(), 200);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for (draw, expected) in [(0.0, 150), (1.0, 250)] {
            let wait = StandDown::new(Duration::from_millis(200)).next(Duration::ZERO, draw);
            assert_eq!(wait.as_millis(), expected);
        }
    }
}
