//! For `tests/hosts_etcd.rs`: wants to be the only holder of `crown` in the mesh, for as long as it
//! runs. It prints `held FENCE` when it is, `lost` when it is not any more, and `refused: WHY` when
//! somebody else is; then it gets in line.

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
        loop {
            let mut crown = match node.publish_exclusive("crown", &monarch, Scope::Lan).await {
                Ok(crown) => crown,
                Err(error) => {
                    println!("refused: {}", layercake::error_chain(&error).replace('\n', " "));
                    node.claim("crown", &monarch, Scope::Lan).await?.granted().await?
                }
            };
            println!("held {}", crown.record().fence);
            crown.lost().await;
            println!("lost");
        }
    };
    tokio::select! {
        ended = reign => ended,
        _ = node.stopping() => Ok(()),
    }
}
