//! `layer-cake network`: the mesh from where one stands, as a tree, as JSON, and as it changes.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use layercake::{Network as Snapshot, NetworkChange, NetworkEvent, Route, prelude::*};
use serde::Serialize;

use crate::output;

mod tree;
pub(crate) use tree::{Ids, clock, span};

/// How long other hosts have to be found where no directory ran on this host before.
const ALONE: Duration = Duration::from_millis(2500);

#[derive(Debug, Args)]
#[command(
    after_help = "Marks:\n  # published   ? subscribed   > route, subscriber to publisher   = link\n\n\
    Example:\n  layer-cake network --published --sessions\n  layer-cake network --json | jq '.hosts[] | {name, state}'"
)]
pub(crate) struct Network {
    #[command(flatten)]
    lists: Lists,
    /// Go on, and print each change as it happens, one to a line, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Print one JSON object with everything that is known; with --watch, one for each change too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

/// What is shown beside hosts and processes.
#[derive(Debug, Clone, Copy, Args)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
pub(crate) struct Lists {
    /// List what each process has published.
    #[arg(long)]
    published: bool,
    /// List what each process has subscribed to.
    #[arg(long)]
    subscribed: bool,
    /// List who found whom: each subscription with what it sees.
    #[arg(long)]
    routes: bool,
    /// List the links of each process.
    #[arg(long)]
    sessions: bool,
    /// Show where hosts and processes are reached.
    #[arg(long)]
    addresses: bool,
    /// Show identities in full.
    #[arg(long)]
    full_ids: bool,
}

/// The JSON of a snapshot.
#[derive(Serialize)]
struct Json<'a> {
    mesh: &'a str,
    #[serde(flatten)]
    network: &'a Snapshot,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<Route>>,
}

impl Network {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        // Before the snapshot, so that nothing is missed between the two.
        let mut events = self.watch.then(|| node.network_events());
        let mut network = self.show(&node).await?;
        let Some(events) = &mut events else { return Ok(()) };
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = node.stopping() => None,
            };
            let Some(event) = event else { return Ok(()) };
            // What it has begun with is in the snapshot.
            let old = event.event == NetworkChange::Missed && event.at <= network.at;
            if old || event.node == Some(node.peer().node) {
                continue;
            }
            let line = line(&event, self.lists.full_ids);
            output::record(self.json, &event, &line)?;
            if event.event == NetworkChange::Missed {
                network = self.show(&node).await?;
            }
        }
    }

    async fn show(&self, node: &Node) -> Result<Snapshot> {
        let network = snapshot(node).await?;
        let mesh = &*node.mesh().id().name;
        if self.json {
            let routes = self.lists.routes.then(|| network.routes());
            output::record(true, &Json { mesh, network: &network, routes }, "")?;
        } else {
            let colours = std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let text = tree::draw(&network, mesh, node.peer(), self.lists, colours);
            output::say(text.trim_end())?;
        }
        Ok(network)
    }
}

/// The mesh, once others have had the time to be found.
pub(crate) async fn snapshot(node: &Node) -> Result<Snapshot> {
    let network = node.network().await?;
    if !node.directory().is_host_directory() {
        return Ok(network);
    }
    tokio::select! {
        () = tokio::time::sleep(ALONE) => {}
        () = node.stopping() => {}
    }
    Ok(node.network().await?)
}

/// An event for people.
fn line(event: &NetworkEvent, full_ids: bool) -> String {
    let short = |id: String| if full_ids { id } else { id[..4].to_owned() };
    let host = short(event.host.to_string());
    let mut words = vec![clock(event.at), format!("{:<10}", event.event)];
    words.push(match &event.host_name[..] {
        "" => host,
        name => format!("{name} ({host})"),
    });
    words.extend(event.node.map(|node| short(node.to_string())));
    words.extend(event.name.as_ref().map(ToString::to_string));
    words.extend(event.reason.as_ref().map(|reason| format!("({reason})")));
    let mut line = words.join("  ");
    line.retain(|c| !c.is_control());
    line
}

#[cfg(test)]
mod tests {
    use layercake::wire::id::{HostId, NodeId};

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = NetworkEvent {
            at: 1_700_000_000_000,
            event: NetworkChange::Withdrawn,
            host: HostId::from_bits(0x7f3a << 48),
            host_name: "rack1\u{1b}[31m".to_owned(),
            node: Some(NodeId::from_bits(0x02bc << 48)),
            name: Some("a:b".parse().unwrap()),
            serial: Some(1),
            reason: Some("process died".to_owned()),
        };
        assert_eq!(
            line(&event, false),
            "22:13:20Z  withdrawn   rack1[31m (7f3a)  02bc  a:b  (process died)"
        );
    }
}
