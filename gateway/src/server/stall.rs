//! A connection whose client must keep up. It must read: a write that makes no headway for too long is an
//! error. And over HTTP/1.1 it must ask: a head that takes too long, or a pause between two requests that
//! does, is one as well.
//!
//! The system's own limit is on data that is not acknowledged; a client that acknowledges and leaves its
//! buffer full is caught here. hyper has a limit on the time for a head, but the same for a pause, and it
//! sets and clears a timer for each request; here is one for each connection, which is looked at when it
//! fires.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// For how long a client may be silent, and since when it is. Shared by what reads the connection and what
/// answers on it, both in the connection's own task.
pub(super) struct Silence {
    head: Duration,
    idle: Duration,
    begun: Instant,
    /// Whose turn it is, in the lowest bits; above them since when, in milliseconds after the beginning, or
    /// [`JUST`]: most turns end before anybody looks at the clock.
    turn: AtomicU64,
}

/// The client sends a head.
const HEAD: u64 = 0;
/// It may send one.
const IDLE: u64 = 1;
/// It waits for our answer, or reads it.
const OURS: u64 = 2;
/// The connection is none of HTTP any more.
const ELSE: u64 = 3;
const TURN: u64 = 3;
/// The turn has begun since the limit was last asked for.
const JUST: u64 = u64::MAX << 2;

impl Silence {
    /// Begins with the client's first head, which may take as long as `head`; a pause, as long as `idle`.
    pub(super) fn new(head: Duration, idle: Duration) -> Arc<Self> {
        Arc::new(Self { head, idle, begun: Instant::now(), turn: AtomicU64::new(HEAD) })
    }

    /// A head is complete. The client's turn is when the result is dropped, with the answer's body.
    pub(super) fn ours(self: &Arc<Self>) -> Ours {
        self.turn.store(OURS, Ordering::Relaxed);
        Ours(self.clone())
    }

    /// From here on it is not ours to limit.
    pub(super) fn end(&self) {
        self.turn.store(ELSE, Ordering::Relaxed);
    }

    /// Something has come.
    fn heard(&self) {
        if self.turn.load(Ordering::Relaxed) & TURN == IDLE {
            self.turn.store(JUST | HEAD, Ordering::Relaxed);
        }
    }

    /// When it will have been silent for too long.
    fn limit(&self) -> Option<Instant> {
        let mut turn = self.turn.load(Ordering::Relaxed);
        let span = match turn & TURN {
            HEAD => self.head,
            IDLE => self.idle,
            _ => return None,
        };
        if turn >= JUST {
            let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0);
            turn = (since << 2) | (turn & TURN);
            self.turn.store(turn, Ordering::Relaxed);
        }
        Some(self.begun + Duration::from_millis(turn >> 2) + span)
    }
}

/// While this lives the client may be silent.
pub(super) struct Ours(Arc<Silence>);

impl Drop for Ours {
    fn drop(&mut self) {
        if self.0.turn.load(Ordering::Relaxed) == OURS {
            self.0.turn.store(JUST | IDLE, Ordering::Relaxed);
        }
    }
}

/// A stream with limits on how long a write may be stuck, and how long the client may be silent.
pub(super) struct Stalling<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write is stuck.
    stuck: Option<Pin<Box<Sleep>>>,
    silence: Option<Arc<Silence>>,
    /// Fires at the limit of the silence, or earlier, and is then set anew.
    silent: Option<Pin<Box<Sleep>>>,
    /// Whether it will wake the task.
    armed: bool,
}

impl<S> Stalling<S> {
    /// Without a `silence`, the client may be silent for as long as it likes.
    pub(super) const fn new(stream: S, limit: Duration, silence: Option<Arc<Silence>>) -> Self {
        Self { stream, limit, stuck: None, silence, silent: None, armed: false }
    }

    /// Passes on what a write came to, unless it has been stuck for too long.
    fn headway<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    /// Ready when the client has been silent for too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let limit = self.silence.as_ref().and_then(|silence| silence.limit());
            let Some(limit) = limit else { return Poll::Pending };
            let timer = self.silent.get_or_insert_with(|| Box::pin(sleep_until(limit)));
            if limit < timer.deadline() {
                timer.as_mut().reset(limit);
            } else if self.armed && !timer.is_elapsed() {
                return Poll::Pending; // it wakes the connection's task, which is always the same
            }
            self.armed = timer.as_mut().poll(cx).is_pending();
            if self.armed {
                return Poll::Pending;
            }
            if limit <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(limit);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if let Some(silence) = &self.silence {
                silence.heard();
            }
            return Poll::Ready(outcome);
        }
        ready!(self.poll_silent(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client asks nothing")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.headway(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.headway(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        // hyper, having looked during the answer, does not look again before something comes.
        let _ = self.poll_silent(cx);
        self.headway(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.headway(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_an_error_and_a_slow_one_is_not() {
        let (server, mut client) = tokio::io::duplex(16);
        let mut server = Stalling::new(server, Duration::from_secs(30), None);
        let writing = tokio::spawn(async move {
            let slow = server.write_all(&[7; 64]).await;
            (slow, server.write_all(&[7; 64]).await)
        });
        // Four parts of sixteen bytes, each within the limit, all together beyond it.
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(20)).await;
            client.read_exact(&mut [0; 16]).await.unwrap();
        }
        let (slow, stuck) = writing.await.unwrap();
        slow.unwrap();
        assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_pause_for_longer_than_a_head_may_take() {
        let second = Duration::from_secs(1);
        let silence = Silence::new(10 * second, 75 * second);
        let (server, mut client) = tokio::io::duplex(16);
        let mut server = Stalling::new(server, second, Some(silence.clone()));
        let mut read = async |seconds: u64| {
            let begun = Instant::now();
            let outcome = server.read(&mut [0; 16]).await;
            assert_eq!(begun.elapsed().as_secs(), seconds, "{outcome:?}");
            outcome.map_err(|error| error.kind())
        };

        let mut send = async |bytes: &[u8], after: u32| {
            sleep(after * second).await;
            client.write_all(bytes).await.unwrap();
        };

        // The first head takes its time from the beginning, not from its latest byte.
        send(b"GET ", 0).await;
        assert_eq!(read(0).await, Ok(4));
        assert_eq!(tokio::join!(read(4), send(b"/ ", 4)).0, Ok(2));
        assert_eq!(read(6).await, Err(io::ErrorKind::TimedOut));

        // However long an answer takes, the client may be silent.
        let ours = silence.ours();
        assert!(tokio::time::timeout(500 * second, read(500)).await.is_err());
        drop(ours);
        assert_eq!(read(75).await, Err(io::ErrorKind::TimedOut));

        // Within the pause the next head may begin at any time.
        drop(silence.ours());
        assert_eq!(tokio::join!(read(70), send(b"GET ", 70)).0, Ok(4));
        assert_eq!(read(10).await, Err(io::ErrorKind::TimedOut));

        // What the connection becomes afterwards has limits of its own.
        let ours = silence.ours();
        silence.end();
        drop(ours);
        assert!(tokio::time::timeout(500 * second, read(500)).await.is_err());
    }
}
