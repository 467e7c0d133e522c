//! The requests that wait: by urgency, in turn between callers, and for each caller in a line.
//!
//! Each caller that has requests waiting has a line, and the lines of an urgency are in a ring: who was
//! served goes to its end. So a caller with a thousand requests delays one with a single request by one
//! place, not by a thousand (fair queueing, as `fq_codel` does it; all requests count the same, for what
//! they cost is not known before). A line is served from its front while the pool is on time, and from its
//! end while it is late: then the old ones will miss their deadlines anyway, and each that is served first
//! makes a fresh one late as well (adaptive LIFO).

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{
    chain::{Chain, Links},
    slots::Slots,
    terms::{Priority, Ticket},
};

/// Of so many starts one goes to a less urgent request that waits.
const TURN_OF_THE_LESS_URGENT: u32 = 10;

/// The waiting requests of one caller and one urgency.
struct Line {
    caller: u64,
    class: usize,
    requests: Chain,
}

/// All lines of one urgency.
#[derive(Default)]
struct Class {
    /// Whose turn it is stands first.
    ring: Chain,
    /// How many requests wait.
    waiting: usize,
    /// How often more urgent ones went before while some waited here.
    passed_over: u32,
    by_length: BTreeSet<(usize, u32)>,
}

#[derive(Default)]
pub(super) struct Queue {
    lines: Vec<Line>,
    /// Lines that are not in use.
    free: Vec<u32>,
    of_caller: HashMap<(usize, u64), u32>,
    ring: Links,
    classes: [Class; Priority::COUNT],
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// From this age of its front on, a line is served from its end.
    late: Option<Duration>,
}

impl Queue {
    pub(super) fn new(late: Option<Duration>) -> Self {
        Self { late, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(|class| class.waiting).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The one whose deadline comes first.
    pub(super) fn most_urgent(&self) -> Option<Ticket> {
        self.deadlines.first().map(|(_, ticket)| *ticket)
    }

    /// One whose deadline has passed.
    pub(super) fn overdue(&self, now: Instant) -> Option<Ticket> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, ticket)| *ticket)
    }

    /// How many will start before the next request of a caller, with the lines as they are.
    pub(super) fn ahead(&self, priority: Priority, caller: u64) -> usize {
        let class = priority as usize;
        let urgent: usize = self.classes[..class].iter().map(|class| class.waiting).sum();
        let own = self.of_caller.get(&(class, caller));
        let own = own.map_or(0, |line| self.lines[*line as usize].requests.len());
        let others = self.classes[class].ring.len() - usize::from(own > 0);
        // Each other caller gets as many turns as this one, as far as it has requests.
        let fair = own.saturating_add(others.saturating_mul(own + 1));
        urgent + fair.min(self.classes[class].waiting)
    }

    pub(super) fn push(&mut self, slots: &mut Slots, slot: u32) {
        let request = &slots[slot];
        let (class, caller) = (request.priority as usize, request.caller);
        self.deadlines.insert((request.deadline, request.ticket(slot)));
        let line = match self.of_caller.get(&(class, caller)) {
            Some(line) => *line,
            None => self.open_line(class, caller),
        };
        slots[slot].line = line;
        self.resize(line, |requests| requests.push(&mut slots.links, slot));
    }

    fn open_line(&mut self, class: usize, caller: u64) -> u32 {
        let fresh = Line { caller, class, requests: Chain::default() };
        let line = match self.free.pop() {
            Some(line) => {
                self.lines[line as usize] = fresh;
                line
            }
            None => {
                self.lines.push(fresh);
                (self.lines.len() - 1) as u32
            }
        };
        self.of_caller.insert((class, caller), line);
        self.classes[class].ring.push(&mut self.ring, line);
        self.classes[class].by_length.insert((0, line));
        line
    }

    /// Changes the requests of a line and what is known of its length.
    fn resize(&mut self, line: u32, change: impl FnOnce(&mut Chain)) {
        let known = &mut self.lines[line as usize];
        let before = known.requests.len();
        change(&mut known.requests);
        let after = known.requests.len();
        let (class, caller) = (known.class, known.caller);
        let in_class = &mut self.classes[class];
        in_class.waiting = in_class.waiting + after - before;
        in_class.by_length.remove(&(before, line));
        if after > 0 {
            in_class.by_length.insert((after, line));
            return;
        }
        in_class.ring.remove(&mut self.ring, line);
        if in_class.ring.len() == 0 {
            in_class.passed_over = 0;
        }
        self.of_caller.remove(&(class, caller));
        self.free.push(line);
    }

    /// Takes a waiting request out.
    pub(super) fn remove(&mut self, slots: &mut Slots, slot: u32) {
        let request = &slots[slot];
        let line = request.line;
        self.deadlines.remove(&(request.deadline, request.ticket(slot)));
        self.resize(line, |requests| requests.remove(&mut slots.links, slot));
    }

    /// The one to start next.
    pub(super) fn next(&self, slots: &Slots, now: Instant) -> Option<u32> {
        let line = self.classes[self.next_class()?].ring.first()?;
        let requests = &self.lines[line as usize].requests;
        if self.is_late(slots, requests, now) { requests.last() } else { requests.first() }
    }

    /// The same one is started: others have the next turn. Returns who gives up for it: one that has
    /// waited for twice as long as is late gives way to one that has just come.
    pub(super) fn start(&mut self, slots: &mut Slots, slot: u32, now: Instant) -> Option<u32> {
        let (line, class) = (slots[slot].line, slots[slot].priority as usize);
        let oldest = self.lines[line as usize].requests.first();
        for (other, lower) in self.classes.iter_mut().enumerate().skip(class) {
            let served = other == class;
            let waits = !served && lower.waiting > 0;
            lower.passed_over = if waits { lower.passed_over.saturating_add(1) } else { 0 };
        }
        let ring = &mut self.classes[class].ring;
        ring.remove(&mut self.ring, line);
        ring.push(&mut self.ring, line);
        let age = |slot: u32| now.saturating_duration_since(slots[slot].arrived);
        let late = self.late.unwrap_or(Duration::MAX);
        let stale = oldest.filter(|oldest| {
            *oldest != slot && age(*oldest) > late.saturating_mul(2) && age(slot) < late
        });
        self.remove(slots, slot);
        stale
    }

    fn next_class(&self) -> Option<usize> {
        let waits = |class: &usize| self.classes[*class].waiting > 0;
        let first = (0..Priority::COUNT).find(waits)?;
        let due = (first + 1..Priority::COUNT)
            .filter(waits)
            .find(|class| self.classes[*class].passed_over >= TURN_OF_THE_LESS_URGENT - 1);
        Some(due.unwrap_or(first))
    }

    fn is_late(&self, slots: &Slots, line: &Chain, now: Instant) -> bool {
        let (Some(late), Some(oldest)) = (self.late, line.first()) else { return false };
        now.saturating_duration_since(slots[oldest].arrived) >= late
    }

    /// Who gives up its place to a newcomer where all are taken: the last of the longest line among the
    /// less urgent, or else of a line that is longer than the newcomer's.
    pub(super) fn victim(
        &self,
        slots: &Slots,
        priority: Priority,
        caller: u64,
        now: Instant,
    ) -> Option<u32> {
        let class = priority as usize;
        let own = self.of_caller.get(&(class, caller));
        let own = own.map_or(0, |line| self.lines[*line as usize].requests.len());
        for lower in (class..Priority::COUNT).rev() {
            let Some(&(length, line)) = self.classes[lower].by_length.last() else { continue };
            if lower > class || length > own + 1 {
                let requests = &self.lines[line as usize].requests;
                let late = self.is_late(slots, requests, now);
                return if late { requests.first() } else { requests.last() };
            }
        }
        None
    }
}
