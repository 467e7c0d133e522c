//! The check that makes an exclusive name safe to rely on: whoever guards a resource remembers the highest
//! fencing number that it has seen, and refuses what comes with a lower one.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Names that a [`FenceGuard`] keeps apart unless told otherwise.
pub const FENCES: usize = 65_536;

/// The number belongs to a former holder of the name: what it asks for must not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` comes with the number {fence}, and only {lowest} and above may \
     pass: the sender has lost the name, and is to claim it again"
)]
pub struct Stale {
    /// The name.
    pub name: Name,
    /// The number that was refused.
    pub fence: u64,
    /// The lowest number that would have passed.
    pub lowest: u64,
}

/// What a [`FenceGuard`] knows, to be kept with the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fences {
    /// The highest number seen of each name.
    pub highest: BTreeMap<Name, u64>,
    /// The lowest number that passes for any other name.
    pub floor: u64,
}

/// Remembers for each name the highest fencing number that came with it, and refuses lower ones.
///
/// An exclusive name has one holder as long as its hosts hear each other. For moments, and for as long as
/// a partition lasts, it may have two: one may have been paused, or cut off, and not know yet that the name
/// is another's. What both want to change (a file, a row, a device) has to tell them apart. Each sends
/// the [fence](crate::Record::fence) of its publication along, and who guards the resource checks it:
/// once the successor has come, the former holder is refused.
///
/// ```
/// use layercake_directory::{FenceGuard, Name};
///
/// let name: Name = "textures:leader".parse()?;
/// let mut guard = FenceGuard::default();
/// // The holder writes, is paused, and loses the name. Its successor has a higher number.
/// guard.check(&name, 41)?;
/// guard.check(&name, 42)?;
/// // The former holder wakes up and goes on as if nothing had happened.
/// let refused = guard.check(&name, 41).unwrap_err();
/// assert_eq!(refused.lowest, 42);
/// // What was seen is stored with the resource, and outlives the process that guards it.
/// let stored = serde_json::to_string(&guard.fences())?;
/// let mut guard = FenceGuard::restore(serde_json::from_str(&stored)?);
/// assert!(guard.check(&name, 41).is_err() && guard.check(&name, 42).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It keeps [`FENCES`] names, or as many as [`with_limit`](Self::with_limit) says. When there are more, the
/// one that did not come for longest is forgotten, and its number is the least that any unknown name needs
/// from then on. So a former holder never gets through; the holder of a name that was forgotten may be
/// refused, and passes again when it has published anew. Give it room for all the names it guards.
#[derive(Debug, Clone)]
pub struct FenceGuard {
    highest: HashMap<Name, Seen>,
    /// The names by when they came last.
    order: BTreeMap<u64, Name>,
    next: u64,
    floor: u64,
    limit: usize,
}

#[derive(Debug, Clone)]
struct Seen {
    fence: u64,
    at: u64,
}

impl Default for FenceGuard {
    fn default() -> Self {
        Self::with_limit(FENCES)
    }
}

impl FenceGuard {
    /// A guard that keeps so many names apart, one at least.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { highest: HashMap::new(), order: BTreeMap::new(), next: 0, floor: 0, limit }
    }

    /// A guard that knows what another one knew, with room for that and for [`FENCES`] names at least.
    #[must_use]
    pub fn restore(fences: Fences) -> Self {
        let Fences { highest, floor } = fences;
        let mut guard = Self { floor, ..Self::with_limit(FENCES.max(highest.len())) };
        for (name, fence) in highest {
            guard.remember(name, fence);
        }
        guard
    }

    /// What it knows. Store it before what was checked takes effect, or with it.
    #[must_use]
    pub fn fences(&self) -> Fences {
        let highest = self.highest.iter().map(|(name, seen)| (name.clone(), seen.fence));
        Fences { highest: highest.collect(), floor: self.floor }
    }

    /// Lets the holder of a name through, and every former holder from now on no more.
    ///
    /// # Errors
    /// [`Stale`] when a higher number was seen: do nothing of what was asked.
    pub fn check(&mut self, name: &Name, fence: u64) -> Result<(), Stale> {
        let lowest = self.highest.get(name).map_or(self.floor, |seen| seen.fence);
        if fence < lowest {
            return Err(Stale { name: name.clone(), fence, lowest });
        }
        self.remember(name.clone(), fence);
        Ok(())
    }

    fn remember(&mut self, name: Name, fence: u64) {
        let at = self.next;
        self.next += 1;
        if let Some(old) = self.highest.insert(name.clone(), Seen { fence, at }) {
            self.order.remove(&old.at);
        }
        self.order.insert(at, name);
        if self.order.len() > self.limit
            && let Some((_, oldest)) = self.order.pop_first()
            && let Some(seen) = self.highest.remove(&oldest)
        {
            self.floor = self.floor.max(seen.fence);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> Name {
        Name::new(&format!("n{number}")).unwrap()
    }

    #[test]
    fn names_are_told_apart() {
        let mut guard = FenceGuard::default();
        assert!(guard.check(&name(1), 9).is_ok() && guard.check(&name(2), 3).is_ok());
        assert!(guard.check(&name(1), 9).is_ok(), "the same holder comes again");
        let stale = guard.check(&name(1), 8).unwrap_err();
        assert_eq!(stale, Stale { name: name(1), fence: 8, lowest: 9 });
        assert!(stale.to_string().contains("`n1` comes with the number 8"), "{stale}");
    }

    proptest! {
        #[test]
        fn no_number_passes_after_a_higher_one_also_when_names_are_forgotten_and_restored(
            limit in 1..5_usize,
            steps in prop::collection::vec((0..8_u8, 1..40_u64, 0..10_u8), 1..80),
        ) {
            let mut guard = FenceGuard::with_limit(limit);
            let mut highest = BTreeMap::new();
            for (who, fence, then) in steps {
                let before = highest.get(&who).copied().unwrap_or(0);
                let passed = guard.check(&name(who), fence);
                if passed.is_ok() {
                    prop_assert!(fence >= before);
                    highest.insert(who, fence);
                } else {
                    let forgotten = highest.len() > limit;
                    prop_assert!(fence < before || forgotten, "nobody is refused without a cause");
                }
                prop_assert!(guard.highest.len() <= limit);
                prop_assert_eq!(guard.highest.len(), guard.order.len());
                if then == 0 {
                    guard = FenceGuard { limit, ..FenceGuard::restore(guard.fences()) };
                }
            }
        }
    }
}
