//! From a text on the command line to a JSON value, by the declared type.

use std::time::Duration;

use serde_json::{Map, Number, Value};

use super::{
    fields::canonical,
    kinds::{Kinds, MAX_HOPS, applied},
    text::{clip, plain},
};
use crate::{check::MAX_DEPTH, span::Span};

/// How many places within the JSON of one argument are looked at for time spans.
const MAX_STEPS: usize = 65_536;

/// The value of an argument, of all the texts that were given for it: several are elements of an
/// array. The error is a clause to be read after the argument.
pub(super) fn value(
    root: &Value,
    schema: &Value,
    kinds: &Kinds<'_>,
    texts: &[&str],
) -> Result<Value, String> {
    if let [one] = texts {
        return single(root, schema, kinds, one);
    }
    let mut all = Vec::new();
    for text in texts {
        match single(root, schema, kinds, text)? {
            Value::Array(elements) => all.extend(elements),
            other => return Err(format!("is {} once, and given again", clip(&other.to_string()))),
        }
    }
    Ok(all.into())
}

fn single(root: &Value, schema: &Value, kinds: &Kinds<'_>, text: &str) -> Result<Value, String> {
    if kinds.is_only_text() {
        return Ok(text.into());
    }
    if kinds.null && text == "null" {
        return Ok(Value::Null);
    }
    // Where it might be taken for something else.
    if (kinds.is_text() || kinds.any)
        && text.starts_with('"')
        && let Ok(quoted) = serde_json::from_str::<String>(text)
    {
        return Ok(quoted.into());
    }
    let is_json = (kinds.array && text.starts_with('['))
        || ((kinds.object || kinds.duration) && text.starts_with('{'));
    if is_json {
        let mut value = serde_json::from_str(text)
            .map_err(|error| format!("`{}` is not JSON: {error}", clip(text)))?;
        read_spans(root, schema, &mut value, &mut { MAX_STEPS }, [0, 0]);
        return Ok(value);
    }
    if let Some(scalar) = scalar(kinds, text) {
        return Ok(scalar);
    }
    if kinds.any {
        return Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into()));
    }
    if kinds.string {
        return Ok(text.into());
    }
    if kinds.span || kinds.duration {
        return match text.parse::<Span>() {
            Ok(span) if kinds.duration => Ok(duration(span.duration())),
            Ok(_) => Ok(text.into()),
            Err(error) => Err(format!("is no time span, {}", plain(&error.to_string()))),
        };
    }
    // Not a tuple, of which one element is never all.
    if let Some(schema) = kinds.items.filter(|_| kinds.array) {
        let items = Kinds::of(root, schema);
        // Its elements are not arrays themselves, unless they are written as such.
        if !items.array {
            return single(root, schema, &items, text).map(|element| vec![element].into());
        }
    }
    Err(refuse(kinds, text))
}

fn scalar(kinds: &Kinds<'_>, text: &str) -> Option<Value> {
    if kinds.integer || kinds.number {
        let whole = text.parse::<i64>().map(Number::from);
        let whole = whole.or_else(|_| text.parse::<u64>().map(Number::from));
        if let Ok(whole) = whole {
            return Some(Value::Number(whole));
        }
    }
    if kinds.number {
        // Neither infinite nor "nan": JSON has no such numbers.
        if let Some(number) = text.parse().ok().and_then(Number::from_f64) {
            return Some(Value::Number(number));
        }
    }
    match text {
        "true" if kinds.boolean => return Some(true.into()),
        "false" if kinds.boolean => return Some(false.into()),
        _ => {}
    }
    // The variant in another case, if there is only one such; else the checker lists them.
    if !kinds.names.is_empty() && !kinds.string {
        let same = |name: &&&str| loose(name) == loose(text);
        let exact = kinds.names.iter().find(|name| **name == text);
        let mut alike = kinds.names.iter().filter(same);
        let only = alike.next().filter(|_| alike.next().is_none());
        return match exact.or(only) {
            Some(name) => Some((*name).into()),
            None => (!kinds.span && !kinds.duration && !kinds.array).then(|| text.into()),
        };
    }
    None
}

fn loose(name: &str) -> String {
    canonical(name).replace('_', "").to_lowercase()
}

fn duration(duration: Duration) -> Value {
    let mut object = Map::new();
    object.insert("secs".to_owned(), duration.as_secs().into());
    object.insert("nanos".to_owned(), duration.subsec_nanos().into());
    object.into()
}

/// What the text is not. It was tried as everything that the schema takes.
fn refuse(kinds: &Kinds<'_>, text: &str) -> String {
    let is_whole = {
        let digits = text.strip_prefix('-').unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let expected = match kinds {
        _ if text.is_empty() => return "has an empty value".to_owned(),
        _ if kinds.integer && is_whole => return format!("`{}` is out of range", clip(text)),
        _ if kinds.number => "a number",
        _ if kinds.integer => "a whole number",
        _ if kinds.boolean => "true or false",
        _ if kinds.object => "a JSON object",
        _ if kinds.array => "a JSON array",
        _ => "what it should be",
    };
    format!("`{}` is not {expected}", clip(text))
}

/// Turns the time spans within JSON into what `Duration` is encoded as; what is none is left for the
/// checker.
fn read_spans(
    root: &Value,
    schema: &Value,
    value: &mut Value,
    steps: &mut usize,
    [depth, hops]: [usize; 2],
) {
    let Some(keywords) = schema.as_object() else { return };
    if depth > MAX_DEPTH || hops > MAX_HOPS || *steps == 0 {
        return;
    }
    *steps -= 1;
    match value {
        Value::String(text) => {
            let kinds = Kinds::of(root, schema);
            if kinds.duration
                && !kinds.string
                && let Ok(span) = text.parse::<Span>()
            {
                *value = duration(span.duration());
            }
            return;
        }
        Value::Array(elements) => {
            let first = keywords.get("prefixItems").and_then(Value::as_array);
            let rest = keywords.get("items");
            for (at, element) in elements.iter_mut().enumerate() {
                if let Some(schema) = first.and_then(|first| first.get(at)).or(rest) {
                    read_spans(root, schema, element, steps, [depth + 1, 0]);
                }
            }
        }
        Value::Object(members) => {
            let declared = keywords.get("properties").and_then(Value::as_object);
            let others = keywords.get("additionalProperties");
            for (name, member) in members {
                if let Some(schema) = declared.and_then(|all| all.get(name)).or(others) {
                    read_spans(root, schema, member, steps, [depth + 1, 0]);
                }
            }
        }
        _ => return,
    }
    for schema in applied(root, keywords) {
        read_spans(root, schema, value, steps, [depth, hops + 1]);
    }
}
