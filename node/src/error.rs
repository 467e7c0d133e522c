//! Why a message was not answered, or not taken.

use std::time::Duration;

use layercake_wire::{Failure, FailureCode, id::ActorAddr};

/// Why an ask has no reply.
///
/// [`may_have_run`](Self::may_have_run) says whether the handler may have seen the message,
/// [`is_retryable`](Self::is_retryable) whether the same ask may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No worker is there. Not run; try again after a while.
    #[error("no worker is available")]
    Unavailable,
    /// The pool answers too slowly and lets only a share through. Not run; try again later.
    #[error("the pool is busy (mean response time {}ms)", .mean.as_millis())]
    Busy {
        /// The mean response time of late.
        mean: Duration,
        /// When to try again.
        retry_after: Duration,
    },
    /// The queue of the pool is full. Not run; try again later.
    #[error("the pool is overloaded ({pending} requests pending)")]
    Overloaded {
        /// The length of the queue.
        pending: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// The actor has ended, or its process has. Not run. An address never comes back to life: find
    /// the name again.
    #[error("{to} has stopped")]
    Stopped {
        /// Who was asked.
        to: ActorAddr,
    },
    /// No connection to the node could be made, or it ended before the message was begun. Not run.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// Who was asked.
        to: ActorAddr,
        /// What each attempt ended with.
        reason: String,
    },
    /// The link went away, or the actor ended, with the message in flight: it may have run.
    #[error("{to} was lost with the request in flight: {reason}")]
    Lost {
        /// Who was asked.
        to: ActorAddr,
        /// What happened.
        reason: String,
    },
    /// The deadline passed. It may have run.
    #[error("no answer within the deadline")]
    Deadline,
    /// The actor has no handler for the message. Not run; a fault of the program.
    #[error("{to} does not handle the message `{message}`")]
    NotHandled {
        /// Who was asked.
        to: ActorAddr,
        /// The name of the message, or its tag.
        message: String,
    },
    /// The actor does not take the message in its present state. Not run; it may later.
    #[error("{to} does not take {what}")]
    NotNow {
        /// Who was asked.
        to: ActorAddr,
        /// Which message, and in which state.
        what: String,
    },
    /// The receiver could not decode the message. Not run; sender and receiver differ in the type.
    #[error("the message was not understood: {reason}")]
    Malformed {
        /// What its decoder said.
        reason: String,
    },
    /// The handler panicked. It has run, at least in part.
    #[error("the handler panicked")]
    Panicked,
    /// The handler ended without a reply. It has run.
    #[error("the handler gave no reply")]
    NoReply,
    /// The message cannot be encoded, or is larger than a message may be. Not run.
    #[error("the message cannot be sent: {reason}")]
    Unsendable {
        /// What the encoder said.
        reason: String,
    },
    /// The reply cannot be encoded or decoded. It has run.
    #[error("the reply was not understood: {reason}")]
    BadReply {
        /// What the codec said.
        reason: String,
    },
    /// The address was decoded outside of any node. Not run; bind it with `Node::bind`.
    #[error("the address of {to} belongs to no node here: use Node::bind first")]
    Unbound {
        /// Whose address.
        to: ActorAddr,
    },
}

impl AskError {
    /// Whether the handler may have seen the message.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Lost { .. }
            | Self::Deadline
            | Self::Panicked
            | Self::NoReply
            | Self::BadReply { .. } => true,
            Self::Unavailable
            | Self::Busy { .. }
            | Self::Overloaded { .. }
            | Self::Stopped { .. }
            | Self::Unreachable { .. }
            | Self::NotHandled { .. }
            | Self::NotNow { .. }
            | Self::Malformed { .. }
            | Self::Unsendable { .. }
            | Self::Unbound { .. } => false,
        }
    }

    /// Whether the same ask may succeed later without a change to the program.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Busy { .. }
                | Self::Overloaded { .. }
                | Self::Unreachable { .. }
                | Self::NotNow { .. }
                | Self::Lost { .. }
                | Self::Deadline
        )
    }

    /// How long to wait before another try, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } | Self::Overloaded { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Unavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl AskError {
    /// What a failure means to the one who asked.
    pub(crate) fn from_failure(to: impl FnOnce() -> ActorAddr, failure: Failure) -> Self {
        let Failure { code, retry_after_ms, detail } = failure;
        let retry_after = Duration::from_millis(retry_after_ms.into());
        match code {
            FailureCode::Stopped => Self::Stopped { to: to() },
            FailureCode::NotHandled => Self::NotHandled { to: to(), message: detail },
            FailureCode::Malformed => Self::Malformed { reason: detail },
            FailureCode::NotNow => Self::NotNow { to: to(), what: detail },
            FailureCode::Panicked => Self::Panicked,
            FailureCode::NoReply => Self::NoReply,
            FailureCode::Deadline => Self::Deadline,
            FailureCode::Busy => Self::Busy { mean: retry_after, retry_after },
            FailureCode::Overloaded => {
                Self::Overloaded { pending: detail.parse().unwrap_or(0), retry_after }
            }
            FailureCode::Unavailable => Self::Unavailable,
            FailureCode::Unreachable => Self::Unreachable { to: to(), reason: detail },
            FailureCode::BadReply => Self::BadReply { reason: detail },
            // A kind of a later version: nothing may be promised.
            _ => Self::Lost { to: to(), reason: detail },
        }
    }

    /// What this error is on the wire.
    pub(crate) fn into_failure(self) -> Failure {
        let millis = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        let retry_after_ms = self.retry_after().map_or(0, millis);
        let (code, detail) = match self {
            Self::Unavailable => (FailureCode::Unavailable, String::new()),
            Self::Busy { .. } => (FailureCode::Busy, String::new()),
            Self::Overloaded { pending, .. } => (FailureCode::Overloaded, pending.to_string()),
            Self::Stopped { .. } => (FailureCode::Stopped, String::new()),
            Self::Unreachable { reason, .. } => (FailureCode::Unreachable, reason),
            Self::Lost { reason, .. } => (FailureCode::Lost, reason),
            Self::Deadline => (FailureCode::Deadline, String::new()),
            Self::NotHandled { message, .. } => (FailureCode::NotHandled, message),
            Self::NotNow { what, .. } => (FailureCode::NotNow, what),
            Self::Malformed { reason } | Self::Unsendable { reason } => {
                (FailureCode::Malformed, reason)
            }
            Self::Panicked => (FailureCode::Panicked, String::new()),
            Self::NoReply => (FailureCode::NoReply, String::new()),
            Self::BadReply { reason } => (FailureCode::BadReply, reason),
            Self::Unbound { to } => (FailureCode::Unreachable, Self::Unbound { to }.to_string()),
        };
        Failure { code, retry_after_ms, detail }
    }
}

/// Why a message was not accepted. It comes back in every variant.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TellError<M> {
    /// The mailbox is at its limit. See `docs/limits.md`.
    #[error("the mailbox of {to} is full")]
    Full {
        /// Whose mailbox.
        to: ActorAddr,
        /// The message.
        message: M,
    },
    /// The actor has ended. An address never comes back to life: find the name again.
    #[error("{to} has stopped")]
    Stopped {
        /// Who was told.
        to: ActorAddr,
        /// The message.
        message: M,
    },
    /// No connection to the node could be made.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// Who was told.
        to: ActorAddr,
        /// What each attempt ended with.
        reason: String,
        /// The message.
        message: M,
    },
    /// The message cannot be encoded, or the actor does not handle it.
    #[error("the message cannot be sent to {to}: {reason}")]
    Unsendable {
        /// Who was told.
        to: ActorAddr,
        /// What the encoder said.
        reason: String,
        /// The message.
        message: M,
    },
}

impl<M> TellError<M> {
    /// The message that was not accepted.
    pub fn into_message(self) -> M {
        match self {
            Self::Full { message, .. }
            | Self::Stopped { message, .. }
            | Self::Unreachable { message, .. }
            | Self::Unsendable { message, .. } => message,
        }
    }
}

// By hand, so that `M` need not be `Debug`, and because a payload may be secret.
impl<M> std::fmt::Debug for TellError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full { .. } => "Full",
            Self::Stopped { .. } => "Stopped",
            Self::Unreachable { .. } => "Unreachable",
            Self::Unsendable { .. } => "Unsendable",
        })
    }
}
