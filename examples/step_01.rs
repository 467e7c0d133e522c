//! Step 1: a function is called for each request.
//!
//! While it computes, the thread of its connection does nothing else.
//!
//! ```console
//! $ cargo run --release --example step_01
//! $ curl 'http://127.0.0.1:5050/Xy?x=2&y=2'
//! ```

use layercake::{prelude::*, service::from_fn};

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

async fn texture(Xy { x, y }: Xy) -> Result<Vec<Vec<f64>>, AskError> {
    Ok((0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect())
}

#[layercake::main]
async fn main(node: Node, args: Args) -> Result<()> {
    node.http(&args.listen).serve::<Xy>(from_fn(texture)).await?;
    Ok(())
}
