//! Which trace a request belongs to (W3C Trace Context).

use http::{HeaderMap, HeaderName};
use layercake_wire::trace::Trace;

/// The header of the trace context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace that a request belongs to, with a part of our own; `None` where it brings none that makes
/// sense.
pub(super) fn of(headers: &HeaderMap) -> Option<Trace> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let parent = match (given.next(), given.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    parent.map(Trace::part)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_parent_is_continued_and_nonsense_is_not() {
        let continued = |given: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for text in given {
                headers.append(TRACEPARENT, HeaderValue::from_static(text));
            }
            of(&headers)
        };
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: Trace = given.parse().unwrap();
        let trace = continued(&[given]).unwrap();
        assert!(trace.id == parent.id && trace.span != parent.span && trace.sampled);
        for nonsense in [&[][..], &["nonsense"], &[given, given]] {
            assert!(continued(nonsense).is_none(), "{nonsense:?}");
        }
    }
}
