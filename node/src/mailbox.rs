//! The mailbox of an actor: one lock around a queue, the room in it, and who waits for either.
//!
//! Senders in this process need room, of which there is so much as the mailbox's limit; they wait for it
//! in line. Messages from other nodes are bounded by the credit of their lanes instead, so that the task
//! that reads a link never waits here. The reader takes the whole queue at once and hands back its own
//! empty one, so that it meets the senders once in many messages. Nothing is allocated before the first
//! message: a million idle actors are cheap.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use layercake_wire::{FailureCode, id::ActorSerial};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::AbortHandle};

use crate::{exit::Exit, here::within, mail::Mail, message::Api, node::Node, packet::Parcel};

/// Messages from its own process that an actor's mailbox holds before senders wait.
pub const MAILBOX: usize = 1024;
/// Room for so many messages is kept by an idle actor that has had many.
const KEEP: usize = 64;

pub(crate) enum Envelope<M> {
    /// From this process, taking room.
    Local(M),
    /// Encoded; `room` says whether it takes any.
    Parcel { parcel: Parcel, room: bool },
}

/// The sending side, without the actor's type.
pub(crate) trait Inlet: Send + Sync + 'static {
    fn serial(&self) -> ActorSerial;
    fn node(&self) -> &Node;
    fn api(&self) -> Api;
    /// What it is, for people: the type's name.
    fn kind(&self) -> &'static str;
    /// Who started it; `None` for the node itself.
    fn parent(&self) -> Option<&Arc<dyn Inlet>>;
    fn takes_unknown(&self) -> bool;
    /// Puts a typed packet in, where there is room or, with `granted`, where room was granted before.
    fn offer(&self, packet: &mut dyn Any, granted: bool) -> Offered;
    /// Takes room for one message, or gets in line for it. `Err`: it has stopped.
    fn poll_room(
        &self,
        cx: &mut Context<'_>,
        place: &mut Option<Arc<Place>>,
    ) -> Poll<Result<(), ()>>;
    /// Leaves the line, or gives granted room back.
    fn leave_line(&self, place: &Arc<Place>);
    /// Gives room back that was granted and is not needed.
    fn give_room_back(&self);
    /// Puts a parcel in, or ends it; `room` says whether room was granted for it.
    fn deliver(&self, parcel: Parcel, room: bool);
    /// Asks the actor to end after its present message.
    fn stop(&self);
    /// Ends the actor in the middle of its message.
    fn abort(&self);
    /// Asks a supervised actor to begin anew after its present message.
    fn renew(&self);
    /// Whether it takes no more mail; it may not have ended yet.
    fn is_stopped(&self) -> bool;
    fn has_ended(&self) -> bool;
    /// How many messages wait in it, and how many were taken from it so far.
    fn load(&self) -> (usize, u64);
    /// Told how it ended; at once where it has.
    fn watch(&self) -> oneshot::Receiver<Exit>;
    /// Whether its address has left this process; set by the first call with `true`.
    fn exported(&self, set: bool) -> bool;
}

pub(crate) enum Offered {
    Taken,
    /// No room; the packet is left in place.
    Full,
    /// The actor has no handler for it; the packet is left in place.
    NotHandled,
    /// The packet is left in place.
    Stopped,
}

/// A place in the line for room.
#[derive(Default)]
pub(crate) struct Place {
    granted: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// What the actor has been asked to do besides its mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Asked {
    Nothing = 0,
    /// To begin anew; only of use where it is supervised.
    Renew = 1,
    Stop = 2,
}

struct Inner<M> {
    queue: VecDeque<Envelope<M>>,
    /// Messages in the queue that take room.
    filled: usize,
    /// Room that was granted and not used yet.
    granted: usize,
    /// Messages that were taken and not put back.
    taken: u64,
    /// The line for room.
    line: VecDeque<Arc<Place>>,
    reader: Option<Waker>,
    closed: bool,
    exit: Option<Exit>,
    watchers: Vec<oneshot::Sender<Exit>>,
    abort: Option<AbortHandle>,
}

pub(crate) struct Mailbox<M: Mail> {
    serial: ActorSerial,
    kind: &'static str,
    node: Node,
    parent: Option<Arc<dyn Inlet>>,
    asked: AtomicU8,
    exported: AtomicBool,
    inner: Mutex<Inner<M>>,
}

impl<M> Inner<M> {
    /// Takes the whole queue, and lets those in line have its room.
    fn take(&mut self, batch: &mut VecDeque<Envelope<M>>, wakers: &mut Vec<Waker>) {
        std::mem::swap(&mut self.queue, batch);
        self.taken += batch.len() as u64;
        self.filled = 0;
        if !self.line.is_empty() {
            self.grant(wakers);
        }
    }

    /// Lets those in line go on, as far as there is room; whom to wake.
    fn grant(&mut self, wakers: &mut Vec<Waker>) {
        while self.filled + self.granted < MAILBOX
            && let Some(place) = self.line.pop_front()
        {
            self.granted += 1;
            place.granted.store(true, Ordering::Release);
            wakers.extend(place.waker.lock().take());
        }
    }
}

impl<M: Mail> Mailbox<M> {
    pub(crate) fn new(
        serial: ActorSerial,
        kind: &'static str,
        node: Node,
        parent: Option<Arc<dyn Inlet>>,
    ) -> Self {
        let inner = Inner {
            queue: VecDeque::new(),
            filled: 0,
            granted: 0,
            taken: 0,
            line: VecDeque::new(),
            reader: None,
            closed: false,
            exit: None,
            watchers: Vec::new(),
            abort: None,
        };
        let (asked, exported) = (AtomicU8::new(0), AtomicBool::new(false));
        Self { serial, kind, node, parent, asked, exported, inner: Mutex::new(inner) }
    }

    /// What the actor has been asked to do.
    pub(crate) fn asked(&self) -> Asked {
        match self.asked.load(Ordering::Acquire) {
            0 => Asked::Nothing,
            1 => Asked::Renew,
            _ => Asked::Stop,
        }
    }

    /// Forgets that it was asked to begin anew, for it does.
    pub(crate) fn renewed(&self) {
        let (renew, nothing) = (Asked::Renew as u8, Asked::Nothing as u8);
        let _ = self.asked.compare_exchange(renew, nothing, Ordering::AcqRel, Ordering::Acquire);
    }

    fn ask(&self, what: Asked) {
        self.asked.fetch_max(what as u8, Ordering::AcqRel);
        let reader = self.inner.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Sees to it that the task is polled when there is mail or something is asked of it. Takes all
    /// that is there; `Pending` where there is nothing.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Envelope<M>>,
    ) -> Poll<()> {
        let mut wakers = Vec::new();
        {
            let mut inner = self.inner.lock();
            if inner.queue.is_empty() {
                match &inner.reader {
                    Some(reader) if reader.will_wake(cx.waker()) => {}
                    _ => inner.reader = Some(cx.waker().clone()),
                }
                if batch.capacity() > KEEP {
                    *batch = VecDeque::new();
                }
                // Between the caller's look and the lock something may have been asked.
                return if self.asked() == Asked::Nothing {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                };
            }
            // An actor that never runs dry lets others run: now and then it has to wait its turn.
            if std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx).is_pending() {
                return Poll::Pending;
            }
            inner.take(batch, &mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    /// Takes all that is there; whether there was anything.
    pub(crate) fn try_take(&self, batch: &mut VecDeque<Envelope<M>>) -> bool {
        let mut wakers = Vec::new();
        {
            let mut inner = self.inner.lock();
            if inner.queue.is_empty() {
                return false;
            }
            inner.take(batch, &mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    /// Ready when something is asked, whatever mail there is.
    pub(crate) fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<Asked> {
        let mut inner = self.inner.lock();
        match self.asked() {
            Asked::Nothing => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            asked => Poll::Ready(asked),
        }
    }

    /// Ready when it is asked to stop.
    pub(crate) fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if self.asked() == Asked::Stop {
            return Poll::Ready(());
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Puts back in front what was taken and not begun.
    pub(crate) fn put_back(&self, mut batch: VecDeque<Envelope<M>>) {
        if batch.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            drop(inner);
            return self.end_all(batch);
        }
        let room =
            |e: &Envelope<M>| matches!(e, Envelope::Local(_) | Envelope::Parcel { room: true, .. });
        inner.filled += batch.iter().filter(|e| room(e)).count();
        inner.taken = inner.taken.saturating_sub(batch.len() as u64);
        batch.append(&mut inner.queue);
        inner.queue = batch;
    }

    pub(crate) fn set_abort(&self, handle: AbortHandle) {
        self.inner.lock().abort = Some(handle);
    }

    /// Takes no more mail: what waits is ended, and who waits for room hears of it.
    pub(crate) fn close(&self) {
        let (queue, line) = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            (std::mem::take(&mut inner.queue), std::mem::take(&mut inner.line))
        };
        for place in line {
            let waker = place.waker.lock().take();
            waker.into_iter().for_each(Waker::wake);
        }
        self.end_all(queue);
    }

    /// Ends messages that no handler will begin: who asked hears `Stopped`, a tell is a dead letter.
    pub(crate) fn end_all(&self, queue: VecDeque<Envelope<M>>) {
        if !queue.is_empty() {
            within(&self.node, || drop(queue));
        }
    }

    /// Says to all who watch how the actor has ended. Only the first call counts.
    pub(crate) fn conclude(&self, exit: Exit) {
        let watchers = {
            let mut inner = self.inner.lock();
            if inner.exit.is_some() {
                return;
            }
            inner.exit = Some(exit.clone());
            inner.abort = None;
            std::mem::take(&mut inner.watchers)
        };
        self.node.forget(self.serial);
        for watcher in watchers {
            let _ = watcher.send(exit.clone());
        }
    }
}

impl<M: Mail> Inlet for Mailbox<M> {
    fn serial(&self) -> ActorSerial {
        self.serial
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn api(&self) -> Api {
        M::api()
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn parent(&self) -> Option<&Arc<dyn Inlet>> {
        self.parent.as_ref()
    }

    fn takes_unknown(&self) -> bool {
        M::TAKES_UNKNOWN
    }

    fn offer(&self, packet: &mut dyn Any, granted: bool) -> Offered {
        let reader = {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Offered::Stopped;
            }
            if !granted && (inner.filled + inner.granted >= MAILBOX || !inner.line.is_empty()) {
                return Offered::Full;
            }
            let Some(mail) = M::accept(packet) else {
                drop(inner);
                if granted {
                    self.give_room_back();
                }
                return Offered::NotHandled;
            };
            inner.granted -= usize::from(granted);
            inner.filled += 1;
            inner.queue.push_back(Envelope::Local(mail));
            inner.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        Offered::Taken
    }

    fn poll_room(
        &self,
        cx: &mut Context<'_>,
        place: &mut Option<Arc<Place>>,
    ) -> Poll<Result<(), ()>> {
        let mut inner = self.inner.lock();
        if let Some(place) = place.as_ref() {
            if place.granted.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            if inner.closed {
                return Poll::Ready(Err(()));
            }
            *place.waker.lock() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if inner.closed {
            return Poll::Ready(Err(()));
        }
        if inner.line.is_empty() && inner.filled + inner.granted < MAILBOX {
            inner.granted += 1;
            return Poll::Ready(Ok(()));
        }
        let own = Arc::new(Place::default());
        *own.waker.lock() = Some(cx.waker().clone());
        inner.line.push_back(own.clone());
        *place = Some(own);
        Poll::Pending
    }

    fn leave_line(&self, place: &Arc<Place>) {
        let mut inner = self.inner.lock();
        if place.granted.load(Ordering::Acquire) {
            drop(inner);
            return self.give_room_back();
        }
        inner.line.retain(|other| !Arc::ptr_eq(other, place));
    }

    fn give_room_back(&self) {
        let mut wakers = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.granted = inner.granted.saturating_sub(1);
            inner.grant(&mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn deliver(&self, parcel: Parcel, room: bool) {
        let reader = {
            let mut inner = self.inner.lock();
            if inner.closed {
                drop(inner);
                return within(&self.node, || {
                    parcel.end(FailureCode::Stopped, "the actor has stopped");
                });
            }
            if room {
                inner.granted = inner.granted.saturating_sub(1);
                inner.filled += 1;
            }
            inner.queue.push_back(Envelope::Parcel { parcel, room });
            inner.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn stop(&self) {
        self.ask(Asked::Stop);
    }

    fn abort(&self) {
        let abort = self.inner.lock().abort.take();
        if let Some(abort) = abort {
            abort.abort();
        }
    }

    fn renew(&self) {
        self.ask(Asked::Renew);
    }

    fn is_stopped(&self) -> bool {
        self.inner.lock().closed
    }

    fn has_ended(&self) -> bool {
        self.inner.lock().exit.is_some()
    }

    fn load(&self) -> (usize, u64) {
        let inner = self.inner.lock();
        (inner.queue.len(), inner.taken)
    }

    fn watch(&self) -> oneshot::Receiver<Exit> {
        let (told, exit) = oneshot::channel();
        let mut inner = self.inner.lock();
        match &inner.exit {
            Some(exit) => {
                let _ = told.send(exit.clone());
            }
            None => {
                // Those who have gone away meanwhile make place for others.
                if inner.watchers.len() == inner.watchers.capacity() {
                    inner.watchers.retain(|watcher| !watcher.is_closed());
                }
                inner.watchers.push(told);
            }
        }
        exit
    }

    fn exported(&self, set: bool) -> bool {
        if set {
            self.exported.swap(true, Ordering::AcqRel)
        } else {
            self.exported.load(Ordering::Acquire)
        }
    }
}

/// Waits for room in a mailbox; it must be used by `offer` or `deliver`, or given back. `Err`: the
/// actor has stopped.
///
/// # Cancel safety
/// Dropped before it is ready, nothing is taken.
pub(crate) async fn room(inlet: &Arc<dyn Inlet>) -> Result<(), ()> {
    struct InLine<'a> {
        inlet: &'a Arc<dyn Inlet>,
        place: Option<Arc<Place>>,
    }
    impl Drop for InLine<'_> {
        fn drop(&mut self) {
            if let Some(place) = self.place.take() {
                self.inlet.leave_line(&place);
            }
        }
    }
    let mut line = InLine { inlet, place: None };
    std::future::poll_fn(|cx| {
        let room = line.inlet.poll_room(cx, &mut line.place);
        if room.is_ready() {
            line.place = None;
        }
        room
    })
    .await
}

/// Where an actor is in the tree of its node: `7f3a/Manager.12/Worker.13`.
pub(crate) fn path(inlet: &dyn Inlet) -> String {
    let mut names = vec![format!("{}.{}", inlet.kind(), inlet.serial())];
    let mut above = inlet.parent();
    while let Some(parent) = above {
        names.push(format!("{}.{}", parent.kind(), parent.serial()));
        above = parent.parent();
    }
    names.push(inlet.node().peer().node.short());
    names.reverse();
    names.join("/")
}
