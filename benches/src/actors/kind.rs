//! What differs between contestants: how their actors are started, told, asked and ended.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;

/// One way to write an actor. Its actors hold a [`Body`] and do nothing but call it.
pub(super) trait Kind: Sized + Send + Sync + 'static {
    /// What an actor is told and asked with.
    type Address: Clone + Send + Sync + 'static;

    /// Whether [`tell`](Self::tell) waits where the mailbox is full. Where it does not, the
    /// measurement pauses its senders.
    const WAITS: bool;

    /// Starts what actors of this kind need, within a runtime of two threads.
    fn start() -> impl Future<Output = Result<Self>> + Send;

    /// Starts actors, one after the other, and returns once the last is started.
    fn spawn(
        &self,
        count: usize,
        tally: &Arc<Tally>,
    ) -> impl Future<Output = Result<Vec<Self::Address>>> + Send;

    /// Asks, and waits for the reply.
    fn ask(address: &Self::Address, number: u64) -> impl Future<Output = Result<u64>> + Send;

    /// Sends without a reply.
    fn tell(address: &Self::Address, number: u64) -> impl Future<Output = Result<()>> + Send;

    /// Asks actors to end, as soon as they can. That they have is seen in [`Tally::ended`].
    fn end(actors: Vec<Self::Address>) -> impl Future<Output = Result<()>> + Send;

    /// Ends what [`start`](Self::start) has started.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// What actors tell of themselves.
#[derive(Debug, Default)]
pub(super) struct Tally {
    handled: AtomicU64,
    ended: AtomicU64,
}

impl Tally {
    /// Tells that the actor has handled. Right only where there is one actor.
    pub(super) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Actors that are gone.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

/// The state of an actor of any kind, and what its handlers do.
#[derive(Debug)]
pub(super) struct Body {
    handled: u64,
    tally: Arc<Tally>,
}

impl Body {
    pub(super) fn new(tally: &Arc<Tally>) -> Self {
        Self { handled: 0, tally: tally.clone() }
    }

    /// Handles an ask.
    pub(super) fn on_ask(&mut self, number: u64) -> u64 {
        number.wrapping_add(1)
    }

    /// Handles a tell.
    pub(super) fn on_tell(&mut self, number: u64) {
        black_box(number);
        self.handled += 1;
        // A store, not an addition: nobody else writes, and counting must cost next to nothing.
        self.tally.handled.store(self.handled, Ordering::Relaxed);
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.tally.ended.fetch_add(1, Ordering::Relaxed);
    }
}
