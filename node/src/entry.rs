//! Entry points: which actors of this binary a child process can be started as.
//!
//! `#[actor]` submits an [`Entry`] for each actor type; a pool of processes starts the same binary
//! with [`WORKER_ARGUMENT`] first, and [`crate::run::run_main`] then runs that entry instead of the
//! program. (An environment variable would be inherited by whatever the worker starts.)

use std::{io::Write, os::fd::AsFd, os::unix::net::UnixStream, path::PathBuf, pin::Pin};

use layercake_wire::id::{ActorAddr, NodeId};
use serde::{Deserialize, Serialize};

use crate::{
    actor::Actor,
    node::{Node, NodeConfig},
};

/// The first argument of a process that is a worker of its parent; the second one says which.
pub(crate) const WORKER_ARGUMENT: &str = "layercake-worker";

/// What a parent tells the worker process that it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerStart {
    /// The entry's name.
    pub(crate) entry: String,
    /// The mesh folder of the parent.
    pub(crate) mesh: PathBuf,
    /// The identity chosen for the worker's node.
    pub(crate) node: NodeId,
    /// A name under which the worker publishes itself, and the scope.
    pub(crate) publish: Option<(String, layercake_directory::Scope)>,
}

/// What a worker process tells its parent when it can work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WorkerReady {
    Ready(ActorAddr),
    Failed(String),
}

type Spawned<'a> = Pin<Box<dyn Future<Output = Result<ActorAddr, String>> + Send + 'a>>;

/// An actor type that a child process can be started as.
pub struct Entry {
    name: fn() -> &'static str,
    /// Absent where the type has no `Default`.
    start: Option<for<'a> fn(&'a Node, &'a WorkerStart) -> Spawned<'a>>,
}

inventory::collect!(Entry);

impl Entry {
    /// The entry of an actor type.
    #[must_use]
    pub const fn of<A: Actor + Default>() -> Self {
        Self { name: entry_name::<A>, start: Some(start::<A>) }
    }
}

/// Finds out whether a type can be an entry: its own constant is there only where the type has a
/// `Default`, and comes before the one of [`NoEntry`].
pub struct Probe<A>(std::marker::PhantomData<A>);

impl<A: Actor + Default> Probe<A> {
    /// The entry of the type.
    pub const ENTRY: Entry = Entry::of::<A>();
}

/// What every type has: an entry that cannot be started.
pub trait NoEntry {
    /// The entry.
    const ENTRY: Entry;
}

impl<A: Actor> NoEntry for Probe<A> {
    const ENTRY: Entry = Entry { name: entry_name::<A>, start: None };
}

/// The name of an actor type's entry.
pub(crate) fn entry_name<A: Actor>() -> &'static str {
    std::any::type_name::<A>()
}

fn start<'a, A: Actor + Default>(node: &'a Node, start: &'a WorkerStart) -> Spawned<'a> {
    Box::pin(async move {
        let address = node.spawn(A::default());
        if let Some((name, scope)) = &start.publish {
            let publication = node.publish(name, &address, *scope).await;
            // Withdrawn when the process ends.
            std::mem::forget(publication.map_err(|e| e.to_string())?);
        }
        Ok(address.id())
    })
}

/// Runs this process as the worker that its parent asked for, until the parent says stop or is gone.
pub(crate) fn run_worker(start: &str) -> Result<(), String> {
    let start: WorkerStart = serde_json::from_str(start)
        .map_err(|e| format!("`{WORKER_ARGUMENT}` is for worker processes only: {e}"))?;
    // The standard input is a socket to the parent: its end is the parent's end.
    let control = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let control = control.map_err(|e| format!("cannot reach the parent process: {e}"))?;
    let mut answer = control.try_clone().map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start a runtime: {e}"))?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    watch_parent(control, stop).map_err(|e| format!("cannot watch the parent process: {e}"))?;
    runtime.block_on(async {
        let config = NodeConfig { mesh: Some(start.mesh.clone()), ..NodeConfig::default() };
        let started = Node::start_as(config, start.node).await;
        let node = started.map_err(|e| crate::run::chain(&e))?;
        let entry = inventory::iter::<Entry>.into_iter().find(|e| (e.name)() == start.entry);
        let ready = match entry.and_then(|entry| entry.start) {
            Some(begin) => match begin(&node, &start).await {
                Ok(addr) => WorkerReady::Ready(addr),
                Err(reason) => WorkerReady::Failed(reason),
            },
            None => WorkerReady::Failed(format!("this binary has no actor `{}`", start.entry)),
        };
        let failed = matches!(ready, WorkerReady::Failed(_));
        let mut line = serde_json::to_vec(&ready).map_err(|e| e.to_string())?;
        line.push(b'\n');
        answer.write_all(&line).map_err(|e| format!("cannot answer the parent process: {e}"))?;
        if !failed {
            let _ = stopped.await;
        }
        node.close().await;
        Ok(())
    })
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
        if matches!(control.read(&mut byte), Ok(1)) {
            let _ = stop.send(());
            // From here on only the parent's death is of interest.
            while matches!(control.read(&mut byte), Ok(1)) {}
        }
        // At once and without a chance to hang: the parent is gone, or it has stopped waiting.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    })?;
    Ok(())
}
