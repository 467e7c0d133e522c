//! Step 6: an actor starts a process for each request, and goes on with the next meanwhile.
//!
//! It counts them; the processes of `ctx.run` are forgotten when it ends.
//!
//! ```console
//! $ cargo run --release --example step_06
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

#[entry(Texture)]
async fn texture(_: Inbox<Xy>, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
    (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
}

#[derive(Default)]
struct Front {
    requests: u64,
}

#[actor]
impl Front {
    async fn texture(&mut self, xy: Xy, ctx: &mut Context<Self>, reply: Reply<Vec<Vec<f64>>>) {
        self.requests += 1;
        let process = ctx.node().process::<Texture>(xy);
        ctx.run(async move {
            let table = async { Ok(process.launch().await?.await?) };
            reply.settle(table.await);
        });
    }
}

#[layercake::main]
async fn main(node: Node, args: Args) -> Result<()> {
    let front = node.spawn(Front::default());
    node.http(&args.listen).serve::<Xy>(front).await?;
    Ok(())
}
