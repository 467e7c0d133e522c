//! Members of a pool that publish themselves: they join as their names appear, finish what they have when
//! these are withdrawn, and are let go at once when they are lost.

use std::{collections::HashMap, sync::Arc};

use layercake_directory::{DropReason, Event, Instance, Record, Subscription};
use tokio_util::sync::CancellationToken;

use super::{
    Pool,
    scheduler::WorkerId,
    seats::{Place, SeatGuard},
};
use crate::actor::Actor;

/// What happens to the membership of a pool.
pub(super) enum Change<W> {
    /// Somebody is there.
    Came(Arc<Record>),
    /// It takes no more, and goes on with what it has.
    Leaves(W),
    /// It is not there any more.
    Gone(W),
}

/// Tells what happens to the members, by what `on_change` has called them, until the pool stops.
pub(super) async fn follow<W>(
    mut subscription: Subscription,
    stop: &CancellationToken,
    on_change: impl Fn(Change<W>) -> Option<W>,
) {
    let mut members = Members::default();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = subscription.next() => event,
        };
        match event {
            Some(event) => members.event(event, &on_change),
            None => return,
        }
    }
}

/// Who is there, by its publication.
pub(super) struct Members<W>(HashMap<Instance, W>);

impl<W> Default for Members<W> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<W> Members<W> {
    /// Says what an event of a subscription changes.
    pub(super) fn event(&mut self, event: Event, on_change: impl Fn(Change<W>) -> Option<W>) {
        match event {
            Event::Available(record) => {
                let instance = record.instance;
                // The same publication again may have another address.
                if let Some(old) = self.0.remove(&instance) {
                    on_change(Change::Leaves(old));
                }
                self.0.extend(on_change(Change::Came(record)).map(|member| (instance, member)));
            }
            Event::Dropped(record, reason) => {
                tracing::info!(name = %record.name, address = %record.address, %reason, "a worker left");
                let Some(member) = self.0.remove(&record.instance) else { return };
                on_change(if is_dead(reason) {
                    Change::Gone(member)
                } else {
                    Change::Leaves(member)
                });
            }
        }
    }
}

/// Whether nothing can be heard any more from who was dropped for that reason.
fn is_dead(reason: DropReason) -> bool {
    matches!(reason, DropReason::ProcessDied | DropReason::HostLost | DropReason::LinkLost)
}

/// One member of a typed pool.
pub(super) struct Member<A: Actor> {
    worker: WorkerId,
    _seat: SeatGuard<A>,
}

impl<A: Actor> Pool<A> {
    pub(super) fn on_change(&self, change: Change<Member<A>>) -> Option<Member<A>> {
        match change {
            Change::Came(record) => {
                let address = self.0.node.bind(record.address.clone());
                let seat = self.seat(Place::Member, Some(record.name.to_string()));
                Some(Member { worker: seat.join(&address, None), _seat: seat })
            }
            Change::Leaves(Member { worker, _seat: seat }) => {
                // At once, for the next request must not go there.
                self.drain(worker);
                let pool = self.clone();
                self.0.tasks.spawn(async move {
                    pool.retire(worker).await;
                    drop(seat);
                });
                None
            }
            Change::Gone(member) => {
                self.leave(member.worker);
                None
            }
        }
    }
}
