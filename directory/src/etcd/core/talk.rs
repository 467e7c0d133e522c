//! What is asked of etcd, and what it says, in our words.

use bytes::Bytes;

/// What to ask of etcd. Each is answered by one [`Said`], except for `Follow`, which says more and
/// more until it is `Broken` or another one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Reads everything and goes on from there, or goes on after a revision.
    Follow {
        turn: u64,
        after: Option<u64>,
    },
    /// A new lease of so many seconds.
    Grant(u64),
    /// The lease again in full length.
    KeepAlive(u64),
    /// The end of a lease, and of all that is under it.
    Revoke(u64),
    Write(Txn),
}

/// What etcd says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Part of what there is.
    Page {
        turn: u64,
        pairs: Vec<Pair>,
    },
    /// That was all there is, at this revision.
    Read {
        turn: u64,
        revision: u64,
    },
    /// From here on changes are told. Who says so, and how far that member is.
    Following {
        turn: u64,
        cluster: u64,
        revision: u64,
    },
    /// Changes, in etcd's order; all of one revision come together.
    Changed {
        turn: u64,
        events: Vec<Event>,
    },
    /// What was asked for is not known any more.
    Behind {
        turn: u64,
    },
    /// The connection has ended.
    Broken {
        turn: u64,
        why: String,
    },
    /// A lease, or `None` where it has expired.
    Lease(Result<Option<Granted>, Failure>),
    Written(Result<Outcome, Failure>),
    Revoked,
}

/// A lease and its whole length in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) lease: u64,
    pub(crate) seconds: u64,
}

/// Why a request was not carried out, or maybe was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The lease has expired.
    NoLease,
    Other(String),
}

/// A key as it stands in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) lease: u64,
}

/// A key was written or deleted. Of a deletion the pair has only the key and the revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) pair: Pair,
    pub(crate) deleted: bool,
}

/// A transaction: nothing at all unless the condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Txn {
    pub(crate) only_if: Condition,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) key: String,
    /// The revision at which it was written last; 0 where it must not exist.
    pub(crate) modified: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Left out where it does not hold; the answer is then how the key stands.
    pub(crate) only_if: Option<Condition>,
    pub(crate) change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put { key: String, value: Bytes, lease: u64 },
    Delete { key: String },
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) revision: u64,
    /// One for each step; `None` where the condition of the whole did not hold.
    pub(crate) steps: Option<Vec<Stepped>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// Whether anything is different now.
    Done(bool),
    LeftOut(Option<Pair>),
}
