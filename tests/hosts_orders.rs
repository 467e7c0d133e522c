//! In which order the parts of a service are started does not matter: a host directory, a gateway and two
//! workers on three hosts, in all 24 orders.

mod support;

use std::time::{Duration, Instant};

use layercake_lab::{Program, eventually};
use support::{Folders, SOON, machine::Machine, machine::join, run};

/// What is promised, and what a machine that is busy with other things may take.
const PROMISED: Duration = Duration::from_secs(3);
const BUSY: Duration = Duration::from_secs(8);

/// All orders of four.
fn orders() -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| ![a, b].contains(c)) {
                all.push([a, b, c, 6 - a - b - c]);
            }
        }
    }
    all
}

#[test]
fn every_order_of_starting_comes_to_the_same() {
    let Some(lab) = layercake_lab::lab!("orders") else { return };
    let folders = Folders::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| Machine::new(&lab, &folders, name));
    let first = a.start(&["host"]);
    first.wait_line(|line| line.starts_with("ready: "), SOON);
    join(&a, &[&b, &c]);
    drop(first);
    let (b_id, c_id) = (b.id(), c.id());

    let begun = Instant::now();
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let mut took = Vec::new();
    for order in orders {
        let start = |part| match part {
            0 => a.start(&["host"]),
            1 => a.start(&["demo", "gateway"]),
            2 => b.start(&["demo", "worker", "--workers", "1"]),
            _ => c.start(&["demo", "worker", "--workers", "1"]),
        };
        let parts: Vec<Program> = order.into_iter().map(start).collect();
        let started = Instant::now();
        eventually(SOON, &format!("a service after the order {order:?}"), || {
            (a.get().0 == 200).then_some(())
        });
        let answered = started.elapsed();
        eventually(SOON, &format!("both workers after the order {order:?}"), || {
            let hosts = a.hosts_of("textures:worker");
            (hosts.len() == 2 && hosts.contains(&b_id) && hosts.contains(&c_id)).then_some(())
        });
        let right = started.elapsed();
        println!("{order:?}: answered after {answered:?}, right after {right:?}");
        assert!(right < BUSY, "{order:?}: {right:?}");
        took.push(right);
        for part in &parts {
            part.signal(15);
        }
        for part in &parts {
            let (_, status) = part.wait_end(SOON);
            assert!(status.success(), "{:?}", part.lines());
        }
    }
    took.sort();
    let late = took.iter().filter(|took| **took > PROMISED).count();
    println!(
        "24 orders in {:?}: median {:?}, longest {:?}, {late} over {PROMISED:?}",
        begun.elapsed(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    // None of them all is what a machine with nothing else to do shows.
    assert!(late <= 6, "{took:?}");
    let (ok, names, err) = run(a.command(&["ls", "--json"]));
    assert!(ok && names.is_empty(), "nothing is left: {names}{err}");
}
