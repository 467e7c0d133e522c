//! `layer-cake host`: the directory of this host as a process of its own.

use std::{pin::pin, time::Duration};

use clap::Args;
use layercake::{TroubleKind, prelude::*};

/// Serves the directory until it is stopped. Without it, the first program on the host that needs the
/// directory serves it from inside; when this is started, that one hands over.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  layer-cake host &")]
pub(crate) struct Host {
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

/// After so long without it the directory is another daemon's.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why this process is not the directory.
fn reason(node: &Node) -> String {
    let troubles = node.directory().troubles();
    let seat = troubles.into_iter().find(|trouble| trouble.kind == TroubleKind::Seat);
    seat.map_or_else(
        || "another `layer-cake host` serves this host's directory; its end is awaited".to_owned(),
        |trouble| format!("{}; {}", trouble.why, trouble.kind.meanwhile()),
    )
}

impl Host {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        let mut serving = pin!(node.directory().serve_host());
        let held = tokio::select! {
            held = &mut serving => held,
            () = node.stopping() => return Ok(()),
            () = tokio::time::sleep(PATIENCE) => {
                eprintln!("waiting: {}", reason(&node));
                tokio::select! {
                    held = &mut serving => held,
                    () = node.stopping() => return Ok(()),
                }
            }
        };
        if held {
            crate::output::say(&format!("ready: directory of host {}", node.peer().host))?;
        }
        node.stopping().await;
        Ok(())
    }
}
