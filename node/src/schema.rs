//! Schemas of messages, and fingerprints of their structure.
//!
//! A schema is JSON Schema 2020-12, self-contained, from `schemars`; integers carry their limits, so
//! that a validator that passes over `format` refuses what the type cannot hold. A fingerprint stands
//! for the structure on which the compact encoding (bincode: no names, no counts of fields) depends:
//! two nodes use that encoding only where their fingerprints agree.
//!
//! # What the fingerprint sees, and what not
//! It sees names, order and types of fields and variants, and whether a value is optional. It does not
//! see comments, titles, examples, defaults, limits of numbers, and the names of types: none of these
//! changes the bytes.
//!
//! It cannot see
//! - what a hand-written `Serialize`, `serde(with = …)` or `schemars(with = …)` does to the bytes
//!   behind an unchanged schema: give such a message another name when it changes;
//! - `flatten`, `skip_serializing_if` and the like in types that do not use `#[data]`, which refuses
//!   them: sending such a value fails with an error that says so, or fails to decode;
//! - the difference of types with equal schema and equal bytes, which is no loss: `Vec` and
//!   `VecDeque`, `Box<T>` and `T`, `NonZeroU8` and `u8`.
//!
//! Where the schema shows that bincode cannot carry the type (any JSON value, untagged and internally
//! tagged enums), or hides something it depends on (the order of variants of a mixed enum without
//! `#[data]`, the type of integer keys), the fingerprint is [`Fingerprint::NONE`]: such a type always
//! travels as JSON.

use std::borrow::Cow;

use layercake_wire::payload::{Fingerprint, Tag};
use schemars::{
    JsonSchema, Schema,
    generate::{Contract, SchemaSettings},
    json_schema,
    transform::{RecursiveTransform, Transform},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::{Message, MessageApi, note_name};

/// Put there by `#[data]`: the variants of an enum in the order of their declaration.
const VARIANTS: &str = "x-layercake-variants";
/// Put there by `#[data]`: a serde representation that bincode cannot carry.
const JSON_ONLY: &str = "x-layercake-json";
/// How deep a fingerprint looks into a type that is not recursive by name.
const MAX_DEPTH: usize = 128;

/// Describes a message type. `#[message]` calls it once and keeps the result.
#[must_use]
pub fn describe<M: Message>() -> MessageApi {
    note_name(M::TAG, M::NAME);
    let (mut schema, fingerprint) = schema_of::<M>(Contract::Deserialize);
    // A struct without fields declares none, which is not the same as allowing any.
    if let Some(object) = schema.as_object_mut()
        && !object.contains_key("properties")
        && !object.contains_key("$ref")
    {
        object.insert("properties".to_owned(), Value::Object(Map::new()));
    }
    let (reply_schema, reply_fingerprint) = schema_of::<M::Reply>(Contract::Serialize);
    MessageApi {
        name: M::NAME.to_owned(),
        schema,
        fingerprint,
        reply_schema,
        reply_fingerprint,
        idempotent: M::IDEMPOTENT,
        stream: M::STREAM,
        fallible: M::FALLIBLE,
        deadline_ms: M::DEADLINE.map(|limit| limit.as_millis().try_into().unwrap_or(u64::MAX)),
        http: M::http(),
    }
}

/// The schema of a type as it is told to others.
pub(crate) fn advertised<T: JsonSchema>() -> Value {
    schema_of::<T>(Contract::Deserialize).0
}

fn schema_of<T: JsonSchema>(contract: Contract) -> (Value, Fingerprint) {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = None;
    settings.contract = contract;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    let fingerprint = fingerprint(schema.as_value());
    RecursiveTransform(finish).transform(&mut schema);
    (schema.to_value(), fingerprint)
}

/// Writes the limits of an integer's type into its schema, and takes out our own notes.
fn finish(schema: &mut Schema) {
    schema.remove(VARIANTS);
    schema.remove(JSON_ONLY);
    let limits: Option<(Value, Value)> = match schema.get("format").and_then(Value::as_str) {
        Some("int8") => Some((i8::MIN.into(), i8::MAX.into())),
        Some("int16") => Some((i16::MIN.into(), i16::MAX.into())),
        Some("int32") => Some((i32::MIN.into(), i32::MAX.into())),
        Some("int64" | "int") => Some((i64::MIN.into(), i64::MAX.into())),
        Some("uint8") => Some((0.into(), u8::MAX.into())),
        Some("uint16") => Some((0.into(), u16::MAX.into())),
        Some("uint32") => Some((0.into(), u32::MAX.into())),
        Some("uint64" | "uint") => Some((0.into(), u64::MAX.into())),
        // Of 128 bits, a JSON number here has no more than 64.
        Some("uint128") => Some((0.into(), Value::Null)),
        _ => None,
    };
    let (Some((minimum, maximum)), Some(object)) = (limits, schema.as_object_mut()) else { return };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    for (key, limit, sign) in [("minimum", minimum, 1.0), ("maximum", maximum, -1.0)] {
        let narrower =
            object.get(key).is_some_and(|own| number(own) * sign >= number(&limit) * sign);
        if !limit.is_null() && !narrower {
            object.insert(key.to_owned(), limit);
        }
    }
}

/// The fingerprint of the structure that a schema describes. See the module's documentation.
#[must_use]
pub fn fingerprint(schema: &Value) -> Fingerprint {
    let mut walk = Walk { root: schema, seen: Vec::new(), text: String::new(), compact: true };
    walk.schema(schema, 0);
    match Tag::of(&walk.text).0 {
        _ if !walk.compact => Fingerprint::NONE,
        // Two that mean something else.
        0 | u64::MAX => Fingerprint(1),
        hash => Fingerprint(hash),
    }
}

/// Writes the structure of a schema as a text that is equal for equal structures.
struct Walk<'a> {
    root: &'a Value,
    /// The definitions met so far: met again they are a number, and their names do not matter.
    seen: Vec<&'a str>,
    text: String,
    /// Whether bincode can carry the type.
    compact: bool,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Value, depth: usize) {
        let Some(object) = schema.as_object().filter(|_| depth < MAX_DEPTH) else {
            // `true`: any value.
            self.compact = false;
            return;
        };
        if object.contains_key(JSON_ONLY) {
            self.compact = false;
        }
        self.text.push('{');
        if let Some(variants) = variants(object) {
            self.variants(object, variants, depth);
        } else {
            let mut keys: Vec<_> =
                object.keys().map(String::as_str).filter(|k| matters(k)).collect();
            keys.sort_unstable();
            // Any value: nothing is said of it.
            self.compact &= !keys.is_empty() && is_compact(object);
            for key in keys {
                self.text.push_str(key);
                self.text.push(':');
                self.keyword(key, &object[key], depth);
                self.text.push(';');
            }
        }
        self.text.push('}');
    }

    fn keyword(&mut self, key: &str, value: &'a Value, depth: usize) {
        match (key, value) {
            ("$ref", Value::String(reference)) => self.reference(reference, depth),
            // Bytes: sent as a list, received as text too.
            ("type", _) if is_bytes_type(value) => self.text.push_str("\"array\""),
            ("properties", Value::Object(properties)) => {
                for (name, schema) in properties {
                    self.name(name);
                    self.schema(schema, depth + 1);
                }
            }
            ("additionalProperties", Value::Bool(false)) => self.text.push('!'),
            ("items" | "additionalProperties", schema) => self.schema(schema, depth + 1),
            ("prefixItems" | "anyOf" | "oneOf" | "allOf", Value::Array(schemas)) => {
                for schema in schemas {
                    self.schema(schema, depth + 1);
                }
            }
            (_, other) => self.text.push_str(&other.to_string()),
        }
    }

    fn reference(&mut self, reference: &'a str, depth: usize) {
        if let Some(at) = self.seen.iter().position(|seen| *seen == reference) {
            self.text.push_str(&at.to_string());
            return;
        }
        self.seen.push(reference);
        match resolve(self.root, reference) {
            Some(target) => self.schema(target, depth + 1),
            None => self.compact = false,
        }
    }

    fn variants(
        &mut self,
        object: &'a Map<String, Value>,
        mut variants: Vec<(&'a str, Option<&'a Value>)>,
        depth: usize,
    ) {
        match object.get(VARIANTS) {
            // Told apart from their order, they may stand in any.
            Some(order) => {
                self.text.push_str(&order.to_string());
                variants.sort_unstable_by_key(|(name, _)| *name);
            }
            // schemars gathers variants without fields (and comments) in front of the others.
            None => {
                let alternatives = object.get("oneOf").and_then(Value::as_array);
                let gathered = |s: &Value| s.get("enum").is_some();
                self.compact &= !alternatives.is_some_and(|all| all.iter().any(gathered));
            }
        }
        for (name, content) in variants {
            self.name(name);
            if let Some(content) = content {
                self.schema(content, depth + 1);
            }
        }
    }

    fn name(&mut self, name: &str) {
        self.text.push_str(&Value::from(name).to_string());
    }
}

/// Whether a keyword says something about the bytes.
fn matters(key: &str) -> bool {
    let silent = [
        "title",
        "description",
        "examples",
        "default",
        "deprecated",
        "readOnly",
        "writeOnly",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "pattern",
        "required",
        "$schema",
        "$defs",
        "$comment",
        "$id",
    ];
    !silent.contains(&key) && !key.starts_with("x-")
}

/// Whether bincode can carry what the keywords of one schema, apart from its parts, describe.
fn is_compact(object: &Map<String, Value>) -> bool {
    let is_null = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("null");
    // `Option` is either a type or null; everything else of that kind is untagged.
    if let Some(any_of) = object.get("anyOf").and_then(Value::as_array)
        && (any_of.len() != 2 || !any_of.iter().any(is_null))
    {
        return false;
    }
    let types: Vec<_> = match object.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let types: Vec<_> = types.into_iter().filter(|ty| *ty != "null").collect();
    // Bytes, which JSON may also write as text.
    let bytes = object.get("type").is_some_and(is_bytes_type)
        && object.get("items").is_some_and(|items| items["format"] == "uint8");
    let formless = object.get("format").is_none();
    // A map of enums looks like a struct, but nothing of it is required; of other integer keys than
    // by a pattern nothing is known.
    let map_like = object.contains_key("patternProperties")
        || (object.contains_key("properties")
            && object.get("additionalProperties") == Some(&Value::Bool(false))
            && object.get("required").is_none());
    !((types.len() > 1 && !bytes)
        || (formless && types.iter().any(|ty| matches!(*ty, "number" | "integer")))
        || map_like
        || ["allOf", "oneOf", "not", "if"].iter().any(|key| object.contains_key(*key)))
}

fn is_bytes_type(types: &Value) -> bool {
    types.as_array().is_some_and(|types| *types == ["array", "string"])
}

/// The variants of an enum in serde's plain (externally tagged) representation, and what they hold.
fn variants(object: &Map<String, Value>) -> Option<Vec<(&str, Option<&Value>)>> {
    if let Some(Value::Array(names)) = object.get("enum") {
        return names.iter().map(|name| Some((name.as_str()?, None))).collect();
    }
    let mut variants = Vec::new();
    for alternative in object.get("oneOf")?.as_array()? {
        let alternative = alternative.as_object()?;
        if let Some(name) = alternative.get("const") {
            variants.push((name.as_str()?, None));
        } else if let Some(Value::Array(names)) = alternative.get("enum") {
            for name in names {
                variants.push((name.as_str()?, None));
            }
        } else {
            let properties = alternative.get("properties")?.as_object()?;
            let (name, content) = properties.iter().next().filter(|_| properties.len() == 1)?;
            // The tag of an internally tagged variant.
            if content.get("const").is_some() || alternative.contains_key("$ref") {
                return None;
            }
            variants.push((name, Some(content)));
        }
    }
    Some(variants)
}

/// The schema that a `$ref` within the document points to.
pub fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(&percent_decoded(reference.strip_prefix('#')?)?)
}

fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = if *first == b'%' { tail.get(..2) } else { None };
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// What a message without fields is on the wire: an empty object. `#[message]` uses it.
#[doc(hidden)]
#[derive(Debug, Serialize, Deserialize)]
pub struct Empty {}

impl Empty {
    /// Its schema, with the comment of the message.
    #[must_use]
    pub fn schema(description: &str) -> Schema {
        let mut schema = json_schema!({ "type": "object" });
        if !description.is_empty() {
            schema.insert("description".to_owned(), description.into());
        }
        schema
    }
}

#[cfg(test)]
mod tests;
