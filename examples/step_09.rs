//! Step 9: a worker is found by its name, whoever starts first.
//!
//! Stop the worker and start it again: the gateway goes on with the new one.
//!
//! ```console
//! $ cargo run --release --example step_09 -- --role=worker &
//! $ cargo run --release --example step_09
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
#[derive(PartialEq)]
enum Role {
    Worker,
    Gateway,
}

#[data]
struct Args {
    #[arg(default = Role::Gateway)]
    role: Role,
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
    if args.role == Role::Worker {
        let _name = node.publish("textures:worker", &node.spawn(Worker), Scope::Host).await?;
        node.stopping().await;
        return Ok(());
    }
    let workers = node.pool::<Worker>().hosts("textures:worker", Scope::Host).start().await?;
    node.http(&args.listen).serve::<Xy>(workers).await?;
    Ok(())
}
