//! One request of an ancestor's program, from its head to its answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, request::Parts};
use layercake_node::{AskError, http::HttpReply, service::Call};
use layercake_wire::payload::{Encoding, Fingerprint, Payload};
use tokio::time::timeout_at;

use super::{
    Library, failed, misfit, refused, replied,
    request::{Source, cut, from_json, members, source},
    turned_away,
};
use crate::{
    aside,
    body::RequestBody,
    door::{Ended, Visit},
    handle::Front,
    problem::{Kind, Problem},
    reply::Answer,
    route,
    router::Found,
    table::{Entry, RESERVED, Table},
    upload::unread_problem,
};

/// A request, and who it is from.
pub(crate) struct Request<'r, 'd> {
    pub(crate) head: &'r Parts,
    pub(crate) body: &'r mut RequestBody,
    pub(crate) visit: &'r Visit<'d>,
    pub(crate) now: Instant,
}

/// Why there is no reply, to be told in the ancestor's way.
enum Failure {
    /// It does not get as far as a message.
    Refused(Problem),
    /// The message does not fit its schema.
    Misfit(String),
    Failed(AskError),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Failed(error)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

fn unreadable(why: String) -> Failure {
    Failure::Refused(Problem::new(Kind::InvalidBody, why))
}

/// Whether a request is for a message: the gateway's own paths stay what they are.
pub(crate) fn concerns(head: &Parts) -> bool {
    let path = head.uri.path();
    let first = path.split('/').nth(1).unwrap_or_default();
    !RESERVED.contains(&first) && (path != "/" || head.method == Method::POST)
}

/// The message that a path ends in, whatever stands before it; a service's name there tells messages
/// of one name apart.
pub(crate) fn entry<'t>(table: &'t Table, path: &str) -> Option<&'t Arc<Entry>> {
    let by_name = |path: &str| match table.find(&Method::POST, path) {
        Found::Hit(endpoint, _) if endpoint.route.rpc => Some(&endpoint.entry),
        _ => None,
    };
    by_name(path).or_else(|| by_name(&path[path.rfind('/')?..]))
}

/// Answers a request.
pub(crate) async fn handle(
    front: &Front,
    table: &Table,
    entry: Option<&Arc<Entry>>,
    request: Request<'_, '_>,
) -> Answer {
    let library = Library::of(&request.head.headers);
    let target = request.head.uri.path_and_query().map_or("", |target| target.as_str());
    let outcome = match entry {
        Some(entry) => answer(front, library, entry, target, request).await,
        // What has no workers may not be known yet.
        None if table.is_blind() => Err(AskError::Unavailable.into()),
        None => Err(unreadable(match cut(target) {
            Ok(_) => "unknown and defaulting to HTTP requests disabled".to_owned(),
            Err(why) => why,
        })),
    };
    outcome.unwrap_or_else(|failure| match failure {
        Failure::Refused(problem) if problem.retry_after.is_some() => {
            turned_away(library, &problem)
        }
        Failure::Refused(problem) => {
            refused(library, problem.kind.status(), target, &problem.detail)
        }
        Failure::Misfit(detail) => misfit(library, &detail),
        Failure::Failed(error) => failed(library, &error),
    })
}

async fn answer(
    front: &Front,
    library: Library,
    entry: &Arc<Entry>,
    target: &str,
    request: Request<'_, '_>,
) -> Result<Answer, Failure> {
    let Request { head, body, visit, now } = request;
    let config = &front.config;
    if target.len() > config.uri_limit {
        let why = format!("more than {} bytes", config.uri_limit);
        return Err(Problem::new(Kind::UriTooLong, why).into());
    }
    if entry.reply != HttpReply::Json {
        return Err(unreadable("its reply is no value of the ancestor's".to_owned()));
    }
    visit.check(now)?;
    let usual = entry.api.deadline_ms.map_or(config.deadline, Duration::from_millis);
    let deadline = now + route::time_allowed(&head.headers, usual, config.deadline)?;

    let (_, name, query) = cut(target).map_err(unreadable)?;
    let source = source(name, query, &head.method, &head.headers).map_err(unreadable)?;
    let bytes = match source {
        Source::Query(_) => Bytes::new(),
        Source::Form | Source::Json => read(front, body, deadline).await?,
    };
    let payload = match bytes.len() {
        ..aside::LONG => compose(entry, name, source, &bytes)?,
        _ => {
            let (entry, name) = (entry.clone(), name.to_owned());
            let source = if source == Source::Form { Source::Form } else { Source::Json };
            aside::run(deadline, move || compose(&entry, &name, source, &bytes)).await??
        }
    };
    let call = Call::new(payload, Fingerprint::NONE, deadline);
    let call = visit.traced(entry.service.call(visit.mark(call)));
    let admitted = visit.enter()?;
    let outcome = timeout_at(deadline.into(), call).await.unwrap_or(Err(AskError::Deadline));
    admitted.ended(Ended::of(&outcome));
    Ok(replied(library, &entry.api, outcome?)?)
}

/// Reads a message, checks it, and encodes it.
fn compose(entry: &Entry, name: &str, source: Source<'_>, body: &[u8]) -> Result<Payload, Failure> {
    let schema = &entry.api.schema;
    let message = match source {
        Source::Query(query) => members(schema, name, query, false),
        Source::Form => std::str::from_utf8(body)
            .map_err(|error| error.to_string())
            .and_then(|form| members(schema, name, form, true)),
        Source::Json => from_json(schema, body),
    };
    let message = message.map_err(unreadable)?;
    if let Some(first) = entry.checker.check(&message).first() {
        return Err(Failure::Misfit(format!("`{}` {}", first.parameter, first.detail)));
    }
    let bytes = serde_json::to_vec(&message).map_err(|error| Failure::Misfit(error.to_string()))?;
    Ok(Payload { tag: entry.tag, encoding: Encoding::Json, bytes: bytes.into() })
}

async fn read(front: &Front, body: &mut RequestBody, deadline: Instant) -> Result<Bytes, Problem> {
    let (limit, rate) = (front.config.body_limit, front.config.body_rate);
    let bytes = body.read(limit, rate, deadline.into()).await;
    bytes.map_err(|unread| unread_problem(unread, limit as u64))
}
