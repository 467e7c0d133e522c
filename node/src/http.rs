//! How messages are reached over HTTP: what `#[message]` declares, as data that travels with the API of
//! an actor, and where each member of a message comes from in a request.
//!
//! It knows no HTTP itself: methods, headers and media types are texts here, and a gateway checks them
//! as it checks everything that comes from other nodes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{message::MessageApi, schema::resolve};

/// In the schema of a [`Blob`](crate::Blob).
pub(crate) const BLOB: &str = "x-layercake-blob";
/// In the schema of an [`Upload`](crate::Upload).
pub(crate) const UPLOAD: &str = "x-layercake-upload";
/// In the schema of an error: the status of each variant. Put there by `#[data]`.
pub(crate) const STATUS: &str = "x-layercake-status";
/// The status of an error that declares none.
pub const ERROR_STATUS: u16 = 422;
/// How many references are followed to find out what a schema is.
const MAX_HOPS: usize = 8;

/// What a message declares of HTTP. Every message is reached by its name, whether or not it declares
/// anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpApi {
    /// Resource forms: method and template, `("GET", "/textures/{x}/{y}")`.
    pub routes: Vec<(String, String)>,
    /// Members that come from headers: member and header.
    pub headers: Vec<(String, String)>,
    /// Members that come from the query, also where the others come from a body.
    pub query: Vec<String>,
    /// The member that is the whole body.
    pub body: Option<String>,
    /// The status of a reply; 0 for 200.
    pub status: u16,
    /// Media types that a raw body may have, `image/*` for all of a kind; none for any.
    pub consumes: Vec<String>,
    /// Media types that a raw reply may have, for its description; none for any.
    pub produces: Vec<String>,
    /// The member of the reply that is its entity tag.
    pub etag: Option<String>,
}

/// One way to reach a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// The method.
    pub method: String,
    /// The path, with members in braces: `/textures/{x}/{y}`.
    pub template: String,
    /// Whether it is the form by name, which every message has.
    pub rpc: bool,
    /// Members that do not come from the body.
    pub parameters: Vec<HttpParameter>,
    /// Where the other members come from.
    pub body: HttpBody,
    /// The status of a reply.
    pub status: u16,
}

/// A member of a message that comes from a part of the request other than its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpParameter {
    /// The member.
    pub member: String,
    /// Which part.
    pub from: From,
    /// What it is called there.
    pub name: String,
    /// Whether the message needs it.
    pub required: bool,
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A segment of the path.
    Path,
    /// A parameter of the query.
    Query,
    /// A header.
    Header,
}

/// What the body of a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpBody {
    /// Nothing: the request has none.
    None,
    /// An object of these members, as JSON or as a form.
    Members(Vec<String>),
    /// One member, as JSON.
    Json(String),
    /// One member, as bytes with a media type: a [`Blob`](crate::Blob).
    Blob(String),
    /// One member, as bytes that are read as they come: an [`Upload`](crate::Upload).
    Upload(String),
}

/// What a reply is over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpReply {
    /// JSON.
    Json,
    /// Bytes with a media type: a [`Blob`](crate::Blob).
    Blob,
    /// Values one after the other: lines of JSON, or events.
    Parts,
    /// Bytes one after the other.
    Bytes,
}

/// An error that a reply may be, and its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    /// The variant; empty for an error that is no enum.
    pub variant: String,
    /// The status.
    pub status: u16,
}

impl MessageApi {
    /// All ways to reach the message: by its name under the path given (empty, or `/service`), then
    /// what it declares.
    #[must_use]
    pub fn routes(&self, prefix: &str) -> Vec<HttpRoute> {
        let by_name = format!("{prefix}/{}", self.name);
        let mut routes = Vec::with_capacity(2 + self.http.routes.len());
        if self.http.body.is_none() {
            routes.push(self.route("GET", &by_name, true));
        }
        routes.push(self.route("POST", &by_name, true));
        let declared = self.http.routes.iter();
        routes.extend(declared.map(|(method, template)| self.route(method, template, false)));
        routes
    }

    fn route(&self, method: &str, template: &str, rpc: bool) -> HttpRoute {
        let http = &self.http;
        let in_path: Vec<_> = if rpc { Vec::new() } else { holes(template).collect() };
        let has_body = !matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS");
        let rest_in_body = has_body && http.body.is_none();
        let required = self.root()["required"].as_array();
        let required = |member: &str| {
            required.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(member)))
        };
        let mut parameters = Vec::new();
        let mut rest = Vec::new();
        for member in self.members() {
            let header = http.headers.iter().find(|(name, _)| name == member);
            let (from, name) = if in_path.contains(&member) {
                (From::Path, member)
            } else if let Some((_, header)) = header {
                (From::Header, header.as_str())
            } else if http.body.as_deref() == Some(member) {
                continue;
            } else if rest_in_body && !http.query.iter().any(|name| name == member) {
                rest.push(member.to_owned());
                continue;
            } else {
                (From::Query, member)
            };
            let (member, name) = (member.to_owned(), name.to_owned());
            let required = from == From::Path || required(&member);
            parameters.push(HttpParameter { member, from, name, required });
        }
        let body = match &http.body {
            Some(member) => {
                let schema = &self.root()["properties"][member.as_str()];
                let has = |mark| self.is_marked(&self.schema, schema, mark);
                match member.clone() {
                    member if has(BLOB) => HttpBody::Blob(member),
                    member if has(UPLOAD) => HttpBody::Upload(member),
                    member => HttpBody::Json(member),
                }
            }
            None if rest_in_body => HttpBody::Members(rest),
            None => HttpBody::None,
        };
        let status = if http.status == 0 { 200 } else { http.status };
        let (method, template) = (method.to_owned(), template.to_owned());
        HttpRoute { method, template, rpc, parameters, body, status }
    }

    /// What a reply is over HTTP.
    #[must_use]
    pub fn http_reply(&self) -> HttpReply {
        let (root, reply) = (&self.reply_schema, self.reply());
        if self.stream {
            return if is_bytes(reply) { HttpReply::Bytes } else { HttpReply::Parts };
        }
        if self.is_marked(root, reply, BLOB) { HttpReply::Blob } else { HttpReply::Json }
    }

    /// The schema of the reply, of a fallible one that of what it is when all is well. References in
    /// it are to [`reply_schema`](Self::reply_schema).
    #[must_use]
    pub fn reply(&self) -> &Value {
        self.outcomes().map_or(&self.reply_schema, |(ok, _)| ok)
    }

    /// Whether the reply is a `Result`.
    #[must_use]
    pub fn is_fallible(&self) -> bool {
        self.outcomes().is_some()
    }

    /// The errors that a fallible reply may be, each with its status.
    #[must_use]
    pub fn http_errors(&self) -> Vec<HttpError> {
        let Some((_, error)) = self.outcomes() else { return Vec::new() };
        let schema = self.target(&self.reply_schema, error);
        let declared = schema.get(STATUS).and_then(Value::as_object);
        let mut errors: Vec<_> = declared
            .into_iter()
            .flatten()
            .map(|(variant, status)| HttpError {
                variant: variant.clone(),
                status: status
                    .as_u64()
                    .and_then(|status| u16::try_from(status).ok())
                    .filter(|status| (400..600).contains(status))
                    .unwrap_or(ERROR_STATUS),
            })
            .collect();
        if errors.is_empty() {
            errors.push(HttpError { variant: String::new(), status: ERROR_STATUS });
        }
        errors
    }

    /// What a `Result` is when all is well, and when not.
    fn outcomes(&self) -> Option<(&Value, &Value)> {
        let schema = self.target(&self.reply_schema, &self.reply_schema);
        let [one, two] = schema.get("oneOf")?.as_array()?.as_slice() else { return None };
        let only = |schema: &Value, name: &str| {
            schema["required"].as_array().is_some_and(|r| r.len() == 1 && r[0] == name)
        };
        (only(one, "Ok") && only(two, "Err")).then(|| {
            Some((one.get("properties")?.get("Ok")?, two.get("properties")?.get("Err")?))
        })?
    }

    fn root(&self) -> &Value {
        self.target(&self.schema, &self.schema)
    }

    /// The members of the message, in order.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        let properties = self.root().get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(serde_json::Map::keys).map(String::as_str)
    }

    fn is_marked(&self, root: &Value, schema: &Value, mark: &str) -> bool {
        self.target(root, schema).get(mark).is_some()
    }

    /// The schema of a member of the message.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.root().get("properties")?.get(name)
    }

    /// Whether the message needs a member.
    #[must_use]
    pub fn requires(&self, name: &str) -> bool {
        let required = self.root().get("required").and_then(Value::as_array);
        required.is_some_and(|names| names.iter().any(|known| known == name))
    }

    /// What a schema within a document is, past its references.
    #[must_use]
    pub fn target<'a>(&self, root: &'a Value, mut schema: &'a Value) -> &'a Value {
        for _ in 0..MAX_HOPS {
            let reference = schema.get("$ref").and_then(Value::as_str);
            match reference.and_then(|reference| resolve(root, reference)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }
}

/// Whether a schema is that of `Bytes` or `Vec<u8>`.
fn is_bytes(schema: &Value) -> bool {
    schema.get("items").is_some_and(|items| items["format"] == "uint8")
}

/// The names in braces of a template.
pub fn holes(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests;
