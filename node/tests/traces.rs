//! A trace goes along with whatever is asked on behalf of a request, in this process and over links.

extern crate layercake_node as layercake;

use layercake::{
    Address, Node, current_trace,
    directory::{Event, Scope},
    testing::start_in,
    traced,
    wire::{
        id::{HostId, NodeId},
        memory::Network,
        trace::Trace,
    },
};
use layercake_macros::{actor, message};

/// Which trace the handler is part of, as text; with somebody to ask instead, what that one says.
#[message(reply = Option<String>)]
struct Which {
    via: Option<Address<Clerk>>,
}

struct Clerk;

#[actor]
impl Clerk {
    async fn which(&mut self, Which { via }: Which) -> Option<String> {
        match via {
            Some(other) => other.ask(Which { via: None }).await.expect("answers"),
            None => current_trace().map(|trace| format!("{:032x}", trace.id)),
        }
    }
}

async fn node(network: &Network) -> Node {
    start_in(network, HostId::random(), NodeId::random()).await.expect("starts")
}

#[tokio::test(start_paused = true)]
async fn a_trace_reaches_the_last_handler_and_no_other() {
    let network = Network::new();
    let (near, far) = (node(&network).await, node(&network).await);
    let (here, there) = (near.spawn(Clerk), far.spawn(Clerk));
    let _name = far.publish("clerk", &there, Scope::Lan).await.expect("publishes");
    let mut seen = near.subscribe_to("clerk", Scope::Lan).await.expect("subscribes");
    let there: Address<Clerk> = match seen.next().await.expect("open") {
        Event::Available(record) => near.bind(record.address.clone()),
        other => panic!("{other:?}"),
    };
    let trace = Trace::begin();
    let expected = Some(format!("{:032x}", trace.id));

    let ask = |address: &Address<Clerk>, via: Option<&Address<Clerk>>| {
        let (address, via) = (address.clone(), via.cloned());
        async move { address.ask(Which { via }).await.expect("answers") }
    };
    assert_eq!(traced(trace, ask(&here, None)).await, expected, "within a process");
    assert_eq!(traced(trace, ask(&there, None)).await, expected, "over a link");
    assert_eq!(traced(trace, ask(&here, Some(&there))).await, expected, "through another handler");
    assert_eq!(ask(&here, None).await, None, "what nobody traces is part of none");
    assert_eq!(ask(&there, None).await, None, "what nobody traces is part of none");
}
