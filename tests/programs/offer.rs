//! For `tests/gateway_published.rs` and `tests/hosts_gateway.rs`: a service of which no gateway has ever
//! heard, published and withdrawn at the word of a test, and a client that watches a gateway.
//!
//! It reads commands from its input, one in a line, and answers each with a line that begins with `done`:
//! - `publish VERSION NAME`: publishes an actor of version 1 or 2 LAN-wide.
//! - `withdraw NAME`.
//! - `probe ADDR PATH`: asks for a path on and on over one connection, and tells of each change as
//!   `status STATUS`.
//!
//! The last word of `done publish`, `done withdraw` and `status` is the time: microseconds since 1970, by the
//! one clock that all hosts of a lab have.

mod input;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use layercake::{Publication, prelude::*};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::MissedTickBehavior,
};

mod v1 {
    use layercake::prelude::*;

    /// Greets somebody.
    #[message(reply = String, idempotent)]
    pub(crate) struct Greet {
        pub(crate) name: String,
    }

    #[derive(Default)]
    pub(crate) struct Greeter;

    #[actor]
    impl Greeter {
        async fn greet(&mut self, Greet { name }: Greet) -> String {
            format!("hello {name}")
        }
    }
}

mod v2 {
    use layercake::prelude::*;

    /// Greets somebody, some times.
    #[message(reply = Vec<String>, idempotent, get = "/greetings/{name}")]
    pub(crate) struct Greet {
        pub(crate) name: String,
        #[arg(default = 2, max = 10)]
        pub(crate) times: u8,
    }

    #[derive(Default)]
    pub(crate) struct Greeter;

    #[actor]
    impl Greeter {
        async fn greet(&mut self, Greet { name, times }: Greet) -> Vec<String> {
            (0..times).map(|_| format!("good day {name}")).collect()
        }
    }
}

fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let mut lines = input::lines();
    println!("ready");
    let mut published: HashMap<String, Publication> = HashMap::new();
    let (one, two) = (node.spawn(v1::Greeter), node.spawn(v2::Greeter));
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = node.stopping() => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["publish", version, name] => {
                let publication = match version {
                    "1" => node.publish(name, &one, Scope::Lan).await?,
                    _ => node.publish(name, &two, Scope::Lan).await?,
                };
                published.insert(name.to_owned(), publication);
                println!("done publish {name} {}", micros());
            }
            ["withdraw", name] => {
                published.remove(name);
                println!("done withdraw {name} {}", micros());
            }
            ["probe", address, path] => {
                let stream = TcpStream::connect(address).await?;
                tokio::spawn(probe(stream, path.to_owned()));
                println!("done probe");
            }
            _ => println!("done nothing: `{line}` is no command"),
        }
    }
}

/// Asks each millisecond, one request after the other.
async fn probe(stream: TcpStream, path: String) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\n\r\n");
    let mut last = String::new();
    let mut beat = tokio::time::interval(Duration::from_millis(1));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).unwrap_or("none").to_owned();
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap_or_default();
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        if status != last {
            println!("status {status} {}", micros());
            last = status;
        }
    }
}
