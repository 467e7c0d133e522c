//! Rounds of questions: everybody concerned is asked once, and the round ends when all have answered
//! or its time is up, with what there is.
//!
//! The host directory runs two of these: over the nodes of its host, and over the hosts of the mesh. One
//! round of a kind is under way at a time, and whoever asks meanwhile waits for the next one: so the
//! answer is never older than the question, and askers in a hurry cost one round together. It decides
//! and does nothing; time comes in.
//!
//! # What always holds
//! - Each asker is answered once, within twice the span of a round, unless it has asked too often.
//! - An answer counts once, and only from somebody who was asked in this round.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Askers that wait for a round; a further one is refused.
pub(crate) const MAX_ASKERS: usize = 1024;
/// Of these, the ones of one node; the oldest gives way and gets no answer.
pub(crate) const MAX_ASKERS_EACH: usize = 16;

/// See the module. `K` is who is asked, `A` what is answered, `Q` who asks.
pub(crate) struct Rounds<K, A, Q> {
    span: Duration,
    number: u64,
    current: Option<Round<K, A, Q>>,
    next: Vec<Q>,
}

struct Round<K, A, Q> {
    until: Duration,
    waiting: BTreeSet<K>,
    answers: BTreeMap<K, A>,
    askers: Vec<Q>,
}

/// A round that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended<K, A, Q> {
    pub(crate) askers: Vec<Q>,
    pub(crate) answers: BTreeMap<K, A>,
}

impl<K: Ord, A, Q> Rounds<K, A, Q> {
    /// Rounds that take so long at most.
    pub(crate) const fn new(span: Duration) -> Self {
        Self { span, number: 0, current: None, next: Vec::new() }
    }

    /// Somebody asks. The asker comes back when too many wait. Of those that are `alike`, `most` may
    /// wait; the oldest gives way.
    pub(crate) fn ask(
        &mut self,
        asker: Q,
        most: usize,
        alike: impl Fn(&Q) -> bool,
    ) -> Result<(), Q> {
        let mut waiting = self.next.iter().enumerate().filter(|(_, other)| alike(other));
        if let Some((oldest, _)) = waiting.next()
            && waiting.count() + 1 >= most
        {
            self.next.remove(oldest);
        }
        if self.next.len() >= MAX_ASKERS {
            return Err(asker);
        }
        self.next.push(asker);
        Ok(())
    }

    /// Begins a round when one is due: asks those that `whom` gives. Returns its number.
    pub(crate) fn begin(
        &mut self,
        now: Duration,
        whom: impl FnOnce() -> BTreeSet<K>,
    ) -> Option<u64> {
        if self.current.is_some() || self.next.is_empty() {
            return None;
        }
        self.number += 1;
        let askers = std::mem::take(&mut self.next);
        let (until, waiting) = (now + self.span, whom());
        self.current = Some(Round { until, waiting, answers: BTreeMap::new(), askers });
        Some(self.number)
    }

    /// Who asks in the present round.
    pub(crate) fn askers(&self) -> &[Q] {
        self.current.as_ref().map_or(&[], |round| &round.askers)
    }

    /// Whether somebody is still to answer that round.
    pub(crate) fn awaits(&self, number: u64, from: &K) -> bool {
        number == self.number && self.current.as_ref().is_some_and(|r| r.waiting.contains(from))
    }

    /// Somebody answers.
    pub(crate) fn answer(&mut self, number: u64, from: K, answer: A) {
        if self.awaits(number, &from)
            && let Some(round) = &mut self.current
        {
            round.waiting.remove(&from);
            round.answers.insert(from, answer);
        }
    }

    /// Somebody will not answer any more.
    pub(crate) fn gone(&mut self, from: &K) {
        if let Some(round) = &mut self.current {
            round.waiting.remove(from);
        }
    }

    /// The round, if it is over.
    pub(crate) fn end(&mut self, now: Duration) -> Option<Ended<K, A, Q>> {
        let over = |round: &mut Round<K, A, Q>| round.waiting.is_empty() || round.until <= now;
        let Round { askers, answers, .. } = self.current.take_if(over)?;
        Some(Ended { askers, answers })
    }

    /// When there is something to do again: to [end](Self::end) the round or to [begin](Self::begin)
    /// the next one. Zero when that is now.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.current {
            Some(round) if round.waiting.is_empty() => Some(Duration::ZERO),
            Some(round) => Some(round.until),
            None => (!self.next.is_empty()).then_some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(400);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn three() -> BTreeSet<u8> {
        BTreeSet::from([1, 2, 3])
    }

    #[test]
    fn a_round_ends_with_the_last_answer() {
        let mut rounds = Rounds::new(SPAN);
        assert_eq!(rounds.begin(ms(0), three), None, "nobody asks");
        rounds.ask("anna", 1, |_| false).unwrap();
        assert_eq!(rounds.deadline(), Some(ms(0)));
        let number = rounds.begin(ms(0), three).unwrap();
        for from in [1, 2] {
            rounds.answer(number, from, from * 10);
            assert_eq!(rounds.end(ms(1)), None);
        }
        rounds.answer(number, 3, 30);
        let ended = rounds.end(ms(1)).unwrap();
        assert_eq!(ended.askers, ["anna"]);
        assert_eq!(ended.answers, BTreeMap::from([(1, 10), (2, 20), (3, 30)]));
        assert_eq!(rounds.deadline(), None);
    }

    #[test]
    fn who_is_silent_delays_a_round_no_longer_than_its_span() {
        let mut rounds = Rounds::new(SPAN);
        rounds.ask("anna", 1, |_| false).unwrap();
        let number = rounds.begin(ms(50), three).unwrap();
        rounds.answer(number, 1, 10);
        rounds.gone(&2);
        assert_eq!(rounds.deadline(), Some(ms(450)));
        assert_eq!(rounds.end(ms(449)), None);
        let ended = rounds.end(ms(450)).unwrap();
        assert_eq!(ended.answers, BTreeMap::from([(1, 10)]));
        // What comes now is too late, also for the next round.
        rounds.ask("bert", 1, |_| false).unwrap();
        let next = rounds.begin(ms(451), three).unwrap();
        rounds.answer(number, 3, 30);
        assert!(rounds.awaits(next, &3));
    }

    #[test]
    fn who_asks_during_a_round_gets_answers_of_the_next() {
        let mut rounds = Rounds::new(SPAN);
        rounds.ask("anna", 1, |_| false).unwrap();
        let first = rounds.begin(ms(0), || BTreeSet::from([1])).unwrap();
        rounds.ask("bert", 1, |_| false).unwrap();
        assert_eq!(rounds.begin(ms(1), three), None, "one at a time");
        rounds.answer(first, 1, 10);
        rounds.answer(first, 1, 11);
        rounds.answer(first, 9, 90);
        let ended = rounds.end(ms(1)).unwrap();
        assert_eq!((ended.askers, ended.answers), (vec!["anna"], BTreeMap::from([(1, 10)])));
        assert!(rounds.begin(ms(2), three).is_some());
        assert_eq!(rounds.askers(), ["bert"]);
    }

    #[test]
    fn who_asks_again_and_again_costs_no_more_than_its_share() {
        let mut rounds: Rounds<u8, u8, (char, u8)> = Rounds::new(SPAN);
        rounds.ask(('b', 0), 2, |(who, _)| *who == 'b').unwrap();
        for number in 0..100 {
            rounds.ask(('a', number), 2, |(who, _)| *who == 'a').unwrap();
        }
        rounds.begin(ms(0), BTreeSet::new).unwrap();
        assert_eq!(rounds.askers(), [('b', 0), ('a', 98), ('a', 99)]);
    }

    #[test]
    fn nobody_to_ask_is_an_answer_too_and_askers_are_bounded() {
        let mut rounds: Rounds<u8, u8, usize> = Rounds::new(SPAN);
        for asker in 0..MAX_ASKERS {
            rounds.ask(asker, 1, |_| false).unwrap();
        }
        assert_eq!(rounds.ask(7, 1, |_| false), Err(7));
        rounds.begin(ms(0), BTreeSet::new).unwrap();
        assert_eq!(rounds.end(ms(0)).unwrap().askers.len(), MAX_ASKERS);
    }
}
