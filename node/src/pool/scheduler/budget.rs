//! What extra work may cost: retries and hedges, as a share of the requests.
//!
//! Without it, a pool that fails is asked several times for each request, at the worst time (the retry
//! budgets of Finagle).

use std::time::Instant;

/// A bucket of tokens: each request puts a share of one in, time puts some in, extra work takes one out.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: f64,
    /// What a request puts in.
    share: f64,
    /// What a second puts in.
    each_second: f64,
    most: f64,
    at: Option<Instant>,
}

impl Budget {
    /// Begins with what ten seconds put in.
    pub(super) fn new(share: f64, each_second: f64) -> Self {
        let tokens = each_second * 10.0;
        Self { tokens, share, each_second, most: tokens.max(100.0), at: None }
    }

    pub(super) fn on_request(&mut self) {
        self.tokens = (self.tokens + self.share).min(self.most);
    }

    /// Whether one more may be done; it is counted.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at.unwrap_or(now));
        self.at = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.each_second).min(self.most);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn extra_work_is_a_share_of_the_requests_and_a_few_each_second() {
        let start = Instant::now();
        let mut budget = Budget::new(0.2, 2.0);
        let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, start), 20);
        assert_eq!(taken(&mut budget, start), 0);
        (0..50).for_each(|_| budget.on_request());
        assert!((9..=10).contains(&taken(&mut budget, start)));
        assert_eq!(taken(&mut budget, start + Duration::from_secs(3)), 6);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(9999)), 100, "it has a bottom");
    }
}
