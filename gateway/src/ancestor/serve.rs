//! One request of an ancestor's program, from its head to its answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use layercake_node::{AskError, http::HttpReply, service::Call};
use layercake_wire::payload::{Encoding, Fingerprint, Payload};
use serde_json::Value;
use tokio::time::timeout_at;

use super::{
    Library, failed, misfit, refused, replied,
    request::{Source, cut, from_json, members, source},
};
use crate::{
    body::{RequestBody, Unread},
    config::GatewayConfig,
    handle::Answer,
    problem::Problem,
    route,
    router::Found,
    table::{Entry, RESERVED, Table},
};

/// Why there is no reply, told in the ancestor's way.
enum Failure {
    /// The request cannot be made a message of.
    Refused(StatusCode, String),
    /// The message does not fit its schema.
    Misfit(String),
    Failed(AskError),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Failed(error)
    }
}

fn unreadable(why: String) -> Failure {
    Failure::Refused(StatusCode::BAD_REQUEST, why)
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
    config: &GatewayConfig,
    table: &Table,
    entry: Option<&Entry>,
    head: &Parts,
    body: &mut RequestBody,
    now: Instant,
) -> Answer {
    let library = Library::of(&head.headers);
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let outcome = match entry {
        Some(entry) => answer(config, library, entry, target, head, body, now).await,
        // What has no workers may not be known yet.
        None if table.is_empty() && !table.is_ready() => Err(AskError::Unavailable.into()),
        None => Err(unreadable(match cut(target) {
            Ok(_) => "unknown and defaulting to HTTP requests disabled".to_owned(),
            Err(why) => why,
        })),
    };
    outcome.unwrap_or_else(|failure| match failure {
        Failure::Refused(status, why) => refused(library, status, target, &why),
        Failure::Misfit(detail) => misfit(library, &detail),
        Failure::Failed(error) => failed(library, &error),
    })
}

async fn answer(
    config: &GatewayConfig,
    library: Library,
    entry: &Entry,
    target: &str,
    head: &Parts,
    body: &mut RequestBody,
    now: Instant,
) -> Result<Answer, Failure> {
    if target.len() > config.uri_limit {
        let why = format!("more than {} bytes", config.uri_limit);
        return Err(Failure::Refused(StatusCode::URI_TOO_LONG, why));
    }
    if entry.reply != HttpReply::Json {
        return Err(unreadable("its reply is no value of the ancestor's".to_owned()));
    }
    let usual = entry.api.deadline_ms.map_or(config.deadline, Duration::from_millis);
    let allowed = route::time_allowed(&head.headers, usual, config.deadline);
    let deadline = now + allowed.map_err(|Problem { detail, .. }| unreadable(detail))?;

    let (_, name, query) = cut(target).map_err(unreadable)?;
    let source = source(name, query, &head.method, &head.headers).map_err(unreadable)?;
    let schema = &entry.api.schema;
    let message = match source {
        Source::Query(query) => members(schema, name, query, false),
        Source::Form => {
            let bytes = read(config, body, deadline).await?;
            let form =
                std::str::from_utf8(&bytes).map_err(|error| unreadable(error.to_string()))?;
            members(schema, name, form, true)
        }
        Source::Json => from_json(schema, &read(config, body, deadline).await?),
    };
    let message = message.map_err(unreadable)?;
    if let Some(first) = entry.checker.check(&message).first() {
        return Err(Failure::Misfit(format!("`{}` {}", first.parameter, first.detail)));
    }
    let payload = encode(entry, &message)?;
    let call = Call { payload, accept: Fingerprint::NONE, deadline };
    let reply = timeout_at(deadline.into(), entry.service.call(call))
        .await
        .unwrap_or(Err(AskError::Deadline))?;
    Ok(replied(library, &entry.api, reply)?)
}

fn encode(entry: &Entry, message: &Value) -> Result<Payload, Failure> {
    let bytes = serde_json::to_vec(message).map_err(|error| Failure::Misfit(error.to_string()))?;
    Ok(Payload { tag: entry.tag, encoding: Encoding::Json, bytes: bytes.into() })
}

async fn read(
    config: &GatewayConfig,
    body: &mut RequestBody,
    deadline: Instant,
) -> Result<Bytes, Failure> {
    let limit = config.body_limit;
    body.read(limit, deadline.into()).await.map_err(|unread| match unread {
        Unread::TooLarge => Failure::Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {limit} bytes"),
        ),
        Unread::Late => Failure::Refused(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come within the deadline".to_owned(),
        ),
        Unread::Broken => unreadable("the body broke off".to_owned()),
    })
}
