//! What is published and asked for: names, patterns over names, and how far both reach.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use layercake_wire::id::NodeId;
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Dot, Hir, HirKind, literal::Extractor};
use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;
/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 256;
/// The memory that a compiled pattern may take, in bytes.
pub const MAX_PATTERN_SIZE: usize = 1 << 20;
/// Beginnings that a pattern is looked up by; one that has more is looked up by what they have in
/// common.
const MAX_STARTS: usize = 16;
/// The first field of the names that belong to the system: nobody else publishes or sees them.
const RESERVED: &str = "layercake";
/// What the text of a reserved pattern begins with. No regular expression begins so.
const RESERVED_MARK: char = '*';

/// Why a piece of text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is longer than [`MAX_NAME`].
    #[error("the name has {0} bytes; at most {MAX_NAME} are allowed")]
    TooLong(usize),
    /// Nothing stands before, after or between two colons.
    #[error("`{0}` has an empty field; write it like `textures:worker:7f3a`")]
    EmptyField(String),
    /// Names are printed, logged and matched by line.
    #[error("`{0}` has a space or a control character; use letters, digits, dots and dashes")]
    Unprintable(String),
    /// Its first field is `layercake`: such names are the system's own.
    #[error("`{0}` begins with `{RESERVED}`, which is the system's; use another first field")]
    Reserved(String),
}

/// A published name: colon-separated fields, as in `textures:worker:7f3a`. Cheap to clone.
///
/// Names whose first field is `layercake` are the system's: they cannot be made here, and no pattern
/// that can be made here matches them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Name(Arc<str>);

/// Text from a link, where reserved names and patterns travel like others.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let name = Self::check(text)?;
        if name.is_reserved() {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(name)
    }

    /// The name under which a node says that it is there.
    pub(crate) fn presence(node: NodeId) -> Self {
        Self(format!("{RESERVED}:node:{node}").into())
    }

    /// Whether it is one of the system's.
    pub(crate) fn is_reserved(&self) -> bool {
        self.0.strip_prefix(RESERVED).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    fn check(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(NameError::Unprintable(text.escape_debug().to_string()));
        }
        if text.split(':').any(str::is_empty) {
            return Err(NameError::EmptyField(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl TryFrom<Text> for Name {
    type Error = NameError;

    fn try_from(Text(text): Text) -> Result<Self, NameError> {
        Self::check(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

/// Why a piece of text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is longer than [`MAX_PATTERN`].
    #[error("the pattern has {0} bytes; at most {MAX_PATTERN} are allowed")]
    TooLong(usize),
    /// It is not a regular expression, or one that grows too large when compiled.
    #[error("`{text}` is not a usable pattern: {reason}")]
    Invalid {
        /// The pattern.
        text: String,
        /// What the compiler of regular expressions said.
        reason: String,
    },
}

/// A regular expression over whole names: `textures:worker:.*` does not match `my:textures:worker:1`.
/// None that can be made here matches a name of the system (first field `layercake`), not even `.*`.
///
/// Matching takes time linear in the length of the name, whatever the expression: the engine never
/// backtracks. One that is a plain name, or a plain beginning and `.*`, is compared as text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Pattern {
    text: Arc<str>,
    shape: Shape,
    /// Whether it is about the names of the system, and about no others.
    reserved: bool,
}

/// What decides about a name.
#[derive(Clone)]
enum Shape {
    /// One name.
    Exactly(Name),
    /// How it begins.
    Begins(Name),
    /// An expression; what it matches begins with one of these.
    Regex(Regex, Arc<[Name]>),
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError::TooLong(text.len()));
        }
        Self::compile(text)
    }

    /// Reads a pattern as it travels: also one of the system's, and one that means a name exactly, whose
    /// text may be longer than a user's, for at worst each character of the name is escaped.
    pub(crate) fn read(text: &str) -> Result<Self, PatternError> {
        if text.len() > 2 * MAX_NAME {
            return Err(PatternError::TooLong(text.len()));
        }
        match text.strip_prefix(RESERVED_MARK) {
            Some(inner) => Ok(Self { reserved: true, text: text.into(), ..Self::compile(inner)? }),
            None => Self::compile(text),
        }
    }

    fn compile(text: &str) -> Result<Self, PatternError> {
        let invalid = |reason| PatternError::Invalid { text: text.to_owned(), reason };
        // On its own first: `a)|(b` would slip out of the group that anchors it. And in there, where
        // the comment of `(?x)a#` would not end.
        let parse = |text: &str| regex_syntax::parse(text).map_err(|e| invalid(last_line(&e)));
        let (parsed, anchored) = (parse(text)?, format!("^(?:{text})$"));
        parse(&anchored)?;
        let shape = if let Some(name) = literal(&parsed) {
            Shape::Exactly(name)
        } else if let Some(start) = beginning(&parsed) {
            Shape::Begins(start)
        } else {
            let whole = RegexBuilder::new(&anchored)
                .size_limit(MAX_PATTERN_SIZE)
                .dfa_size_limit(MAX_PATTERN_SIZE)
                .build()
                .map_err(|error| {
                    invalid(match error {
                        regex::Error::CompiledTooBig(limit) => {
                            format!("it takes more than {limit} bytes when compiled")
                        }
                        other => last_line(&other),
                    })
                })?;
            Shape::Regex(whole, starts(&parsed))
        };
        Ok(Self { text: text.into(), shape, reserved: false })
    }

    /// The pattern that matches one name and nothing else.
    #[must_use]
    pub fn exactly(name: &Name) -> Self {
        // The text may be longer than a pattern may be, and is harmless all the same.
        let text = regex::escape(name.as_str());
        Self { text: text.into(), shape: Shape::Exactly(name.clone()), reserved: false }
    }

    /// The pattern that matches the presences of all nodes.
    pub(crate) fn presences() -> Self {
        let start = format!("{RESERVED}:node:");
        let text = format!("{RESERVED_MARK}{start}.*");
        Self { text: text.into(), shape: Shape::Begins(Name(start.into())), reserved: true }
    }

    /// Whether it is about the names of the system.
    pub(crate) const fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        self.reserved == name.is_reserved()
            && match &self.shape {
                Shape::Exactly(only) => only == name,
                Shape::Begins(start) => name.as_str().starts_with(start.as_str()),
                Shape::Regex(regex, _) => regex.is_match(name.as_str()),
            }
    }

    /// Whether it matches one name at most.
    pub(crate) const fn is_exact(&self) -> bool {
        matches!(self.shape, Shape::Exactly(_))
    }

    /// What every name that matches begins with: one of these, of which none begins with another.
    pub(crate) fn starts(&self) -> &[Name] {
        match &self.shape {
            Shape::Exactly(start) | Shape::Begins(start) => std::slice::from_ref(start),
            Shape::Regex(_, starts) => starts,
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The compiler draws a picture over several lines; its last one says what is wrong.
fn last_line(error: &impl fmt::Display) -> String {
    error.to_string().lines().last().unwrap_or_default().trim().to_owned()
}

/// The text, where an expression is nothing but text. (As a name it need not be a good one.)
fn literal(hir: &Hir) -> Option<Name> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            std::str::from_utf8(&literal.0).ok().map(|text| Name(text.into()))
        }
        _ => None,
    }
}

/// The text before `.*`, where an expression is nothing but that.
fn beginning(hir: &Hir) -> Option<Name> {
    let anything = |hir: &Hir| match hir.kind() {
        HirKind::Repetition(all) => {
            // Names have no line feeds.
            let any = [Hir::dot(Dot::AnyChar), Hir::dot(Dot::AnyCharExceptLF)];
            all.min == 0 && all.max.is_none() && any.contains(&all.sub)
        }
        _ => false,
    };
    match hir.kind() {
        HirKind::Repetition(_) if anything(hir) => Some(Name("".into())),
        HirKind::Concat(parts) => match &parts[..] {
            [start, rest] if anything(rest) => literal(start),
            _ => None,
        },
        _ => None,
    }
}

/// What all that an expression matches begins with; in the worst case with nothing.
fn starts(hir: &Hir) -> Arc<[Name]> {
    let literals = Extractor::new().limit_total(MAX_STARTS).extract(hir);
    let Some(literals) = literals.literals() else { return Arc::new([Name("".into())]) };
    let mut all: Vec<&str> = literals
        .iter()
        .map(|literal| {
            let bytes = literal.as_bytes();
            // It may have been cut within a character.
            let good = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
            std::str::from_utf8(&bytes[..good]).unwrap_or_default()
        })
        .collect();
    all.sort_unstable();
    let mut kept: Vec<&str> = Vec::new();
    for start in all {
        if kept.last().is_none_or(|last| !start.starts_with(last)) {
            kept.push(start);
        }
    }
    kept.into_iter().map(|start| Name(start.into())).collect()
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::new(&text)
    }
}

impl TryFrom<Text> for Pattern {
    type Error = PatternError;

    fn try_from(Text(text): Text) -> Result<Self, PatternError> {
        Self::read(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text.as_ref().to_owned()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}

/// How far a record is visible, and how far a subscription looks. Ordered from near to far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// This process.
    Process,
    /// The processes of one group of one host.
    Group,
    /// The processes of one host.
    Host,
    /// The hosts of the mesh.
    Lan,
}

/// The text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope: use process, group, host or lan")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        match text.to_ascii_lowercase().as_str() {
            "process" => Ok(Self::Process),
            "group" => Ok(Self::Group),
            "host" => Ok(Self::Host),
            "lan" => Ok(Self::Lan),
            _ => Err(ParseScopeError(text.to_owned())),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Process => "process",
            Self::Group => "group",
            Self::Host => "host",
            Self::Lan => "lan",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_fields_between_colons() {
        for good in ["worker", "textures:worker:7f3a", "a.b-c_d:größe"] {
            assert_eq!(Name::new(good).expect(good).as_str(), good);
        }
        for bad in ["", ":", "a:", ":a", "a::b", "a b", "a\n", "a\u{0}"] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(Name::new(&"x".repeat(255)).is_ok());
        assert_eq!(Name::new(&"x".repeat(256)), Err(NameError::TooLong(256)));
    }

    #[test]
    fn a_pattern_is_about_whole_names() {
        let pattern = Pattern::new("textures:worker:.*|spare").unwrap();
        let matches = |text: &str| pattern.matches(&Name::new(text).unwrap());
        assert!(matches("textures:worker:1") && matches("spare"));
        assert!(!matches("my:textures:worker:1") && !matches("spare:2") && !matches("textures"));
    }

    #[test]
    fn a_bad_pattern_is_refused_with_its_reason() {
        for bad in ["a)|(b", "(", "[", "*", "(?x)a#", &"x".repeat(257)] {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
        let text = Pattern::new(r"(\w{99}){99}").unwrap_err().to_string();
        assert!(text.contains("when compiled"), "{text}");
        let text = Pattern::new("a[").unwrap_err().to_string();
        assert!(text.contains("`a[`") && text.contains("unclosed"), "{text}");
    }

    #[test]
    fn one_name_is_matched_exactly() {
        let name = Name::new("a.b:c+").unwrap();
        assert!(Pattern::exactly(&name).matches(&name));
        assert!(!Pattern::exactly(&name).matches(&Name::new("axb:c+").unwrap()));
    }

    #[test]
    fn the_names_of_the_system_are_not_for_others() {
        let presence = Name::presence(NodeId::from_bits(0x7f3a));
        assert_eq!(presence.as_str(), "layercake:node:0000000000007f3a");
        for text in ["layercake", "layercake:node:1", presence.as_str()] {
            assert_eq!(Name::new(text), Err(NameError::Reserved(text.to_owned())));
            assert!(Name::try_from(text.to_owned()).is_err() && text.parse::<Name>().is_err());
        }
        assert!(Name::new("layercakes").is_ok() && Name::new("my:layercake:node").is_ok());
        for text in [".*", "layercake:.*", presence.as_str(), r"[^x]+", "(?s).*"] {
            assert!(!Pattern::new(text).unwrap().matches(&presence), "{text}");
        }
        assert!(!Pattern::exactly(&presence).matches(&presence));
        assert!(Pattern::presences().matches(&presence));
        assert!(!Pattern::presences().matches(&Name::new("worker").unwrap()));
        assert!(Pattern::new(Pattern::presences().as_str()).is_err(), "it cannot be typed");
    }

    #[test]
    fn the_names_of_the_system_travel() {
        let presence = Name::presence(NodeId::from_bits(7));
        let text = serde_json::to_string(&presence).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), presence);
        let text = serde_json::to_string(&Pattern::presences()).unwrap();
        let pattern: Pattern = serde_json::from_str(&text).unwrap();
        assert!(pattern.is_reserved() && pattern.matches(&presence));
        assert_eq!(pattern, Pattern::presences());
    }

    #[test]
    fn a_pattern_for_any_name_travels() {
        let name = Name::new(&format!("a{}:b", "-.".repeat(120))).unwrap();
        let pattern = Pattern::exactly(&name);
        assert!(pattern.as_str().len() > MAX_PATTERN);
        let text = serde_json::to_string(&pattern).unwrap();
        let read: Pattern = serde_json::from_str(&text).unwrap();
        assert!(read.is_exact() && read.matches(&name));
        assert!(Pattern::new(pattern.as_str()).is_err(), "a user's is shorter");
    }

    #[test]
    fn scopes_are_ordered_and_read_back() {
        let all = [Scope::Process, Scope::Group, Scope::Host, Scope::Lan];
        assert!(all.is_sorted());
        for scope in all {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        assert!("wan".parse::<Scope>().is_err());
    }
}
