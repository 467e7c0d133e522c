//! Step 5: a process is started for each request, and joined for its value.
//!
//! It is this very program, which becomes `Texture` instead of calling `main`: one that crashes takes
//! nothing along.
//!
//! ```console
//! $ cargo run --release --example step_05
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

#[entry(Texture)]
async fn texture(_: Inbox<Xy>, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
    (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
}

#[layercake::main]
async fn main(node: Node, args: Args) -> Result<()> {
    let processes = node.clone();
    let texture = move |xy| {
        let process = processes.process::<Texture>(xy);
        async move { Ok(process.launch().await?.await?) }
    };
    node.http(&args.listen).serve::<Xy>(from_fn(texture)).await?;
    Ok(())
}
