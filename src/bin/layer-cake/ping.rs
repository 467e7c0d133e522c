//! `layer-cake ping`: how long the way to a host, a node or a name takes, hop by hop.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use layercake::{
    Name, Network,
    prelude::*,
    wire::id::{ActorAddr, HostId, NodeAddr, PeerId},
};
use serde::Serialize;

use crate::{
    network::{Ids, snapshot, span},
    output,
};

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);
/// Candidates that an error names.
const MAX_NAMED: usize = 8;

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 if everything answered each time, else 1.\n\n\
    Example:\n  layer-cake ping 7f3a\n  layer-cake ping textures:worker -c 10")]
pub(crate) struct Ping {
    /// A host, a node or an actor by its id, in full or the first digits (at least 4), as
    /// `layer-cake network` shows it; an actor as NODE.NUMBER; or a name, for each that publishes it.
    target: String,
    /// How many rounds.
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Print one JSON object to a line, for each target.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) seeds: crate::Seeds,
}

/// What is pinged: a host's directory, and maybe an actor there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: HostId,
    actor: Option<ActorAddr>,
}

/// A stretch of the way.
enum Hop {
    Directory(HostId),
    Node(ActorAddr),
    /// A node that does not listen for other hosts: its directory asks it.
    Relayed(PeerId),
}

/// How a hop answered.
#[derive(Serialize)]
struct Times {
    /// What answers, for people.
    hop: String,
    sent: u32,
    answered: u32,
    min_ms: Option<f64>,
    avg_ms: Option<f64>,
    max_ms: Option<f64>,
    /// Why the last one that was not answered was not.
    error: Option<String>,
    #[serde(skip)]
    total: Duration,
}

/// The JSON of a target.
#[derive(Serialize)]
struct Report {
    target: String,
    host: String,
    node: Option<String>,
    hops: Vec<Times>,
}

impl Ping {
    pub(crate) async fn run(self, node: Node) -> Result<()> {
        let network = snapshot(&node).await?;
        let targets = find(&network, &self.target)?;
        let ids = Ids::of(&network, false);
        let mut silent = 0;
        for target in &targets {
            let mut hops = vec![Hop::Directory(network.here)];
            if target.host != network.here {
                hops.push(Hop::Directory(target.host));
            }
            hops.extend(target.actor.clone().map(|actor| {
                let peer = actor.node.peer;
                let far = peer.host != network.here && actor.node.hints.is_empty();
                if far { Hop::Relayed(peer) } else { Hop::Node(actor) }
            }));
            let names = hops.iter().map(|hop| name_of(&network, ids, hop));
            let mut all: Vec<_> = names.map(Times::new).collect();
            if !self.json {
                output::say(&format!("PING {} by way of {} hops", shown(ids, target), all.len()))?;
            }
            for round in 0..self.count {
                if round > 0 {
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        () = node.stopping() => break,
                    }
                }
                let mut line = format!("[{round}]");
                for (hop, times) in hops.iter().zip(&mut all) {
                    let answer = match hop {
                        Hop::Directory(host) => {
                            node.directory().ping(*host).await.map_err(|error| error.to_string())
                        }
                        Hop::Relayed(peer) => {
                            let answer = node.directory().ping_node(*peer).await;
                            answer.map_err(|error| error.to_string())
                        }
                        Hop::Node(actor) => {
                            node.ping(actor).await.map_err(|error| error.to_string())
                        }
                    };
                    let text = match &answer {
                        Ok(time) => format!("{:.2}ms", ms(*time)),
                        Err(error) => error.clone(),
                    };
                    line = format!("{line}  {}: {text}", times.hop);
                    times.add(answer);
                }
                if !self.json {
                    output::say(&line)?;
                }
            }
            silent += all.iter().filter(|times| times.answered < times.sent).count();
            let missed = all.iter().any(|times| times.sent == 0);
            silent += usize::from(missed);
            for times in &all {
                if !self.json {
                    output::say(&times.line())?;
                }
            }
            let (host, peer) = (target.host.to_string(), target.actor.as_ref());
            let node = peer.map(|actor| actor.node.peer.node.to_string());
            if self.json {
                let report = Report { target: self.target.clone(), host, node, hops: all };
                output::record(true, &report, "")?;
            }
        }
        if silent > 0 {
            return Err(format!("`{}` did not answer everything", self.target).into());
        }
        Ok(())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Times {
    fn new(hop: String) -> Self {
        Self {
            hop,
            sent: 0,
            answered: 0,
            min_ms: None,
            avg_ms: None,
            max_ms: None,
            error: None,
            total: Duration::ZERO,
        }
    }

    fn add(&mut self, answer: Result<Duration, String>) {
        self.sent += 1;
        match answer {
            Ok(time) => {
                self.answered += 1;
                self.total += time;
                let time = ms(time);
                self.min_ms = Some(self.min_ms.map_or(time, |min| min.min(time)));
                self.max_ms = Some(self.max_ms.map_or(time, |max| max.max(time)));
                self.avg_ms = Some(ms(self.total) / f64::from(self.answered));
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn line(&self) -> String {
        let Self { hop, sent, answered, .. } = self;
        let times = match (self.min_ms, self.avg_ms, self.max_ms) {
            (Some(min), Some(avg), Some(max)) => {
                format!(", min/avg/max {min:.2}/{avg:.2}/{max:.2} ms")
            }
            _ => String::new(),
        };
        let error = self.error.as_ref().map_or(String::new(), |error| format!(" ({error})"));
        format!("{hop}: {answered} of {sent} answered{times}{error}")
    }
}

fn shown(ids: Ids, target: &Target) -> String {
    let host = ids.show(target.host);
    match &target.actor {
        Some(actor) => format!("{}@{host}", ids.show(actor.node.peer.node)),
        None => host,
    }
}

fn name_of(network: &Network, ids: Ids, hop: &Hop) -> String {
    let text = match hop {
        Hop::Directory(host) => {
            let known = network.hosts.iter().find(|known| known.host == *host);
            let name = known.map_or("", |known| &known.name);
            format!("directory of {name} ({})", ids.show(host))
        }
        Hop::Node(actor) => format!("node {}", ids.show(actor.node.peer.node)),
        Hop::Relayed(peer) => format!("node {} through its directory", ids.show(peer.node)),
    };
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Finds what an id or a name stands for.
fn find(network: &Network, text: &str) -> Result<Vec<Target>, String> {
    let mut found = Vec::new();
    let mut shown = BTreeSet::new();
    if let Some(id) = Id::read(text) {
        for host in &network.hosts {
            if id.is_host(host.host) {
                found.push(Target { host: host.host, actor: None });
                shown.insert(format!("host {} ({})", host.host, host.name));
            }
        }
        for (host, node) in network.nodes() {
            if id.is_node(host.host, &node.node.to_string()) {
                let peer = PeerId { host: host.host, node: node.node };
                let addr = NodeAddr::new(peer, &node.addresses);
                let actor = ActorAddr { node: addr, serial: id.serial.unwrap_or(0) };
                found.push(Target { host: host.host, actor: Some(actor) });
                shown.insert(format!("node {} on {}", node.node, host.name));
            }
        }
    }
    let by_id = found.len();
    if let Ok(name) = text.parse::<Name>() {
        for (host, node) in network.nodes() {
            for record in node.published.iter().filter(|r| r.name == name && !r.waiting) {
                // What others have within their host or process is not for this one.
                let near = host.host == network.here;
                if record.scope < Scope::Lan && !(near && record.scope >= Scope::Host) {
                    continue;
                }
                let peer = PeerId { host: host.host, node: node.node };
                let addr = NodeAddr::new(peer, &node.addresses);
                let actor = ActorAddr { node: addr, serial: record.actor };
                found.push(Target { host: host.host, actor: Some(actor) });
                shown.insert(format!("name {name}"));
            }
        }
    }
    if found.is_empty() {
        let missing = network.missing().map(|host| {
            let ago = span(network.at.saturating_sub(host.since));
            format!("\n  {} ({}): {} {ago} ago", host.name, host.host.short(), host.state)
        });
        let missing: String = missing.take(MAX_NAMED).collect();
        let missing = match &missing[..] {
            "" => String::new(),
            hosts => format!("\n\nnot asked, since they are missing:{hosts}"),
        };
        return Err(format!(
            "there is no host or node `{text}`, and nobody publishes such a name{missing}\n\nhint: `layer-cake network --published` shows what there is"
        ));
    }
    if by_id > 1 || (by_id == 1 && found.len() > 1) {
        let all: Vec<_> = shown.into_iter().take(MAX_NAMED).collect();
        return Err(format!(
            "`{text}` may be one of several\n  {}\n\nhint: give more digits, or an id in full",
            all.join("\n  ")
        ));
    }
    Ok(found)
}

/// An id as it was typed: the first digits, of an actor with its host or number.
struct Id<'a> {
    digits: &'a str,
    host: Option<&'a str>,
    serial: Option<u64>,
}

impl<'a> Id<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (text, serial) = match text.split_once('.') {
            Some((id, serial)) => (id, Some(serial.parse().ok()?)),
            None => (text, None),
        };
        let (digits, host) = match text.split_once('@') {
            Some((node, host)) => (node, Some(host)),
            None => (text, None),
        };
        let is_id = |text: &str| {
            (4..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let good = is_id(digits) && host.is_none_or(is_id);
        good.then_some(Self { digits, host, serial })
    }

    fn begins(digits: &str, id: &str) -> bool {
        id.starts_with(&digits.to_ascii_lowercase())
    }

    fn is_host(&self, host: HostId) -> bool {
        self.host.is_none() && self.serial.is_none() && Self::begins(self.digits, &host.to_string())
    }

    fn is_node(&self, host: HostId, node: &str) -> bool {
        Self::begins(self.digits, node)
            && self.host.is_none_or(|digits| Self::begins(digits, &host.to_string()))
    }
}
