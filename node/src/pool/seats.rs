//! The seats of a pool: what each of its workers is and how it fared, for whoever looks at the pool. A
//! seat stays while the worker in it is replaced.

use std::{collections::BTreeMap, time::Instant};

use layercake_wire::id::PeerId;

use super::{Pool, State, scheduler::WorkerId};
use crate::{actor::Actor, address::Address};

/// What kind of worker sits there.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Place {
    /// A task of the pool's process.
    Task,
    /// A thread of the pool's process.
    Thread,
    /// A process that the pool has started.
    Process,
    /// Whoever published a name.
    Member,
    /// An address that was added by hand.
    Added,
}

/// One seat.
pub(super) struct Seat {
    pub(super) place: Place,
    /// The name under which it was found.
    pub(super) name: Option<String>,
    /// Who sits there now.
    pub(super) worker: Option<WorkerId>,
    /// Where that is.
    pub(super) at: String,
    pub(super) peer: Option<PeerId>,
    pub(super) pid: Option<u32>,
    /// How many times it was filled again.
    pub(super) restarts: u64,
    /// How many times in a row its worker has ended early.
    pub(super) early_ends: u32,
    /// How the last worker ended.
    pub(super) last_end: Option<String>,
    /// When the next one is started.
    pub(super) back: Option<Instant>,
}

/// All seats, by number.
#[derive(Default)]
pub(super) struct Seats {
    pub(super) all: BTreeMap<u64, Seat>,
    next: u64,
    /// Restarts since the pool began, also of seats that are gone.
    pub(super) restarts: u64,
}

/// A seat that is held; it goes when this is dropped.
pub(super) struct SeatGuard<A: Actor> {
    pool: Pool<A>,
    number: u64,
}

impl<A: Actor> SeatGuard<A> {
    pub(super) fn change(&self, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.pool.0.state.lock().seats.all.get_mut(&self.number) {
            change(seat);
        }
    }

    /// A worker takes the seat, and new requests.
    pub(super) fn join(&self, address: &Address<A>, pid: Option<u32>) -> WorkerId {
        let worker = self.pool.join(address.clone());
        let (at, peer) = (address.path(), Some(address.peer()));
        self.change(|seat| {
            (seat.worker, seat.at, seat.pid, seat.back) = (Some(worker), at, pid, None);
            seat.peer = peer;
        });
        worker
    }

    /// Its worker has ended, and another one takes the seat at that time.
    pub(super) fn ended(&self, reason: &str, early_ends: u32, back: Option<Instant>) {
        let mut state = self.pool.0.state.lock();
        state.seats.restarts += 1;
        if let Some(seat) = state.seats.all.get_mut(&self.number) {
            (seat.worker, seat.peer) = (None, None);
            seat.restarts += 1;
            seat.early_ends = early_ends;
            // The first line: what a process wrote last is in the log.
            seat.last_end = reason.lines().next().map(str::to_owned);
            seat.back = back;
        }
    }
}

impl<A: Actor> Drop for SeatGuard<A> {
    fn drop(&mut self) {
        self.pool.0.state.lock().seats.all.remove(&self.number);
    }
}

impl<A: Actor> Pool<A> {
    pub(super) fn seat(&self, place: Place, name: Option<String>) -> SeatGuard<A> {
        let State { seats, .. } = &mut *self.0.state.lock();
        seats.next += 1;
        let seat = Seat {
            place,
            name,
            worker: None,
            at: String::new(),
            peer: None,
            pid: None,
            restarts: 0,
            early_ends: 0,
            last_end: None,
            back: None,
        };
        seats.all.insert(seats.next, seat);
        SeatGuard { pool: self.clone(), number: seats.next }
    }
}
