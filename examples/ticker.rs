//! A reply in parts that goes on for as long as somebody listens: as lines, as events, or over a
//! WebSocket.
//!
//! ```console
//! $ cargo run --release --example ticker
//! $ curl -N 'http://127.0.0.1:5050/ticks?every_ms=500'
//! $ curl -N -H 'accept: text/event-stream' 'http://127.0.0.1:5050/ticks'
//! ```
//! In a browser: `new EventSource("/ticks")`, or `new WebSocket("ws://127.0.0.1:5050/ticks")`.

use std::time::Duration;

use layercake::prelude::*;

/// Tells the time that has gone by.
#[message(stream = Tick, get = "/ticks")]
struct Ticks {
    /// The pause between two ticks, in milliseconds.
    #[arg(default = 1000, min = 1, max = 60_000)]
    every_ms: u64,
    /// How many there are; without it there is no end.
    #[arg(default)]
    count: Option<u32>,
}

#[data]
struct Tick {
    number: u32,
    millis: u64,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn ticks(&mut self, Ticks { every_ms, count }: Ticks, out: Outlet<Tick>) {
        // The actor goes on to the next who asks.
        tokio::spawn(tick(Duration::from_millis(every_ms), count.unwrap_or(u32::MAX), out));
    }
}

async fn tick(every: Duration, count: u32, mut out: Outlet<Tick>) {
    let begun = tokio::time::Instant::now();
    let mut interval = tokio::time::interval(every);
    for number in 0..count {
        tokio::select! {
            _ = interval.tick() => {}
            () = out.unwanted() => return,
        }
        let millis = begun.elapsed().as_millis() as u64;
        if out.send(Tick { number, millis }).await.is_err() {
            return;
        }
    }
    out.finish();
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5050".to_owned());
    let pool = node.pool::<Worker>().processes(2).start().await?;
    node.http(&listen).serve::<Ticks>(pool).await?;
    Ok(())
}
