//! `layer-cake ls`: what is published, now or as it changes.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use clap::Args;
use layercake::{Record, prelude::*};
use serde::Serialize;

use crate::{Reach, output};

/// After so long without news the list is complete.
const QUIET: Duration = Duration::from_millis(300);
/// The same where no directory ran on this host: other hosts have to be found first.
const QUIET_ALONE: Duration = Duration::from_millis(2500);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  layer-cake ls 'textures:.*'\n  layer-cake ls --watch --json")]
pub(crate) struct Ls {
    /// A regular expression over whole names.
    #[arg(default_value = ".*")]
    pattern: String,
    /// How far to look.
    #[arg(long, value_enum, default_value_t = Reach::Lan)]
    scope: Reach,
    /// Go on, and print each change as it happens.
    #[arg(long)]
    watch: bool,
    /// Print one JSON object to a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

/// One line of the list.
#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u128>,
    name: String,
    scope: String,
    host: String,
    node: String,
    exclusive: bool,
}

impl Row {
    fn new(record: &Record) -> Self {
        let peer = record.address.node.peer;
        Self {
            event: None,
            reason: None,
            at: None,
            name: record.name.to_string(),
            scope: record.scope.to_string(),
            host: peer.host.to_string(),
            node: peer.node.to_string(),
            exclusive: record.exclusive,
        }
    }

    fn text(&self) -> String {
        let (host, node) = (&self.host[..4], &self.node[..4]);
        let event = self.event.map_or(String::new(), |event| format!("{event:<10}"));
        let reason = self.reason.as_deref().unwrap_or_default();
        format!("{event}{:<32} {:<6} {host:<5} {node:<5} {reason}", self.name, self.scope)
            .trim_end()
            .to_owned()
    }
}

impl Ls {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        let scope = self.scope.into();
        let mut subscription = node.subscribe(&self.pattern, scope).await?;
        if self.watch {
            loop {
                let event = tokio::select! {
                    event = subscription.next() => event,
                    () = node.stopping() => None,
                };
                let (kind, record, reason) = match event {
                    Some(Event::Available(record)) => ("available", record, None),
                    Some(Event::Dropped(record, reason)) => {
                        ("dropped", record, Some(reason.to_string()))
                    }
                    None => return Ok(()),
                };
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                let row = Row {
                    event: Some(kind),
                    reason,
                    at: Some(now.as_millis()),
                    ..Row::new(&record)
                };
                output::record(self.json, &row, &row.text())?;
            }
        }
        let mut found = BTreeMap::new();
        loop {
            let alone = matches!(scope, Scope::Lan) && node.directory().is_host_directory();
            let quiet = if alone { QUIET_ALONE } else { QUIET };
            let Ok(Some(event)) = tokio::time::timeout(quiet, subscription.next()).await else {
                break;
            };
            match event {
                Event::Available(record) => {
                    found.insert((record.name.to_string(), record.instance), record);
                }
                Event::Dropped(record, _) => {
                    found.remove(&(record.name.to_string(), record.instance));
                }
            }
        }
        if !self.json && !found.is_empty() {
            output::say(&format!("{:<32} {:<6} {:<5} NODE", "NAME", "SCOPE", "HOST"))?;
        }
        for record in found.values() {
            let row = Row::new(record);
            output::record(self.json, &row, &row.text())?;
        }
        Ok(())
    }
}
