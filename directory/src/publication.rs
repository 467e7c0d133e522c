//! What a node holds of a name that it has claimed: the publication, or a place in the line for it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    inlet::{Inlet, Input},
    record::Record,
    service::NotPublished,
};

/// A publication as it stands, and whether it was lost.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) record: Arc<Record>,
    pub(crate) lost_to: Option<Arc<Record>>,
}

/// A name held by an actor of this node. Dropped, it is withdrawn.
#[derive(Debug)]
pub struct Publication {
    standing: watch::Receiver<Standing>,
    inlet: Inlet,
}

impl Publication {
    pub(crate) fn new(standing: watch::Receiver<Standing>, inlet: Inlet) -> Self {
        Self { standing, inlet }
    }

    /// The record as others see it; its fence may rise.
    #[must_use]
    pub fn record(&self) -> Arc<Record> {
        self.standing.borrow().record.clone()
    }

    /// Waits until the name is lost to an older claim, as when a partition heals, and says to whom.
    /// With etcd: until it is lost because the host's lease may have run out, and then says this
    /// publication's own record where nobody else is known to hold it.
    /// Who wants it back [claims](crate::Directory::claim) it again, and is told when it may have it. Never
    /// returns for a shared name.
    ///
    /// # Cancel safety
    /// Safe: called again, it tells the same.
    pub async fn lost(&mut self) -> Arc<Record> {
        let lost = self.standing.wait_for(|standing| standing.lost_to.is_some()).await;
        match lost.ok().and_then(|standing| standing.lost_to.clone()) {
            Some(holder) => holder,
            // The directory has been closed: nobody will tell any more.
            None => std::future::pending().await,
        }
    }

    /// Withdraws the name, and waits until the host directory has taken it: a claim that is made
    /// afterwards on this host does not meet it. While there is no host directory it waits for one.
    ///
    /// # Cancel safety
    /// The name is withdrawn, whether or not somebody waits here.
    pub async fn withdraw(self) {
        let inlet = self.inlet.clone();
        drop(self);
        inlet.synced().await;
    }

    fn is_waiting(&self) -> bool {
        self.standing.borrow().record.waiting
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let serial = self.standing.borrow().record.instance.serial;
        self.inlet.send(Input::Withdraw(serial));
    }
}

/// An exclusive claim that is granted, or in line for a name. Dropped, it is withdrawn.
#[derive(Debug)]
pub struct Claim(Publication);

impl Claim {
    pub(crate) fn new(publication: Publication) -> Self {
        Self(publication)
    }

    /// The claim as it stands: since when it waits, and whether it still does.
    #[must_use]
    pub fn record(&self) -> Arc<Record> {
        self.0.record()
    }

    /// Whether it is in line behind somebody else. Once it is not, [`granted`](Self::granted) returns
    /// at once.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.is_waiting()
    }

    /// Waits until the name is granted.
    ///
    /// # Errors
    /// [`NotPublished::Closed`] when the directory of this node is closed.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it gives up the claim and its place in the line. Wait on a pinned
    /// future where something else may come first.
    pub async fn granted(mut self) -> Result<Publication, NotPublished> {
        let granted = self.0.standing.wait_for(|standing| !standing.record.waiting).await.is_ok();
        if granted { Ok(self.0) } else { Err(NotPublished::Closed) }
    }

    /// Leaves the line, and waits until the host directory has taken it.
    ///
    /// # Cancel safety
    /// The claim is withdrawn, whether or not somebody waits here.
    pub async fn withdraw(self) {
        self.0.withdraw().await;
    }
}
