//! What one measurement yields, and the latency histogram behind it.

use std::time::Duration;

use anyhow::{Result, ensure};

/// One measurement of one contestant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Requests answered per second.
    pub(crate) rps: f64,
    /// Half of the requests were answered within this time.
    pub(crate) p50: Duration,
    /// 99 of 100 requests were answered within this time.
    pub(crate) p99: Duration,
}

/// Bits of precision: neighbouring buckets differ by less than 1/64.
const PRECISION: u32 = 6;

/// Latencies counted in buckets that grow with the latency. Fixed size, error below 2 %.
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; (65 - PRECISION as usize) << PRECISION], total: 0 }
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// The sample of a measurement that took `elapsed`.
    pub(crate) fn sample(&self, elapsed: Duration) -> Result<Sample> {
        ensure!(self.total > 0, "not one request was answered in {elapsed:?}");
        Ok(Sample {
            rps: self.total as f64 / elapsed.as_secs_f64(),
            p50: self.quantile(0.50),
            p99: self.quantile(0.99),
        })
    }

    fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Duration::from_nanos(lower_bound(found.unwrap_or(self.counts.len() - 1)))
    }
}

/// Below 2^PRECISION one bucket for each value, from there 2^PRECISION buckets for each doubling.
fn bucket(nanos: u64) -> usize {
    let magnitude = (u64::BITS - nanos.leading_zeros()).saturating_sub(PRECISION + 1);
    ((magnitude as usize) << PRECISION) + (nanos >> magnitude) as usize
}

fn lower_bound(bucket: usize) -> u64 {
    let magnitude = (bucket >> PRECISION).saturating_sub(1);
    ((bucket - (magnitude << PRECISION)) as u64) << magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_close_to_what_it_counts() {
        for nanos in [0, 1, 63, 64, 127, 128, 1_000, 123_456, 5_000_000_000, u64::MAX] {
            let bound = lower_bound(bucket(nanos));
            assert!(bound <= nanos, "{bound} is above {nanos}");
            assert!(nanos - bound <= nanos >> PRECISION, "{bound} is too far from {nanos}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut latencies = Latencies::new();
        for micros in 1..=1000 {
            latencies.add(Duration::from_micros(micros));
        }
        let sample = latencies.sample(Duration::from_secs(2)).unwrap();
        assert_eq!(sample.rps, 500.0);
        let near =
            |got: Duration, micros: f64| (got.as_secs_f64() * 1e6 / micros - 1.0).abs() < 0.02;
        assert!(near(sample.p50, 500.0) && near(sample.p99, 990.0), "{sample:?}");
        assert!(Latencies::new().sample(Duration::from_secs(1)).is_err());
    }
}
