//! Who holds which name, and who waits for it: all records of the mesh that this host knows, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    index::Shelf,
    name::{Name, Pattern},
    record::{Instance, Record, Title},
};

/// See the module. Exclusive and shared claims apart, so that a name with thousands of shared
/// instances costs nothing when one more comes.
#[derive(Default)]
pub(super) struct Claims {
    exclusive: Shelf,
    shared: Shelf,
    /// Those that wait, of each name the longest first.
    waiting: BTreeMap<(Name, u64, Instance), Arc<Record>>,
}

impl Claims {
    pub(super) fn put(&mut self, record: Arc<Record>) {
        if record.waiting {
            let key = (record.name.clone(), record.claimed, record.instance);
            self.waiting.insert(key, record);
        } else if record.exclusive {
            self.exclusive.put(record);
        } else {
            self.shared.put(record);
        }
    }

    pub(super) fn remove(&mut self, record: &Record) {
        if record.waiting {
            self.waiting.remove(&(record.name.clone(), record.claimed, record.instance));
        } else if record.exclusive {
            self.exclusive.remove(record);
        } else {
            self.shared.remove(record);
        }
    }

    /// The record that stands in the way of a new claim: the holder of an exclusive name, or an
    /// instance of a shared name that is claimed exclusively, or who waits for the name and is about
    /// to have it. Claims of different scopes or groups do not meet.
    pub(super) fn conflict(&self, claim: &Record) -> Option<Arc<Record>> {
        let title = claim.title();
        if let Some(holder) = self.exclusive.of(&title.name).find(|r| title.covers(r)) {
            return Some(holder.clone());
        }
        if !claim.exclusive {
            return None;
        }
        let shared = self.shared.of(&title.name).find(|r| title.covers(r));
        shared.or_else(|| self.next(&title)).cloned()
    }

    /// The holders of an exclusive name; the one that stays comes first.
    pub(super) fn holders(&self, title: &Title) -> Vec<Arc<Record>> {
        let all = self.exclusive.of(&title.name);
        let mut holders: Vec<_> = all.filter(|r| title.covers(r)).cloned().collect();
        holders.sort_by_key(|r| r.rank());
        holders
    }

    /// Whether nothing stands in the way of who waits for a name.
    pub(super) fn is_free(&self, title: &Title) -> bool {
        let mut held = self.exclusive.of(&title.name).chain(self.shared.of(&title.name));
        !held.any(|r| title.covers(r))
    }

    /// Who has waited longest for a name.
    pub(super) fn next(&self, title: &Title) -> Option<&Arc<Record>> {
        let first = (title.name.clone(), 0, Instance::FIRST);
        let same_name = self.waiting.range(first..).take_while(|((n, ..), _)| *n == title.name);
        same_name.map(|(_, record)| record).find(|r| title.covers(r))
    }

    /// Whether nobody waits for anything.
    pub(super) fn nobody_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What somebody waits for.
    pub(super) fn waited_for(&self) -> BTreeSet<Title> {
        self.waiting.values().map(|r| r.title()).collect()
    }

    /// Whatever is visible and matches.
    pub(super) fn matching<'a>(
        &'a self,
        pattern: &'a Pattern,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        self.exclusive.matching(pattern).chain(self.shared.matching(pattern))
    }
}
