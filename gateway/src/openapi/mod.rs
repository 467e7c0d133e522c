//! The description of what a gateway serves, as an OpenAPI 3.1 document.
//!
//! It is made from the routing table, so that it lists what is published and nothing else. A message is
//! listed by its shortest path, and by the resource forms that it declares.

mod example;
mod schemas;

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use layercake_node::{
    MessageApi,
    http::{From, HttpBody, HttpParameter, HttpReply, HttpRoute},
};
use layercake_wire::payload::Tag;
use serde_json::{Map, Value, json};

use self::{
    example::{example, is_null},
    schemas::{Placed, Schemas, plain, reference},
};
use crate::{
    problem::{Kind, PROBLEM_JSON},
    reply::{Answer, ok},
};

/// A way to reach a message, as it is served.
pub(crate) struct Operation<'t> {
    /// The name of the service.
    pub(crate) service: &'t str,
    /// The actor behind it.
    pub(crate) actor: &'t str,
    pub(crate) api: &'t MessageApi,
    pub(crate) route: &'t HttpRoute,
}

/// The document as it is sent, made once for each routing table.
pub(crate) struct Described {
    bytes: Bytes,
    etag: HeaderValue,
}

impl Described {
    pub(crate) fn new(operations: &[Operation<'_>]) -> Self {
        let text = document(operations).to_string();
        let etag = format!("\"{:016x}\"", Tag::of(&text).0);
        let etag = HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { bytes: text.into(), etag }
    }

    /// The answer to a request with these headers: 304 where the client has it already.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> Answer {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|given| {
            let given = given.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let own = self.etag.as_bytes();
            given.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag)).any(|tag| tag == own)
        });
        let body = if known { Bytes::new() } else { self.bytes.clone() };
        let mut answer = ok("application/json", body);
        if known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = answer.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer
    }
}

/// The document of these operations.
pub(crate) fn document(operations: &[Operation<'_>]) -> Value {
    let mut writer = Writer::default();
    let mut paths = Map::new();
    let mut tags: Vec<Value> = Vec::new();
    for operation in operations {
        let tag = operation.tag();
        if !tags.iter().any(|known| known["name"] == tag) {
            let description = format!("Messages of `{}`.", operation.actor);
            tags.push(json!({ "name": tag, "description": description }));
        }
        let path = paths.entry(operation.route.template.clone()).or_insert_with(|| json!({}));
        path[operation.route.method.to_ascii_lowercase()] = writer.operation(operation);
    }
    let mut schemas = writer.schemas.all;
    schemas.insert("Problem".to_owned(), problem_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "layer-cake",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Messages of the services that are published now. A message is also \
                reached by `/{service}/{Message}`, the name of its service before its own. A request \
                may carry `Request-Timeout: SECONDS` to be given up earlier. Errors are problem \
                documents (RFC 9457); after 503, try again when `Retry-After` says.",
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": { "schemas": schemas, "responses": problem_responses() },
    })
}

impl Operation<'_> {
    fn tag(&self) -> &str {
        if self.service.is_empty() { self.actor } else { self.service }
    }

    /// The schema of a member of the message.
    fn member(&self, name: &str) -> &Value {
        self.api.member(name).unwrap_or(&Value::Bool(true))
    }
}

#[derive(Default)]
struct Writer<'t> {
    schemas: Schemas,
    placed: Vec<(&'t MessageApi, std::rc::Rc<Placed>)>,
    ids: HashSet<String>,
}

impl<'t> Writer<'t> {
    fn operation(&mut self, operation: &Operation<'t>) -> Value {
        let (api, route) = (operation.api, operation.route);
        let placed = self.placed(api);
        let mut object = json!({
            "operationId": self.id(operation),
            "tags": [operation.tag()],
            "summary": api.name,
        });
        if let Some(text) = api.schema.get("description") {
            object["description"] = text.clone();
        }
        let parameters: Vec<_> = route
            .parameters
            .iter()
            .filter(|p| !is_reserved(p))
            .map(|parameter| self::parameter(operation, &placed, parameter))
            .collect();
        if !parameters.is_empty() {
            object["parameters"] = parameters.into();
        }
        if let Some(body) = body(operation, &placed) {
            object["requestBody"] = body;
        }
        object["responses"] = responses(operation, &placed);
        object
    }

    fn placed(&mut self, api: &'t MessageApi) -> std::rc::Rc<Placed> {
        if let Some((_, placed)) = self.placed.iter().find(|(known, _)| *known == api) {
            return placed.clone();
        }
        let placed = std::rc::Rc::new(self.schemas.add(api));
        self.placed.push((api, placed.clone()));
        placed
    }

    fn id(&mut self, operation: &Operation<'_>) -> String {
        let route = operation.route;
        let method = route.method.to_ascii_lowercase();
        let segments = route.template.split('/').filter(|segment| !segment.is_empty());
        let names = segments.map(|segment| plain(segment.trim_matches(['{', '}'])));
        let name = names.collect::<Vec<_>>().join(".");
        let first = format!("{method}.{name}");
        let numbered = (2..).map(|n| format!("{first}.{n}"));
        let mut names = std::iter::once(first.clone()).chain(numbered);
        let free = names.find(|name| !self.ids.contains(name)).unwrap_or(first);
        self.ids.insert(free.clone());
        free
    }
}

/// What OpenAPI says elsewhere than among the parameters.
fn is_reserved(parameter: &HttpParameter) -> bool {
    let names = ["accept", "content-type", "authorization"];
    parameter.from == From::Header && names.contains(&parameter.name.to_ascii_lowercase().as_str())
}

fn parameter(operation: &Operation<'_>, placed: &Placed, parameter: &HttpParameter) -> Value {
    let given = operation.member(&parameter.member);
    let mut schema = placed.part(without_null(given));
    let place = match parameter.from {
        From::Path => "path",
        From::Query => "query",
        From::Header => "header",
    };
    let mut object = json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
    });
    let root = &operation.api.schema;
    if let Some(text) = given.get("description") {
        object["description"] = text.clone();
    }
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("description");
        if parameter.from == From::Path && members.get("type") == Some(&json!("string")) {
            members.entry("minLength").or_insert(json!(1));
        }
        // What may be left out has no null to stand for it.
        if members.get("default") == Some(&Value::Null) {
            members.shift_remove("default");
        }
    }
    let example = example(root, without_null(given));
    if is_plain(operation.api, given, true) {
        object["schema"] = schema;
        object["example"] = example;
    } else {
        object["content"] = json!({ "application/json": { "schema": schema, "example": example } });
    }
    object
}

/// The schema of an option when there is one.
fn without_null(schema: &Value) -> &Value {
    match schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([one, null] | [null, one]) if is_null(null) => one,
        _ => schema,
    }
}

/// Whether a value stands bare in a query: a number, a text, or a list of such.
fn is_plain(api: &MessageApi, schema: &Value, lists: bool) -> bool {
    let schema = api.target(&api.schema, without_null(schema));
    let is_scalar = |ty: &str| matches!(ty, "integer" | "number" | "string" | "boolean" | "null");
    match schema.get("type") {
        Some(Value::String(ty)) if ty == "array" && lists => {
            schema.get("items").is_some_and(|items| is_plain(api, items, false))
        }
        Some(Value::String(ty)) => is_scalar(ty),
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).all(is_scalar),
        // An enum of variants without fields, each with its remarks.
        _ => schema.get("oneOf").and_then(Value::as_array).is_some_and(|all| {
            all.iter().all(|one| one.get("type").is_some_and(|ty| ty == "string"))
        }),
    }
}

fn body(operation: &Operation<'_>, placed: &Placed) -> Option<Value> {
    let api = operation.api;
    let root = &api.schema;
    let binary = |types: &[String]| {
        let types =
            if types.is_empty() { &["application/octet-stream".to_owned()][..] } else { types };
        let content: Map<_, _> = types.iter().map(|ty| (ty.clone(), json!({}))).collect();
        json!({ "required": true, "content": content })
    };
    Some(match &operation.route.body {
        HttpBody::None => return None,
        HttpBody::Members(members) => {
            let whole = members.len() == api.members().count();
            let schema = match whole {
                true => reference(&placed.message),
                false => part_of(operation, placed, members),
            };
            let required = members.iter().any(|name| api.requires(name));
            let example: Value = members
                .iter()
                .map(|name| (name.clone(), example(root, operation.member(name))))
                .collect();
            let mut content =
                json!({ "application/json": { "schema": schema, "example": example } });
            if members.iter().all(|name| is_plain(api, operation.member(name), true)) {
                content["application/x-www-form-urlencoded"] = json!({ "schema": schema });
            }
            json!({ "required": required, "content": content })
        }
        HttpBody::Json(member) => {
            let given = operation.member(member);
            let (schema, example) = (placed.part(given), example(root, given));
            json!({
                "required": true,
                "content": { "application/json": { "schema": schema, "example": example } },
            })
        }
        HttpBody::Blob(_) | HttpBody::Upload(_) => binary(&api.http.consumes),
    })
}

/// The schema of some members of a message.
fn part_of(operation: &Operation<'_>, placed: &Placed, members: &[String]) -> Value {
    let properties: Map<_, _> =
        members.iter().map(|name| (name.clone(), placed.part(operation.member(name)))).collect();
    let required: Vec<_> = members.iter().filter(|name| operation.api.requires(name)).collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn responses(operation: &Operation<'_>, placed: &Placed) -> Value {
    let (api, route) = (operation.api, operation.route);
    let mut responses = Map::new();
    let mut told = reply(api, placed);
    // Statuses that have no body, whatever the reply is.
    if matches!(route.status, 204 | 205)
        && let Some(response) = told.as_object_mut()
    {
        response.shift_remove("content");
    }
    responses.insert(route.status.to_string(), told);
    if api.http.etag.is_some() {
        let unchanged = json!({ "description": "Not changed since the entity tag given." });
        responses.insert("304".to_owned(), unchanged);
    }
    let has_body = route.body != HttpBody::None;
    for kind in Kind::ALL.iter().filter(|kind| concerns(**kind, has_body)) {
        let status = kind.status().as_u16().to_string();
        responses.entry(status.clone()).or_insert_with(
            || json!({ "$ref": format!("#/components/responses/Problem{status}") }),
        );
    }
    for error in api.http_errors() {
        let status = error.status.to_string();
        let told = match error.variant.as_str() {
            "" => "Refused by the service.".to_owned(),
            variant => format!("Refused by the service: `{variant}`."),
        };
        let response = responses.entry(status).or_insert(Value::Null);
        match response.get_mut("description") {
            Some(Value::String(text)) => {
                text.push(' ');
                text.push_str(&told);
            }
            _ => *response = problem_response(&told),
        }
    }
    Value::Object(responses)
}

fn reply(api: &MessageApi, placed: &Placed) -> Value {
    let schema = reference(&placed.reply);
    let example = || example(&api.reply_schema, api.reply());
    let description = api.reply().get("description").cloned();
    let mut response = json!({ "description": description.unwrap_or_else(|| json!("The reply.")) });
    response["content"] = match api.http_reply() {
        HttpReply::Json => {
            json!({ "application/json": { "schema": schema, "example": example() } })
        }
        HttpReply::Parts => json!({
            "application/x-ndjson": { "schema": schema },
            "text/event-stream": { "schema": { "type": "string" } },
        }),
        HttpReply::Blob | HttpReply::Bytes if api.http.produces.is_empty() => {
            json!({ "application/octet-stream": {} })
        }
        HttpReply::Blob | HttpReply::Bytes => {
            api.http.produces.iter().map(|ty| (ty.clone(), json!({}))).collect()
        }
    };
    if api.http.etag.is_some() {
        let schema = json!({ "type": "string" });
        response["headers"] =
            json!({ "ETag": { "description": "The entity tag of the reply.", "schema": schema } });
    }
    response
}

/// Whether a request with or without a body can end so, once its path and method are known.
const fn concerns(kind: Kind, has_body: bool) -> bool {
    match kind {
        Kind::InvalidBody | Kind::InvalidContent | Kind::SlowBody | Kind::UnsupportedMediaType => {
            has_body
        }
        // Declared by the message, where it is.
        Kind::Conflict | Kind::Refused(_) | Kind::MethodNotAllowed | Kind::Draining => false,
        // Of the mesh page alone.
        Kind::KeyNeeded | Kind::Foreign => false,
        Kind::InvalidParameter
        | Kind::InvalidHeader
        | Kind::NotUnderstood
        | Kind::CrossOrigin
        | Kind::UnknownMessage
        | Kind::TooLarge
        | Kind::UriTooLong
        | Kind::TooManyHeaders
        | Kind::TooManyRequests
        | Kind::Internal
        | Kind::WorkerLost
        | Kind::WorkerFailed
        | Kind::NoReply
        | Kind::Busy
        | Kind::Overloaded
        | Kind::Unavailable
        | Kind::Deadline => true,
    }
}

fn problem_responses() -> Value {
    let mut responses = Map::new();
    for kind in Kind::ALL {
        let status = kind.status();
        let response = responses
            .entry(format!("Problem{}", status.as_u16()))
            .or_insert_with(|| problem_response(""));
        if let Some(Value::String(text)) = response.get_mut("description") {
            let separator = if text.is_empty() { "" } else { " " };
            text.push_str(&format!("{separator}{}.", kind.title()));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response["headers"] = json!({ "Retry-After": {
                "description": "In how many seconds to try again.",
                "schema": { "type": "integer", "minimum": 1 },
            } });
        }
    }
    Value::Object(responses)
}

fn problem_response(description: &str) -> Value {
    json!({
        "description": description,
        "content": { PROBLEM_JSON: { "schema": reference("Problem") } },
    })
}

fn problem_schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457).",
        "properties": {
            "type": text("Which kind of problem, as a relative reference."),
            "title": text("The kind in words."),
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": text("What happened this time."),
            "instance": text("A name for this occurrence, which the log of the gateway has, too."),
            "errors": {
                "type": "array",
                "description": "What is wrong with the input.",
                "items": {
                    "type": "object",
                    "properties": {
                        "in": text("Which part of the request: `path`, `query`, `header` or `body`."),
                        "pointer": text("A JSON pointer (RFC 6901) to the place."),
                        "parameter": text("The parameter, or the member of the body."),
                        "detail": text("What is wrong with it."),
                    },
                },
            },
            "may_have_run": {
                "type": "boolean",
                "description": "Whether the message may have been handled all the same.",
            },
            "error": { "description": "The error of the service, where it declares one." },
        },
        "required": ["type", "title", "status", "detail"],
    })
}

#[cfg(test)]
mod tests;
