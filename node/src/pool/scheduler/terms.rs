//! What goes into the scheduler and what comes out.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// One request. Tickets of one scheduler are never used twice; of two, the later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(super) number: u64,
    /// Where the scheduler keeps it.
    pub(super) slot: u32,
}

/// One worker, as its owner numbers it. A worker that comes back has a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub u64);

/// How urgent a request is. Of those that wait, more urgent ones start first; of ten starts, one goes to
/// the less urgent, so that these are slow and do not starve.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Priority {
    /// Before all others, as health checks and what a person waits for.
    High,
    /// The usual.
    #[default]
    Normal,
    /// What may take its time, as batches.
    Low,
}

impl Priority {
    pub(super) const COUNT: usize = 3;
}

/// What is asked of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// How urgent it is.
    pub priority: Priority,
    /// Who asks: callers that wait get workers in turn, whatever they ask for.
    pub caller: u64,
    /// Requests of one key go to the same worker while it is there and not overloaded.
    pub key: Option<u64>,
    /// Whether it was accepted before and comes again, because its worker was lost or refused it: it is
    /// not turned away as `Busy`, and goes to another worker than that one where there is one.
    pub again: Option<WorkerId>,
}

impl Request {
    /// An ordinary request of nobody in particular.
    #[must_use]
    pub fn by(deadline: Instant) -> Self {
        Self { deadline, priority: Priority::Normal, caller: 0, key: None, again: None }
    }
}

/// How far away a worker is. Near ones are preferred until they are about twice as slow.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Distance {
    /// In this process.
    #[default]
    Process,
    /// In another process of this host.
    Host,
    /// On another host.
    Lan,
}

impl Distance {
    pub(super) const COUNT: usize = 3;

    /// How much a worker's cost counts.
    pub(super) fn bias(self) -> f64 {
        match self {
            Self::Process => 1.0,
            Self::Host => 1.4,
            Self::Lan => 2.0,
        }
    }
}

/// What is known of a worker when it joins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerInfo {
    /// How far away it is.
    pub distance: Distance,
    /// What several pools call the same worker, and a restarted worker keeps where that is wanted: the
    /// worker of a key follows from it.
    pub identity: u64,
    /// How many requests it is given at a time at most, where that is not [`Config::concurrency`]
    /// (a worker that is a pool of its own takes more).
    ///
    /// [`Config::concurrency`]: super::Config::concurrency
    pub concurrency: Option<usize>,
}

/// What becomes of a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It starts at once, on this worker.
    Start(Ticket, WorkerId),
    /// It waits.
    Queued(Ticket),
    /// It is turned away.
    Rejected(Rejection),
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No worker is there, and none is expected.
    Unavailable,
    /// The answer would come too late: for the pool's responsiveness, or for the request's deadline.
    Busy {
        /// The response time to be expected.
        expected: Duration,
        /// When to come back.
        retry_after: Duration,
    },
    /// The queue is full.
    Overloaded {
        /// How many requests wait.
        pending: usize,
        /// When to come back.
        retry_after: Duration,
    },
}

/// How a started request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The worker answered.
    Answered,
    /// The worker, or the way to it, failed, or its answer says so.
    Failed,
    /// The worker would not take it now, as a pool does that is busy. It is spared for a moment.
    Refused,
    /// The deadline passed.
    TimedOut,
    /// Another worker, asked later, was faster.
    Outrun,
    /// The asker went away. Says nothing about the worker.
    Cancelled,
}

/// What becomes of requests that waited.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "those who wait are to be told"]
pub struct Moves {
    /// They start now.
    pub starts: Vec<(Ticket, WorkerId)>,
    /// They wait no more, and have not run; `None`: their deadline has passed.
    pub ends: Vec<(Ticket, Option<Rejection>)>,
}
