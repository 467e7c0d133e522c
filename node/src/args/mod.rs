//! Command lines, read by the schema of a struct.
//!
//! Any `#[data]` struct with named fields can be the arguments of a program: [`read()`] makes it of the
//! words that somebody typed, [`help()`] says what may be typed, [`write()`] is the command line that
//! gives a value back. Below them are the same over a schema and JSON ([`read_value`], [`help_of`],
//! [`words`]), for programs that are known by their description only.
//!
//! ```
//! # use layercake_node::args;
//! # use schemars::JsonSchema;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize, JsonSchema)] // or `#[data]`
//! struct Listing {
//!     folder: String,
//!     #[serde(default)]
//!     long_listing: bool,
//! }
//! let listing: Listing = args::read(["--folder", "src", "-ll"])?;
//! assert!(listing.long_listing && listing.folder == "src");
//! # Ok::<_, args::ArgsError>(())
//! ```
//!
//! # What may be typed
//! - `--name=value`, or `--name value` where the value does not begin with a dash (but for a negative
//!   number). Dashes in a name stand for underscores, and either is taken.
//! - `--flag` is true and `--no-flag` false, for booleans; these take a value only after `=`.
//! - The short form of a name is one dash and the first letters of its words: `-x=2`, and `-ll` for
//!   `long_listing`. One that fits several names is refused.
//! - Each argument once; only an array of simple values may be given element by element
//!   (`--tag=a --tag=b`).
//! - Words without a name are refused, and `--` too.
//!
//! # Values
//! Texts, variants without fields (in any case, and with either kind of dash), numbers, booleans and
//! time spans ([`Span`](crate::Span), and `Duration` of the standard library) stand bare; everything
//! else is JSON: `[1.5]`, `{"host":"127.0.0.1","port":5050}`, with spans in it as texts. `null` is an
//! optional value's absence. Where something else is declared beside a text, a text in double quotes
//! is a JSON string, so that `"null"` can be said.
//!
//! # What is checked
//! What was read is checked against the schema as a message is by the gateway; all that is wrong is
//! said at once, up to [`MAX_PROBLEMS`](crate::check::MAX_PROBLEMS). Names that every program takes
//! ([`RESERVED`]) are handled by whoever starts it, before.
//!
//! Schemas may come from other nodes: work on them is bounded, and their texts are shown without
//! control characters.

use std::{
    any::TypeId,
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{fields::Fields, text::plain};
use crate::{
    check::Checker,
    message::{Data, Message, MessageApi},
    schema::describe,
};

mod fields;
mod help;
mod kinds;
mod read;
mod text;
mod value;
mod write;

/// What every program takes: no argument may be called so.
pub const RESERVED: [&str; 3] = ["help", "describe", "json"];

/// One thing that is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgProblem {
    /// The argument as it was typed (`-x`), or as it should have been (`--long-name`); empty where it
    /// is about the whole.
    pub argument: String,
    /// What is wrong, as a clause to be read after the argument.
    pub detail: String,
    /// What to do, where that is known: `write --x=INTEGER`.
    pub hint: Option<String>,
}

impl fmt::Display for ArgProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.argument.is_empty() {
            write!(f, "`{}` ", self.argument)?;
        }
        f.write_str(&self.detail)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}

/// A command line that was not understood. As text it is one line where one thing is wrong, else one
/// more for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ArgsError {
    problems: Vec<ArgProblem>,
}

impl ArgsError {
    /// All that is wrong: first words that name nothing, then values that could not be read, then those
    /// that do not fit, each in the order of the command line, and then what is missing.
    #[must_use]
    pub fn problems(&self) -> &[ArgProblem] {
        &self.problems
    }

    fn of(argument: impl Into<String>, detail: impl Into<String>, hint: Option<String>) -> Self {
        let (argument, detail) = (argument.into(), detail.into());
        Self { problems: vec![ArgProblem { argument, detail, hint }] }
    }
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [one] => write!(f, "{one}"),
            several => {
                write!(f, "{} things are wrong with the arguments", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// Reads a command line, without the name of the program.
///
/// # Errors
/// All that is wrong with it, or that the type cannot be the arguments of a program.
pub fn read<T: Data>(words: impl IntoIterator<Item: AsRef<str>>) -> Result<T, ArgsError> {
    let value = read_value(schema::<T>(), words)?;
    // What the schema does not tell, such as a type that checks itself.
    serde_json::from_value(value).map_err(|error| {
        ArgsError::of("", format!("the arguments do not fit: {}", plain(&error.to_string())), None)
    })
}

/// Reads a command line by a schema, and checks what comes out: an object of what was given. Defaults
/// are not filled in; whoever decodes it knows them.
///
/// # Errors
/// All that is wrong with it, or that the schema cannot be that of arguments.
pub fn read_value(
    schema: &Value,
    words: impl IntoIterator<Item: AsRef<str>>,
) -> Result<Value, ArgsError> {
    let fields = Fields::of(schema)?;
    let reading = read::read(&fields, words);
    let checker = Checker::of(schema);
    reading.finish(&fields, &checker)
}

/// What may be typed: a line of usage, the description of the struct, and a line or more for each
/// argument, in the order of declaration. Plain text of at most 100 columns, with a line feed at its
/// end. A type that cannot be the arguments of a program is told so here too.
#[must_use]
pub fn help<T: Data>(program: &str) -> String {
    help_of(schema::<T>(), program)
}

/// As [`help()`], of a schema.
#[must_use]
pub fn help_of(schema: &Value, program: &str) -> String {
    match Fields::of(schema) {
        Ok(fields) => help::help(&fields, program),
        Err(error) => format!("{program} takes no arguments that could be typed: {error}\n"),
    }
}

/// The command line that gives a value back: what differs from its default, in the order of
/// declaration.
///
/// # Errors
/// That the value cannot be written as JSON, or the type cannot be the arguments of a program.
pub fn write<T: Data>(value: &T) -> Result<Vec<String>, ArgsError> {
    Fields::of(schema::<T>())?;
    let value = serde_json::to_value(value).map_err(|error| {
        ArgsError::of("", format!("the arguments cannot be written as JSON: {error}"), None)
    })?;
    Ok(words(schema::<T>(), &value))
}

/// The command line that [`read_value`] makes this value of, defaults left out. A member that the
/// schema does not declare is written too, and refused by the reader.
///
/// Numbers within nested JSON come back to about the last of their 17 digits, as JSON in general.
#[must_use]
pub fn words(schema: &Value, value: &Value) -> Vec<String> {
    write::words(schema, value)
}

/// The schema of a type's arguments. Made once, and kept while the program runs.
#[must_use]
pub fn schema<T: Data>() -> &'static Value {
    &described::<T>().schema
}

/// Arguments as a message, so that there is one way to describe a type.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Arguments<T>(T);

impl<T: JsonSchema> JsonSchema for Arguments<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: Data> Message for Arguments<T> {
    type Reply = ();
    const NAME: &'static str = "layercake.Arguments";

    fn describe() -> &'static Arc<MessageApi> {
        described::<T>()
    }
}

fn described<T: Data>() -> &'static Arc<MessageApi> {
    type Known = HashMap<TypeId, &'static Arc<MessageApi>>;
    // As many as the program has types of arguments.
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    if let Some(known) = KNOWN.lock().get(&TypeId::of::<T>()) {
        return known;
    }
    // Not under the lock: this runs the code of the type.
    let made = Arc::new(describe::<Arguments<T>>());
    KNOWN.lock().entry(TypeId::of::<T>()).or_insert_with(|| Box::leak(Box::new(made)))
}

#[cfg(test)]
mod tests;
