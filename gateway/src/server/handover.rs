//! A running gateway hands its listener to a new process, so that no connection is refused.
//!
//! Closing a listener loses the connections that wait in its queue, also where another process listens
//! on the same port. Therefore the queue itself changes hands: over a Unix socket in the mesh's runtime
//! folder, named after the address, go the descriptors of the TCP listener and of that socket.
//!
//! ```text
//! successor                         gateway that runs
//!   connect ─────────────────────────▶
//!   ◀──────────── version, two descriptors     (and serves on)
//!   until it can serve a request …
//!   ready ───────────────────────────▶  accepts no more
//!   ◀──────────────────────────── done  finishes what is under way, and leaves
//!   accepts
//! ```
//!
//! One that dies before it is ready changes nothing. Successors are dealt with one at a time; others
//! wait in the queue of the Unix socket, which goes along. Both sides check that the other one is a
//! process of the same user.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use layercake_wire::trust::MAX_SOCKET_NAME;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, UnixListener, UnixStream},
    time::{sleep, timeout},
};

/// The first byte of a hand-over: how the rest is to be understood.
const VERSION: u8 = 1;
/// The successor can serve.
const READY: u8 = b'r';
/// The predecessor accepts no more.
const DONE: u8 = b'd';
/// How long to wait for the descriptors; another successor may be at it.
const TAKE_TIME: Duration = Duration::from_secs(20);
/// How long the predecessor may take to stop accepting. It still accepts at that, so that nothing is lost
/// by going on without its word.
const DONE_TIME: Duration = Duration::from_secs(5);
/// How long to pause after accepting a successor failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the gateway that listens there is to be asked. The path of a socket has little room, so that a
/// long address goes in as its hash (FNV-1a).
fn place(folder: &Path, listen: SocketAddr) -> PathBuf {
    let name = format!("http-{listen}");
    if name.len() <= MAX_SOCKET_NAME {
        return folder.join(name);
    }
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    folder.join(format!("http-{hash:016x}"))
}

/// The socket at which a successor asks for the listener.
pub(super) struct Offer {
    socket: UnixListener,
    /// The file to remove at the end; `None` while or once it is another gateway's.
    path: Option<PathBuf>,
    place: PathBuf,
}

impl Offer {
    /// For a listener that was bound, not taken over: nobody else listens there, so that a socket found
    /// in the place is a left-over.
    pub(super) fn new(folder: &Path, listen: SocketAddr) -> io::Result<Self> {
        let place = place(folder, listen);
        match std::fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&place)?;
        Ok(Self { socket, path: Some(place.clone()), place })
    }

    /// From now on it is this gateway's.
    pub(super) fn adopt(&mut self) {
        self.path = Some(self.place.clone());
    }

    /// Waits for a successor that is ready to serve. Dropping the result tells it that this gateway accepts
    /// no more.
    ///
    /// # Cancel safety
    /// Cancelled, a successor that has the descriptors and was not ready yet finds this side gone, and
    /// serves on its own.
    pub(super) async fn successor(&mut self, listener: &TcpListener) -> Successor {
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot talk to who wants to take over");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match give(&stream, listener, &self.socket).await {
                Ok(true) => {
                    self.path = None;
                    return Successor(stream);
                }
                Ok(false) => tracing::info!("who was about to take over went away; serving on"),
                Err(error) => tracing::warn!(%error, "not handed over; serving on"),
            }
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A successor that waits for the word that it has the listener to itself.
pub(super) struct Successor(UnixStream);

impl Successor {
    /// Tells it to go on.
    pub(super) async fn go_on(mut self) {
        // It goes on without, too.
        let _ = timeout(DONE_TIME, self.0.write_all(&[DONE])).await;
    }
}

/// Hands over copies of both sockets, and waits until the successor is ready; `false` when it went away.
async fn give(stream: &UnixStream, tcp: &TcpListener, unix: &UnixListener) -> io::Result<bool> {
    check_user(stream)?;
    stream
        .async_io(Interest::WRITABLE, || {
            let descriptors = [tcp.as_fd(), unix.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            let sent = [IoSlice::new(&[VERSION])];
            Ok(rustix::net::sendmsg(stream, &sent, &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    loop {
        stream.readable().await?;
        let mut word = [0];
        match stream.try_read(&mut word) {
            Ok(0) => return Ok(false),
            Ok(_) if word == [READY] => return Ok(true),
            Ok(_) => return Err(io::Error::other("it said something else than that it is ready")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The gateway that serves until its successor is ready.
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Says that we are ready, and waits until it accepts no more.
    pub(super) async fn dismiss(mut self) {
        let word = async {
            self.0.write_all(&[READY]).await?;
            self.0.read_u8().await
        };
        match timeout(DONE_TIME, word).await {
            Ok(Ok(_)) => {}
            // Its end is as good: the listener is here.
            Ok(Err(error)) => tracing::info!(%error, "the gateway before this one is gone"),
            Err(_) => tracing::warn!("the gateway before this one does not say that it is done"),
        }
    }
}

/// Asks the gateway that listens there for its listener; `None` where there is none to ask.
pub(super) async fn take(
    folder: &Path,
    listen: SocketAddr,
) -> io::Result<Option<(TcpListener, Offer, Predecessor)>> {
    let place = place(folder, listen);
    let stream = match UnixStream::connect(&place).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            };
        }
    };
    check_user(&stream)?;
    let Ok(received) = timeout(TAKE_TIME, receive(&stream)).await else {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
    };
    let [tcp, unix] = received?;
    let tcp = std::net::TcpListener::from(tcp);
    if tcp.local_addr()? != listen || !socket2::SockRef::from(&tcp).is_listener()? {
        return Err(io::Error::other("what it handed over is not the listener"));
    }
    tcp.set_nonblocking(true)?;
    let unix = std::os::unix::net::UnixListener::from(unix);
    unix.set_nonblocking(true)?;
    let socket = UnixListener::from_std(unix)?;
    let offer = Offer { socket, path: None, place };
    Ok(Some((TcpListener::from_std(tcp)?, offer, Predecessor(stream))))
}

/// The two descriptors that a gateway hands over.
async fn receive(stream: &UnixStream) -> io::Result<[OwnedFd; 2]> {
    stream
        .async_io(Interest::READABLE, || {
            let mut version = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut read = [IoSliceMut::new(&mut version)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = rustix::net::recvmsg(stream, &mut read, &mut control, flags)?;
            let mut descriptors: Vec<OwnedFd> = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            if received.bytes == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it went away"));
            }
            if version != [VERSION] {
                let found = version[0];
                let text = format!("it hands over by version {found}, known here is {VERSION}");
                return Err(io::Error::other(text));
            }
            descriptors
                .try_into()
                .map_err(|_| io::Error::other("it did not hand over two descriptors"))
        })
        .await
}

/// Refuses who is not of our user.
fn check_user(stream: &UnixStream) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if theirs == ours {
        return Ok(());
    }
    let text = format!("the other process is of user {theirs}, this one of user {ours}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
