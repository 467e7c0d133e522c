//! Foreign programs as actors: started by way of this binary, which ties them to their parent first;
//! joined for what they write to their standard output.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use super::{
    ByProcess, Limits, MAX_OUTPUT, NoMessages, Parent, ProcessError,
    child::{DRAIN, Process},
    exec::{EXEC_ARGUMENT, Exec},
    own_program, put_up,
};
use crate::{
    actor::{Life, Running, Spawn},
    exit::Exit,
    node::{Node, STOP_GRACE},
};

/// A foreign program that is being described.
#[must_use = "a program begins with `launch`"]
pub struct CommandBuilder<'a> {
    node: Node,
    parent: Parent<'a>,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    input: Bytes,
    limits: Limits,
    grace: Duration,
}

impl<'a> CommandBuilder<'a> {
    pub(crate) fn new(node: Node, parent: Parent<'a>, program: &Path) -> Self {
        Self {
            node,
            parent,
            program: program.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            input: Bytes::new(),
            limits: Limits::default(),
            grace: STOP_GRACE,
        }
    }

    /// A further argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Further arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item: Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// An environment variable for the program, besides those of this process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What it reads from its standard input; nothing otherwise.
    pub fn input(mut self, input: impl Into<Bytes>) -> Self {
        self.input = input.into();
        self
    }

    /// Limits of the process.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long it may take to end after SIGTERM (5 s), before it is killed.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts the program. Joined, it leaves what it has written to its standard output, at most
    /// [`MAX_OUTPUT`] bytes. One that ends with another status than 0, or by a signal, has failed, and
    /// [`Exit`] has the status and the last lines of its stderr.
    ///
    /// The program that calls this must be run by `#[layercake::main]`, or call
    /// [`run_as_worker`](crate::run_as_worker) first: the new process is this binary for a moment.
    ///
    /// # Errors
    /// [`ProcessError::Spawn`].
    pub async fn launch(self) -> Result<Running<NoMessages, Bytes>, ProcessError> {
        let Self { node, parent, program, arguments, variables, input, limits, grace } = self;
        let own = own_program()?;
        let failed = |cause| ProcessError::Spawn { program: program.clone(), cause };
        let exec = Exec { program: program.clone(), arguments, limits, parent: std::process::id() };
        let exec = serde_json::to_string(&exec).map_err(ProcessError::Arguments)?;
        let mut command = Command::new(own);
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.arg(EXEC_ARGUMENT).arg(exec).envs(node.group_variable()).envs(variables);
        command.stdin(stdin);
        let mut process = Process::start(command, true).await.map_err(failed)?;
        if let Some(mut stdin) = process.take_stdin() {
            node.tasks().spawn(async move {
                // Who does not read all of it need not.
                let _ = stdin.write_all(&input).await;
            });
        }
        Ok(put_up(&node, parent, Foreign { process, grace }))
    }
}

/// Stands for a foreign program.
struct Foreign {
    process: Process,
    grace: Duration,
}

impl Spawn<ByProcess> for Foreign {
    type Mail = NoMessages;
    type Takes = NoMessages;
    type Output = Bytes;

    fn kind() -> &'static str {
        "Program"
    }

    async fn live(mut self, life: &mut Life<NoMessages>) -> (Exit, Option<Bytes>) {
        let asked = std::future::poll_fn(|cx| life.mailbox.poll_stop(cx));
        let mut output = Vec::new();
        let mut stdout = self.process.take_stdout();
        let run = run_to_end(&mut self.process, &mut stdout, &mut output);
        let ended = tokio::select! {
            ended = run => Some(ended),
            () = asked => None,
        };
        match ended {
            Some(Some(Ok(status))) if status.success() => (Exit::Finished, Some(output.into())),
            Some(Some(status)) => {
                let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                (Exit::Failed(self.process.words().behind(status)), None)
            }
            Some(None) => {
                self.process.signal(Signal::KILL);
                let _ = self.process.wait().await;
                (Exit::Failed(format!("it wrote more than {MAX_OUTPUT} bytes")), None)
            }
            None => {
                self.process.signal(Signal::TERM);
                // What it says while it ends must not block it, or end it by a broken pipe.
                let drain = async {
                    if let Some(stdout) = &mut stdout {
                        let _ = tokio::io::copy(stdout, &mut tokio::io::sink()).await;
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    _ = self.process.end_within(self.grace) => {}
                    () = drain => {}
                }
                (Exit::Stopped, None)
            }
        }
    }
}

/// Takes what a program writes to its standard output, and waits for its end; `None` where it writes
/// more than it may.
async fn run_to_end(
    process: &mut Process,
    stdout: &mut Option<tokio::process::ChildStdout>,
    output: &mut Vec<u8>,
) -> Option<io::Result<ExitStatus>> {
    let status = {
        let mut read = std::pin::pin!(async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(output).await;
            }
        });
        let status = tokio::select! {
            biased;
            () = &mut read => None,
            status = process.wait() => Some(status),
        };
        if status.is_some() {
            // What it has started may hold the pipe for as long as it likes.
            let _ = tokio::time::timeout(DRAIN, read).await;
        }
        status
    };
    if output.len() > MAX_OUTPUT {
        return None;
    }
    match status {
        Some(status) => Some(status),
        None => Some(process.wait().await),
    }
}
