//! Dialling: from the address of a node to a connection on which both have said hello.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::oneshot,
    task::JoinSet,
};

use super::{
    DIAL_TIME, DialError, Ground, Shared, Transport, check_user, machine::Machine, peer_of,
    socket_name,
};
use crate::{
    frame::Frame,
    hello::{self, Hello, HelloError},
    id::{HostId, NodeAddr, NodeId, PeerId},
    link::Link,
    quic,
};

/// The addresses of a peer are tried one so long after the other, without waiting for any: dead ones
/// cost nothing, and of several that lead to the same peer only one is shaken hands at.
const STAGGER: Duration = Duration::from_millis(5);
/// How long a dial to a node of the own host may take where its socket is absent.
const LOCAL_QUIC_TIME: Duration = Duration::from_millis(500);

/// Who is to be at the other end.
#[derive(Clone, Copy)]
enum Wanted {
    Node(PeerId),
    Host(HostId),
    Anybody,
}

impl Wanted {
    fn admits(self, peer: PeerId) -> bool {
        match self {
            Self::Node(wanted) => wanted == peer,
            Self::Host(host) => host == peer.host,
            Self::Anybody => true,
        }
    }
}

/// A dial of which others know; where it does not come to its end they are told that too.
struct Dial {
    shared: Arc<Shared>,
    node: NodeId,
    over: bool,
}

impl Drop for Dial {
    fn drop(&mut self) {
        if !self.over {
            let mut links = self.shared.links.lock();
            if let Some(entry) = links.get_mut(&self.node) {
                entry.dialling = false;
                entry.waiters.clear();
            }
        }
    }
}

impl Shared {
    /// Dials a node whose entry says `dialling`, and tells those who wait; dropped, also unpolled, as by a
    /// runtime that has ended, it tells them that the endpoint is closed.
    pub(super) fn dial(self: Arc<Self>, to: NodeAddr) -> impl Future<Output = ()> + Send {
        let dial = Dial { shared: self, node: to.peer.node, over: false };
        async move {
            // The whole, or the block would have a copy of the flag.
            let mut dial = dial;
            let shared = &dial.shared;
            let result = match &shared.ground {
                Ground::Machine(machine) if to.peer.host == shared.me.host => {
                    shared.clone().dial_unix(machine, &to).await
                }
                Ground::Machine(machine) => {
                    shared.clone().dial_quic(machine, &to.hints, Wanted::Node(to.peer)).await
                }
                Ground::Network(port) => shared.clone().dial_memory(port.network(), to.peer).await,
            };
            if let Err(error) = result {
                shared.end_dial(dial.node, &error);
            }
            dial.over = true;
        }
    }

    /// Dials whoever answers at one of these addresses; where a host is given, only its nodes count.
    pub(super) async fn dial_addrs(
        self: Arc<Self>,
        addrs: &[SocketAddr],
        host: Option<HostId>,
    ) -> Result<Link, DialError> {
        match &self.ground {
            Ground::Machine(machine) => {
                let wanted = host.map_or(Wanted::Anybody, Wanted::Host);
                self.clone().dial_quic(machine, addrs, wanted).await
            }
            Ground::Network(port) => {
                self.clone().dial_memory_any(port.network(), addrs, host).await
            }
        }
    }

    /// A dial has failed: those who wait for it hear that, unless the peer's own is on its way.
    pub(super) fn end_dial(&self, node: NodeId, error: &DialError) {
        let waiters = {
            let mut links = self.links.lock();
            let Some(entry) = links.get_mut(&node) else { return };
            entry.dialling = false;
            if entry.accepting {
                return;
            }
            std::mem::take(&mut entry.waiters)
        };
        for waiter in waiters {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    async fn dial_unix(
        self: Arc<Self>,
        machine: &Machine,
        to: &NodeAddr,
    ) -> Result<Link, DialError> {
        let node = to.peer.node;
        let Some(own) = &machine.socket else {
            let reason = "this process has no socket for others of its host".to_owned();
            return Err(DialError::Unreachable(reason));
        };
        let path = own.with_file_name(socket_name(node));
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                check_user(&stream).map_err(|e| DialError::Refused(e.to_string()))?;
                let (reader, writer) = stream.into_split();
                self.greet(Transport::Unix(reader, writer), to.peer).await
            }
            // Its socket has nobody behind it: the process was killed.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
                Err(DialError::Gone(node))
            }
            // Left in order, or one that shares this host's identity but not its runtime folder.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let left = self.links.lock().get(&node).is_some_and(|entry| entry.said_goodbye);
                if left || to.hints.is_empty() {
                    return Err(DialError::Gone(node));
                }
                let dial = self.clone().dial_quic(machine, &to.hints, Wanted::Node(to.peer));
                tokio::time::timeout(LOCAL_QUIC_TIME, dial)
                    .await
                    .unwrap_or(Err(DialError::Gone(node)))
            }
            Err(e) => Err(DialError::Unreachable(format!("{}: {e}", path.display()))),
        }
    }

    /// Dials all addresses, one right after the other, and greets the first that shakes hands as the right peer.
    async fn dial_quic(
        self: Arc<Self>,
        machine: &Machine,
        addrs: &[SocketAddr],
        wanted: Wanted,
    ) -> Result<Link, DialError> {
        if addrs.is_empty() {
            let reason = "it has no address outside of its own host".to_owned();
            return Err(DialError::Unreachable(reason));
        }
        let quic = machine.ensure_quic(&self, None).await;
        let quic = quic.map_err(|e| DialError::Unreachable(e.to_string()))?;
        let mut attempts = JoinSet::new();
        for (at, addr) in (0_u32..).zip(addrs) {
            let (quic, addr, mesh) = (quic.clone(), *addr, self.mesh.clone());
            attempts.spawn(async move {
                let shake = async {
                    tokio::time::sleep(STAGGER * at).await;
                    let connecting = quic
                        .endpoint
                        .connect_with(quic.client.clone(), addr, SERVER_NAME)
                        .map_err(|e| e.to_string())?;
                    let connection = connecting.await.map_err(|e| e.to_string())?;
                    let peer = peer_of(&mesh, &connection).map_err(|e| e.to_string())?;
                    Ok::<_, String>((connection, peer))
                };
                let shaken = tokio::time::timeout(DIAL_TIME, shake).await;
                shaken
                    .unwrap_or_else(|_| Err("no answer".to_owned()))
                    .map_err(|reason| format!("{addr}: {reason}"))
            });
        }
        let mut failures = Vec::new();
        let mut ourselves = false;
        while let Some(attempt) = attempts.join_next().await {
            let (connection, peer) = match attempt {
                Ok(Ok(shaken)) => shaken,
                Ok(Err(reason)) => {
                    failures.push(reason);
                    continue;
                }
                Err(_) => continue,
            };
            let remote = quic::plain(connection.remote_address());
            if peer.node == self.me.node {
                ourselves = true;
                failures.push(format!("{remote}: this is the node itself"));
                continue;
            }
            if !wanted.admits(peer) {
                failures.push(format!("{remote}: another node lives there now ({peer})"));
                connection.close(0_u32.into(), b"not whom I wanted");
                continue;
            }
            let unknown = !matches!(wanted, Wanted::Node(_));
            if unknown {
                // Nobody in particular was dialled, and this one lives.
                self.gone.lock().remove(peer.node);
            }
            let opened = connection.open_bi().await;
            let greeted = match opened {
                Ok((send, receive)) => {
                    let transport = Transport::Quic(connection, receive, send);
                    self.clone().greet(transport, peer).await
                }
                Err(e) => Err(DialError::Unreachable(e.to_string())),
            };
            let error = match greeted {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            if unknown {
                // Nobody else knows that this peer was dialled.
                self.end_dial(peer.node, &error);
            }
            if let DialError::Refused(_) = error {
                return Err(error);
            }
            failures.push(format!("{remote}: {error}"));
        }
        if ourselves && failures.len() == 1 {
            return Err(DialError::Ourselves);
        }
        Err(DialError::Unreachable(failures.join("; ")))
    }

    /// Exchanges hellos on a connection that we dialled.
    pub(super) async fn greet(
        self: Arc<Self>,
        mut transport: Transport,
        peer: PeerId,
    ) -> Result<Link, DialError> {
        let nonce = rand::random();
        let last_seen = {
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            // The peer's own dial may have been faster; a hello that names a link says it is lost.
            if let Some(up) = entry.up.clone().filter(|link| !link.is_closed()) {
                entry.dialling = false;
                return Ok(up);
            }
            entry.dialling = true;
            entry.last_nonce
        };
        let mut buffer = BytesMut::new();
        let ours = hello::hello_frame(&self.hello(nonce, last_seen));
        let answer = match &mut transport {
            Transport::Unix(reader, writer) => exchange(reader, writer, ours, &mut buffer).await,
            Transport::Quic(_, reader, writer) => exchange(reader, writer, ours, &mut buffer).await,
            Transport::Memory(reader, writer) => exchange(reader, writer, ours, &mut buffer).await,
        };
        match answer {
            // It answered, and has ended since.
            Ok(_) if self.gone.lock().contains(peer.node) => Err(DialError::Gone(peer.node)),
            Ok(theirs) if theirs.host == peer.host && theirs.node == peer.node => {
                Ok(self.raise(transport, &theirs, nonce, true, buffer))
            }
            Ok(_) => Err(DialError::Refused("it says it is another node".to_owned())),
            // Its own dial to us is on the way: wait for that.
            Err(HelloError::Refused { duplicate: true, .. }) => self.await_crossing(peer).await,
            Err(HelloError::Refused { reason, .. }) => Err(DialError::Refused(reason)),
            Err(error) => Err(DialError::Unreachable(error.to_string())),
        }
    }

    async fn await_crossing(&self, peer: PeerId) -> Result<Link, DialError> {
        let waiting = {
            let mut links = self.links.lock();
            let entry = links.entry(peer.node).or_default();
            entry.dialling = false;
            if let Some(up) = entry.up.as_ref().filter(|link| !link.is_closed()) {
                return Ok(up.clone());
            }
            let (waiter, waiting) = oneshot::channel();
            entry.waiters.push(waiter);
            waiting
        };
        match tokio::time::timeout(DIAL_TIME, waiting).await {
            Ok(Ok(result)) => result,
            _ => Err(DialError::Unreachable("the peer's own dial did not arrive".to_owned())),
        }
    }
}

/// What TLS is given for a name; identities are in the certificates.
const SERVER_NAME: &str = "node.layercake";

async fn exchange<R, W>(
    reader: &mut R,
    writer: &mut W,
    ours: Frame,
    buffer: &mut BytesMut,
) -> Result<Hello, HelloError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    hello::send(writer, ours).await?;
    hello::receive(reader, buffer).await
}
