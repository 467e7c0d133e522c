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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    ancestor, answer,
    body::{RequestBody, Source},
    call::Asking,
    coding,
    config::GatewayConfig,
    docs,
    door::{Door, Origin, web},
    mesh_page::{self, Page},
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
    /// The mesh page of that node.
    pub(crate) page: Option<Page>,
    /// Set once the gateway was told to stop.
    pub(crate) draining: AtomicBool,
    /// Tells what outlives its connection, as a WebSocket does, to end.
    pub(crate) closing: CancellationToken,
    /// Places for replies in parts: as many as there may be connections, however many each of them carries.
    pub(crate) streams: Arc<Semaphore>,
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
            page: None,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            streams: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            services,
            config,
        })
    }

    /// Whether a request would be answered.
    pub(crate) fn is_ready(&self) -> bool {
        self.catalogue.current(&*self.services, Instant::now()).is_ready()
    }

    /// Answers a request. Dropping the future gives the request up, in the service as well.
    pub(crate) fn handle(
        &self,
        request: Request<Source>,
        origin: Origin,
    ) -> impl Future<Output = Answer> + Send {
        let now = Instant::now();
        // Taken apart here, or the future would have room for the whole and for the parts.
        let (mut head, body) = request.into_parts();
        let mut body = RequestBody::new(&head, body);
        async move {
            let table = self.catalogue.current(&*self.services, now);
            let mut visit = self.door.visit(&self.metrics, &head, origin, now);
            let found = table.find(&head.method, head.uri.path());
            let of_ancestor = self.config.ancestor && ancestor::concerns(&head);
            let entry = match &found {
                _ if of_ancestor => ancestor::entry(&table, head.uri.path()),
                Found::Hit(endpoint, _) | Found::Other(endpoint, _) => Some(&endpoint.entry),
                Found::Missing => None,
            };
            if let Some(entry) = entry {
                visit.of_message(&entry.metrics);
            }

            let limits = Limits {
                uri: self.config.uri_limit,
                body: self.config.body_limit,
                blob: self.config.blob_limit,
                upload: self.config.upload_limit,
            };
            let page = self.page.as_ref().filter(|_| Page::has(head.uri.path()));
            let safe = match &found {
                _ if page.is_some() => None,
                _ if of_ancestor => entry.map(|entry| entry.api.idempotent),
                Found::Hit(endpoint, _) => {
                    Some(!endpoint.route.rpc || endpoint.entry.api.idempotent)
                }
                _ => None,
            };
            let crossing =
                route::count_headers(&head.headers, self.config.max_headers).and_then(|()| {
                    safe.map_or(Ok(()), |safe| web::check(&self.config.origins, &head, safe))
                });
            // What is seldom is boxed: its size would be carried, and moved, by each request.
            let outcome = if let Err(problem) = crossing {
                Err(problem)
            } else if let Some(page) = page {
                Box::pin(page.answer(&head, &mut body)).await
            } else if of_ancestor {
                let request =
                    ancestor::Request { head: &head, body: &mut body, visit: &visit, now };
                Ok(Box::pin(ancestor::handle(self, &table, entry, request)).await)
            } else {
                let upgrade = Upgrade::of(&mut head);
                match (route::route(found, &head, body.is_end(), &limits), upgrade) {
                    (Ok(Route::Call { endpoint, values, form }), Ok(upgrade)) => {
                        let (head, body, visit) = (&head, &mut body, &visit);
                        let mut asking =
                            Asking { endpoint, values, form, head, body, upgrade, visit, now };
                        self.ask(&mut asking).await
                    }
                    (Ok(Route::Call { .. }), Err(problem)) => Err(problem),
                    (Ok(route), _) => self.own(route, &table, &head),
                    (Err(problem), _) => Err(self.or_unavailable(problem, &table)),
                }
            };
            let mut answer = outcome.unwrap_or_else(|problem| refuse(problem, entry.map(|e| &**e)));
            match page {
                Some(_) => mesh_page::guard(answer.headers_mut()),
                None => web::share(&self.config.origins, &head, answer.headers_mut()),
            }
            let server = answer.headers_mut().entry(header::SERVER);
            server.or_insert(HeaderValue::from_static("layer-cake"));
            if self.config.ancestor {
                ancestor::readable(&mut answer);
            }
            if coding::is_worth_it(&answer) {
                Box::pin(coding::compress(&head.headers, &mut answer)).await;
            }
            if head.method == Method::HEAD {
                without_body(&mut answer);
            }
            if head.version <= Version::HTTP_11 {
                body.discard(); // an HTTP/2 stream is closed by itself
            }
            visit.answered(&mut answer, self.draining.load(Ordering::Relaxed));
            answer
        }
    }

    /// Answers for what is the gateway's own.
    fn own(&self, route: Route<'_>, table: &Table, head: &Parts) -> Result<Answer, Problem> {
        match route {
            // Which has been asked for.
            Route::Call { .. } => Err(Problem::new(Kind::Internal, "not the gateway's own")),
            Route::Index => Ok(ok(JSON, table.index.clone())),
            Route::Health => Ok(ok(TEXT, Bytes::from_static(b"ok\n"))),
            Route::Ready => self.ready(table),
            Route::Description => Ok(table.described().answer(&head.headers)),
            Route::Docs => Ok(docs::page()),
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
        match problem.kind {
            Kind::UnknownMessage if table.is_blind() => answer::problem(&AskError::Unavailable),
            _ => problem,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_under_way_is_small() {
        /// How large the future is that a function makes.
        fn size<'f, F>(_: impl FnOnce(&'f Front, Request<Source>, Origin) -> F) -> usize {
            size_of::<F>()
        }
        // It is moved several times before it is first polled.
        let size = size(Front::handle);
        assert!(size <= 2_400, "{size} bytes: box what is seldom");
    }
}
