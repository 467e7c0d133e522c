//! From a query, a form or a JSON body to a checked, encoded message.
//!
//! A JSON body is parsed to be checked, and passed on as the bytes that came. Nesting is bounded by
//! the parser (128 levels), size by the caller.

use std::borrow::Cow;

use bytes::Bytes;
use layercake_node::check::{self, Checker};

use crate::problem::{InputError, Kind, Problem};

/// How many parameters a query or form may have.
pub(crate) const MAX_PARAMETERS: usize = 1_024;

/// The name and the value of a parameter.
type Parameter<'q> = (Cow<'q, str>, Cow<'q, str>);

/// What a query says, as the JSON of a message.
pub(crate) fn from_query(checker: &Checker, query: &str) -> Result<Bytes, Problem> {
    let pairs = parameters(query)?;
    let value =
        checker.from_query(&pairs).map_err(|errors| refuse(Kind::InvalidParameter, errors))?;
    encode(&value)
}

/// What a form says (`application/x-www-form-urlencoded`), as the JSON of a message.
pub(crate) fn from_form(checker: &Checker, body: &[u8]) -> Result<Bytes, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Problem::new(Kind::InvalidBody, "the form is not UTF-8"))?;
    from_query(checker, text)
}

/// A JSON body, if it fits the schema.
pub(crate) fn from_json(checker: &Checker, body: Bytes) -> Result<Bytes, Problem> {
    let value = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(Kind::InvalidBody, format!("the body is not JSON: {error}"))
    })?;
    let errors = checker.check(&value);
    if errors.is_empty() { Ok(body) } else { Err(refuse(Kind::InvalidBody, errors)) }
}

fn encode(value: &serde_json::Value) -> Result<Bytes, Problem> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| Problem::new(Kind::InvalidParameter, error.to_string()))
}

fn refuse(kind: Kind, errors: Vec<check::Problem>) -> Problem {
    let errors = errors
        .into_iter()
        .map(|e| InputError { pointer: e.pointer, parameter: e.parameter, detail: e.detail })
        .collect();
    Problem::input(kind, errors)
}

/// Splits a query into names and values.
fn parameters(query: &str) -> Result<Vec<Parameter<'_>>, Problem> {
    let mut pairs = Vec::with_capacity(4);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == MAX_PARAMETERS {
            let detail = format!("more than {MAX_PARAMETERS} parameters");
            return Err(Problem::new(Kind::InvalidParameter, detail));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = decode(name);
        let parameter = plain.clone().unwrap_or(Cow::Borrowed(name));
        match (plain, decode(value)) {
            (Some(name), Some(value)) => pairs.push((name, value)),
            _ => {
                let error = InputError {
                    pointer: String::new(),
                    parameter: parameter.into_owned(),
                    detail: "is not percent-encoded UTF-8".to_owned(),
                };
                return Err(Problem::input(Kind::InvalidParameter, vec![error]));
            }
        }
    }
    Ok(pairs)
}

/// Undoes percent-encoding and `+`. `None` where a `%` is not followed by two hexadecimal digits, or
/// the result is not UTF-8. Text without either comes back as it is.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    percent_decode(text, true).map(Cow::Owned)
}

/// Undoes percent-encoding, and `+` for a space if so told (a path has no such thing).
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(plain).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        let pairs = parameters(query).expect("well formed");
        pairs.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect()
    }

    #[test]
    fn names_and_values_are_decoded() {
        let expect = |n: &str, v: &str| vec![(n.to_owned(), v.to_owned())];
        assert_eq!(pairs("x=2"), expect("x", "2"));
        assert_eq!(pairs("a+b=%C3%BC%26+%2b"), expect("a b", "ü& +"));
        assert_eq!(pairs("flag"), expect("flag", ""));
        assert_eq!(pairs("x==2"), expect("x", "=2"));
        assert_eq!(pairs("&&"), []);
    }

    #[test]
    fn broken_percent_encoding_names_its_parameter() {
        for query in ["y=1&x=%", "x=%4", "x=%zz", "x=%ff", "x=%+1"] {
            let problem = parameters(query).expect_err(query);
            assert_eq!(problem.kind, Kind::InvalidParameter);
            assert_eq!(problem.errors[0].parameter, "x", "{query}");
        }
        assert!(parameters("%ff=1").is_err());
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        assert!(parameters(&"x=1&".repeat(MAX_PARAMETERS)).is_ok());
        assert!(parameters(&"x=1&".repeat(MAX_PARAMETERS + 1)).is_err());
    }
}
