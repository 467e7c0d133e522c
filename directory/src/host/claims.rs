//! Who holds which name: all records of the mesh that this host knows, by name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    name::{Name, Scope},
    record::{Instance, Record},
};

type ByName = HashMap<Name, BTreeMap<Instance, Arc<Record>>>;

/// See the module. Exclusive and shared claims apart, so that a name with thousands of shared
/// instances costs nothing when one more comes.
#[derive(Default)]
pub(super) struct Claims {
    exclusive: ByName,
    shared: ByName,
}

impl Claims {
    pub(super) fn put(&mut self, record: &Arc<Record>) {
        let claims = if record.exclusive { &mut self.exclusive } else { &mut self.shared };
        let same_name = claims.entry(record.name.clone()).or_default();
        same_name.insert(record.instance, record.clone());
    }

    pub(super) fn remove(&mut self, record: &Record) {
        let claims = if record.exclusive { &mut self.exclusive } else { &mut self.shared };
        if let Some(same_name) = claims.get_mut(&record.name) {
            same_name.remove(&record.instance);
            if same_name.is_empty() {
                claims.remove(&record.name);
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.exclusive.values().chain(self.shared.values()).map(BTreeMap::len).sum()
    }

    /// The record that stands in the way of a new claim: the holder of an exclusive name, or an
    /// instance of a shared name that is claimed exclusively. Claims of different scopes do not meet.
    pub(super) fn conflict(&self, claim: &Record) -> Option<Arc<Record>> {
        let holder = self.holders(&claim.name, claim.scope).into_iter().next();
        holder.or_else(|| {
            let shared = self.shared.get(&claim.name).filter(|_| claim.exclusive)?;
            shared.values().find(|r| r.scope == claim.scope).cloned()
        })
    }

    /// The holders of an exclusive name; the one that stays comes first.
    pub(super) fn holders(&self, name: &Name, scope: Scope) -> Vec<Arc<Record>> {
        let all = self.exclusive.get(name).into_iter().flat_map(BTreeMap::values);
        let mut holders: Vec<_> = all.filter(|r| r.scope == scope).cloned().collect();
        holders.sort_by_key(|r| r.rank());
        holders
    }
}
