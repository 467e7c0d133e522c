//! Where the requests are kept that wait or run.

use std::{
    ops::{Index, IndexMut},
    time::Instant,
};

use super::{
    chain::Links,
    limit::Sample,
    terms::{Priority, Request, Ticket, WorkerId},
};

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The slot is free.
    Nowhere,
    Waiting,
    /// With the worker of that index.
    With(u32),
}

/// A request that waits or runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    number: u64,
    pub(super) place: Place,
    pub(super) arrived: Instant,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) priority: Priority,
    pub(super) caller: u64,
    pub(super) key: Option<u64>,
    pub(super) again: Option<WorkerId>,
    /// The line it waits in.
    pub(super) line: u32,
    /// How it was with its worker when it started.
    pub(super) sample: Sample,
}

impl Slot {
    pub(super) fn ticket(&self, slot: u32) -> Ticket {
        Ticket { number: self.number, slot }
    }

    pub(super) fn request(&self) -> Request {
        let Self { deadline, priority, caller, key, again, .. } = *self;
        Request { deadline, priority, caller, key, again }
    }
}

/// As many as were ever in use at one time: what may wait and what may run bounds them.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// A request is in its caller's line or in its worker's list.
    pub(super) links: Links,
    numbers: u64,
}

impl Slots {
    /// Keeps a new request, which is nowhere yet.
    pub(super) fn keep(&mut self, request: &Request, now: Instant) -> u32 {
        self.numbers += 1;
        let Request { deadline, priority, caller, key, again } = *request;
        let fresh = Slot {
            number: self.numbers,
            place: Place::Nowhere,
            arrived: now,
            started: now,
            deadline,
            priority,
            caller,
            key,
            again,
            line: 0,
            sample: Sample::default(),
        };
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = fresh;
                slot
            }
            None => {
                self.slots.push(fresh);
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Where it is, as long as it is there.
    pub(super) fn place(&self, ticket: Ticket) -> Place {
        match self.slots.get(ticket.slot as usize) {
            Some(slot) if slot.number == ticket.number => slot.place,
            _ => Place::Nowhere,
        }
    }

    pub(super) fn release(&mut self, slot: u32) {
        self[slot].place = Place::Nowhere;
        self.free.push(slot);
    }
}

impl Index<u32> for Slots {
    type Output = Slot;

    fn index(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }
}

impl IndexMut<u32> for Slots {
    fn index_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }
}
