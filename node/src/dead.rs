//! Dead letters: messages without an asker that could not be handled. Counted, sampled to the log, and
//! to be watched.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use layercake_wire::payload::Tag;
use tokio::sync::broadcast;

/// Dead letters that a watcher may be behind before it misses some.
pub const DEAD_LETTERS: usize = 256;

/// Why a message could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The actor had stopped, or stopped before it came to the message.
    Stopped,
    /// There is no such actor.
    NoActor,
    /// The actor has no handler for it.
    NotHandled,
    /// The actor does not take it in its present state; which message and state.
    Refused(String),
    /// It could not be decoded; what the decoder said.
    Malformed(String),
    /// It could not be handed on; why not.
    NotForwarded(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the actor stopped before it was handled"),
            Self::NoActor => f.write_str("there is no such actor"),
            Self::NotHandled => f.write_str("the actor has no handler for it"),
            Self::Refused(what) => write!(f, "it is not taken now: {what}"),
            Self::Malformed(reason) => f.write_str(reason),
            Self::NotForwarded(reason) => write!(f, "it could not be handed on: {reason}"),
        }
    }
}

/// A message that nobody waits for and that could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The name of the message in eight bytes.
    pub tag: Tag,
    /// The name, where this program has a type of it.
    pub name: Option<&'static str>,
    /// Why it was not handled.
    pub why: Why,
    /// How many there have been in this node, this one included.
    pub count: u64,
}

/// What a [`DeadLetters`] yields.
pub struct DeadLetters(broadcast::Receiver<DeadLetter>);

impl DeadLetters {
    /// The next dead letter. One that falls [`DEAD_LETTERS`] behind misses the oldest: `count` tells.
    ///
    /// # Cancel safety
    /// May be called again; nothing is lost.
    pub async fn next(&mut self) -> Option<DeadLetter> {
        loop {
            match self.0.recv().await {
                Ok(letter) => return Some(letter),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The dead-letter office of a node.
pub(crate) struct Office {
    count: AtomicU64,
    watchers: broadcast::Sender<DeadLetter>,
}

impl Office {
    pub(crate) fn new() -> Self {
        Self { count: AtomicU64::new(0), watchers: broadcast::Sender::new(DEAD_LETTERS) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self) -> DeadLetters {
        DeadLetters(self.watchers.subscribe())
    }

    pub(crate) fn take(&self, tag: Tag, name: Option<&'static str>, why: Why) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // The first ones one by one, then each power of two: a flood must not fill the log.
        if count < 16 || count.is_power_of_two() {
            let message = name.map_or_else(|| format!("{:016x}", tag.0), str::to_owned);
            tracing::warn!(count, message, %why, "dead letter");
        }
        if self.watchers.receiver_count() > 0 {
            let _ = self.watchers.send(DeadLetter { tag, name, why, count });
        }
    }
}
