//! Step 7: one worker process, which is asked over a link.
//!
//! Its address is like any other; its end is told as any other.
//!
//! ```console
//! $ cargo run --release --example step_07
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
    let workers = node.process::<Worker>(Default::default()).launch().await?;
    node.http(&args.listen).serve::<Xy>(workers).await?;
    Ok(())
}
