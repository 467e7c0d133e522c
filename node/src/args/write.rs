//! From a value to the command line that gives it back.

use serde_json::Value;

use super::{
    fields::{Field, Fields},
    read::read,
};

pub(super) fn words(schema: &Value, value: &Value) -> Vec<String> {
    let Some(members) = value.as_object() else { return Vec::new() };
    let Ok(fields) = Fields::of(schema) else { return Vec::new() };
    let mut words = Vec::new();
    for field in &fields.all {
        match members.get(field.name) {
            Some(value) if !is_default(field, value) => {
                words.extend(argument(&fields, field, value));
            }
            _ => {}
        }
    }
    for (name, value) in members {
        if fields.all.iter().all(|field| field.name != name) {
            words.push(format!("--{name}={value}"));
        }
    }
    words
}

/// Whether leaving it out means the same.
fn is_default(field: &Field<'_>, value: &Value) -> bool {
    match field.default {
        Some(default) => default == value,
        None => value.is_null() && !field.required,
    }
}

/// The shortest words for a value that are read back as it is.
fn argument(fields: &Fields<'_>, field: &Field<'_>, value: &Value) -> Vec<String> {
    let name = &field.long;
    let mut forms: Vec<Vec<String>> = Vec::new();
    match value {
        Value::Bool(flag) if field.kinds.is_flag() => {
            let word = if *flag { Some(name) } else { field.negative.as_ref() };
            forms.extend(word.map(|word| vec![word.clone()]));
        }
        Value::String(text) => forms.push(vec![format!("{name}={text}")]),
        Value::Array(elements) if field.kinds.is_list(fields.root) && !elements.is_empty() => {
            let element = |element: &Value| format!("{name}={}", bare(element));
            forms.push(elements.iter().map(element).collect());
        }
        Value::Object(_) if field.kinds.duration => {
            forms.push(vec![format!("{name}={}", bare(value))]);
        }
        _ => {}
    }
    let json = vec![format!("{name}={value}")];
    let gives_back = |form: &Vec<String>| {
        let reading = read(fields, form);
        reading.problems.is_empty()
            && reading.object.len() == 1
            && reading.object.get(field.name) == Some(value)
    };
    forms.into_iter().find(gives_back).unwrap_or(json)
}

/// A simple value as it is typed.
fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => {
            let span = serde_json::from_value(value.clone()).map(crate::Span::new);
            span.map_or_else(|_| value.to_string(), |span| span.to_string())
        }
        other => other.to_string(),
    }
}
