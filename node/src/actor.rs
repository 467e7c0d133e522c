//! What an actor is, and what its handlers are given.

use std::any::Any;

use tokio_util::sync::CancellationToken;

use crate::{
    address::Address,
    message::{Api, Message},
    node::Node,
    packet::Parcel,
};

/// An addressable unit with a mailbox, handling one message at a time. Implement it with `#[actor]`.
pub trait Actor: Sized + Send + 'static {
    /// The name of the type.
    const NAME: &'static str;
    /// What stands in its mailbox: one variant for each handler.
    type Mail: Send + 'static;

    /// What it answers.
    fn api() -> Api;

    /// Takes an `Option<Packet<M>>` where `M` has a handler; leaves it in place otherwise.
    fn accept(packet: &mut dyn Any) -> Option<Self::Mail>;

    /// Decodes a parcel, or refuses it.
    fn open(parcel: Parcel) -> Option<Self::Mail>;

    /// Handles one message.
    fn handle(
        &mut self,
        mail: Self::Mail,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = ()> + Send;

    /// Called once before the first message.
    fn started(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = ctx;
        async {}
    }

    /// Called once after the last message, unless the actor panicked.
    fn stopped(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Says that an address of type `Self` takes `M`: an `Address<Worker>` takes what `Worker` handles,
/// an `Address<Xy>` takes `Xy`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}`",
    note = "add a handler `async fn name(&mut self, message: {M})` to its `#[actor]` block"
)]
pub trait Accepts<M: Message> {}

/// What a handler may use of its surroundings.
pub struct Context<A: Actor> {
    pub(crate) node: Node,
    pub(crate) address: Address<A>,
    pub(crate) stop: CancellationToken,
}

impl<A: Actor> Context<A> {
    /// The node that the actor lives in.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The actor's own address, to be given to others.
    #[must_use]
    pub fn address(&self) -> &Address<A> {
        &self.address
    }

    /// Ends the actor after this handler. What waits in its mailbox is answered with `Stopped`.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}
