//! What a subscriber has not read yet.
//!
//! A subscriber may be slow, and must not be lied to. Beyond a bound its queue is folded: of each
//! instance only what matters remains, given what the subscriber knows. What it reads then is
//! shorter than what happened and just as true.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::record::{DropReason, Instance, Record};

/// Events that wait for a subscriber before they are folded. Folded, there are two at most for each
/// instance that matches.
pub const MAX_QUEUE: usize = 4096;

/// What a subscription tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A record is there. For an instance that is there already: its record has changed.
    Available(Arc<Record>),
    /// A record has gone, and why.
    Dropped(Arc<Record>, DropReason),
}

impl Event {
    /// The record that it is about.
    #[must_use]
    pub const fn record(&self) -> &Arc<Record> {
        match self {
            Self::Available(record) | Self::Dropped(record, _) => record,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    events: VecDeque<Event>,
    /// What is available as far as the subscriber has read.
    read: HashSet<Instance>,
    /// How many there were after the last folding.
    folded: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
        if self.events.len() > MAX_QUEUE.max(2 * self.folded) {
            self.fold();
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        let instance = event.record().instance;
        match &event {
            Event::Available(_) => self.read.insert(instance),
            Event::Dropped(..) => self.read.remove(&instance),
        };
        Some(event)
    }

    fn fold(&mut self) {
        let mut last: HashMap<Instance, usize> = HashMap::new();
        let mut drops: HashMap<Instance, Event> = HashMap::new();
        for (at, event) in self.events.iter().enumerate() {
            let instance = event.record().instance;
            last.insert(instance, at);
            if matches!(event, Event::Dropped(..)) && self.read.contains(&instance) {
                drops.insert(instance, event.clone());
            }
        }
        let events = std::mem::take(&mut self.events);
        for (at, event) in events.into_iter().enumerate() {
            let instance = event.record().instance;
            if last.get(&instance) != Some(&at) {
                continue;
            }
            // Known to the subscriber and dropped meanwhile: once, however often it came back.
            self.events.extend(drops.remove(&instance));
            if matches!(event, Event::Available(_)) {
                self.events.push_back(event);
            }
        }
        self.folded = self.events.len();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        name::Scope,
        testing::{peer, record},
    };

    fn available(serial: u64, fence: u64) -> Event {
        let record = record(peer(1, 1), serial, "a", Scope::Lan);
        Event::Available(Arc::new(Record { fence, ..record }))
    }

    fn dropped(serial: u64, fence: u64) -> Event {
        Event::Dropped(available(serial, fence).record().clone(), DropReason::Withdrawn)
    }

    #[test]
    fn a_slow_subscriber_costs_no_more_than_what_there_is() {
        let mut queue = Queue::default();
        queue.push(available(1, 0));
        assert_eq!(queue.pop(), Some(available(1, 0)));
        for fence in 0..100_000 {
            queue.push(dropped(1, fence));
            queue.push(available(1, fence + 1));
            queue.push(available(2, fence));
            queue.push(dropped(2, fence));
        }
        assert!(queue.events.len() <= MAX_QUEUE);
        queue.fold();
        assert_eq!(queue.pop(), Some(dropped(1, 99_999)));
        assert_eq!(queue.pop(), Some(available(1, 100_000)));
        assert_eq!(queue.pop(), None, "what came and went unseen is not told");
    }

    proptest! {
        #[test]
        fn folding_changes_nothing_for_the_reader(
            steps in prop::collection::vec((0..4_u64, 0..4_u8), 0..80)
        ) {
            let mut queue = Queue::default();
            let (mut truth, mut seen) = (BTreeMap::new(), BTreeMap::new());
            let mut read = |event: Event| -> Result<(), TestCaseError> {
                let instance = event.record().instance;
                match event {
                    Event::Available(record) => { seen.insert(instance, record.fence); }
                    Event::Dropped(..) => {
                        prop_assert!(seen.remove(&instance).is_some(), "dropped twice");
                    }
                }
                Ok(())
            };
            for (at, (serial, what)) in steps.into_iter().enumerate() {
                let instance = available(serial, 0).record().instance;
                match what {
                    0 if truth.remove(&instance).is_some() => queue.push(dropped(serial, 0)),
                    0 | 1 => {
                        truth.insert(instance, at as u64);
                        queue.push(available(serial, at as u64));
                    }
                    2 => queue.pop().map_or(Ok(()), &mut read)?,
                    _ => queue.fold(),
                }
            }
            while let Some(event) = queue.pop() {
                read(event)?;
            }
            prop_assert_eq!(seen, truth);
        }
    }
}
