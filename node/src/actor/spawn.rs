//! Starting an actor of any kind, and joining it.

use std::{fmt, future::IntoFuture, ops::Deref, pin::Pin, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Actor, Life,
    inbox::{Inbox, Letters},
    life,
};
use crate::{address::Address, error::AskError, exit::Exit, mail::Mail, mailbox::Inlet};

/// Marks an actor that is a type with handlers, or a machine.
pub struct ByHandlers(());
/// Marks an actor that is a function with an inbox of `L`.
pub struct ByFunction<L>(std::marker::PhantomData<fn() -> L>);

/// What can be started as an actor: a type with handlers (`#[actor]`), a machine (`#[machine]`), or a
/// function `async fn(inbox: Inbox<Letters>) -> Output`. `Way` tells them apart and is never written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no actor",
    note = "an actor is a type with `#[actor]` on its `impl`, or an `async fn(inbox: Inbox<…>)`"
)]
pub trait Spawn<Way>: Sized + Send + 'static {
    /// What stands in its mailbox.
    type Mail: Mail;
    /// What its address is an address of.
    type Takes: 'static;
    /// What it leaves when it has finished.
    type Output: Send + 'static;

    /// Its name for people.
    fn kind() -> &'static str;

    /// Lives, and says how it ended.
    #[doc(hidden)]
    fn live(
        self,
        life: &mut Life<Self::Mail>,
    ) -> impl Future<Output = (Exit, Option<Self::Output>)> + Send;
}

impl<A: Actor> Spawn<ByHandlers> for A {
    type Mail = A::Mail;
    type Takes = A;
    type Output = A::Output;

    fn kind() -> &'static str {
        A::NAME
    }

    fn live(
        self,
        life: &mut Life<A::Mail>,
    ) -> impl Future<Output = (Exit, Option<A::Output>)> + Send {
        life::by_handlers(self, life)
    }
}

impl<L, F, Fut> Spawn<ByFunction<L>> for F
where
    L: Letters,
    F: FnOnce(Inbox<L>) -> Fut + Send + 'static,
    Fut: Future<Output: Send + 'static> + Send,
{
    type Mail = L::Mail;
    type Takes = L;
    type Output = Fut::Output;

    fn kind() -> &'static str {
        // `program::module::textures`, `program::main::{{closure}}::{{closure}}`
        let name = std::any::type_name::<F>();
        let named = name.split("::").filter(|part| !part.starts_with('{')).last();
        named.unwrap_or("function")
    }

    fn live(
        self,
        life: &mut Life<L::Mail>,
    ) -> impl Future<Output = (Exit, Option<Fut::Output>)> + Send {
        life::by_function(self, life)
    }
}

/// An actor that was started, to be joined: its address, and in the end what it left.
///
/// Dropping it lets the actor live on; awaiting it waits for the actor's end.
pub struct Running<T: 'static, R> {
    pub(crate) address: Address<T>,
    pub(crate) ended: oneshot::Receiver<Result<R, Exit>>,
    /// What stops it.
    pub(crate) control: Option<Arc<dyn Inlet>>,
}

/// The actor ended without leaving a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the actor {0}")]
pub struct ChildEnded(pub Exit);

/// For who answers by starting an actor and joining it. How it ended is in the log.
impl From<ChildEnded> for AskError {
    fn from(ChildEnded(exit): ChildEnded) -> Self {
        match exit {
            Exit::Panicked(_) => Self::Panicked,
            _ => Self::NoReply,
        }
    }
}

impl<T: 'static, R: Send + 'static> Running<T, R> {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address<T> {
        &self.address
    }

    /// Asks it to end after its present message; a process, too.
    pub fn stop(&self) {
        if let Some(control) = &self.control {
            control.stop();
        }
    }

    pub(crate) fn control(&self) -> Option<&Arc<dyn Inlet>> {
        self.control.as_ref()
    }

    /// Waits for its end, and for what it leaves.
    ///
    /// # Errors
    /// How it ended, where it left nothing.
    ///
    /// # Cancel safety
    /// May be called again until it was ready.
    pub async fn join(&mut self) -> Result<R, Exit> {
        match (&mut self.ended).await {
            Ok(result) => result,
            // Its task was dropped, as when the runtime ends.
            Err(_) => Err(Exit::Aborted),
        }
    }
}

impl<T: 'static, R: Send + 'static> IntoFuture for Running<T, R> {
    type Output = Result<R, ChildEnded>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move { self.join().await.map_err(ChildEnded) })
    }
}

impl<T, R> Deref for Running<T, R> {
    type Target = Address<T>;

    fn deref(&self) -> &Address<T> {
        &self.address
    }
}

impl<T, R> fmt::Debug for Running<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({:?})", self.address)
    }
}
