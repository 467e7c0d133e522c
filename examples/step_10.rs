//! Step 10: workers of all hosts of the LAN, found by a pattern.
//!
//! Run it on each host of a mesh (`layer-cake mesh invite`): each serves with the workers of all.
//!
//! ```console
//! $ cargo run --release --example step_10
//! $ curl 'http://127.0.0.1:5050/Xy?x=2&y=2'
//! ```

use layercake::prelude::*;

/// A table of random numbers with `x` columns and `y` rows.
#[message(reply = Vec<Vec<f64>>, idempotent)]
struct Xy {
    #[arg(default = 8, max = 1000)]
    x: u32,
    #[arg(default = 8, max = 1000)]
    y: u32,
}

#[data]
struct Args {
    #[arg(default = "127.0.0.1:5050")]
    listen: String,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn texture(&mut self, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
        (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
    }
}

#[layercake::main]
async fn main(node: Node, args: Args) -> Result<()> {
    let name = format!("textures:worker:{}", node.peer().host);
    let own = node.pool::<Worker>().processes(4).publish(&name, Scope::Lan);
    let _own = own.start().await?;
    let workers = node.pool::<Worker>().hosts("textures:worker:.*", Scope::Lan).start().await?;
    node.http(&args.listen).serve::<Xy>(workers).await?;
    Ok(())
}
