//! W3C Trace Context: the id by which one request is found again in every log that it went through.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// The header of the trace context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Which request this is, and whose part of it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The whole, from the first client on.
    pub(crate) id: u128,
    /// The part, made by whoever works on it.
    pub(crate) span: u64,
    /// Whether whoever began it records it.
    pub(crate) sampled: bool,
}

impl Trace {
    /// The trace that a request belongs to, with a part of our own; a new one where it brings none that
    /// makes sense.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let parent = match (given.next(), given.next()) {
            (Some(one), None) => one.to_str().ok().and_then(Self::parse),
            _ => None,
        };
        let (id, sampled) =
            parent.map_or_else(|| (rand::random::<u128>().max(1), false), |p| (p.id, p.sampled));
        Self { id, span: rand::random::<u64>().max(1), sampled }
    }

    /// Reads a `traceparent`. Of a version to come what is known now is taken.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let mut field = |length: usize| {
            fields.next().filter(|field| {
                let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                field.len() == length && field.bytes().all(lower_hex)
            })
        };
        let (version, id, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        let id = u128::from_str_radix(id, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { id, span, sampled: flags & 1 == 1 })
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
    use http::HeaderValue;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_parent_is_continued_and_an_invalid_one_is_not() {
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        let table = [
            (GIVEN, true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("", false),
        ];
        for (text, valid) in table {
            let value = HeaderValue::from_static(text);
            let trace = Trace::of(&[(TRACEPARENT, value)].into_iter().collect());
            assert_eq!(trace.id == id, valid, "{text}");
            assert_ne!(trace.span, 0x00f0_67aa_0ba9_02b7, "the part is our own");
            assert!(trace.id != 0 && trace.span != 0);
        }
    }

    #[test]
    fn two_parents_are_none_and_what_is_passed_on_can_be_read() {
        let given = || (TRACEPARENT, HeaderValue::from_static(GIVEN));
        let mut headers: HeaderMap = [given()].into_iter().collect();
        let trace = Trace::of(&headers);
        assert_eq!(Trace::parse(&trace.to_string()), Some(trace));
        headers.append(TRACEPARENT, HeaderValue::from_static(GIVEN));
        assert_ne!(Trace::of(&headers).id, trace.id);
    }
}
