//! Chaos on three hosts: workers and directories are killed, cables pulled, packets lost, partitions
//! made and healed, at random and under load. Afterwards everything must be as it was.
//!
//! The suite plays a short one, always the same; `cargo xtask soak chaos` plays minutes of another each
//! time. The seed is printed, and `LAYERCAKE_SOAK_SEED` plays it again.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use layercake_lab::{Program, eventually};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use support::{
    Folders, SOON, kill_9, length, let_pass, machine::Machine, machine::join, resident, workers_of,
};

/// How long everything may take to be right again when the last fault is mended: a worker that was
/// killed again and again stands down for up to 38 s.
const RECOVERY: Duration = Duration::from_secs(60);

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn after_any_faults_the_mesh_is_whole_again() {
    let Some(lab) = layercake_lab::lab!("chaos") else { return };
    let soaking = std::env::var_os("LAYERCAKE_SOAK_SECONDS").is_some();
    let seed = from_env("LAYERCAKE_SOAK_SEED", if soaking { rand::random() } else { 7 });
    let length = length(12);
    println!("LAYERCAKE_SOAK_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);

    let folders = Folders::new();
    let machines = Arc::new(["a", "b", "c"].map(|name| Machine::new(&lab, &folders, name)));
    let [a, b, c] = &*machines;
    let gateway = a.start(&["demo", "gateway"]);
    eventually(SOON, "a gateway that listens", || (a.get().0 == 503).then_some(()));
    join(a, &[b, c]);
    let workers = [b, c].map(|machine| machine.start(&["demo", "worker", "--workers", "3"]));
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    let whole = || {
        machines.iter().all(|machine| machine.hosts_of("textures:worker").len() == 6).then_some(())
    };
    eventually(SOON, "all six workers seen on all hosts", whole);
    // What serves the directory beside the workers, and is killed and started again.
    let mut extra: Vec<Option<Program>> = vec![None, None, None];

    let stop = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let (machines, stop) = (machines.clone(), stop.clone());
        move || {
            let mut answers = BTreeMap::new();
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                *answers.entry(machines[0].get().0).or_insert(0) += 1;
                slowest = slowest.max(asked.elapsed());
            }
            (answers, slowest)
        }
    });
    let small = resident(gateway.pid());

    let end = Instant::now() + length;
    let mut faults = 0;
    while Instant::now() < end {
        let machine = if rng.random() { b } else { c };
        match rng.random_range(0..6) {
            0 | 1 => {
                let alive = workers_of(&machine.mesh, Some(&machine.host.pids()));
                if let Some(victim) = alive.choose(&mut rng) {
                    kill_9(*victim);
                }
            }
            2 => machine.host.cable(false),
            3 => machine.host.block_from(&a.host),
            4 => machine.host.drop_input(rng.random_range(0.1..0.5)),
            _ => {
                let place = rng.random_range(0..3);
                match extra[place].take() {
                    Some(directory) => directory.signal(9),
                    None => extra[place] = Some(machines[place].start(&["host"])),
                }
            }
        }
        faults += 1;
        // The pause is part of the schedule.
        let_pass(Duration::from_millis(rng.random_range(50..2500)));
        if rng.random_bool(0.7) {
            for machine in &*machines {
                machine.host.heal();
                machine.host.cable(true);
            }
        }
    }
    for machine in &*machines {
        machine.host.heal();
        machine.host.cable(true);
    }
    let mended = Instant::now();
    eventually(RECOVERY, "all six workers seen on all hosts again", whole);
    println!("whole again {:?} after the last of {faults} faults", mended.elapsed());
    eventually(RECOVERY, "a steady service", || (0..20).all(|_| a.get().0 == 200).then_some(()));
    stop.store(true, Ordering::Relaxed);
    let (answers, slowest) = load.join().expect("no panic");
    let large = resident(gateway.pid());
    println!("answers {answers:?}, slowest {slowest:?}, gateway {small} -> {large} KiB");
    assert!(answers.keys().all(|s| [200, 502, 503, 504].contains(s)), "{answers:?}");
    assert!(large < small + 20_000, "the gateway has grown from {small} to {large} KiB");
    assert!(workers.iter().all(|w| w.ended().is_none()) && gateway.ended().is_none());
}
