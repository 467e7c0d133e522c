//! One request, from its head to its answer.

use std::{
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
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use layercake_node::{
    AskError,
    service::{Call, Service},
};
use layercake_wire::payload::{Encoding, Fingerprint, Payload};
use tokio::time::timeout_at;

use crate::{
    answer,
    body::{RequestBody, Unread},
    config::GatewayConfig,
    input,
    metrics::Metrics,
    problem::{Kind, Problem, new_instance},
    route::{self, Form, Limits, Route},
    table::{Catalogue, Entry, Table},
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The response to any request: its body is at hand as a whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What all connections share.
pub(crate) struct Front {
    service: Arc<dyn Service>,
    catalogue: Catalogue,
    pub(crate) metrics: Metrics,
    pub(crate) config: GatewayConfig,
    /// Set once the gateway was told to stop.
    pub(crate) draining: AtomicBool,
}

impl Front {
    pub(crate) fn new(config: GatewayConfig, service: Arc<dyn Service>) -> Self {
        Self {
            catalogue: Catalogue::new(&*service, Instant::now()),
            metrics: Metrics::new(),
            draining: AtomicBool::new(false),
            service,
            config,
        }
    }

    /// Answers a request. Dropping the future gives the request up, in the service as well.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Answer {
        let now = Instant::now();
        let (head, body) = request.into_parts();
        let mut body = RequestBody::new(&head, body);
        let table = self.catalogue.current(&*self.service, now);
        let mut observed = self.metrics.begin(&head.method, now);
        let entry = route::entry(&table, &head);
        if let Some(entry) = entry {
            observed.of_message(&entry.name);
        }

        let limits = Limits { uri: self.config.uri_limit, body: self.config.body_limit };
        let outcome = match route::route(entry, &head, body.is_end(), &limits) {
            Ok(route) => self.follow(route, &table, &head, &mut body, now).await,
            Err(problem) => Err(self.or_unavailable(problem, &table)),
        };
        let mut answer = outcome.unwrap_or_else(|problem| refuse(problem, entry));
        answer.headers_mut().insert(header::SERVER, HeaderValue::from_static("layer-cake"));
        if head.method == Method::HEAD {
            without_body(&mut answer);
        }
        if head.version <= Version::HTTP_11 {
            body.discard(); // an HTTP/2 stream is closed by itself
        }
        observed.answered(answer.status());
        answer
    }

    async fn follow(
        &self,
        route: Route<'_>,
        table: &Table,
        head: &Parts,
        body: &mut RequestBody,
        now: Instant,
    ) -> Result<Answer, Problem> {
        match route {
            Route::Query(entry) => {
                let deadline = now + route::time_allowed(&head.headers, self.config.deadline)?;
                let query = head.uri.query().unwrap_or_default();
                let message = input::from_query(&entry.checker, query)?;
                self.call(entry, message, deadline).await
            }
            Route::Body(entry, form) => {
                let deadline = now + route::time_allowed(&head.headers, self.config.deadline)?;
                let message = match form {
                    Form::Empty => input::from_query(&entry.checker, "")?,
                    Form::Json => {
                        input::from_json(&entry.checker, self.read(body, deadline).await?)?
                    }
                    Form::UrlEncoded => {
                        input::from_form(&entry.checker, &self.read(body, deadline).await?)?
                    }
                };
                self.call(entry, message, deadline).await
            }
            Route::Index => Ok(ok(JSON, table.index.clone())),
            Route::Health => Ok(ok(TEXT, Bytes::from_static(b"ok\n"))),
            Route::Ready => self.ready(),
            Route::Metrics => Ok(self.show_metrics(&head.headers)),
            Route::Options(allow) => Ok(options(allow)),
        }
    }

    async fn read(&self, body: &mut RequestBody, deadline: Instant) -> Result<Bytes, Problem> {
        let limit = self.config.body_limit;
        body.read(limit, deadline.into()).await.map_err(|unread| match unread {
            Unread::TooLarge => route::too_large(limit),
            Unread::Late => {
                Problem::new(Kind::SlowBody, "the body did not come within the deadline")
            }
            Unread::Broken => Problem::new(Kind::InvalidBody, "the body broke off"),
        })
    }

    /// Asks the service. It keeps the deadline by itself; the timer here is for one that does not.
    async fn call(
        &self,
        entry: &Entry,
        message: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let payload = Payload { tag: entry.tag, encoding: Encoding::Json, bytes: message };
        let call = Call::new(payload, Fingerprint::NONE, deadline);
        let outcome = timeout_at(deadline.into(), self.service.call(call))
            .await
            .unwrap_or(Err(AskError::Deadline));
        answer::reply(outcome).map(|bytes| ok(JSON, bytes))
    }

    fn ready(&self) -> Result<Answer, Problem> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Problem::new(Kind::Draining, "the gateway is about to stop"));
        }
        if !self.service.is_ready() {
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
        if blind && !self.service.is_ready() {
            answer::problem(&AskError::Unavailable)
        } else {
            problem
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

fn ok(content_type: &'static str, bytes: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(bytes));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn options(allow: &'static str) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Leaves the length that the body has, and no body.
fn without_body(response: &mut Answer) {
    let length = response.body().size_hint().exact().unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() = Full::default();
}
