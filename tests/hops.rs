//! An address that has gone through three processes works in the fourth, which has never met its actor; and
//! when that actor's process is killed, the fourth hears of it.

#[allow(dead_code, clippy::needless_pass_by_value)]
#[path = "programs/hops.rs"]
mod program;
mod support;

use std::time::{Duration, Instant};

use layercake::{Address, AnyAddress, Node, NodeConfig};
use program::{AskIt, Count, HandOn, Pid, Station, Take, WatchIt};
use support::{Folders, built, kill_9};

#[tokio::test]
async fn an_address_hops_from_a_to_d_and_the_death_of_a_is_heard_there() {
    let folders = Folders::new();
    let mesh = Some(folders.mesh("host"));
    let node =
        Node::start_with(NodeConfig { mesh, ..NodeConfig::default() }).await.expect("a node");
    let binary = built("hops");
    let mut stations = Vec::new();
    let mut running = Vec::new();
    for _ in 0..4 {
        let launched = node.launch_entry(&binary, "Station", serde_json::Value::Null).await;
        let (address, process) = launched.expect("a process");
        stations.push(address.cast::<Station>());
        running.push(process);
    }
    let [a, b, c, d]: [Address<Station>; 4] = stations.try_into().expect("four");

    // A's address goes to B, from there to C, from there to D.
    let any = |address: &Address<Station>| -> AnyAddress { address.any() };
    b.tell(Take { whom: any(&a) }).await.expect("there");
    for (from, to) in [(&b, &c), (&c, &d)] {
        from.ask(HandOn { to: any(to) }).await.expect("handed on");
    }
    assert_eq!(d.ask(AskIt {}).await, Ok(Ok(1)), "D asks A");
    assert_eq!(a.ask(Count {}).await, Ok(2), "it was that very actor");

    let pid = a.ask(Pid {}).await.expect("a process id");
    let watching = tokio::spawn({
        let d = d.clone();
        async move { d.ask(WatchIt {}).await }
    });
    // D answers in order: when it has answered this, the watch has begun.
    assert_eq!(d.ask(AskIt {}).await, Ok(Ok(3)));
    kill_9(pid);
    let killed = Instant::now();
    let ended = watching.await.expect("no panic").expect("an answer");
    let heard = killed.elapsed();
    assert!(ended.contains("process died"), "{ended}");
    let refused = d.ask(AskIt {}).await.expect("D lives").expect_err("A does not");
    let asked = killed.elapsed();
    assert!(refused.contains("has stopped"), "{refused}");
    println!("heard after {heard:?}, an ask refused after {asked:?}");
    assert!(asked < Duration::from_secs(1), "heard after {heard:?}, asked after {asked:?}");
    node.close().await;
}
