//! How it grows: many hosts with many names each, measured on the same cores.
//!
//! `cargo xtask soak scale HOSTS NAMES` runs it for more hosts than the tests do, and prints a row of the
//! table in `docs/scale.md`.

use std::time::Instant;

use super::*;
use crate::host::{Audit, filled};

fn number(variable: &str, otherwise: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

impl World {
    fn audit(&self, host: HostId) -> Audit {
        self.machines[&host].directory.as_ref().expect("it has a directory").1.audit()
    }

    /// How long it takes until every directory keeps so many records.
    fn until_all_have(&mut self, records: usize) -> Duration {
        let begin = self.now;
        let hosts: Vec<_> = self.machines.keys().copied().collect();
        while hosts.iter().any(|host| self.audit(*host).records != records) {
            self.run(secs(0.002));
            assert!(self.now < begin + secs(60.0), "they do not agree");
        }
        self.now - begin
    }

    fn sent(&self) -> (u64, u64) {
        (self.net.datagrams.0 + self.net.posts.0, self.net.datagrams.1 + self.net.posts.1)
    }
}

#[test]
fn many_hosts_agree_soon_and_are_quiet_afterwards() {
    let (hosts, names) = (number("LAYERCAKE_SIM_HOSTS", 24), number("LAYERCAKE_SIM_NAMES", 10));
    let all = usize::try_from(hosts * names).unwrap();
    let started = Instant::now();
    let mut world = World::empty(1);
    world.interest = "wanted:.*";
    let newcomer = hosts + 1;
    for host in 1..=newcomer {
        let others = (1..=hosts).filter(|other| *other != host);
        let peers = others.map(|o| (HostId::from_bits(o), addr(id(o, 1)).hints.to_vec()));
        world.machines.insert(HostId::from_bits(host), Machine::new(peers.collect()));
    }
    let begin = |world: &mut World, host: u64| {
        world.start(id(host, 1));
        for name in 0..names {
            world.publish(id(host, 1), &format!("service:{host}:{name}"), Scope::Lan, false);
        }
    };
    let last = world.machines.remove(&HostId::from_bits(newcomer)).unwrap();
    (1..=hosts).for_each(|host| begin(&mut world, host));
    let together = world.until_all_have(all);
    world.run(secs(5.0));

    let (packets, bytes) = world.sent();
    let span = if hosts > 200 { 5.0 } else { 20.0 };
    world.run(secs(span));
    let idle = (world.sent().0 - packets, world.sent().1 - bytes);
    let each = |total: u64| total as f64 / hosts as f64 / span;

    world.publish(id(1, 1), "wanted:1", Scope::Lan, false);
    let news = world.until_all_have(all + 1);

    let posts = world.net.posts;
    world.machines.insert(HostId::from_bits(newcomer), last);
    begin(&mut world, newcomer);
    let joins = world.until_all_have(all + 1 + usize::try_from(names).unwrap());
    let exchanged = world.net.posts.0 - posts.0;
    eprintln!(
        "| {hosts} | {names} | {:.2} s | {:.0} ms | {:.0} ms | {:.1} | {:.0} | {:.0} | {:.0} s |",
        together.as_secs_f64(),
        news.as_secs_f64() * 1e3,
        joins.as_secs_f64() * 1e3,
        exchanged as f64 / hosts as f64,
        each(idle.0),
        each(idle.1),
        started.elapsed().as_secs_f64(),
    );
    assert!(news < secs(0.02), "{news:?}");
    assert!(joins < secs(2.0), "{joins:?}");
    // With each host: a hello and a snapshot both ways, and the deltas of what was published meanwhile.
    assert!(exchanged <= hosts * (4 + names + 4), "{exchanged} messages");
    assert!(each(idle.1) < 20_000.0, "{idle:?}");
}

#[test]
fn what_a_directory_keeps_of_others_is_small() {
    let (hosts, names) = (number("LAYERCAKE_SIM_HOSTS", 20), number("LAYERCAKE_SIM_NAMES", 100));
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.unwrap_or(0) * 4096
    };
    let before = resident();
    let core = filled(hosts, names);
    let records = core.audit().records;
    assert_eq!(records, usize::try_from(hosts * names).unwrap());
    let grown = resident().saturating_sub(before);
    eprintln!("{records} records of {hosts} hosts: {grown} bytes, {} each", grown / records);
}
