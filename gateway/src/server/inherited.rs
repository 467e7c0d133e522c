//! A listener that systemd opened before this process began (socket activation): it holds the port while
//! the service restarts, and may open one that the service itself may not.

use std::{io, net::SocketAddr, net::TcpListener, os::fd::OwnedFd};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The first descriptor that systemd passes.
const FIRST: i32 = 3;
/// More are not looked at.
const MAX_LISTENERS: i32 = 64;

/// The listener for that address, if this process was given it.
pub(super) fn listener(listen: SocketAddr) -> io::Result<Option<TcpListener>> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else {
        return Ok(None);
    };
    // What a parent was given, a child inherits the variables of.
    if pid != getpid().as_raw_nonzero().get() {
        return Ok(None);
    }
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    for number in FIRST..FIRST + count.clamp(0, MAX_LISTENERS) {
        // A copy: the number itself belongs to whoever opened it, and safe code takes none by number.
        let copy: OwnedFd = pidfd_getfd(&this, number, PidfdGetfdFlags::empty())?;
        let listener = TcpListener::from(copy);
        // Of another kind or for another address it is somebody else's.
        if listener.local_addr().is_ok_and(|addr| addr == listen)
            && socket2::SockRef::from(&listener).is_listener().unwrap_or(false)
        {
            listener.set_nonblocking(true)?;
            return Ok(Some(listener));
        }
    }
    Ok(None)
}
