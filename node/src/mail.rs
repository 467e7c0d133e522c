//! Mail: what stands in a mailbox, and how it gets in.
//!
//! `#[actor]`, `#[machine]` and `#[mail]` write down an enum with a variant for each message; one kind
//! of message alone needs none, for a [`Packet`] is mail itself.

use std::any::Any;

use crate::{
    message::{Api, Message},
    packet::{Packet, Parcel},
};

/// What stands in a mailbox: a packet for each kind of message that its actor handles. Implement it with
/// `#[actor]`, `#[machine]` or `#[mail]`.
pub trait Mail: Sized + Send + 'static {
    /// Whether messages of other kinds are taken too, as [`Unknown`](crate::Unknown).
    const TAKES_UNKNOWN: bool = false;

    /// What is taken.
    fn api() -> Api;

    /// Takes an `Option<Packet<M>>` of a kind that it has; leaves it in place otherwise. It is called
    /// under the mailbox's lock: nothing but a look at the type.
    fn accept(packet: &mut dyn Any) -> Option<Self>;

    /// Decodes a parcel, or ends it with a reason.
    fn open(parcel: Parcel) -> Option<Self>;
}

impl<M: Message> Mail for Packet<M> {
    fn api() -> Api {
        Api { actor: M::NAME.to_owned(), messages: vec![M::describe().clone()] }
    }

    fn accept(packet: &mut dyn Any) -> Option<Self> {
        packet.downcast_mut::<Option<Self>>().and_then(Option::take)
    }

    fn open(parcel: Parcel) -> Option<Self> {
        if parcel.tag() == M::TAG {
            return parcel.unpack();
        }
        parcel.refuse();
        None
    }
}
