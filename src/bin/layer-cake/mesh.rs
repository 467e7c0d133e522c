//! `layer-cake mesh`: which hosts belong together, and how another one comes in.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use layercake::{
    Agent, Listen, Node, Result,
    wire::{
        id::{NodeId, PeerId},
        trust::{self, InviteState, Token},
    },
};

use crate::output;

/// The UDP port of a host directory, which an invitation uses too when nothing else runs.
const PORT: u16 = layercake::DEFAULT_PORT;
/// How long one node of this host may take to say where it listens.
const LISTEN_TIME: Duration = Duration::from_secs(2);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Subcommand)]
pub(crate) enum Mesh {
    /// Make a new mesh on this host (also done silently on first use).
    Init(Init),
    /// Print a token with which one more host can join; it works once.
    #[command(
        after_help = "Example:\n  layer-cake mesh invite\n  layer-cake mesh join lc1-...   # on the other host"
    )]
    Invite(Invite),
    /// Join the mesh of the host where the token was made.
    Join(Join),
    /// Say which mesh this host belongs to.
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The name of the mesh: lower-case letters, digits and dashes.
    #[arg(long)]
    name: Option<String>,
    /// Print what `show` prints, as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// For how long the token works, such as 30m or 1h30m.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    expires: Duration,
    /// Serve the token from this command until it is used or has expired; needed when no other
    /// layer-cake program runs on this host.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// What `layer-cake mesh invite` printed.
    token: String,
    /// What people call this host; its host name unless given.
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
    /// Print what `show` prints, as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Reads a time span such as `250ms`, `2.5s`, `1m30s`.
fn span(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    Duration::try_from(span).map_err(|_| "a time span cannot be negative".to_owned())
}

/// Writes a time span in the same form.
fn show_span(span: Duration) -> String {
    if span > 2 * DAY {
        return format!("{} days", span.as_secs() / DAY.as_secs());
    }
    let span = jiff::SignedDuration::try_from(Duration::from_secs(span.as_secs()));
    span.map_or_else(|_| "for ever".to_owned(), |span| format!("{span:#}"))
}

impl Mesh {
    pub(crate) fn run(self) -> ExitCode {
        let folder = match trust::Mesh::default_folder() {
            Ok(folder) => folder,
            Err(error) => return fail(&error.into()),
        };
        match self {
            Self::Invite(invite) => layercake::run_main(async move |node| invite.run(node).await),
            Self::Init(init) => end(init.run(folder)),
            Self::Show(show) => end(show.run(folder)),
            Self::Join(join) => end(join.run(folder)),
        }
    }
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &layercake::Error) -> ExitCode {
    eprintln!("error: {}", layercake::error_chain(&**error));
    ExitCode::FAILURE
}

impl Init {
    fn run(self, folder: PathBuf) -> Result<()> {
        let mesh = trust::Mesh::init(&folder, self.name.as_deref())?;
        let text = format!("made mesh `{}` in {}", mesh.id().name, folder.display());
        output::record(self.json, &mesh.facts()?, &text)?;
        Ok(())
    }
}

impl Show {
    fn run(self, folder: PathBuf) -> Result<()> {
        let facts = trust::Mesh::open(&folder)?.facts()?;
        let left = Duration::from_secs(facts.host_expires)
            .saturating_sub(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
        let text = format!(
            "mesh         {}\nfingerprint  {}\nhost         {} ({})\nfolder       {}\nCA key       {}\ncertificate  valid for another {}\ninvites      {} open",
            facts.mesh,
            facts.fingerprint,
            facts.host,
            facts.host_name,
            facts.folder.display(),
            if facts.holds_ca_key {
                "here: this host can invite others"
            } else {
                "on another host"
            },
            show_span(left),
            facts.open_invites,
        );
        output::record(self.json, &facts, &text)?;
        Ok(())
    }
}

impl Join {
    fn run(self, folder: PathBuf) -> Result<()> {
        let token: Token = self.token.parse()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let joining = trust::join(&token, &folder, self.host_name.as_deref());
        let mesh = runtime.block_on(joining)?;
        let text = format!(
            "joined mesh `{}` as host {} ({})",
            mesh.id().name,
            mesh.host(),
            mesh.host_name()
        );
        output::record(self.json, &mesh.facts()?, &text)?;
        Ok(())
    }
}

impl Invite {
    async fn run(self, node: Node) -> Result<()> {
        let mesh = node.mesh().clone();
        let mut addrs = ask_neighbours(&node).await;
        if self.wait {
            let own = node.endpoint().listen_quic(Some(PORT)).await?;
            addrs.splice(0..0, own.hints.iter().copied());
        }
        if addrs.is_empty() {
            return Err("no layer-cake program runs on this host that could answer the joining host\n\nhint: start one (`layer-cake host`), or serve the token from here with `layer-cake mesh invite --wait`".into());
        }
        addrs.truncate(layercake::wire::id::MAX_HINTS);
        let token = mesh.invite(self.expires, &addrs)?;
        output::say(&token.to_string())?;
        if !self.wait {
            return Ok(());
        }
        eprintln!("waiting for the host to join (the token works for {})", show_span(self.expires));
        loop {
            match mesh.invite_state(token.invite)? {
                InviteState::Used => break,
                InviteState::Expired => return Err("the token has expired unused".into()),
                InviteState::Open => {}
            }
            tokio::select! {
                () = node.stopping() => return Err("stopped before the token was used".into()),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        // The answer is still on its way to the host.
        tokio::time::sleep(Duration::from_millis(300)).await;
        eprintln!("a host has joined");
        Ok(())
    }
}

/// Asks every node that runs on this host to listen for other hosts, and where.
async fn ask_neighbours(node: &Node) -> Vec<std::net::SocketAddr> {
    let Ok(folder) = node.mesh().runtime_folder() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut addrs = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let neighbour = name
            .to_str()
            .and_then(|name| name.strip_suffix(".sock"))
            .and_then(|id| id.parse::<NodeId>().ok())
            .filter(|id| *id != node.peer().node);
        let Some(neighbour) = neighbour else { continue };
        let peer = PeerId { host: node.peer().host, node: neighbour };
        let agent = node.bind::<Agent>(Agent::address(peer));
        // A node that has ended, or hangs, is no help.
        if let Ok(found) = agent.ask_within(Listen {}, LISTEN_TIME).await {
            addrs.extend(found);
        }
    }
    addrs
}
