//! When to dial which host: hints in, attempts out. No clock, no socket.
//!
//! Whatever is known and not linked is dialled for ever, since nobody else will bring two halves of a
//! mesh together again. Attempts at one host overlap: one that hangs in a dead cable must not delay
//! the one that would succeed.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use layercake_wire::id::{HostId, MAX_HINTS};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// The pause after the first failed attempt; it doubles from there.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause for hosts that were seen or heard of in the last [`RECENT`].
pub(crate) const RECENT_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause for all others.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a host counts as recent.
pub(crate) const RECENT: Duration = Duration::from_secs(600);
/// Hosts and addresses that are remembered and dialled; beyond it the one not seen for longest goes.
pub(crate) const MAX_TARGETS: usize = 1024;
/// Attempts at one target that may be under way at a time: more than begin before the first is given
/// up, so that this is a bound and no brake.
const MAX_FLYING: u8 = 8;

/// What is dialled: a known host, or an address that leads to an unknown one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Host(HostId),
    Addr(SocketAddr),
}

/// An attempt to be made; [`Dialer::done`] is to be called when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) target: Target,
    pub(crate) addrs: Vec<SocketAddr>,
}

struct Entry {
    addrs: Vec<SocketAddr>,
    /// When it was linked, or first heard of.
    seen: Duration,
    last: Option<Duration>,
    next: Duration,
    failures: u32,
    flying: u8,
    linked: bool,
    /// Whom an address turned out to lead to.
    leads_to: Option<HostId>,
}

/// See the module.
pub(crate) struct Dialer {
    own: HostId,
    targets: BTreeMap<Target, Entry>,
    rng: SmallRng,
}

impl Dialer {
    pub(crate) fn new(own: HostId, seed: u64) -> Self {
        Self { own, targets: BTreeMap::new(), rng: SmallRng::seed_from_u64(seed) }
    }

    /// Somebody says that a target may be reached there. It is dialled soon, unless that was done
    /// just now.
    pub(crate) fn hint(&mut self, target: Target, addrs: &[SocketAddr], now: Duration) {
        if target == Target::Host(self.own) {
            return;
        }
        if !self.targets.contains_key(&target) && !self.make_room() {
            return;
        }
        let entry = self.targets.entry(target).or_insert_with(|| Entry::new(now));
        entry.learn(addrs);
        let again = entry.last.map_or(now, |last| last + FIRST_PAUSE);
        entry.next = entry.next.min(again.max(now));
    }

    /// There is a link to a host's directory.
    pub(crate) fn linked(&mut self, host: HostId, addrs: &[SocketAddr], now: Duration) {
        self.hint(Target::Host(host), addrs, now);
        if let Some(entry) = self.targets.get_mut(&Target::Host(host)) {
            entry.linked = true;
            entry.seen = now;
            entry.failures = 0;
        }
    }

    /// The link to a host's directory is gone: it is dialled at once. `left` says that the host went
    /// in order and is in no hurry to be found.
    pub(crate) fn unlinked(&mut self, host: HostId, left: bool, now: Duration) {
        if let Some(entry) = self.targets.get_mut(&Target::Host(host)) {
            entry.linked = false;
            entry.failures = 0;
            entry.next = now;
            if left {
                entry.seen = now.saturating_sub(RECENT);
                entry.next = now + LONGEST_PAUSE;
            } else {
                entry.seen = now;
            }
        }
    }

    /// The attempts to be made now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let linked: Vec<_> = self.linked_hosts();
        for (target, entry) in &mut self.targets {
            if entry.linked || entry.next > now {
                continue;
            }
            // An address of a host that is linked already, or of this one.
            let known = entry.leads_to.is_some_and(|h| h == self.own || linked.contains(&h));
            let limit =
                if now.saturating_sub(entry.seen) < RECENT { RECENT_PAUSE } else { LONGEST_PAUSE };
            let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(8)).min(limit);
            entry.next = now + pause.mul_f64(self.rng.random_range(0.75..1.0));
            if known || entry.flying >= MAX_FLYING || entry.addrs.is_empty() {
                continue;
            }
            entry.failures += 1;
            entry.flying += 1;
            entry.last = Some(now);
            attempts.push(Attempt { target: *target, addrs: entry.addrs.clone() });
        }
        attempts
    }

    /// An attempt has ended; `answered` is the host at the other end, if any.
    pub(crate) fn done(&mut self, target: Target, answered: Option<HostId>) {
        if let Some(entry) = self.targets.get_mut(&target) {
            entry.flying = entry.flying.saturating_sub(1);
            if answered.is_some() {
                entry.leads_to = answered;
            }
        }
    }

    /// When [`Self::due`] has something to do again.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.targets.values().filter(|entry| !entry.linked).map(|entry| entry.next).min()
    }

    /// The hosts that are known and where they were reached, the most recent first.
    pub(crate) fn known(&self) -> Vec<(HostId, Vec<SocketAddr>)> {
        let mut known: Vec<_> = self
            .targets
            .iter()
            .filter_map(|(target, entry)| match target {
                Target::Host(host) => Some((entry.linked, entry.seen, *host, entry.addrs.clone())),
                Target::Addr(_) => None,
            })
            .collect();
        known.sort_by_key(|(linked, seen, ..)| std::cmp::Reverse((*linked, *seen)));
        known.into_iter().map(|(_, _, host, addrs)| (host, addrs)).collect()
    }

    fn linked_hosts(&self) -> Vec<HostId> {
        self.targets
            .iter()
            .filter_map(|(target, entry)| match target {
                Target::Host(host) if entry.linked => Some(*host),
                _ => None,
            })
            .collect()
    }

    fn make_room(&mut self) -> bool {
        if self.targets.len() < MAX_TARGETS {
            return true;
        }
        let unlinked = self.targets.iter().filter(|(_, entry)| !entry.linked);
        let oldest = unlinked.min_by_key(|(_, entry)| entry.seen).map(|(target, _)| *target);
        oldest.is_some_and(|target| self.targets.remove(&target).is_some())
    }
}

impl Entry {
    const fn new(now: Duration) -> Self {
        Self {
            addrs: Vec::new(),
            seen: now,
            last: None,
            next: now,
            failures: 0,
            flying: 0,
            linked: false,
            leads_to: None,
        }
    }

    /// The newest addresses first; the oldest fall off.
    fn learn(&mut self, addrs: &[SocketAddr]) {
        let mut merged: Vec<_> = addrs.iter().take(MAX_HINTS).copied().collect();
        merged.dedup();
        for addr in self.addrs.drain(..) {
            if merged.len() < MAX_HINTS && !merged.contains(&addr) {
                merged.push(addr);
            }
        }
        self.addrs = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u64) -> HostId {
        HostId::from_bits(number)
    }

    fn addr(port: u16) -> SocketAddr {
        ([10, 0, 0, 2], port).into()
    }

    fn dialer() -> Dialer {
        Dialer::new(host(1), 7)
    }

    /// The times of all attempts until `until`, none of which ever ends before three seconds.
    fn run(dialer: &mut Dialer, from: Duration, until: Duration) -> Vec<Duration> {
        let (mut times, mut now, mut flying) = (Vec::new(), from, Vec::new());
        while let Some(next) = dialer.next_deadline().filter(|next| *next < until) {
            now = now.max(next);
            flying.retain(|(target, ends)| {
                let over = *ends <= now;
                if over {
                    dialer.done(*target, None);
                }
                !over
            });
            for attempt in dialer.due(now) {
                times.push(now);
                flying.push((attempt.target, now + Duration::from_secs(3)));
            }
        }
        times
    }

    #[test]
    fn a_lost_host_is_dialled_every_second_at_least_for_ten_minutes() {
        let mut dialer = dialer();
        dialer.linked(host(2), &[addr(1)], Duration::ZERO);
        assert!(dialer.due(Duration::ZERO).is_empty() && dialer.next_deadline().is_none());
        dialer.unlinked(host(2), false, Duration::ZERO);
        let times = run(&mut dialer, Duration::ZERO, Duration::from_secs(590));
        assert_eq!(times[0], Duration::ZERO);
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] <= Duration::from_secs(1), "{pair:?}");
            assert!(pair[1] - pair[0] >= Duration::from_millis(180), "{pair:?}");
        }
    }

    #[test]
    fn a_host_long_gone_is_dialled_now_and_then_for_ever() {
        let mut dialer = dialer();
        dialer.hint(Target::Host(host(2)), &[addr(1)], Duration::ZERO);
        let day = Duration::from_secs(24 * 3600);
        let times = run(&mut dialer, RECENT * 2, day);
        assert!(times.last().is_some_and(|last| day - *last < LONGEST_PAUSE));
        assert!(times.len() < 13_000, "{}", times.len());
    }

    #[test]
    fn a_sign_of_life_ends_a_long_pause() {
        let mut dialer = dialer();
        dialer.hint(Target::Host(host(2)), &[addr(1)], Duration::ZERO);
        run(&mut dialer, RECENT, RECENT + Duration::from_secs(60));
        let now = RECENT + Duration::from_secs(61);
        dialer.hint(Target::Host(host(2)), &[addr(2)], now);
        let attempt = &dialer.due(now)[0];
        assert_eq!(attempt.addrs, [addr(2), addr(1)], "the newest address comes first");
        dialer.hint(Target::Host(host(2)), &[addr(2)], now);
        assert!(dialer.due(now).is_empty(), "a flood of hints is no flood of dials");
    }

    #[test]
    fn an_address_of_a_linked_host_or_of_our_own_is_left_alone() {
        let mut dialer = dialer();
        dialer.hint(Target::Addr(addr(1)), &[addr(1)], Duration::ZERO);
        assert_eq!(dialer.due(Duration::ZERO).len(), 1);
        dialer.done(Target::Addr(addr(1)), Some(host(2)));
        dialer.linked(host(2), &[addr(1)], Duration::ZERO);
        assert!(dialer.due(Duration::from_secs(20)).is_empty());
        dialer.unlinked(host(2), false, Duration::from_secs(20));
        assert_eq!(dialer.due(Duration::from_secs(40)).len(), 2);
        dialer.done(Target::Addr(addr(1)), Some(host(1)));
        dialer.linked(host(2), &[addr(1)], Duration::from_secs(40));
        assert!(dialer.due(Duration::from_secs(60)).is_empty());
    }

    #[test]
    fn memory_is_bounded_and_linked_hosts_stay() {
        let mut dialer = dialer();
        dialer.linked(host(2), &[addr(1)], Duration::ZERO);
        for number in 0..3000 {
            let now = Duration::from_secs(number + 1);
            dialer.hint(Target::Host(host(number + 10)), &[addr(1)], now);
        }
        assert_eq!(dialer.targets.len(), MAX_TARGETS);
        assert_eq!(dialer.known()[0].0, host(2));
        dialer.hint(Target::Host(host(1)), &[addr(1)], Duration::ZERO);
        assert!(!dialer.known().iter().any(|(h, _)| *h == host(1)), "never this host itself");
    }
}
