//! The `layer-cake` command line: the demo, the gateway, the host directory, the mesh, what is published, who is
//! there and answers, and the actors of other programs.
//!
//! Each command is a module; this file reads the arguments and turns a failure into a message and an
//! exit status. Data goes to stdout, everything else to stderr.

mod actor;
mod demo;
mod front;
mod gateway;
mod host;
mod ls;
mod mesh;
mod network;
mod output;
mod ping;
mod pool;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use layercake::{Node, NodeConfig, Outcome, Scope};

/// Actors that find each other by name, in pools that spread over tasks, processes and hosts.
#[derive(Debug, Parser)]
#[command(name = "layer-cake", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve tables of random numbers over HTTP from a pool of workers.
    Demo(demo::Demo),
    /// Serve over HTTP whatever is published, as it comes and goes.
    Gateway(gateway::Gateway),
    /// Serve the directory of this host, in the foreground.
    Host(host::Host),
    /// Make, show or join a mesh.
    #[command(subcommand)]
    Mesh(mesh::Mesh),
    /// List what is published.
    Ls(ls::Ls),
    /// Show the whole mesh: its hosts and their processes, who publishes, asks and is linked, and
    /// which hosts are missing since when.
    Network(network::Network),
    /// Time round trips to a host, a node or those that publish a name, hop by hop.
    Ping(ping::Ping),
    /// Show pools: their workers, what these do, and what was turned away.
    Pool(pool::Pool),
    /// Say what a program takes, and which actors it can be started as.
    Describe(actor::Describe),
    /// Start a process as one of a program's actors, and print what it leaves as JSON.
    Actor(actor::Start),
}

fn main() -> ExitCode {
    layercake::log_to_stderr();
    if let Some(code) = layercake::run_as_worker() {
        return code;
    }
    match Arguments::parse().command {
        Command::Demo(command) => {
            let (seeds, has_handlers) = (command.seeds.clone(), command.has_handlers());
            let run = async move |node| command.run(node).await;
            if has_handlers { with_node(seeds, run) } else { as_front(seeds, run) }
        }
        Command::Gateway(command) => {
            as_front(command.seeds.clone(), async move |node| command.run(node).await)
        }
        Command::Host(command) => {
            with_node(command.seeds.clone(), async move |node| command.run(node).await)
        }
        Command::Ls(command) => {
            with_node(command.seeds.clone(), async move |node| command.run(node).await)
        }
        Command::Network(command) => {
            with_node(command.seeds.clone(), async move |node| command.run(node).await)
        }
        Command::Ping(command) => {
            with_node(command.seeds.clone(), async move |node| command.run(node).await)
        }
        Command::Pool(command) => {
            with_node(command.seeds.clone(), async move |node| command.run(node).await)
        }
        Command::Mesh(command) => command.run(),
        Command::Describe(command) => command.run(),
        Command::Actor(command) => command.run(),
    }
}

/// Where other hosts may be, for networks without multicast.
#[derive(Debug, Clone, Args)]
struct Seeds {
    /// Look for other hosts there, too; may be given several times. Also: `LAYERCAKE_SEEDS`, and the
    /// file `seeds` in the mesh folder.
    #[arg(long = "seed", value_name = "HOST[:PORT]", global = true)]
    seeds: Vec<String>,
}

/// How far to look for what is published.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reach {
    Host,
    Lan,
}

impl From<Reach> for Scope {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Host => Self::Host,
            Reach::Lan => Self::Lan,
        }
    }
}

/// Runs a command on a node of this host's mesh.
fn with_node<F, Fut>(seeds: Seeds, run: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    layercake::run_main_on(on(seeds), run)
}

/// As [`with_node`], in a process that passes requests on to others.
fn as_front<F, Fut>(seeds: Seeds, run: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    layercake::run_front(on(seeds), run)
}

/// The node of a command.
fn on(seeds: Seeds) -> NodeConfig {
    let mut config = NodeConfig::default();
    // First, since there is a limit.
    config.directory.seeds.splice(..0, seeds.seeds);
    config
}
