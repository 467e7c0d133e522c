//! The keywords of a schema that are known here, found in one pass over it: looking each of them up would
//! cost a hash for each, which is most of a check.

use serde_json::{Map, Value};

macro_rules! keywords {
    ($($name:literal => $field:ident,)*) => {
        #[derive(Default)]
        pub(super) struct Keywords<'a> {
            $(pub(super) $field: Option<&'a Value>,)*
        }

        impl<'a> Keywords<'a> {
            pub(super) fn of(schema: &'a Map<String, Value>) -> Self {
                let mut found = Self::default();
                for (name, value) in schema {
                    match name.as_str() {
                        $($name => found.$field = Some(value),)*
                        _ => {}
                    }
                }
                found
            }
        }
    };
}

keywords! {
    "type" => types,
    "enum" => values,
    "const" => only,
    "minimum" => least,
    "maximum" => most,
    "exclusiveMinimum" => more_than,
    "exclusiveMaximum" => less_than,
    "minLength" => least_length,
    "maxLength" => most_length,
    "minItems" => least_items,
    "maxItems" => most_items,
    "prefixItems" => first_items,
    "items" => items,
    "required" => required,
    "properties" => properties,
    "additionalProperties" => others,
    "patternProperties" => patterns,
    "$ref" => reference,
    "allOf" => all_of,
    "anyOf" => any_of,
    "oneOf" => one_of,
}

impl<'a> Keywords<'a> {
    /// The schemas of `allOf`.
    pub(super) fn all_of(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        elements(self.all_of)
    }

    /// The schemas that apply to the same value, or may.
    pub(super) fn applied(&self, root: &'a Value) -> impl Iterator<Item = &'a Value> + use<'a> {
        let listed = [self.all_of, self.any_of, self.one_of].into_iter().flat_map(elements);
        listed.chain(self.reference(root))
    }

    /// The target of `$ref`, if it leads somewhere.
    pub(super) fn reference(&self, root: &'a Value) -> Option<&'a Value> {
        crate::schema::resolve(root, self.reference?.as_str()?)
    }

    /// The schema of a member that is declared by its name.
    pub(super) fn property(&self, name: &str) -> Option<&'a Value> {
        self.properties?.as_object()?.get(name)
    }

    /// The names that are declared.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let declared = self.properties.and_then(Value::as_object);
        declared.into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// The schema of a member by the pattern of its name: of patterns, only the two that are written for
    /// whole numbers are known. What another pattern would say is not checked.
    pub(super) fn by_pattern(&self, name: &str) -> Option<&'a Value> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        self.patterns?.as_object()?.iter().find_map(|(pattern, schema)| {
            let fits = match pattern.as_str() {
                r"^\d+$" => digits(name),
                r"^-?\d+$" => digits(name.strip_prefix('-').unwrap_or(name)),
                _ => return Some(&Value::Bool(true)),
            };
            fits.then_some(schema)
        })
    }
}

fn elements(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}
