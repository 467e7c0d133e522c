//! Step 2: a task is started for each request, and joined for its value.
//!
//! The task is an actor: it could be asked, watched and stopped, too.
//!
//! ```console
//! $ cargo run --release --example step_02
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

async fn texture(_: Inbox<Xy>, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
    (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
}

#[layercake::main]
async fn main(node: Node, args: Args) -> Result<()> {
    let tasks = node.clone();
    let texture = move |xy| {
        let task = tasks.launch(move |inbox| texture(inbox, xy));
        async move { Ok(task.await?) }
    };
    node.http(&args.listen).serve::<Xy>(from_fn(texture)).await?;
    Ok(())
}
