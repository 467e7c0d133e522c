//! Trace contexts (W3C): the id by which one piece of work is found again in every log that it went through.
//!
//! They travel with asks, beside what is asked, and mean nothing to links and actors.

use std::{fmt, str::FromStr};

/// Which work this is part of, and by whom it was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The whole, from whoever began it; not zero.
    pub id: u128,
    /// The part of it that passed it on; not zero.
    pub span: u64,
    /// Whether whoever began it keeps records of it.
    pub sampled: bool,
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no trace context: it is written `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal")]
pub struct NoTrace;

impl Trace {
    /// A new one, which nobody is known to keep records of.
    #[must_use]
    pub fn begin() -> Self {
        let (id, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
        Self { id, span, sampled: false }
    }

    /// Another part of the same work.
    #[must_use]
    pub fn part(self) -> Self {
        Self { span: rand::random::<u64>().max(1), ..self }
    }
}

impl FromStr for Trace {
    type Err = NoTrace;

    /// Reads a `traceparent`. Of a version to come what is known now is taken.
    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let mut fields = text.split('-');
        let mut field = |length: usize| {
            let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            let field = fields.next().ok_or(NoTrace)?;
            let fits = field.len() == length && field.bytes().all(lower_hex);
            if fits { Ok(field) } else { Err(NoTrace) }
        };
        let (version, id, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return Err(NoTrace);
        }
        let id = u128::from_str_radix(id, 16).ok().filter(|id| *id != 0).ok_or(NoTrace)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0).ok_or(NoTrace)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NoTrace)?;
        Ok(Self { id, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for Trace {
    /// As a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_text_is_read_and_an_invalid_one_is_not() {
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        let trace = |sampled| Ok(Trace { id, span: 0x00f0_67aa_0ba9_02b7, sampled });
        let table = [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", trace(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", trace(false)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", trace(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Err(NoTrace)),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Err(NoTrace)),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", Err(NoTrace)),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", Err(NoTrace)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", Err(NoTrace)),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", Err(NoTrace)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", Err(NoTrace)),
            ("", Err(NoTrace)),
        ];
        for (text, expect) in table {
            assert_eq!(text.parse(), expect, "{text}");
        }
    }

    #[test]
    fn what_is_passed_on_is_the_same_work_by_another() {
        let begun = Trace::begin();
        assert_eq!(begun.to_string().parse(), Ok(begun));
        let part = begun.part();
        assert!(part.id == begun.id && part.span != begun.span && begun.id != 0);
    }
}
