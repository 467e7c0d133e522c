//! So many requests per second for each client, and so many at once (the generic cell rate algorithm).
//!
//! A client is one point in time: when its allowance would be whole again. The clients seen last are
//! remembered, in two generations; one that is forgotten begins with a whole allowance.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How many clients a generation remembers.
const GENERATION: usize = 32_768;
/// A second by the clock; a rate is kept as the time for one request.
const SECOND: Duration = Duration::from_secs(1);

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run; at least 1.
    pub per_second: u32,
    /// Requests that may come at once after a pause; at least 1.
    pub burst: u32,
}

impl Rate {
    fn each(self) -> Duration {
        SECOND / self.per_second.max(1)
    }
}

/// The allowance of every client.
#[derive(Default)]
pub(super) struct Rates {
    young: HashMap<u64, Instant>,
    old: HashMap<u64, Instant>,
}

impl Rates {
    /// Takes a request from a client's allowance, or tells when there will be one.
    pub(super) fn take(&mut self, client: u64, rate: Rate, now: Instant) -> Result<(), Duration> {
        if self.young.len() >= GENERATION && !self.young.contains_key(&client) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &self.old;
        let whole =
            self.young.entry(client).or_insert_with(|| old.get(&client).copied().unwrap_or(now));
        let each = rate.each();
        let at_once = each * (rate.burst.max(1) - 1);
        let wait = whole.saturating_duration_since(now);
        if wait > at_once {
            return Err(wait - at_once);
        }
        *whole = (*whole).max(now) + each;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    #[test]
    fn a_burst_passes_then_the_rate_and_each_client_by_itself() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(rates.take(1, RATE, now), Ok(()));
        }
        assert_eq!(rates.take(1, RATE, now), Err(Duration::from_millis(100)));
        assert_eq!(rates.take(2, RATE, now), Ok(()), "another client");
        assert_eq!(rates.take(1, RATE, now + Duration::from_millis(100)), Ok(()));
        let passed = (0..10_000)
            .filter(|ms| rates.take(1, RATE, now + Duration::from_millis(1_000 + ms)).is_ok());
        assert_eq!(passed.count(), 100 + 2, "ten seconds, and what had been saved");
    }

    #[test]
    fn who_was_seen_lately_is_remembered_and_the_number_is_bounded() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        for _ in 0..3 {
            rates.take(0, RATE, now).unwrap();
        }
        for client in 1..200_000 {
            let _ = rates.take(client, RATE, now);
            if client % 10_000 == 0 {
                assert!(rates.take(0, RATE, now).is_err(), "forgotten after {client}");
            }
        }
        assert!(rates.young.len() + rates.old.len() <= 2 * GENERATION);
    }
}
