//! For `tests/hosts_etcd.rs`: wants to be the only holder of `crown` in the mesh, for as long as it
//! runs. It prints `held FENCE` when it is, `lost` when it is not any more, and `refused: WHY` when
//! somebody else is, once each time, and tries again.

use std::time::Duration;

use layercake::prelude::*;

#[message(reply = bool)]
struct Bow;

#[derive(Default)]
struct Monarch;

#[actor]
impl Monarch {
    async fn bow(&mut self, Bow: Bow) -> bool {
        true
    }
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let monarch = node.spawn(Monarch);
    let reign = async {
        let mut told = String::new();
        loop {
            match node.publish_exclusive("crown", &monarch, Scope::Lan).await {
                Ok(mut crown) => {
                    told.clear();
                    println!("held {}", crown.record().fence);
                    crown.lost().await;
                    println!("lost");
                }
                Err(error) => {
                    let why =
                        format!("refused: {}", layercake::error_chain(&error).replace('\n', " "));
                    if why != told {
                        println!("{why}");
                        told = why;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        () = reign => {}
        _ = node.stopping() => {}
    }
    Ok(())
}
