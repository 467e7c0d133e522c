//! The agent of a node: an actor that every node has, under the number 0, for other nodes of the
//! mesh and for the command line.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
    time::Duration,
};

use layercake_wire::id::{ActorAddr, ActorSerial, NodeAddr, PeerId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    actor::{Accepts, Actor, Context},
    error::AskError,
    exit::Exit,
    mail::Mail,
    message::{Api, Data, Message, MessageApi},
    node::{Node, STOP_GRACE},
    packet::{Packet, Parcel, Reply},
    relay::{MAX_RELAYS, Relay, Relayed},
    schema,
};

/// The number of the agent within its node.
pub(crate) const AGENT: ActorSerial = 0;
/// Watches by other nodes over actors of one node; more are `Overloaded`.
pub(crate) const MAX_WATCHES: usize = 65_536;

/// Asks a node to listen for other hosts, and to say where. Answered with its UDP addresses, or
/// none where it cannot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Listen {}

/// Asks how an actor of the node ends; answered when it has.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Watch {
    pub(crate) serial: ActorSerial,
}

/// Asks whether an actor of the node is there for others; answered at once, by the agent. See
/// [`Node::ping`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Ping {
    pub(crate) serial: ActorSerial,
}

macro_rules! messages {
    ($($message:ident, $name:literal, $reply:ty, $idempotent:literal;)*) => {
        $(
            impl Message for $message {
                type Reply = $reply;
                const NAME: &'static str = $name;
                const IDEMPOTENT: bool = $idempotent;

                fn describe() -> &'static Arc<MessageApi> {
                    static API: OnceLock<Arc<MessageApi>> = OnceLock::new();
                    API.get_or_init(|| Arc::new(schema::describe::<Self>()))
                }
            }

            impl Accepts<$message> for Agent {}
        )*

        /// What stands in the mailbox of an agent.
        pub enum AgentMail { $(#[doc = $name] $message(Packet<$message>),)* }

        impl Mail for AgentMail {
            fn api() -> Api {
                let messages = vec![$(<$message>::describe().clone(),)*];
                Api { actor: Agent::NAME.to_owned(), messages }
            }

            fn accept(packet: &mut dyn Any) -> Option<Self> {
                $(
                    if let Some(slot) = packet.downcast_mut::<Option<Packet<$message>>>() {
                        return slot.take().map(Self::$message);
                    }
                )*
                None
            }

            fn open(parcel: Parcel) -> Option<Self> {
                $(
                    if parcel.tag() == <$message>::TAG {
                        return parcel.unpack().map(Self::$message);
                    }
                )*
                parcel.refuse();
                None
            }
        }
    };
}

messages! {
    Listen, "layercake.Listen", Vec<std::net::SocketAddr>, true;
    Watch, "layercake.Watch", Exit, true;
    Relay, "layercake.Relay", Relayed, false;
    Ping, "layercake.Ping", bool, true;
}

/// The agent.
pub struct Agent {
    watches: Arc<Semaphore>,
    relays: Arc<Semaphore>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        let watches = Arc::new(Semaphore::new(MAX_WATCHES));
        Self { watches, relays: Arc::new(Semaphore::new(MAX_RELAYS)) }
    }

    /// The address of a node's agent.
    #[must_use]
    pub fn address(peer: PeerId) -> ActorAddr {
        ActorAddr { node: NodeAddr::new(peer, &[]), serial: AGENT }
    }
}

/// Does something for a peer in a task of its own, unless too much is under way.
fn attend<R: Data, F>(
    node: &Node,
    limit: &Arc<Semaphore>,
    most: usize,
    reply: Reply<R>,
    work: impl FnOnce(Reply<R>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    match limit.clone().try_acquire_owned() {
        Ok(permit) => {
            let work = node.tasks().track_future(work(reply));
            tokio::spawn(async move {
                work.await;
                drop(permit);
            });
        }
        Err(_) => {
            let retry_after = Duration::from_secs(1);
            reply.settle(Err(AskError::Overloaded { pending: most, retry_after }));
        }
    }
}

impl Actor for Agent {
    const NAME: &'static str = "Agent";
    type Mail = AgentMail;
    type Output = ();

    async fn handle(&mut self, mail: AgentMail, ctx: &mut Context<Self>) {
        let node = ctx.node().clone();
        match mail {
            AgentMail::Listen(packet) => {
                let Some((_, reply)) = packet.into_parts() else { return };
                let addrs = match node.endpoint().listen_quic(None).await {
                    Ok(addr) => addr.hints.to_vec(),
                    Err(error) => {
                        tracing::warn!(%error, "cannot listen for other hosts");
                        Vec::new()
                    }
                };
                reply.send(addrs);
            }
            AgentMail::Watch(packet) => {
                let Some((Watch { serial }, reply)) = packet.into_parts() else { return };
                let Some(inlet) = node.find(serial) else { return reply.send(Exit::Unknown) };
                let exit = inlet.watch();
                let stop = node.stop_token();
                // The agent itself ends last of all.
                let grace = if serial == AGENT { Duration::ZERO } else { STOP_GRACE };
                attend(&node, &self.watches, MAX_WATCHES, reply, |reply| async move {
                    let outlived = async {
                        stop.cancelled().await;
                        tokio::time::sleep(grace).await;
                    };
                    let exit = tokio::select! {
                        exit = exit => exit.unwrap_or(Exit::Aborted),
                        () = reply.unwanted() => return,
                        // Those that outlive the node's grace.
                        () = outlived => Exit::Aborted,
                    };
                    reply.send(exit);
                });
            }
            AgentMail::Ping(packet) => {
                let Some((Ping { serial }, reply)) = packet.into_parts() else { return };
                reply.send(node.find(serial).is_some());
            }
            AgentMail::Relay(packet) => {
                let Some((relay, reply)) = packet.into_parts() else { return };
                let by = node.clone();
                attend(&node, &self.relays, MAX_RELAYS, reply, |reply| relay.carry_out(by, reply));
            }
        }
    }
}
