//! `layer-cake gateway`: the HTTP front door of a mesh, which learns what there is to serve from what is
//! published.

use clap::Args;
use layercake::prelude::*;

use crate::{Reach, front::Front, output::say};

/// Serves every published actor that answers messages, from the moment its name is published until it is
/// withdrawn, without having to know its types: `GET /Message?x=2`, `POST /Message` with JSON, the forms
/// that a message declares, and `/NAME/Message` where several names have the same message. What there is
/// stands at `/openapi.json`, and at `/docs` to read and try.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  layer-cake gateway --listen 0.0.0.0:8080 --names 'textures:.*'\n  curl http://127.0.0.1:8080/openapi.json"
)]
pub(crate) struct Gateway {
    /// Which names to serve: a regular expression over whole names.
    #[arg(long, value_name = "PATTERN", default_value = ".*")]
    names: String,
    /// Which of these not to serve.
    #[arg(long, value_name = "PATTERN")]
    except: Option<String>,
    /// How far to look.
    #[arg(long, value_enum, default_value_t = Reach::Lan)]
    scope: Reach,
    #[command(flatten)]
    front: Front,
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

impl Gateway {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        let allowed = Allowed { names: self.names, except: self.except, scope: self.scope.into() };
        let door = self.front.of(&node)?.bind_published(&allowed).await?;
        // It listens; what there is to serve comes and goes, which `/readyz` tells.
        say(&format!("ready: {}://{}", door.scheme(), door.local_addr()))?;
        let _ = door.run().await;
        Ok(())
    }
}
