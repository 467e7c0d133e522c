//! Machines: actors whose handlers are transitions from one state to another. `#[states]` writes the enum
//! of states, `#[machine]` the actor.

use layercake_wire::{Failure, FailureCode};

use super::{Actor, Context};
use crate::{mailbox::MAILBOX, message::Message, packet::Packet};

/// The states of a machine. Implemented by `#[states]`.
pub trait Machine: Sized + Send + 'static {
    /// Takes the state out, leaving one that is none.
    #[doc(hidden)]
    fn take(&mut self) -> Self;

    /// The name of the present state.
    fn state(&self) -> &'static str;
}

impl<A: Actor + Machine> Context<A> {
    /// Puts a message off until the state changes. At most [`MAILBOX`] are put off; a further ask is
    /// answered `Overloaded`.
    #[doc(hidden)]
    pub fn __defer<M: Message>(
        &mut self,
        packet: Packet<M>,
        wrap: impl FnOnce(Packet<M>) -> A::Mail,
    ) {
        if self.deferred() < MAILBOX {
            self.defer(wrap(packet));
            return;
        }
        let detail = MAILBOX.to_string();
        packet.refuse(Failure::new(FailureCode::Overloaded, detail));
    }

    /// Answers a message that the present state does not take.
    #[doc(hidden)]
    pub fn __refuse<M: Message>(&mut self, packet: Packet<M>, state: &str) {
        let detail = format!("`{}` in state `{state}`", M::NAME);
        packet.refuse(Failure::new(FailureCode::NotNow, detail));
    }

    /// The state has changed: what was put off comes again.
    #[doc(hidden)]
    pub fn __changed(&mut self, before: &'static str, now: &'static str) {
        if before != now {
            self.resume();
        }
    }
}
