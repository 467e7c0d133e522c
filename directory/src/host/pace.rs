//! How fast one node may change what it publishes and asks for, so that one in a tight loop delays
//! nobody but itself.

use std::time::Duration;

use crate::message::ToHost;

/// Changes that one node may make each second, in the long run. A change with a large description
/// counts as several.
pub(crate) const RATE: u32 = 4096;
/// Changes that one node may make at once.
pub(crate) const BURST: u32 = 8192;
/// What waits of one node, in changes. A node stops by itself long before.
pub(crate) const MAX_BACKLOG: u32 = 262_144;
/// Changes that are let through together, so that time is not looked at for each.
const TOGETHER: u32 = 16;
/// Bytes of a record that count as one change.
const UNIT: usize = 4096;

/// What a message costs, in changes. What changes nothing is free.
pub(crate) fn cost(message: &ToHost) -> u32 {
    let cost = match message {
        ToHost::Publish(records) => records.iter().map(|r| 1 + r.size() / UNIT).sum(),
        ToHost::Withdraw(_) | ToHost::Subscribe { .. } | ToHost::Unsubscribe(_) => 1,
        ToHost::Register { .. }
        | ToHost::Registered
        | ToHost::Hosts(_)
        | ToHost::Sync(_)
        | ToHost::Bye => 0,
    };
    u32::try_from(cost).unwrap_or(u32::MAX)
}

/// The allowance of one node: full at first, and again after a pause of two seconds.
#[derive(Default)]
pub(super) struct Pace {
    /// When it is full again.
    full: Duration,
}

impl Pace {
    /// Takes a number of changes out of the allowance. `false`, and nothing is taken, when it is used
    /// up; as long as there is some, it may be overdrawn.
    pub(super) fn take(&mut self, changes: u32, now: Duration) -> bool {
        if self.full > now + time(BURST) {
            return false;
        }
        self.full = self.full.max(now) + time(changes);
        true
    }

    /// When it is worth trying again.
    pub(super) fn ready(&self) -> Duration {
        (self.full + time(TOGETHER)).saturating_sub(time(BURST))
    }
}

/// The time in which so many changes are granted.
fn time(changes: u32) -> Duration {
    Duration::from_secs(u64::from(changes)) / RATE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let mut pace = Pace::default();
        let now = Duration::from_secs(9);
        let burst = (0..100_000).take_while(|_| pace.take(1, now)).count();
        assert!(burst.abs_diff(BURST as usize) <= 2, "{burst}");
        let (mut now, mut passed) = (now, 0);
        for _ in 0..1000 {
            now += Duration::from_millis(4);
            passed += (0..100_000).take_while(|_| pace.take(1, now)).count();
        }
        assert!(passed.abs_diff(4 * RATE as usize) <= 4, "{passed}");
        assert!(!pace.take(1, now) && pace.take(1, pace.ready()));
    }

    #[test]
    fn what_is_larger_than_the_allowance_passes_once_and_is_made_up_for() {
        let mut pace = Pace::default();
        assert!(pace.take(10 * BURST, Duration::ZERO));
        assert!(!pace.take(1, Duration::from_secs(17)));
        assert!(pace.take(1, Duration::from_secs(19)));
    }
}
