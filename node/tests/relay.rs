//! An address works also where no way leads to its actor: the node that it came from relays.

extern crate layercake_node as layercake;

use std::time::Duration;

use layercake::{
    Address, AskError, Node,
    testing::{HostId, Network, NodeId, start_in},
};
use layercake_macros::{actor, message};

#[message(reply = u64)]
struct Add {
    amount: u64,
}

#[message(reply = Result<u64, String>)]
struct AddTo {
    whom: Address<Counter>,
    amount: u64,
}

#[message]
struct TellTo {
    whom: Address<Counter>,
    amount: u64,
}

#[derive(Default)]
struct Counter {
    total: u64,
}

#[actor]
impl Counter {
    async fn add(&mut self, Add { amount }: Add) -> u64 {
        self.total += amount;
        self.total
    }

    async fn add_to(&mut self, AddTo { whom, amount }: AddTo) -> Result<u64, String> {
        whom.ask(Add { amount }).await.map_err(|error| error.to_string())
    }

    async fn tell_to(&mut self, TellTo { whom, amount }: TellTo) {
        whom.tell(Add { amount }).await.expect("relayed");
    }
}

async fn node(network: &Network) -> Node {
    start_in(network, HostId::random(), NodeId::random()).await.expect("starts")
}

#[tokio::test(start_paused = true)]
async fn the_introducer_relays_where_no_direct_way_exists() {
    let network = Network::new();
    let (a, c, d) = (node(&network).await, node(&network).await, node(&network).await);
    // A firewall between A and D.
    network.cut(a.peer().node, d.peer().node);
    let (counter, asker) = (a.spawn(Counter::default()), d.spawn(Counter::default()));
    let direct: Address<Counter> = d.bind(counter.id());
    let refused = direct.ask(Add { amount: 1 }).await.expect_err("there is no way");
    assert!(matches!(refused, AskError::Unreachable { .. }), "{refused}");

    // C knows both, and tells D's actor of A's.
    let (whom, by): (Address<Counter>, Address<Counter>) =
        (c.bind(counter.id()), c.bind(asker.id()));
    assert_eq!(by.ask(AddTo { whom: whom.clone(), amount: 3 }).await, Ok(Ok(3)));
    by.tell(TellTo { whom: whom.clone(), amount: 4 }).await.expect("there");
    assert_eq!(by.ask(AddTo { whom: whom.clone(), amount: 0 }).await, Ok(Ok(7)), "told, too");

    // What becomes of the actor is told through the relay as well.
    counter.stop();
    let _ = tokio::time::timeout(Duration::from_secs(5), a.watch(&counter)).await;
    let ended =
        by.ask(AddTo { whom, amount: 1 }).await.expect("D lives").expect_err("A's has ended");
    assert!(ended.contains("has stopped"), "{ended}");
    for node in [d, c, a] {
        node.close().await;
    }
}
