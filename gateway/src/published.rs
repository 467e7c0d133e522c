//! The services that are published in the mesh: which names there are, with a pool of whoever offers
//! each, pushed as they come and go.
//!
//! A name that is withdrawn is gone at once. One whose last instance was lost is remembered for
//! [`MEMORY`], unavailable, since what died is mostly started again.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use layercake_node::{
    AnyFeed, AnyPool, Api, Node, SubscribeError,
    directory::{DropReason, Event, Instance, NameError, Pattern, PatternError, Record, Scope},
    service::{Call, Reply, Service},
};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::services::{Named, Services};

/// How long a name is remembered whose last instance was lost: until then 503, then 404.
const MEMORY: Duration = Duration::from_secs(10);
/// The most names that one gateway serves. Further ones are not served, which is logged.
const MAX_NAMES: usize = 4_096;

/// Which names a gateway serves.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// A regular expression over whole names. Names of the system match none.
    pub names: String,
    /// One over names that are not served, though they match `names`.
    pub except: Option<String>,
    /// How far to look.
    pub scope: Scope,
}

impl Allowed {
    /// All names up to the scope.
    #[must_use]
    pub fn all(scope: Scope) -> Self {
        Self { names: ".*".to_owned(), except: None, scope }
    }
}

/// Why the services of the mesh cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// There is no subscription.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// What says which names are not served is no pattern.
    #[error("which names not to serve")]
    Except(#[from] PatternError),
}
