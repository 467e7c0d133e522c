//! `layer-cake gateway` on one machine: it serves what is published while it is published, also what was
//! built after it, and nothing else.

mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use layercake_lab::{Program, eventually};
use serde_json::Value;
use support::{Folders, SOON, built, curl, layer_cake, of_mesh, offer::Offer};

const KILL: i32 = 9;

fn gateway(folders: &Folders, arguments: &[&str]) -> (Program, String) {
    let all = [&["gateway", "--listen", "127.0.0.1:0"], arguments].concat();
    let gateway = Program::start(&mut layer_cake(&folders.mesh("host"), &all));
    let (_, line) = gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    (gateway, line["ready: ".len()..].to_owned())
}

fn greeter(folders: &Folders) -> Offer {
    Offer::start(&mut of_mesh(Command::new(built("offer")), &folders.mesh("host"), &[]))
}

fn get(url: &str, path: &str) -> (u16, Value) {
    let (status, body) = curl(&[&format!("{url}{path}")]);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn eventually_is(url: &str, path: &str, status: u16) -> Value {
    eventually(SOON, &format!("{status} of {path}"), || {
        let (found, body) = get(url, path);
        (found == status).then_some(body)
    })
}

#[test]
fn what_is_published_is_served_until_it_is_withdrawn() {
    let folders = Folders::new();
    let (_gateway, url) = gateway(&folders, &[]);
    let (status, problem) = get(&url, "/Greet?name=Ann");
    assert_eq!((status, &problem["type"]), (404, &Value::from("/problems/unknown-message")));
    assert_eq!(get(&url, "/readyz").0, 503, "there is nothing to serve");
    assert_eq!(get(&url, "/openapi.json").1["paths"], serde_json::json!({}));

    let greeter = greeter(&folders);
    greeter.probe(&url["http://".len()..], "/Greet?name=Ann");
    let began = Instant::now();
    let published = greeter.publish(1, "greetings:v1");
    let served = greeter.status_since(began, 200);
    println!("served {:?} after it was published", served.since(published));
    assert!(served.since(published) < Duration::from_millis(500));

    assert_eq!(get(&url, "/Greet?name=Ann"), (200, "hello Ann".into()));
    assert_eq!(get(&url, "/greetings:v1/Greet?name=Ann"), (200, "hello Ann".into()));
    assert_eq!(get(&url, "/Greet").0, 400, "checked by the schema that was published");
    assert_eq!(get(&url, "/readyz").0, 200);
    let described = get(&url, "/openapi.json").1;
    assert_eq!(described["paths"]["/Greet"]["get"]["tags"][0], "greetings:v1");
    let (status, page) = curl(&[&format!("{url}/docs")]);
    assert!(status == 200 && page.contains("<html"), "{status}: {page}");

    let began = Instant::now();
    let withdrawn = greeter.withdraw("greetings:v1");
    let gone = greeter.status_since(began, 404);
    println!("gone {:?} after it was withdrawn", gone.since(withdrawn));
    assert!(gone.since(withdrawn) < Duration::from_millis(500));
    let (_, problem) = get(&url, "/Greet?name=Ann");
    assert_eq!(problem["type"], "/problems/unknown-message");
    assert_eq!(get(&url, "/openapi.json").1["paths"], serde_json::json!({}));
}

#[test]
fn versions_of_a_service_are_served_side_by_side() {
    let folders = Folders::new();
    let (_gateway, url) = gateway(&folders, &[]);
    let greeter = greeter(&folders);
    greeter.publish(1, "greetings:v1");
    greeter.publish(2, "greetings:v2");
    let twice = serde_json::json!(["good day Ann", "good day Ann"]);
    assert_eq!(eventually_is(&url, "/greetings:v2/Greet?name=Ann", 200), twice);
    // Of the two the first in order has the short path, whichever came first.
    assert_eq!(get(&url, "/Greet?name=Ann"), (200, "hello Ann".into()));
    assert_eq!(get(&url, "/greetings/Ann"), (200, twice.clone()));
    let described = get(&url, "/openapi.json").1;
    let listed: Vec<_> = described["paths"].as_object().expect("paths").keys().collect();
    assert_eq!(listed, ["/Greet", "/greetings/{name}", "/greetings:v2/Greet"]);
    let once = ["-H", "content-type: application/json", "-d", r#"{"name":"Bo","times":1}"#];
    let (status, body) = curl(&[&once[..], &[&format!("{url}/greetings:v2/Greet")]].concat());
    assert_eq!((status, body.as_str()), (200, r#"["good day Bo"]"#));
    let (status, body) = curl(&[&once[..], &[&format!("{url}/greetings:v1/Greet")]].concat());
    assert_eq!(status, 422, "version 1 knows no times: {body}");

    greeter.withdraw("greetings:v1");
    eventually_is(&url, "/greetings:v1/Greet?name=Ann", 404);
    assert_eq!(get(&url, "/Greet?name=Ann"), (200, twice));
}

#[test]
fn a_service_that_died_is_told_from_one_that_was_withdrawn() {
    let folders = Folders::new();
    let (_gateway, url) = gateway(&folders, &[]);
    let first = greeter(&folders);
    first.publish(1, "greetings");
    eventually_is(&url, "/Greet?name=Ann", 200);
    first.0.signal(KILL);
    first.0.wait_end(SOON);
    let problem = eventually_is(&url, "/Greet?name=Ann", 503);
    assert_eq!(problem["type"], "/problems/unavailable", "it may come back");
    assert_eq!(get(&url, "/Greet").0, 400, "what it takes is remembered");
    assert_eq!(get(&url, "/readyz").0, 503);

    let second = greeter(&folders);
    second.publish(1, "greetings");
    eventually_is(&url, "/Greet?name=Ann", 200);
    second.0.signal(KILL);
    eventually_is(&url, "/Greet?name=Ann", 503);
    let lost = Instant::now();
    eventually_is(&url, "/Greet?name=Ann", 404);
    println!("forgotten after {:?}", lost.elapsed());
    assert!(lost.elapsed() > Duration::from_secs(5), "{:?}", lost.elapsed());
}

#[test]
fn only_names_that_are_allowed_are_served() {
    let folders = Folders::new();
    let (_gateway, url) = gateway(&folders, &["--names", "public:.*", "--except", ".*:secret"]);
    let greeter = greeter(&folders);
    for name in ["private", "public:secret", "public:a"] {
        greeter.publish(1, name);
    }
    eventually_is(&url, "/public:a/Greet?name=Ann", 200);
    for name in ["private", "public:secret"] {
        assert_eq!(get(&url, &format!("/{name}/Greet?name=Ann")).0, 404, "{name}");
    }
    let (ok, _, error) =
        support::run(layer_cake(&folders.mesh("host"), &["gateway", "--names", "("]));
    assert!(!ok && error.contains('('), "{error}");
}
