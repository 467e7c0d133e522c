//! One request, from its head to its answer.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use layercake_node::{AskError, Node};
use tokio_util::sync::CancellationToken;

use crate::{
    answer,
    body::{RequestBody, Source},
    call::Asking,
    coding,
    config::GatewayConfig,
    door::{Door, Origin},
    metrics::Metrics,
    problem::{Kind, Problem, new_instance},
    reply::{Answer, AnswerBody, ok, without_body},
    route::{self, Limits, Route},
    router::Found,
    services::Services,
    socket::Upgrade,
    table::{Catalogue, Entry, Table},
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What all connections share.
pub(crate) struct Front {
    services: Arc<dyn Services>,
    catalogue: Catalogue,
    pub(crate) metrics: Metrics,
    door: Door,
    pub(crate) config: GatewayConfig,
    /// Where large bodies are while they are read.
    pub(crate) node: Option<Node>,
    /// Set once the gateway was told to stop.
    pub(crate) draining: AtomicBool,
    /// Tells what outlives its connection, as a WebSocket does, to end.
    pub(crate) closing: CancellationToken,
}

impl Front {
    /// Fails where the file of the access log cannot be opened.
    pub(crate) fn new(
        config: GatewayConfig,
        services: Arc<dyn Services>,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let metrics = Metrics::new();
        Ok(Self {
            catalogue: Catalogue::new(&*services, Instant::now()),
            door: Door::new(&config, &metrics)?,
            metrics,
            node: None,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            services,
            config,
        })
    }

    /// Whether a request would be answered.
    pub(crate) fn is_ready(&self) -> bool {
        self.catalogue.current(&*self.services, Instant::now()).is_ready()
    }

    /// Answers a request. Dropping the future gives the request up, in the service as well.
    pub(crate) async fn handle(&self, request: Request<Source>, origin: Origin) -> Answer {
        let now = Instant::now();
        let (mut head, body) = request.into_parts();
        let mut body = RequestBody::new(&head, body);
        let table = self.catalogue.current(&*self.services, now);
        let mut visit = self.door.visit(&self.metrics, &head, origin, now);
        let found = table.find(&head.method, head.uri.path());
        let entry = match &found {
            Found::Hit(endpoint, _) | Found::Other(endpoint, _) => Some(&endpoint.entry),
            Found::Missing => None,
        };
        if let Some(entry) = entry {
            visit.of_message(&entry.name);
        }

        let limits = Limits {
            uri: self.config.uri_limit,
            body: self.config.body_limit,
            blob: self.config.blob_limit,
            upload: self.config.upload_limit,
        };
        let upgrade = Upgrade::of(&mut head);
        let outcome = match (route::route(found, &head, body.is_end(), &limits), upgrade) {
            (Ok(Route::Call { endpoint, values, form }), Ok(upgrade)) => {
                let (head, body, visit) = (&head, &mut body, &visit);
                let asking = Asking { endpoint, values, form, head, body, upgrade, visit, now };
                self.ask(asking).await
            }
            (Ok(Route::Call { .. }), Err(problem)) => Err(problem),
            (Ok(route), _) => self.own(route, &table, &head),
            (Err(problem), _) => Err(self.or_unavailable(problem, &table)),
        };
        let mut answer = outcome.unwrap_or_else(|problem| refuse(problem, entry.map(|e| &**e)));
        answer.headers_mut().insert(header::SERVER, HeaderValue::from_static("layer-cake"));
        coding::compress(&head.headers, &mut answer).await;
        if head.method == Method::HEAD {
            without_body(&mut answer);
        }
        if head.version <= Version::HTTP_11 {
            body.discard(); // an HTTP/2 stream is closed by itself
        }
        visit.answered(&mut answer, self.draining.load(Ordering::Relaxed));
        answer
    }

    /// Answers for what is the gateway's own.
    fn own(&self, route: Route<'_>, table: &Table, head: &Parts) -> Result<Answer, Problem> {
        match route {
            // Which has been asked for.
            Route::Call { .. } => Err(Problem::new(Kind::Internal, "not the gateway's own")),
            Route::Index => Ok(ok(JSON, table.index.clone())),
            Route::Health => Ok(ok(TEXT, Bytes::from_static(b"ok\n"))),
            Route::Ready => self.ready(table),
            Route::Metrics => Ok(self.show_metrics(&head.headers)),
            Route::Options(allow) => Ok(options(allow)),
        }
    }

    fn ready(&self, table: &Table) -> Result<Answer, Problem> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Problem::new(Kind::Draining, "the gateway is about to stop"));
        }
        if !table.is_ready() {
            return Err(answer::problem(&AskError::Unavailable));
        }
        Ok(ok(TEXT, Bytes::from_static(b"ready\n")))
    }

    fn show_metrics(&self, headers: &HeaderMap) -> Answer {
        let open_metrics = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("application/openmetrics-text"));
        let content_type = if open_metrics { OPEN_METRICS } else { PROMETHEUS };
        ok(content_type, self.metrics.encode(open_metrics).into())
    }

    /// A service without workers may not know its messages yet: then a path that is not known may
    /// well be right, and 404 would be a lie.
    fn or_unavailable(&self, problem: Problem, table: &Table) -> Problem {
        let blind = problem.kind == Kind::UnknownMessage && table.is_empty();
        if blind && !table.is_ready() { answer::problem(&AskError::Unavailable) } else { problem }
    }
}

/// Turns a problem into a response. One that is ours, not the client's, gets a name, which the
/// log has too; push-back is only counted, or the log would be what the load brings down.
fn refuse(problem: Problem, entry: Option<&Entry>) -> Answer {
    let status = problem.kind.status();
    if !status.is_server_error() {
        return problem.into_response(None);
    }
    let instance = new_instance();
    let path = entry.map_or("-", |entry| &entry.name);
    let cause = problem.cause.as_deref().unwrap_or(&problem.detail);
    let status = status.as_u16();
    if problem.kind.is_push_back() {
        tracing::debug!(instance, path, status, cause, "request put off");
    } else {
        tracing::warn!(instance, path, status, cause, "request failed");
    }
    problem.into_response(Some(instance))
}

fn options(allow: String) -> Answer {
    let mut response = Response::new(AnswerBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .extend(HeaderValue::try_from(allow).ok().map(|allow| (header::ALLOW, allow)));
    response
}
