//! Running a program: what `#[layercake::main]` expands to.

use std::{fmt::Write, io, num::NonZero, process::ExitCode, time::Duration};

use layercake_wire::Carrier;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{
    args,
    entry::{Entry, EntryApi, WORKER_ARGUMENT, run_worker},
    here::Scoped,
    message::Data,
    node::{Node, NodeConfig},
    process::exec::{EXEC_ARGUMENT, become_program},
};

/// How long the program may take to return once it was asked to stop by a signal.
const MAIN_GRACE: Duration = Duration::from_secs(5);

/// Writes the log to stderr, unless the program has set up its own: warnings and errors, or what the
/// environment variable `LAYERCAKE_LOG` asks for (`info`, `debug`, `layercake_directory=debug`, …).
pub fn log_to_stderr() {
    use io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("LAYERCAKE_LOG").unwrap_or_else(|_| {
        // The mDNS and QUIC libraries warn about what is none of the user's business.
        EnvFilter::new("warn,mdns_sd=off,quinn=error,quinn_udp=error")
    });
    let colours = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // An error says that the program has its own subscriber already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .try_init();
}

/// An error with its causes, one to a line after the first.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, "\n  cause: {cause}");
        source = cause.source();
    }
    text
}

/// What a program may return: nothing, or a result. Its error is printed on stderr; its value, unless it
/// is nothing, as JSON on stdout.
pub trait Outcome {
    /// The value as JSON, or the error with its causes.
    ///
    /// # Errors
    /// The error of the program.
    fn outcome(self) -> Result<Value, String>;
}

impl Outcome for () {
    fn outcome(self) -> Result<Value, String> {
        Ok(Value::Null)
    }
}

impl<T: Serialize, E: Into<Box<dyn std::error::Error + Send + Sync>>> Outcome for Result<T, E> {
    fn outcome(self) -> Result<Value, String> {
        match self {
            Ok(value) => {
                serde_json::to_value(value).map_err(|e| format!("cannot print the result: {e}"))
            }
            Err(error) => {
                let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                Err(chain(&*error))
            }
        }
    }
}

/// What `PROGRAM --describe` prints.
#[derive(Serialize)]
struct Description {
    program: String,
    /// JSON Schema of the program's own arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Value>,
    entries: Vec<EntryApi>,
}

fn program_name() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Prints on stdout; a reader that has gone away is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output\n  cause: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn describe(arguments: Option<Value>) -> ExitCode {
    let what = Description { program: program_name(), arguments, entries: Entry::all() };
    print(&serde_json::to_string_pretty(&what).unwrap_or_default())
}

/// If this process was started as a worker by its parent, runs as one and returns how it ended.
/// Programs that do not use `#[layercake::main]` call it first in `main`.
#[must_use]
pub fn run_as_worker() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    let what = arguments.next().unwrap_or_default();
    let ended = if first == WORKER_ARGUMENT {
        run_worker(&what.to_string_lossy())
    } else if first == EXEC_ARGUMENT {
        Err(become_program(&what.to_string_lossy()))
    } else {
        return None;
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    })
}

/// Runs a program on a node in the default mesh folder, until it returns or a signal asks it to stop:
/// SIGINT or SIGTERM makes [`Node::stopping`] ready; a second one ends the process at once. What it
/// returns is printed as JSON. `--describe` as the first argument prints the actors that this binary can
/// be started as, and does nothing else.
pub fn run_main<F, Fut>(main: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    run_main_on(NodeConfig::default(), main)
}

/// As [`run_main`], on a node that is started with `config`.
pub fn run_main_on<F, Fut>(config: NodeConfig, main: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    run_main_in(usual, config, main)
}

/// As [`run_main_on`], in the runtime of a [front door](front_runtime): for a program that has no handlers of
/// its own.
pub fn run_front<F, Fut>(config: NodeConfig, main: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    run_main_in(front_runtime, config, main)
}

fn run_main_in<F, Fut>(runtime: MakeRuntime, config: NodeConfig, main: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    log_to_stderr();
    if let Some(code) = run_as_worker() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some("--describe") {
        return describe(None);
    }
    run(runtime, config, main)
}

type MakeRuntime = fn(NodeConfig) -> io::Result<(Runtime, NodeConfig)>;

fn usual(config: NodeConfig) -> io::Result<(Runtime, NodeConfig)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok((runtime, config))
}

/// The runtime of a program that passes messages on and does little with them, as a front door whose
/// workers are other processes, and the configuration with which its node is to be started there.
///
/// On one or two processors that is one thread which does everything, links too: others run meanwhile,
/// what they send has gathered when it looks again, and nobody has to be woken. On more the links have
/// their own thread, and the runtime one for each further processor; so too where the environment variable
/// `TOKIO_WORKER_THREADS` sets how many. Whatever keeps a thread busy holds up everything there: a program
/// with handlers of its own does better with [`run_main`].
///
/// # Errors
/// The system's, when there can be no further threads or files.
pub fn front_runtime(mut config: NodeConfig) -> io::Result<(Runtime, NodeConfig)> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = if std::env::var_os("TOKIO_WORKER_THREADS").is_some() {
        tokio::runtime::Builder::new_multi_thread()
    } else if processors > 2 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(processors - 1);
        builder
    } else {
        config.carrier = Carrier::Runtime;
        tokio::runtime::Builder::new_current_thread()
    };
    Ok((builder.enable_all().build()?, config))
}

/// As [`run_main`], with arguments read from the command line: `--name=value` for each field of the
/// struct. `--help` prints them.
pub fn run_main_with<A, F, Fut>(main: F) -> ExitCode
where
    A: Data,
    F: FnOnce(Node, A) -> Fut,
    Fut: Future<Output: Outcome>,
{
    log_to_stderr();
    if let Some(code) = run_as_worker() {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--describe") {
        return describe(Some(args::schema::<A>().clone()));
    }
    if words.iter().any(|word| word == "--help") {
        return print(args::help::<A>(&program_name()).trim_end());
    }
    match args::read::<A>(&words) {
        Ok(arguments) => run(usual, NodeConfig::default(), move |node| main(node, arguments)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run<F, Fut>(runtime: MakeRuntime, config: NodeConfig, main: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    let (runtime, config) = match runtime(config) {
        Ok(made) => made,
        Err(error) => {
            eprintln!("error: cannot start a runtime\n  cause: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match Node::start_with(config).await {
            Ok(node) => run_until_stopped(node, main).await,
            Err(error) => Err(chain(&error)),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(Value::Null) => ExitCode::SUCCESS,
        Ok(value) => print(&value.to_string()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `main` on a started node and closes the node; returns what it came to as JSON.
///
/// # Errors
/// The error of the program, with its causes.
pub async fn run_until_stopped<F, Fut>(node: Node, main: F) -> Result<Value, String>
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = match signals {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            return Err(format!("cannot listen for signals\n  cause: {error}"));
        }
    };
    // What it asks belongs to no message, and addresses that it reads belong to the node.
    let program = Scoped::new(main(node.clone()), node.clone(), None);
    let mut program = std::pin::pin!(program);
    let asked = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let outcome = tokio::select! {
        outcome = &mut program => Some(outcome),
        () = asked => None,
    };
    let ending = async {
        let outcome = match outcome {
            Some(outcome) => outcome.outcome(),
            None => {
                node.begin_stop();
                match tokio::time::timeout(MAIN_GRACE, program).await {
                    Ok(outcome) => outcome.outcome(),
                    Err(_) => Ok(Value::Null),
                }
            }
        };
        node.close().await;
        outcome
    };
    let at_once = || Err("ended at once by a second signal".to_owned());
    tokio::select! {
        outcome = ending => outcome,
        _ = interrupt.recv() => at_once(),
        _ = terminate.recv() => at_once(),
    }
}
