//! The mesh page in a real browser, over three hosts: who is there, who talks to whom, and how soon a
//! killed worker is seen to go.

mod support;

use std::path::PathBuf;

use layercake_lab::{Program, eventually};
use support::{
    Folders, LAYER_CAKE, SOON, browser::Browser, kill_9, machine::Machine, now_ms, of_mesh, run,
    workers_of,
};

/// Where pictures are kept: beside other outcomes of tests, unless told otherwise.
fn pictures() -> PathBuf {
    let folder = std::env::var_os("LAYERCAKE_PICTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    folder
}

/// A gateway on the first host, two workers on each of the others, all in one mesh, under the names that
/// the lab calls them by.
fn set_up(a: &Machine, others: [&Machine; 2]) -> [Program; 3] {
    let mut init = of_mesh(a.host.command("unshare"), &a.mesh, &["--uts", "sh", "-c"]);
    init.arg(format!("hostname {} && exec {LAYER_CAKE} mesh init --name kitchen", a.host.name()));
    let (ok, _, err) = run(init);
    assert!(ok, "{err}");
    let gateway = a.start(&["demo", "gateway"]);
    let listens = || (a.get().0 == 503).then_some(());
    eventually(SOON, "a gateway that listens", listens);
    let [one, other] = others.map(|machine| {
        let token = a.run(&["mesh", "invite"]);
        machine.run(&["mesh", "join", "--host-name", machine.host.name(), &token]);
        machine.start(&["demo", "worker", "--workers", "2"])
    });
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    [gateway, one, other]
}

#[test]
fn three_hosts_are_seen_in_a_browser_and_a_killed_worker_goes_within_a_second() {
    let Some(lab) = layercake_lab::lab!("page") else { return };
    let folders = Folders::new();
    let [a, b, c] = ["rack1", "rack2", "rack3"].map(|name| Machine::new(&lab, &folders, name));
    let _running = set_up(&a, [&b, &c]);
    // People use it meanwhile, several at a time: of one after the other, a worker that was slow once while
    // the browser started would have none.
    let mut load = a.host.command("sh");
    let eight = "curl -s -Z --parallel-immediate 'http://127.0.0.1:5050/Xy?x=200&y=[200-207]'";
    load.args(["-c", &format!("while sleep 0.1; do {eight} > /dev/null; done")]);
    let _load = Program::start(&mut load);

    let Some(browser) = Browser::start(|program| a.host.command(program)) else { return };
    browser.size(1440, 1000, false);
    browser.prefers("light");
    browser.go("http://127.0.0.1:5050/mesh");

    // Three hosts, and the pool with its four workers.
    browser.wait("three hosts", "return document.querySelectorAll('[data-host]').length === 3");
    browser.wait(
        "four workers",
        "return document.querySelectorAll('.pool:first-child [data-worker]').length === 4",
    );
    browser.wait("live", "return document.getElementById('status').dataset.state === 'live'");
    let busy = "return document.querySelectorAll('#drawing .link.busy').length >= 4";
    browser.wait("links on which something passes", busy);
    let named = "return [...document.querySelectorAll('.chip')].filter(
        (chip) => chip.textContent.startsWith('textures:worker')).length >= 4";
    browser.wait("the workers' names", named);
    let holders = "return [...document.querySelectorAll('#names tr')].some(
        (row) => row.children[0].textContent === 'textures:worker' && row.children[2].textContent === '4')";
    browser.wait("the name with its holders", holders);

    // A worker is killed: its row goes.
    let victim = workers_of(&b.mesh, Some(&b.host.pids()))[0];
    let row = format!(
        "return [...document.querySelectorAll('.pool:first-child [data-worker]')].find(
            (row) => row.children[2].textContent === 'pid {victim}')?.dataset.worker"
    );
    let node = browser.wait("the row of the worker that will be killed", &row);
    let node = node.as_str().expect("a node").to_owned();
    browser.run(&format!(
        "window.gone = 0; window.dropped = 0;
        const look = () => {{
            const row = document.querySelector('[data-worker=\"{node}\"]')
                || document.querySelector('[data-node=\"{node}\"]')
                || document.querySelector('[data-node-card=\"{node}\"]');
            if (!row && !window.gone) window.gone = Date.now();
            const said = [...document.querySelectorAll('#log [data-event=\"withdrawn\"]')].some(
                (entry) => entry.textContent.includes('textures:worker')
                    && entry.textContent.includes('node {}'));
            if (said && !window.dropped) window.dropped = Date.now();
            if (window.gone && window.dropped) clearInterval(timer);
        }};
        const timer = setInterval(look, 5);",
        &node[..4],
    ));
    let killed = now_ms();
    kill_9(victim);
    let gone = browser.wait("the worker gone", "return window.gone").as_u64().expect("a time");
    let dropped =
        browser.wait("Dropped in the log", "return window.dropped").as_u64().expect("a time");
    println!("worker killed: its row gone after {} ms", gone.saturating_sub(killed));
    println!("worker killed: Dropped in the log after {} ms", dropped.saturating_sub(killed));
    assert!(gone.saturating_sub(killed) < 1000, "{} ms", gone.saturating_sub(killed));
    assert!(dropped.saturating_sub(killed) < 1000, "{} ms", dropped.saturating_sub(killed));
    // Another one is started in its place, and is shown.
    browser.wait(
        "four workers again",
        "return document.querySelectorAll('.pool:first-child [data-worker]').length === 4",
    );
    let back = "return [...document.querySelectorAll('#log [data-event=\"published\"]')].some(
        (entry) => entry.textContent.includes('Available'))";
    browser.wait("Available in the log", back);

    // Only what is asked for is listed.
    browser.run(
        "const filter = document.getElementById('filter');
        filter.value = 'no such thing'; filter.dispatchEvent(new Event('input'));",
    );
    browser.wait("an empty list", "return document.querySelectorAll('#log li').length === 0");
    browser.run(
        "const filter = document.getElementById('filter');
        filter.value = ''; filter.dispatchEvent(new Event('input'));",
    );

    // Curves need a moment to be worth a picture.
    let points = "return document.querySelector('.spark path:last-child').getAttribute('d')
        ?.split('L').length > 25";
    browser.wait("curves", points);
    browser.wait(
        "rest",
        "return document.getAnimations().every((each) => each.playState === 'finished')",
    );
    assert!(!browser.overflows(), "on a desk");
    browser.picture(&pictures().join("mesh.png"), false);
    browser.picture(&pictures().join("mesh-whole.png"), true);
    browser.prefers("dark");
    browser.picture(&pictures().join("mesh-dark.png"), false);

    // On a phone nothing sticks out.
    browser.size(390, 844, true);
    browser.wait("the narrow page", "return document.documentElement.clientWidth === 390");
    browser.wait("a drawing", "return document.querySelector('#drawing svg').clientWidth <= 390");
    assert!(!browser.overflows(), "on a phone, in the dark");
    browser.picture(&pictures().join("mesh-phone-dark.png"), true);
    browser.prefers("light");
    assert!(!browser.overflows(), "on a phone");
    browser.picture(&pictures().join("mesh-phone.png"), true);

    // A host is lost: it stays, and says so.
    c.host.lose_power();
    let lost = "return [...document.querySelectorAll('[data-host] .state')].some(
        (state) => state.textContent === 'host lost')";
    browser.wait("a lost host", lost);
    browser.wait(
        "two workers",
        "return document.querySelectorAll('.pool:first-child [data-worker]').length === 2",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
