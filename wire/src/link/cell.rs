//! How the parts of a link's task share its [`Core`].
//!
//! On the I/O thread that is a `RefCell`: nothing else runs there, and a lock would be paid for with
//! each frame. A link of an in-memory endpoint runs on the user's runtime, where its task may move
//! between threads; it shares the core under a lock, which nobody ever waits for. Neither is held
//! across an `.await`.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

use parking_lot::Mutex;

use super::core::Core;

/// A core that several parts of one task use in turns.
pub(crate) trait CoreCell: Default {
    /// The core, to be looked at.
    fn borrow(&self) -> impl Deref<Target = Core>;
    /// The core, to be changed.
    fn borrow_mut(&self) -> impl DerefMut<Target = Core>;
}

impl CoreCell for RefCell<Core> {
    fn borrow(&self) -> impl Deref<Target = Core> {
        Self::borrow(self)
    }

    fn borrow_mut(&self) -> impl DerefMut<Target = Core> {
        Self::borrow_mut(self)
    }
}

impl CoreCell for Mutex<Core> {
    fn borrow(&self) -> impl Deref<Target = Core> {
        self.lock()
    }

    fn borrow_mut(&self) -> impl DerefMut<Target = Core> {
        self.lock()
    }
}
