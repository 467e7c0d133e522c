//! One node in a tight loop, and the others.

use super::*;
use crate::host::pace::{BURST, MAX_BACKLOG, RATE};

fn say(core: &mut HostCore, node: u64, message: ToHost, now: Duration) -> Vec<Effect> {
    let mut out = Vec::new();
    core.on_node(peer(1, node).node, message, now, WALL, &mut out);
    out
}

fn claim(node: u64, serial: u64) -> ToHost {
    ToHost::Publish(vec![Arc::new(record(peer(1, node), serial, "a", Scope::Host))])
}

fn granted(out: &[Effect]) -> usize {
    let granted = |e: &&Effect| matches!(e, Effect::ToNode { message: ToNode::Granted { .. }, .. });
    out.iter().filter(granted).count()
}

#[test]
fn who_publishes_in_a_tight_loop_waits_and_the_others_do_not() {
    let mut core = directory();
    join(&mut core, 2);
    join(&mut core, 3);
    let mut passed = 0;
    for serial in 0..20_000 {
        passed += granted(&say(&mut core, 2, claim(2, serial), T0));
        say(&mut core, 2, ToHost::Withdraw(serial), T0);
    }
    assert!(passed.abs_diff(BURST as usize / 2) < 4, "{passed}");
    assert_eq!(granted(&say(&mut core, 3, claim(3, 1), T0)), 1, "it has done nothing");
    // Nothing is lost, and it is done in order as time allows.
    say(&mut core, 2, ToHost::Sync(7), T0);
    let (mut now, mut synced) = (T0, false);
    while !synced && now < Duration::from_secs(60) {
        now = core.next_deadline().unwrap_or(now).max(now);
        let mut out = Vec::new();
        core.on_time(now, &mut out);
        passed += granted(&out);
        let done = |e: &Effect| matches!(e, Effect::ToNode { message: ToNode::Synced(7), .. });
        synced = out.iter().any(done);
    }
    let expected = f64::from(40_000 - BURST) / f64::from(RATE);
    assert!((now.as_secs_f64() - expected).abs() < 0.5, "{now:?}");
    assert_eq!(passed, 20_000);
    assert_eq!(core.claims.matching(&Pattern::new("a").unwrap()).count(), 1);
}

#[test]
fn who_registers_again_is_not_made_to_wait() {
    let mut core = directory();
    say(&mut core, 2, ToHost::Register { group: None, before: Some(9) }, T0);
    let mut passed = 0;
    for serial in 1..=3 * u64::from(BURST) {
        let again = Record { fence: serial, ..record(peer(1, 2), serial, "a", Scope::Host) };
        let again = ToHost::Publish(vec![Arc::new(again)]);
        passed += granted(&say(&mut core, 2, again, T0));
    }
    say(&mut core, 2, ToHost::Registered, T0);
    assert_eq!(passed, 3 * BURST as usize);
    assert_eq!(granted(&say(&mut core, 2, claim(2, 1_000_000), T0)), 1);
}

#[test]
fn who_does_not_wait_at_all_is_given_up() {
    let mut core = directory();
    join(&mut core, 2);
    join(&mut core, 3);
    let all = 0..u64::from(BURST + MAX_BACKLOG) + 10;
    let closed = all.filter(|serial| {
        let out = say(&mut core, 2, ToHost::Unsubscribe(*serial), T0);
        out.iter().any(|e| matches!(e, Effect::CloseNode(node) if *node == peer(1, 2).node))
    });
    assert_eq!(closed.count(), 1);
    assert_eq!(core.hosts()[0].nodes, 1);
}
