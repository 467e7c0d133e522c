//! Groups: the processes of one host that belong together, and see each other's names at
//! [`Scope::Group`](crate::Scope::Group).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The environment variable that names the group of a process. Child processes inherit it.
pub const GROUP_VARIABLE: &str = "LAYERCAKE_GROUP";
/// The longest name of a group, in bytes.
pub const MAX_GROUP: usize = 64;

/// Why a piece of text does not name a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Nothing is no name.
    #[error("a group needs a name: some letters or digits")]
    Empty,
    /// It is longer than [`MAX_GROUP`].
    #[error("the name of the group has {0} bytes; at most {MAX_GROUP} are allowed")]
    TooLong(usize),
    /// Groups are named like folders.
    #[error("`{0}` names no group: use letters, digits, `.`, `_` and `-`")]
    Characters(String),
    /// [`GROUP_VARIABLE`] is set to something that names no group.
    #[error("the environment variable {GROUP_VARIABLE} is of no use; correct or unset it")]
    Variable(#[source] Box<Self>),
}

/// The name of a group: up to 64 letters, digits, dots, dashes and underscores. Groups of
/// different hosts have nothing to do with each other, whatever their names. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Group(Arc<str>);

impl Group {
    /// Checks the name of a group.
    ///
    /// # Errors
    /// [`GroupError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, GroupError> {
        if text.is_empty() {
            return Err(GroupError::Empty);
        }
        if text.len() > MAX_GROUP {
            return Err(GroupError::TooLong(text.len()));
        }
        if !text.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)) {
            return Err(GroupError::Characters(text.escape_debug().to_string()));
        }
        Ok(Self(text.into()))
    }

    /// The group that [`GROUP_VARIABLE`] names; none where it is empty or not set.
    ///
    /// # Errors
    /// [`GroupError::Variable`] where it is set to something else.
    pub fn from_env() -> Result<Option<Self>, GroupError> {
        let Some(text) = std::env::var_os(GROUP_VARIABLE).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let group = Self::new(&text.to_string_lossy());
        group.map(Some).map_err(|error| GroupError::Variable(Box::new(error)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Group {
    type Error = GroupError;

    fn try_from(text: String) -> Result<Self, GroupError> {
        Self::new(&text)
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.0.as_ref().to_owned()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_like_a_folder() {
        for good in ["kitchen", "a.b-c_9", "Größe", &"x".repeat(64)] {
            assert_eq!(Group::new(good).expect(good).as_str(), good);
        }
        for bad in ["", "a b", "a:b", "a/b", "a\n", &"x".repeat(65)] {
            assert!(Group::new(bad).is_err(), "{bad:?}");
            assert!(Group::try_from(bad.to_owned()).is_err(), "also from a link");
        }
    }
}
