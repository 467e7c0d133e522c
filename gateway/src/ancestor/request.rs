//! What an ancestor's program asks: the name behind the last slash, and the members from a query, a
//! form or JSON, with every error told in the ancestor's words.

use std::borrow::Cow;

use http::{HeaderMap, Method, header};
use layercake_node::schema::resolve;
use serde_json::{Map, Value, json};

use super::shape::{Key, MAX_HOPS, Shape, shape, takes_null};
use crate::input::decode;

/// How deep a value is looked into; what is deeper is left as it came.
const MAX_DEPTH: usize = 64;

/// Where a message's members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source<'r> {
    Query(&'r str),
    Form,
    Json,
}

/// Cuts a target into the path, the name that it ends in, and the query.
///
/// # Errors
/// In the ancestor's words.
pub(crate) fn cut(target: &str) -> Result<(&str, &str, Option<&str>), String> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if !target.starts_with('/') || target.len() < 2 {
        return Err(format!("unexpected request URI \"{target}\""));
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    Ok((path, name, query))
}

/// Where the members of the message of that name are. A query stands before any body, and the method
/// matters to JSON alone.
///
/// # Errors
/// In the ancestor's words.
pub(crate) fn source<'r>(
    name: &str,
    query: Option<&'r str>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Source<'r>, String> {
    if let Some(query) = query {
        return Ok(Source::Query(query));
    }
    let full = headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let essence = full.as_deref().map(|full| full.split(';').next().unwrap_or_default().trim());
    match essence.map(str::to_ascii_lowercase).as_deref() {
        Some("application/x-www-form-urlencoded") => Ok(Source::Form),
        Some("application/json") if method == Method::POST => Ok(Source::Json),
        Some("application/json") => Err(format!("unexpected HTTP method \"{method}\"")),
        other => {
            let found = other.unwrap_or("None");
            Err(format!("unexpected content type \"{found}\" for HTTP request \"{name}\""))
        }
    }
}

/// The members of a query or form, each a JSON value, or bare where its type is a text.
///
/// # Errors
/// In the ancestor's words.
pub(crate) fn members(
    schema: &Value,
    name: &str,
    text: &str,
    of_form: bool,
) -> Result<Value, String> {
    let place = if of_form { "x-www-form" } else { "query" };
    let known = schema.get("properties").and_then(Value::as_object);
    let mut message = Map::new();
    // What ends with `&` is forgiven: the ancestor does so in queries.
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, raw)) = pair.split_once('=') else {
            return Err(format!("unexpected field \"{pair}\" {place}"));
        };
        let Some(member) = known.and_then(|known| known.get(key)) else {
            return Err(format!("unknown key \"{key}\" in \"{name}\" {place}"));
        };
        let failed = |why: String| format!("no conversion for \"{key}\" ({why})");
        let text = decode(raw)
            .ok_or_else(|| failed("cannot decode (no percent-encoded UTF-8)".to_owned()))?;
        message.insert(key.to_owned(), bare(schema, member, text).map_err(failed)?);
    }
    complete(schema, schema, &mut message);
    Ok(Value::Object(message))
}

fn bare(root: &Value, schema: &Value, text: Cow<'_, str>) -> Result<Value, String> {
    match shape(root, schema) {
        Shape::Text | Shape::Uuid | Shape::Choice(_) => Ok(Value::from(text.into_owned())),
        _ => {
            let value =
                serde_json::from_str(&text).map_err(|error| format!("cannot decode ({error})"))?;
            fitted(root, schema, value, 0)
        }
    }
}

/// The members of a message as the ancestor's client sends it, `{"value":{…}}`. No body at all is a
/// message of defaults.
///
/// # Errors
/// In the ancestor's words.
pub(crate) fn from_json(schema: &Value, body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return fitted(schema, schema, json!({}), 0);
    }
    let text = std::str::from_utf8(body).map_err(|error| format!("cannot decode ({error})"))?;
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("cannot decode ({error})"))?;
    match value {
        Value::Object(mut envelope) if envelope.contains_key("value") => {
            fitted(schema, schema, envelope.swap_remove("value").unwrap_or_default(), 0)
        }
        _ => Err("cannot decode (no \"value\" available)".to_owned()),
    }
}

/// The value as this program writes it: what the ancestor leaves out, passes over and fills in, done.
/// Where it has null or nothing for a member that must be there, the member gets its type's default.
fn fitted(root: &Value, schema: &Value, value: Value, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH || (value.is_null() && takes_null(schema)) {
        return Ok(value);
    }
    let part = |schema, value| fitted(root, schema, value, depth + 1);
    let near = |place: &str, error: String| match error.strip_prefix("near \"") {
        Some(inner) => {
            let dot = if inner.starts_with('[') { "" } else { "." };
            format!("near \"{place}{dot}{inner}")
        }
        None => format!("near \"{place}\" ({error})"),
    };
    let wanted = match (shape(root, schema), value) {
        (Shape::Class(_, members), Value::Object(mut given)) => {
            let mut whole = Map::new();
            for (name, member) in members {
                let Some(value) = given.get_mut(name).map(Value::take) else { continue };
                if !value.is_null() || takes_null(member) {
                    let value = part(member, value).map_err(|error| near(name, error))?;
                    whole.insert(name.clone(), value);
                }
            }
            complete(root, schema, &mut whole);
            return Ok(Value::Object(whole));
        }
        (Shape::Vector(items) | Shape::Array(items, _) | Shape::Set(items), Value::Array(all)) => {
            let all = all.into_iter().enumerate();
            let all = all.map(|(at, value)| {
                part(items, value).map_err(|error| near(&format!("[{at}]"), error))
            });
            return all.collect::<Result<_, _>>().map(Value::Array);
        }
        (Shape::Map(key, values), Value::Array(pairs)) => {
            let mut object = Map::new();
            for pair in pairs {
                let Value::Array(pair) = pair else { return Err("no transform map".to_owned()) };
                match (<[Value; 2]>::try_from(pair), key) {
                    (Ok([Value::String(name), value]), Key::Text) => {
                        object.insert(name, part(values, value)?);
                    }
                    (Ok([Value::Number(name), value]), Key::Integer) => {
                        object.insert(name.to_string(), part(values, value)?);
                    }
                    _ => return Err("no transform map".to_owned()),
                }
            }
            return Ok(Value::Object(object));
        }
        (Shape::Integer, Value::Number(number)) if number.is_f64() => {
            return Err("no transform float/Integer8".to_owned());
        }
        (Shape::Integer | Shape::Float, value @ Value::Number(_))
        | (Shape::Boolean, value @ Value::Bool(_))
        | (Shape::Text | Shape::Uuid | Shape::Choice(_), value @ Value::String(_))
        | (Shape::Any | Shape::Null, value) => return Ok(value),
        (wanted, value) => (wanted, value),
    };
    Err(format!("no transform {}/{}", python(&wanted.1), codec(wanted.0)))
}

/// Adds what must be there and is not.
fn complete<'s>(root: &'s Value, mut schema: &'s Value, message: &mut Map<String, Value>) {
    for _ in 0..MAX_HOPS {
        let reference = schema.get("$ref").and_then(Value::as_str);
        match reference.and_then(|reference| resolve(root, reference)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    let names = schema.get("required").and_then(Value::as_array);
    for name in names.into_iter().flatten().filter_map(Value::as_str) {
        let member = schema.get("properties").and_then(|members| members.get(name));
        if let Some(member) = member.filter(|_| !message.contains_key(name)) {
            message.insert(name.to_owned(), default(root, member));
        }
    }
}

/// What the ancestor makes of a member that nobody has set.
fn default(root: &Value, schema: &Value) -> Value {
    if takes_null(schema) {
        return Value::Null;
    }
    match shape(root, schema) {
        Shape::Boolean => json!(false),
        Shape::Integer => {
            let least = schema.get("minimum").and_then(Value::as_i64);
            json!(least.unwrap_or_default().max(0))
        }
        Shape::Float => json!(0.0),
        Shape::Text => json!(""),
        Shape::Vector(_) | Shape::Set(_) => json!([]),
        Shape::Map(..) => json!({}),
        Shape::Class(..) => json!({}),
        // No value of them is as good as any other: the schema says what is missing.
        Shape::Null | Shape::Uuid | Shape::Choice(_) | Shape::Array(..) | Shape::Any => Value::Null,
    }
}

fn python(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

const fn codec(shape: Shape<'_>) -> &'static str {
    match shape {
        Shape::Null | Shape::Any => "Any",
        Shape::Boolean => "Boolean",
        Shape::Integer => "Integer8",
        Shape::Float => "Float8",
        Shape::Text => "Unicode",
        Shape::Uuid => "UUID",
        Shape::Choice(_) => "Enumeration",
        Shape::Vector(_) => "VectorOf",
        Shape::Array(..) => "ArrayOf",
        Shape::Set(_) => "SetOf",
        Shape::Map(..) => "MapOf",
        Shape::Class(..) => "UserDefined",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderValue;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Point {
        at: f64,
        label: Option<String>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Xy {
        x: u32,
        #[serde(default)]
        y: u32,
        #[serde(default)]
        text: String,
        #[serde(default)]
        points: Vec<Point>,
        #[serde(default)]
        marks: BTreeMap<i64, bool>,
    }

    fn xy() -> Value {
        schemars::SchemaGenerator::default().into_root_schema_for::<Xy>().to_value()
    }

    #[test]
    fn a_target_ends_in_the_name() {
        assert_eq!(cut("/Xy?x=1/2&y=1"), Ok(("/Xy", "Xy", Some("x=1/2&y=1"))));
        assert_eq!(cut("/a/b/Xy"), Ok(("/a/b/Xy", "Xy", None)));
        assert_eq!(cut("/Xy?"), Ok(("/Xy", "Xy", Some(""))));
        assert_eq!(cut("//"), Ok(("//", "", None)));
        assert_eq!(cut("/"), Err("unexpected request URI \"/\"".to_owned()));
        assert_eq!(cut("*"), Err("unexpected request URI \"*\"".to_owned()));
    }

    #[test]
    fn a_query_stands_before_a_body_and_only_json_minds_the_method() {
        let of = |query, method: Method, content_type: Option<&'static str>| {
            let value = content_type.map(|v| (header::CONTENT_TYPE, HeaderValue::from_static(v)));
            source("Xy", query, &method, &value.into_iter().collect())
        };
        let json = Some("application/json");
        assert_eq!(of(Some(""), Method::DELETE, json), Ok(Source::Query("")));
        assert_eq!(of(None, Method::POST, json), Ok(Source::Json));
        assert_eq!(of(None, Method::PUT, json), Err("unexpected HTTP method \"PUT\"".to_owned()));
        let form = Some("application/x-www-form-urlencoded");
        assert_eq!(of(None, Method::PUT, form), Ok(Source::Form));
        assert_eq!(
            of(None, Method::GET, None),
            Err("unexpected content type \"None\" for HTTP request \"Xy\"".to_owned())
        );
    }

    #[test]
    fn members_of_a_query_are_json_and_texts_are_bare() {
        let schema = xy();
        let of = |query| members(&schema, "Xy", query, false);
        assert_eq!(of("x=2&y=3&"), Ok(json!({"x": 2, "y": 3})));
        assert_eq!(of(""), Ok(json!({"x": 0})), "what must be there gets its type's default");
        assert_eq!(of("x=1&x=%32"), Ok(json!({"x": 2})), "the last one wins");
        assert_eq!(of("text=a+b%2f&x=1"), Ok(json!({"x": 1, "text": "a b/"})));
        assert_eq!(
            of(r#"x=1&points=[{"at":1.5}]&marks=[[1,true]]"#),
            Ok(json!({"x": 1, "points": [{"at": 1.5}], "marks": {"1": true}}))
        );
        for (query, why) in [
            ("z=1", "unknown key \"z\" in \"Xy\" query"),
            ("x", "unexpected field \"x\" query"),
            (
                "x=abc",
                "no conversion for \"x\" (cannot decode (expected value at line 1 column 1))",
            ),
            ("x=1.5", "no conversion for \"x\" (no transform float/Integer8)"),
            ("x=true", "no conversion for \"x\" (no transform bool/Integer8)"),
            ("x=[1]", "no conversion for \"x\" (no transform list/Integer8)"),
            ("x={}", "no conversion for \"x\" (no transform dict/Integer8)"),
            ("x=null", "no conversion for \"x\" (no transform NoneType/Integer8)"),
        ] {
            assert_eq!(of(query), Err(why.to_owned()), "{query}");
        }
        let form = members(&schema, "Xy", "z=1", true);
        assert_eq!(form, Err("unknown key \"z\" in \"Xy\" x-www-form".to_owned()));
    }

    #[test]
    fn json_comes_in_an_envelope_and_is_forgiven_much() {
        let schema = xy();
        let of = |body: &str| from_json(&schema, body.as_bytes());
        assert_eq!(of(r#"{"value":{"x":1,"y":3}}"#), Ok(json!({"x": 1, "y": 3})));
        assert_eq!(of(""), Ok(json!({"x": 0})));
        assert_eq!(of(r#"{"value":{"x":null,"z":1}}"#), Ok(json!({"x": 0})));
        assert_eq!(
            of(r#"{"value":{"points":[{"at":1,"label":null}]}}"#),
            Ok(json!({"x": 0, "points": [{"at": 1, "label": null}]}))
        );
        for (body, why) in [
            (r#"{"x":2,"y":1}"#, "cannot decode (no \"value\" available)"),
            ("{}", "cannot decode (no \"value\" available)"),
            (r#"["test_api.Xy",{},[]]"#, "cannot decode (no \"value\" available)"),
            (r#"{"value":["test_api.Xy",{},[]]}"#, "no transform list/UserDefined"),
            (r#"{"value":null}"#, "no transform NoneType/UserDefined"),
            (r#"{"value":{"x":"abc"}}"#, "near \"x\" (no transform str/Integer8)"),
            (r#"{"value":{"x":1.0}}"#, "near \"x\" (no transform float/Integer8)"),
            (
                r#"{"value":{"points":[{"at":"?"}]}}"#,
                "near \"points[0].at\" (no transform str/Float8)",
            ),
        ] {
            assert_eq!(of(body), Err(why.to_owned()), "{body}");
        }
        assert!(from_json(&schema, b"{\"value\":\xff}").is_err());
        assert!(of(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_schema_that_contains_itself_ends() {
        let schema: Value = serde_json::from_str(
            r##"{"title":"T","type":"object","properties":{"t":{"$ref":"#"}},"required":["t"]}"##,
        )
        .unwrap();
        assert!(resolve(&schema, "#").is_some());
        assert!(from_json(&schema, b"").is_ok());
    }
}
