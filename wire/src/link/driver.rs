//! Carries a link's bytes: reads, writes and ticks for one [`Core`](super::core::Core).
//!
//! One task for each link; its three parts share the core under a lock for which nobody ever waits, as they
//! take turns, and which is never held across an `.await`. The reading part never waits on anything but
//! the socket.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc},
};

use super::{
    Command, Link, Written,
    cancelled::Cancelled,
    core::{Core, Event},
};
use crate::{
    clock,
    frame::{self, Frame},
    inbound::{
        AskFailure, CreditReturn, Failure, FailureCode, Inbound, InboundKind, LinkDown, Receive,
        Responder,
    },
};

/// Commands that are taken before anything is written.
const BATCH: usize = 256;
/// Bytes that are read at once, at most.
const READ: usize = 64 << 10;
/// How exactly deadlines of asks are kept.
const TICK: Duration = Duration::from_millis(20);
/// How long a goodbye may take to be written.
const GOODBYE: Duration = Duration::from_millis(250);

/// Runs the link until it ends, and says how it ended. `buffered` is what was read behind the hello.
pub(crate) async fn run<R, W>(
    link: &Link,
    mut reader: R,
    mut writer: W,
    mut buffered: BytesMut,
    mut commands: mpsc::UnboundedReceiver<Command>,
    quic: Option<quinn::Connection>,
    receive: &Arc<dyn Receive>,
) -> LinkDown
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let core = Mutex::new(Core::default());
    let asking = Notify::new();
    let cancelled = Arc::new(Cancelled::default());
    let ends = Ends { link, cancelled: &cancelled };

    let read = async {
        loop {
            loop {
                let body = match frame::split(&mut buffered) {
                    Ok(Some(body)) => body,
                    Ok(None) => break,
                    Err(error) => return LinkDown::Lost(error.to_string()),
                };
                let event = core.lock().on_body(body);
                match event {
                    Ok(None) => {}
                    Ok(Some(Event::Goodbye { idle, reason })) => {
                        let down = LinkDown::Closed(reason);
                        if idle {
                            // Closed first, as where we say goodbye.
                            ends.now();
                            let failure = AskFailure::Unbegun(down.to_string());
                            core.lock().fail_asks(&failure);
                        }
                        return down;
                    }
                    // Its answer would not be sent any more: the goodbye counts on this.
                    Ok(Some(Event::Ask { .. })) if link.is_closed() => {}
                    Ok(Some(event)) => hand_up(event, link, &cancelled, receive),
                    Err(error) => return LinkDown::Lost(error.to_string()),
                }
            }
            {
                let mut core = core.lock();
                core.deliver();
                link.has_read_messages(std::mem::take(&mut core.in_messages));
            }
            if buffered.capacity() - buffered.len() < READ / 4 {
                buffered.reserve(READ);
            }
            match reader.read_buf(&mut buffered).await {
                Ok(0) => return LinkDown::Lost("end of file".to_owned()),
                Ok(bytes) => link.has_read(bytes),
                Err(error) => return ended(quic.as_ref(), error),
            }
        }
    };

    let write = async {
        let mut batch = Vec::with_capacity(BATCH);
        let mut pieces = Vec::new();
        let mut more = false;
        loop {
            if more {
                while batch.len() < BATCH
                    && let Ok(command) = commands.try_recv()
                {
                    batch.push(command);
                }
            } else {
                commands.recv_many(&mut batch, BATCH).await;
            }
            let mut closing = None;
            {
                let mut core = core.lock();
                let (idle, now) = (!core.has_asks(), clock::now());
                for command in batch.drain(..) {
                    match command {
                        Command::Close(reason) => closing = Some(reason),
                        Command::Datagram(body) if let Some(quic) = &quic => {
                            core.out_posts += 1;
                            // Too large for this path, or no room: it is lost, as datagrams may be.
                            let _ = quic.send_datagram(body);
                        }
                        other => core.on_command(other, now),
                    }
                }
                more = core.pump();
                if idle && core.has_asks() {
                    asking.notify_one();
                }
            }
            if let Some(reason) = closing {
                // Who waits for an answer hears at once; what was queued still has its chance. Closed first,
                // for who hears it asks again, and must not get onto this link.
                ends.now();
                // Looked at before the queue is emptied: answers of those that are gone are in there.
                let idle = Arc::strong_count(&cancelled) == 1;
                fence(Ordering::Acquire);
                {
                    let mut core = core.lock();
                    for command in rest(&mut commands) {
                        core.on_command(command, clock::now());
                    }
                    let failure = AskFailure::Lost(LinkDown::Ours(reason.clone()).to_string());
                    core.fail_asks(&failure);
                    more = core.pump();
                }
                let farewell = async {
                    while more {
                        flush(&core, &mut writer, &mut pieces, link).await?;
                        more = core.lock().pump();
                    }
                    core.lock().out.push(Frame::Goodbye { idle, reason: reason.clone().into() });
                    flush(&core, &mut writer, &mut pieces, link).await?;
                    writer.shutdown().await?;
                    if let Some(quic) = &quic {
                        // Closing QUIC drops what has not arrived: the peer closes when it has read all.
                        quic.closed().await;
                    }
                    io::Result::Ok(())
                };
                let _ = tokio::time::timeout(GOODBYE, farewell).await;
                return LinkDown::Ours(reason);
            }
            if let Err(error) = flush(&core, &mut writer, &mut pieces, link).await {
                // What the peer sent before it left says more: the reading part gets to its end.
                ends.now();
                tokio::time::sleep(GOODBYE).await;
                return ended(quic.as_ref(), error);
            }
        }
    };

    let tick = async {
        loop {
            if !core.lock().has_asks() {
                asking.notified().await;
            }
            tokio::time::sleep(TICK).await;
            let mut core = core.lock();
            core.on_tick(clock::now());
            if core.out.len() > 0 {
                // An empty batch makes the writing part flush.
                let _ = link.commands().send(Command::Types(Vec::new()));
            }
        }
    };

    let datagrams = async {
        let Some(quic) = &quic else { return std::future::pending().await };
        loop {
            match quic.read_datagram().await {
                Ok(body) => receive.on_datagram(link, body),
                Err(error) => return ended(Some(quic), error.into()),
            }
        }
    };

    // A peer that reads nothing holds the writing part; closing must not wait for it.
    let stuck = async {
        let closing = async {
            let reason = link.closing().await;
            tokio::time::sleep(2 * GOODBYE).await;
            reason
        };
        tokio::select! {
            reason = closing => LinkDown::Ours(reason),
            reason = link.being_cut() => LinkDown::Ours(reason),
        }
    };

    let down = {
        let (read, write, stuck) = (pin!(read), pin!(write), pin!(stuck));
        let (tick, datagrams) = (pin!(tick), pin!(datagrams));
        tokio::select! {
            down = read => down,
            down = write => down,
            down = datagrams => down,
            down = stuck => down,
            () = tick => unreachable!("ticks do not end"),
        }
    };
    if let Some(quic) = &quic {
        quic.close(0_u32.into(), down.to_string().as_bytes());
    }
    ends.now();
    core.lock().on_close(&down.to_string());
    rest(&mut commands).for_each(drop);
    down
}

/// Closes the queue and takes what is in it. Asks, which are not sent any more, are told so.
fn rest(commands: &mut mpsc::UnboundedReceiver<Command>) -> impl Iterator<Item = Command> {
    commands.close();
    std::iter::from_fn(|| commands.try_recv().ok()).filter_map(|command| match command {
        Command::Ask(ask) => {
            ask.waiting.give(Err(AskFailure::unsent()));
            None
        }
        other => Some(other),
    })
}

/// However the link's task ends, also dropped with its thread: nobody waits on the link afterwards.
struct Ends<'a> {
    link: &'a Link,
    cancelled: &'a Cancelled,
}

impl Ends<'_> {
    fn now(&self) {
        self.link.mark_closed();
        self.cancelled.end();
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

/// How a connection ended: the peer may have closed it with a reason.
fn ended(quic: Option<&quinn::Connection>, error: io::Error) -> LinkDown {
    match quic.and_then(quinn::Connection::close_reason) {
        Some(quinn::ConnectionError::ApplicationClosed(close)) => {
            LinkDown::Closed(String::from_utf8_lossy(&close.reason).into_owned())
        }
        Some(other) => LinkDown::Lost(other.to_string()),
        None => LinkDown::Lost(error.to_string()),
    }
}

/// Writes everything that is in the output buffer.
async fn flush<W: AsyncWrite + Unpin>(
    core: &Mutex<Core>,
    writer: &mut W,
    pieces: &mut Vec<Bytes>,
    link: &Link,
) -> io::Result<()> {
    let counts = {
        let mut core = core.lock();
        core.out.take(pieces);
        Written {
            bytes: 0,
            units: std::mem::take(&mut core.out_units),
            posts: std::mem::take(&mut core.out_posts),
            messages: std::mem::take(&mut core.out_messages),
        }
    };
    let bytes = pieces.iter().map(Bytes::len).sum();
    for piece in pieces.drain(..) {
        writer.write_all(&piece).await?;
    }
    link.written(Written { bytes, ..counts });
    Ok(())
}

fn hand_up(event: Event, link: &Link, cancelled: &Arc<Cancelled>, receive: &Arc<dyn Receive>) {
    match event {
        Event::Tell { to, payload, units } => {
            let credit = CreditReturn { commands: link.commands().clone(), to, units, held: None };
            let kind = InboundKind::Tell(Some(credit));
            receive.on_message(Inbound { from: link.peer(), to, payload, kind });
        }
        Event::Ask { id, to, accept, deadline_ms, window, trace, payload } => {
            let deadline = clock::now() + Duration::from_millis(deadline_ms.into());
            let (commands, cancelled) = (link.commands().clone(), cancelled.clone());
            let responder = Responder::over_link(commands, cancelled, id, window, accept, deadline)
                .traced(trace.map(Arc::new));
            if deadline_ms == 0 {
                responder.fail(Failure::new(FailureCode::Deadline, "arrived after its deadline"));
                return;
            }
            let kind = InboundKind::Ask(responder);
            receive.on_message(Inbound { from: link.peer(), to, payload, kind });
        }
        Event::Cancel { id } => cancelled.insert(id),
        Event::Credit { to, units } => link.credit(to, units),
        Event::Post { service, body } => receive.on_post(link, service, body),
        Event::Datagram(body) => receive.on_datagram(link, body),
        Event::Types(types) => link.learn(types),
        Event::Goodbye { .. } => {}
    }
}
