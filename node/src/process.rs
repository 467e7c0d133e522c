//! Worker processes: children of this process that run one actor each.
//!
//! The child's standard input is a socket pair. The child says over it that it is ready; this side
//! says stop; and whichever process dies, the other sees the end of the stream at once. So a parent
//! that is killed leaves no orphan, and no process id is ever guessed at.

use std::{io, os::fd::AsFd, path::PathBuf, process::Stdio, time::Duration};

use layercake_directory::Scope;
use layercake_wire::id::{ActorAddr, NodeId};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
};

use crate::{
    entry::{WORKER_ARGUMENT, WorkerReady, WorkerStart},
    node::{Node, STOP_GRACE},
};

/// How long a worker process may take until it can work.
const START_TIME: Duration = Duration::from_secs(10);

/// Why a worker process does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program cannot be started.
    #[error("cannot start `{}`", .program.display())]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It ended or kept silent before it was ready.
    #[error("the worker process did not become ready: {0}")]
    NotReady(String),
}

/// A worker process that can work. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    child: Child,
    control: BufReader<UnixStream>,
    pub(crate) addr: ActorAddr,
}

impl WorkerProcess {
    /// Starts this very program as a worker, and waits until it can work.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(crate) async fn start(
        node: &Node,
        entry: &str,
        publish: Option<(String, Scope)>,
    ) -> Result<Self, ProcessError> {
        let program = std::env::current_exe()
            .map_err(|cause| ProcessError::Spawn { program: PathBuf::from("self"), cause })?;
        let failed = |cause| ProcessError::Spawn { program: program.clone(), cause };
        let start = WorkerStart {
            entry: entry.to_owned(),
            mesh: node.mesh().folder().to_owned(),
            node: NodeId::random(),
            publish,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        // What a worker prints must not mix with the data on our standard output.
        let output = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
        let child = Command::new(&program)
            .arg(WORKER_ARGUMENT)
            .arg(serde_json::to_string(&start).unwrap_or_default())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::from(output))
            // Ctrl-C is for the parent, which then stops its workers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let control = BufReader::new(UnixStream::from_std(ours).map_err(failed)?);
        let mut worker = Self { child, control, addr: ActorAddr { node: node.addr(), serial: 0 } };
        let mut line = String::new();
        let read = tokio::time::timeout(START_TIME, worker.control.read_line(&mut line)).await;
        let not_ready = |reason: String| Err(ProcessError::NotReady(reason));
        match read {
            Ok(Ok(0)) => {
                let status = worker.child.wait().await;
                not_ready(status.map_or_else(|e| e.to_string(), |s| format!("it ended with {s}")))
            }
            Ok(Ok(_)) => match serde_json::from_str(&line) {
                Ok(WorkerReady::Ready(addr)) => {
                    worker.addr = addr;
                    Ok(worker)
                }
                Ok(WorkerReady::Failed(reason)) => not_ready(reason),
                Err(error) => not_ready(format!("it said something else: {error}")),
            },
            Ok(Err(error)) => not_ready(error.to_string()),
            Err(_) => not_ready(format!("it said nothing for {START_TIME:?}")),
        }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end, and says how it ended.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks it to finish, and kills it when it has not ended within the grace of a node.
    pub(crate) async fn stop(mut self) {
        let _ = self.control.get_mut().write_all(b"s").await;
        if tokio::time::timeout(STOP_GRACE + Duration::from_secs(1), self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!(pid = self.pid(), "a worker process did not stop; killing it");
            let _ = self.child.kill().await;
        }
    }
}
