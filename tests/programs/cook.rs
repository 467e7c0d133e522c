//! A program with arguments, a result, and actors that other programs start as processes.

mod kitchen;

use layercake::prelude::*;

#[data]
struct Place {
    table: u32,
    seat: u32,
}

/// Adds two numbers after a while.
#[data]
struct Order {
    /// The first number.
    x: i64,
    #[arg(default = 2, max = 100)]
    y: i64,
    #[arg(default = Span::ZERO)]
    pause: Span,
    #[arg(default = vec![])]
    sizes: Vec<f64>,
    #[arg(default = None)]
    place: Option<Place>,
    #[arg(default)]
    fail: bool,
}

#[data]
struct Served {
    sum: i64,
    pause: Span,
    sizes: Vec<f64>,
    seat: Option<u32>,
}

#[layercake::main]
async fn main(_: Node, order: Order) -> Result<Served> {
    let Order { x, y, pause, sizes, place, fail } = order;
    if fail {
        std::fs::read("/no/such/recipe")?;
    }
    Ok(Served { sum: x + y, pause, sizes, seat: place.map(|place| place.seat) })
}
