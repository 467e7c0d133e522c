//! Running a program: what `#[layercake::main]` expands to.

use std::{fmt::Write, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    entry::{WORKER_ARGUMENT, run_worker},
    node::Node,
    process::exec::{EXEC_ARGUMENT, become_program},
};

/// How long the program may take to return once it was asked to stop by a signal.
const MAIN_GRACE: Duration = Duration::from_secs(5);

/// Writes the log to stderr, unless the program has set up its own: warnings and errors, or what the
/// environment variable `LAYERCAKE_LOG` asks for (`info`, `debug`, `layercake_directory=debug`, …).
pub fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("LAYERCAKE_LOG").unwrap_or_else(|_| {
        // The mDNS and QUIC libraries warn about what is none of the user's business.
        EnvFilter::new("warn,mdns_sd=off,quinn=error,quinn_udp=error")
    });
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // An error says that the program has its own subscriber already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
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

/// What a program may return: nothing, or a result whose error is printed.
pub trait Outcome {
    /// The error to print, if it failed.
    fn error(self) -> Option<String>;
}

impl Outcome for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> Outcome for Result<(), E> {
    fn error(self) -> Option<String> {
        self.err().map(|error| {
            let error: Box<dyn std::error::Error + Send + Sync> = error.into();
            chain(&*error)
        })
    }
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
/// SIGINT or SIGTERM makes [`Node::stopping`] ready; a second one ends the process at once.
pub fn run_main<F, Fut>(main: F) -> ExitCode
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    log_to_stderr();
    if let Some(code) = run_as_worker() {
        return code;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start a runtime\n  cause: {error}");
            return ExitCode::FAILURE;
        }
    };
    let error = runtime.block_on(async {
        match Node::start().await {
            Ok(node) => run_until_stopped(node, main).await,
            Err(error) => Some(chain(&error)),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    match error {
        None => ExitCode::SUCCESS,
        Some(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `main` on a started node and closes the node; returns the error to print, if any.
pub async fn run_until_stopped<F, Fut>(node: Node, main: F) -> Option<String>
where
    F: FnOnce(Node) -> Fut,
    Fut: Future<Output: Outcome>,
{
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = match signals {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            return Some(format!("cannot listen for signals\n  cause: {error}"));
        }
    };
    let program = main(node.clone());
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
        let error = match outcome {
            Some(outcome) => outcome.error(),
            None => {
                node.begin_stop();
                match tokio::time::timeout(MAIN_GRACE, program).await {
                    Ok(outcome) => outcome.error(),
                    Err(_) => None,
                }
            }
        };
        node.close().await;
        error
    };
    tokio::select! {
        error = ending => error,
        _ = interrupt.recv() => Some("ended at once by a second signal".to_owned()),
        _ = terminate.recv() => Some("ended at once by a second signal".to_owned()),
    }
}
