//! Which values a schema takes, and in what words that is said.
//!
//! The checker has its own, of queries, which know neither spans nor variants.

use serde_json::{Map, Value};

use super::text::clip;
use crate::{schema::resolve, span};

/// How many references and alternatives are followed within one another.
pub(super) const MAX_HOPS: usize = 8;
/// How many schemas are looked at to find out about one value.
const MAX_STEPS: usize = 64;
/// How long the word for a type may be; else it is a shorter one.
const MAX_WORD: usize = 48;

/// Which values a schema takes.
#[derive(Debug, Default)]
pub(super) struct Kinds<'a> {
    pub(super) null: bool,
    pub(super) boolean: bool,
    pub(super) integer: bool,
    pub(super) number: bool,
    pub(super) string: bool,
    pub(super) array: bool,
    pub(super) object: bool,
    /// Nothing is said of it.
    pub(super) any: bool,
    /// A text that is a time span, and no other text.
    pub(super) span: bool,
    /// `Duration` of the standard library.
    pub(super) duration: bool,
    /// The texts that it takes, where they are few.
    pub(super) names: Vec<&'a str>,
    /// Of an array's elements.
    pub(super) items: Option<&'a Value>,
    /// The limits of a number: the keyword and its value.
    pub(super) limits: Vec<(&'a str, &'a Value)>,
}

impl<'a> Kinds<'a> {
    pub(super) fn of(root: &'a Value, schema: &'a Value) -> Self {
        let mut kinds = Self::default();
        kinds.add(root, schema, &mut { MAX_STEPS }, 0);
        kinds
    }

    fn add(&mut self, root: &'a Value, schema: &'a Value, steps: &mut usize, depth: usize) {
        let Some(keywords) = schema.as_object().filter(|_| depth < MAX_HOPS && *steps > 0) else {
            self.any = true;
            return;
        };
        *steps -= 1;
        if is_duration(keywords) {
            self.duration = true;
            return;
        }
        if let Some(values) = keywords.get("enum").and_then(Value::as_array) {
            values.iter().for_each(|value| self.value(value));
            return;
        }
        if let Some(value) = keywords.get("const") {
            self.value(value);
            return;
        }
        if let Some(types) = keywords.get("type") {
            self.items = self.items.or_else(|| keywords.get("items"));
            self.limits(keywords);
            self.types(types, keywords);
            return;
        }
        let all: Vec<_> = applied(root, keywords).collect();
        self.any |= all.is_empty();
        for schema in all {
            self.add(root, schema, steps, depth + 1);
        }
    }

    fn types(&mut self, types: &Value, keywords: &Map<String, Value>) {
        let several = types.as_array().map_or(std::slice::from_ref(types), |several| several);
        for name in several.iter().filter_map(Value::as_str) {
            match name {
                "null" => self.null = true,
                "boolean" => self.boolean = true,
                "integer" => self.integer = true,
                "number" => self.number = true,
                "string" if keywords.get("format").is_some_and(|f| f == span::FORMAT) => {
                    self.span = true;
                }
                "string" => self.string = true,
                "array" => self.array = true,
                "object" => self.object = true,
                _ => self.any = true,
            }
        }
    }

    fn value(&mut self, value: &'a Value) {
        match value {
            Value::Null => self.null = true,
            Value::Bool(_) => self.boolean = true,
            Value::Number(number) if number.is_f64() => self.number = true,
            Value::Number(_) => self.integer = true,
            Value::String(name) => self.names.push(name),
            Value::Array(_) => self.array = true,
            Value::Object(_) => self.object = true,
        }
    }

    /// Gathers the limits that are narrower than the type.
    fn limits(&mut self, keywords: &'a Map<String, Value>) {
        let format = keywords.get("format").and_then(Value::as_str);
        let natural = format.and_then(natural);
        let is_natural = |limit: &Value, natural: i128| {
            let whole = limit.as_i64().map(i128::from);
            whole.or_else(|| limit.as_u64().map(i128::from)) == Some(natural)
        };
        for key in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
            let Some((key, limit)) = keywords.get_key_value(key) else { continue };
            let is_own = match (key.as_str(), natural) {
                ("minimum", Some((least, _))) => !is_natural(limit, least),
                ("maximum", Some((_, most))) => !is_natural(limit, most),
                _ => true,
            };
            if is_own {
                self.limits.push((key, limit));
            }
        }
    }

    /// Whether it takes a boolean, and nothing else that could be meant.
    pub(super) fn is_flag(&self) -> bool {
        self.boolean && !(self.is_text() || self.is_structured() || self.is_number() || self.any)
    }

    /// Whether it takes some text.
    pub(super) fn is_text(&self) -> bool {
        self.string || self.span || self.duration || !self.names.is_empty()
    }

    /// Whether it takes any text, and nothing else: no text needs a quote.
    pub(super) fn is_only_text(&self) -> bool {
        let other = self.is_structured() || self.is_number() || self.duration || self.any;
        self.string && !(other || self.boolean || self.null)
    }

    fn is_number(&self) -> bool {
        self.integer || self.number
    }

    /// Whether it takes JSON of several values.
    fn is_structured(&self) -> bool {
        self.array || self.object
    }

    /// Whether it is an array whose elements can be given one by one.
    pub(super) fn is_list(&self, root: &Value) -> bool {
        let simple = |items| {
            let items = Kinds::of(root, items);
            !items.is_structured() && !items.any
        };
        self.array && self.items.is_some_and(simple)
    }

    /// The word for a value: `INTEGER`, `TEXT`, `Fair|Foul`, `{"host":TEXT,"port":INTEGER}`.
    pub(super) fn word(&self, root: &Value, schema: &Value) -> String {
        self.word_in(root, schema, 0)
    }

    fn word_in(&self, root: &Value, schema: &Value, depth: usize) -> String {
        let mut words = Vec::new();
        let mut add = |is: bool, word: &str| {
            if is {
                words.push(word.to_owned());
            }
        };
        add(self.any, "JSON");
        add(self.span || self.duration, "SPAN");
        let names: Vec<_> = self.names.iter().take(8).map(|name| clip(name)).collect();
        let all_named = names.len() == self.names.len();
        let named = names.join("|");
        let few = all_named && named.chars().count() <= MAX_WORD;
        add(few && !named.is_empty(), &named);
        add(self.string, "TEXT");
        add(!few && !self.string, "NAME");
        add(self.number, "NUMBER");
        add(self.integer && !self.number, "INTEGER");
        add(self.boolean, "true|false");
        if self.is_list(root) {
            let items = self.items.map(|items| (Kinds::of(root, items), items));
            add(true, &items.map_or_else(String::new, |(k, items)| k.word_in(root, items, depth)));
        } else if self.is_structured() && !self.any {
            add(true, &shape(root, schema, depth).unwrap_or_else(|| "JSON".to_owned()));
        }
        add(self.null && depth > 0, "null");
        let word = words.join("|");
        let long = word.chars().count() > MAX_WORD;
        if long || word.is_empty() { "JSON".to_owned() } else { word }
    }
}

/// The shape of an object or array, if it is simple.
fn shape(root: &Value, schema: &Value, depth: usize) -> Option<String> {
    let mut keywords = schema.as_object().filter(|_| depth < 3)?;
    for _ in 0..MAX_HOPS {
        match reference(root, keywords).or_else(|| only_alternative(keywords)) {
            Some(target) => keywords = target.as_object()?,
            None => break,
        }
    }
    let word = |schema| Kinds::of(root, schema).word_in(root, schema, depth + 1);
    if let Some(first) = keywords.get("prefixItems").and_then(Value::as_array) {
        let words: Vec<_> = first.iter().take(MAX_HOPS).map(word).collect();
        return (words.len() == first.len()).then(|| format!("[{}]", words.join(",")));
    }
    if let Some(items) =
        keywords.get("items").filter(|_| keywords.get("type").is_some_and(|ty| ty == "array"))
    {
        return Some(format!("[{},…]", word(items)));
    }
    let members = keywords.get("properties")?.as_object()?;
    if members.len() > MAX_HOPS {
        return None;
    }
    let words = members.iter().map(|(name, schema)| format!("\"{}\":{}", clip(name), word(schema)));
    Some(format!("{{{}}}", words.collect::<Vec<_>>().join(",")))
}

/// What an optional value is where it is not null.
fn only_alternative(keywords: &Map<String, Value>) -> Option<&Value> {
    let all = keywords.get("anyOf").or_else(|| keywords.get("oneOf"))?.as_array()?;
    let is_null = |schema: &&Value| schema.get("type").is_some_and(|ty| ty == "null");
    let mut others = all.iter().filter(|schema| !is_null(schema));
    others.next().filter(|_| others.next().is_none())
}

/// The limits of a type by its format.
fn natural(format: &str) -> Option<(i128, i128)> {
    let bits = |digits: &str| if digits.is_empty() { Some(64) } else { digits.parse().ok() };
    if let Some(digits) = format.strip_prefix("uint") {
        let bits: u32 = bits(digits)?;
        return Some((0, if bits < 127 { (1 << bits) - 1 } else { i128::MAX }));
    }
    let bits: u32 = bits(format.strip_prefix("int")?).filter(|bits| (1..=128).contains(bits))?;
    Some((i128::MIN >> (128 - bits), i128::MAX >> (128 - bits)))
}

/// The schema of `std::time::Duration`.
fn is_duration(keywords: &Map<String, Value>) -> bool {
    let Some(members) = keywords.get("properties").and_then(Value::as_object) else { return false };
    let is = |name: &str, format: &str| members.get(name).is_some_and(|s| s["format"] == format);
    members.len() == 2 && is("secs", "uint64") && is("nanos", "uint32")
}

/// The target of a schema's `$ref`.
pub(super) fn reference<'a>(root: &'a Value, keywords: &Map<String, Value>) -> Option<&'a Value> {
    resolve(root, keywords.get("$ref")?.as_str()?)
}

/// The schemas that apply at the same place.
pub(super) fn applied<'a>(
    root: &'a Value,
    keywords: &'a Map<String, Value>,
) -> impl Iterator<Item = &'a Value> {
    let lists = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| keywords.get(key));
    lists.filter_map(Value::as_array).flatten().chain(reference(root, keywords))
}
