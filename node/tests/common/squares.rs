//! What the stories of pools of one type ask of their workers.
#![allow(dead_code, reason = "no story needs all of it")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use layercake_macros::message;
use parking_lot::{Condvar, Mutex};

use crate::common::SOON;

#[message(reply = u64)]
pub(crate) struct Square {
    pub(crate) n: u64,
}

/// Holds the thread of its handler until the gate opens.
#[message(reply = ())]
pub(crate) struct Block {
    gate: u64,
}

/// Where handlers are held in their threads until the test lets them go. A message names its gate by a
/// number, as it would to another process.
pub(crate) struct Gate(u64);

#[derive(Default)]
struct Shut {
    /// How many have come to it.
    come: usize,
    /// How many more may pass.
    passes: usize,
}

/// The gates that are shut.
static SHUT: Mutex<BTreeMap<u64, Shut>> = Mutex::new(BTreeMap::new());
static OPENED: Condvar = Condvar::new();

impl Gate {
    pub(crate) fn shut() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let gate = NEXT.fetch_add(1, Ordering::Relaxed);
        SHUT.lock().insert(gate, Shut::default());
        Self(gate)
    }

    pub(crate) fn block(&self) -> Block {
        Block { gate: self.0 }
    }

    /// How many handlers have come to it.
    pub(crate) fn come(&self) -> usize {
        SHUT.lock()[&self.0].come
    }

    pub(crate) fn let_one_pass(&self) {
        if let Some(gate) = SHUT.lock().get_mut(&self.0) {
            gate.passes += 1;
        }
        OPENED.notify_all();
    }

    pub(crate) fn open(self) {}
}

/// A test that fails holds nobody either.
impl Drop for Gate {
    fn drop(&mut self) {
        SHUT.lock().remove(&self.0);
        OPENED.notify_all();
    }
}

impl Block {
    pub(crate) fn wait(&self) {
        let mut shut = SHUT.lock();
        let Some(gate) = shut.get_mut(&self.gate) else { return };
        gate.come += 1;
        let waits = |shut: &mut BTreeMap<u64, Shut>| {
            shut.get(&self.gate).is_some_and(|gate| gate.passes == 0)
        };
        let waited = OPENED.wait_while_for(&mut shut, waits, SOON);
        assert!(!waited.timed_out(), "nobody opens the gate");
        if let Some(gate) = shut.get_mut(&self.gate) {
            gate.passes -= 1;
        }
    }
}
