//! What an endpoint of an in-memory network has in place of a machine.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::{DialError, Ground, Shared, StartError, Transport};
use crate::{
    id::{HostId, NodeId, PeerId},
    link::Link,
    memory::{self, Member, Network, ReadHalf, WriteHalf},
};

pub(super) struct Port {
    network: Network,
    /// From the network, when it was joined.
    ticket: OnceLock<u64>,
    listening: AtomicBool,
    /// Tasks that end when the node is killed; those that have ended are swept with each new one.
    tasks: Mutex<Vec<AbortHandle>>,
    killed: CancellationToken,
}

impl Port {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            ticket: OnceLock::new(),
            listening: AtomicBool::new(false),
            tasks: Mutex::default(),
            killed: CancellationToken::new(),
        }
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn listen(&self) {
        self.listening.store(true, Ordering::Release);
    }

    pub(super) fn hints(&self, node: NodeId) -> Arc<[SocketAddr]> {
        if self.listening.load(Ordering::Acquire) {
            Arc::new([memory::addr_of(node)])
        } else {
            Arc::default()
        }
    }

    pub(super) fn leave(&self, node: NodeId) {
        if let Some(ticket) = self.ticket.get() {
            self.network.leave(node, *ticket);
        }
    }

    /// Waits until the network has killed the node.
    pub(super) async fn killed(&self) {
        self.killed.cancelled().await;
    }

    pub(super) fn killed_token(&self) -> CancellationToken {
        self.killed.clone()
    }

    pub(super) fn own(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

impl Shared {
    pub(super) fn join_network(self: &Arc<Self>) -> Result<(), StartError> {
        if let Ground::Network(port) = &self.ground {
            let member: Arc<dyn Member> = self.clone();
            let ticket = port.network.join(self.me, Arc::downgrade(&member))?;
            let _ = port.ticket.set(ticket);
        }
        Ok(())
    }

    /// Connects in memory and greets.
    pub(super) async fn dial_memory(
        self: Arc<Self>,
        network: &Network,
        to: PeerId,
    ) -> Result<Link, DialError> {
        let (reader, writer) = network.connect(self.me, to).await?;
        self.greet(Transport::Memory(reader, writer), to).await
    }

    /// Dials whoever listens at the first of these addresses that answers.
    pub(super) async fn dial_memory_any(
        self: Arc<Self>,
        network: &Network,
        addrs: &[SocketAddr],
        host: Option<HostId>,
    ) -> Result<Link, DialError> {
        let mut failures = Vec::new();
        for addr in addrs {
            let Some(peer) = network.at(*addr) else {
                failures.push(format!("{addr}: nobody is there"));
                continue;
            };
            if peer.node == self.me.node {
                if addrs.len() == 1 {
                    return Err(DialError::Ourselves);
                }
                failures.push(format!("{addr}: this is the node itself"));
                continue;
            }
            if host.is_some_and(|host| host != peer.host) {
                failures.push(format!("{addr}: another host lives there now ({})", peer.host));
                continue;
            }
            // Nobody in particular was dialled, and this one lives.
            self.gone.lock().remove(peer.node);
            match self.clone().dial_memory(network, peer).await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    self.end_dial(peer.node, &error);
                    if let DialError::Refused(_) = error {
                        return Err(error);
                    }
                    failures.push(format!("{addr}: {error}"));
                }
            }
        }
        Err(DialError::Unreachable(failures.join("; ")))
    }
}

impl Member for Shared {
    fn accept(
        self: Arc<Self>,
        from: PeerId,
        reader: ReadHalf,
        writer: WriteHalf,
    ) -> Result<(), DialError> {
        let Ok(permit) = self.handshakes.clone().try_acquire_owned() else {
            let reason = format!("{} has too many connections in their handshake", self.me);
            return Err(DialError::Unreachable(reason));
        };
        let answering = self.clone().answer(Transport::Memory(reader, writer), Some(from));
        self.spawn(async move {
            answering.await;
            drop(permit);
        });
        Ok(())
    }

    fn die(&self) {
        self.stop.cancel();
        self.up().iter().for_each(Link::mark_closed);
        // Nobody will tell those who wait for a dial any more.
        self.links.lock().values_mut().for_each(|entry| entry.waiters.clear());
        if let Ground::Network(port) = &self.ground {
            port.killed.cancel();
            for task in port.tasks.lock().drain(..) {
                task.abort();
            }
        }
    }
}
