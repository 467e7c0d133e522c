//! A gateway on one host of a LAN that was there first, and a service of another host of which it has never
//! heard. Every promise about time is checked with slack for a busy machine; the figures are printed.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::eventually;
use serde_json::Value;
use support::{Folders, SOON, curl_by, machine::Machine, machine::join, offer::Offer};

#[test]
fn a_new_service_of_another_host_is_served_within_milliseconds() {
    let Some(lab) = layercake_lab::lab!("gateway") else { return };
    let folders = Folders::new();
    let [a, b] = ["a", "b"].map(|name| Machine::new(&lab, &folders, name));
    let gateway = a.start(&["gateway", "--listen", "0.0.0.0:5050"]);
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b]);

    let address = format!("{}:5050", a.host.address());
    let offers = Offer::start(&mut b.program("offer", &[]));
    // That the hosts know each other is another story.
    offers.publish(1, "meanwhile");
    eventually(SOON, "hosts that see each other", || {
        (a.hosts_of("meanwhile") == [b.id()]).then_some(())
    });
    offers.withdraw("meanwhile");
    eventually(SOON, "an empty mesh", || a.hosts_of("meanwhile").is_empty().then_some(()));

    let get = |path: &str| {
        let (status, body) = curl_by(b.host.command("curl"), &[&format!("http://{address}{path}")]);
        (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let began = Instant::now();
    offers.probe(&address, "/Greet?name=Ann");
    offers.status_since(began, 404);
    for round in 0..5 {
        let began = Instant::now();
        let published = offers.publish(1, "greetings:v1");
        let served = offers.status_since(began, 200).since(published);
        if round == 0 {
            assert_eq!(get("/Greet?name=Ann"), (200, "hello Ann".into()));
            let paths = &get("/openapi.json").1["paths"];
            assert_eq!(paths["/Greet"]["get"]["operationId"], "get.Greet", "{paths}");
        }
        let began = Instant::now();
        let withdrawn = offers.withdraw("greetings:v1");
        let gone = offers.status_since(began, 404).since(withdrawn);
        println!("first 200 {served:?} after Published, 404 {gone:?} after withdrawal");
        assert!(served < Duration::from_millis(500), "{served:?}");
        assert!(gone < Duration::from_millis(500), "{gone:?}");
    }
    assert_eq!(get("/Greet?name=Ann").1["type"], "/problems/unknown-message");

    offers.publish(1, "greetings:v1");
    eventually(SOON, "the service again", || (get("/Greet?name=Ann").0 == 200).then_some(()));
    offers.0.signal(9);
    eventually(SOON, "its end", || (get("/Greet?name=Ann").0 == 503).then_some(()));
}
