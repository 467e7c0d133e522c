//! A body of any length goes through a worker and back while it comes: neither the front door nor the
//! worker ever holds more of it than a few parts.
//!
//! ```console
//! $ cargo run --release --example cipher
//! $ curl -T film.mp4 'http://127.0.0.1:5050/cipher?key=42' -o hidden.bin
//! ```

use layercake::{Bytes, prelude::*};

/// Hides a body, or uncovers it: each byte is combined with the key.
#[message(stream = Bytes, put = "/cipher")]
struct Cipher {
    #[arg(default = 42)]
    key: u8,
    /// What is to be hidden.
    #[arg(body)]
    body: Upload,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn cipher(&mut self, Cipher { key, mut body }: Cipher, mut out: Outlet<Bytes>) {
        while let Some(part) = body.next().await {
            match part {
                Ok(part) => {
                    let hidden: Vec<u8> = part.iter().map(|byte| byte ^ key).collect();
                    if out.send(hidden.into()).await.is_err() {
                        return; // nobody takes it any more
                    }
                }
                Err(error) => return out.fail(&error.to_string()),
            }
        }
        out.finish();
    }
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5050".to_owned());
    let pool = node.pool::<Worker>().processes(2).start().await?;
    node.http(&listen).serve::<Cipher>(pool).await?;
    Ok(())
}
