//! What may be typed, as text.

use serde_json::Value;

use super::{
    fields::{Field, Fields},
    text::{clip, plain, wrap},
};

/// How wide the text may be.
const WIDTH: usize = 100;
/// How wide its left column may be; a longer entry stands on a line of its own.
const LEFT_MAX: usize = 36;

pub(super) fn help(fields: &Fields<'_>, program: &str) -> String {
    let mut text = String::new();
    usage(fields, program, &mut text);
    for paragraph in fields.description.split("\n\n") {
        let lines = wrap(paragraph, WIDTH);
        if !lines.is_empty() {
            text.push('\n');
        }
        lines.iter().for_each(|line| push_line(&mut text, line));
    }
    if fields.all.is_empty() {
        return text;
    }
    text.push_str("\nArguments:\n");
    let shorts: Vec<_> = fields.all.iter().map(|field| short(fields, field)).collect();
    let indent = shorts.iter().map(|short| length(short)).max().unwrap_or(0).min(LEFT_MAX / 2);
    let left = |(field, short): (&Field<'_>, &String)| {
        format!("  {short:indent$}{}", plain(&field.form(fields.root)))
    };
    let lefts: Vec<_> = fields.all.iter().zip(&shorts).map(left).collect();
    let widths = lefts.iter().map(|left| length(left) + 2);
    let column = widths.filter(|width| *width <= LEFT_MAX).max().unwrap_or(8);
    for (field, left) in fields.all.iter().zip(&lefts) {
        argument(fields, field, left, column, &mut text);
    }
    text
}

fn usage(fields: &Fields<'_>, program: &str, text: &mut String) {
    let form = |field: &Field<'_>| {
        let form = field.form(fields.root);
        if field.required { form } else { format!("[{form}]") }
    };
    let begin = format!("usage: {}", clip(program));
    let indent = (length(&begin) + 1).min(LEFT_MAX);
    // No break within a form, so word by word.
    let mut line = begin;
    for form in fields.all.iter().map(form) {
        let form = plain(&form);
        if length(&line) + 1 + length(&form) > WIDTH && length(&line) > indent {
            push_cut(text, &line);
            line = " ".repeat(indent - 1);
        }
        line.push(' ');
        line.push_str(&form);
    }
    push_cut(text, &line);
}

/// A line, continued where it is too long in spite of all.
fn push_cut(text: &mut String, line: &str) {
    if length(line) <= WIDTH {
        push_line(text, line);
        return;
    }
    for part in wrap(line, WIDTH - 2) {
        push_line(text, &format!("  {part}"));
    }
}

fn argument(fields: &Fields<'_>, field: &Field<'_>, left: &str, column: usize, text: &mut String) {
    let lines = wrap(&said(fields, field), WIDTH - column);
    let mut lines = lines.iter();
    if length(left) + 2 <= column {
        let first = lines.next().map_or("", String::as_str);
        push_line(text, &format!("{left:column$}{first}"));
    } else {
        push_cut(text, left);
    }
    for line in lines {
        push_line(text, &format!("{:column$}{line}", ""));
    }
}

/// What is said of an argument.
fn said(fields: &Fields<'_>, field: &Field<'_>) -> String {
    let mut notes = Vec::new();
    if field.required {
        notes.push("required".to_owned());
    }
    match field.default {
        // A flag shows by its form what it is.
        Some(Value::Bool(_)) if field.kinds.is_flag() => {}
        Some(Value::Null) | None => {}
        Some(default) => notes.push(format!("default {}", default_said(field, default))),
    }
    notes.extend(limits(field));
    if field.kinds.is_list(fields.root) {
        notes.push("may be repeated".to_owned());
    }
    let description = field.description.trim();
    match (description, notes.is_empty()) {
        ("", true) => String::new(),
        ("", false) => format!("({})", notes.join("; ")),
        (said, true) => said.to_owned(),
        (said, false) => format!("{said} ({})", notes.join("; ")),
    }
}

fn default_said(field: &Field<'_>, default: &Value) -> String {
    match default {
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => clip(text),
        Value::Object(_) if field.kinds.duration => {
            let span = serde_json::from_value(default.clone()).map(crate::Span::new);
            span.map_or_else(|_| clip(&default.to_string()), |span| span.to_string())
        }
        other => clip(&other.to_string()),
    }
}

/// The limits that the argument has beside those of its type.
fn limits(field: &Field<'_>) -> Option<String> {
    let limit = |key: &str| field.kinds.limits.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    let mut said = Vec::new();
    match (limit("minimum"), limit("maximum")) {
        (Some(least), Some(most)) => said.push(format!("{least} to {most}")),
        (Some(least), None) => said.push(format!("at least {least}")),
        (None, Some(most)) => said.push(format!("at most {most}")),
        (None, None) => {}
    }
    if let Some(limit) = limit("exclusiveMinimum") {
        said.push(format!("more than {limit}"));
    }
    if let Some(limit) = limit("exclusiveMaximum") {
        said.push(format!("less than {limit}"));
    }
    (!said.is_empty()).then(|| clip(&said.join(", ")))
}

fn short(fields: &Fields<'_>, field: &Field<'_>) -> String {
    if fields.has_own_short(field) { format!("-{}, ", field.short) } else { String::new() }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn length(text: &str) -> usize {
    text.chars().count()
}
