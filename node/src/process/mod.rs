//! Process actors: child processes that are actors like any other. The same binary with another entry
//! point, another layer-cake binary, or a foreign program.
//!
//! A child's standard input is a socket pair. The child says over it that it is ready, and in the end what
//! it leaves; this side says stop; and whichever process dies, the other sees the end of the stream at
//! once. So a parent that is killed leaves no orphan, and no process id is ever guessed at. A foreign program
//! knows nothing of that: the kernel kills it when its parent dies.
//!
//! In the tree of its node a process is an actor ([`proxy`](mod@self)) that lives as long as the process.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use layercake_directory::{DirectoryConfig, Scope};
use layercake_wire::id::{ActorAddr, NodeId};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::Command,
};

use self::child::{Ended, Process};
pub use self::{exec::Limits, foreign::CommandBuilder};
use crate::{
    actor::{Life, Running, Spawn},
    address::AnyAddress,
    entry::{Program, WORKER_ARGUMENT, WorkerSays, WorkerStart},
    error::AskError,
    exit::Exit,
    here::within,
    mail::Mail,
    mailbox::Inlet,
    message::{Api, Data},
    node::{Node, STOP_GRACE},
    packet::Parcel,
    run::chain,
};

mod child;
pub(crate) mod exec;
mod foreign;

/// How long a worker process may take until it can work.
const START_TIME: Duration = Duration::from_secs(10);
/// Bytes of a foreign program's standard output that are kept; one that writes more has failed.
pub const MAX_OUTPUT: usize = 16 << 20;
/// Bytes of one line that a child may say to its parent; a larger value that it leaves is an error.
const MAX_LINE: u64 = 32 << 20;

/// Why a process does not work.
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
    /// It ended or kept silent before it was ready; with the last lines of its stderr.
    #[error("the process did not become ready: {0}")]
    NotReady(String),
    /// The arguments cannot be told to another process.
    #[error("the arguments cannot be encoded")]
    Arguments(#[source] serde_json::Error),
}

/// For who answers by starting a process: none is available. Why is in the log.
impl From<ProcessError> for AskError {
    fn from(error: ProcessError) -> Self {
        tracing::warn!("no answer without a process: {}", chain(&error));
        Self::Unavailable
    }
}

/// Which process is to be started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spec {
    /// This very program where none is named.
    pub(crate) binary: Option<PathBuf>,
    pub(crate) entry: String,
    pub(crate) arguments: Value,
    pub(crate) publish: Option<(String, Scope)>,
    pub(crate) limits: Limits,
    pub(crate) variables: Vec<(String, String)>,
}

fn own_program() -> Result<PathBuf, ProcessError> {
    std::env::current_exe()
        .map_err(|cause| ProcessError::Spawn { program: PathBuf::from("self"), cause })
}

/// A process of an entry that can work. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    process: Process,
    control: BufReader<UnixStream>,
    /// What was heard of a line so far.
    heard: Vec<u8>,
    /// Whether it has said that somebody else asked it to end.
    leaves: bool,
    /// Whether nothing more will be heard of it.
    silent: bool,
    /// Its last word, where it has said one.
    last: Option<WorkerSays>,
    pub(crate) addr: ActorAddr,
}

/// How a process of an entry ended.
pub(crate) struct WorkerEnd {
    pub(crate) exit: Exit,
    pub(crate) output: Option<Value>,
}

impl WorkerProcess {
    /// Starts a process and waits until it can work.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(crate) async fn start(node: &Node, spec: Spec) -> Result<Self, ProcessError> {
        let program = match spec.binary {
            Some(binary) => binary,
            None => own_program()?,
        };
        let failed = |cause| ProcessError::Spawn { program: program.clone(), cause };
        let start = WorkerStart {
            entry: spec.entry,
            mesh: node.mesh().folder().to_owned(),
            node: NodeId::random(),
            publish: spec.publish,
            arguments: spec.arguments,
            limits: spec.limits,
            directory: Some(DirectoryConfig {
                // The parent has told them.
                complaints: Vec::new(),
                // By its variable, which `env` may replace.
                group: None,
                ..node.directory().config().clone()
            }),
        };
        let start = serde_json::to_string(&start).map_err(ProcessError::Arguments)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = Command::new(&program);
        command
            .arg(WORKER_ARGUMENT)
            .arg(start)
            .envs(node.group_variable())
            .envs(spec.variables)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        let process = Process::start(command, false).await.map_err(failed)?;
        let control = BufReader::new(UnixStream::from_std(ours).map_err(failed)?);
        let addr = ActorAddr { node: node.addr(), serial: 0 };
        let mut worker = Self {
            process,
            control,
            heard: Vec::new(),
            leaves: false,
            silent: false,
            last: None,
            addr,
        };
        let not_ready = |worker: &Self, reason| {
            Err(ProcessError::NotReady(worker.process.words().behind(reason)))
        };
        match tokio::time::timeout(START_TIME, worker.hear()).await {
            Ok(Ok(Some(WorkerSays::Ready(addr)))) => {
                worker.addr = addr;
                Ok(worker)
            }
            Ok(Ok(Some(WorkerSays::Failed(reason)))) => not_ready(&worker, reason),
            Ok(Ok(Some(WorkerSays::Ended { .. } | WorkerSays::Leaving))) => {
                not_ready(&worker, "it ended before it was ready".to_owned())
            }
            Ok(Ok(None)) => {
                let status = worker.process.wait().await;
                let reason =
                    status.map_or_else(|e| e.to_string(), |s| format!("it ended with {s}"));
                not_ready(&worker, reason)
            }
            Ok(Err(error)) => not_ready(&worker, format!("it said something else: {error}")),
            Err(_) => not_ready(&worker, format!("it said nothing for {START_TIME:?}")),
        }
    }

    /// What the process says next; `None` when it has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn hear(&mut self) -> io::Result<Option<WorkerSays>> {
        let room = MAX_LINE.saturating_sub(self.heard.len() as u64);
        (&mut self.control).take(room).read_until(b'\n', &mut self.heard).await?;
        let line = std::mem::take(&mut self.heard);
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Waits until it says that somebody else asked it to end, in which case it is still at work, or
    /// until it has ended or said its last word.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn leaving(&mut self) -> bool {
        while !self.leaves && !self.silent {
            let said = self.hear().await;
            self.note(said);
        }
        self.leaves && !self.silent
    }

    /// Waits for its end, and says how it ended.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn ended(&mut self) -> WorkerEnd {
        while !self.silent {
            let said = self.hear().await;
            self.note(said);
        }
        // Its work is done, or nobody could tell it to go on: it need not take long.
        let ended = self.process.end_within(STOP_GRACE).await;
        self.judge(ended)
    }

    fn note(&mut self, said: io::Result<Option<WorkerSays>>) {
        if let Ok(Some(WorkerSays::Leaving)) = said {
            self.leaves = true;
            return;
        }
        self.silent = true;
        self.last = said.unwrap_or_else(|error| {
            // Too long a line, say: it may wait for somebody to read the rest.
            self.process.signal(Signal::KILL);
            let exit = Exit::Failed(format!("what it left was not understood: {error}"));
            Some(WorkerSays::Ended { exit, output: None })
        });
    }

    fn judge(&mut self, ended: io::Result<Ended>) -> WorkerEnd {
        let exit = match (self.last.take(), ended) {
            (Some(WorkerSays::Ended { exit: Exit::Panicked(reason), .. }), _) => {
                Exit::Panicked(self.process.words().behind(reason))
            }
            (Some(WorkerSays::Ended { exit, output }), _) => return WorkerEnd { exit, output },
            (_, Ok(Ended::Killed)) => Exit::Aborted,
            (_, Ok(Ended::Itself(status))) => {
                Exit::ProcessDied(self.process.words().behind(status.to_string()))
            }
            (_, Err(error)) => Exit::ProcessDied(error.to_string()),
        };
        WorkerEnd { exit, output: None }
    }

    /// Asks it to finish, and kills it when it has not ended within the grace.
    pub(crate) async fn stop(&mut self, grace: Duration) -> WorkerEnd {
        let _ = self.control.get_mut().write_all(b"s").await;
        let deadline = tokio::time::Instant::from_std(crate::clock::after(grace));
        while !self.silent
            && let Ok(said) = tokio::time::timeout_at(deadline, self.hear()).await
        {
            self.note(said);
        }
        let rest = deadline.saturating_duration_since(tokio::time::Instant::now());
        let ended = self.process.end_within(rest).await;
        self.judge(ended)
    }
}

/// A process that is being described: an entry of this binary, or of another one.
#[must_use = "a process begins with `launch`"]
pub struct ProcessBuilder<'a, P: Program> {
    node: Node,
    parent: Parent<'a>,
    spec: Spec,
    arguments: P::Args,
    grace: Duration,
}

/// Under whom a process is to stand.
pub(crate) struct Parent<'a> {
    pub(crate) inlet: Option<Arc<dyn Inlet>>,
    #[allow(clippy::type_complexity)]
    pub(crate) adopt: Option<Box<dyn FnOnce(Arc<dyn Inlet>) + Send + 'a>>,
}

impl<'a, P: Program> ProcessBuilder<'a, P> {
    pub(crate) fn new(node: Node, parent: Parent<'a>, arguments: P::Args) -> Self {
        let spec = Spec { entry: P::name().to_owned(), ..Spec::default() };
        Self { node, parent, spec, arguments, grace: STOP_GRACE + Duration::from_secs(1) }
    }

    /// Another binary that has the entry, instead of this very program.
    pub fn binary(mut self, path: impl AsRef<Path>) -> Self {
        self.spec.binary = Some(path.as_ref().to_owned());
        self
    }

    /// An environment variable for the process, besides those of this one. How other hosts are found is
    /// taken over from this process, whatever the variables say.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.spec.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits of the process.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// How long it may take to end when it was asked to stop (6 s), before it is killed.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts the process and waits until it can work (for at most 10 s).
    ///
    /// # Errors
    /// [`ProcessError`], with the last lines that it wrote.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub async fn launch(self) -> Result<Running<P::Takes, P::Output>, ProcessError> {
        let Self { node, parent, mut spec, arguments, grace } = self;
        let encoded = within(&node, || serde_json::to_value(&arguments));
        spec.arguments = encoded.map_err(ProcessError::Arguments)?;
        let process = WorkerProcess::start(&node, spec).await?;
        let address = node.bind(process.addr.clone());
        let proxy = OfEntry::<P::Output> { process, grace, output: PhantomData };
        let Running { ended, control, .. } = put_up(&node, parent, proxy);
        Ok(Running { address, ended, control })
    }
}

/// Starts what stands for a process in the tree of its node.
fn put_up<S: Spawn<ByProcess>>(
    node: &Node,
    parent: Parent<'_>,
    proxy: S,
) -> Running<S::Takes, S::Output> {
    let running = node.launch_under(proxy, parent.inlet);
    if let (Some(adopt), Some(inlet)) = (parent.adopt, running.control()) {
        adopt(inlet.clone());
    }
    running
}

/// No message at all: what stands for a process is there to be watched and stopped.
pub struct NoMessages(std::convert::Infallible);

impl Mail for NoMessages {
    fn api() -> Api {
        Api { actor: "Process".to_owned(), messages: Vec::new() }
    }

    fn accept(_: &mut dyn std::any::Any) -> Option<Self> {
        None
    }

    fn open(parcel: Parcel) -> Option<Self> {
        parcel.refuse();
        None
    }
}

/// Marks what stands for a process.
#[doc(hidden)]
struct ByProcess(());

/// Stands for the process of an entry.
struct OfEntry<R> {
    process: WorkerProcess,
    grace: Duration,
    output: PhantomData<fn() -> R>,
}

impl<R: Data> Spawn<ByProcess> for OfEntry<R> {
    type Mail = NoMessages;
    type Takes = NoMessages;
    type Output = R;

    fn kind() -> &'static str {
        "Process"
    }

    async fn live(mut self, life: &mut Life<NoMessages>) -> (Exit, Option<R>) {
        let asked = std::future::poll_fn(|cx| life.mailbox.poll_stop(cx));
        let end = tokio::select! {
            end = self.process.ended() => Some(end),
            () = asked => None,
        };
        let end = match end {
            Some(end) => end,
            None => self.process.stop(self.grace).await,
        };
        let node = life.mailbox.node();
        let decode = |value| within(node, || serde_json::from_value::<R>(value));
        match (end.exit, end.output.map(decode)) {
            (exit, None) => (exit, None),
            (exit, Some(Ok(output))) => (exit, Some(output)),
            (_, Some(Err(error))) => {
                (Exit::Failed(format!("what it left was not understood: {error}")), None)
            }
        }
    }
}

impl Node {
    /// Begins a process of an entry: an actor type, or a function with `#[entry]`.
    pub fn process<P: Program>(&self, arguments: P::Args) -> ProcessBuilder<'static, P> {
        ProcessBuilder::new(self.clone(), Parent { inlet: None, adopt: None }, arguments)
    }

    /// Begins a foreign program.
    pub fn command(&self, program: impl AsRef<Path>) -> CommandBuilder<'static> {
        let parent = Parent { inlet: None, adopt: None };
        CommandBuilder::new(self.clone(), parent, program.as_ref())
    }

    /// Starts an entry of a binary that is known by name alone, with arguments as JSON: the address
    /// takes whatever its messages are, and what it leaves is JSON too.
    ///
    /// # Errors
    /// [`ProcessError`], with the last lines that it wrote.
    pub async fn launch_entry(
        &self,
        binary: &Path,
        entry: &str,
        arguments: Value,
    ) -> Result<(AnyAddress, Running<NoMessages, Value>), ProcessError> {
        let binary = Some(binary.to_owned());
        let spec = Spec { binary, entry: entry.to_owned(), arguments, ..Spec::default() };
        let process = WorkerProcess::start(self, spec).await?;
        let address: AnyAddress = self.bind(process.addr.clone());
        let grace = STOP_GRACE + Duration::from_secs(1);
        let proxy = OfEntry::<AnyValue> { process, grace, output: PhantomData };
        let parent = Parent { inlet: None, adopt: None };
        let Running { address: proxy, mut ended, control } = put_up(self, parent, proxy);
        let (told, value) = tokio::sync::oneshot::channel();
        self.tasks().spawn(async move {
            let left = (&mut ended).await.unwrap_or(Err(Exit::Aborted));
            let _ = told.send(left.map(|AnyValue(value)| value));
        });
        Ok((address, Running { address: proxy, ended: value, control }))
    }
}

/// Any value, as something that may be left.
#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
struct AnyValue(Value);

impl<A: crate::actor::Actor> crate::actor::Context<A> {
    /// Begins a process of an entry as a child of this actor: it ends before this actor does.
    pub fn process<P: Program>(&mut self, arguments: P::Args) -> ProcessBuilder<'_, P> {
        let (node, parent) = (self.node().clone(), self.as_parent());
        ProcessBuilder::new(node, parent, arguments)
    }

    /// Begins a foreign program as a child of this actor.
    pub fn command(&mut self, program: impl AsRef<Path>) -> CommandBuilder<'_> {
        let (node, parent) = (self.node().clone(), self.as_parent());
        CommandBuilder::new(node, parent, program.as_ref())
    }

    fn as_parent(&mut self) -> Parent<'_> {
        let inlet = self.address().inlet().cloned();
        Parent { inlet, adopt: Some(Box::new(move |child| self.adopt(child))) }
    }
}
