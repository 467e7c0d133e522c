//! Records by name, and patterns by how the names that they match begin, so that neither a change nor a
//! subscription looks at everything.
//!
//! [`Shelf`] keeps records in the order of their names: what a pattern can match lies in a few ranges of
//! it. [`Patterns`] finds for a name those patterns that can match it. Both leave the last word to
//! [`Pattern::matches`].
//!
//! Checked against a walk over everything below.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeBounds,
    sync::Arc,
};

use crate::{
    name::{Name, Pattern},
    record::{Instance, Record},
};

/// Records in the order of their names.
#[derive(Default)]
pub(crate) struct Shelf(BTreeMap<(Name, Instance), Arc<Record>>);

impl Shelf {
    pub(crate) fn put(&mut self, record: Arc<Record>) {
        self.0.insert((record.name.clone(), record.instance), record);
    }

    pub(crate) fn remove(&mut self, record: &Record) {
        self.0.remove(&(record.name.clone(), record.instance));
    }

    /// Those of one name, in the order of their instances.
    pub(crate) fn of(&self, name: &Name) -> impl Iterator<Item = &Arc<Record>> {
        let range = (name.clone(), Instance::FIRST)..=(name.clone(), Instance::LAST);
        self.0.range(range).map(|(_, record)| record)
    }

    /// Those whose name matches, in the order of their names.
    pub(crate) fn matching<'a>(
        &'a self,
        pattern: &'a Pattern,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        let under = |start: &'a Name| {
            let range = self.0.range((start.clone(), Instance::FIRST)..);
            range.take_while(|((name, _), _)| name.as_str().starts_with(start.as_str()))
        };
        let all = pattern.starts().iter().flat_map(under);
        all.map(|(_, record)| record).filter(|record| pattern.matches(&record.name))
    }
}

/// Patterns under keys of their owners, by how the names that they match begin.
pub(crate) struct Patterns<K> {
    /// Those that match one name only.
    exact: HashMap<Name, BTreeSet<K>>,
    starts: HashMap<Name, BTreeSet<K>>,
    /// How many keys there are of each length of a start.
    lengths: BTreeMap<usize, usize>,
}

impl<K> Default for Patterns<K> {
    fn default() -> Self {
        Self { exact: HashMap::new(), starts: HashMap::new(), lengths: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Patterns<K> {
    pub(crate) fn insert(&mut self, pattern: &Pattern, key: K) {
        for start in pattern.starts() {
            if pattern.is_exact() {
                self.exact.entry(start.clone()).or_default().insert(key);
            } else if self.starts.entry(start.clone()).or_default().insert(key) {
                *self.lengths.entry(start.as_str().len()).or_default() += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, pattern: &Pattern, key: K) {
        for start in pattern.starts() {
            let keys = if pattern.is_exact() { &mut self.exact } else { &mut self.starts };
            let Some(under) = keys.get_mut(start) else { continue };
            let removed = under.remove(&key);
            if under.is_empty() {
                keys.remove(start);
            }
            if removed && !pattern.is_exact() {
                let length = start.as_str().len();
                if let Some(count) = self.lengths.get_mut(&length) {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&length);
                    }
                }
            }
        }
    }

    /// The keys within a range of those patterns that may match a name, each once.
    pub(crate) fn candidates<'a>(
        &'a self,
        name: &'a Name,
        range: impl RangeBounds<K> + Clone + 'a,
    ) -> impl Iterator<Item = K> + 'a {
        let text = name.as_str();
        let lengths = self.lengths.keys().take_while(|length| **length <= text.len());
        // No start of a pattern is the start of another one of the same: each key is met once.
        let starts = lengths.filter_map(|length| self.starts.get(text.get(..*length)?));
        let under = self.exact.get(text).into_iter().chain(starts);
        under.flat_map(move |keys| keys.range(range.clone()).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        name::Scope,
        testing::{peer, record},
    };

    fn any_name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "é", ":x", ":ab"]), 1..5)
            .prop_map(|parts| format!("x{}", parts.concat()))
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "x", "a", "b", "é", ":", ".*", ".", "(a|b)", "(ab|x)?", "a+", "[ab]", "b*", "(?i)A",
            "|xa", "^", "$", r"\w", "x|é.*",
        ]);
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn an_index_finds_what_a_walk_finds(
            names in prop::collection::vec(any_name(), 1..30),
            patterns in prop::collection::vec(any_pattern(), 1..12),
            removed in prop::collection::vec(any::<bool>(), 12),
        ) {
            let patterns: Vec<_> =
                patterns.iter().filter_map(|text| Pattern::new(text).ok()).collect();
            let (mut shelf, mut index) = (Shelf::default(), Patterns::default());
            let mut records = Vec::new();
            for (serial, name) in (1..).zip(&names) {
                let record = Arc::new(record(peer(1, 1), serial, name, Scope::Lan));
                shelf.put(record.clone());
                records.push(record);
            }
            patterns.iter().enumerate().for_each(|(key, pattern)| index.insert(pattern, key));
            for (key, pattern) in patterns.iter().enumerate().filter(|(key, _)| removed[*key]) {
                index.remove(pattern, key);
            }
            for pattern in &patterns {
                let mut found: Vec<_> = shelf.matching(pattern).map(|r| r.instance).collect();
                found.sort();
                let walked = records.iter().filter(|r| pattern.matches(&r.name));
                prop_assert_eq!(found, walked.map(|r| r.instance).collect::<Vec<_>>());
            }
            for record in &records {
                let mut found: Vec<_> = index.candidates(&record.name, ..).collect();
                let all = found.len();
                found.retain(|key| patterns[*key].matches(&record.name));
                found.sort_unstable();
                let walked: Vec<_> = (0..patterns.len())
                    .filter(|key| !removed[*key] && patterns[*key].matches(&record.name))
                    .collect();
                prop_assert_eq!(&found, &walked);
                prop_assert!(all <= patterns.len());
            }
        }

        /// What the shape of a pattern decides is what its regular expression decides.
        #[test]
        fn a_shape_matches_what_the_expression_matches(text in any_pattern(), name in any_name()) {
            let Ok(pattern) = Pattern::new(&text) else { return Ok(()) };
            let whole = regex::Regex::new(&format!("^(?:{text})$")).unwrap();
            let name = Name::new(&name);
            prop_assume!(name.is_ok());
            let name = name.unwrap();
            prop_assert_eq!(pattern.matches(&name), whole.is_match(name.as_str()));
        }
    }

    #[test]
    fn a_change_meets_only_the_patterns_that_begin_like_it() {
        let mut index = Patterns::default();
        let texts = ["textures:worker:.*", "textures:worker:7", "sounds:.*", "(textures|x):w.*"];
        for (key, text) in texts.iter().enumerate() {
            index.insert(&Pattern::new(text).unwrap(), key);
        }
        let met = |name: &str| {
            let name = Name::new(name).unwrap();
            let mut met: Vec<_> = index.candidates(&name, ..).collect();
            met.sort_unstable();
            met
        };
        assert_eq!(met("textures:worker:7"), [0, 1, 3]);
        assert_eq!(met("textures:worker:8"), [0, 3]);
        assert_eq!(met("sounds:worker"), [2]);
        assert!(met("models:worker").is_empty());
    }
}
