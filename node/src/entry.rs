//! Entry points: what a process of this binary can be started as.
//!
//! `#[actor]` submits an [`Entry`] for each actor type that can be made from nothing or from arguments,
//! `#[entry]` one for a function. A process is started with [`WORKER_ARGUMENT`] first, and
//! [`crate::run::run_main`] then runs that entry instead of the program. (An environment variable would be
//! inherited by whatever the process starts.)

use std::{io::Write, os::fd::AsFd, os::unix::net::UnixStream, path::PathBuf, pin::Pin};

use layercake_directory::DirectoryConfig;
use layercake_wire::id::{ActorAddr, NodeId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    actor::{Actor, Inbox, Letters, Running, Spawn},
    exit::Exit,
    here::within,
    mail::Mail,
    message::{Data, MessageApi},
    node::{Node, NodeConfig},
    process::Limits,
    schema::advertised,
};

/// The first argument of a process that is a worker of its parent; the second one says which.
pub(crate) const WORKER_ARGUMENT: &str = "layercake-worker";

/// What a parent tells the worker process that it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerStart {
    /// The entry's name, whole or its last part.
    pub(crate) entry: String,
    /// The mesh folder of the parent.
    pub(crate) mesh: PathBuf,
    /// The identity chosen for the worker's node.
    pub(crate) node: NodeId,
    /// A name under which the worker publishes itself, and the scope.
    pub(crate) publish: Option<(String, layercake_directory::Scope)>,
    pub(crate) arguments: Value,
    pub(crate) limits: Limits,
    /// How the parent looks for other hosts: its child may be the one that does it for the host.
    #[serde(default)]
    pub(crate) directory: Option<DirectoryConfig>,
}

/// What a worker process tells its parent, each on a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WorkerSays {
    /// It can work.
    Ready(ActorAddr),
    /// It cannot.
    Failed(String),
    /// It was asked to end by somebody else, and will when it has finished what it has.
    Leaving,
    /// It has ended, and what it leaves.
    Ended { exit: Exit, output: Option<Value> },
}

/// What can run as a process of its own: an actor type, or a function with `#[entry]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run as a process of its own",
    note = "an actor type needs a `Default`, or `#[actor(args = …)]` and `fn new(args: …) -> Self`; a function needs `#[entry(Name)]`"
)]
pub trait Program: 'static {
    /// What it is started with.
    type Args: Data;
    /// What its address takes.
    type Takes: 'static;
    /// What it leaves when it has finished.
    type Output: Data;

    /// Its name, unlike any other of the binary.
    fn name() -> &'static str;
}

/// No arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoArgs {}

impl<A: Actor<Output: Data> + Default> Program for A {
    type Args = NoArgs;
    type Takes = A;
    type Output = A::Output;

    fn name() -> &'static str {
        entry_name::<A>()
    }
}

/// An actor that is made from arguments. `#[actor(args = T)]` implements it by `Self::new`.
pub trait FromArgs: Actor {
    /// The arguments.
    type FromArgs: Data;
    /// Makes it.
    fn from_args(args: Self::FromArgs) -> Self;
}

/// A function that is a program. `#[entry]` implements it.
#[doc(hidden)]
pub trait FunctionProgram: Program<Takes = Self::Letters> {
    type Letters: Letters;
    fn run(
        inbox: Inbox<Self::Letters>,
        args: Self::Args,
    ) -> impl Future<Output = Self::Output> + Send;
}

/// An actor that runs: where it is, and how it ends.
type Begun = (ActorAddr, Pin<Box<dyn Future<Output = WorkerSays> + Send>>);
type Spawned<'a> = Pin<Box<dyn Future<Output = Result<Begun, String>> + Send + 'a>>;

/// Something that a process of this binary can be started as.
pub struct Entry {
    name: fn() -> &'static str,
    describe: fn() -> EntryApi,
    /// Absent where the type cannot be made from nothing.
    start: Option<for<'a> fn(&'a Node, &'a WorkerStart) -> Spawned<'a>>,
}

inventory::collect!(Entry);

/// An entry as data: what `PROGRAM --describe` prints of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryApi {
    /// Its whole name.
    pub name: String,
    /// Whether a process can be started as it.
    pub starts: bool,
    /// JSON Schema of its arguments.
    pub arguments: Value,
    /// JSON Schema of what it leaves.
    pub output: Value,
    /// The messages that it answers.
    pub messages: Vec<std::sync::Arc<MessageApi>>,
}

fn describe<P: Program, M: Mail>() -> EntryApi {
    EntryApi {
        name: P::name().to_owned(),
        starts: true,
        arguments: advertised::<P::Args>(),
        output: advertised::<P::Output>(),
        messages: M::api().messages,
    }
}

impl Entry {
    /// The entry of an actor type that is made from nothing.
    #[must_use]
    pub const fn of<A: Actor<Output: Data> + Default>() -> Self {
        Self {
            name: entry_name::<A>,
            describe: describe::<A, A::Mail>,
            start: Some(start_default::<A>),
        }
    }

    /// The entry of an actor type that is made from arguments.
    #[must_use]
    pub const fn of_args<A>() -> Self
    where
        A: FromArgs + Program<Args = <A as FromArgs>::FromArgs, Takes = A>,
        A: Actor<Output = <A as Program>::Output>,
    {
        Self {
            name: <A as Program>::name,
            describe: describe::<A, A::Mail>,
            start: Some(start_args::<A>),
        }
    }

    /// The entry of a function.
    #[must_use]
    pub const fn of_function<P: FunctionProgram>() -> Self {
        Self {
            name: P::name,
            describe: describe::<P, <P::Letters as Letters>::Mail>,
            start: Some(start_function::<P>),
        }
    }

    /// All entries of this binary, by name.
    #[must_use]
    pub fn all() -> Vec<EntryApi> {
        let mut all: Vec<_> = inventory::iter::<Self>().map(|entry| (entry.describe)()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The entry of that name. A last part alone will do where only one entry has it, and the first part of
    /// a path may differ: another binary that has the same source file is another crate.
    fn find(name: &str) -> Result<&'static Self, String> {
        let all = || inventory::iter::<Self>();
        if let Some(entry) = all().find(|entry| (entry.name)() == name) {
            return Ok(entry);
        }
        let alike = |entry: &&Self| {
            let whole = (entry.name)();
            match name.split_once("::") {
                Some((_, path)) => whole.split_once("::").is_some_and(|(_, other)| other == path),
                None => whole.rsplit("::").next() == Some(name),
            }
        };
        let mut named = all().filter(alike);
        match (named.next(), named.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(one), Some(other)) => {
                let (one, other) = ((one.name)(), (other.name)());
                Err(format!("`{name}` may be `{one}` or `{other}`: give the whole name"))
            }
            (None, _) => Err(format!("this binary has no actor `{name}`: `--describe` lists them")),
        }
    }
}

/// Finds out whether a type can be an entry: its own constant is there only where the type has a
/// `Default`, and comes before the one of [`NoEntry`].
pub struct Probe<A>(std::marker::PhantomData<A>);

impl<A: Actor<Output: Data> + Default> Probe<A> {
    /// The entry of the type.
    pub const ENTRY: Entry = Entry::of::<A>();
}

/// What every type has: an entry that cannot be started.
pub trait NoEntry {
    /// The entry.
    const ENTRY: Entry;
}

impl<A: Actor> NoEntry for Probe<A> {
    const ENTRY: Entry = Entry { name: entry_name::<A>, describe: describe_only::<A>, start: None };
}

fn describe_only<A: Actor>() -> EntryApi {
    EntryApi {
        name: entry_name::<A>().to_owned(),
        starts: false,
        arguments: Value::Null,
        output: Value::Null,
        messages: A::api().messages,
    }
}

/// The name of an actor type's entry.
pub(crate) fn entry_name<A: Actor>() -> &'static str {
    std::any::type_name::<A>()
}

fn start_default<'a, A>(node: &'a Node, start: &'a WorkerStart) -> Spawned<'a>
where
    A: Actor<Output: Data> + Default,
{
    Box::pin(async move { begin(node, start, A::default()).await })
}

fn start_args<'a, A>(node: &'a Node, start: &'a WorkerStart) -> Spawned<'a>
where
    A: FromArgs + Actor<Output: Data>,
{
    Box::pin(async move {
        let args = arguments::<A::FromArgs>(node, start)?;
        begin(node, start, A::from_args(args)).await
    })
}

fn start_function<'a, P: FunctionProgram>(node: &'a Node, start: &'a WorkerStart) -> Spawned<'a> {
    Box::pin(async move {
        let args = arguments::<P::Args>(node, start)?;
        begin(node, start, move |inbox: Inbox<P::Letters>| P::run(inbox, args)).await
    })
}

fn arguments<T: Data>(node: &Node, start: &WorkerStart) -> Result<T, String> {
    let value = match &start.arguments {
        Value::Null => Value::Object(serde_json::Map::new()),
        given => given.clone(),
    };
    within(node, || serde_json::from_value(value))
        .map_err(|error| format!("the arguments of `{}` are not understood: {error}", start.entry))
}

async fn begin<S, W>(node: &Node, start: &WorkerStart, actor: S) -> Result<Begun, String>
where
    S: Spawn<W, Output: Data>,
    W: 'static,
{
    let Running { address, ended, .. } = node.launch(actor);
    if let Some((name, scope)) = &start.publish {
        let publication = node.publish(name, &address, *scope).await;
        // Withdrawn when the process ends.
        std::mem::forget(publication.map_err(|e| e.to_string())?);
    }
    let (addr, exit) = (address.id(), node.watch(&address));
    let ended = Box::pin(async move {
        let exit = exit.await;
        let output = match ended.await {
            Ok(Ok(output)) => serde_json::to_value(output),
            _ => return WorkerSays::Ended { exit, output: None },
        };
        match output {
            Ok(output) => WorkerSays::Ended { exit, output: Some(output) },
            Err(error) => {
                let exit = Exit::Failed(format!("what it left cannot be encoded: {error}"));
                WorkerSays::Ended { exit, output: None }
            }
        }
    });
    Ok((addr, ended))
}

/// Says something to the parent.
fn say(parent: &mut UnixStream, what: &WorkerSays) -> Result<(), String> {
    let mut line = serde_json::to_vec(what).map_err(|e| e.to_string())?;
    line.push(b'\n');
    parent.write_all(&line).map_err(|e| format!("cannot answer the parent process: {e}"))
}

/// Runs this process as the worker that its parent asked for, until it has ended, the parent says stop
/// or is gone, or a signal asks it to stop.
pub(crate) fn run_worker(start: &str) -> Result<(), String> {
    let start: WorkerStart = serde_json::from_str(start)
        .map_err(|e| format!("`{WORKER_ARGUMENT}` is for worker processes only: {e}"))?;
    start.limits.apply()?;
    wait_for_turns();
    // The standard input is a socket to the parent: its end is the parent's end.
    let control = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let control = control.map_err(|e| format!("cannot reach the parent process: {e}"))?;
    // What this process starts must not hold the socket open when it is gone itself.
    let nothing = std::fs::File::open("/dev/null").map_err(|e| format!("no `/dev/null`: {e}"))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|e| format!("cannot close the input: {e}"))?;
    let mut parent = control.try_clone().map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start a runtime: {e}"))?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    watch_parent(control, stop).map_err(|e| format!("cannot watch the parent process: {e}"))?;
    let result = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|e| format!("cannot listen for signals: {e}"))?;
        let directory = start.directory.clone().unwrap_or_else(DirectoryConfig::from_env);
        let config =
            NodeConfig { mesh: Some(start.mesh.clone()), directory, ..NodeConfig::default() };
        let started = Node::start_as(config, start.node).await;
        let node = started.map_err(|e| crate::run::chain(&e))?;
        let begun = match Entry::find(&start.entry) {
            Ok(Entry { start: Some(begin), .. }) => begin(&node, &start).await,
            Ok(_) => Err(format!("`{}` cannot be made from nothing", start.entry)),
            Err(reason) => Err(reason),
        };
        let (addr, mut ended) = match begun {
            Ok(begun) => begun,
            Err(reason) => {
                say(&mut parent, &WorkerSays::Failed(reason))?;
                node.close().await;
                return Ok(());
            }
        };
        say(&mut parent, &WorkerSays::Ready(addr))?;
        let end = tokio::select! {
            end = &mut ended => Some(end),
            _ = stopped => None,
            _ = terminate.recv() => {
                // First of all, so that it is given nothing more.
                say(&mut parent, &WorkerSays::Leaving)?;
                None
            }
        };
        let end = match end {
            Some(end) => {
                node.close().await;
                end
            }
            // It ends as its node closes.
            None => tokio::join!(ended, node.close()).0,
        };
        say(&mut parent, &end)
    });
    // Work on other threads that does not end by itself is left behind.
    runtime.shutdown_background();
    result
}

/// Has this process wait for its turn on a processor instead of interrupting whoever runs there. Its share
/// of them stays the same. A worker that interrupts who asks it is woken for each request; one that waits
/// finds several, and where processors are scarce that is worth a fifth of all requests (`docs/performance.md`).
/// What it starts inherits this.
fn wait_for_turns() {
    #[cfg(target_os = "linux")]
    {
        use preempt_rt::sched::{Pid, Scheduler, SchedulerParams, get_scheduler};
        let usual = get_scheduler(Pid::current_thread());
        // Whoever has chosen another policy for its processes keeps it.
        if matches!(usual, Ok(Scheduler::SCHED_NORMAL)) {
            let batch = Scheduler::SCHED_BATCH.with_params(SchedulerParams { priority: 0 });
            if let Err(error) = batch.set_current() {
                tracing::debug!(%error, "the worker keeps its scheduling policy");
            }
        }
    }
}

/// Watches the parent on a thread of its own, so that no handler can delay it: a byte is an orderly
/// stop, the end of the stream is the parent's death.
fn watch_parent(
    mut control: UnixStream,
    stop: tokio::sync::oneshot::Sender<()>,
) -> std::io::Result<()> {
    use std::io::Read;
    std::thread::Builder::new().name("layercake-parent".to_owned()).spawn(move || {
        let mut byte = [0];
        let mut stop = Some(stop);
        loop {
            match control.read(&mut byte) {
                // After the first only the parent's death is of interest.
                Ok(1) => drop(stop.take().map(|stop| stop.send(()))),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        // At once and without a chance to hang: the parent is gone, or it has stopped waiting.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    })?;
    Ok(())
}
