//! From the texts of a query to JSON values, by the declared types.

use serde_json::{Number, Value};

use super::{
    keywords::{At, Schemas, Types},
    words::clip,
};

/// How many references and alternatives are followed to find out what a parameter may be.
pub(super) const MAX_HOPS: usize = 8;
/// How many schemas are looked at for that.
const MAX_LOOKS: usize = 64;

/// The schema of a member of the message, if it declares it.
pub(super) fn member(schemas: &Schemas, name: &str) -> Option<At> {
    let mut schema = schemas.keywords(Schemas::ROOT)?;
    for _ in 0..MAX_HOPS {
        let declared = schema.property(name);
        if declared.is_some() {
            return declared;
        }
        match schema.reference.and_then(|target| schemas.keywords(target)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema.others
}

/// The value of a parameter that was given once or, with `more`, several times.
pub(super) fn value(
    schemas: &Schemas,
    schema: At,
    first: &str,
    more: &[&str],
) -> Result<Value, String> {
    let kinds = Kinds::of(schemas, schema);
    if more.is_empty() {
        return single(schemas, kinds, first);
    }
    if kinds.array {
        let all = std::iter::once(first).chain(more.iter().copied());
        return all.map(|text| element(schemas, kinds, text)).collect();
    }
    Err(format!("is given {} times", 1 + more.len()))
}

fn single(schemas: &Schemas, kinds: Kinds, text: &str) -> Result<Value, String> {
    if kinds.null && (text == "null" || (text.is_empty() && !kinds.string)) {
        return Ok(Value::Null);
    }
    let structured =
        (kinds.array && text.starts_with('[')) || (kinds.object && text.starts_with('{'));
    if structured {
        return serde_json::from_str(text)
            .map_err(|error| format!("`{}` is not JSON: {error}", clip(text)));
    }
    if let Some(scalar) = scalar(kinds, text) {
        return Ok(scalar);
    }
    if kinds.any {
        return Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into()));
    }
    if kinds.string {
        return Ok(text.into());
    }
    if kinds.array {
        return element(schemas, kinds, text).map(|element| vec![element].into());
    }
    Err(kinds.refuse(text))
}

/// One element of an array.
fn element(schemas: &Schemas, kinds: Kinds, text: &str) -> Result<Value, String> {
    let items = kinds.items.map_or(Kinds::ANY, |items| Kinds::of(schemas, items));
    // Its elements are not arrays themselves, unless they are written as such.
    if items.array && !text.starts_with('[') {
        return Err(format!("`{}` is not a JSON array", clip(text)));
    }
    single(schemas, items, text)
}

fn scalar(kinds: Kinds, text: &str) -> Option<Value> {
    if kinds.integer || kinds.number {
        let whole = text.parse::<i64>().map(Number::from);
        let whole = whole.or_else(|_| text.parse::<u64>().map(Number::from));
        if let Ok(whole) = whole {
            return Some(Value::Number(whole));
        }
    }
    if kinds.number {
        // Neither infinite nor "nan": JSON has no such numbers.
        if let Some(number) = text.parse().ok().and_then(Number::from_f64) {
            return Some(Value::Number(number));
        }
    }
    match text {
        "true" if kinds.boolean => Some(true.into()),
        "false" if kinds.boolean => Some(false.into()),
        _ => None,
    }
}

/// Which types a schema takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kinds {
    null: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    string: bool,
    array: bool,
    object: bool,
    /// Nothing is said of it.
    any: bool,
    /// Of an array's elements.
    items: Option<At>,
}

impl Kinds {
    const ANY: Self = Self {
        null: false,
        boolean: false,
        integer: false,
        number: false,
        string: false,
        array: false,
        object: false,
        any: true,
        items: None,
    };

    fn of(schemas: &Schemas, schema: At) -> Self {
        let Some(keywords) = schemas.keywords(schema) else { return Self::ANY };
        *keywords.kinds.get_or_init(|| {
            let mut kinds = Self::default();
            kinds.add(schemas, schema, &mut { MAX_LOOKS }, 0);
            kinds
        })
    }

    /// `looks` bounds what a schema that refers to itself many times can cost.
    fn add(&mut self, schemas: &Schemas, schema: At, looks: &mut usize, depth: usize) {
        let within = depth < MAX_HOPS && *looks > 0;
        let Some(schema) = schemas.keywords(schema).filter(|_| within) else {
            self.any = true;
            return;
        };
        *looks -= 1;
        self.items = self.items.or(schema.items);
        if let Some(types) = &schema.types {
            self.types(types);
            return;
        }
        if let Some(values) = &schema.values {
            values.iter().for_each(|value| self.value(value));
            return;
        }
        if let Some(value) = &schema.only {
            self.value(value);
            return;
        }
        let mut said = false;
        for schema in schema.applied() {
            said = true;
            self.add(schemas, schema, looks, depth + 1);
        }
        self.any |= !said;
    }

    fn types(&mut self, types: &Types) {
        self.any |= types.has_unknown();
        for (is, name) in [
            (&mut self.null, "null"),
            (&mut self.boolean, "boolean"),
            (&mut self.integer, "integer"),
            (&mut self.number, "number"),
            (&mut self.string, "string"),
            (&mut self.array, "array"),
            (&mut self.object, "object"),
        ] {
            *is |= types.has(name);
        }
    }

    fn value(&mut self, value: &Value) {
        self.types(&Types::of(&super::type_of(value).into()));
    }

    fn refuse(&self, text: &str) -> String {
        let text = clip(text);
        let is_whole = |text: &str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let expected = match self {
            _ if self.integer && is_whole(&text) => return format!("`{text}` is out of range"),
            _ if self.number => "a number",
            _ if self.integer => "a whole number",
            _ if self.boolean => "true or false",
            _ if self.object => "a JSON object",
            _ => "what it should be",
        };
        format!("`{text}` is not {expected}")
    }
}
