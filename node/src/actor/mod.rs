//! What an actor is: a type with handlers, a function with an inbox, or a machine of states. All three
//! run in the same way ([`life`]), are addressed and stopped the same way, and stand in one tree.

mod brood;
mod context;
mod inbox;
mod life;
mod machine;
mod spawn;
mod supervise;

pub use context::{Context, JOBS, Timer};
pub use inbox::{Inbox, Letters, NoMail};
pub use machine::Machine;
pub use spawn::{ByFunction, ByHandlers, ChildEnded, Running, Spawn};
pub use supervise::{
    MAX_CHILDREN, Restart, Strategy, SuperviseError, Supervisor, SupervisorBuilder,
};

pub(crate) use brood::Brood;
pub(crate) use life::Life;

use crate::{
    mail::Mail,
    message::{Api, Message},
};

/// An addressable unit with a mailbox, handling one message at a time. Implement it with `#[actor]`.
pub trait Actor: Sized + Send + 'static {
    /// The name of the type.
    const NAME: &'static str;
    /// What stands in its mailbox: one variant for each handler.
    type Mail: Mail;
    /// What it leaves to whoever joined it, when it ends by [`Context::finish`].
    type Output: Send + 'static;

    /// What it answers.
    fn api() -> Api {
        Self::Mail::api()
    }

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

    /// Called once when it has been asked to stop or has finished, before its children are stopped.
    /// Not called after a panic.
    fn stopping(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = ctx;
        async {}
    }

    /// Called once after its children have ended, unless the actor panicked.
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
