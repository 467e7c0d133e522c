//! The routing table: what is known of each message of the services, made anew when they change.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use layercake_node::{
    Api, MessageApi,
    check::Checker,
    http::{HttpError, HttpReply, HttpRoute},
    service::Service,
};
use layercake_wire::payload::Tag;
use serde_json::Value;

use crate::{
    metrics::MessageMetrics,
    openapi::{Described, Operation},
    router::{Found, NoPlace, Router},
    services::{Named, Services},
};

/// How old the table may be before the services are asked for their APIs again.
const FRESH: Duration = Duration::from_millis(50);
/// How many paths one service may have. The rest is not served.
pub(crate) const MAX_ROUTES: usize = 4_096;
/// How many different warnings about paths are remembered as told.
const MAX_TOLD: usize = 4_096;

/// First segments of paths that belong to the gateway. What else would have them is not served.
pub(crate) const RESERVED: [&str; 6] =
    ["healthz", "readyz", "metrics", "openapi.json", "docs", "mesh"];

/// A message that can be asked for.
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<MessageMetrics>,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) api: Arc<MessageApi>,
    pub(crate) tag: Tag,
    pub(crate) checker: Checker,
    pub(crate) reply: HttpReply,
    pub(crate) fallible: bool,
    /// The errors that a fallible one may be answered with.
    pub(crate) errors: Vec<HttpError>,
    /// Whether it takes members that it does not declare.
    pub(crate) open: bool,
}

/// One way to reach it.
pub(crate) struct Endpoint {
    pub(crate) entry: Arc<Entry>,
    pub(crate) route: HttpRoute,
}

/// A service as the table has it.
struct Known {
    named: Named,
    api: Api,
}

/// All messages of all services.
#[derive(Default)]
pub(crate) struct Table {
    services: Vec<Known>,
    router: Router<Arc<Endpoint>>,
    /// How many messages there are.
    count: usize,
    /// What has a place in the tree, in order: whose it is, by its place among the services, and how it
    /// is reached.
    placed: Vec<(usize, Arc<Entry>, HttpRoute)>,
    /// What could not be served, and why.
    refused: Vec<String>,
    /// The document at `/openapi.json`, made when it is first asked for.
    described: OnceLock<Described>,
    /// The document at `/`.
    pub(crate) index: Bytes,
}

impl Table {
    pub(crate) fn new(services: Vec<Named>) -> Self {
        let services: Vec<_> =
            services.into_iter().map(|named| Known { api: named.service.api(), named }).collect();
        let mut table = Self { index: index(&services), services: Vec::new(), ..Self::default() };
        let apart = services.len() > 1;
        for (at, Known { named, api }) in services.iter().enumerate() {
            table.add(at, named, api, apart);
        }
        table.services = services;
        table
    }

    /// Adds a service, with its name before the names of its messages where it has one, and without
    /// where nobody was earlier.
    fn add(&mut self, at: usize, named: &Named, api: &Api, apart: bool) {
        let mut left = MAX_ROUTES;
        for message in &api.messages {
            let name: Arc<str> = message.name.as_str().into();
            let entry = Arc::new(Entry {
                metrics: MessageMetrics::new(name.clone()),
                name,
                service: named.service.clone(),
                tag: message.tag(),
                checker: Checker::new(message),
                reply: message.http_reply(),
                fallible: message.is_fallible(),
                errors: message.http_errors(),
                open: message.schema.get("additionalProperties").is_some_and(|o| *o != false),
                api: message.clone(),
            });
            self.count += 1;
            let mut routes = message.routes("");
            let by_name = format!("/{}", named.name);
            if !named.name.is_empty() {
                routes.extend(message.routes(&by_name).into_iter().filter(|route| route.rpc));
            }
            for route in routes {
                let Some(rest) = left.checked_sub(1) else {
                    self.refused.push(format!("`{}` has more than {MAX_ROUTES} paths", named.name));
                    return;
                };
                left = rest;
                // That another has the short path is what the long one is for.
                let quiet = apart && route.rpc;
                self.place(at, entry.clone(), route, quiet, &named.name);
            }
        }
    }

    fn place(
        &mut self,
        at: usize,
        entry: Arc<Entry>,
        route: HttpRoute,
        quiet: bool,
        service: &str,
    ) {
        let first = route.template.split('/').nth(1).unwrap_or_default();
        let (method, template) = (route.method.clone(), route.template.clone());
        let refused = if RESERVED.contains(&first) {
            Some("the path is the gateway's")
        } else {
            match Method::from_bytes(method.as_bytes()) {
                Err(_) => Some("it is no method"),
                Ok(parsed) => {
                    let placed = (at, entry.clone(), route.clone());
                    match self.router.insert(parsed, &template, Arc::new(Endpoint { entry, route }))
                    {
                        Ok(()) => {
                            self.placed.push(placed);
                            None
                        }
                        Err(NoPlace::Malformed) => Some("it is no path template"),
                        Err(NoPlace::Taken) if quiet => None,
                        Err(NoPlace::Taken) => Some("an earlier message has this path"),
                    }
                }
            }
        };
        if let Some(why) = refused {
            self.refused.push(format!("{method} {template} of `{service}` is not served: {why}"));
        }
    }

    /// What stands at a path.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_, Arc<Endpoint>> {
        self.router.find(method, path)
    }

    /// The document at `/openapi.json`.
    pub(crate) fn described(&self) -> &Described {
        self.described.get_or_init(|| Described::new(&self.operations()))
    }

    /// What is served, each message by its shortest path and by the forms that it declares.
    fn operations(&self) -> Vec<Operation<'_>> {
        let is_short = |entry: &Entry, route: &HttpRoute| route.template[1..] == *entry.name;
        let short: HashSet<_> = self
            .placed
            .iter()
            .filter(|(_, entry, route)| route.rpc && is_short(entry, route))
            .map(|(_, entry, route)| (Arc::as_ptr(entry), route.method.as_str()))
            .collect();
        let is_shortest = |entry: &Arc<Entry>, route: &HttpRoute| {
            is_short(entry, route) || !short.contains(&(Arc::as_ptr(entry), route.method.as_str()))
        };
        self.placed
            .iter()
            .filter(|(_, entry, route)| !route.rpc || is_shortest(entry, route))
            .map(|(at, entry, route)| {
                let Known { named, api } = &self.services[*at];
                Operation { service: &named.name, actor: &api.actor, api: &entry.api, route }
            })
            .collect()
    }

    /// Whether there are services of which nothing is known yet, since nobody is there.
    pub(crate) fn is_blind(&self) -> bool {
        self.count == 0 && !self.services.is_empty() && !self.is_ready()
    }

    /// Whether a request has a chance of being answered.
    pub(crate) fn is_ready(&self) -> bool {
        self.services.iter().any(|known| known.named.service.is_ready())
    }

    /// Whether it is the table of those services. Descriptions are shared, so that this mostly compares
    /// pointers.
    fn is_of(&self, services: &[Named]) -> bool {
        let same =
            |(one, two): (&Arc<MessageApi>, &Arc<MessageApi>)| Arc::ptr_eq(one, two) || one == two;
        self.services.len() == services.len()
            && self.services.iter().zip(services).all(|(known, now)| {
                if known.named.name != now.name || !Arc::ptr_eq(&known.named.service, &now.service)
                {
                    return false;
                }
                let api = now.service.api();
                known.api.actor == api.actor
                    && known.api.messages.len() == api.messages.len()
                    && known.api.messages.iter().zip(&api.messages).all(same)
            })
    }
}

fn index(services: &[Known]) -> Bytes {
    let messages = |known: &Known| -> Vec<Value> {
        let served = known.api.messages.iter().filter(|m| !RESERVED.contains(&m.name.as_str()));
        let told = served.map(|m| {
            let forms: Vec<_> = m.http.routes.iter().map(|(m, t)| format!("{m} {t}")).collect();
            serde_json::json!({
                "name": m.name,
                "path": format!("/{}", m.name),
                "forms": forms,
                "schema": m.schema,
                "reply_schema": m.reply_schema,
            })
        });
        told.collect()
    };
    let paths = RESERVED.map(|path| format!("/{path}"));
    let document = match services {
        [only] => {
            serde_json::json!({ "actor": only.api.actor, "messages": messages(only), "also": paths })
        }
        several => {
            let told = several.iter().map(|known| {
                let (name, actor) = (&*known.named.name, &known.api.actor);
                serde_json::json!({ "name": name, "actor": actor, "messages": messages(known) })
            });
            serde_json::json!({ "services": told.collect::<Vec<_>>(), "also": paths })
        }
    };
    document.to_string().into()
}

/// The current table of the services.
pub(crate) struct Catalogue {
    table: RwLock<Arc<Table>>,
    started: Instant,
    /// Of which generation the table is; without one, when the services were last asked, in
    /// milliseconds since `started`.
    mark: AtomicU64,
    /// Held by who makes a table.
    renewing: Mutex<()>,
    /// What was said about paths that are not served, so that it is said once.
    told: Mutex<HashSet<String>>,
}

impl Catalogue {
    pub(crate) fn new(services: &dyn Services, now: Instant) -> Self {
        let this = Self {
            table: RwLock::default(),
            started: now,
            mark: AtomicU64::new(services.generation().unwrap_or_default()),
            renewing: Mutex::default(),
            told: Mutex::default(),
        };
        this.renew(services.services());
        this
    }

    /// The table as of now, where the services say when they change; otherwise of at most [`FRESH`] ago.
    pub(crate) fn current(&self, services: &dyn Services, now: Instant) -> Arc<Table> {
        let (mark, is_old) = match services.generation() {
            Some(generation) => (generation, generation != self.mark.load(Ordering::Acquire)),
            None => {
                let now = now.saturating_duration_since(self.started).as_millis() as u64;
                let asked = self.mark.load(Ordering::Relaxed);
                (now, now >= asked + FRESH.as_millis() as u64)
            }
        };
        // Of the requests that find it old, one does the work; the others go on with the old one.
        if is_old && let Ok(_busy) = self.renewing.try_lock() {
            let (services, known) = (services.services(), self.get());
            let table = if known.is_of(&services) { known } else { self.renew(services) };
            self.mark.store(mark, Ordering::Release);
            return table;
        }
        self.get()
    }

    fn renew(&self, services: Vec<Named>) -> Arc<Table> {
        let table = Arc::new(Table::new(services));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for text in &table.refused {
            if told.len() < MAX_TOLD && told.insert(text.clone()) {
                tracing::warn!("{text}");
            }
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }

    fn get(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
