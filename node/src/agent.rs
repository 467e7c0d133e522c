//! The agent of a node: an actor that every node has, under the number 0, for other nodes of the
//! mesh and for the command line.

use std::{any::Any, sync::Arc, sync::OnceLock};

use layercake_wire::id::{ActorAddr, ActorSerial, NodeAddr, PeerId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    actor::{Accepts, Actor, Context},
    message::{Api, Message, MessageApi},
    packet::{Packet, Parcel},
    schema,
};

/// The number of the agent within its node.
pub(crate) const AGENT: ActorSerial = 0;

/// Asks a node to listen for other hosts, and to say where. Answered with its UDP addresses, or
/// none where it cannot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Listen {}

impl Message for Listen {
    type Reply = Vec<std::net::SocketAddr>;
    const NAME: &'static str = "layercake.Listen";
    const IDEMPOTENT: bool = true;

    fn describe() -> &'static Arc<MessageApi> {
        static API: OnceLock<Arc<MessageApi>> = OnceLock::new();
        API.get_or_init(|| Arc::new(schema::describe::<Self>()))
    }
}

/// The agent.
pub struct Agent;

impl Agent {
    /// The address of a node's agent.
    #[must_use]
    pub fn address(peer: PeerId) -> ActorAddr {
        ActorAddr { node: NodeAddr::new(peer, &[]), serial: AGENT }
    }
}

impl Accepts<Listen> for Agent {}

impl Actor for Agent {
    const NAME: &'static str = "Agent";
    type Mail = Packet<Listen>;

    fn api() -> Api {
        Api { actor: Self::NAME.to_owned(), messages: vec![Listen::describe().clone()] }
    }

    fn accept(packet: &mut dyn Any) -> Option<Self::Mail> {
        packet.downcast_mut::<Option<Packet<Listen>>>().and_then(Option::take)
    }

    fn open(parcel: Parcel) -> Option<Self::Mail> {
        if parcel.tag() == Listen::TAG {
            return parcel.unpack();
        }
        parcel.refuse();
        None
    }

    async fn handle(&mut self, mail: Self::Mail, ctx: &mut Context<Self>) {
        let Some((_, reply)) = mail.into_parts() else { return };
        let addrs = match ctx.node().endpoint().listen_quic(None).await {
            Ok(addr) => addr.hints.to_vec(),
            Err(error) => {
                tracing::warn!(%error, "cannot listen for other hosts");
                Vec::new()
            }
        };
        reply.send(addrs);
    }
}
