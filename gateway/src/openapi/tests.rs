use std::sync::Arc;

use layercake_macros::{data, message};
use layercake_node::{Message, check::Checker};

use super::*;

#[data]
#[schemars(rename = "Punkt mit Größe/~")]
struct Point {
    at: f64,
    next: Option<Box<Self>>,
}

#[data]
enum Failed {
    #[status(404)]
    NotFound,
    #[status(409)]
    Taken { by: String },
}

/// Draws a texture.
#[message(
    reply = Result<Vec<Point>, Failed>,
    get = "/textures/{x}/{name}",
    put = "/textures/{x}",
    status = 201
)]
struct Draw {
    /// How many columns.
    #[arg(min = 1, max = 1000)]
    x: u32,
    name: String,
    #[arg(header = "X-Tenant", default)]
    tenant: Option<String>,
    #[arg(query, default = true)]
    dry: bool,
    #[arg(default)]
    path: Vec<Point>,
    #[arg(default)]
    tags: Vec<String>,
}

#[message(delete = "/textures/{x}", status = 204)]
struct Remove {
    x: u32,
}

/// Has no members.
#[message(stream = u32)]
struct Count {}

fn listed(services: &[(&str, &[&Arc<MessageApi>])]) -> Value {
    let routes: Vec<_> = services
        .iter()
        .flat_map(|(service, messages)| messages.iter().map(move |api| (*service, &***api)))
        .flat_map(|(service, api)| {
            let prefix = if service.is_empty() { String::new() } else { format!("/{service}") };
            api.routes(&prefix).into_iter().map(move |route| (service, api, route))
        })
        .collect();
    let operations: Vec<_> = routes
        .iter()
        .map(|(service, api, route)| Operation { service, actor: "Painter", api, route })
        .collect();
    document(&operations)
}

/// All objects of a document.
fn objects<'d>(value: &'d Value, found: &mut Vec<&'d Map<String, Value>>) {
    match value {
        Value::Object(object) => {
            found.push(object);
            object.values().for_each(|value| objects(value, found));
        }
        Value::Array(all) => all.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_id_is_its_own() {
    let both = [Draw::describe(), Count::describe()];
    let document = listed(&[("v1", &both), ("v2", &both)]);
    assert_eq!(document["openapi"], "3.1.0");
    let mut all = Vec::new();
    objects(&document, &mut all);
    let mut ids = HashSet::new();
    for object in all {
        if let Some(Value::String(reference)) = object.get("$ref") {
            let place = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(place).is_some_and(|to| !to.is_null()), "{reference}");
        }
        if let Some(id) = object.get("operationId") {
            assert!(ids.insert(id.to_string()), "{id} twice");
        }
    }
    // Two for each name, and two forms that only one service can have.
    assert_eq!(ids.len(), 10, "{ids:?}");
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert_eq!(plain(name), *name);
    }
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    assert_eq!(tags, ["v1", "v2"]);
}

#[test]
fn each_member_is_where_a_request_has_it() {
    let document = listed(&[("", &[Draw::describe()])]);
    let operation = &document["paths"]["/textures/{x}"]["put"];
    let parameters: Vec<_> = operation["parameters"].as_array().unwrap().iter().collect();
    let places: Vec<_> = parameters
        .iter()
        .map(|p| (p["in"].as_str().unwrap(), p["name"].as_str().unwrap(), p["required"] == true))
        .collect();
    let expected = [("path", "x", true), ("header", "x-tenant", false), ("query", "dry", false)];
    assert_eq!(places, expected);
    assert_eq!(parameters[0]["schema"]["maximum"], 1000);
    assert_eq!(parameters[0]["description"], "How many columns.");
    assert_eq!(parameters[2]["example"], true);
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let members: Vec<_> = body["properties"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["name", "path", "tags"]);
    assert_eq!(
        (&body["required"], &body["additionalProperties"]),
        (&json!(["name"]), &json!(false))
    );

    let get = &document["paths"]["/Draw"]["get"]["parameters"];
    let find = |name| get.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
    assert!(find("path")["content"]["application/json"].is_object(), "a list of objects is JSON");
    assert_eq!(find("tags")["schema"]["type"], "array");
}

#[test]
fn replies_and_problems_are_told_by_status() {
    let document = listed(&[("", &[Draw::describe(), Count::describe(), Remove::describe()])]);
    let removed = &document["paths"]["/textures/{x}"]["delete"]["responses"]["204"];
    assert!(removed.is_object() && removed.get("content").is_none(), "{removed}");
    let responses = &document["paths"]["/textures/{x}/{name}"]["get"]["responses"];
    let reply = &responses["201"]["content"]["application/json"];
    assert_eq!(reply["schema"], reference("Draw.Reply"));
    assert_eq!(document["components"]["schemas"]["Draw.Reply"]["type"], "array", "not a Result");
    assert!(reply["example"][0]["at"].is_number(), "{reply}");
    let conflict = responses["409"]["description"].as_str().unwrap();
    assert!(conflict.contains("`Taken`"), "{conflict}");
    assert!(responses["404"].to_string().contains("`NotFound`"), "{responses}");
    assert_eq!(responses.get("415"), None, "it has no body");
    for status in ["400", "404", "413", "414", "500", "502", "503", "504"] {
        assert!(responses.get(status).is_some(), "{status}");
    }
    let parts = &document["paths"]["/Count"]["post"]["responses"]["200"]["content"];
    assert!(parts.get("application/x-ndjson").is_some(), "{parts}");
    let busy = &document["components"]["responses"]["Problem503"];
    assert!(busy["headers"]["Retry-After"].is_object(), "{busy}");
}

#[test]
fn an_example_would_be_taken() {
    let api = Draw::describe();
    let document = listed(&[("", &[api])]);
    let body = &document["paths"]["/Draw"]["post"]["requestBody"]["content"]["application/json"];
    let mut message = body["example"].clone();
    for parameter in document["paths"]["/Draw"]["post"]["parameters"].as_array().unwrap() {
        let name = parameter["name"].as_str().unwrap().replace("x-tenant", "tenant");
        message[name] = parameter["example"].clone();
    }
    assert_eq!(Checker::new(api).check(&message), [], "{message}");
}

#[test]
fn a_document_that_a_client_has_is_not_sent_again() {
    let described = Described::new(&[]);
    let first = described.answer(&HeaderMap::new());
    assert_eq!(first.status(), 200);
    let etag = first.headers()[header::ETAG].clone();
    for (given, status) in [
        (etag.to_str().unwrap().to_owned(), 304),
        (format!("\"other\", W/{}", etag.to_str().unwrap()), 304),
        ("\"other\"".to_owned(), 200),
    ] {
        let headers = [(header::IF_NONE_MATCH, HeaderValue::try_from(&given).unwrap())];
        let answer = described.answer(&headers.into_iter().collect());
        assert_eq!(answer.status(), status, "{given}");
    }
}
