//! The services that are published in the mesh: which names there are, with a pool of whoever offers
//! each, pushed as they come and go.
//!
//! A name that is withdrawn is gone at once. One whose last instance was lost is remembered for
//! [`MEMORY`], unavailable, since what died is mostly started again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use layercake_node::{
    AnyFeed, AnyPool, Api, Node, SubscribeError,
    directory::{DropReason, Event, Instance, Pattern, PatternError, Record, Scope, Subscription},
    service::{Call, Reply, Service, Stream},
};
use tokio::time::sleep_until;
use tokio_util::sync::{CancellationToken, DropGuard};

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

/// The services that are published, now and as that changes. Dropped, it follows no more.
pub struct Published {
    list: Arc<List>,
    _following: DropGuard,
}

/// What the gateway's threads see.
#[derive(Default)]
struct List {
    services: RwLock<Vec<Named>>,
    generation: AtomicU64,
}

impl Published {
    /// Begins to follow what is published, as a member of the mesh.
    ///
    /// # Errors
    /// [`FollowError`] says which pattern is wrong, or why there is no subscription.
    pub async fn follow(node: &Node, allowed: &Allowed) -> Result<Self, FollowError> {
        let except = allowed.except.as_deref().map(str::parse).transpose()?;
        let subscription = node.subscribe(&allowed.names, allowed.scope).await?;
        let stop = CancellationToken::new();
        let list = Arc::<List>::default();
        tokio::spawn(follow(node.clone(), subscription, except, list.clone(), stop.clone()));
        Ok(Self { list, _following: stop.drop_guard() })
    }
}

impl Services for Published {
    fn services(&self) -> Vec<Named> {
        self.list.services.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn generation(&self) -> Option<u64> {
        Some(self.list.generation.load(Ordering::Acquire))
    }
}

async fn follow(
    node: Node,
    mut subscription: Subscription,
    except: Option<Pattern>,
    list: Arc<List>,
    stop: CancellationToken,
) {
    let mut offers = Offers::default();
    loop {
        let expiry = offers.expiry();
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(expiry.unwrap_or_else(Instant::now).into()), if expiry.is_some() => {
                offers.forget(Instant::now())
            }
            event = subscription.next() => match event {
                Some(Event::Available(record) | Event::Dropped(record, _))
                    if except.as_ref().is_some_and(|no| no.matches(&record.name)) => continue,
                Some(event) => offers.event(event, Instant::now(), |name| node.pool_fed(name)),
                None => return,
            },
        };
        if changed {
            let services = offers.services();
            *list.services.write().unwrap_or_else(PoisonError::into_inner) = services;
            list.generation.fetch_add(1, Ordering::Release);
        }
    }
}

/// What is offered under each name.
#[derive(Default)]
struct Offers {
    by_name: BTreeMap<Arc<str>, Offer>,
    /// Whether it was said that there are too many.
    told: bool,
}

struct Offer {
    service: Arc<Offered>,
    feed: AnyFeed,
    instances: HashSet<Instance>,
    /// When the last instance was lost.
    lost: Option<Instant>,
}

impl Offers {
    /// Takes in an event, and says whether what is served has changed.
    fn event(
        &mut self,
        event: Event,
        now: Instant,
        make: impl FnOnce(&str) -> (AnyPool, AnyFeed),
    ) -> bool {
        match &event {
            Event::Available(record) => {
                let record = record.clone();
                if !is_service(&record) {
                    return false;
                }
                let is_new = !self.by_name.contains_key(record.name.as_str());
                if is_new && self.by_name.len() == MAX_NAMES {
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::warn!(name = %record.name, "not served: more than {MAX_NAMES} names");
                    }
                    return false;
                }
                let offer = self.by_name.entry(record.name.as_str().into()).or_insert_with(|| {
                    let (pool, feed) = make(record.name.as_str());
                    let service = Arc::new(Offered { pool, api: RwLock::default() });
                    Offer { service, feed, instances: HashSet::new(), lost: None }
                });
                offer.instances.insert(record.instance);
                offer.lost = None;
                offer.feed.event(event);
                offer.service.refresh() || is_new
            }
            Event::Dropped(record, reason) => {
                let (record, reason) = (record.clone(), *reason);
                let Some(offer) = self.by_name.get_mut(record.name.as_str()) else { return false };
                if !offer.instances.remove(&record.instance) {
                    return false;
                }
                offer.feed.event(event);
                if !offer.instances.is_empty() {
                    return offer.service.refresh();
                }
                if is_loss(reason) {
                    // Its API is remembered, too: a request is checked and told to come again.
                    offer.lost = Some(now);
                    return false;
                }
                self.by_name.remove(record.name.as_str()).is_some()
            }
        }
    }

    /// When the next name is to be forgotten.
    fn expiry(&self) -> Option<Instant> {
        self.by_name.values().filter_map(|offer| offer.lost).min().map(|lost| lost + MEMORY)
    }

    /// Forgets the names that were lost long enough ago, and says whether there were any.
    fn forget(&mut self, now: Instant) -> bool {
        let before = self.by_name.len();
        self.by_name.retain(|_, offer| offer.lost.is_none_or(|lost| now < lost + MEMORY));
        self.by_name.len() != before
    }

    fn services(&self) -> Vec<Named> {
        let named = |(name, offer): (&Arc<str>, &Offer)| Named {
            name: name.clone(),
            service: offer.service.clone(),
        };
        self.by_name.iter().map(named).collect()
    }
}

/// Whether what is published is an actor that answers messages.
fn is_service(record: &Record) -> bool {
    serde_json::from_slice::<Api>(&record.meta).is_ok_and(|api| !api.messages.is_empty())
}

/// Whether who is gone went without a word.
const fn is_loss(reason: DropReason) -> bool {
    matches!(reason, DropReason::ProcessDied | DropReason::HostLost | DropReason::LinkLost)
}

/// A pool that keeps in mind what it could answer when it had members.
struct Offered {
    pool: AnyPool,
    api: RwLock<Api>,
}

impl Offered {
    /// Takes over what the pool answers now, if anybody is there, and says whether it is new.
    fn refresh(&self) -> bool {
        let now = self.pool.api();
        let mut known = self.api.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = !now.messages.is_empty() && *known != now;
        if is_new {
            *known = now;
        }
        is_new
    }
}

impl Service for Offered {
    fn api(&self) -> Api {
        self.api.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_ready(&self) -> bool {
        self.pool.is_ready()
    }

    fn call(&self, call: Call) -> Reply<'_> {
        self.pool.call(call)
    }

    fn stream(&self, call: Call) -> Stream<'_> {
        self.pool.stream(call)
    }
}

#[cfg(test)]
mod tests;
