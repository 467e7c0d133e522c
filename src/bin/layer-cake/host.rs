//! `layer-cake host`: the directory of this host as a process of its own.

use clap::Args;
use layercake::prelude::*;

/// Serves the directory until it is stopped. Without it, the first program on the host that needs the
/// directory serves it from inside.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  layer-cake host &")]
pub(crate) struct Host {}

impl Host {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        if !node.directory().is_host_directory() {
            eprintln!("waiting for this host's directory to be free");
        }
        tokio::select! {
            held = node.directory().serve_host() => {
                if held {
                    crate::output::say(&format!("ready: directory of host {}", node.peer().host))?;
                }
                node.stopping().await;
            }
            () = node.stopping() => {}
        }
        Ok(())
    }
}
