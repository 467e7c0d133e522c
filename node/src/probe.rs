//! A probe: an actor for tests that does nothing by itself. What it is sent is looked at, and answered, by
//! the test.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    actor::{Inbox, Letters, Running},
    address::Address,
    mailbox::MAILBOX,
    node::Node,
};

/// How long a probe waits for a message that is expected: in a test with paused time, no time at all.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An actor whose messages a test takes one by one. `L` is a message, or an enum with `#[mail]`.
///
/// ```no_run
/// # extern crate layercake_node as layercake;
/// # use layercake::{Node, Message};
/// # async fn test<Xy: Message<Reply = u64>>(node: Node) {
/// let mut probe = layercake::testing::Probe::<Xy>::start(&node);
/// // … hand `probe.address()` to what is tested …
/// let (xy, reply) = probe.expect().await;
/// reply.send(7);
/// probe.expect_nothing(std::time::Duration::from_secs(1)).await;
/// # }
/// ```
pub struct Probe<L: Letters> {
    running: Running<L, ()>,
    received: mpsc::Receiver<L::Item>,
}

impl<L: Letters> Probe<L> {
    /// Starts a probe.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(node: &Node) -> Self {
        let (pass, received) = mpsc::channel(MAILBOX);
        let running = node.launch(move |mut inbox: Inbox<L>| async move {
            while let Some(item) = inbox.recv().await {
                if pass.send(item).await.is_err() {
                    return;
                }
            }
        });
        Self { running, received }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address<L> {
        self.running.address()
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`].
    pub async fn expect(&mut self) -> L::Item {
        match tokio::time::timeout(PATIENCE, self.received.recv()).await {
            Ok(Some(item)) => item,
            Ok(None) => panic!("the probe has been stopped, and a message was expected"),
            Err(_) => panic!("no message within {PATIENCE:?}"),
        }
    }

    /// The next message, if one comes in time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next_within(&mut self, limit: Duration) -> Option<L::Item> {
        tokio::time::timeout(limit, self.received.recv()).await.ok().flatten()
    }

    /// Waits, and sees that nothing comes.
    ///
    /// # Panics
    /// When a message comes.
    pub async fn expect_nothing(&mut self, during: Duration) {
        assert!(self.next_within(during).await.is_none(), "a message came, and none was expected");
    }

    /// Ends it, as an actor ends that is asked to stop.
    pub fn stop(&self) {
        self.running.stop();
    }
}
