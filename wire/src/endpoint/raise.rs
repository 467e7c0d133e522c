//! From a connection on which both have said hello to a link, and what carries it.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{Ground, STOPS, Shared, Transport};
use crate::{
    hello::Hello,
    id::{NodeAddr, PeerId},
    inbound::LinkDown,
    link::{Command, Link, driver},
    memory, quic,
};

impl Shared {
    /// Makes a link of a connection on which both have said hello.
    pub(super) fn raise(
        self: &Arc<Self>,
        transport: Transport,
        theirs: &Hello,
        nonce: u64,
        dialled: bool,
        buffer: BytesMut,
    ) -> Link {
        let peer = PeerId { host: theirs.host, node: theirs.node };
        let remote = match &transport {
            Transport::Unix(..) => None,
            Transport::Quic(connection, ..) => Some(quic::plain(connection.remote_address())),
            Transport::Memory(..) => {
                (peer.host != self.me.host).then(|| memory::addr_of(peer.node))
            }
        };
        let addr = NodeAddr::new(peer, &theirs.hints);
        let (link, commands) = Link::new(addr, nonce, dialled, remote);
        {
            let types = self.types.lock();
            if !types.is_empty() {
                link.announce(types.iter().copied().collect());
            }
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            entry.dialling &= !dialled;
            entry.accepting &= dialled;
            entry.last_nonce = nonce;
            entry.said_goodbye = false;
            if let Some(old) = entry.up.replace(link.clone()) {
                old.close("replaced by a newer link");
            }
            for waiter in entry.waiters.drain(..) {
                let _ = waiter.send(Ok(link.clone()));
            }
        }
        let carried = Carried { shared: self.clone(), link: link.clone() };
        match transport {
            Transport::Unix(reader, writer) => {
                self.io.spawn(carried.run(reader, writer, buffer, commands, None));
            }
            Transport::Quic(connection, reader, writer) => {
                self.io.spawn(carried.run(reader, writer, buffer, commands, Some(connection)));
            }
            Transport::Memory(reader, writer) => {
                self.io.spawn(carried.run(reader, writer, buffer, commands, None));
            }
        }
        if self.closing.load(Ordering::Acquire) {
            link.close(STOPS);
        }
        link
    }
}

/// A link and the task that carries it; it is closed when that ends, also where its runtime ends first.
struct Carried {
    shared: Arc<Shared>,
    link: Link,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.link.mark_closed();
    }
}

impl Carried {
    /// Carries the link until it ends, or the endpoint does.
    async fn run<R, W>(
        self,
        reader: R,
        writer: W,
        buffer: BytesMut,
        commands: mpsc::UnboundedReceiver<Command>,
        quic: Option<quinn::Connection>,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Self { shared, link } = &self;
        tracing::debug!(?link, local = link.is_local(), "link is up");
        shared.receive.on_up(link.clone());
        let run = driver::run(link, reader, writer, buffer, commands, quic, &shared.receive);
        let mut run = pin!(run);
        let down = match &shared.ground {
            Ground::Machine(_) => run.await,
            Ground::Network(port) => tokio::select! {
                biased;
                () = port.killed() => LinkDown::Ours("the node was killed".to_owned()),
                down = run.as_mut() => down,
            },
        };
        link.mark_closed();
        tracing::debug!(?link, %down, "link is down");
        {
            let mut links = shared.links.lock();
            if let Some(entry) = links.get_mut(&link.peer().node)
                && entry.up.as_ref() == Some(link)
            {
                entry.up = None;
                entry.said_goodbye = link.is_local() && matches!(down, LinkDown::Closed(_));
            }
        }
        shared.receive.on_down(link, down);
    }
}
