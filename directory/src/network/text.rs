//! Identities and the like: text where people read, numbers between directories.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub(super) fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: fmt::Display + Serialize,
    S: Serializer,
{
    if serializer.is_human_readable() {
        serializer.collect_str(value)
    } else {
        value.serialize(serializer)
    }
}

pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display> + Deserialize<'de>,
    D: Deserializer<'de>,
{
    if deserializer.is_human_readable() {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    } else {
        T::deserialize(deserializer)
    }
}

/// The same of what may not be there.
pub(super) mod opt {
    use super::*;

    pub(in super::super) fn serialize<T, S>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error>
    where
        T: fmt::Display + Serialize,
        S: Serializer,
    {
        if serializer.is_human_readable() {
            value.as_ref().map(ToString::to_string).serialize(serializer)
        } else {
            value.serialize(serializer)
        }
    }

    pub(in super::super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display> + Deserialize<'de>,
        D: Deserializer<'de>,
    {
        if deserializer.is_human_readable() {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse()).transpose().map_err(D::Error::custom)
        } else {
            Option::deserialize(deserializer)
        }
    }
}
