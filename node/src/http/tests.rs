use layercake_macros::{data, message};

use super::*;
use crate::Message;

#[data]
struct Texture {
    columns: u32,
}

#[data]
enum Failed {
    #[status(404)]
    NotFound,
    #[status(409)]
    Taken {
        by: String,
    },
    Odd,
}

/// All of it.
#[message(
    reply = Result<Texture, Failed>,
    get = "/textures/{x}/{y}",
    post = "/textures/{x}",
    status = 201,
    deadline = "2s",
    etag = "columns",
    idempotent
)]
struct Draw {
    x: u32,
    #[arg(default = 8)]
    y: u32,
    #[arg(header = "X-Tenant", default)]
    tenant: Option<String>,
    #[arg(query, default)]
    dry: bool,
    #[arg(default)]
    colours: Vec<String>,
}

fn find(api: &MessageApi, method: &str, template: &str) -> HttpRoute {
    let mut routes = api.routes("").into_iter();
    routes.find(|r| r.method == method && r.template == template).expect("the route")
}

fn told(route: &HttpRoute) -> Vec<(From, &str, bool)> {
    route.parameters.iter().map(|p| (p.from, p.name.as_str(), p.required)).collect()
}

#[test]
fn each_member_has_its_place_in_each_form() {
    let api = Draw::describe();
    assert_eq!(api.deadline_ms, Some(2_000));
    let get = find(api, "GET", "/Draw");
    assert!(get.rpc);
    let expected = [
        (From::Query, "x", true),
        (From::Query, "y", false),
        (From::Header, "x-tenant", false),
        (From::Query, "dry", false),
        (From::Query, "colours", false),
    ];
    assert_eq!(told(&get), expected);
    assert_eq!(get.body, HttpBody::None);

    let post = find(api, "POST", "/Draw");
    assert_eq!(told(&post), [(From::Header, "x-tenant", false), (From::Query, "dry", false)]);
    let members = ["x", "y", "colours"].map(str::to_owned).to_vec();
    assert_eq!(post.body, HttpBody::Members(members));

    let resource = find(api, "GET", "/textures/{x}/{y}");
    assert_eq!(told(&resource)[..2], [(From::Path, "x", true), (From::Path, "y", true)]);
    assert_eq!(resource.status, 201);
    let created = find(api, "POST", "/textures/{x}");
    let members = ["y", "colours"].map(str::to_owned).to_vec();
    assert_eq!(created.body, HttpBody::Members(members));

    let elsewhere = api.routes("/v2");
    assert_eq!(elsewhere[0].template, "/v2/Draw");
}

#[message(put = "/textures/{x}")]
struct Put {
    x: u32,
    #[arg(body)]
    texture: Texture,
    #[arg(default)]
    force: bool,
}

#[test]
fn a_member_may_be_the_body() {
    let routes = Put::describe().routes("");
    assert_eq!(routes.len(), 2, "none to ask it with GET: {routes:?}");
    assert_eq!(routes[1].body, HttpBody::Json("texture".to_owned()));
    assert_eq!(told(&routes[1]), [(From::Path, "x", true), (From::Query, "force", false)]);
}

#[test]
fn errors_have_the_status_that_they_declare() {
    let api = Draw::describe();
    assert!(api.is_fallible());
    assert_eq!(api.http_reply(), HttpReply::Json);
    let errors = api.http_errors();
    let told: Vec<_> = errors.iter().map(|e| (e.variant.as_str(), e.status)).collect();
    assert_eq!(told, [("NotFound", 404), ("Taken", 409)]);
    assert!(!Put::describe().is_fallible());
}

#[message(stream = bytes::Bytes)]
struct Bytes {}

#[message(stream = u32)]
struct Numbers {}

#[test]
fn parts_are_bytes_or_values() {
    assert_eq!(Bytes::describe().http_reply(), HttpReply::Bytes);
    assert_eq!(Numbers::describe().http_reply(), HttpReply::Parts);
    assert_eq!(Put::describe().http_reply(), HttpReply::Json);
}

#[test]
fn a_description_of_former_times_has_forms_by_name() {
    let mut text = serde_json::to_value(&**Draw::describe()).expect("JSON");
    text.as_object_mut().expect("an object").remove("http");
    let old: MessageApi = serde_json::from_value(text).expect("reads");
    assert_eq!(old.routes("").len(), 2);
}
