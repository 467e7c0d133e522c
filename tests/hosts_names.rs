//! Names on five hosts of a LAN, no address configured: how fast they are known, and that they are right
//! under loss, partition, churn and on a machine that is out of breath.
//!
//! Each story is short here; `cargo xtask soak NAME [SECONDS]` plays it as long as the promise says.
//! Every promise about time is checked with slack for a busy machine; the figures are printed.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use layercake_lab::{Lab, Program, eventually};
use support::{Folders, SOON, length, let_pass, machine::Machine, machine::join, now_ms, resident};

/// A node that does as it is told.
struct Herald {
    program: Program,
}

impl Herald {
    fn start(machine: &Machine) -> Self {
        let mut command = machine.program("herald", &[]);
        let program = Program::start_listening(&mut command);
        program.wait_line(|line| line == "ready", SOON);
        Self { program }
    }

    /// Gives a command and returns what it answers.
    fn obey(&self, command: &str, within: Duration) -> String {
        let since = Instant::now();
        self.program.say(command);
        let answers = |line: &str| line.starts_with("done ") || line.starts_with("held ");
        self.program.wait_line_since(since, answers, within).1
    }

    fn count(&self, pattern: &str) -> usize {
        let answer = self.obey(&format!("count {pattern}"), SOON);
        answer.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// The lines of a kind, cut into words, that came since a moment.
    fn said(&self, kind: &str, since: Instant) -> Vec<Vec<String>> {
        let lines = self.program.lines();
        let recent = lines.iter().filter(|line| line.at >= since);
        recent
            .map(|line| line.text.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter(|words| words[0] == kind)
            .collect()
    }

    /// Who holds which name, by all it was told.
    fn holders(&self, prefix: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut holders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in self.program.lines() {
            let words: Vec<_> = line.text.split(' ').collect();
            match words[..] {
                ["available", name, host, ..] if name.starts_with(prefix) => {
                    holders.entry(name.to_owned()).or_default().insert(host.to_owned());
                }
                ["dropped", name, host, ..] if name.starts_with(prefix) => {
                    holders.entry(name.to_owned()).or_default().remove(host);
                }
                _ => {}
            }
        }
        holders
    }
}

/// Five hosts of one mesh, and a herald on each.
fn five(lab: &Lab, folders: &Folders) -> (Vec<Machine>, Vec<Herald>) {
    let machines: Vec<_> =
        ["a", "b", "c", "d", "e"].map(|name| Machine::new(lab, folders, name)).into();
    // One that is known to others answers those who join.
    let first = Herald::start(&machines[0]);
    first.obey("publish first", SOON);
    join(&machines[0], &machines[1..].iter().collect::<Vec<_>>());
    let rest = machines[1..].iter().map(Herald::start);
    let heralds: Vec<_> = std::iter::once(first).chain(rest).collect();
    for (number, herald) in heralds.iter().enumerate() {
        herald.obey(&format!("publish here:{number}"), SOON);
    }
    for herald in &heralds {
        eventually(SOON, "five hosts that see each other", || {
            (herald.count("here:.*") == 5).then_some(())
        });
    }
    (machines, heralds)
}

fn percentile(sorted: &[u128], share: f64) -> Duration {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
    Duration::from_micros(u64::try_from(sorted[at]).expect("short"))
}

/// Clock ticks that a process has used, in user mode and in the kernel: hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let stat = stat.unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

/// Bytes that a host has sent to the others.
fn sent(machine: &Machine) -> u64 {
    let output = machine.host.command("cat").arg("/proc/net/dev").output().expect("cat");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("eth0");
    line.split_whitespace().nth(8).and_then(|n| n.parse().ok()).expect("bytes")
}

/// Programs that do nothing but to keep the processors busy.
fn burners(count: usize) -> Vec<Program> {
    let burner = || Program::start(Command::new("sh").args(["-c", "while :; do :; done"]));
    (0..count).map(|_| burner()).collect()
}

#[test]
fn latency_a_name_is_known_on_all_hosts_within_milliseconds() {
    let Some(lab) = layercake_lab::lab!("latency") else { return };
    let folders = Folders::new();
    let (_machines, heralds) = five(&lab, &folders);
    for herald in &heralds[1..] {
        herald.obey("watch spot:.*", SOON);
    }
    let began = Instant::now();
    let mut published = BTreeMap::new();
    for number in 0..1000 {
        let answer = heralds[0].obey(&format!("publish spot:{number}"), SOON);
        let words: Vec<_> = answer.split(' ').collect();
        published.insert(words[2].to_owned(), words[3].parse::<u128>().expect("a time"));
    }
    let mut took = Vec::new();
    for herald in &heralds[1..] {
        let seen = eventually(SOON, "all thousand names", || {
            let seen = herald.said("available", began);
            (seen.len() >= 1000).then_some(seen)
        });
        assert_eq!(seen.len(), 1000, "each once");
        took.extend(seen.iter().map(|words| {
            let at: u128 = words[4].parse().expect("a time");
            at.saturating_sub(published[&words[1]])
        }));
    }
    took.sort_unstable();
    let [half, most, worst] = [0.5, 0.99, 1.0].map(|share| percentile(&took, share));
    println!(
        "published to Available on four other hosts: p50 {half:?}, p99 {most:?}, worst {worst:?}"
    );
    assert!(most < Duration::from_millis(500), "{most:?}");
}

#[test]
fn loss_of_every_fifth_packet_drops_no_name() {
    let Some(lab) = layercake_lab::lab!("loss") else { return };
    let folders = Folders::new();
    let (machines, heralds) = five(&lab, &folders);
    for (number, herald) in heralds.iter().enumerate() {
        herald.obey(&format!("many 200 lot{number}"), SOON);
    }
    for herald in &heralds {
        let whole = || (herald.count("lot.*") == 1000).then_some(());
        eventually(SOON, "a thousand names", whole);
        herald.obey("watch .*", SOON);
    }
    let began = Instant::now();
    for machine in &machines {
        machine.host.drop_input(0.2);
    }
    let end = began + length(10);
    let mut more = 0;
    while Instant::now() < end {
        for (number, herald) in heralds.iter().enumerate() {
            herald.obey(&format!("publish more:{number}:{more}"), SOON);
        }
        more += 1;
        // The loss is to last.
        let_pass(Duration::from_millis(200));
    }
    for (number, herald) in heralds.iter().enumerate() {
        herald.obey(&format!("many 20 last{number}"), SOON);
    }
    for machine in &machines {
        machine.host.heal();
    }
    let healed = Instant::now();
    for herald in &heralds {
        eventually(SOON, "all names, also the last ones", || {
            let last = herald.count("last.*") == 100 && herald.count("more:.*") == 5 * more;
            (last && herald.count("lot.*") == 1000).then_some(())
        });
    }
    let agreed = healed.elapsed();
    println!("{more} rounds under loss; all agree {agreed:?} after it stopped");
    for herald in &heralds {
        assert_eq!(herald.said("dropped", began), Vec::<Vec<String>>::new(), "a false alarm");
    }
    assert!(agreed < Duration::from_secs(6), "{agreed:?}");
}

#[test]
fn partition_leaves_one_holder_of_each_exclusive_name() {
    let Some(lab) = layercake_lab::lab!("partition") else { return };
    let folders = Folders::new();
    let (machines, heralds) = five(&lab, &folders);
    let ids: Vec<_> = machines.iter().map(Machine::id).collect();
    for herald in &heralds {
        herald.obey("watch (here|chief):.*", SOON);
    }
    let began = Instant::now();
    let (three, two) = machines.split_at(3);
    for a in three {
        for b in two {
            a.host.block_from(&b.host);
            b.host.block_from(&a.host);
        }
    }
    let lost = |herald: &Herald, host: &String| {
        herald.said("dropped", began).iter().any(|words| &words[2] == host)
    };
    eventually(SOON, "two halves that have lost each other", || {
        let left = heralds[..3].iter().all(|h| ids[3..].iter().all(|id| lost(h, id)));
        let right = heralds[3..].iter().all(|h| ids[..3].iter().all(|id| lost(h, id)));
        (left && right).then_some(())
    });
    // Each name is claimed on both sides, here first on the one, there on the other.
    for number in 0..6 {
        let (mut first, mut second) = (number % 3, 3 + number % 2);
        if number % 2 == 1 {
            (first, second) = (second, first);
        }
        for side in [first, second] {
            let answer = heralds[side].obey(&format!("exclusive chief:{number}"), SOON);
            assert!(answer.starts_with("done exclusive"), "each side grants: {answer}");
            // Claims are dated by the millisecond; the next one is to be younger.
            let dated = now_ms();
            eventually(SOON, "a later date", || (now_ms() > dated).then_some(()));
        }
        let third = &heralds[(number + 1) % 3];
        let name = format!("chief:{number}");
        eventually(SOON, "a holder known on its side", || {
            third.holders(&name).contains_key(&name).then_some(())
        });
        let refused = third.obey(&format!("exclusive {name}"), SOON);
        assert!(refused.starts_with("held "), "held on this side: {refused}");
    }
    // The partition is to last.
    let_pass(length(3).saturating_sub(began.elapsed()));
    let healed = Instant::now();
    for machine in &machines {
        machine.host.heal();
    }
    let agreed = || {
        let views: Vec<_> = heralds.iter().map(|herald| herald.holders("chief:")).collect();
        let one_each = views[0].len() == 6 && views[0].values().all(|hosts| hosts.len() == 1);
        let told: usize = heralds.iter().map(|herald| herald.said("lost", began).len()).sum();
        (one_each && views.iter().all(|view| *view == views[0]) && told == 6)
            .then(|| views[0].clone())
    };
    let holders = eventually(SOON, "one holder of each name on all hosts, six losers told", agreed);
    let took = healed.elapsed();
    println!("one holder each, all five agree and six losers are told {took:?} after healing");
    assert!(took < Duration::from_secs(8), "{took:?}");
    for number in 0..6 {
        let older = if number % 2 == 1 { 3 + number % 2 } else { number % 3 };
        let expected = BTreeSet::from([ids[older].clone()]);
        assert_eq!(holders[&format!("chief:{number}")], expected, "the older claim stays");
    }
}

#[test]
fn churn_leaves_nothing_behind() {
    let Some(lab) = layercake_lab::lab!("churn") else { return };
    let folders = Folders::new();
    let (machines, heralds) = five(&lab, &folders);
    let length = length(8).as_secs();
    for herald in &heralds {
        herald.count("churn.*");
    }
    // Once before, so that what is kept for the next time is there.
    let churn = |seconds: u64| {
        for (number, herald) in heralds.iter().enumerate() {
            herald.program.say(&format!("churn 200 {seconds} churn{number}"));
        }
        let since = Instant::now();
        let within = Duration::from_secs(seconds) + SOON;
        let answers = |line: &str| line.starts_with("done churn ");
        let done = heralds.iter().map(|h| h.program.wait_line_since(since, answers, within).1);
        done.map(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0_u64)).sum()
    };
    let _: u64 = churn(length.min(20) / 2);
    let memory = || heralds.iter().map(|h| resident(h.program.pid())).collect::<Vec<_>>();
    let (before, bytes, began) = (memory(), machines.iter().map(sent).sum::<u64>(), Instant::now());
    let changed: u64 = churn(length);
    let seconds = began.elapsed().as_secs_f64();
    let bytes = (machines.iter().map(sent).sum::<u64>() - bytes) as f64 / 5.0 / seconds;
    for herald in &heralds {
        let gone = || (herald.count("churn.*") == 0).then_some(());
        eventually(SOON, "all of it gone", gone);
    }
    let after = memory();
    println!(
        "{:.0} publications and withdrawals a second for {seconds:.0} s: {:.0} kB a second sent by each \
         host; resident KiB {before:?} -> {after:?}",
        changed as f64 / seconds,
        bytes / 1000.0
    );
    assert!(changed as f64 / seconds > 300.0, "{changed} in {seconds} s");
    for (before, after) in before.iter().zip(&after) {
        assert!(after < &(before + 16_000), "grown from {before} to {after} KiB");
    }
}

#[test]
fn starved_and_sick_hosts_are_no_false_alarm() {
    let Some(lab) = layercake_lab::lab!("starved") else { return };
    let folders = Folders::new();
    let (machines, heralds) = five(&lab, &folders);
    let more: Vec<_> =
        machines.iter().flat_map(|machine| (0..3).map(|_| Herald::start(machine))).collect();
    for (number, herald) in more.iter().enumerate() {
        herald.obey(&format!("publish more:{number}"), SOON);
    }
    for herald in &heralds {
        eventually(SOON, "twenty nodes", || (herald.count("more:.*") == 15).then_some(()));
        herald.obey("watch (here|more):.*", SOON);
    }
    let began = Instant::now();
    let load = burners(4);
    let length = length(10);
    // Nothing is to happen while there is no processor to be had, for so long.
    let_pass(length / 2);
    for herald in &heralds {
        assert_eq!(herald.said("dropped", began), Vec::<Vec<String>>::new(), "starved");
    }
    let (sick, sick_id) = (&machines[4], machines[4].id());
    sick.host.drop_input(0.5);
    let_pass(length / 2);
    for herald in &heralds[..4] {
        let mut dropped = herald.said("dropped", began);
        dropped.retain(|words| words[2] != sick_id);
        assert_eq!(dropped, Vec::<Vec<String>>::new(), "a sick host takes others down");
    }
    // A real end is still seen: of a process, and of a host.
    let killed = Instant::now();
    more[0].program.signal(9);
    let seen = |herald: &Herald, since, name: &str| {
        let wanted = format!("dropped {name} ");
        herald.program.wait_line_since(since, |line| line.starts_with(&wanted), SOON).0 - since
    };
    let took: Vec<_> = heralds[1..4].iter().map(|h| seen(h, killed, "more:0")).collect();
    println!("a process killed on a starved machine: seen after {took:?}");
    let lost = Instant::now();
    machines[1].host.lose_power();
    let took: Vec<_> =
        [&heralds[0], &heralds[2], &heralds[3]].map(|h| seen(h, lost, "here:1")).into();
    println!("a host lost on a starved machine: seen after {took:?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(8)), "{took:?}");
    drop(load);
}

#[test]
fn idle_directories_cost_next_to_nothing() {
    let Some(lab) = layercake_lab::lab!("idle") else { return };
    let folders = Folders::new();
    let machines: Vec<_> =
        ["a", "b", "c", "d", "e"].map(|name| Machine::new(&lab, &folders, name)).into();
    let first = machines[0].start(&["host"]);
    join(&machines[0], &machines[1..].iter().collect::<Vec<_>>());
    let rest = machines[1..].iter().map(|machine| machine.start(&["host"]));
    let directories: Vec<_> = std::iter::once(first).chain(rest).collect();
    let heralds: Vec<_> = machines.iter().map(Herald::start).collect();
    for (number, herald) in heralds.iter().enumerate() {
        herald.obey(&format!("many 20 here{number}"), SOON);
    }
    for herald in &heralds {
        eventually(SOON, "a hundred names", || (herald.count("here.*") == 100).then_some(()));
    }
    let used = || directories.iter().map(|d| ticks(d.pid())).sum::<u64>();
    let (before, bytes, began) = (used(), machines.iter().map(sent).sum::<u64>(), Instant::now());
    let_pass(length(6));
    let seconds = began.elapsed().as_secs_f64();
    let share = (used() - before) as f64 / 5.0 / seconds;
    let bytes = (machines.iter().map(sent).sum::<u64>() - bytes) as f64 / 5.0 / seconds;
    let memory: Vec<_> = directories.iter().map(|d| resident(d.pid())).collect();
    println!(
        "five idle host directories: {share:.2} % of a processor and {:.1} kB a second each, resident KiB \
         {memory:?}",
        bytes / 1000.0
    );
    assert!(share < 25.0, "{share} %");
}
