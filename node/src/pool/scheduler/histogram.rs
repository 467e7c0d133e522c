//! Times counted in buckets that grow with the time: fixed in size, and good to an eighth.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Four buckets for each doubling.
const PRECISION: u32 = 2;
/// From a microsecond to more than a minute; longer times are in the last.
const BUCKETS: usize = 104;

/// How many of how long.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    sum: Duration,
}

/// What a histogram says in short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many were counted.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
    /// Half were not longer.
    pub p50: Duration,
    /// 95 of 100 were not longer.
    pub p95: Duration,
    /// 99 of 100 were not longer.
    pub p99: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, sum: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, time: Duration) {
        self.counts[bucket(time)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The middle of the bucket below which this share lies; zero where nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(Duration::ZERO, |at| (lower(at) + lower(at + 1)) / 2)
    }

    /// How many were not longer, as far as the buckets can tell.
    #[must_use]
    pub fn up_to(&self, bound: Duration) -> u64 {
        self.counts[..bucket(bound)].iter().sum()
    }

    /// In short.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.count,
            sum: self.sum,
            p50: self.quantile(0.50),
            p95: self.quantile(0.95),
            p99: self.quantile(0.99),
        }
    }

    /// Halves what was counted, so that the new weighs more than the old.
    pub(super) fn fade(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        self.count = self.counts.iter().sum();
        self.sum /= 2;
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let magnitude = (u64::BITS - micros.leading_zeros()).saturating_sub(PRECISION + 1);
    let at = ((magnitude as usize) << PRECISION) + (micros >> magnitude) as usize;
    at.min(BUCKETS - 1)
}

fn lower(bucket: usize) -> Duration {
    let magnitude = (bucket >> PRECISION).saturating_sub(1);
    Duration::from_micros(((bucket - (magnitude << PRECISION)) as u64) << magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_good_to_an_eighth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        (1..=1000).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        let near = |got: Duration, ms: f64| (got.as_secs_f64() * 1e3 / ms - 1.0).abs() <= 0.13;
        let got = histogram.quantiles();
        assert!(near(got.p50, 500.0) && near(got.p95, 950.0) && near(got.p99, 990.0), "{got:?}");
        histogram.fade();
        assert!(near(histogram.quantile(0.5), 500.0) && histogram.count() < 510);
        histogram.add(Duration::MAX);
        assert!(histogram.quantile(1.0) > Duration::from_secs(60));
    }
}
