//! How an actor ended: what its parent, its watchers and its supervisor are told.

use std::{any::Any, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an actor ended. Told to whoever watches it, on any node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum Exit {
    /// It has done what it was for, and perhaps left a value to whoever joined it.
    Finished,
    /// It was asked to stop, and did.
    Stopped,
    /// A handler panicked.
    Panicked(String),
    /// It gave up with a reason; a supervisor also when its children failed too often.
    Failed(String),
    /// It did not end within its grace, and was ended in the middle of a message.
    Aborted,
    /// Its process ended without a word: killed, crashed, out of memory.
    ProcessDied(String),
    /// The host of its process is not to be reached any more.
    HostLost,
    /// Only the connection was lost: it may live on.
    LinkLost(String),
    /// There was no such actor when it was asked for: it ended before, or never was.
    Unknown,
}

impl Exit {
    /// Whether the end is none that somebody wanted: what a supervisor mends, and a link passes on.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Finished | Self::Stopped)
    }

    /// What a caught panic says.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "with a value that is no text".to_owned()))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Stopped => f.write_str("stopped"),
            Self::Panicked(reason) => write!(f, "panicked: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Aborted => f.write_str("aborted after its grace"),
            Self::ProcessDied(reason) if reason.is_empty() => f.write_str("its process died"),
            Self::ProcessDied(reason) => write!(f, "its process died: {reason}"),
            Self::HostLost => f.write_str("its host was lost"),
            Self::LinkLost(reason) => write!(f, "the link to it was lost: {reason}"),
            Self::Unknown => f.write_str("it had ended before"),
        }
    }
}
