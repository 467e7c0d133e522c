//! Three hosts on a LAN: joined by token, found by mDNS, no address configured anywhere. A gateway
//! on one, workers on the others, and what happens when processes and hosts go and come back.
//!
//! Every promise about time is checked with slack for a busy machine; the figure is printed.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::eventually;
use support::{
    Folders, SOON, assert_table, kill_9, machine::Machine, machine::gateway_and_workers,
    machine::join, run, workers_of,
};

fn dropped_of<'a>(host: &'a str, reason: &'a str) -> impl Fn(&str) -> bool + 'a {
    move |line| line.contains("\"dropped\"") && line.contains(host) && line.contains(reason)
}

#[test]
fn workers_on_two_hosts_serve_a_gateway_on_a_third_and_come_and_go() {
    let Some(lab) = layercake_lab::lab!("three") else { return };
    let folders = Folders::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| Machine::new(&lab, &folders, name));
    let _running = gateway_and_workers(&a, [&b, &c]);
    let (b_id, c_id) = (b.id(), c.id());
    let (status, body) = a.get();
    assert_eq!(status, 200, "{body}");
    assert_table(&body, 2, 2);

    let views = [&a, &c].map(|m| m.start(&["ls", "--watch", "--json", "textures:worker"]));
    for view in &views {
        eventually(SOON, "a full view", || (view.lines().len() == 4).then_some(()));
    }

    // A process dies.
    let victim = workers_of(&b.mesh, Some(&b.host.pids()))[0];
    let killed = Instant::now();
    kill_9(victim);
    for view in &views {
        let (at, _) = view.wait_line_since(killed, dropped_of(&b_id, ""), SOON);
        println!("process killed: dropped elsewhere after {:?}", at - killed);
        assert!(at - killed < Duration::from_millis(500), "{:?}", at - killed);
    }
    for view in &views {
        let again = |line: &str| line.contains("\"available\"") && line.contains(&b_id);
        view.wait_line_since(killed, again, SOON);
    }

    // A cable is pulled: the gateway goes on with the other host.
    let pulled = Instant::now();
    b.host.cable(false);
    for view in &views {
        let (at, line) = view.wait_line_since(pulled, dropped_of(&b_id, "host"), SOON);
        println!("cable pulled: dropped after {:?}: {line}", at - pulled);
        assert!(at - pulled < Duration::from_secs(4), "{:?}", at - pulled);
    }
    for _ in 0..20 {
        let (status, body) = a.get();
        assert_eq!(status, 200, "the other host serves: {body}");
    }
    let plugged = Instant::now();
    b.host.cable(true);
    for view in &views {
        let back = |line: &str| line.contains("\"available\"") && line.contains(&b_id);
        let (at, _) = view.wait_line_since(plugged, back, SOON);
        println!("cable back: available after {:?}", at - plugged);
        assert!(at - plugged < Duration::from_secs(6), "{:?}", at - plugged);
    }
    // Now the other host goes, all at once: only the returned one can serve.
    let lost = Instant::now();
    c.host.lose_power();
    let (at, _) = views[0].wait_line_since(lost, dropped_of(&c_id, "host"), SOON);
    println!("power lost: dropped after {:?}", at - lost);
    assert!(at - lost < Duration::from_secs(4), "{:?}", at - lost);
    eventually(SOON, "answers from the host that came back", || {
        (0..5).all(|_| a.get().0 == 200).then_some(())
    });
}

#[test]
fn start_order_does_not_matter_and_strangers_see_nothing() {
    let Some(lab) = layercake_lab::lab!("order") else { return };
    let folders = Folders::new();
    let [a, b, stranger] = ["a", "b", "s"].map(|name| Machine::new(&lab, &folders, name));
    let host = a.start(&["host"]);
    eventually(SOON, "something that answers a joining host", || {
        run(a.command(&["mesh", "invite"])).0.then_some(())
    });
    join(&a, &[&b]);
    host.signal(15);
    let (_, status) = host.wait_end(SOON);
    assert!(status.success(), "{:?}", host.lines());

    // Workers before any gateway, and before any other host is there.
    let worker = b.start(&["demo", "worker", "--workers", "1"]);
    eventually(SOON, "a published worker", || {
        (b.hosts_of("textures:worker").len() == 1).then_some(())
    });
    let own = stranger.start(&["demo", "worker", "--workers", "1"]);
    let gateway = a.start(&["demo", "gateway"]);
    let started = Instant::now();
    let (at, _) = gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    println!("gateway started last: ready after {:?}", at - started);
    assert_eq!(a.get().0, 200);

    // Everybody has heard everybody's multicast by now; of another mesh nobody sees anything.
    eventually(SOON, "the stranger's own worker", || {
        (stranger.hosts_of(".*").len() == 1).then_some(())
    });
    assert_eq!(stranger.hosts_of(".*"), [stranger.id()]);
    assert_eq!(a.hosts_of(".*"), [b.id()]);

    // The worker's host loses the gateway's, for longer than any patience, and finds it again.
    b.host.block_from(&a.host);
    eventually(SOON, "no worker", || (a.get().0 == 503).then_some(()));
    b.host.heal();
    let healed = Instant::now();
    eventually(SOON, "the worker again", || (a.get().0 == 200).then_some(()));
    println!("partition healed: answered after {:?}", healed.elapsed());
    drop((worker, own));
}
