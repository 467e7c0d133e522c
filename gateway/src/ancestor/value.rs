//! The ancestor's envelope: a value with its type, as `{"value":[SIGNATURE, VALUE, POINTERS]}`.

use serde_json::{Map, Number, Value};

use super::shape::{Key, Shape, shape, signature};

/// How deep a signature goes into a type that is nested without names.
const MAX_DEPTH: usize = 32;

/// The envelope of a reply that has that schema, itself within the document `root`.
pub(super) fn envelope(root: &Value, schema: &Value, reply: &Value) -> String {
    let mut out = String::from(r#"{"value":"#);
    let whole = Writer { root };
    match (signature(root, schema, MAX_DEPTH), reply) {
        (None, _) | (_, Value::Null) => out.push_str("null"),
        (Some(any), _) if any == "any" => any_value(reply, &mut out),
        (Some(signature), _) => {
            triple(&signature, &mut out, |out| whole.value(schema, reply, out));
        }
    }
    out.push('}');
    out
}

fn triple(signature: &str, out: &mut String, value: impl FnOnce(&mut String)) {
    out.push('[');
    text(signature, out);
    out.push(',');
    value(out);
    out.push_str(",[]]");
}

struct Writer<'s> {
    root: &'s Value,
}

impl Writer<'_> {
    /// Writes a value of that schema. One that does not fit is written as it is.
    fn value(&self, schema: &Value, value: &Value, out: &mut String) {
        match (shape(self.root, schema), value) {
            (Shape::Float, value) => float(value, out),
            (
                Shape::Vector(items) | Shape::Array(items, _) | Shape::Set(items),
                Value::Array(all),
            ) => {
                self.list(items, all, out);
            }
            (Shape::Map(key, values), Value::Object(entries)) => {
                list(out, entries, |(name, value), out| {
                    out.push('[');
                    match key {
                        Key::Integer if is_number(name) => out.push_str(name),
                        _ => text(name, out),
                    }
                    out.push(',');
                    self.value(values, value, out);
                    out.push(']');
                });
            }
            (Shape::Class(_, members), Value::Object(object)) => self.class(members, object, out),
            (Shape::Any, value) => any_value(value, out),
            (_, value) => out.push_str(&value.to_string()),
        }
    }

    fn list(&self, items: &Value, all: &[Value], out: &mut String) {
        // Most of what is sent is a table of numbers: their type is looked up once.
        if shape(self.root, items) == Shape::Float {
            list(out, all, float);
        } else {
            list(out, all, |value, out| self.value(items, value, out));
        }
    }

    fn class(&self, members: &Map<String, Value>, object: &Map<String, Value>, out: &mut String) {
        out.push('{');
        let mut first = true;
        for (name, value) in object {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            text(name, out);
            out.push(':');
            match members.get(name) {
                Some(schema) => self.value(schema, value, out),
                None => any_value(value, out),
            }
        }
        out.push('}');
    }
}

/// A value that carries its own type.
fn any_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(_) => triple("boolean", out, |out| out.push_str(&value.to_string())),
        Value::Number(number) if number.is_f64() => triple("float8", out, |out| float(value, out)),
        Value::Number(number) => triple("integer8", out, |out| out.push_str(&number.to_string())),
        Value::String(string) => triple("unicode", out, |out| text(string, out)),
        Value::Array(all) => triple("vector<any>", out, |out| list(out, all, any_value)),
        Value::Object(entries) => triple("map<unicode,any>", out, |out| {
            list(out, entries, |(name, value), out| {
                out.push('[');
                text(name, out);
                out.push(',');
                any_value(value, out);
                out.push(']');
            });
        }),
    }
}

/// A number with a point or an exponent: a whole one is no float to the ancestor. serde writes what is
/// no number as null.
fn float(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("NaN"),
        Value::Number(number) if !number.is_f64() => {
            let whole = number.as_f64().and_then(Number::from_f64);
            out.push_str(&whole.unwrap_or_else(|| number.clone()).to_string());
        }
        other => out.push_str(&other.to_string()),
    }
}

fn list<T>(
    out: &mut String,
    all: impl IntoIterator<Item = T>,
    mut one: impl FnMut(T, &mut String),
) {
    out.push('[');
    let mut first = true;
    for value in all {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        one(value, out);
    }
    out.push(']');
}

fn is_number(name: &str) -> bool {
    serde_json::from_str::<Number>(name).is_ok()
}

fn text(text: &str, out: &mut String) {
    out.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[schemars(rename = "test_resource.Customer")]
    struct Customer {
        name: String,
        credit: f64,
        tags: BTreeMap<u8, Option<f32>>,
    }

    fn sent<T: JsonSchema>(reply: Value) -> String {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>();
        envelope(schema.as_value(), schema.as_value(), &reply)
    }

    #[test]
    fn a_reply_goes_in_its_envelope_with_floats_that_look_like_floats() {
        assert_eq!(
            sent::<Vec<Vec<f64>>>(json!([[0.22, 1], [0.0, null]])),
            r#"{"value":["vector<vector<float8>>",[[0.22,1.0],[0.0,NaN]],[]]}"#
        );
        assert_eq!(sent::<u32>(json!(7)), r#"{"value":["integer8",7,[]]}"#);
        assert_eq!(sent::<()>(json!(null)), r#"{"value":null}"#);
        assert_eq!(sent::<Option<u32>>(json!(null)), r#"{"value":null}"#);
        assert_eq!(
            sent::<String>(json!("\"ü\n")),
            r#"{"value":["unicode","\"ü\n",[]]}"#.replace('\n', "\\n")
        );
        assert_eq!(
            sent::<BTreeMap<i64, Customer>>(
                json!({"1": {"name": "A", "credit": 5, "tags": {"2": 1}}})
            ),
            r#"{"value":["map<integer8,test_resource.Customer>",[[1,{"name":"A","credit":5.0,"tags":[[2,1.0]]}]],[]]}"#
        );
        assert_eq!(
            sent::<Value>(json!({"a": [1, 1.5, null, "x", true]})),
            r#"{"value":["map<unicode,any>",[["a",["vector<any>",[["integer8",1,[]],["float8",1.5,[]],null,["unicode","x",[]],["boolean",true,[]]],[]]]],[]]}"#
        );
    }

    #[test]
    fn a_reply_that_does_not_fit_its_schema_goes_as_it_is() {
        assert_eq!(sent::<Vec<f64>>(json!({"a": 1})), r#"{"value":["vector<float8>",{"a":1},[]]}"#);
        assert_eq!(sent::<Vec<f64>>(json!(["x"])), r#"{"value":["vector<float8>",["x"],[]]}"#);
        assert_eq!(
            sent::<BTreeMap<i64, bool>>(json!({"1,\"": true})),
            r#"{"value":["map<integer8,boolean>",[["1,\"",true]],[]]}"#,
            "no name gets out of its place"
        );
    }
}
