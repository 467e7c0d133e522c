//! Time spans as people write them: `250ms`, `2.5s`, `1m30s`, `7d10s`.
//!
//! A [`Span`] is a `Duration` that is text wherever it is seen: on command lines, in JSON, in schemas
//! and in the compact encoding alike, so that one schema is true of all of them.
//!
//! `jiff` reads most of these forms, but none with days into a duration without a calendar; here a
//! day is 24 hours.

use std::{fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The `format` of its schema.
pub(crate) const FORMAT: &str = "span";

/// A length of time that is written as `250ms`, `2.5s`, `1m30s`, `1h` or `7d10s`.
///
/// The units are `d` (24 hours), `h`, `m`, `s`, `ms`, `us` (also `µs`) and `ns`; larger ones come
/// first, each at most once, and only the last number may have a fraction. `0` needs no unit. It is
/// written in the shortest such form that is exact, and what is written reads back the same.
///
/// ```
/// # use std::time::Duration;
/// # use layercake_node::Span;
/// let span: Span = "1m30s".parse()?;
/// assert_eq!(Duration::from(span), Duration::from_secs(90));
/// assert_eq!(Span::from_millis(2500).to_string(), "2.5s");
/// # Ok::<_, layercake_node::SpanError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// The units, largest first, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const SECOND: u128 = 1_000_000_000;
/// The most digits of a fraction that the units above can give a meaning to.
const MAX_FRACTION: usize = 18;
/// How much of a wrong text an error repeats.
const MAX_QUOTED: usize = 24;

impl Span {
    /// No time.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The span of a duration.
    #[must_use]
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// Why a text is no time span. Each says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// There is no text.
    #[error("a time span is empty: write for example 250ms")]
    Empty,
    /// A number is missing, or written in another way than `5` or `2.5`.
    #[error("`{0}` is no time span: write for example 250ms, 2.5s or 1m30s")]
    Number(String),
    /// A number without a unit.
    #[error("`{0}` has no unit: write {0}s for seconds, or one of d, h, m, s, ms, us, ns")]
    NoUnit(String),
    /// A unit that is none.
    #[error("`{0}` is no unit of time: there are d, h, m, s, ms, us, ns")]
    Unit(String),
    /// A unit after itself or a smaller one.
    #[error("`{0}` comes too late: write larger units first, each once, as in 1h30m")]
    Order(String),
    /// A number with a fraction, and more after it.
    #[error("`{0}` has a fraction and is not the last part: write for example 1h30m")]
    Fraction(String),
    /// A fraction that is no whole number of nanoseconds.
    #[error("`{0}` is finer than a nanosecond")]
    TooFine(String),
    /// More than 2^64 seconds.
    #[error("`{0}` is longer than a time span can be")]
    TooLong(String),
    /// Time does not run backwards.
    #[error("`{0}` is negative: a time span is not")]
    Negative(String),
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let text = text.trim();
        match text {
            "" => return Err(SpanError::Empty),
            "0" => return Ok(Self::ZERO),
            _ if text.starts_with('-') => return Err(SpanError::Negative(clip(text))),
            _ => {}
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let mut nanos: u128 = 0;
        let mut smallest: Option<usize> = None;
        let mut fraction: Option<&str> = None;
        let mut rest = text;
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
            let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
            let part = &rest[..number.len() + unit.len()];
            if number.is_empty() {
                return Err(SpanError::Number(clip(text)));
            }
            if let Some(earlier) = fraction {
                return Err(SpanError::Fraction(clip(earlier)));
            }
            if unit.is_empty() {
                return Err(SpanError::NoUnit(clip(number)));
            }
            let known = UNITS.iter().position(|(name, _)| *name == unit);
            // The sign of micro, and the Greek letter.
            let known = known.or_else(|| matches!(unit, "µs" | "μs").then_some(5));
            let Some(at) = known else { return Err(SpanError::Unit(clip(unit))) };
            if smallest.is_some_and(|smallest| smallest >= at) {
                return Err(SpanError::Order(clip(part)));
            }
            smallest = Some(at);
            fraction = number.contains('.').then_some(part);
            // At most 2^64 of the largest unit, seven times: far from overflow.
            nanos += number_of(number, part, UNITS[at].1)?;
            rest = tail;
        }
        let (secs, nanos) = (nanos / SECOND, nanos % SECOND);
        match (u64::try_from(secs), u32::try_from(nanos)) {
            (Ok(secs), Ok(nanos)) => Ok(Self(Duration::new(secs, nanos))),
            _ => Err(SpanError::TooLong(clip(text))),
        }
    }
}

/// The nanoseconds of `number` units.
fn number_of(number: &str, part: &str, unit: u128) -> Result<u128, SpanError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(SpanError::Number(clip(part)));
    }
    let whole: u64 = whole.parse().map_err(|_| SpanError::TooLong(clip(part)))?;
    let digits = fraction.trim_end_matches('0');
    if digits.len() > MAX_FRACTION {
        return Err(SpanError::TooFine(clip(part)));
    }
    let parts = digits.bytes().fold(0u128, |all, digit| all * 10 + u128::from(digit - b'0')) * unit;
    let whole_unit = 10u128.pow(digits.len() as u32);
    if !parts.is_multiple_of(whole_unit) {
        return Err(SpanError::TooFine(clip(part)));
    }
    Ok(u128::from(whole) * unit + parts / whole_unit)
}

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(MAX_QUOTED).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let mut text = String::new();
        let mut rest = self.0.as_nanos();
        for (name, unit) in UNITS {
            // Below a second there is one number, with a fraction.
            let is_last = unit <= SECOND;
            if rest >= unit {
                write!(text, "{}", rest / unit)?;
                rest %= unit;
                if is_last && rest > 0 {
                    let digits = unit.ilog10() as usize;
                    let fraction = format!("{rest:0digits$}");
                    write!(text, ".{}", fraction.trim_end_matches('0'))?;
                    rest = 0;
                }
                text.push_str(name);
            } else if unit == SECOND && rest > 0 && !text.is_empty() {
                // After minutes, a part of a second is a fraction of it.
                let fraction = format!("{rest:09}");
                write!(text, "0.{}s", fraction.trim_end_matches('0'))?;
                rest = 0;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time span such as 250ms")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Span {
    // So that a field shows at once what it is.
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": FORMAT,
            "description": "A time span such as 250ms, 2.5s, 1m30s, 1h or 7d10s.",
        })
    }
}

#[cfg(test)]
mod tests;
