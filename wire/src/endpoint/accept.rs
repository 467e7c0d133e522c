//! Accepting: from a connection that a peer dialled to a link, or to a host that joins the mesh.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::net::{UnixListener, UnixStream};

use super::{DIAL_TIME, SWEEP_FROM, SWEEP_MOST, Shared, Transport, check_user, peer_of};
use crate::{
    hello::{self, PeerState, RefuseCode},
    id::{NodeId, PeerId},
    trust::{self, ALPN_JOIN},
};

impl Shared {
    /// Answers a connection that a peer dialled. `proved` is who its certificate, or the in-memory
    /// network, says it is; within the host the user is proved and the hello is believed.
    pub(super) async fn answer(self: Arc<Self>, mut transport: Transport, proved: Option<PeerId>) {
        let mut buffer = BytesMut::new();
        let received = match &mut transport {
            Transport::Unix(reader, _) => hello::receive(reader, &mut buffer).await,
            Transport::Quic(_, reader, _) => hello::receive(reader, &mut buffer).await,
            Transport::Memory(reader, _) => hello::receive(reader, &mut buffer).await,
        };
        let theirs = match received {
            Ok(theirs) => theirs,
            Err(error) => {
                tracing::debug!(%error, "a connection came without a hello");
                return;
            }
        };
        let peer = PeerId { host: theirs.host, node: theirs.node };
        let verdict = hello::check(&theirs, &self.mesh.id().fingerprint).and_then(|()| {
            let honest = match proved {
                Some(proved) => proved == peer,
                None => peer.host == self.me.host,
            };
            if !honest || peer.node == self.me.node {
                let reason = "the hello and the certificate differ".to_owned();
                return Err((RefuseCode::Identity, reason));
            }
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            let state = PeerState {
                dialling: entry.dialling,
                up: entry
                    .up
                    .as_ref()
                    .filter(|link| !link.is_closed())
                    .map(|link| (link.nonce(), link.is_dialled())),
            };
            if !hello::admits(self.me.node, peer.node, state, theirs.last_seen) {
                return Err((RefuseCode::Duplicate, "use the other link".to_owned()));
            }
            entry.accepting = true;
            // Whoever took it for gone was wrong.
            self.gone.lock().remove(peer.node);
            Ok(())
        });
        let frame = match &verdict {
            Ok(()) => hello::hello_frame(&self.hello(theirs.nonce, 0)),
            Err((code, reason)) => hello::refuse_frame(*code, reason),
        };
        let sent = match &mut transport {
            Transport::Unix(_, writer) => hello::send(writer, frame).await,
            Transport::Quic(_, _, writer) => hello::send(writer, frame).await,
            Transport::Memory(_, writer) => hello::send(writer, frame).await,
        };
        if let Err((code, reason)) = verdict {
            if code != RefuseCode::Duplicate {
                tracing::warn!(%peer, reason, "refused a link");
            }
            // The refusal must arrive before the connection goes.
            if let Transport::Quic(connection, _, mut writer) = transport {
                let _ = writer.finish();
                let _ = tokio::time::timeout(DIAL_TIME, connection.closed()).await;
            }
            return;
        }
        if sent.is_err() {
            let mut links = self.links.lock();
            if let Some(entry) = links.get_mut(&peer.node) {
                entry.accepting = false;
                if !entry.dialling {
                    entry.waiters.clear();
                }
            }
            return;
        }
        self.raise(transport, &theirs, theirs.nonce, false, buffer);
    }

    async fn answer_quic(self: Arc<Self>, connection: quinn::Connection) {
        let from = connection.remote_address();
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
            .and_then(|data| data.protocol);
        if protocol.as_deref() == Some(ALPN_JOIN) {
            match trust::answer_join(&self.mesh, connection).await {
                Ok(host) => tracing::info!(%from, %host, "a host joined the mesh"),
                Err(error) => tracing::warn!(%from, %error, "a host could not join"),
            }
            return;
        }
        let peer = match peer_of(&self.mesh, &connection) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%from, %error, "refused a link");
                connection.close(1_u32.into(), b"no identity of this mesh");
                return;
            }
        };
        let opened = tokio::time::timeout(hello::HELLO_TIME, connection.accept_bi()).await;
        if let Ok(Ok((send, receive))) = opened {
            let transport = Transport::Quic(connection, receive, send);
            self.answer(transport, Some(peer)).await;
        }
    }
}

/// Removes sockets that killed processes have left: nobody answers there.
pub(super) async fn sweep(folder: PathBuf) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let sockets = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.strip_suffix(".sock"));
        id.is_some_and(|id| id.parse::<NodeId>().is_ok())
    });
    let sockets: Vec<_> = sockets.collect();
    // A few left-overs do no harm; many neighbours should not all be knocked at by everybody.
    if sockets.len() < SWEEP_FROM {
        return;
    }
    for path in sockets.iter().take(SWEEP_MOST) {
        let gone = UnixStream::connect(path).await.err().map(|error| error.kind());
        if gone == Some(io::ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(super) async fn accept_unix(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        // More than so many wait in the backlog.
        let Ok(permit) = shared.handshakes.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = check_user(&stream) {
                    tracing::warn!(%error, "refused a local connection");
                    continue;
                }
                let (reader, writer) = stream.into_split();
                let answering = shared.clone().answer(Transport::Unix(reader, writer), None);
                shared.spawn(async move {
                    answering.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a local connection; trying on");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

pub(super) async fn accept_quic(shared: Arc<Shared>, endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let task = shared.clone();
        shared.spawn(async move {
            let from = incoming.remote_address();
            match tokio::time::timeout(DIAL_TIME, incoming).await {
                Ok(Ok(connection)) => task.answer_quic(connection).await,
                Ok(Err(error)) => tracing::debug!(%from, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
            drop(permit);
        });
    }
}
