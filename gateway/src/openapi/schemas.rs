//! The schemas of messages as components of one document: each under a name of its own, with its
//! references turned to where its definitions are now.

use std::collections::HashMap;

use layercake_node::MessageApi;
use serde_json::{Map, Value, json};

use crate::input::percent_decode;

/// Where a component of that name is.
pub(super) fn reference(key: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{key}") })
}

/// The components of a document that are schemas.
#[derive(Default)]
pub(super) struct Schemas {
    pub(super) all: Map<String, Value>,
}

/// Where the parts of a message's description are among the components.
pub(super) struct Placed {
    /// The component of the message.
    pub(super) message: String,
    /// That of its reply.
    pub(super) reply: String,
    message_definitions: HashMap<String, String>,
}

impl Placed {
    /// The schema of a part of the message, to stand anywhere in the document.
    pub(super) fn part(&self, schema: &Value) -> Value {
        Rewriter { key: &self.message, definitions: &self.message_definitions, strict: true }
            .schema(schema)
    }
}

impl Schemas {
    /// Adds a message and its reply.
    pub(super) fn add(&mut self, api: &MessageApi) -> Placed {
        let message = self.free(&api.name);
        let message_definitions = self.document(&message, &api.schema, &api.schema, true);
        let reply = self.free(&format!("{message}.Reply"));
        // A fallible reply is told by its status: what is told with 200 is what is in `Ok`.
        self.document(&reply, &api.reply_schema, api.reply(), false);
        Placed { message, reply, message_definitions }
    }

    /// Adds a schema of a document with all definitions of the document, and says where these are.
    fn document(
        &mut self,
        key: &str,
        document: &Value,
        schema: &Value,
        strict: bool,
    ) -> HashMap<String, String> {
        let nothing = Map::new();
        let given = document.get("$defs").and_then(Value::as_object).unwrap_or(&nothing);
        // Taken before anything is written, since definitions refer to each other.
        self.all.insert(key.to_owned(), Value::Null);
        let mut definitions = HashMap::new();
        for name in given.keys() {
            let place = self.free(&format!("{key}.{name}"));
            self.all.insert(place.clone(), Value::Null);
            definitions.insert(name.clone(), place);
        }
        let rewriter = Rewriter { key, definitions: &definitions, strict };
        for (name, definition) in given {
            self.all.insert(definitions[name].clone(), rewriter.schema(definition));
        }
        self.all.insert(key.to_owned(), rewriter.schema(schema));
        definitions
    }

    /// A name like that one which is none yet.
    fn free(&self, name: &str) -> String {
        let plain = plain(name);
        let numbered = (2..).map(|n| format!("{plain}.{n}"));
        std::iter::once(plain.clone())
            .chain(numbered)
            .find(|name| !self.all.contains_key(name))
            .unwrap_or(plain)
    }
}

/// A text of the characters that names of components may have.
pub(super) fn plain(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

struct Rewriter<'a> {
    key: &'a str,
    definitions: &'a HashMap<String, String>,
    /// Whether members that are not declared are refused, as those of a message are.
    strict: bool,
}

impl Rewriter<'_> {
    fn schema(&self, schema: &Value) -> Value {
        let Some(object) = schema.as_object() else {
            return Value::Bool(schema.as_bool().unwrap_or(true));
        };
        let mut new = Map::new();
        for (keyword, value) in object {
            let value = match (keyword.as_str(), value) {
                ("$defs" | "$schema" | "$id" | "$anchor", _) => continue,
                ("$ref", Value::String(reference)) => Value::String(self.reference(reference)),
                ("properties" | "patternProperties" | "dependentSchemas", Value::Object(all)) => {
                    all.iter().map(|(name, schema)| (name.clone(), self.schema(schema))).collect()
                }
                ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(all)) => {
                    all.iter().map(|schema| self.schema(schema)).collect()
                }
                (
                    "items"
                    | "additionalProperties"
                    | "not"
                    | "if"
                    | "then"
                    | "else"
                    | "contains"
                    | "propertyNames"
                    | "unevaluatedProperties"
                    | "unevaluatedItems",
                    schema,
                ) => self.schema(schema),
                (ours, _) if ours.starts_with("x-layercake-") => continue,
                (_, other) => other.clone(),
            };
            new.insert(keyword.clone(), value);
        }
        let is_closed = ["additionalProperties", "allOf", "anyOf", "oneOf", "$ref"]
            .iter()
            .all(|keyword| !new.contains_key(*keyword));
        if self.strict && is_closed && new.contains_key("properties") {
            new.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        Value::Object(new)
    }

    fn reference(&self, reference: &str) -> String {
        let definition = reference.strip_prefix("#/$defs/").and_then(|name| {
            let name = percent_decode(name, false)?.replace("~1", "/").replace("~0", "~");
            self.definitions.get(&name)
        });
        match (definition, reference.strip_prefix('#')) {
            (Some(place), _) => format!("#/components/schemas/{place}"),
            (None, Some(inner)) => format!("#/components/schemas/{}{inner}", self.key),
            (None, None) => reference.to_owned(),
        }
    }
}
