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
//! small, and answers to people who call an API. A schema is read once, since what a
//! check costs is otherwise mostly looking keywords up.
//!
//! Schemas come from other nodes and values from anybody: both may be malformed or hostile. Depth,
//! work and the number of reported problems are bounded.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use serde_json::{Map, Value};

use self::{
    keywords::{At, Keywords, Schema, Schemas},
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
/// So many names are compared with each other rather than looked up by their hashes.
const FEW: usize = 8;

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
    schemas: Schemas,
}

impl Checker {
    /// The checker of a message.
    #[must_use]
    pub fn new(api: &MessageApi) -> Self {
        Self::of(&api.schema)
    }

    /// The checker of whatever has this schema.
    #[must_use]
    pub fn of(schema: &Value) -> Self {
        Self { schemas: Schemas::of(schema) }
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
        let mut object = Map::new();
        let mut problems = Vec::new();
        for Given { name, first, more } in grouped(parameters) {
            let converted = match query::member(&self.schemas, name) {
                Some(schema) => query::value(&self.schemas, schema, first, &more),
                // Refused when it is checked, unless the message takes any member.
                None => Ok(first.into()),
            };
            match converted {
                Ok(value) => {
                    object.insert(name.to_owned(), value);
                }
                Err(detail) => {
                    let (pointer, parameter) = (pointer(&[Step::Member(name)]), name.to_owned());
                    problems.push(Problem { pointer, parameter, detail });
                }
            }
        }
        (object, problems)
    }

    /// The JSON of a message that consists of parameters, as [`read`](Self::read) and
    /// [`check`](Self::check) have it, where that can be told at a glance: a few numbers and texts, each
    /// given once, declared and right. `None` says nothing: it is to be read and checked.
    #[must_use]
    pub fn plain<N: AsRef<str>, V: AsRef<str>>(&self, parameters: &[(N, V)]) -> Option<Vec<u8>> {
        let root = self.schemas.keywords(Schemas::ROOT).filter(|root| root.is_plain())?;
        let has = |name: &String| parameters.iter().any(|(given, _)| given.as_ref() == name);
        if parameters.len() > FEW || !root.required.iter().all(has) {
            return None;
        }
        let mut json = Vec::with_capacity(64);
        json.push(b'{');
        for (at, (name, text)) in parameters.iter().enumerate() {
            let name = name.as_ref();
            if parameters[..at].iter().any(|(before, _)| before.as_ref() == name) {
                return None;
            }
            let schema = root.property(name)?;
            let value = query::value(&self.schemas, schema, text.as_ref(), &[]).ok()?;
            if value.is_array() || value.is_object() {
                return None;
            }
            let mut run = Run::new(&self.schemas, MIN_STEPS);
            run.value(schema, &value);
            if run.steps == 0 || !run.problems.is_empty() {
                return None;
            }
            if at > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, name).ok()?;
            json.push(b':');
            serde_json::to_writer(&mut json, &value).ok()?;
        }
        json.push(b'}');
        Some(json)
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
        let mut run = Run::new(&self.schemas, steps);
        run.value(Schemas::ROOT, message);
        if run.steps == 0 {
            run.path.clear();
            run.problem("cannot be checked: the schema is too intricate".to_owned());
        }
        run.problems
    }
}

/// A parameter, and what it was given.
struct Given<'p> {
    name: &'p str,
    first: &'p str,
    more: Vec<&'p str>,
}

/// Puts together what has the same name, in the order of first mention.
fn grouped<N: AsRef<str>, V: AsRef<str>>(parameters: &[(N, V)]) -> Vec<Given<'_>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut grouped: Vec<Given<'_>> = Vec::with_capacity(parameters.len());
    let few = parameters.len() <= FEW;
    for (name, text) in parameters {
        let (name, text) = (name.as_ref(), text.as_ref());
        let known = match few {
            true => grouped.iter().position(|given| given.name == name),
            false => places.get(name).copied(),
        };
        match known {
            Some(at) => grouped[at].more.push(text),
            None => {
                if !few {
                    places.insert(name, grouped.len());
                }
                grouped.push(Given { name, first: text, more: Vec::new() });
            }
        }
    }
    grouped
}

fn has_member(members: &Map<String, Value>, name: &str) -> bool {
    match members.len() <= FEW {
        true => members.keys().any(|member| member == name),
        false => members.contains_key(name),
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
    schemas: &'a Schemas,
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
#[derive(Debug, Default)]
struct Declared {
    names: Vec<String>,
    /// Whether it takes any other member too.
    open: bool,
}

impl<'a> Run<'a> {
    const fn new(schemas: &'a Schemas, steps: usize) -> Self {
        Self { schemas, path: Vec::new(), problems: Vec::new(), steps, stack: 0, refused: false }
    }

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
    fn value(&mut self, schema: At, value: &'a Value) {
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
            && let Some(keywords) = self.schemas.keywords(schema)
        {
            let declared = keywords.declared.get_or_init(|| Declared::of(self.schemas, schema));
            if !declared.open {
                for name in members.keys().filter(|name| !declared.names.contains(name)) {
                    if self.is_full() {
                        return;
                    }
                    self.problem_at(Step::Member(name), unknown(declared.names.iter()));
                }
            }
        }
    }

    fn step_in(&mut self, step: Step<'a>, schema: At, value: &'a Value) {
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
    fn schema(&mut self, schema: At, value: &'a Value) {
        if !self.enter() {
            return;
        }
        match self.schemas.get(schema) {
            Schema::Never => self.problem("is not allowed".to_owned()),
            Schema::Keywords(schema) => self.keywords(schema, value),
            Schema::Any => {}
        }
        self.stack -= 1;
    }

    fn keywords(&mut self, schema: &'a Keywords, value: &'a Value) {
        if let Some(expected) = &schema.types
            && !expected.take(value)
        {
            let expected = types_said(&expected.written);
            self.problem(format!("is {}, not {expected}", kind_of(value)));
            return;
        }
        if let Some(allowed) = &schema.values
            && !allowed.contains(value)
        {
            self.problem(format!("is none of {}", list(allowed.iter().map(bare))));
        }
        if let Some(only) = schema.only.as_ref().filter(|only| *only != value) {
            self.problem(format!("is not {}", bare(only)));
        }
        match value {
            Value::Number(_) => self.number(schema, value),
            Value::String(text) => self.text(schema, text),
            Value::Array(items) => self.array(schema, items),
            Value::Object(members) => self.object(schema, members),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(target) = schema.reference {
            self.schema(target, value);
        }
        for all in &schema.all_of {
            self.schema(*all, value);
        }
        for alternatives in schema.alternatives.iter().flatten() {
            self.alternatives(alternatives, value);
        }
    }

    fn number(&mut self, schema: &Keywords, value: &Value) {
        let beyond = |limit: &Option<Value>, is_beyond: fn(Ordering) -> bool| {
            let limit = limit.as_ref();
            limit.filter(|limit| compare(value, limit).is_some_and(is_beyond)).map(Value::to_string)
        };
        if let Some(limit) = beyond(&schema.least, Ordering::is_lt) {
            self.problem(format!("is less than {limit}"));
        }
        if let Some(limit) = beyond(&schema.most, Ordering::is_gt) {
            self.problem(format!("is more than {limit}"));
        }
        if let Some(limit) = beyond(&schema.more_than, Ordering::is_le) {
            self.problem(format!("is not more than {limit}"));
        }
        if let Some(limit) = beyond(&schema.less_than, Ordering::is_ge) {
            self.problem(format!("is not less than {limit}"));
        }
    }

    fn text(&mut self, schema: &Keywords, text: &str) {
        let limits = [schema.least_length, schema.most_length];
        self.size(limits, || text.chars().count(), "character(s)");
    }

    fn size(&mut self, [least, most]: [Option<u64>; 2], size: impl Fn() -> usize, unit: &str) {
        if let Some(least) = least.filter(|least| (size() as u64) < *least) {
            self.problem(format!("has less than {least} {unit}"));
        }
        if let Some(most) = most.filter(|most| (size() as u64) > *most) {
            self.problem(format!("has more than {most} {unit}"));
        }
    }

    fn array(&mut self, schema: &Keywords, items: &'a [Value]) {
        self.size([schema.least_items, schema.most_items], || items.len(), "element(s)");
        for (at, item) in items.iter().enumerate() {
            if self.is_full() {
                return;
            }
            if let Some(schema) = schema.first_items.get(at).copied().or(schema.items) {
                self.step_in(Step::Index(at), schema, item);
            }
        }
    }

    fn object(&mut self, schema: &'a Keywords, members: &'a Map<String, Value>) {
        for name in schema.required.iter().filter(|name| !has_member(members, name)) {
            self.problem_at(Step::Member(name), "is required".to_owned());
        }
        for (name, value) in members {
            if self.is_full() {
                return;
            }
            let declared = schema.property(name).map(Some).or_else(|| schema.by_pattern(name));
            match declared.unwrap_or(schema.others) {
                Some(others) if declared.is_none() && self.schemas.takes_nothing(others) => {
                    self.problem_at(Step::Member(name), unknown(schema.names()));
                }
                Some(schema) => self.step_in(Step::Member(name), schema, value),
                None => {}
            }
        }
    }

    /// One of several schemas must fit. Where none does, the likeliest is the one that was meant: the
    /// only one of the value's kind, or the one that got deepest into the value.
    fn alternatives(&mut self, alternatives: &[At], value: &'a Value) {
        let (outer, refused) = (std::mem::take(&mut self.problems), self.refused);
        let mut failures = Vec::with_capacity(alternatives.len());
        for &alternative in alternatives {
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
        let fits_kind = |schema: &At| could_be(self.schemas, *schema, value, 0);
        let kind: Vec<_> = alternatives.iter().copied().filter(fits_kind).collect();
        let depth = |found: &[Problem]| {
            let deepest = found.iter().map(|p| p.pointer.matches('/').count()).max();
            // What lacks its only member was not meant.
            let meant = found.iter().all(|p| p.detail != "is required");
            if meant { deepest.unwrap_or(0) } else { 0 }
        };
        let meant = if let [only] = kind[..] {
            failures.into_iter().find(|(alternative, _)| *alternative == only)
        } else {
            let deeper = |(_, found): &(At, Vec<Problem>)| depth(found) > here.matches('/').count();
            failures.into_iter().filter(deeper).max_by_key(|(_, found)| depth(found))
        };
        match meant {
            Some((_, found)) => {
                let room = MAX_PROBLEMS.saturating_sub(self.problems.len());
                self.problems.extend(found.into_iter().take(room));
            }
            None => {
                let names = alternatives.iter().flat_map(|schema| said(self.schemas, *schema));
                let names = list(names);
                self.problem(format!("is none of {names}"));
            }
        }
    }
}

impl Declared {
    fn of(schemas: &Schemas, schema: At) -> Self {
        let mut declared = Self::default();
        let (mut names, mut known) = (HashSet::new(), HashSet::from([schema]));
        let mut waiting = vec![schema];
        // Each schema once, however often it is referred to, and each name: what is kept is no more than
        // the document.
        while let Some(schema) = waiting.pop() {
            let Some(keywords) = schemas.keywords(schema) else {
                declared.open |= !schemas.takes_nothing(schema);
                continue;
            };
            declared.add(schemas, keywords, &mut names);
            let next = waiting.len();
            waiting.extend(keywords.applied().filter(|schema| known.insert(*schema)));
            // In the order of the document: the last is taken first.
            waiting[next..].reverse();
        }
        declared
    }

    fn add<'s>(&mut self, schemas: &Schemas, keywords: &'s Keywords, known: &mut HashSet<&'s str>) {
        let new = keywords.names().filter(|name| known.insert(name));
        self.names.extend(new.map(str::to_owned));
        self.open |= keywords.others.is_some_and(|others| !schemas.takes_nothing(others));
        self.open |= keywords.patterns.is_some();
        let nothing_applies = keywords.applied().next().is_none();
        let silent = keywords.properties.is_none() && keywords.others.is_none() && nothing_applies;
        let is_object = keywords.types.as_ref().is_none_or(|types| types.has("object"));
        self.open |= silent && is_object;
    }
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
fn could_be(schemas: &Schemas, schema: At, value: &Value, depth: usize) -> bool {
    let Some(schema) = schemas.keywords(schema).filter(|_| depth < query::MAX_HOPS) else {
        return true;
    };
    schema.types.as_ref().is_none_or(|types| types.take(value))
        && schema.reference.is_none_or(|target| could_be(schemas, target, value, depth + 1))
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
