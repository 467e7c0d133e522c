//! Step 11: a managed end under overload: what is too much is turned away, what is under way is finished.
//!
//! ```console
//! $ cargo run --release --example step_11 -- --workers=1 --queue=1 --drain=10s
//! $ for i in 1 2 3 4 5; do curl -i 'http://127.0.0.1:5050/Xy?x=2&y=2&pause=2s' & done; kill %1
//! ```

use layercake::prelude::*;

/// A table of random numbers with `x` columns and `y` rows, after a pause.
#[message(reply = Vec<Vec<f64>>, idempotent)]
struct Xy {
    #[arg(default = 8, max = 1000)]
    x: u32,
    #[arg(default = 8, max = 1000)]
    y: u32,
    #[arg(default = Span::ZERO)]
    pause: Span,
}

#[data]
struct Args {
    #[arg(default = "127.0.0.1:5050")]
    listen: String,
    #[arg(default = 4)]
    workers: u32,
    #[arg(default = 64)]
    queue: u32,
    /// How long requests may take to finish when the program is stopped.
    #[arg(default = Span::from_secs(4))]
    drain: Span,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn texture(&mut self, Xy { x, y, pause }: Xy) -> Vec<Vec<f64>> {
        std::thread::sleep(pause.duration());
        (0..y).map(|_| (0..x).map(|_| rand::random()).collect()).collect()
    }
}

#[layercake::main]
async fn main(node: Node, args: Args) -> Result<()> {
    let pool = node.pool::<Worker>().threads(args.workers as usize).concurrency(1);
    let pool = pool.queue(args.queue as usize).start().await?;
    let door = node.http(&args.listen).configure(|door| door.drain_grace = args.drain.duration());
    door.serve::<Xy>(pool).await?;
    Ok(())
}
