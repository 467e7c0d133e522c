//! When to dial which host: hints in, attempts out. No clock, no socket.
//!
//! Whatever is known and not linked is dialled for ever, since nobody else will bring two halves of a
//! mesh together again. Attempts at one host overlap: one that hangs in a dead cable must not delay
//! the one that would succeed.
//!
//! # What always holds
//! - What was only [heard](Dialer::heard), as by mDNS, is worth little: anybody may shout anything. It
//!   takes no place of what is known, neither of a host nor of an address, is dialled at most
//!   [`MAX_HEARD_FLYING`] at a time, and is forgotten when it is not heard again. A link makes it known.
//! - A linked host is not dialled, whatever is heard of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

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
/// Of these, hosts that were only heard of.
pub(crate) const MAX_HEARD: usize = 256;
/// How long a host that was only heard of is dialled after it was heard last, and a seed's address
/// after the seed stood for it last.
pub(crate) const HEARD_FOR: Duration = Duration::from_secs(180);
/// Attempts at one target that may be under way at a time: more than begin before the first is given
/// up, so that this is a bound and no brake.
const MAX_FLYING: u8 = 8;
/// Attempts under way at all known targets together; who has waited longest goes first.
const MAX_ALL_FLYING: usize = 256;
/// Attempts under way at hosts that were only heard of, together.
pub(crate) const MAX_HEARD_FLYING: usize = 8;

/// What is dialled: a known host, or an address that leads to an unknown one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Host(HostId),
    Addr(SocketAddr),
}

/// Who says so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Somebody who may be believed.
    Known,
    /// Anybody on the network.
    Heard,
}

/// Who does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Known,
    Heard,
}

/// An attempt to be made; [`Dialer::done`] is to be called when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) target: Target,
    pub(crate) addrs: Vec<SocketAddr>,
}

struct Entry {
    /// From those who may be believed.
    addrs: Vec<SocketAddr>,
    /// From anybody.
    heard: Vec<SocketAddr>,
    known: bool,
    /// When it was linked, or first heard of.
    seen: Duration,
    /// When somebody spoke of it last.
    told: Duration,
    last: Option<Duration>,
    next: Duration,
    failures: u32,
    flying: u8,
    linked: bool,
    /// It said goodbye and was not spoken of since: that it does not answer is as it should be.
    left: bool,
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

    /// Somebody who may be believed says that a target may be reached there: a host of the mesh, this
    /// host's own memory, its operator. It is dialled soon, unless that was done just now.
    pub(crate) fn hint(&mut self, target: Target, addrs: &[SocketAddr], now: Duration) {
        self.told(target, addrs, Trust::Known, now);
    }

    /// Anybody on the network says that a host may be reached there.
    pub(crate) fn heard(&mut self, host: HostId, addrs: &[SocketAddr], now: Duration) {
        self.told(Target::Host(host), addrs, Trust::Heard, now);
    }

    fn told(&mut self, target: Target, addrs: &[SocketAddr], trust: Trust, now: Duration) {
        if target == Target::Host(self.own) {
            return;
        }
        if !self.targets.contains_key(&target) && !self.make_room(trust) {
            return;
        }
        let entry = self.targets.entry(target).or_insert_with(|| Entry::new(now));
        entry.told = now;
        entry.left = false;
        let pause = match trust {
            Trust::Known => {
                entry.known = true;
                learn(&mut entry.addrs, addrs);
                FIRST_PAUSE
            }
            Trust::Heard => {
                learn(&mut entry.heard, addrs);
                RECENT_PAUSE
            }
        };
        // What is said again and again of a host that does not answer is no reason to hurry.
        if entry.known || entry.last.is_none() {
            let again = entry.last.map_or(now, |last| last + pause);
            entry.next = entry.next.min(again.max(now));
        }
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
            entry.left = left;
            if left {
                entry.seen = now.saturating_sub(RECENT);
                entry.next = now + LONGEST_PAUSE;
            } else {
                entry.seen = now;
            }
        }
    }

    /// This host is reached, and reaches others, in another way than before: whatever failed may
    /// succeed now, and addresses may lead elsewhere.
    pub(crate) fn wake(&mut self, now: Duration) {
        for entry in self.targets.values_mut().filter(|entry| !entry.linked) {
            entry.leads_to = None;
            if entry.known {
                entry.failures = 0;
                entry.next = now;
            }
        }
    }

    /// The attempts to be made now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Attempt> {
        // Asked at every turn; each entry comes up within ten seconds, and what is unheard goes then.
        if self.next_deadline().is_none_or(|next| next > now) {
            return Vec::new();
        }
        self.forget_unheard(now);
        let linked = self.linked_hosts();
        let own = self.own;
        let flying = |known| {
            let counted = self.targets.values().filter(|entry| entry.known == known);
            counted.map(|entry| usize::from(entry.flying)).sum::<usize>()
        };
        let mut room = MAX_ALL_FLYING.saturating_sub(flying(true));
        let mut heard_room = MAX_HEARD_FLYING.saturating_sub(flying(false));
        let ready = self.targets.iter_mut().filter(|(_, e)| !e.linked && e.next <= now);
        let mut ready: Vec<_> = ready.collect();
        // Who has waited longest goes first.
        ready.sort_by_key(|(_, entry)| (entry.last, std::cmp::Reverse(entry.seen)));
        let mut attempts = Vec::new();
        for (target, entry) in ready {
            // An address of a host that is linked already, or of this one.
            let found = entry.leads_to.is_some_and(|h| h == own || linked.contains(&h));
            let room = if entry.known { &mut room } else { &mut heard_room };
            if *room == 0 && !found {
                // Its turn comes when another attempt has ended.
                entry.next = now + FIRST_PAUSE;
                continue;
            }
            let recent = entry.known && now.saturating_sub(entry.seen) < RECENT;
            let limit = if recent { RECENT_PAUSE } else { LONGEST_PAUSE };
            let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(8)).min(limit);
            entry.next = now + pause.mul_f64(self.rng.random_range(0.75..1.0));
            let most = if entry.known { MAX_FLYING } else { 1 };
            let addrs = entry.all();
            if found || entry.flying >= most || addrs.is_empty() {
                continue;
            }
            *room -= 1;
            entry.failures += 1;
            entry.flying += 1;
            entry.last = Some(now);
            attempts.push(Attempt { target: *target, addrs });
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

    /// Whether what cannot be reached is known or only heard of; nothing where there is a link, where it
    /// left in order, or where it is forgotten.
    pub(crate) fn misses(&self, target: Target) -> Option<Missing> {
        let entry = self.targets.get(&target).filter(|entry| !entry.linked && !entry.left)?;
        Some(if entry.known { Missing::Known } else { Missing::Heard })
    }

    /// The hosts that are known and where they were reached, the most recent first. Not those that were
    /// only heard of.
    pub(crate) fn known(&self) -> Vec<(HostId, Vec<SocketAddr>)> {
        let mut known: Vec<_> = self
            .targets
            .iter()
            .filter(|(_, entry)| entry.known)
            .filter_map(|(target, entry)| match target {
                Target::Host(host) => Some((entry.linked, entry.seen, *host, entry.addrs.clone())),
                Target::Addr(_) => None,
            })
            .collect();
        known.sort_by_key(|(linked, seen, ..)| std::cmp::Reverse((*linked, *seen)));
        known.into_iter().map(|(_, _, host, addrs)| (host, addrs)).collect()
    }

    fn linked_hosts(&self) -> BTreeSet<HostId> {
        self.targets
            .iter()
            .filter_map(|(target, entry)| match target {
                Target::Host(host) if entry.linked => Some(*host),
                _ => None,
            })
            .collect()
    }

    /// Hosts that nobody speaks of any more, and addresses that no seed stands for any more.
    fn forget_unheard(&mut self, now: Duration) {
        self.targets.retain(|target, entry| {
            let lasts = entry.known && matches!(target, Target::Host(_));
            lasts || entry.flying > 0 || now.saturating_sub(entry.told) < HEARD_FOR
        });
    }

    /// Who was only heard of makes room for others of that kind, and for those who are known.
    fn make_room(&mut self, trust: Trust) -> bool {
        let heard = self.targets.iter().filter(|(_, entry)| !entry.known);
        // One that is being dialled stays, or nobody would count its attempts.
        let idle = |(_, entry): &(&Target, &Entry)| entry.flying == 0;
        let full = match trust {
            Trust::Known => self.targets.len() >= MAX_TARGETS,
            Trust::Heard => heard.clone().count() >= MAX_HEARD || self.targets.len() >= MAX_TARGETS,
        };
        if !full {
            return true;
        }
        let of = |entry: &(&Target, &Entry)| entry.1.told;
        let mut leaves = heard.filter(idle).min_by_key(of).map(|(target, _)| *target);
        if leaves.is_none() && trust == Trust::Known {
            let unlinked = self.targets.iter().filter(|(_, entry)| !entry.linked);
            leaves = unlinked
                .filter(idle)
                .min_by_key(|(_, entry)| entry.seen)
                .map(|(target, _)| *target);
        }
        leaves.is_some_and(|target| self.targets.remove(&target).is_some())
    }
}

impl Entry {
    const fn new(now: Duration) -> Self {
        Self {
            addrs: Vec::new(),
            heard: Vec::new(),
            known: false,
            seen: now,
            told: now,
            last: None,
            next: now,
            failures: 0,
            flying: 0,
            linked: false,
            left: false,
            leads_to: None,
        }
    }

    /// The addresses that may be believed first.
    fn all(&self) -> Vec<SocketAddr> {
        let mut all = self.addrs.clone();
        all.extend(self.heard.iter().filter(|addr| !self.addrs.contains(addr)));
        all
    }
}

/// The newest addresses first; of more than [`MAX_HINTS`] the oldest fall off.
fn learn(known: &mut Vec<SocketAddr>, addrs: &[SocketAddr]) {
    let mut merged: Vec<SocketAddr> = Vec::new();
    for addr in addrs.iter().copied().chain(known.drain(..)) {
        if merged.len() < MAX_HINTS && !merged.contains(&addr) {
            merged.push(addr);
        }
    }
    *known = merged;
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

    #[test]
    fn a_flood_of_what_anybody_shouts_neither_forgets_nor_delays_who_is_known() {
        let mut dialer = dialer();
        dialer.linked(host(2), &[addr(1)], Duration::ZERO);
        dialer.hint(Target::Host(host(3)), &[addr(3)], Duration::ZERO);
        let seed = Target::Addr(addr(4));
        let (mut flying, mut most, mut dials) = (Vec::new(), 0, 0_usize);
        let mut known = 0;
        // Ten seconds in which 5,000 forged announcements a second come, also of hosts that are known.
        for step in 0..1000_u64 {
            let now = Duration::from_millis(10 * step);
            if step % 100 == 0 {
                dialer.hint(seed, &[addr(4)], now);
            }
            for at in 0..50 {
                let number = step * 50 + at;
                let forged = addr(u16::try_from(1000 + number % 60_000).unwrap());
                dialer.heard(host(100 + number), &[forged], now);
                dialer.heard(host(3), &[forged], now);
                dialer.heard(host(2), &[forged], now);
            }
            flying.retain(|(target, ends): &(Target, Duration)| {
                let over = *ends <= now;
                if over {
                    dialer.done(*target, None);
                }
                !over
            });
            for attempt in dialer.due(now) {
                dials += 1;
                assert_ne!(attempt.target, Target::Host(host(2)), "it is linked");
                assert!(attempt.addrs.len() <= 2 * MAX_HINTS);
                if attempt.target == Target::Host(host(3)) {
                    known += 1;
                    assert_eq!(attempt.addrs[0], addr(3), "what may be believed comes first");
                }
                flying.push((attempt.target, now + Duration::from_secs(3)));
            }
            let heard = |t: &Target| matches!(t, Target::Host(h) if *h != host(3));
            most = most.max(flying.iter().filter(|(target, _)| heard(target)).count());
            assert!(dialer.targets.len() <= MAX_HEARD + 3);
        }
        assert!(most <= MAX_HEARD_FLYING, "{most}");
        assert!(dials < 120, "{dials} dials");
        assert!(known >= 10, "the known host is dialled as ever: {known}");
        assert!(dialer.targets.contains_key(&seed));
        assert_eq!(dialer.known().len(), 2, "nothing of it is remembered");
        // When it is over it is forgotten.
        dialer.due(Duration::from_secs(20) + HEARD_FOR);
        dialer.due(Duration::from_secs(30) + HEARD_FOR);
        let left = dialer.targets.values().filter(|entry| !entry.known && entry.flying == 0);
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_host_that_was_heard_of_and_linked_is_known() {
        let mut dialer = dialer();
        dialer.heard(host(2), &[addr(1)], Duration::ZERO);
        assert_eq!(dialer.due(Duration::ZERO).len(), 1);
        assert!(dialer.known().is_empty());
        dialer.done(Target::Host(host(2)), Some(host(2)));
        dialer.linked(host(2), &[addr(9)], Duration::ZERO);
        assert_eq!(dialer.known(), [(host(2), vec![addr(9)])]);
        dialer.unlinked(host(2), false, Duration::from_secs(1));
        let attempt = &dialer.due(Duration::from_secs(1))[0];
        assert_eq!(attempt.addrs, [addr(9), addr(1)]);
    }

    #[test]
    fn only_who_should_answer_is_missed() {
        let mut dialer = dialer();
        let target = Target::Host(host(2));
        assert_eq!(dialer.misses(target), None);
        dialer.heard(host(2), &[addr(1)], Duration::ZERO);
        assert_eq!(dialer.misses(target), Some(Missing::Heard));
        dialer.linked(host(2), &[addr(1)], Duration::ZERO);
        assert_eq!(dialer.misses(target), None);
        dialer.unlinked(host(2), true, Duration::from_secs(1));
        assert_eq!(dialer.misses(target), None, "it has left in order");
        dialer.heard(host(2), &[addr(1)], Duration::from_secs(2));
        assert_eq!(dialer.misses(target), Some(Missing::Known), "it says that it is back");
        dialer.linked(host(2), &[addr(1)], Duration::from_secs(3));
        dialer.unlinked(host(2), false, Duration::from_secs(4));
        assert_eq!(dialer.misses(target), Some(Missing::Known));
    }

    #[test]
    fn a_new_cable_ends_every_long_pause() {
        let mut dialer = dialer();
        dialer.hint(Target::Host(host(2)), &[addr(1)], Duration::ZERO);
        let late = RECENT + Duration::from_secs(60);
        run(&mut dialer, Duration::ZERO, late);
        assert!(dialer.due(late).is_empty());
        dialer.wake(late);
        assert_eq!(dialer.due(late).len(), 1);
    }

    #[test]
    fn an_address_that_no_seed_stands_for_any_more_is_forgotten() {
        let mut dialer = dialer();
        dialer.hint(Target::Addr(addr(1)), &[addr(1)], Duration::ZERO);
        let mut now = Duration::ZERO;
        while now < HEARD_FOR * 2 {
            now += Duration::from_secs(10);
            dialer.hint(Target::Addr(addr(2)), &[addr(2)], now);
            for attempt in dialer.due(now) {
                dialer.done(attempt.target, None);
            }
        }
        let left: Vec<_> = dialer.targets.keys().copied().collect();
        assert_eq!(left, [Target::Addr(addr(2))]);
    }

    #[test]
    fn when_all_hosts_are_lost_at_once_they_are_dialled_in_turn() {
        let mut dialer = dialer();
        for number in 0..1000 {
            dialer.linked(host(number + 10), &[addr(1)], Duration::ZERO);
        }
        for number in 0..1000 {
            dialer.unlinked(host(number + 10), false, Duration::from_secs(1));
        }
        let first = dialer.due(Duration::from_secs(1));
        assert_eq!(first.len(), MAX_ALL_FLYING);
        let mut seen: BTreeSet<_> = first.iter().map(|attempt| attempt.target).collect();
        let (mut now, mut flying) = (Duration::from_secs(1), first);
        while seen.len() < 1000 {
            now += Duration::from_millis(250);
            assert!(now < Duration::from_secs(20), "{} of them were dialled", seen.len());
            if now.subsec_millis() == 0 {
                for attempt in flying.drain(..) {
                    dialer.done(attempt.target, None);
                }
            }
            let more = dialer.due(now);
            seen.extend(more.iter().map(|attempt| attempt.target));
            flying.extend(more);
        }
    }
}
