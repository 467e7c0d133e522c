//! The routing table: what is known of each message of the service, made anew when its API changes.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use layercake_node::{Api, MessageApi, check::Checker, service::Service};
use layercake_wire::payload::Tag;

/// How old the table may be before the service is asked for its API again.
const FRESH: Duration = Duration::from_millis(50);

/// Paths that belong to the gateway. A message of such a name is not served.
pub(crate) const RESERVED: [&str; 3] = ["healthz", "readyz", "metrics"];

/// A message that can be asked for.
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) tag: Tag,
    pub(crate) checker: Checker,
}

/// All messages of one API.
pub(crate) struct Table {
    api: Api,
    entries: HashMap<Arc<str>, Entry>,
    /// The document at `/`.
    pub(crate) index: Bytes,
}

impl Table {
    pub(crate) fn new(api: Api) -> Self {
        let mut entries = HashMap::new();
        for message in &api.messages {
            if RESERVED.contains(&message.name.as_str()) {
                tracing::warn!(
                    path = message.name,
                    "a message is not served: its path is the gateway's"
                );
                continue;
            }
            let name: Arc<str> = message.name.as_str().into();
            let checker = Checker::new(message);
            entries.insert(name.clone(), Entry { name, tag: message.tag(), checker });
        }
        let index = index(&api);
        Self { api, entries, index }
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it is the table of that API. Descriptions are shared, so that this mostly compares
    /// pointers.
    fn is_of(&self, api: &Api) -> bool {
        let same =
            |(one, two): (&Arc<MessageApi>, &Arc<MessageApi>)| Arc::ptr_eq(one, two) || one == two;
        self.api.actor == api.actor
            && self.api.messages.len() == api.messages.len()
            && self.api.messages.iter().zip(&api.messages).all(same)
    }
}

fn index(api: &Api) -> Bytes {
    let messages: Vec<_> = api
        .messages
        .iter()
        .filter(|m| !RESERVED.contains(&m.name.as_str()))
        .map(|m| {
            serde_json::json!({
                "name": m.name,
                "path": format!("/{}", m.name),
                "schema": m.schema,
                "reply_schema": m.reply_schema,
            })
        })
        .collect();
    let paths = RESERVED.map(|path| format!("/{path}"));
    let document = serde_json::json!({ "actor": api.actor, "messages": messages, "also": paths });
    document.to_string().into()
}

/// The current table of a service.
pub(crate) struct Catalogue {
    table: RwLock<Arc<Table>>,
    started: Instant,
    /// When the service was last asked, in milliseconds since `started`.
    asked: AtomicU64,
}

impl Catalogue {
    pub(crate) fn new(service: &dyn Service, now: Instant) -> Self {
        Self {
            table: RwLock::new(Arc::new(Table::new(service.api()))),
            started: now,
            asked: AtomicU64::new(0),
        }
    }

    /// The table as of at most [`FRESH`] ago.
    pub(crate) fn current(&self, service: &dyn Service, now: Instant) -> Arc<Table> {
        let now = now.saturating_duration_since(self.started).as_millis() as u64;
        let asked = self.asked.load(Ordering::Relaxed);
        // Of the requests that find it old, one does the work; the others go on with the old one.
        if now >= asked + FRESH.as_millis() as u64
            && self.asked.compare_exchange(asked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let api = service.api();
            let known = self.get();
            if known.is_of(&api) {
                return known;
            }
            let table = Arc::new(Table::new(api));
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
            return table;
        }
        self.get()
    }

    fn get(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
