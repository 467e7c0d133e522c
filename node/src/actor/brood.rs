//! The children of an actor: ended before it, last started first, within a grace.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    clock,
    mailbox::{Inlet, path},
};

/// What those get whose sibling has used up the grace, and a task that is ended in the middle.
const LAST: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Brood(Vec<Arc<dyn Inlet>>);

impl Brood {
    pub(crate) fn add(&mut self, child: Arc<dyn Inlet>) {
        // Those that have ended make place for others; looked for only when it would grow.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|child| !child.has_ended());
        }
        self.0.push(child);
    }

    /// Stops all children, and ends those that have not ended within the grace in the middle of their
    /// message.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        let deadline = clock::now() + grace;
        let mut late = Vec::new();
        while let Some(child) = self.0.pop() {
            child.stop();
            let ended = child.watch();
            if tokio::time::timeout_at(deadline.into(), ended).await.is_err() {
                late.push(child);
                break;
            }
        }
        if late.is_empty() {
            return;
        }
        // One has used the time of all: those that had not their turn get a last moment, together.
        self.0.iter().rev().for_each(|child| child.stop());
        late.extend(self.0.drain(..).rev());
        let ended = join_all(late[1..].iter().map(|child| child.watch()));
        let _ = tokio::time::timeout(LAST, ended).await;
        late.retain(|child| !child.has_ended());
        let ended = join_all(late.iter().map(|child| child.watch()));
        for child in &late {
            tracing::warn!(actor = path(&**child), "did not end within {grace:?}; ending it");
            child.abort();
        }
        // A task is gone at its next wait; one that never waits, or a thread, is left behind.
        let _ = tokio::time::timeout(LAST, ended).await;
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
