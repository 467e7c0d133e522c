//! What the ancestor calls the types that a JSON Schema describes.
//!
//! Its programs write Python's hints, so that every whole number is an `integer8` and every other
//! number a `float8`, of whatever size they are here.

use layercake_node::schema::resolve;
use serde_json::{Map, Value};

/// How many references and wrappers of options are followed for one type.
pub(super) const MAX_HOPS: usize = 8;

/// A type of the ancestor, with the schemas of its parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape<'s> {
    /// Nothing but null.
    Null,
    Boolean,
    Integer,
    Float,
    Text,
    Uuid,
    /// One of some texts, by the name of the type.
    Choice(&'s str),
    Vector(&'s Value),
    /// With how many elements.
    Array(&'s Value, u64),
    Set(&'s Value),
    /// From texts or from whole numbers.
    Map(Key, &'s Value),
    /// A type with members, by its name.
    Class(&'s str, &'s Map<String, Value>),
    /// Whatever it is, it says so itself.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Text,
    Integer,
}

/// The type that a schema within `root` describes. An optional one is what it is when it is there.
pub(super) fn shape<'s>(root: &'s Value, mut schema: &'s Value) -> Shape<'s> {
    let mut name = None;
    for _ in 0..MAX_HOPS {
        let Some(object) = schema.as_object() else { return Shape::Any };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let Some(target) = resolve(root, reference) else { return Shape::Any };
            name = reference.rsplit('/').next();
            schema = target;
        } else if let Some(wrapped) = wrapped(object) {
            schema = wrapped;
        } else {
            let title = object.get("title").and_then(Value::as_str);
            return of_object(object, title.or(name).unwrap_or("object"));
        }
    }
    Shape::Any
}

/// What an option, or a reference with remarks, is about.
fn wrapped(object: &Map<String, Value>) -> Option<&Value> {
    if let Some([only]) = object.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return Some(only);
    }
    let is_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) == Some("null");
    match object.get("anyOf").and_then(Value::as_array)?.as_slice() {
        [one, null] | [null, one] if is_null(&null) => Some(one),
        _ => None,
    }
}

/// Whether null is a value of a type.
pub(super) fn takes_null(schema: &Value) -> bool {
    let is_null = |ty: &Value| ty.as_str() == Some("null");
    let of_type = schema.get("type").is_some_and(|ty| match ty {
        Value::Array(several) => several.iter().any(is_null),
        one => is_null(one),
    });
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    of_type
        || alternatives.is_some_and(|all| all.iter().any(|s| s.get("type").is_some_and(is_null)))
}

fn of_object<'s>(object: &'s Map<String, Value>, name: &'s str) -> Shape<'s> {
    let ty = match object.get("type") {
        Some(Value::String(one)) => one.as_str(),
        Some(Value::Array(several)) => {
            let mut named = several.iter().filter_map(Value::as_str).filter(|ty| *ty != "null");
            match (named.next(), named.next()) {
                (Some(one), None) => one,
                _ => return Shape::Any,
            }
        }
        _ => return Shape::Any,
    };
    match ty {
        "null" => Shape::Null,
        "boolean" => Shape::Boolean,
        "integer" => Shape::Integer,
        "number" => Shape::Float,
        "string" if object.contains_key("enum") || object.contains_key("const") => {
            Shape::Choice(name)
        }
        "string" if object.get("format").and_then(Value::as_str) == Some("uuid") => Shape::Uuid,
        "string" => Shape::Text,
        "array" => list(object),
        "object" => members(object, name),
        _ => Shape::Any,
    }
}

fn list(object: &Map<String, Value>) -> Shape<'_> {
    static ANY: Value = Value::Bool(true);
    let items = object.get("items").filter(|items| items.is_object()).unwrap_or(&ANY);
    let count = |key: &str| object.get(key).and_then(Value::as_u64);
    if let Some(parts) = object.get("prefixItems").and_then(Value::as_array) {
        // Its types may differ, and the ancestor has no list of different types but of any.
        return match parts.split_first() {
            Some((first, rest)) if rest.iter().all(|part| part == first) => {
                Shape::Array(first, parts.len() as u64)
            }
            _ => Shape::Vector(&ANY),
        };
    }
    match (count("minItems"), count("maxItems")) {
        (Some(least), Some(most)) if least == most => Shape::Array(items, most),
        _ if object.get("uniqueItems") == Some(&Value::Bool(true)) => Shape::Set(items),
        _ => Shape::Vector(items),
    }
}

fn members<'s>(object: &'s Map<String, Value>, name: &'s str) -> Shape<'s> {
    if let Some(members) = object.get("properties").and_then(Value::as_object) {
        return Shape::Class(name, members);
    }
    let by_pattern = object.get("patternProperties").and_then(Value::as_object);
    if let Some(values) = by_pattern.and_then(|patterns| patterns.values().next()) {
        // What schemars writes for whole numbers as keys.
        return Shape::Map(Key::Integer, values);
    }
    match object.get("additionalProperties") {
        Some(values @ (Value::Object(_) | Value::Bool(true))) => Shape::Map(Key::Text, values),
        _ => Shape::Any,
    }
}

/// How a type is written, if it is any but null.
pub(super) fn signature(root: &Value, schema: &Value, depth: usize) -> Option<String> {
    let part = |schema| match depth.checked_sub(1) {
        Some(depth) => signature(root, schema, depth).unwrap_or_else(|| "any".to_owned()),
        None => "any".to_owned(),
    };
    Some(match shape(root, schema) {
        Shape::Null => return None,
        Shape::Boolean => "boolean".to_owned(),
        Shape::Integer => "integer8".to_owned(),
        Shape::Float => "float8".to_owned(),
        Shape::Text => "unicode".to_owned(),
        Shape::Uuid => "uuid".to_owned(),
        Shape::Choice(name) | Shape::Class(name, _) => name.to_owned(),
        Shape::Vector(items) => format!("vector<{}>", part(items)),
        Shape::Array(items, count) => format!("array<{},{count}>", part(items)),
        Shape::Set(items) => format!("set<{}>", part(items)),
        Shape::Map(Key::Text, values) => format!("map<unicode,{}>", part(values)),
        Shape::Map(Key::Integer, values) => format!("map<integer8,{}>", part(values)),
        Shape::Any => "any".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[schemars(rename = "test_resource.Customer")]
    struct Customer {
        name: String,
    }

    fn of<T: JsonSchema>() -> String {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>();
        let schema = schema.to_value();
        signature(&schema, &schema, 8).unwrap_or_else(|| "null".to_owned())
    }

    #[test]
    fn types_are_called_what_the_ancestors_hints_call_them() {
        assert_eq!(of::<Vec<Vec<f64>>>(), "vector<vector<float8>>");
        assert_eq!(of::<BTreeMap<i64, Customer>>(), "map<integer8,test_resource.Customer>");
        assert_eq!(of::<BTreeMap<String, bool>>(), "map<unicode,boolean>");
        assert_eq!(of::<Option<Vec<Option<u8>>>>(), "vector<integer8>");
        assert_eq!(of::<BTreeSet<String>>(), "set<unicode>");
        assert_eq!(of::<[f32; 3]>(), "array<float8,3>");
        assert_eq!(of::<(i32, i32)>(), "array<integer8,2>");
        assert_eq!(of::<(i32, String)>(), "vector<any>");
        assert_eq!(of::<Customer>(), "test_resource.Customer");
        assert_eq!(of::<()>(), "null");
        assert_eq!(of::<Value>(), "any");
    }

    #[test]
    fn a_schema_that_leads_nowhere_is_any() {
        for text in [
            r##"{"$ref":"#"}"##,
            r##"{"$ref":"#/$defs/none"}"##,
            r#"{"type":["string","integer"]}"#,
            r#"{"type":"array","prefixItems":[]}"#,
            "{}",
            "7",
        ] {
            let schema: Value = serde_json::from_str(text).unwrap();
            let found = signature(&schema, &schema, 8).unwrap();
            assert!(found == "any" || found == "vector<any>", "{text}: {found}");
        }
        let mut deep = "{}".to_owned();
        for _ in 0..60 {
            deep = format!(r#"{{"type":"array","items":{deep}}}"#);
        }
        let deep: Value = serde_json::from_str(&deep).unwrap();
        assert_eq!(signature(&deep, &deep, 2).unwrap(), "vector<vector<vector<any>>>");
    }
}
