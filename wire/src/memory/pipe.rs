//! One direction of an in-memory connection: an ordered, bounded stream of bytes whose flow others
//! may slow, stop or break off.
//!
//! No task carries it. The writer puts bytes in with the time at which they may be read, the reader
//! waits for that time; whoever changes the weather wakes both. A full pipe makes its writer wait, so
//! back-pressure is that of a socket.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::faults::Fault;
use crate::clock;

/// Bytes that one direction of an in-memory connection holds before its writer waits.
pub(super) const CAPACITY: usize = 256 << 10;
/// What a piece takes beside its bytes, so that many small ones are bounded, too.
const OVERHEAD: usize = 64;

/// What both ends and the network share.
pub(super) struct Pipe(Mutex<Flow>);

struct Flow {
    /// When each piece may be read, and the piece.
    pieces: VecDeque<(Instant, Bytes)>,
    filled: usize,
    /// From then on the reader is at the end, once it has read everything.
    ended: Option<Instant>,
    broken: bool,
    read_gone: bool,
    stalled: bool,
    delay: Duration,
    /// When the last piece may be read: none overtakes another.
    last: Instant,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Where bytes go in. Dropped, the reader is at the end when it has read the rest.
pub(crate) struct WriteHalf(Arc<Pipe>);

/// Where bytes come out. Dropped, the writer hears that nobody reads.
pub(crate) struct ReadHalf {
    pipe: Arc<Pipe>,
    arrival: Option<Pin<Box<Sleep>>>,
}

/// A pipe in that weather.
pub(super) fn pipe(fault: Fault) -> (Arc<Pipe>, WriteHalf, ReadHalf) {
    let pipe = Arc::new(Pipe(Mutex::new(Flow {
        pieces: VecDeque::new(),
        filled: 0,
        ended: None,
        broken: fault.cut,
        read_gone: false,
        stalled: fault.stalled,
        delay: fault.delay,
        last: clock::now(),
        reader: None,
        writer: None,
    })));
    (pipe.clone(), WriteHalf(pipe.clone()), ReadHalf { pipe, arrival: None })
}

impl Pipe {
    /// Changes the weather. What was cut stays broken.
    pub(super) fn set(&self, fault: Fault) {
        self.change(|flow| {
            flow.broken |= fault.cut;
            flow.stalled = fault.stalled;
            if fault.delay < flow.delay {
                // What is under way comes earlier, too, and still in order.
                let latest = clock::now() + fault.delay;
                flow.last = flow.last.min(latest);
                flow.ended = flow.ended.map(|ended| ended.min(latest));
                for (ready, _) in &mut flow.pieces {
                    *ready = (*ready).min(latest);
                }
            }
            flow.delay = fault.delay;
        });
    }

    /// The writer's process is dead: what it wrote still arrives.
    pub(super) fn writer_died(&self) {
        self.change(Flow::end);
    }

    /// The reader's process is dead.
    pub(super) fn reader_died(&self) {
        self.change(|flow| flow.read_gone = true);
    }

    fn change(&self, change: impl FnOnce(&mut Flow)) {
        let wakers = {
            let mut flow = self.0.lock();
            change(&mut flow);
            [flow.reader.take(), flow.writer.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Flow {
    fn arrival(&self) -> Instant {
        self.last.max(clock::now() + self.delay)
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(self.arrival());
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken {
            let text = "the network between the two was cut";
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, text));
        }
        Ok(())
    }
}

/// Lets others of this thread go on now and then, as tokio's own sockets do.
fn take_turn(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::coop::consume_budget()).poll(cx)
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(take_turn(cx));
        let this = &mut *self;
        loop {
            let arrival = {
                let mut flow = this.pipe.0.lock();
                flow.check()?;
                let next = flow.pieces.front().map(|piece| piece.0).or(flow.ended);
                let Some(arrival) = next.filter(|_| !flow.stalled) else {
                    flow.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                if arrival <= clock::now() {
                    let Some((_, piece)) = flow.pieces.front_mut() else {
                        return Poll::Ready(Ok(()));
                    };
                    let length = piece.len().min(buf.remaining());
                    buf.put_slice(&piece[..length]);
                    piece.advance(length);
                    let emptied = piece.is_empty();
                    flow.filled -= length;
                    if emptied {
                        flow.pieces.pop_front();
                        flow.filled -= OVERHEAD;
                    }
                    let writer = flow.writer.take();
                    drop(flow);
                    if let Some(writer) = writer {
                        writer.wake();
                    }
                    return Poll::Ready(Ok(()));
                }
                // Better weather may bring it earlier.
                flow.reader = Some(cx.waker().clone());
                arrival
            };
            let sleep = match &mut this.arrival {
                Some(sleep) => {
                    sleep.as_mut().reset(arrival.into());
                    sleep
                }
                none => none.insert(Box::pin(tokio::time::sleep_until(arrival.into()))),
            };
            ready!(sleep.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(take_turn(cx));
        let mut flow = self.0.0.lock();
        flow.check()?;
        // While nothing flows, nothing is heard of the other end either.
        if flow.ended.is_some() || (flow.read_gone && !flow.stalled) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = CAPACITY.saturating_sub(flow.filled + OVERHEAD);
        if room == 0 {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = bytes.len().min(room);
        let arrival = flow.arrival();
        flow.last = arrival;
        flow.filled += length + OVERHEAD;
        flow.pieces.push_back((arrival, Bytes::copy_from_slice(&bytes[..length])));
        let reader = flow.reader.take();
        drop(flow);
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.change(Flow::end);
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.0.change(Flow::end);
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.pipe.reader_died();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LATE: Fault = Fault { cut: false, stalled: false, delay: Duration::from_secs(10) };
    const STALLED: Fault = Fault { cut: false, stalled: true, delay: Duration::ZERO };
    const CUT: Fault = Fault { cut: true, stalled: false, delay: Duration::ZERO };

    #[tokio::test(start_paused = true)]
    async fn what_is_late_arrives_late_and_in_order() {
        let (pipe, mut writer, mut reader) = pipe(LATE);
        let start = clock::now();
        writer.write_all(b"one").await.unwrap();
        // A shorter way: what is under way already still comes first.
        pipe.set(Fault { delay: Duration::from_secs(4), ..LATE });
        writer.write_all(b"two").await.unwrap();
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        assert_eq!((read.as_slice(), start.elapsed_secs()), (&b"onetwo"[..], 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pipe_makes_its_writer_wait_and_holds_no_more() {
        let (_pipe, mut writer, mut reader) = pipe(Fault::default());
        let all = vec![7; 3 * CAPACITY];
        {
            let mut write = pin!(writer.write_all(&all));
            let early = tokio::time::timeout(Duration::from_secs(1), &mut write).await;
            assert!(early.is_err(), "nobody reads");
            assert!(reader.pipe.0.lock().filled <= CAPACITY);
            let mut read = vec![0; 3 * CAPACITY];
            let (written, done) = tokio::join!(write, reader.read_exact(&mut read));
            written.unwrap();
            assert_eq!(done.unwrap(), 3 * CAPACITY);
        }
        assert_eq!(reader.pipe.0.lock().filled, 0);
        let (_pipe, mut writer, reader) = pipe(Fault::default());
        let many = async {
            loop {
                writer.write_all(b"x").await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(1), many).await.expect_err("it waits");
        assert!(reader.pipe.0.lock().pieces.len() <= CAPACITY / OVERHEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_a_stall_not_even_the_end() {
        let (pipe, mut writer, mut reader) = pipe(Fault::default());
        writer.write_all(b"before").await.unwrap();
        pipe.set(STALLED);
        writer.write_all(b" and within").await.unwrap();
        drop(writer);
        let mut read = Vec::new();
        let waited = Duration::from_secs(3600);
        tokio::time::timeout(waited, reader.read_to_end(&mut read)).await.expect_err("it stalls");
        pipe.set(Fault::default());
        reader.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"before and within");
    }

    #[tokio::test(start_paused = true)]
    async fn both_ends_of_a_cut_hear_at_once_and_for_good() {
        let (pipe, mut writer, mut reader) = pipe(Fault::default());
        writer.write_all(b"lost").await.unwrap();
        pipe.set(CUT);
        pipe.set(Fault::default());
        let kind = io::ErrorKind::ConnectionReset;
        assert_eq!(writer.write_all(b"x").await.unwrap_err().kind(), kind);
        assert_eq!(reader.read_u8().await.unwrap_err().kind(), kind);
    }

    trait ElapsedSecs {
        fn elapsed_secs(self) -> u64;
    }

    impl ElapsedSecs for Instant {
        fn elapsed_secs(self) -> u64 {
            (clock::now() - self).as_secs()
        }
    }
}
