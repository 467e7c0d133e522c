//! One request to a service: what its parts become, and what its reply becomes.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};
use layercake_node::{
    AskError, Upload, UploadSender,
    http::{HttpBody, HttpReply},
    service::Call,
};
use layercake_wire::payload::{self, Encoding, Fingerprint, Payload};
use serde_json::{Value, json};
use tokio::time::timeout_at;

use crate::{
    answer::{self, Told},
    aside,
    body::RequestBody,
    coding,
    door::{Ended, Visit},
    handle::Front,
    input::{self, Content, Message},
    problem::{Kind, Problem},
    reply::{Answer, AnswerBody},
    route::{self, Form},
    socket::Upgrade,
    stream::{self, Begun},
    table::Endpoint,
    upload::{self, Bounds},
};

/// How long the head of a reply in parts waits for the first of them: what fails before has its own
/// status.
const FIRST_PART: Duration = Duration::from_millis(500);

/// A request for a message.
pub(crate) struct Asking<'r> {
    pub(crate) endpoint: &'r Arc<Endpoint>,
    /// What stands in the place of the template's braces.
    pub(crate) values: Vec<String>,
    pub(crate) form: Form,
    pub(crate) head: &'r Parts,
    pub(crate) body: &'r mut RequestBody,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) visit: &'r Visit<'r>,
    pub(crate) now: Instant,
}

impl Front {
    /// Makes a message of it, asks the service, and answers.
    pub(crate) async fn ask(&self, asking: &mut Asking<'_>) -> Result<Answer, Problem> {
        let &mut Asking { endpoint, head, now, .. } = asking;
        asking.visit.check(now)?;
        let (entry, config) = (&endpoint.entry, &self.config);
        let as_it_comes = entry.api.stream || matches!(asking.form, Form::Upload(_));
        let most = if as_it_comes { config.stream_deadline } else { config.deadline };
        let usual = entry.api.deadline_ms.map_or(most, Duration::from_millis);
        let deadline = now + route::time_allowed(&head.headers, usual, most)?;

        let mut beside = Vec::new();
        let mut sender = None;
        let content = match std::mem::replace(&mut asking.form, Form::Empty) {
            Form::Empty => Content::None,
            Form::Json => Content::Json(self.read(asking, config.body_limit, deadline).await?),
            Form::UrlEncoded => {
                Content::Form(self.read(asking, config.body_limit, deadline).await?)
            }
            Form::Blob(media) => {
                beside.push(self.read(asking, config.blob_limit, deadline).await?);
                // What the schema knows of it: bytes as text. They come later, beside.
                Content::Value(json!({ "media_type": media, "bytes": "" }))
            }
            Form::Upload(media) => {
                let (value, end) = self.upload(&media, head)?;
                sender = Some(end);
                Content::Value(value)
            }
        };
        let payload = match content.len() {
            ..aside::LONG => {
                compose(endpoint, &asking.values, &head.uri, &head.headers, content, &beside)?
            }
            _ => {
                let (endpoint, values) = (endpoint.clone(), asking.values.clone());
                let (uri, headers) = (head.uri.clone(), head.headers.clone());
                let work = move || compose(&endpoint, &values, &uri, &headers, content, &beside);
                Box::pin(aside::run(deadline, work)).await??
            }
        };
        if entry.api.stream {
            return Box::pin(self.stream(asking, payload, sender, deadline)).await;
        }

        // It keeps the deadline by itself; the timer here is for one that does not.
        let accept = match entry.reply {
            HttpReply::Blob => Fingerprint::PARTS,
            _ => Fingerprint::NONE,
        };
        let admitted = asking.visit.enter()?;
        let call = asking.visit.mark(Call::new(payload, accept, deadline));
        let call = asking.visit.traced(entry.service.call(call));
        let call = timeout_at(deadline.into(), call);
        let outcome = match sender {
            None => call.await,
            Some(sender) => {
                let mut call = pin!(call);
                let pump = Box::pin(upload::pump(asking.body, sender, self.bounds()));
                tokio::select! {
                    outcome = &mut call => outcome,
                    passed = pump => {
                        passed?;
                        call.await
                    }
                }
            }
        };
        let outcome = outcome.unwrap_or(Err(AskError::Deadline));
        admitted.ended(Ended::of(&outcome));
        let told = answer::reply(entry, outcome)?;
        Ok(respond(endpoint, head, told))
    }

    /// Reads a body as a whole, and undoes its compression.
    async fn read(
        &self,
        asking: &mut Asking<'_>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Bytes, Problem> {
        let compressed = coding::is_compressed(&asking.head.headers)?;
        let body = asking.body.read(limit, self.config.body_rate, deadline.into()).await;
        let body = body.map_err(|unread| upload::unread_problem(unread, limit as u64))?;
        if !compressed {
            return Ok(body);
        }
        coding::inflate(body, limit, deadline).await
    }

    /// Makes what stands in the message for a body that is passed on as it comes.
    fn upload(&self, media: &str, head: &Parts) -> Result<(Value, UploadSender), Problem> {
        if coding::is_compressed(&head.headers)? {
            let detail = "a body that is passed on as it comes is sent as it is";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        let internal = |cause: String| {
            let mut problem = Problem::new(Kind::Internal, "the body could not be passed on");
            problem.cause = Some(cause.into());
            problem
        };
        let Some(node) = &self.node else {
            let cause = "the gateway belongs to no node: see `Gateway::on`";
            return Err(internal(cause.to_owned()));
        };
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let (upload, sender) = Upload::new(node, media, length);
        let value = serde_json::to_value(&upload).map_err(|error| internal(error.to_string()))?;
        Ok((value, sender))
    }

    fn bounds(&self) -> Bounds {
        Bounds { limit: self.config.upload_limit, rate: self.config.body_rate }
    }

    /// Asks for a reply in parts, and answers with them as they come.
    async fn stream(
        &self,
        asking: &mut Asking<'_>,
        payload: Payload,
        sender: Option<UploadSender>,
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let &mut Asking { endpoint, head, visit, .. } = asking;
        let entry = &endpoint.entry;
        let produces = entry.api.http.produces.first();
        let media = produces.filter(|media| !media.contains('*'));
        let media = media.and_then(|media| HeaderValue::try_from(media).ok());
        let (form, accept, media) = match entry.reply {
            HttpReply::Bytes => (stream::Form::Bytes, entry.api.reply_fingerprint, media),
            _ => (stream::Form::wanted(&head.headers), Fingerprint::NONE, None),
        };

        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            let detail = "as many replies in parts are under way as can be";
            return Err(Problem::new(Kind::Overloaded, detail));
        };
        let admitted = visit.enter()?;
        let call = visit.mark(Call::new(payload, accept, deadline));
        let call = visit.traced(entry.service.stream(call));
        let bounds = self.bounds();
        let mut beside = sender.map(|sender| -> stream::Beside {
            let mut body = asking.body.take();
            Box::pin(async move { upload::pump(&mut body, sender, bounds).await })
        });
        let begin = async {
            let mut replies = call.await?;
            let first = tokio::time::timeout(FIRST_PART, replies.next()).await.ok();
            Ok::<_, AskError>((replies, first))
        };
        let mut begin = pin!(timeout_at(deadline.into(), begin));
        let begun = loop {
            let Some(pump) = &mut beside else { break (&mut begin).await };
            tokio::select! {
                begun = &mut begin => break begun,
                passed = pump => {
                    beside = None;
                    passed?;
                }
            }
        };
        let begun = begun.unwrap_or(Err(AskError::Deadline));
        admitted.ended(match &begun {
            // How soon a stream begins is no sign of how fast the service is.
            Ok(_) => Ended::GivenUp,
            failed => Ended::of(failed),
        });
        let (replies, first) = begun.map_err(|error| answer::problem(&error))?;
        let first = match first {
            Some(Some(Err(error))) => return Err(answer::problem(&error)),
            first => first,
        };
        let begun = Begun { form, first, replies, place };
        if let Some(upgrade) = asking.upgrade.take() {
            return Ok(upgrade.answer(begun, self.closing.clone()));
        }
        let mut answer = stream::answer(begun, media, beside);
        set_status(&mut answer, endpoint.route.status);
        Ok(answer)
    }
}

/// The payload of a message with the bytes that belong to it.
/// Puts a message together, checks it, and encodes it. `values` are as in [`Asking`]; `beside` are bytes of
/// which the message has only the place.
fn compose(
    endpoint: &Endpoint,
    values: &[String],
    uri: &Uri,
    headers: &HeaderMap,
    content: Content,
    beside: &[Bytes],
) -> Result<Payload, Problem> {
    let query = uri.query().unwrap_or_default();
    let message = input::message(endpoint, values, query, headers, content)?;
    encode(endpoint, message, beside)
}

fn encode(endpoint: &Endpoint, message: Message, beside: &[Bytes]) -> Result<Payload, Problem> {
    let tag = endpoint.entry.tag;
    let (HttpBody::Blob(member), false) = (&endpoint.route.body, beside.is_empty()) else {
        let bytes = message.encode()?;
        return Ok(Payload { tag, encoding: Encoding::Json, bytes });
    };
    let mut message = message;
    if let Message::Made(object) = &mut message {
        // The first that stands beside.
        object[member]["bytes"] = 0.into();
    }
    let bytes = payload::join(&message.encode()?, beside)
        .map_err(|error| Problem::new(Kind::TooLarge, error.to_string()))?;
    Ok(Payload { tag, encoding: Encoding::Parts, bytes })
}

/// The response to a request that was answered.
fn respond(endpoint: &Endpoint, head: &Parts, told: Told) -> Answer {
    let Told { media, bytes, etag } = told;
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let known = etag.as_ref().is_some_and(|etag| reads && answer::is_known(&head.headers, etag));
    let mut answer = Response::new(AnswerBody::default());
    let status = endpoint.route.status;
    if known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        set_status(&mut answer, status);
        if status != StatusCode::NO_CONTENT.as_u16() && status != 205 {
            *answer.body_mut() = AnswerBody::whole(bytes);
            answer.headers_mut().insert(header::CONTENT_TYPE, media);
        }
    }
    let headers = answer.headers_mut();
    if endpoint.entry.reply == HttpReply::Blob {
        // It is what the service says, whatever it looks like.
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    }
    headers.extend(etag.map(|etag| (header::ETAG, etag)));
    answer
}

fn set_status(answer: &mut Answer, status: u16) {
    // Of what other nodes declare, only what says that all is well.
    let declared = StatusCode::from_u16(status).ok().filter(StatusCode::is_success);
    *answer.status_mut() = declared.unwrap_or(StatusCode::OK);
}
