//! From the parts of a request to a checked, encoded message.
//!
//! A JSON body that is the whole message is parsed to be checked, and passed on as the bytes that came, unless
//! a whole number in it is written with a fraction.
//! Nesting is bounded by the parser (128 levels) and the check (64), size by the caller.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use layercake_node::{
    check,
    http::{From, HttpBody, HttpParameter, holes},
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    problem::{InputError, Kind, Problem},
    table::Endpoint,
};

/// How many parameters a query or form may have.
pub(crate) const MAX_PARAMETERS: usize = 1_024;

/// The name and the value of a parameter.
type Parameter<'q> = (Cow<'q, str>, Cow<'q, str>);

/// What a request has as its body.
pub(crate) enum Content {
    /// Nothing.
    None,
    /// `application/x-www-form-urlencoded`.
    Form(Bytes),
    Json(Bytes),
    /// What a member that is no JSON is checked as.
    Value(Value),
}

impl Content {
    /// How many bytes there are to read.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Form(body) | Self::Json(body) => body.len(),
            Self::None | Self::Value(_) => 0,
        }
    }
}

/// A message that fits its schema.
#[derive(Debug)]
pub(crate) enum Message {
    /// JSON as it came.
    Whole(Bytes),
    /// Put together from parts.
    Made(Map<String, Value>),
}

impl Message {
    /// Its JSON.
    pub(crate) fn encode(self) -> Result<Bytes, Problem> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Made(object) => encode(&object),
        }
    }
}

/// Puts a message together and checks it. `values` are the segments of the path that stand in the place
/// of the template's braces.
pub(crate) fn message(
    endpoint: &Endpoint,
    values: &[String],
    query: &str,
    headers: &HeaderMap,
    content: Content,
) -> Result<Message, Problem> {
    let (route, checker) = (&endpoint.route, &endpoint.entry.checker);
    if let (true, true, Content::Json(body), HttpBody::Members(_)) =
        (route.parameters.is_empty(), query.is_empty(), &content, &route.body)
    {
        let mut value = json(body)?;
        let mut errors = checker.check(&value);
        let mut body = body.clone();
        if !errors.is_empty() && make_whole(&mut value) {
            errors = checker.check(&value);
            body = encode(&value)?;
        }
        return finish(endpoint, Vec::new(), errors).map(|()| Message::Whole(body));
    }

    let mut wrong = Vec::new();
    let mut given: Vec<Parameter<'_>> = Vec::with_capacity(route.parameters.len());
    for (member, value) in holes(&route.template).zip(values) {
        given.push((member.into(), value.as_str().into()));
    }
    for (name, value) in parameters(query, "query")? {
        let of_query = |p: &&HttpParameter| p.from == From::Query && p.name == name;
        let open = endpoint.entry.open && matches!(route.body, HttpBody::None);
        match route.parameters.iter().find(of_query) {
            Some(parameter) => given.push((parameter.member.as_str().into(), value)),
            None if open => given.push((name, value)),
            None => wrong.push(unknown(endpoint, &name)),
        }
    }
    for parameter in route.parameters.iter().filter(|p| p.from == From::Header) {
        for value in headers.get_all(&parameter.name) {
            match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => given.push((parameter.member.as_str().into(), text.into())),
                Err(_) => wrong.push(InputError {
                    r#in: "header",
                    pointer: String::new(),
                    parameter: parameter.name.clone(),
                    detail: "is not UTF-8".to_owned(),
                }),
            }
        }
    }
    if wrong.is_empty()
        && matches!(content, Content::None)
        && let Some(json) = checker.plain(&given)
    {
        return Ok(Message::Whole(json.into()));
    }
    let (mut object, mut unread) = checker.read(&given);

    match (content, &route.body) {
        (Content::Json(body), HttpBody::Members(_)) => match json(&body)? {
            Value::Object(members) => {
                for (member, value) in members {
                    match route.parameters.iter().find(|p| p.member == member) {
                        Some(parameter) => wrong.push(elsewhere(parameter)),
                        None => _ = object.insert(member, value),
                    }
                }
            }
            // Which no schema of a message takes.
            other => {
                finish(endpoint, wrong, checker.check(&other))?;
                return Ok(Message::Whole(body));
            }
        },
        (Content::Form(body), HttpBody::Members(_)) => {
            let text = std::str::from_utf8(&body)
                .map_err(|_| Problem::new(Kind::InvalidBody, "the form is not UTF-8"))?;
            let (elsewheres, fields): (Vec<_>, Vec<_>) = parameters(text, "body")?
                .into_iter()
                .partition(|(name, _)| route.parameters.iter().any(|p| p.member == *name));
            let of = |name: &str| route.parameters.iter().find(|p| p.member == name);
            wrong.extend(elsewheres.iter().filter_map(|(name, _)| of(name)).map(elsewhere));
            let (members, failed) = checker.read(&fields);
            object.extend(members);
            unread.extend(failed);
        }
        (Content::Json(body), HttpBody::Json(member)) => {
            object.insert(member.clone(), json(&body)?);
        }
        (Content::Value(value), HttpBody::Blob(member) | HttpBody::Upload(member)) => {
            object.insert(member.clone(), value);
        }
        _ => {}
    }

    let mut object = Value::Object(object);
    let mut problems = checker.check_beside(&object, &unread);
    if !problems.is_empty() && make_whole(&mut object) {
        problems = checker.check_beside(&object, &unread);
    }
    // What is said of the headers or the query in other words is not said twice.
    problems.retain(|p| !wrong.iter().any(|w| w.parameter == p.parameter));
    unread.extend(problems);
    finish(endpoint, wrong, unread)?;
    match object {
        Value::Object(object) => Ok(Message::Made(object)),
        _ => Ok(Message::Made(Map::new())),
    }
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Kind::InvalidBody, format!("the body is not JSON: {error}")))
}

fn encode(value: &impl Serialize) -> Result<Bytes, Problem> {
    let bytes = serde_json::to_vec(value);
    bytes.map(Bytes::from).map_err(|error| Problem::new(Kind::Internal, error.to_string()))
}

/// Writes numbers without a fraction, as `7.0` or `1e3`, as the whole numbers that they are: for a schema
/// there is no difference, for a decoder there is. Says whether there were any. Only for what would be
/// refused otherwise: a number that is taken as it is keeps its digits.
fn make_whole(value: &mut Value) -> bool {
    /// Beyond it not every whole number can be told from its neighbour.
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT);
            whole.is_some_and(|whole| {
                *number = (whole as i64).into();
                true
            })
        }
        // All of them, so no short cut.
        Value::Array(items) => items.iter_mut().fold(false, |any, item| make_whole(item) | any),
        Value::Object(members) => {
            members.values_mut().fold(false, |any, member| make_whole(member) | any)
        }
        _ => false,
    }
}

/// Refuses where anything is wrong: 400 what came by path, query or header, 422 what is in the body.
fn finish(
    endpoint: &Endpoint,
    wrong: Vec<InputError>,
    problems: Vec<check::Problem>,
) -> Result<(), Problem> {
    let mut errors = wrong;
    errors.extend(problems.into_iter().map(|problem| place(endpoint, problem)));
    if errors.is_empty() {
        return Ok(());
    }
    // The first error is the one that the summary tells.
    errors.sort_by_key(|error| error.r#in == "body");
    let kind = match errors[0].r#in {
        "body" => Kind::InvalidContent,
        _ => Kind::InvalidParameter,
    };
    Err(Problem::input(kind, errors))
}

/// Says where in the request it is.
fn place(endpoint: &Endpoint, problem: check::Problem) -> InputError {
    let check::Problem { mut pointer, mut parameter, detail } = problem;
    let route = &endpoint.route;
    if let Some(known) = route.parameters.iter().find(|p| p.member == parameter) {
        let (r#in, parameter) = (part(known.from), known.name.clone());
        return InputError { r#in, pointer, parameter, detail };
    }
    let whole = match &route.body {
        HttpBody::Json(member) | HttpBody::Blob(member) | HttpBody::Upload(member) => Some(member),
        HttpBody::None | HttpBody::Members(_) => None,
    };
    if whole.is_some_and(|member| *member == parameter) {
        // The body is that member: it is not named in it.
        let within = pointer.get(1..).and_then(|rest| rest.find('/'));
        pointer = within.map_or_else(String::new, |end| pointer[1 + end..].to_owned());
        let first = pointer.split('/').nth(1).unwrap_or_default();
        parameter = first.replace("~1", "/").replace("~0", "~");
    }
    let r#in = if matches!(route.body, HttpBody::None) { "query" } else { "body" };
    InputError { r#in, pointer, parameter, detail }
}

fn part(from: From) -> &'static str {
    match from {
        From::Path => "path",
        From::Query => "query",
        From::Header => "header",
    }
}

fn unknown(endpoint: &Endpoint, name: &str) -> InputError {
    let known = endpoint.route.parameters.iter().filter(|p| p.from == From::Query);
    let known: Vec<_> = known.map(|p| p.name.as_str()).collect();
    let detail = match &known[..] {
        [] if matches!(endpoint.route.body, HttpBody::Members(_)) => {
            "is unknown: fields come from the body here, not from the query".to_owned()
        }
        [] => "is unknown: there are no parameters".to_owned(),
        known => format!("is unknown: there are {}", known.join(", ")),
    };
    let (parameter, pointer) = (name.to_owned(), String::new());
    InputError { r#in: "query", pointer, parameter, detail }
}

fn elsewhere(parameter: &HttpParameter) -> InputError {
    InputError {
        r#in: "body",
        pointer: format!("/{}", parameter.member.replace('~', "~0").replace('/', "~1")),
        parameter: parameter.member.clone(),
        detail: format!("comes from the {} here, not from the body", part(parameter.from)),
    }
}

/// Splits a query or a form into names and values.
fn parameters<'q>(query: &'q str, part: &'static str) -> Result<Vec<Parameter<'q>>, Problem> {
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
                    r#in: part,
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
        let pairs = parameters(query, "query").expect("well formed");
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
            let problem = parameters(query, "query").expect_err(query);
            assert_eq!(problem.kind, Kind::InvalidParameter);
            assert_eq!(problem.errors[0].parameter, "x", "{query}");
        }
        assert!(parameters("%ff=1", "query").is_err());
    }

    #[test]
    fn numbers_without_a_fraction_are_whole_however_they_are_written() {
        let whole = |text: &str| {
            let mut value = json(text.as_bytes()).unwrap();
            make_whole(&mut value).then(|| value.to_string())
        };
        assert_eq!(whole(r#"{"x":7.0,"y":[1e3,-0.0]}"#).unwrap(), r#"{"x":7,"y":[1000,0]}"#);
        for same in [r#"{"x":7,"y":7.5}"#, "1e300", "[]", "18446744073709551615"] {
            assert_eq!(whole(same), None, "{same}");
        }
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        assert!(parameters(&"x=1&".repeat(MAX_PARAMETERS), "query").is_ok());
        assert!(parameters(&"x=1&".repeat(MAX_PARAMETERS + 1), "query").is_err());
    }
}
