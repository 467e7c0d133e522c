//! What happens to every request as it comes in and goes out, whatever it asks for: who it is from, whether
//! it may come in now, and what is remembered of it.

mod admission;
mod client;
mod log;
mod rate;
mod trace;
pub(crate) mod web;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Response, Uri, Version, header, request::Parts};
use hyper::body::Body;
use layercake_node::{Priority, Traced, service::Call, traced};
use layercake_wire::trace::Trace;

pub(crate) use self::admission::Ended;
use self::{
    admission::{Admission, Settings, Shed, Ticket},
    client::{Client, Clients},
    log::{Line, MAX_PATH, Writer},
    rate::Rates,
};
pub use self::{
    client::{Cidr, NoCidr},
    log::AccessLog,
    rate::Rate,
    web::{NoWebOrigin, WebOrigin},
};
use crate::{
    config::GatewayConfig,
    metrics::{MessageMetrics, Metrics, Observation},
    problem::{Kind, Problem},
};

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The other end of the connection, or who a proxy says that it is.
    pub(crate) client: SocketAddr,
}

/// What decides on requests, of all connections together.
pub(crate) struct Door {
    clients: Clients,
    admission: Mutex<Admission>,
    rate: Option<Rate>,
    key_rates: HashMap<u64, Rate>,
    rates: Mutex<Rates>,
    priorities: Vec<(String, Priority)>,
    log: Option<Writer>,
}

impl Door {
    /// Fails where the file of the access log cannot be opened.
    pub(crate) fn new(
        config: &GatewayConfig,
        metrics: &Metrics,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let clients = Clients::new(config.proxies.clone(), config.client_header.clone());
        let settings = Settings { most: config.max_in_flight, waiting: config.waiting };
        let log = config.access_log.as_ref();
        let log = log.map(|log| Writer::open(log, metrics.log_dropped.clone())).transpose()?;
        let key_rates = config.key_rates.iter();
        Ok(Self {
            admission: Mutex::new(Admission::new(settings, Instant::now())),
            rate: config.rate,
            key_rates: key_rates.map(|(key, rate)| (clients.key(key.as_bytes()), *rate)).collect(),
            rates: Mutex::default(),
            priorities: config.priorities.clone(),
            clients,
            log,
        })
    }

    /// A request has come.
    pub(crate) fn visit<'d>(
        &'d self,
        metrics: &'d Metrics,
        head: &Parts,
        origin: Origin,
        now: Instant,
    ) -> Visit<'d> {
        let path = head.uri.path();
        let priority = self.priorities.iter().find(|(prefix, _)| path.starts_with(prefix));
        let logged = self.log.is_some();
        Visit {
            door: self,
            observation: metrics.begin(&head.method, now),
            client: self.clients.of(origin.client, &head.headers),
            // One that nobody has begun and nobody writes down would be carried along for nothing.
            trace: trace::of(&head.headers).or_else(|| logged.then(Trace::begin)),
            priority: priority.map_or_else(Priority::default, |(_, priority)| *priority),
            version: head.version,
            head: logged.then(|| (jiff::Timestamp::now(), head.method.clone(), head.uri.clone())),
            bytes: None,
        }
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rate of a client; one with a rate of its own is known by its key.
    fn rate_of(&self, client: &Client) -> Option<Rate> {
        self.key_rates.get(&client.key).copied().or(self.rate)
    }
}

/// A request, from its head to the head of its answer. Dropped, it is counted and logged.
pub(crate) struct Visit<'d> {
    door: &'d Door,
    observation: Observation<'d>,
    client: Client,
    trace: Option<Trace>,
    priority: Priority,
    version: Version,
    /// What the access log says of it, where there is one.
    head: Option<(jiff::Timestamp, Method, Uri)>,
    bytes: Option<u64>,
}

impl<'d> Visit<'d> {
    /// The request is for that message.
    pub(crate) fn of_message(&mut self, counted: &Arc<MessageMetrics>) {
        self.observation.of_message(counted);
    }

    /// Says in a call who asks, and how much it matters.
    pub(crate) fn mark(&self, call: Call) -> Call {
        Call { caller: Some(self.client.key), priority: self.priority, ..call }
    }

    /// Makes what is asked on behalf of the request part of its trace, if it has one.
    pub(crate) fn traced<F: Future>(&self, work: F) -> Traced<F> {
        traced(self.trace, work)
    }

    /// Whether the request would be let in, before any of its body is read: one that would not is refused
    /// while that costs next to nothing.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Problem> {
        let metrics = self.observation.metrics();
        if let Some(rate) = self.door.rate_of(&self.client) {
            let mut rates = self.door.rates.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(wait) = rates.take(self.client.key, rate, now) {
                metrics.shed("rate");
                return Err(too_many(wait));
            }
        }
        let weight = weight(self.priority);
        self.door.admission().check(self.client.key, weight, now).map_err(|shed| {
            metrics.shed("concurrency");
            overloaded(shed)
        })
    }

    /// Lets the request in, to the service; it counts until the result is dropped or
    /// [ended](Admitted::ended).
    pub(crate) fn enter(&self) -> Result<Admitted<'d>, Problem> {
        let (metrics, now) = (self.observation.metrics(), Instant::now());
        let mut admission = self.door.admission();
        let entered = admission.enter(self.client.key, weight(self.priority), now);
        metrics.concurrency_limit.set(admission.limit() as i64);
        drop(admission);
        let ticket = entered.map_err(|shed| {
            metrics.shed("concurrency");
            overloaded(shed)
        })?;
        let kind = self.observation.message().clone();
        Ok(Admitted { door: self.door, ticket: Some(ticket), kind })
    }

    /// The request is answered. On a connection that is about to end, HTTP/1.1 says so.
    pub(crate) fn answered<B: Body>(&mut self, answer: &mut Response<B>, last: bool) {
        self.observation.answered(answer.status());
        self.bytes = answer.body().size_hint().exact();
        if last && self.version <= Version::HTTP_11 {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let (Some(log), Some((time, method, uri))) = (&self.door.log, &self.head) else { return };
        let path = uri.path();
        // A path of a request is ASCII.
        let path = path.get(..MAX_PATH).unwrap_or(path);
        let message = self.observation.message();
        log.write(&Line {
            time: *time,
            client: self.client.ip,
            method: method.as_str(),
            path,
            protocol: protocol(self.version),
            message: (&**message != "-").then_some(message),
            status: self.observation.status(),
            bytes: self.bytes,
            ms: (self.observation.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            trace: &self.trace.map_or_else(String::new, |trace| format!("{:032x}", trace.id)),
        });
    }
}

/// The part of the requests under way up to which one of a priority is let in.
const fn weight(priority: Priority) -> f64 {
    match priority {
        Priority::Low => 0.75,
        Priority::Normal => 1.0,
        Priority::High => 1.25,
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// A request that the service works on. Dropped, it was given up.
pub(crate) struct Admitted<'d> {
    door: &'d Door,
    ticket: Option<Ticket>,
    kind: Arc<str>,
}

impl Admitted<'_> {
    /// The service is done with it.
    pub(crate) fn ended(mut self, how: Ended) {
        self.leave(how);
    }

    fn leave(&mut self, how: Ended) {
        if let Some(ticket) = self.ticket.take() {
            self.door.admission().leave(ticket, &self.kind, how, Instant::now());
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.leave(Ended::GivenUp);
    }
}

fn overloaded(shed: Shed) -> Problem {
    let mut problem = Problem::new(Kind::Overloaded, "as many requests are under way as can be");
    problem.retry_after = Some(shed.retry_after);
    problem
}

fn too_many(wait: Duration) -> Problem {
    let mut problem = Problem::new(Kind::TooManyRequests, "this client sends more than it may");
    problem.retry_after = Some(wait);
    problem
}
