//! An example of a type, made from its schema: what an author has given, else the plainest value.

use layercake_node::schema::resolve;
use serde_json::{Map, Value, json};

/// How deep an example goes; deeper, and where a type contains itself, lists are empty.
const MAX_DEPTH: usize = 8;
/// How many elements and members one example has in all. Schemas come from others.
const MAX_PARTS: usize = 256;
/// The most elements of a list, and characters of a text, that a schema can ask for.
const MAX_LENGTH: u64 = 64;

/// A value that fits the schema, as far as that can be told.
pub(super) fn example(root: &Value, schema: &Value) -> Value {
    Maker { root, left: MAX_PARTS }.value(schema, 0)
}

struct Maker<'s> {
    root: &'s Value,
    left: usize,
}

impl Maker<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(object) = schema.as_object() else { return Value::Null };
        if let Some(given) = given(object) {
            return given.clone();
        }
        if depth >= MAX_DEPTH || self.left == 0 {
            return plainest(object);
        }
        self.left -= 1;
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            return match resolve(self.root, reference) {
                Some(target) => self.value(target, depth + 1),
                None => Value::Null,
            };
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            let alternatives = object.get(key).and_then(Value::as_array);
            if let Some(one) = alternatives.and_then(|all| all.iter().find(|one| !is_null(one))) {
                return self.value(one, depth + 1);
            }
        }
        match ty(object) {
            Some("array") => self.list(object, depth),
            Some("object") => self.object(object, depth),
            _ => plainest(object),
        }
    }

    fn list(&mut self, object: &Map<String, Value>, depth: usize) -> Value {
        if let Some(parts) = object.get("prefixItems").and_then(Value::as_array) {
            return parts.iter().map(|part| self.value(part, depth + 1)).collect();
        }
        let count = |key| object.get(key).and_then(Value::as_u64);
        let most = count("maxItems").unwrap_or(MAX_LENGTH).min(MAX_LENGTH);
        // What contains itself ends by a list that is empty.
        let few = u64::from(depth < MAX_DEPTH / 2);
        let many = count("minItems").unwrap_or_default().max(few).min(most);
        let Some(items) = object.get("items") else { return json!([]) };
        (0..many).map(|_| self.value(items, depth + 1)).collect()
    }

    fn object(&mut self, object: &Map<String, Value>, depth: usize) -> Value {
        let mut whole = Map::new();
        if let Some(members) = object.get("properties").and_then(Value::as_object) {
            let required = object.get("required").and_then(Value::as_array);
            let is_required =
                |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
            for (name, member) in members {
                if self.left > 0 || is_required(name) {
                    whole.insert(name.clone(), self.value(member, depth + 1));
                }
            }
        } else if let Some(values) = object.get("additionalProperties").filter(|v| v.is_object()) {
            whole.insert("key".to_owned(), self.value(values, depth + 1));
        }
        Value::Object(whole)
    }
}

/// What the author of the schema says.
fn given(object: &Map<String, Value>) -> Option<&Value> {
    let first = |key: &str| object.get(key).and_then(Value::as_array).and_then(|all| all.first());
    first("examples")
        .or_else(|| object.get("example"))
        .or_else(|| object.get("default").filter(|default| !default.is_null()))
        .or_else(|| object.get("const"))
        .or_else(|| first("enum"))
}

pub(super) fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

fn ty(object: &Map<String, Value>) -> Option<&str> {
    match object.get("type")? {
        Value::String(one) => Some(one),
        Value::Array(several) => several.iter().filter_map(Value::as_str).find(|t| *t != "null"),
        _ => None,
    }
}

fn plainest(object: &Map<String, Value>) -> Value {
    match ty(object) {
        Some("boolean") => json!(true),
        Some("integer") => whole_number(object),
        Some("number") => number(object),
        Some("string") => text(object),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => Value::Null,
    }
}

fn whole_number(object: &Map<String, Value>) -> Value {
    let limit = |key: &str, add: i64| Some(object.get(key)?.as_i64()?.saturating_add(add));
    let least = limit("minimum", 0).or(limit("exclusiveMinimum", 1)).unwrap_or(i64::MIN);
    let most = limit("maximum", 0).or(limit("exclusiveMaximum", -1)).unwrap_or(i64::MAX);
    json!(2.max(least).min(most))
}

fn number(object: &Map<String, Value>) -> Value {
    let limit = |keys: [&str; 2]| keys.iter().find_map(|key| object.get(*key)?.as_f64());
    let least = limit(["minimum", "exclusiveMinimum"]);
    let most = limit(["maximum", "exclusiveMaximum"]);
    json!(match (least, most) {
        (Some(least), Some(most)) => f64::midpoint(least, most),
        (Some(least), None) => least.max(0.0) + 0.5,
        (None, Some(most)) => most.min(1.0) - 0.5,
        (None, None) => 0.5,
    })
}

fn text(object: &Map<String, Value>) -> Value {
    let known = match object.get("format").and_then(Value::as_str) {
        Some("uuid") => "3f2b8c1e-9d4a-4c57-8e21-6a0b5d7f9c13",
        Some("date-time") => "2026-01-02T03:04:05Z",
        Some("date") => "2026-01-02",
        Some("time") => "03:04:05Z",
        Some("duration") => "PT1S",
        Some("email") => "someone@example.org",
        Some("uri" | "url") => "https://example.org/",
        Some("ipv4" | "ip") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        _ => "text",
    };
    let count = |key| object.get(key).and_then(Value::as_u64);
    let least = count("minLength").unwrap_or(0).min(MAX_LENGTH) as usize;
    let most = count("maxLength").unwrap_or(MAX_LENGTH).min(MAX_LENGTH) as usize;
    let longer = known.chars().chain(std::iter::repeat('x'));
    Value::from(longer.take(known.chars().count().max(least).min(most)).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use layercake_node::check::Checker;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Tree {
        name: String,
        branches: Vec<Self>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    enum Mood {
        Fair,
        Foul { why: String },
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Much {
        small: i8,
        #[schemars(range(min = 10, max = 20))]
        between: u32,
        ratio: Option<f64>,
        tree: Tree,
        mood: Mood,
        moods: Vec<Mood>,
        #[schemars(length(min = 9))]
        long: String,
        map: BTreeMap<String, [u8; 3]>,
        pair: (u8, String),
        #[serde(default = "seven")]
        given: u32,
    }

    fn seven() -> u32 {
        7
    }

    #[test]
    fn an_example_fits_its_schema() {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<Much>();
        let schema = schema.to_value();
        let made = example(&schema, &schema);
        assert_eq!(Checker::of(&schema).check(&made), [], "{made:#}");
        let read: Much = serde_json::from_value(made.clone()).unwrap();
        assert_eq!((read.given, read.between, read.long.len()), (7, 10, 9), "{made}");
    }

    #[test]
    fn a_hostile_schema_makes_a_small_example() {
        // Each level has two of the next.
        let mut schema = json!({"type": "integer"});
        for _ in 0..40 {
            schema = json!({"type": "object", "properties": {"a": schema.clone(), "b": 1},
                "required": ["a"]});
        }
        assert!(example(&schema, &schema).to_string().len() < 10_000);
        let itself = json!({"type": "array", "minItems": 1e9 as u64, "items": {"$ref": "#"}});
        assert!(example(&itself, &itself).to_string().len() < 10_000);
        let wide = json!({"type": "string", "minLength": u64::MAX});
        assert!(example(&wide, &wide).to_string().len() < 100);
    }
}
