//! A document of schemas, read once: what is known of each schema's keywords, with the schemas within it as
//! places in a list. A check then looks nothing up by its name, and references are followed by index.

use std::{
    collections::{HashMap, VecDeque},
    sync::OnceLock,
};

use serde_json::{Map, Value};

use super::{Declared, query::Kinds};

/// Where a schema of the document is in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct At(u32);

/// All schemas of a document that its root leads to.
#[derive(Debug)]
pub(super) struct Schemas {
    list: Vec<Schema>,
}

/// One schema.
#[derive(Debug)]
pub(super) enum Schema {
    /// Takes everything: `true`, or what is no schema.
    Any,
    /// Takes nothing: `false`.
    Never,
    Keywords(Box<Keywords>),
}

/// The keywords that are known here.
#[derive(Debug, Default)]
pub(super) struct Keywords {
    pub(super) types: Option<Types>,
    pub(super) values: Option<Vec<Value>>,
    pub(super) only: Option<Value>,
    pub(super) least: Option<Value>,
    pub(super) most: Option<Value>,
    pub(super) more_than: Option<Value>,
    pub(super) less_than: Option<Value>,
    pub(super) least_length: Option<u64>,
    pub(super) most_length: Option<u64>,
    pub(super) least_items: Option<u64>,
    pub(super) most_items: Option<u64>,
    pub(super) first_items: Vec<At>,
    pub(super) items: Option<At>,
    pub(super) required: Vec<String>,
    pub(super) properties: Option<Properties>,
    pub(super) others: Option<At>,
    pub(super) patterns: Option<Vec<(Names, At)>>,
    pub(super) reference: Option<At>,
    pub(super) all_of: Vec<At>,
    /// Of `anyOf` and `oneOf`: serde takes the first that fits, so "one of" is no stricter than "any of".
    pub(super) alternatives: [Option<Vec<At>>; 2],
    /// The members that it and what applies with it declare; found out when first asked for.
    pub(super) declared: OnceLock<Declared>,
    /// What a text in its place may be; as `declared`.
    pub(super) kinds: OnceLock<Kinds>,
}

/// `type`, as a set.
#[derive(Debug)]
pub(super) struct Types {
    set: u8,
    /// As it is written, to be told.
    pub(super) written: Value,
}

impl Types {
    pub(super) fn of(written: &Value) -> Self {
        let set = match written {
            Value::String(one) => bit(one),
            Value::Array(several) => {
                several.iter().filter_map(Value::as_str).fold(0, |set, name| set | bit(name))
            }
            _ => EVERY,
        };
        Self { set, written: written.clone() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.set & bit(name) != 0
    }

    /// Whether a name among them is none of JSON Schema's.
    pub(super) fn has_unknown(&self) -> bool {
        self.set & UNKNOWN != 0
    }

    /// Whether that value is of one of them.
    pub(super) fn take(&self, value: &Value) -> bool {
        let name = super::type_of(value);
        self.has(name) || (name == "integer" && self.has("number"))
    }
}

/// A type of no known name: no value is of it.
const UNKNOWN: u8 = 128;
/// What `type` means where it is neither a name nor a list of them.
const EVERY: u8 = !UNKNOWN;

fn bit(name: &str) -> u8 {
    match name {
        "null" => 1,
        "boolean" => 2,
        "integer" => 4,
        "number" => 8,
        "string" => 16,
        "array" => 32,
        "object" => 64,
        _ => UNKNOWN,
    }
}

/// The members that an object declares by their names.
#[derive(Debug)]
pub(super) struct Properties {
    /// In the order of the document.
    pub(super) names: Vec<String>,
    /// Places in `names` by name, and the schemas.
    sorted: Vec<(usize, At)>,
}

impl Properties {
    pub(super) fn get(&self, name: &str) -> Option<At> {
        let found = self.sorted.binary_search_by(|(at, _)| self.names[*at].as_str().cmp(name));
        found.ok().map(|found| self.sorted[found].1)
    }
}

/// The names that a pattern takes. Of patterns only the two that are written for whole numbers are known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names {
    Whole,
    Signed,
    /// What it says is not checked.
    Unknown,
}

impl Names {
    fn of(pattern: &str) -> Self {
        match pattern {
            r"^\d+$" => Self::Whole,
            r"^-?\d+$" => Self::Signed,
            _ => Self::Unknown,
        }
    }
}

impl Schemas {
    pub(super) const ROOT: At = At(0);

    /// Reads a document.
    pub(super) fn of(root: &Value) -> Self {
        let mut reading = Reading { root, places: HashMap::new(), waiting: VecDeque::new() };
        reading.place(root);
        let mut list = Vec::new();
        while let Some(schema) = reading.waiting.pop_front() {
            list.push(match schema {
                Value::Bool(false) => Schema::Never,
                Value::Object(keywords) => Schema::Keywords(Box::new(reading.keywords(keywords))),
                _ => Schema::Any,
            });
        }
        Self { list }
    }

    pub(super) fn get(&self, at: At) -> &Schema {
        &self.list[at.0 as usize]
    }

    /// Its keywords, where it has any.
    pub(super) fn keywords(&self, at: At) -> Option<&Keywords> {
        match self.get(at) {
            Schema::Keywords(keywords) => Some(keywords),
            Schema::Any | Schema::Never => None,
        }
    }

    pub(super) fn takes_nothing(&self, at: At) -> bool {
        matches!(self.get(at), Schema::Never)
    }
}

/// Reading a document: each schema gets its place when it is first met, and is read in its turn, so that
/// depth costs no stack and circles end.
struct Reading<'a> {
    root: &'a Value,
    /// By where in memory it is: the same schema may be met as a part of another and by reference.
    places: HashMap<*const Value, At>,
    waiting: VecDeque<&'a Value>,
}

impl<'a> Reading<'a> {
    fn place(&mut self, schema: &'a Value) -> At {
        // Bounded by what fits into memory, far below.
        let next = At(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        *self.places.entry(std::ptr::from_ref(schema)).or_insert_with(|| {
            self.waiting.push_back(schema);
            next
        })
    }

    fn places(&mut self, list: &'a Value) -> Option<Vec<At>> {
        list.as_array().map(|list| list.iter().map(|schema| self.place(schema)).collect())
    }

    fn keywords(&mut self, schema: &'a Map<String, Value>) -> Keywords {
        let mut found = Keywords::default();
        for (name, value) in schema {
            match name.as_str() {
                "type" => found.types = Some(Types::of(value)),
                "enum" => found.values = value.as_array().cloned(),
                "const" => found.only = Some(value.clone()),
                "minimum" => found.least = Some(value.clone()),
                "maximum" => found.most = Some(value.clone()),
                "exclusiveMinimum" => found.more_than = Some(value.clone()),
                "exclusiveMaximum" => found.less_than = Some(value.clone()),
                "minLength" => found.least_length = value.as_u64(),
                "maxLength" => found.most_length = value.as_u64(),
                "minItems" => found.least_items = value.as_u64(),
                "maxItems" => found.most_items = value.as_u64(),
                "prefixItems" => found.first_items = self.places(value).unwrap_or_default(),
                "items" => found.items = Some(self.place(value)),
                "required" => {
                    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    found.required = names.map(str::to_owned).collect();
                }
                "properties" => found.properties = value.as_object().map(|o| self.properties(o)),
                "additionalProperties" => found.others = Some(self.place(value)),
                "patternProperties" => {
                    found.patterns = value.as_object().map(|patterns| {
                        let each = patterns.iter();
                        each.map(|(name, schema)| (Names::of(name), self.place(schema))).collect()
                    });
                }
                "$ref" => {
                    let target = value.as_str().and_then(|r| crate::schema::resolve(self.root, r));
                    found.reference = target.map(|target| self.place(target));
                }
                "allOf" => found.all_of = self.places(value).unwrap_or_default(),
                "anyOf" => found.alternatives[0] = self.places(value),
                "oneOf" => found.alternatives[1] = self.places(value),
                _ => {}
            }
        }
        found
    }

    fn properties(&mut self, properties: &'a Map<String, Value>) -> Properties {
        let names: Vec<_> = properties.keys().cloned().collect();
        let places = properties.values().map(|schema| self.place(schema));
        let mut sorted: Vec<_> = places.enumerate().collect();
        sorted.sort_by(|(one, _), (two, _)| names[*one].cmp(&names[*two]));
        Properties { names, sorted }
    }
}

impl Keywords {
    /// The schemas that apply to the same value, or may.
    pub(super) fn applied(&self) -> impl Iterator<Item = At> {
        let alternatives = self.alternatives.iter().flatten().flatten();
        self.all_of.iter().chain(alternatives).copied().chain(self.reference)
    }

    /// Whether it takes any object that has what it requires, and of the members that it declares by name
    /// what their own schemas take.
    pub(super) fn is_plain(&self) -> bool {
        self.types.as_ref().is_none_or(|types| types.has("object"))
            && self.values.is_none()
            && self.only.is_none()
            && self.patterns.is_none()
            && self.applied().next().is_none()
    }

    /// The schema of a member that is declared by its name.
    pub(super) fn property(&self, name: &str) -> Option<At> {
        self.properties.as_ref()?.get(name)
    }

    /// The names that are declared.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.properties.iter().flat_map(|declared| &declared.names).map(String::as_str)
    }

    /// The schema of a member by the pattern of its name; `Some(None)` where any would do.
    pub(super) fn by_pattern(&self, name: &str) -> Option<Option<At>> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        self.patterns.as_ref()?.iter().find_map(|(names, schema)| match names {
            Names::Whole => digits(name).then_some(Some(*schema)),
            Names::Signed => {
                digits(name.strip_prefix('-').unwrap_or(name)).then_some(Some(*schema))
            }
            Names::Unknown => Some(None),
        })
    }
}
