//! From the texts of a query to JSON values, by the declared types.

use serde_json::{Number, Value};

use super::{keywords::Keywords, words::clip};

/// How many references and alternatives are followed to find out what a parameter may be.
pub(super) const MAX_HOPS: usize = 8;

/// The schema of a member of the message, if it declares it.
pub(super) fn member<'a>(root: &'a Value, name: &str) -> Option<&'a Value> {
    let mut schema = Keywords::of(root.as_object()?);
    for _ in 0..MAX_HOPS {
        let declared = schema.property(name);
        if declared.is_some() {
            return declared;
        }
        match schema.reference(root).and_then(Value::as_object) {
            Some(target) => schema = Keywords::of(target),
            None => break,
        }
    }
    schema.others
}

/// The value of a parameter that was given once or several times.
pub(super) fn value(root: &Value, schema: &Value, texts: &[&str]) -> Result<Value, String> {
    let kinds = Kinds::of(root, schema);
    match texts {
        [one] => single(root, &kinds, one),
        several if kinds.array => several.iter().map(|text| element(root, &kinds, text)).collect(),
        several => Err(format!("is given {} times", several.len())),
    }
}

fn single(root: &Value, kinds: &Kinds<'_>, text: &str) -> Result<Value, String> {
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
        return element(root, kinds, text).map(|element| vec![element].into());
    }
    Err(kinds.refuse(text))
}

/// One element of an array.
fn element(root: &Value, kinds: &Kinds<'_>, text: &str) -> Result<Value, String> {
    let items = kinds.items.map_or_else(Kinds::any, |items| Kinds::of(root, items));
    // Its elements are not arrays themselves, unless they are written as such.
    if items.array && !text.starts_with('[') {
        return Err(format!("`{}` is not a JSON array", clip(text)));
    }
    single(root, &items, text)
}

fn scalar(kinds: &Kinds<'_>, text: &str) -> Option<Value> {
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
#[derive(Default)]
struct Kinds<'a> {
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
    items: Option<&'a Value>,
}

impl<'a> Kinds<'a> {
    fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    fn of(root: &'a Value, schema: &'a Value) -> Self {
        let mut kinds = Self::default();
        kinds.add(root, schema, &mut 64, 0);
        kinds
    }

    /// `steps` bounds what a schema that refers to itself many times can cost.
    fn add(&mut self, root: &'a Value, schema: &'a Value, steps: &mut usize, depth: usize) {
        let Some(schema) = schema.as_object().filter(|_| depth < MAX_HOPS && *steps > 0) else {
            self.any = true;
            return;
        };
        *steps -= 1;
        let schema = Keywords::of(schema);
        self.items = self.items.or(schema.items);
        if let Some(types) = schema.types {
            self.types(types);
            return;
        }
        if let Some(values) = schema.values.and_then(Value::as_array) {
            values.iter().for_each(|value| self.value(value));
            return;
        }
        if let Some(value) = schema.only {
            self.value(value);
            return;
        }
        let mut said = false;
        for schema in schema.applied(root) {
            said = true;
            self.add(root, schema, steps, depth + 1);
        }
        self.any |= !said;
    }

    fn types(&mut self, types: &Value) {
        let several = types.as_array().map_or(std::slice::from_ref(types), |several| several);
        for name in several.iter().filter_map(Value::as_str) {
            match name {
                "null" => self.null = true,
                "boolean" => self.boolean = true,
                "integer" => self.integer = true,
                "number" => self.number = true,
                "string" => self.string = true,
                "array" => self.array = true,
                "object" => self.object = true,
                _ => self.any = true,
            }
        }
    }

    fn value(&mut self, value: &Value) {
        self.types(&super::type_of(value).into());
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
