//! The children of an actor: ended before it, last started first, within a grace.

use std::{sync::Arc, time::Duration};

use crate::{
    clock,
    mailbox::{Inlet, path},
};

#[derive(Default)]
pub(crate) struct Brood(Vec<Arc<dyn Inlet>>);

impl Brood {
    pub(crate) fn add(&mut self, child: Arc<dyn Inlet>) {
        // Those that have ended make place for others; looked for only when it would grow.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|child| !child.is_stopped());
        }
        self.0.push(child);
    }

    /// Stops all children, and ends those that have not ended within the grace in the middle of their
    /// message.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        let deadline = clock::now() + grace;
        while let Some(child) = self.0.pop() {
            child.stop();
            let ended = child.watch();
            if tokio::time::timeout_at(deadline.into(), ended).await.is_err() {
                tracing::warn!(actor = path(&*child), "did not end within {grace:?}; ending it");
                let ended = child.watch();
                child.abort();
                // A task is gone at its next wait; one that never waits, or a thread, is left behind.
                let _ = tokio::time::timeout(Duration::from_millis(100), ended).await;
            }
        }
    }
}

impl Drop for Brood {
    /// Its actor was ended in the middle of something: so are its children.
    fn drop(&mut self) {
        for child in self.0.drain(..).rev() {
            child.stop();
            child.abort();
        }
    }
}
