//! From a connection on which both have said hello to a link, and what carries it.

use std::{
    cell::RefCell,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{Ground, STOPS, Shared, Transport};
use crate::{
    hello::Hello,
    id::{NodeAddr, PeerId},
    inbound::LinkDown,
    link::{Command, Link, cell::CoreCell, core::Core, driver},
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
        let (shared, handle) = (self.clone(), link.clone());
        let spawned = match (&self.ground, transport) {
            (Ground::Machine(machine), Transport::Unix(reader, writer)) => {
                machine.spawn_local(move || async move {
                    let quic = None;
                    shared
                        .carry::<RefCell<Core>, _, _>(
                            handle, reader, writer, buffer, commands, quic,
                        )
                        .await;
                })
            }
            (Ground::Machine(machine), Transport::Quic(connection, reader, writer)) => machine
                .spawn_local(move || async move {
                    let quic = Some(connection);
                    shared
                        .carry::<RefCell<Core>, _, _>(
                            handle, reader, writer, buffer, commands, quic,
                        )
                        .await;
                }),
            (Ground::Network(_), Transport::Memory(reader, writer)) => {
                self.io.spawn(async move {
                    let quic = None;
                    shared
                        .carry::<Mutex<Core>, _, _>(handle, reader, writer, buffer, commands, quic)
                        .await;
                });
                true
            }
            // A connection is made by the ground that the endpoint stands on.
            (_, _) => false,
        };
        if !spawned {
            link.mark_closed();
        }
        if self.closing.load(Ordering::Acquire) {
            link.close(STOPS);
        }
        link
    }

    /// Carries a link until it ends, or the endpoint does.
    async fn carry<C, R, W>(
        self: Arc<Self>,
        link: Link,
        reader: R,
        writer: W,
        buffer: BytesMut,
        commands: mpsc::UnboundedReceiver<Command>,
        quic: Option<quinn::Connection>,
    ) where
        C: CoreCell,
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        tracing::debug!(?link, local = link.is_local(), "link is up");
        self.receive.on_up(link.clone());
        let run =
            driver::run::<C, _, _>(&link, reader, writer, buffer, commands, quic, &self.receive);
        let mut run = pin!(run);
        let down = match &self.ground {
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
            let mut links = self.links.lock();
            if let Some(entry) = links.get_mut(&link.peer().node)
                && entry.up.as_ref() == Some(&link)
            {
                entry.up = None;
                entry.said_goodbye = link.is_local() && matches!(down, LinkDown::Closed(_));
            }
        }
        self.receive.on_down(&link, down);
    }
}
