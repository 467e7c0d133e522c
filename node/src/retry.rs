//! Retry schedules: how often something is tried, and how long to wait in between.
//!
//! A [`Retry`] is a plain value: [`Retry::delay`] says how long to wait before the n-th retry, given a
//! random number, and knows no clock. [`Retry::delays`] is the iterator of those waits, and
//! [`Retry::run`] the few lines that carry them out. It can be a field of a message or an argument of
//! a program.
//!
//! It is not what restarts workers and roles: that also knows when a worker was healthy.
//!
//! ```
//! # use std::time::Duration;
//! # use layercake_node::retry::Retry;
//! let retry = Retry::steps([Duration::ZERO, Duration::from_millis(100)])
//!     .then_every(Duration::from_secs(1))
//!     .limit(5)
//!     .jitter(0.2);
//! let waits: Vec<_> = retry.delays(|| 0.5).map(|wait| wait.as_millis()).collect();
//! assert_eq!(waits, [0, 100, 1000, 1000]);
//! ```

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::span::Span;

/// The most first steps of a schedule.
pub const MAX_STEPS: usize = 64;
/// The longest wait of a schedule, before jitter.
pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);
/// The shortest wait that is repeated: less would keep a processor busy with failing.
pub const MIN_EVERY: Duration = Duration::from_millis(1);

/// How often something is tried, and how long to wait in between.
///
/// The first waits are the *steps*, in turn; then comes the *regular* wait, which may grow by a factor
/// up to a greatest one. Without a regular wait the steps are all. The schedule ends earlier at its
/// *limit* of attempts, or where the next wait would go past *within*. With neither, a schedule with
/// a regular wait never ends.
///
/// # What is valid
/// | part | valid | what a builder makes of the rest |
/// |---|---|---|
/// | steps | at most [`MAX_STEPS`], each at most [`MAX_DELAY`]; zero is "at once" | the first ones; [`MAX_DELAY`] |
/// | regular wait | [`MIN_EVERY`] to [`MAX_DELAY`] | the nearest of the two |
/// | factor | 1 and more, finite | 1, which is no growth |
/// | greatest wait | the regular wait to [`MAX_DELAY`] | the nearest of the two |
/// | limit, attempts in all | 1 and more | 1: a run always tries once |
/// | jitter | 0 to 1 | the nearest of the two; not a number: 0 |
///
/// The builder's methods adjust, because what stands in a program is meant; what comes from outside
/// is refused with a [`RetryError`] when it is decoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Retry {
    steps: Vec<Duration>,
    regular: Option<Regular>,
    limit: Option<u32>,
    jitter: f64,
    within: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Regular {
    every: Duration,
    factor: f64,
    max: Duration,
}

impl Regular {
    /// The `n`-th regular wait, from 0.
    fn wait(self, n: u32) -> Duration {
        if self.factor == 1.0 {
            return self.every;
        }
        let growth = self.factor.powi(i32::try_from(n).unwrap_or(i32::MAX));
        let grown = Duration::try_from_secs_f64(self.every.as_secs_f64() * growth);
        // Too much for a duration, or infinite.
        grown.map_or(self.max, |wait| wait.min(self.max))
    }
}

impl Retry {
    /// One attempt, and no more.
    #[must_use]
    pub fn never() -> Self {
        Self::steps([])
    }

    /// Waits of these lengths, in turn. One more attempt than there are steps, unless
    /// [`then_every`](Self::then_every) follows.
    #[must_use]
    pub fn steps(steps: impl IntoIterator<Item = Duration>) -> Self {
        let steps = steps.into_iter().take(MAX_STEPS).map(|step| step.min(MAX_DELAY)).collect();
        Self { steps, regular: None, limit: None, jitter: 0.0, within: None }
    }

    /// Waits that begin with `first` and grow by `factor` each time, up to `max`.
    #[must_use]
    pub fn exponential(first: Duration, factor: f64, max: Duration) -> Self {
        let every = first.clamp(MIN_EVERY, MAX_DELAY);
        let factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        let max = max.clamp(every, MAX_DELAY);
        Self { regular: Some(Regular { every, factor, max }), ..Self::never() }
    }

    /// After the steps, waits of this length.
    #[must_use]
    pub fn then_every(mut self, every: Duration) -> Self {
        self.regular = Self::exponential(every, 1.0, every).regular;
        self
    }

    /// At most so many attempts in all, the first one included.
    #[must_use]
    pub fn limit(mut self, attempts: u32) -> Self {
        self.limit = Some(attempts.max(1));
        self
    }

    /// Spreads each wait evenly by this share of it either way, so that many who failed together do
    /// not return together: with 0.25, a second becomes 750ms to 1.25s. The mean stays.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        // Also where it is not a number.
        self.jitter = if share > 0.0 { share.min(1.0) } else { 0.0 };
        self
    }

    /// At most so much time from the beginning of the first attempt to the beginning of the last. An
    /// attempt under way is not cut off.
    #[must_use]
    pub fn within(mut self, total: Duration) -> Self {
        self.within = Some(total);
        self
    }

    /// How long to wait before retry `n`, counted from 0; nothing where the schedule is at its end.
    /// `draw` is a random number in `0.0..1.0`. [`within`](Self::within) is not looked at.
    #[must_use]
    pub fn delay(&self, n: u32, draw: f64) -> Option<Duration> {
        // The attempts made so far are one more than the retries.
        if self.limit.is_some_and(|limit| n >= limit - 1) {
            return None;
        }
        let index = n as usize;
        let wait = match self.steps.get(index) {
            Some(step) => *step,
            None => self.regular?.wait(n - self.steps.len() as u32),
        };
        if self.jitter == 0.0 {
            return Some(wait);
        }
        // A bad random number is none.
        let draw = if draw.is_nan() { 0.5 } else { draw.clamp(0.0, 1.0) };
        // At most twice `MAX_DELAY`.
        Some(wait.mul_f64(1.0 + self.jitter * (2.0 * draw - 1.0)))
    }

    /// The waits of the schedule, as if the attempts took no time. Each takes one number of `draw`,
    /// which gives random ones in `0.0..1.0`.
    pub fn delays<D: FnMut() -> f64>(&self, draw: D) -> Delays<D> {
        Delays { retry: self.clone(), taken: 0, spent: Duration::ZERO, draw }
    }

    /// Tries until it succeeds or the schedule is at its end, and returns what the last attempt
    /// returned. `attempt` is told its number, from 1.
    ///
    /// It never waits past [`within`](Self::within): where the next wait would, it returns at once.
    ///
    /// # Errors
    /// The error of the last attempt.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt under way, or ends the wait; nothing goes on elsewhere.
    /// What an attempt has done stays done, and a new run begins with attempt 1.
    pub async fn run<T, E, F, Fut>(&self, attempt: F) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_if(attempt, |_| true).await
    }

    /// As [`run`](Self::run), but an error that `is_retryable` refuses is returned at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use layercake_node::{AskError, retry::Retry};
    /// # async fn ask() -> Result<u8, AskError> { Ok(7) }
    /// # async fn story() -> Result<(), AskError> {
    /// let retry = Retry::exponential(Duration::from_millis(50), 2.0, Duration::from_secs(2))
    ///     .jitter(0.25)
    ///     .within(Duration::from_secs(10));
    /// let reply = retry.run_if(|_| ask(), AskError::is_retryable).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error of the last attempt.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_if<T, E, F, Fut>(
        &self,
        mut attempt: F,
        mut is_retryable: impl FnMut(&E) -> bool,
    ) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let begun = Instant::now();
        let mut retries = 0;
        loop {
            let error = match attempt(retries + 1).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !is_retryable(&error) {
                return Err(error);
            }
            let Some(wait) = self.delay(retries, rand::random()) else { return Err(error) };
            if self.is_past(begun.elapsed(), wait) {
                return Err(error);
            }
            // Where it is zero too: the others get their turn.
            tokio::time::sleep(wait).await;
            // Four billion of milliseconds are fifty days: counting stops, trying does not.
            retries = retries.saturating_add(1).min(u32::MAX - 1);
        }
    }

    /// Whether a wait at that time goes past the end.
    fn is_past(&self, spent: Duration, wait: Duration) -> bool {
        self.within.is_some_and(|total| spent.saturating_add(wait) > total)
    }
}

/// The waits of a [`Retry`], an iterator. It takes them to be all the time that passes, so that it
/// ends where they add up to more than [`Retry::within`].
#[derive(Debug, Clone)]
pub struct Delays<D> {
    retry: Retry,
    taken: u32,
    spent: Duration,
    draw: D,
}

impl<D> Delays<D> {
    /// How many waits were taken since the beginning or the last [`reset`](Self::reset).
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Begins again, as after a success.
    pub fn reset(&mut self) {
        (self.taken, self.spent) = (0, Duration::ZERO);
    }
}

impl<D: FnMut() -> f64> Iterator for Delays<D> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.retry.delay(self.taken, (self.draw)())?;
        if self.retry.is_past(self.spent, wait) {
            return None;
        }
        self.taken = self.taken.saturating_add(1).min(u32::MAX - 1);
        self.spent = self.spent.saturating_add(wait);
        Some(wait)
    }
}

/// Why a schedule that came from outside is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// More steps than [`MAX_STEPS`].
    #[error("a retry schedule has {0} steps: at most {MAX_STEPS} are allowed")]
    Steps(usize),
    /// A wait longer than [`MAX_DELAY`].
    #[error("a retry waits for {0}: at most {max} are allowed", max = Span::new(MAX_DELAY))]
    TooLong(Span),
    /// A regular wait shorter than [`MIN_EVERY`].
    #[error("a retry every {0} does nothing else: at least {min} are needed", min = Span::new(MIN_EVERY))]
    TooShort(Span),
    /// A factor below 1, or infinite.
    #[error("waits cannot grow by the factor {0}: it must be 1 or more")]
    Factor(f64),
    /// A factor or a greatest wait, and no regular wait that could grow.
    #[error("`factor` and `max` of a retry schedule need `every`, the regular wait")]
    NoEvery,
    /// A greatest wait that is less than the regular one.
    #[error("the greatest wait {max} of a retry schedule is less than the regular one, {every}")]
    Max {
        /// The greatest wait.
        max: Span,
        /// The regular one.
        every: Span,
    },
    /// No attempt at all.
    #[error("a retry schedule with 0 attempts never tries: the limit counts the first attempt too")]
    NoAttempt,
    /// A share that is none.
    #[error("a jitter of {0} is no share: it must be 0 to 1")]
    Jitter(f64),
}

/// A retry schedule as it is sent and typed.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Parts {
    /// The first waits, in turn.
    #[serde(default)]
    steps: Vec<Span>,
    /// The regular wait after the first ones.
    #[serde(default)]
    every: Option<Span>,
    /// What the regular wait is multiplied by each time.
    #[serde(default)]
    factor: Option<f64>,
    /// The greatest regular wait.
    #[serde(default)]
    max: Option<Span>,
    /// The most attempts in all.
    #[serde(default)]
    limit: Option<u32>,
    /// By which share each wait is spread either way.
    #[serde(default)]
    jitter: f64,
    /// The most time from the first attempt to the last.
    #[serde(default)]
    within: Option<Span>,
}

impl From<Retry> for Parts {
    fn from(retry: Retry) -> Self {
        let growing = retry.regular.filter(|regular| regular.factor != 1.0);
        Self {
            steps: retry.steps.into_iter().map(Span::new).collect(),
            every: retry.regular.map(|regular| regular.every.into()),
            factor: growing.map(|regular| regular.factor),
            max: growing.map(|regular| regular.max.into()),
            limit: retry.limit,
            jitter: retry.jitter,
            within: retry.within.map(Span::new),
        }
    }
}

impl TryFrom<Parts> for Retry {
    type Error = RetryError;

    fn try_from(parts: Parts) -> Result<Self, RetryError> {
        if parts.steps.len() > MAX_STEPS {
            return Err(RetryError::Steps(parts.steps.len()));
        }
        let waits = parts.steps.iter().chain(&parts.every).chain(&parts.max);
        if let Some(long) = waits.copied().find(|wait| wait.duration() > MAX_DELAY) {
            return Err(RetryError::TooLong(long));
        }
        if let Some(short) = parts.every.filter(|every| every.duration() < MIN_EVERY) {
            return Err(RetryError::TooShort(short));
        }
        let factor = parts.factor.unwrap_or(1.0);
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(RetryError::Factor(factor));
        }
        if !(0.0..=1.0).contains(&parts.jitter) {
            return Err(RetryError::Jitter(parts.jitter));
        }
        if parts.limit == Some(0) {
            return Err(RetryError::NoAttempt);
        }
        let regular = match (parts.every, parts.max) {
            (None, max) if max.is_some() || parts.factor.is_some() => {
                return Err(RetryError::NoEvery);
            }
            (None, _) => None,
            (Some(every), Some(max)) if max < every => return Err(RetryError::Max { max, every }),
            (Some(every), max) => {
                let every = every.duration();
                let greatest = if factor == 1.0 { every } else { MAX_DELAY };
                // What does not grow needs no greatest.
                let max = max.filter(|_| factor != 1.0).map_or(greatest, Span::duration);
                Some(Regular { every, factor, max })
            }
        };
        Ok(Self {
            steps: parts.steps.into_iter().map(Span::duration).collect(),
            regular,
            limit: parts.limit,
            jitter: parts.jitter,
            within: parts.within.map(Span::duration),
        })
    }
}

#[cfg(test)]
mod tests;
