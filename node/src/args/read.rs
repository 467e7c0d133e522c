//! From the words of a command line to an object.

use serde_json::{Map, Value};

use super::{
    ArgProblem, ArgsError,
    fields::{Field, Fields, Found},
    text::{clip, plain},
    value,
};
use crate::check::{Checker, MAX_PROBLEMS, Problem};

/// What was read, and what was wrong with it.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) object: Map<String, Value>,
    pub(super) problems: Vec<ArgProblem>,
    /// By field: as it was typed, if it was.
    typed: Vec<Option<String>>,
    /// The fields that were given, in the order of the command line.
    order: Vec<usize>,
    /// The fields whose value could not be read.
    unread: Vec<usize>,
}

/// One mention of an argument.
struct Given {
    field: usize,
    /// `--name` or `-n`.
    typed: String,
    value: Typed,
}

enum Typed {
    Text(String),
    Flag(bool),
    /// A value was needed, and there was none.
    Nothing,
}

/// Reads words, each into the field that it names.
pub(super) fn read(fields: &Fields<'_>, words: impl IntoIterator<Item: AsRef<str>>) -> Reading {
    let mut reading = Reading { typed: vec![None; fields.all.len()], ..Reading::default() };
    let mut given = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let word = word.as_ref();
        if word == "--" {
            let hint = Some("write all of them as --name=value".to_owned());
            reading.problem(word, "is not used: there are no arguments without a name", hint);
            // What follows it would all be wrong.
            break;
        }
        let (name, text) = match word.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (word, None),
        };
        let (found, typed) = if let Some(long) = name.strip_prefix("--") {
            (fields.long(long), name)
        } else if let Some(short) = name.strip_prefix('-').filter(|short| !short.is_empty()) {
            (fields.short(short), name)
        } else {
            let hint = stray_hint(fields, &given, word);
            reading.problem(word, "stands alone, and arguments have names", Some(hint));
            continue;
        };
        let (field, value) = match (found, text) {
            (Found::Nothing { detail, hint }, _) => {
                reading.problem(typed, detail, hint);
                // Its value, most likely, is not another mistake.
                if text.is_none() {
                    words.next_if(|next| !next.as_ref().starts_with('-'));
                }
                continue;
            }
            (Found::Not(field), Some(_)) => {
                let hint = format!("write {typed}, or {}=false", fields.all[field].long);
                reading.problem(typed, "takes no value", Some(hint));
                reading.unread.push(field);
                continue;
            }
            (Found::Not(field), None) => (field, Typed::Flag(false)),
            (Found::Field(field), Some(text)) => (field, Typed::Text(text.to_owned())),
            (Found::Field(field), None) if fields.all[field].kinds.is_flag() => {
                (field, Typed::Flag(true))
            }
            (Found::Field(field), None) => match words.next_if(|next| is_value(next.as_ref())) {
                Some(text) => (field, Typed::Text(text.as_ref().to_owned())),
                None => (field, Typed::Nothing),
            },
        };
        given.push(Given { field, typed: typed.to_owned(), value });
    }
    reading.take(fields, given);
    reading
}

/// Whether a word can be the value of the name before it.
fn is_value(word: &str) -> bool {
    match word.strip_prefix('-') {
        None | Some("") => true,
        Some(rest) => rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'),
    }
}

fn stray_hint(fields: &Fields<'_>, given: &[Given], word: &str) -> String {
    let after_flag = given.last().filter(|last| matches!(last.value, Typed::Flag(_)));
    match (after_flag, word) {
        (Some(last), "true" | "false") => {
            format!("write {}={word}", clip(&fields.all[last.field].long))
        }
        // The only one that was not given yet, or the only one of all.
        _ => {
            let free = |at: &usize| given.iter().all(|given| given.field != *at);
            let mut free = (0..fields.all.len()).filter(free);
            match (free.next(), free.next()) {
                (Some(at), None) => format!("did you mean {}={}?", fields.all[at].long, clip(word)),
                _ => "write --name=value".to_owned(),
            }
        }
    }
}

impl Reading {
    fn problem(&mut self, argument: &str, detail: impl Into<String>, hint: Option<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let (argument, detail) = (clip(argument), detail.into());
            self.problems.push(ArgProblem { argument, detail, hint });
        }
    }

    /// Makes values of what was given.
    fn take(&mut self, fields: &Fields<'_>, given: Vec<Given>) {
        let mut by_field: Vec<Vec<Given>> = fields.all.iter().map(|_| Vec::new()).collect();
        for given in given {
            if by_field[given.field].is_empty() {
                self.order.push(given.field);
            }
            by_field[given.field].push(given);
        }
        for at in self.order.clone() {
            let (field, given) = (&fields.all[at], &by_field[at]);
            self.typed[at] = given.first().map(|given| given.typed.clone());
            match one(fields, field, given) {
                Ok(value) => {
                    self.object.insert(field.name.to_owned(), value);
                }
                Err(detail) => {
                    self.unread.push(at);
                    self.problem(&given[0].typed, detail, Some(hint(fields, field)));
                }
            }
        }
    }

    /// Checks what was read; says what is wrong in the words of the command line.
    pub(super) fn finish(
        mut self,
        fields: &Fields<'_>,
        checker: &Checker,
    ) -> Result<Value, ArgsError> {
        let object = Value::Object(std::mem::take(&mut self.object));
        let field_of =
            |problem: &Problem| fields.all.iter().position(|f| f.name == problem.parameter);
        let mut found = checker.check(&object);
        // In the order of the command line, and what is missing last.
        found.sort_by_key(|problem| {
            let place = |at| self.order.iter().position(|given| *given == at);
            field_of(problem).and_then(place).unwrap_or(usize::MAX)
        });
        for problem in found {
            let at = field_of(&problem);
            let Problem { pointer, detail, .. } = problem;
            let Some(at) = at else {
                self.problem("", plain(&detail), None);
                continue;
            };
            // What could not be read is not missing.
            if self.unread.contains(&at) {
                continue;
            }
            let field = &fields.all[at];
            let argument = self.typed[at].clone().unwrap_or_else(|| field.long.clone());
            let within = pointer.get(1..).and_then(|path| path.split_once('/'));
            let detail = match within {
                Some((_, path)) => format!("at `{}` {}", clip(path), plain(&detail)),
                None => plain(&detail),
            };
            self.problem(&argument, detail, Some(hint(fields, field)));
        }
        if self.problems.is_empty() {
            return Ok(object);
        }
        Err(ArgsError { problems: self.problems })
    }
}

fn hint(fields: &Fields<'_>, field: &Field<'_>) -> String {
    format!("write {}", field.form(fields.root))
}

/// The value of one argument, of all its mentions.
fn one(fields: &Fields<'_>, field: &Field<'_>, given: &[Given]) -> Result<Value, String> {
    let kinds = &field.kinds;
    if given.iter().any(|given| matches!(given.value, Typed::Nothing)) {
        return Err("has no value".to_owned());
    }
    if let [Given { value: Typed::Flag(flag), .. }] = given {
        return Ok((*flag).into());
    }
    let mut names: Vec<_> = given.iter().map(|given| format!("`{}`", clip(&given.typed))).collect();
    names.dedup();
    if given.len() > 1 && !kinds.is_list(fields.root) {
        return Err(match &names[..] {
            [_] => format!("is given {} times", given.len()),
            [_, second, ..] => format!("is given as {second} too"),
            [] => String::new(),
        });
    }
    let texts: Vec<_> = given
        .iter()
        .filter_map(|given| match &given.value {
            Typed::Text(text) => Some(text.as_str()),
            Typed::Flag(_) | Typed::Nothing => None,
        })
        .collect();
    value::value(fields.root, field.schema, kinds, &texts)
}
