//! A child process of this one: started so that it cannot outlive its parent, its last words kept, its end
//! waited for.
//!
//! All children are started from one thread that lives as long as the process, for the kernel ties "kill it
//! when its parent dies" to the thread that forked.

use std::{
    collections::VecDeque,
    io::{self, Write},
    process::{ExitStatus, Stdio},
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};

/// Lines of a child's stderr that are kept for its error, and bytes of each.
const LAST_LINES: usize = 20;
const LAST_BYTES: usize = 512;
/// How long what is left in the pipes is waited for when the child has ended: a grandchild may hold
/// them open.
pub(super) const DRAIN: Duration = Duration::from_millis(200);

type Spawn = Box<dyn FnOnce() + Send>;

/// Starts a command from the thread that lives as long as the process.
async fn spawn_from_anchor(mut command: Command) -> io::Result<Child> {
    static ANCHOR: OnceLock<Option<mpsc::Sender<Spawn>>> = OnceLock::new();
    let anchor = ANCHOR.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Spawn>();
        let anchor = std::thread::Builder::new().name("layercake-spawn".to_owned());
        anchor.spawn(move || queue.into_iter().for_each(|job| job())).ok().map(|_| jobs)
    });
    let ended = || io::Error::other("the thread that starts processes is not there");
    let (told, spawned) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let job = move || {
        let _within = runtime.enter();
        let _ = told.send(command.spawn());
    };
    anchor.as_ref().ok_or_else(ended)?.send(Box::new(job)).map_err(|_| ended())?;
    spawned.await.map_err(|_| ended())?
}

/// The last lines that a child has written to its stderr.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    fn add(&self, line: &[u8]) {
        let line = &line[..line.len().min(LAST_BYTES)];
        let mut lines = self.0.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
    }

    /// They, each on a line of its own behind what is given.
    pub(crate) fn behind(&self, text: String) -> String {
        self.0.lock().iter().fold(text, |text, line| text + "\n  | " + line)
    }
}

/// How a child process ended that was given a grace.
pub(super) enum Ended {
    /// By itself.
    Itself(ExitStatus),
    /// It had to be killed.
    Killed,
}

/// A child process in a group of its own. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    words: LastWords,
    pipes: tokio::task::JoinSet<()>,
}

impl Process {
    /// Starts a command. What it writes to its stderr goes to ours, and what it writes to its stdout,
    /// unless that is wanted, too.
    pub(crate) async fn start(mut command: Command, keep_stdout: bool) -> io::Result<Self> {
        // Ctrl-C is for the parent, which then stops its children in order.
        command.process_group(0).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_from_anchor(command).await?;
        let words = LastWords::default();
        let mut pipes = tokio::task::JoinSet::new();
        if let Some(stderr) = child.stderr.take() {
            let words = words.clone();
            pipes.spawn(async move { pass_on(stderr, Some(words)).await });
        }
        if !keep_stdout && let Some(stdout) = child.stdout.take() {
            // It must not mix with the data on our standard output.
            pipes.spawn(async move { pass_on(stdout, None).await });
        }
        Ok(Self { child, words, pipes })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn words(&self) -> &LastWords {
        &self.words
    }

    pub(crate) fn take_stdin(&mut self) -> Option<tokio::process::ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn take_stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        let rest = async { while self.pipes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, rest).await;
        Ok(status)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // The id is ours until the child has been waited for.
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Waits for its end within a grace, and kills it after that.
    pub(crate) async fn end_within(&mut self, grace: Duration) -> io::Result<Ended> {
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status.map(Ended::Itself),
            Err(_) => {
                tracing::warn!(
                    pid = self.pid(),
                    "a process did not end within its grace; killing it"
                );
                self.signal(Signal::KILL);
                self.wait().await.map(|_| Ended::Killed)
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Passes lines on to our stderr until there are no more.
async fn pass_on(pipe: impl AsyncRead + Unpin, words: Option<LastWords>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        // A piece of a line where it is longer than the buffer: memory stays bounded.
        let piece = match pipe.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(filled) => {
                let end = filled.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                filled[..end.unwrap_or(filled.len())].to_vec()
            }
        };
        pipe.consume(piece.len());
        if let Some(words) = &words {
            words.add(&piece);
        }
        let _ = io::stderr().write_all(&piece);
    }
}
