//! The actors of a node by number.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use foldhash::HashMap;
use layercake_wire::id::ActorSerial;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::mailbox::Inlet;

/// Parts with a lock each.
const SHARDS: usize = 64;

type Shard = HashMap<ActorSerial, Arc<dyn Inlet>>;

pub(crate) struct Table {
    shards: [Mutex<Shard>; SHARDS],
    len: AtomicUsize,
    fewer: Notify,
}

impl Table {
    pub(crate) fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, len: AtomicUsize::new(0), fewer: Notify::new() }
    }

    fn shard(&self, serial: ActorSerial) -> &Mutex<Shard> {
        &self.shards[serial as usize % SHARDS]
    }

    pub(crate) fn insert(&self, inlet: Arc<dyn Inlet>) {
        self.len.fetch_add(1, Ordering::Relaxed);
        self.shard(inlet.serial()).lock().insert(inlet.serial(), inlet);
    }

    pub(crate) fn remove(&self, serial: ActorSerial) {
        let removed = self.shard(serial).lock().remove(&serial);
        if removed.is_some() {
            self.len.fetch_sub(1, Ordering::Release);
            self.fewer.notify_waiters();
        }
    }

    pub(crate) fn get(&self, serial: ActorSerial) -> Option<Arc<dyn Inlet>> {
        self.shard(serial).lock().get(&serial).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// All of them, last started first.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Inlet>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.lock().values().cloned());
        }
        all.sort_unstable_by_key(|inlet| std::cmp::Reverse(inlet.serial()));
        all
    }

    /// Any of them, about so many at most.
    pub(crate) fn some(&self, most: usize) -> Vec<Arc<dyn Inlet>> {
        let each = most / SHARDS;
        let mut some = Vec::with_capacity(self.len().min(most));
        for shard in &self.shards {
            some.extend(shard.lock().values().take(each).cloned());
        }
        some
    }

    /// Waits until no more than so many are left.
    pub(crate) async fn down_to(&self, left: usize) {
        loop {
            let fewer = self.fewer.notified();
            let mut fewer = std::pin::pin!(fewer);
            fewer.as_mut().enable();
            if self.len() <= left {
                return;
            }
            fewer.await;
        }
    }
}
