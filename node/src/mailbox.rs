//! The mailbox of an actor and the loop that empties it.
//!
//! The queue itself has no bound; what may be put into it has. Senders in this process take a permit
//! of the mailbox's room and wait where there is none; messages from other nodes are bounded by the
//! credit of their lanes, so that the task that reads a link never waits here.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use layercake_wire::{FailureCode, id::ActorSerial};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    actor::{Actor, Context},
    message::Api,
    node::{Node, within},
    packet::Parcel,
};

/// Messages from its own process that an actor's mailbox holds before senders wait.
pub const MAILBOX: usize = 1024;
/// Messages that are taken at once.
const BATCH: usize = 64;

enum Envelope<A: Actor> {
    /// From this process, holding a permit.
    Local(A::Mail),
    /// Encoded; `permit` says whether it holds one.
    Parcel { parcel: Parcel, permit: bool },
}

/// The sending side, without the actor's type.
pub(crate) trait Inlet: Send + Sync + 'static {
    fn serial(&self) -> ActorSerial;
    fn node(&self) -> &Node;
    fn api(&self) -> Api;
    /// Permits for messages from this process.
    fn room(&self) -> &Semaphore;
    /// Puts a typed packet in, for which a permit was taken.
    fn accept(&self, packet: &mut dyn Any) -> Accepted;
    /// Puts a parcel in, or answers it.
    fn deliver(&self, parcel: Parcel, permit: bool);
    /// Asks the actor to end after its present message.
    fn stop(&self);
    fn is_stopped(&self) -> bool;
}

pub(crate) enum Accepted {
    Yes,
    /// The actor has no handler for it; the packet is left in place.
    NotHandled,
    Stopped,
}

pub(crate) struct Mailbox<A: Actor> {
    serial: ActorSerial,
    node: Node,
    queue: mpsc::UnboundedSender<Envelope<A>>,
    room: Semaphore,
    stop: CancellationToken,
}

/// The receiving side.
pub(crate) struct Intake<A: Actor> {
    queue: mpsc::UnboundedReceiver<Envelope<A>>,
    node: Node,
}

pub(crate) fn mailbox<A: Actor>(
    serial: ActorSerial,
    node: Node,
    stop: CancellationToken,
) -> (Arc<Mailbox<A>>, Intake<A>) {
    let (queue, intake) = mpsc::unbounded_channel();
    let room = Semaphore::new(MAILBOX);
    let intake = Intake { queue: intake, node: node.clone() };
    (Arc::new(Mailbox { serial, node, queue, room, stop }), intake)
}

impl<A: Actor> Inlet for Mailbox<A> {
    fn serial(&self) -> ActorSerial {
        self.serial
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn api(&self) -> Api {
        A::api()
    }

    fn room(&self) -> &Semaphore {
        &self.room
    }

    fn accept(&self, packet: &mut dyn Any) -> Accepted {
        match A::accept(packet) {
            Some(mail) => match self.queue.send(Envelope::Local(mail)) {
                Ok(()) => Accepted::Yes,
                Err(back) => {
                    end(&self.node, back.0);
                    Accepted::Stopped
                }
            },
            None => Accepted::NotHandled,
        }
    }

    fn deliver(&self, parcel: Parcel, permit: bool) {
        if let Err(back) = self.queue.send(Envelope::Parcel { parcel, permit }) {
            end(&self.node, back.0);
        }
    }

    fn stop(&self) {
        self.stop.cancel();
    }

    fn is_stopped(&self) -> bool {
        self.queue.is_closed()
    }
}

impl<A: Actor> Drop for Intake<A> {
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(envelope) = self.queue.try_recv() {
            end(&self.node, envelope);
        }
    }
}

/// How an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to stop.
    Stopped,
    /// A handler panicked.
    Panicked,
}

/// Runs an actor until it is stopped or panics. `alive` keeps its mailbox open.
pub(crate) async fn run<A: Actor>(
    mut actor: A,
    mut intake: Intake<A>,
    mut ctx: Context<A>,
    alive: Arc<Mailbox<A>>,
) -> Ended {
    let ended = serve(&mut actor, &mut intake, &mut ctx, &alive).await;
    alive.stop.cancel();
    alive.room.close();
    if ended == Ended::Panicked {
        tracing::error!(
            actor = A::NAME,
            serial = alive.serial,
            "a handler panicked; the actor ends"
        );
    } else if AssertUnwindSafe(actor.stopped()).catch_unwind().await.is_err() {
        tracing::error!(actor = A::NAME, serial = alive.serial, "its stopped hook panicked");
    }
    alive.node.forget(alive.serial);
    ended
}

async fn serve<A: Actor>(
    actor: &mut A,
    intake: &mut Intake<A>,
    ctx: &mut Context<A>,
    mailbox: &Mailbox<A>,
) -> Ended {
    if AssertUnwindSafe(actor.started(ctx)).catch_unwind().await.is_err() {
        return Ended::Panicked;
    }
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased; // a stop overtakes a full mailbox
            () = mailbox.stop.cancelled() => return Ended::Stopped,
            _ = intake.queue.recv_many(&mut batch, BATCH) => {}
        }
        let permits = batch
            .iter()
            .filter(|e| matches!(e, Envelope::Local(_) | Envelope::Parcel { permit: true, .. }))
            .count();
        mailbox.room.add_permits(permits);
        let mut waiting = batch.drain(..);
        while let Some(envelope) = waiting.next() {
            if mailbox.stop.is_cancelled() {
                end(&mailbox.node, envelope);
                waiting.for_each(|envelope| end(&mailbox.node, envelope));
                return Ended::Stopped;
            }
            let mail = match envelope {
                Envelope::Local(mail) => mail,
                Envelope::Parcel { parcel, .. } => match A::open(parcel) {
                    Some(mail) => mail,
                    None => continue,
                },
            };
            if AssertUnwindSafe(actor.handle(mail, ctx)).catch_unwind().await.is_err() {
                waiting.for_each(|envelope| end(&mailbox.node, envelope));
                return Ended::Panicked;
            }
        }
    }
}

/// Ends a message that no handler will begin: who asked hears `Stopped`, a tell is a dead letter.
fn end<A: Actor>(node: &Node, envelope: Envelope<A>) {
    match envelope {
        Envelope::Local(mail) => within(node, || drop(mail)),
        Envelope::Parcel { parcel, .. } => {
            parcel.end(FailureCode::Stopped, "the actor has stopped");
        }
    }
}
