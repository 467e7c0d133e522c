//! Functions as actors: an inbox that is received from, all in order or the one that is wanted now.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context as Poller, Poll},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Brood, Life, Running, Spawn};
use crate::{
    address::Address,
    mail::Mail,
    mailbox::{Asked, Inlet, MAILBOX, Mailbox},
    message::Message,
    node::Node,
    packet::{Packet, Reply},
};

/// What an inbox holds: one kind of message, or several as an enum with `#[mail]`.
pub trait Letters: Sized + 'static {
    /// What stands in the mailbox.
    type Mail: Mail;
    /// What is received: each message with the means to answer it.
    type Item: Send + 'static;

    /// Begins a message; `None` when nobody waits for its answer any more.
    fn begin(mail: Self::Mail) -> Option<Self::Item>;

    /// Makes a message one that nobody has begun.
    fn put_back(item: Self::Item) -> Self::Mail;
}

impl<M: Message> Letters for M {
    type Mail = Packet<M>;
    type Item = (M, Reply<M::Reply>);

    fn begin(mail: Packet<M>) -> Option<Self::Item> {
        mail.into_parts()
    }

    fn put_back((message, reply): Self::Item) -> Packet<M> {
        Packet::from_parts(message, reply)
    }
}

/// Why nothing was received in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMail {
    /// The actor has been asked to stop: return.
    #[error("the actor has been asked to stop")]
    Stopped,
    /// The time has passed.
    #[error("no message within the time")]
    TimedOut,
}

/// The inbox of a function that is an actor. Each `recv` yields a message with its [`Reply`]; `None` says
/// that the actor has been asked to stop, and should return.
///
/// Messages that are passed over by a selective receive keep their place.
pub struct Inbox<L: Letters> {
    life: Life<L::Mail>,
    /// Passed over, in the order in which they came.
    passed: VecDeque<L::Item>,
    address: Address<L>,
    brood: Arc<Mutex<Brood>>,
}

impl<L: Letters> Inbox<L> {
    pub(super) fn new(mailbox: Arc<Mailbox<L::Mail>>, brood: Arc<Mutex<Brood>>) -> Self {
        let address = Address::here(mailbox.clone());
        Self { life: Life::borrowed(mailbox), passed: VecDeque::new(), address, brood }
    }

    /// The node that the actor lives in.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.life.mailbox.node()
    }

    /// The actor's own address, to be given to others.
    #[must_use]
    pub fn address(&self) -> &Address<L> {
        &self.address
    }

    /// Becomes ready when the actor has been asked to stop; for work that does not receive.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn stopping(&self) {
        poll_fn(|cx| self.life.mailbox.poll_asked(cx).map(drop)).await;
    }

    /// Whether the actor has been asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.life.mailbox.asked() != Asked::Nothing
    }

    /// Starts a child: it ends before this actor does.
    pub fn spawn<S, W>(&mut self, child: S) -> Address<S::Takes>
    where
        S: Spawn<W>,
        W: 'static,
    {
        self.launch(child).address
    }

    /// Starts a child, to be joined for what it leaves.
    pub fn launch<S, W>(&mut self, child: S) -> Running<S::Takes, S::Output>
    where
        S: Spawn<W>,
        W: 'static,
    {
        let parent: Arc<dyn Inlet> = self.life.mailbox.clone();
        let running = self.node().launch_under(child, Some(parent));
        if let Some(inlet) = running.address.inlet() {
            self.brood.lock().add(inlet.clone());
        }
        running
    }

    /// The next message; `None` when the actor has been asked to stop, however many wait.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn recv(&mut self) -> Option<L::Item> {
        self.recv_where(|_| true).await
    }

    /// The next message that is wanted; the others keep their place. `None` as in [`recv`](Self::recv).
    /// While [`MAILBOX`] messages are passed over, no further one is looked at.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn recv_where(
        &mut self,
        mut wanted: impl FnMut(&L::Item) -> bool,
    ) -> Option<L::Item> {
        // Senders that never rest must not keep this thread from its other tasks.
        tokio::task::consume_budget().await;
        if self.is_stopping() {
            return None;
        }
        if let Some(at) = self.passed.iter().position(&mut wanted) {
            return self.passed.remove(at);
        }
        poll_fn(|cx| self.poll_recv(cx, &mut wanted)).await
    }

    /// As [`recv`](Self::recv), for at most so long.
    ///
    /// # Errors
    /// [`NoMail`] says whether to return or to go on.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn recv_within(&mut self, limit: Duration) -> Result<L::Item, NoMail> {
        match tokio::time::timeout(limit, self.recv()).await {
            Ok(received) => received.ok_or(NoMail::Stopped),
            Err(_) => Err(NoMail::TimedOut),
        }
    }

    /// As [`recv_where`](Self::recv_where), for at most so long.
    ///
    /// # Errors
    /// [`NoMail`] says whether to return or to go on.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing is lost.
    pub async fn recv_where_within(
        &mut self,
        limit: Duration,
        wanted: impl FnMut(&L::Item) -> bool,
    ) -> Result<L::Item, NoMail> {
        match tokio::time::timeout(limit, self.recv_where(wanted)).await {
            Ok(received) => received.ok_or(NoMail::Stopped),
            Err(_) => Err(NoMail::TimedOut),
        }
    }

    fn poll_recv(
        &mut self,
        cx: &mut Poller<'_>,
        wanted: &mut impl FnMut(&L::Item) -> bool,
    ) -> Poll<Option<L::Item>> {
        loop {
            if self.is_stopping() {
                return Poll::Ready(None);
            }
            if self.passed.len() >= MAILBOX {
                return self.life.mailbox.poll_asked(cx).map(|_| None);
            }
            if let Some(mail) = self.life.next_mail() {
                match L::begin(mail) {
                    Some(item) if wanted(&item) => return Poll::Ready(Some(item)),
                    Some(item) => self.passed.push_back(item),
                    None => {}
                }
                continue;
            }
            if self.life.mailbox.poll_take(cx, &mut self.life.batch).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<L: Letters> Drop for Inbox<L> {
    /// What was not begun goes back, for the one who comes after, or to be ended with a reason.
    fn drop(&mut self) {
        self.life.put_back(self.passed.drain(..).map(L::put_back));
    }
}
