//! The front door and a real browser on one machine: who is shown the mesh page, what it says and how it
//! looks, and what pages of other sites may do.

mod support;

use layercake_lab::{Program, eventually};
use serde_json::Value;
use support::{Folders, SOON, browser::Browser, curl, free_port, kill_9, layer_cake, workers_of};

const KEY: &str = "a key that nobody guesses";

/// A demo with the page, and where it is.
fn start(folders: &Folders, arguments: &[&str]) -> (Program, String) {
    let mut all = vec!["demo", "--workers", "2", "--pool", "hosts"];
    all.extend(arguments);
    if !arguments.contains(&"--listen") {
        all.extend(["--listen", "127.0.0.1:0"]);
    }
    let demo = Program::start(&mut layer_cake(&folders.mesh("host"), &all));
    let (_, line) = demo.wait_line(|line| line.starts_with("ready: "), SOON);
    (demo, line["ready: ".len()..].to_owned())
}

fn data(url: &str, arguments: &[&str]) -> Value {
    let (status, body) = curl(&[arguments, &[&format!("{url}/mesh/data")]].concat());
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect(&body)
}

#[test]
fn programs_read_what_people_see() {
    let folders = Folders::new();
    let (_demo, url) = start(&folders, &[]);
    for _ in 0..7 {
        assert_eq!(curl(&[&format!("{url}/Xy?x=1&y=1")]).0, 200);
    }
    let (data, pool) = eventually(SOON, "both workers in the pool", || {
        let data = data(&url, &[]);
        let viewer = data["viewer"].as_str().expect("a node");
        let pools = data["stories"][viewer]["pools"].as_array()?.clone();
        let found = pools.into_iter().find(|pool| pool["workers"][0]["place"] == "member")?;
        (found["ready"] == 2).then_some((data, found))
    });
    assert_eq!(data["hosts"][0]["state"], "here");
    let totals = &pool["totals"];
    assert_eq!((&totals["started"], &totals["answered"]), (&7.into(), &7.into()), "{pool}");
    let nodes = data["hosts"][0]["nodes"].as_array().expect("nodes");
    assert!(nodes.iter().any(|node| node["node"] == data["viewer"]), "{data:#}");
    // Every request has passed over a link, and was handled by an actor.
    let all = |within: &Value, list: &str, field: &str| {
        let list = within.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().map(|each| each[field].as_u64().unwrap_or(0)).sum::<u64>()
    };
    let stories = data["stories"].as_object().expect("stories");
    let taken = stories.values().map(|story| all(story, "/actors", "taken")).sum::<u64>();
    assert_eq!(taken, 7, "{data:#}");
    let sum = |of: &dyn Fn(&Value) -> u64| nodes.iter().map(of).sum::<u64>();
    let sent = sum(&|node| all(node, "/sessions", "messages_sent"));
    let received = sum(&|node| all(node, "/sessions", "messages_received"));
    assert!(sent >= 14 && received >= 14, "{sent} sent, {received} received");
}

#[test]
fn a_page_on_loopback_is_shown_to_nobody_who_comes_from_elsewhere() {
    let folders = Folders::new();
    let (_demo, url) = start(&folders, &[]);
    let page = format!("{url}/mesh");
    let (status, body) = curl(&["-i", &page]);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("default-src 'none'") && body.contains("nosniff"), "{body}");
    assert!(!body.contains("=\"http") && !body.contains("=\"//"), "nothing from elsewhere: {body}");
    let cases: [(&[&str], u16); 6] = [
        (&["-H", "Host: evil.example"], 403),
        (&["-H", "X-Forwarded-For: 10.0.0.9"], 403),
        (&["-X", "POST"], 405),
        (&["-X", "DELETE"], 405),
        (&["-I"], 200),
        (&["-H", "Host: localhost"], 200),
    ];
    for (arguments, expected) in cases {
        let (status, body) = curl(&[arguments, &[&page]].concat());
        assert_eq!(status, expected, "{arguments:?}: {body}");
    }
    let within = ["-H", "Sec-Fetch-Site: cross-site"];
    assert_eq!(curl(&[&within[..], &[&format!("{url}/mesh/events")]].concat()).0, 403);
    assert_eq!(curl(&[&format!("{url}/mesh/nothing")]).0, 404);
    assert_eq!(curl(&[&format!("{url}/meshes")]).0, 404);
}

#[test]
fn a_page_of_another_site_needs_its_origin_declared() {
    let folders = Folders::new();
    let Some(browser) = Browser::start(|program| std::process::Command::new(program)) else {
        return;
    };
    // A page of its own site: what another front door says at `/healthz`. Neighbouring ports are other origins.
    let (_site, site) = start(&folders, &[]);
    let other = Folders::new();
    let (_strict, asked) = start(&other, &[]);
    let ask = |url: &str| {
        let script = |method: &str, target: &str, more: &str| {
            format!(
                "fetch('{url}{target}', {{method: '{method}'{more}}})
                    .then(answer => answer.text().then(text => answer.status + ' ' + text))
                    .catch(error => 'kept: ' + error)"
            )
        };
        let json = ", headers: {'content-type': 'application/json'}, body: '{\"x\":1,\"y\":1}'";
        let form = ", body: new URLSearchParams({x: 1, y: 1})";
        let all = [
            script("POST", "/Xy", json),
            script("POST", "/Xy", form),
            script("GET", "/Xy?x=1&y=1", ""),
        ];
        browser.go(&format!("{site}/healthz"));
        browser.run(&format!(
            "window.told = null; Promise.all([{}]).then(told => window.told = told)",
            all.join(", ")
        ));
        let told = browser.wait("the answers", "return window.told");
        told.as_array()
            .expect("three answers")
            .iter()
            .map(|t| t.as_str().unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    for told in ask(&asked) {
        assert!(told.starts_with("kept: "), "{told}");
    }
    // Not only was the answer kept from the page: nothing was done.
    let metrics = |url: &str| curl(&[&format!("{url}/metrics")]).1;
    let done = "layercake_http_requests_total{message=\"Xy\",method=\"POST\",status=\"200\"}";
    assert!(!metrics(&asked).contains(done), "{}", metrics(&asked));
    assert!(metrics(&asked).contains(&done.replace("200", "403")), "{}", metrics(&asked));

    let third = Folders::new();
    let (_open, asked) = start(&third, &["--origin", &site]);
    for told in ask(&asked) {
        assert!(told.starts_with("200 [["), "{told}");
    }
}

#[test]
fn beyond_this_host_only_the_key_opens() {
    let folders = Folders::new();
    let port = free_port();
    let (listen, url) = (format!("0.0.0.0:{port}"), format!("http://127.0.0.1:{port}"));
    let (demo, _) = start(&folders, &["--listen", &listen]);
    let (status, body) = curl(&[&format!("{url}/mesh")]);
    assert!(status == 404 && body.contains("--mesh-key-file"), "{status} {body}");
    drop(demo);

    let key = folders.mesh("key");
    std::fs::write(&key, format!("{KEY}\n")).expect("a folder to write to");
    let key_file = key.display().to_string();
    let (demo, _) = start(&folders, &["--listen", &listen, "--mesh-key-file", &key_file]);
    let page = format!("{url}/mesh/data");
    let (status, body) = curl(&["-i", &page]);
    assert!(status == 401 && body.contains("www-authenticate: Bearer"), "{status} {body}");
    assert_eq!(curl(&["-H", "Authorization: Bearer a key that is wrong", &page]).0, 401);
    data(&url, &["-H", &format!("Authorization: Bearer {KEY}")]);
    // The style is needed by the form, and says nothing; all else is behind the key.
    assert_eq!(curl(&[&format!("{url}/mesh/page.css")]).0, 200);
    assert_eq!(curl(&[&format!("{url}/mesh/main.js")]).0, 401);
    assert_eq!(curl(&[&format!("{url}/mesh/events")]).0, 401);
    let (status, body) = curl(&["-d", "key=guess", &format!("{url}/mesh/login")]);
    assert!(status == 401 && body.contains("<form"), "{status} {body}");

    let Some(browser) = Browser::start(|program| std::process::Command::new(program)) else {
        return;
    };
    browser.go(&format!("{url}/mesh"));
    browser.run(&format!(
        "document.getElementById('key').value = '{KEY}'; document.querySelector('form').submit()"
    ));
    browser.wait("the page", "return document.querySelectorAll('[data-worker]').length > 0");
    let address = browser.run("return location.pathname + location.search + document.cookie");
    assert_eq!(address, "/mesh", "neither the address nor a script knows the key");
    browser.go(&format!("{url}/mesh?key={}", KEY.replace(' ', "+")));
    browser.wait("the page", "return document.querySelectorAll('[data-host]').length === 1");
    assert_eq!(browser.run("return location.search"), "", "the key is gone from the address");

    // Another gateway does not know the cookie, and the page says so by asking anew.
    drop(demo);
    let (_demo, _) = start(&folders, &["--listen", &listen, "--mesh-key-file", &key_file]);
    browser.wait("the form", "return document.getElementById('key') !== null");
}

#[test]
fn a_key_that_is_of_no_use_is_said_at_the_start() {
    let folders = Folders::new();
    let key = folders.mesh("key");
    std::fs::write(&key, "short").expect("a folder to write to");
    let missing = folders.mesh("no-key").display().to_string();
    for (file, words) in [(key.display().to_string(), "16 characters"), (missing, "cannot read")] {
        let arguments = ["demo", "--listen", "127.0.0.1:0", "--mesh-key-file", &file];
        let (ok, _, err) = support::run(layer_cake(&folders.mesh("host"), &arguments));
        assert!(!ok && err.contains(words) && err.contains(&file), "{err}");
    }
}

#[test]
fn so_many_may_look_at_a_time_and_their_places_are_given_back() {
    let folders = Folders::new();
    let (_demo, url) = start(&folders, &[]);
    let events = format!("{url}/mesh/events");
    let look = || {
        let mut command = std::process::Command::new("curl");
        Program::start(command.args(["-sN", "--max-time", "60", &events]))
    };
    let viewers: Vec<_> = (0..32).map(|_| look()).collect();
    for viewer in &viewers {
        viewer.wait_line(|line| line == "event: view", SOON);
    }
    let (status, body) = curl(&["-i", "--max-time", "2", &events]);
    assert!(status == 503 && body.contains("32 look at the mesh page"), "{status} {body}");
    drop(viewers);
    eventually(SOON, "a place", || (curl(&[&format!("{url}/mesh/data")]).0 == 200).then_some(()));
}

#[test]
fn a_browser_shows_one_host_and_sees_a_worker_go_and_the_gateway_too() {
    let folders = Folders::new();
    let (demo, url) = start(&folders, &[]);
    let Some(browser) = Browser::start(|program| std::process::Command::new(program)) else {
        return;
    };
    browser.size(1200, 900, false);
    browser.go(&format!("{url}/mesh"));
    browser.wait("one host", "return document.querySelectorAll('[data-host]').length === 1");
    let workers =
        "return document.querySelectorAll('.pool:first-child [data-worker]').length === 2";
    browser.wait("two workers", workers);
    let victim = workers_of(&folders.mesh("host"), None)[0];
    let row = |pid: u32| {
        format!(
            "return [...document.querySelectorAll('[data-worker]')].some(
                (row) => row.children[2].textContent === 'pid {pid}')"
        )
    };
    browser.wait("its row", &row(victim));
    kill_9(victim);
    browser.wait("its row gone", &format!("return !(() => {{ {} }})()", row(victim)));
    let dropped = "return [...document.querySelectorAll('#log li')].some(
        (entry) => /Dropped.*textures:worker.*process died/s.test(entry.textContent))";
    browser.wait("Dropped in the log", dropped);
    browser.wait("another one", workers);

    // One button for the colours, which are remembered.
    browser.prefers("light");
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.run(ground);
    browser
        .run("document.getElementById('theme').click(); document.getElementById('theme').click()");
    assert_eq!(browser.run("return document.documentElement.dataset.theme"), "dark");
    assert_ne!(browser.run(ground), light);
    browser.go(&format!("{url}/mesh"));
    assert_eq!(browser.run("return document.documentElement.dataset.theme"), "dark");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // The end of the gateway ends the feed at once, and the page says that what it shows is old.
    browser.wait("live again", "return document.getElementById('status').dataset.state === 'live'");
    demo.signal(15);
    let (_, status) = demo.wait_end(SOON);
    assert!(status.success(), "{:?}", demo.lines());
    browser.wait(
        "a word about it",
        "return document.getElementById('status').dataset.state === 'lost'",
    );
}
