//! The arguments that a schema declares, and what they are called.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    ArgsError, RESERVED,
    kinds::{Kinds, MAX_HOPS, reference},
    text::{clip, distance, plain},
};

/// The arguments of a program.
pub(super) struct Fields<'a> {
    pub(super) root: &'a Value,
    pub(super) description: &'a str,
    pub(super) all: Vec<Field<'a>>,
}

/// One argument.
pub(super) struct Field<'a> {
    /// The member of the object.
    pub(super) name: &'a str,
    /// `--long-name`.
    pub(super) long: String,
    /// `--no-long-name`, where that is the opposite and no other argument.
    pub(super) negative: Option<String>,
    /// The letters of its short form; empty where it has none.
    pub(super) short: String,
    pub(super) description: &'a str,
    pub(super) schema: &'a Value,
    pub(super) kinds: Kinds<'a>,
    pub(super) required: bool,
    pub(super) default: Option<&'a Value>,
}

/// What a name on the command line leads to.
pub(super) enum Found {
    /// That argument.
    Field(usize),
    /// `--no-NAME` of that argument.
    Not(usize),
    /// None of them, or several.
    Nothing { detail: String, hint: Option<String> },
}

impl<'a> Fields<'a> {
    pub(super) fn of(root: &'a Value) -> Result<Self, ArgsError> {
        let mut keywords = root.as_object();
        let mut members = None;
        for _ in 0..MAX_HOPS {
            let Some(known) = keywords else { break };
            if known.contains_key("properties") {
                members = known.get("properties").and_then(Value::as_object);
                members = members.filter(|_| is_struct(known));
                break;
            }
            keywords = reference(root, known).and_then(Value::as_object);
        }
        let (Some(keywords), Some(members)) = (keywords, members) else {
            let why = "the arguments of a program must be a struct with named fields";
            return Err(ArgsError::of("", why, None));
        };
        let required = keywords.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|r| r == name));
        let text = |schema: &'a Value, key| schema.get(key).and_then(Value::as_str);
        let mut uses: HashMap<String, usize> = HashMap::new();
        for name in members.keys() {
            *uses.entry(canonical(name)).or_default() += 1;
        }
        let field = |(name, schema): (&'a String, &'a Value)| {
            let named = canonical(name);
            let kinds = Kinds::of(root, schema);
            // With a dash, unless that could be another one.
            let dashed = if uses[&named] == 1 { named.replace('_', "-") } else { name.clone() };
            let long = plain(&dashed);
            let is_free = !uses.contains_key(&format!("no_{named}")) && uses[&named] == 1;
            Field {
                name,
                negative: (kinds.is_flag() && is_free).then(|| format!("--no-{long}")),
                long: format!("--{long}"),
                short: letters(name),
                description: text(schema, "description").unwrap_or_default(),
                schema,
                kinds,
                required: is_required(name),
                default: schema.get("default"),
            }
        };
        let all: Vec<_> = members.iter().map(field).collect();
        if let Some(taken) = all.iter().find(|field| RESERVED.contains(&&*canonical(field.name))) {
            let why = "is a word of every program and cannot be an argument of one";
            let hint = format!("rename the field `{}`", clip(taken.name));
            return Err(ArgsError::of(clip(&taken.long), why, Some(hint)));
        }
        let description = keywords.get("description").or_else(|| root.get("description"));
        let description = description.and_then(Value::as_str).unwrap_or_default();
        Ok(Self { root, description, all })
    }

    /// The argument of a long name.
    pub(super) fn long(&self, name: &str) -> Found {
        if let Some(at) = self.all.iter().position(|field| field.name == name) {
            return Found::Field(at);
        }
        let named = canonical(name);
        match self.which(|field| canonical(field.name) == named)[..] {
            [] => {}
            [at] => return Found::Field(at),
            ref several => return self.ambiguous(several, "by its exact name"),
        }
        if let Some(positive) = named.strip_prefix("no_")
            && let [at] = self.which(|f| f.negative.is_some() && canonical(f.name) == positive)[..]
        {
            return Found::Not(at);
        }
        let hint = match self.which(|field| field.short == name)[..] {
            [at] => Some(format!("write -{name} or {}", self.all[at].long)),
            _ => self.near(&named),
        };
        Found::Nothing { detail: self.unknown(), hint }
    }

    /// The argument of a short form.
    pub(super) fn short(&self, letters: &str) -> Found {
        match self.which(|field| field.short == letters)[..] {
            [at] => Found::Field(at),
            [] => {
                let named = canonical(letters);
                let hint = match self.which(|field| canonical(field.name) == named)[..] {
                    [at] => Some(format!("write {}", clip(&self.all[at].long))),
                    _ => None,
                };
                Found::Nothing { detail: self.unknown(), hint }
            }
            ref several => self.ambiguous(several, "with two dashes"),
        }
    }

    /// Whether a field's short form is its own.
    pub(super) fn has_own_short(&self, field: &Field<'_>) -> bool {
        !field.short.is_empty() && self.which(|other| other.short == field.short).len() == 1
    }

    fn which(&self, is: impl Fn(&Field<'_>) -> bool) -> Vec<usize> {
        (0..self.all.len()).filter(|at| is(&self.all[*at])).collect()
    }

    fn ambiguous(&self, several: &[usize], how: &str) -> Found {
        let names: Vec<_> = several.iter().map(|at| clip(&self.all[*at].long)).collect();
        let detail = format!("may be {}", either(&names, "or"));
        Found::Nothing { detail, hint: Some(format!("write it {how}")) }
    }

    fn near(&self, named: &str) -> Option<String> {
        let far = |field: &&Field<'_>| distance(&canonical(field.name), named);
        let nearest = self.all.iter().min_by_key(far)?;
        // A name of one letter is near to everything.
        let length = named.chars().count().min(nearest.name.chars().count());
        (far(&nearest) <= 2.min(length.saturating_sub(1)))
            .then(|| format!("did you mean {}?", clip(&nearest.long)))
    }

    fn unknown(&self) -> String {
        if self.all.is_empty() {
            return "is unknown, since there are no arguments".to_owned();
        }
        let names: Vec<_> = self.all.iter().map(|field| clip(&field.long)).collect();
        format!("is unknown, there are {}", either(&names, "and"))
    }
}

impl Field<'_> {
    /// How to write it: `--x=INTEGER`, `--flag`.
    pub(super) fn form(&self, root: &Value) -> String {
        if let Some(negative) = &self.negative {
            return match self.default {
                Some(Value::Bool(true)) => negative.clone(),
                Some(Value::Bool(false)) => self.long.clone(),
                _ => self.long.replacen("--", "--[no-]", 1),
            };
        }
        format!("{}={}", self.long, self.kinds.word(root, self.schema))
    }
}

/// Whether an object with members is all that it is: of an enum, or a type that is no object, these
/// are empty and say nothing.
fn is_struct(keywords: &Map<String, Value>) -> bool {
    match keywords.get("type") {
        Some(named) => named == "object",
        None => ["oneOf", "anyOf", "enum", "const"].iter().all(|key| !keywords.contains_key(*key)),
    }
}

/// Lists names; many are too many.
fn either(names: &[String], last: &str) -> String {
    const MAX_LISTED: usize = 8;
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., end] if names.len() <= MAX_LISTED => format!("{} {last} {end}", all.join(", ")),
        many => format!("{}, …", many[..MAX_LISTED].join(", ")),
    }
}

/// A name as it is compared.
pub(super) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The first letters of the words of a name, small.
fn letters(name: &str) -> String {
    let mut letters = String::new();
    let mut last = '_';
    for c in name.chars().map(|c| if c == '-' { '_' } else { c }) {
        // `longListing` has two words too.
        if c.is_alphanumeric() && (last == '_' || (c.is_uppercase() && last.is_lowercase())) {
            letters.extend(c.to_lowercase());
        }
        last = c;
    }
    letters
}
