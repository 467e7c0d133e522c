//! The words in which problems are told.

use serde_json::Value;

use super::{
    keywords::{At, Schemas},
    type_of,
};

/// How many names or values a message lists, and how much it quotes of a text.
const MAX_LISTED: usize = 8;
const MAX_QUOTED: usize = 40;

/// A type for people.
fn said_type(name: &str) -> &str {
    match name {
        "null" => "null",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "array" => "an array",
        "object" => "an object",
        other => other,
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(number) if number.is_f64() => "a number with a fraction or beyond 64 bits",
        other => match type_of(other) {
            "null" => "null",
            "integer" => "a number",
            "string" => "a text",
            "array" => "an array",
            _ => "an object",
        },
    }
}

pub(super) fn types_said(types: &Value) -> String {
    match types {
        Value::String(one) => said_type(one).to_owned(),
        Value::Array(several) => {
            let said: Vec<_> = several.iter().filter_map(Value::as_str).map(said_type).collect();
            said.join(" or ")
        }
        _ => "what it should be".to_owned(),
    }
}

/// What an alternative is called in a list.
pub(super) fn said(schemas: &Schemas, schema: At) -> Vec<String> {
    let Some(schema) = schemas.keywords(schema) else { return vec!["anything".to_owned()] };
    let target = schema.reference.and_then(|target| schemas.keywords(target));
    // What it says itself, else what it refers to says.
    let both = || std::iter::once(schema).chain(target);
    if let Some(only) = both().find_map(|schema| schema.only.as_ref()) {
        return vec![bare(only)];
    }
    if let Some(allowed) = both().find_map(|schema| schema.values.as_ref()) {
        return allowed.iter().take(MAX_LISTED).map(bare).collect();
    }
    let properties = both().find_map(|schema| schema.properties.as_ref());
    if let Some([name]) = properties.map(|properties| &properties.names[..]) {
        return vec![format!("{{{}: …}}", clip(name))];
    }
    let types = both().find_map(|schema| schema.types.as_ref());
    vec![types.map_or_else(|| "another type".to_owned(), |types| types_said(&types.written))]
}

pub(super) fn unknown(known: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let known = list(known.into_iter().map(|name| clip(name.as_ref())));
    if known.is_empty() {
        return "is unknown: there are no parameters".to_owned();
    }
    format!("is unknown: there are {known}")
}

pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    let mut items = items.into_iter();
    let mut listed: Vec<_> = items.by_ref().take(MAX_LISTED).collect();
    if items.next().is_some() {
        listed.push("…".to_owned());
    }
    listed.join(", ")
}

/// A value as it would be typed.
pub(super) fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => clip(text),
        other => clip(&other.to_string()),
    }
}

pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
