//! Step 8: a pool of processes; one that dies is replaced.
//!
//! ```console
//! $ cargo run --release --example step_08
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
    let workers = node.pool::<Worker>().processes(4).start().await?;
    node.http(&args.listen).serve::<Xy>(workers).await?;
    Ok(())
}
