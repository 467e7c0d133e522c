//! Checks input against the schema of a message, before it enters the mesh.
//!
//! It knows the part of JSON Schema that `schemars` writes for serde types, and judges as serde will:
//! a whole number is not written `2.0`, and a member that no schema declares is refused, since it is
//! nearly always misspelt. What it does not know (`format`, `pattern`, and keywords of later
//! versions) it passes over; the receiver's decoder has the last word. Values are checked, never
//! changed: defaults are filled in by the receiver, who alone knows its own.
//!
//! The crate `jsonschema` would do all of the standard, at the price of a tree of dozens of crates, of
//! compiling each schema, and of messages written for authors of schemas; what is needed here is
//! small, and answers to people who call an API.
//!
//! Schemas come from other nodes and values from anybody: both may be malformed or hostile. Depth,
//! work and the number of reported problems are bounded.

use std::{cmp::Ordering, collections::HashMap};

use serde_json::{Map, Value};

use self::{
    keywords::Keywords,
    words::{bare, kind_of, list, said, types_said, unknown},
};
use crate::message::MessageApi;

mod keywords;
mod query;
mod words;

/// The most problems reported at once.
pub const MAX_PROBLEMS: usize = 16;
/// How deep a value may be nested.
pub const MAX_DEPTH: usize = 64;
/// How many schemas may apply within one another, those of one value included.
const MAX_STACK: usize = 4 * MAX_DEPTH;
/// How many schemas may be looked at: so many for each value within the input, and some more.
const STEPS_PER_VALUE: usize = 64;
const MIN_STEPS: usize = 4096;
/// One thing that is wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: a JSON pointer (RFC 6901) into the message. What is missing is pointed at too.
    pub pointer: String,
    /// The parameter, that is the member of the message, which it is about or within; empty where it
    /// is about the whole.
    pub parameter: String,
    /// What is wrong, as a clause to be read after the name.
    pub detail: String,
}

/// Checks input for one message type. Make it once, use it for each request.
#[derive(Debug)]
pub struct Checker {
    schema: Value,
}

impl Checker {
    /// The checker of a message.
    #[must_use]
    pub fn new(api: &MessageApi) -> Self {
        Self::of(api.schema.clone())
    }

    /// The checker of whatever has this schema.
    #[must_use]
    pub fn of(schema: Value) -> Self {
        Self { schema }
    }

    /// Turns the parameters of a query or form into members of the JSON of a message, by the types that
    /// the schema declares: those that could be read, and what is wrong with the others. Nothing is
    /// checked yet: see [`check_beside`](Self::check_beside).
    ///
    /// Numbers, booleans, texts and variants without fields stand bare (`x=2&mood=Foul`); a name that
    /// is repeated, or a single bare value, makes an array where one is declared; other arrays and
    /// objects are JSON (`points=[[1,2]]`). An optional value is null when it is `null`, or empty and
    /// no text.
    pub fn read<N: AsRef<str>, V: AsRef<str>>(
        &self,
        parameters: &[(N, V)],
    ) -> (Map<String, Value>, Vec<Problem>) {
        let mut values: HashMap<&str, usize> = HashMap::new();
        let mut grouped: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, text) in parameters {
            let (name, text) = (name.as_ref(), text.as_ref());
            let at = *values.entry(name).or_insert_with(|| {
                grouped.push((name, Vec::new()));
                grouped.len() - 1
            });
            grouped[at].1.push(text);
        }

        let mut object = Map::new();
        let mut problems = Vec::new();
        for (name, texts) in &grouped {
            let converted = match query::member(&self.schema, name) {
                Some(schema) => query::value(&self.schema, schema, texts),
                // Refused when it is checked, unless the message takes any member.
                None => Ok(texts.first().copied().into()),
            };
            match converted {
                Ok(value) => {
                    object.insert((*name).to_owned(), value);
                }
                Err(detail) => {
                    let (pointer, parameter) = (pointer(&[Step::Member(name)]), (*name).to_owned());
                    problems.push(Problem { pointer, parameter, detail });
                }
            }
        }
        (object, problems)
    }

    /// What is wrong with a message of which some members could not be read: these are not missing.
    #[must_use]
    pub fn check_beside(&self, message: &Value, unread: &[Problem]) -> Vec<Problem> {
        let is_unread = |found: &Problem| unread.iter().any(|u| u.parameter == found.parameter);
        self.check(message).into_iter().filter(|found| !is_unread(found)).collect()
    }

    /// What is wrong with a message, up to [`MAX_PROBLEMS`] and at most one thing for each place;
    /// nothing, if it fits.
    #[must_use]
    pub fn check(&self, message: &Value) -> Vec<Problem> {
        let steps = MIN_STEPS.saturating_add(count(message, 0).saturating_mul(STEPS_PER_VALUE));
        let mut run = Run {
            root: &self.schema,
            path: Vec::new(),
            problems: Vec::new(),
            steps,
            stack: 0,
            refused: false,
        };
        run.value(&self.schema, message);
        if run.steps == 0 {
            run.path.clear();
            run.problem("cannot be checked: the schema is too intricate".to_owned());
        }
        run.problems
    }
}

/// How many values there are within a value, itself included. Too deep a value is refused later.
fn count(value: &Value, depth: usize) -> usize {
    match value {
        _ if depth > MAX_DEPTH => 1,
        Value::Array(items) => 1 + items.iter().map(|v| count(v, depth + 1)).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(|v| count(v, depth + 1)).sum::<usize>(),
        _ => 1,
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Index(usize),
}

fn pointer(path: &[Step<'_>]) -> String {
    path.iter().fold(String::new(), |pointer, step| match step {
        Step::Member(name) => pointer + "/" + &name.replace('~', "~0").replace('/', "~1"),
        Step::Index(index) => pointer + "/" + &index.to_string(),
    })
}

/// One check under way.
struct Run<'a> {
    root: &'a Value,
    path: Vec<Step<'a>>,
    problems: Vec<Problem>,
    /// How many more schemas may be looked at.
    steps: usize,
    /// How many apply within one another now.
    stack: usize,
    /// Whether the value at hand is wrong itself, other than by something missing or within it.
    refused: bool,
}

/// The members that the schemas of one object declare.
#[derive(Default)]
struct Declared<'a> {
    names: Vec<&'a str>,
    /// Whether it takes any other member too.
    open: bool,
}

impl<'a> Run<'a> {
    /// Something is wrong with the value itself.
    fn problem(&mut self, detail: String) {
        self.refused = true;
        self.report(detail);
    }

    fn report(&mut self, detail: String) {
        if self.is_full() {
            return;
        }
        let pointer = pointer(&self.path);
        if self.problems.iter().any(|known| known.pointer == pointer) {
            return;
        }
        let parameter = match self.path.first() {
            Some(Step::Member(name)) => (*name).to_owned(),
            _ => String::new(),
        };
        self.problems.push(Problem { pointer, parameter, detail });
    }

    fn problem_at(&mut self, step: Step<'a>, detail: String) {
        self.path.push(step);
        self.report(detail);
        self.path.pop();
    }

    fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// Checks a value that has not been looked at.
    fn value(&mut self, schema: &'a Value, value: &'a Value) {
        if self.path.len() > MAX_DEPTH {
            self.problem(format!("is nested deeper than {MAX_DEPTH} levels"));
            return;
        }
        let outer = std::mem::take(&mut self.refused);
        self.schema(schema, value);
        let refused = std::mem::replace(&mut self.refused, outer);
        // Each of several schemas may declare some members: what none of them does is known here.
        if let Value::Object(members) = value
            && !refused
        {
            let mut declared = Declared::default();
            self.declared(schema, &mut declared);
            if !declared.open {
                for name in members.keys().filter(|name| !declared.names.contains(&name.as_str())) {
                    if self.is_full() {
                        return;
                    }
                    self.problem_at(Step::Member(name), unknown(&declared.names));
                }
            }
        }
    }

    fn step_in(&mut self, step: Step<'a>, schema: &'a Value, value: &'a Value) {
        self.path.push(step);
        self.value(schema, value);
        self.path.pop();
    }

    /// Whether another schema may be looked at; says why not.
    fn enter(&mut self) -> bool {
        let able = self.steps > 0 && !self.is_full();
        if able && self.stack >= MAX_STACK {
            self.problem("is nested too deeply to be checked".to_owned());
            return false;
        }
        if able {
            self.steps -= 1;
            self.stack += 1;
        }
        able
    }

    /// Checks a value against one of its schemas.
    fn schema(&mut self, schema: &'a Value, value: &'a Value) {
        if !self.enter() {
            return;
        }
        match schema {
            Value::Bool(false) => self.problem("is not allowed".to_owned()),
            Value::Object(schema) => self.keywords(&Keywords::of(schema), value),
            _ => {}
        }
        self.stack -= 1;
    }

    fn keywords(&mut self, schema: &Keywords<'a>, value: &'a Value) {
        if let Some(expected) = schema.types
            && !has_type(expected, value)
        {
            self.problem(format!("is {}, not {}", kind_of(value), types_said(expected)));
            return;
        }
        if let Some(allowed) = schema.values.and_then(Value::as_array)
            && !allowed.contains(value)
        {
            self.problem(format!("is none of {}", list(allowed.iter().map(bare))));
        }
        if let Some(only) = schema.only.filter(|only| *only != value) {
            self.problem(format!("is not {}", bare(only)));
        }
        match value {
            Value::Number(_) => self.number(schema, value),
            Value::String(text) => self.text(schema, text),
            Value::Array(items) => self.array(schema, items),
            Value::Object(members) => self.object(schema, members),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(target) = schema.reference(self.root) {
            self.schema(target, value);
        }
        for all in schema.all_of() {
            self.schema(all, value);
        }
        // serde takes the first that fits, so "one of" is no stricter than "any of".
        for alternatives in [schema.any_of, schema.one_of] {
            if let Some(Value::Array(alternatives)) = alternatives {
                self.alternatives(alternatives, value);
            }
        }
    }

    fn number(&mut self, schema: &Keywords<'a>, value: &Value) {
        let beyond = |limit: Option<&'a Value>, is_beyond: fn(Ordering) -> bool| {
            limit.filter(|limit| compare(value, limit).is_some_and(is_beyond))
        };
        if let Some(limit) = beyond(schema.least, Ordering::is_lt) {
            self.problem(format!("is less than {limit}"));
        }
        if let Some(limit) = beyond(schema.most, Ordering::is_gt) {
            self.problem(format!("is more than {limit}"));
        }
        if let Some(limit) = beyond(schema.more_than, Ordering::is_le) {
            self.problem(format!("is not more than {limit}"));
        }
        if let Some(limit) = beyond(schema.less_than, Ordering::is_ge) {
            self.problem(format!("is not less than {limit}"));
        }
    }

    fn text(&mut self, schema: &Keywords<'a>, text: &str) {
        let limits = [schema.least_length, schema.most_length];
        self.size(limits, || text.chars().count(), "character(s)");
    }

    fn size(&mut self, [least, most]: [Option<&Value>; 2], size: impl Fn() -> usize, unit: &str) {
        let limit = |limit: Option<&Value>| limit.and_then(Value::as_u64);
        if let Some(least) = limit(least).filter(|least| (size() as u64) < *least) {
            self.problem(format!("has less than {least} {unit}"));
        }
        if let Some(most) = limit(most).filter(|most| (size() as u64) > *most) {
            self.problem(format!("has more than {most} {unit}"));
        }
    }

    fn array(&mut self, schema: &Keywords<'a>, items: &'a [Value]) {
        self.size([schema.least_items, schema.most_items], || items.len(), "element(s)");
        let first = schema.first_items.and_then(Value::as_array).map_or(&[][..], |f| f);
        let rest = schema.items;
        for (at, item) in items.iter().enumerate() {
            if self.is_full() {
                return;
            }
            if let Some(schema) = first.get(at).or(rest) {
                self.step_in(Step::Index(at), schema, item);
            }
        }
    }

    fn object(&mut self, schema: &Keywords<'a>, members: &'a Map<String, Value>) {
        let required = schema.required.and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.problem_at(Step::Member(name), "is required".to_owned());
            }
        }
        for (name, value) in members {
            if self.is_full() {
                return;
            }
            if let Some(schema) = schema.property(name) {
                self.step_in(Step::Member(name), schema, value);
            } else if let Some(schema) = schema.by_pattern(name) {
                self.step_in(Step::Member(name), schema, value);
            } else if let Some(Value::Bool(false)) = schema.others {
                let known: Vec<_> = schema.names().collect();
                self.problem_at(Step::Member(name), unknown(&known));
            } else if let Some(schema) = schema.others {
                self.step_in(Step::Member(name), schema, value);
            }
        }
    }

    /// One of several schemas must fit. Where none does, the likeliest is the one that was meant: the
    /// only one of the value's kind, or the one that got deepest into the value.
    fn alternatives(&mut self, alternatives: &'a [Value], value: &'a Value) {
        let (outer, refused) = (std::mem::take(&mut self.problems), self.refused);
        let mut failures = Vec::with_capacity(alternatives.len());
        for alternative in alternatives {
            self.schema(alternative, value);
            let found = std::mem::take(&mut self.problems);
            if found.is_empty() && self.steps > 0 {
                (self.problems, self.refused) = (outer, refused);
                return;
            }
            failures.push((alternative, found));
        }
        (self.problems, self.refused) = (outer, true);
        let here = pointer(&self.path);
        let fits_kind = |schema: &&Value| could_be(self.root, schema, value, 0);
        let kind: Vec<_> = alternatives.iter().filter(fits_kind).collect();
        let depth = |found: &[Problem]| {
            let deepest = found.iter().map(|p| p.pointer.matches('/').count()).max();
            // What lacks its only member was not meant.
            let meant = found.iter().all(|p| p.detail != "is required");
            if meant { deepest.unwrap_or(0) } else { 0 }
        };
        let meant = if let [only] = kind[..] {
            failures.into_iter().find(|(alternative, _)| std::ptr::eq(*alternative, only))
        } else {
            let deeper = |(_, found): &(_, Vec<Problem>)| depth(found) > here.matches('/').count();
            failures.into_iter().filter(deeper).max_by_key(|(_, found)| depth(found))
        };
        match meant {
            Some((_, found)) => {
                let room = MAX_PROBLEMS.saturating_sub(self.problems.len());
                self.problems.extend(found.into_iter().take(room));
            }
            None => {
                let names = alternatives.iter().flat_map(|schema| said(self.root, schema));
                self.problem(format!("is none of {}", list(names)));
            }
        }
    }

    /// Gathers the members that the schemas of an object declare.
    fn declared(&mut self, schema: &'a Value, declared: &mut Declared<'a>) {
        if !self.enter() {
            // Rather too lenient than wrong.
            declared.open = true;
            return;
        }
        if let Value::Object(schema) = schema {
            let schema = Keywords::of(schema);
            let applied: Vec<_> = schema.applied(self.root).collect();
            declared.names.extend(schema.names());
            declared.open |= schema.others.is_some_and(|o| *o != Value::Bool(false));
            declared.open |= schema.patterns.is_some();
            let properties = schema.properties.and_then(Value::as_object);
            let silent = properties.is_none() && schema.others.is_none() && applied.is_empty();
            let is_object = schema.types.is_none_or(|ty| names_type(ty, "object"));
            declared.open |= silent && is_object;
            for schema in applied {
                self.declared(schema, declared);
            }
        } else {
            declared.open |= *schema != Value::Bool(false);
        }
        self.stack -= 1;
    }
}

fn names_type(types: &Value, name: &str) -> bool {
    match types {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => true,
    }
}

fn has_type(types: &Value, value: &Value) -> bool {
    names_type(types, type_of(value))
        || (type_of(value) == "integer" && names_type(types, "number"))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a value is of a kind that a schema takes at all.
fn could_be<'a>(root: &'a Value, schema: &'a Value, value: &Value, depth: usize) -> bool {
    let Some(schema) = schema.as_object().filter(|_| depth < query::MAX_HOPS) else {
        return true;
    };
    let schema = Keywords::of(schema);
    schema.types.is_none_or(|types| has_type(types, value))
        && schema.reference(root).is_none_or(|s| could_be(root, s, value, depth + 1))
}

/// Compares numbers, exactly where both are whole.
fn compare(one: &Value, two: &Value) -> Option<Ordering> {
    let whole = |v: &Value| v.as_i64().map(i128::from).or_else(|| v.as_u64().map(i128::from));
    match (whole(one), whole(two)) {
        (Some(one), Some(two)) => Some(one.cmp(&two)),
        _ => one.as_f64()?.partial_cmp(&two.as_f64()?),
    }
}

#[cfg(test)]
mod tests;
