//! The node: a process's membership of the mesh, and the owner of its actors.
//!
//! It holds the wire and the directory, spawns actors and ends them, and hands what links bring to
//! their mailboxes. Several nodes may live in one process, as they do in tests.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use layercake_directory::{
    self as directory, Directory, DirectoryConfig, EngineError, GROUP_VARIABLE, Group, GroupError,
};
use layercake_wire::{
    Carrier, Endpoint, EndpointConfig, FailureCode, InHand, Inbound, Link, LinkDown, Receive,
    Service, StartError,
    id::{ActorAddr, ActorSerial, NodeAddr, NodeId, PeerId},
    payload::{Fingerprint, Tag},
    trust::{Mesh, TrustError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    actor::{Actor, Life, Running, Spawn, Strategy, SupervisorBuilder},
    address::Address,
    agent::{AGENT, Agent},
    clock,
    dead::{DeadLetters, Office, Why},
    deadline::Deadlines,
    exit::Exit,
    fate::Fates,
    here::{Scoped, within},
    mailbox::{Inlet, Mailbox},
    packet::Parcel,
    pool::PoolBuilder,
    pools::Pools,
    story::{MAX_LOOKED_AT, NodeStory},
    table::Table,
};

/// How long closing a node waits for its actors before it ends them in the middle of a message.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// A node that leaves goes on until nothing has come for so long after its names were withdrawn, and no
/// longer than this.
const QUIET: Duration = Duration::from_millis(100);
const LINGER: Duration = Duration::from_millis(500);
/// What is kept of [`STOP_GRACE`] for the end of the actors, when what is in hand takes long.
const LAST: Duration = Duration::from_secs(1);

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The mesh folder; by default `$LAYERCAKE_MESH`, else the user's configuration folder. A mesh
    /// is made there where none is.
    pub mesh: Option<PathBuf>,
    /// How the directory finds other hosts, and the group of this node; where that is `None`, what
    /// `LAYERCAKE_GROUP` says. Child processes inherit the group.
    pub directory: DirectoryConfig,
    /// What carries the links of this node; by default a thread of their own.
    pub carrier: Carrier,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let directory = DirectoryConfig::from_env();
        Self { mesh: None, directory, carrier: Carrier::default() }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The mesh folder is not usable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The wire does not start.
    #[error(transparent)]
    Wire(#[from] StartError),
    /// The directory cannot be as it was configured, as by `LAYERCAKE_DIRECTORY`.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// `LAYERCAKE_GROUP` names no group.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// A process's membership of the mesh. A clone is another handle.
///
/// It lives until [`close`](Self::close): its actors hold it, so dropping the handles does not end it.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    directory: Directory,
    switch: Arc<Switch>,
    deadlines: Arc<Deadlines>,
    serial: AtomicU64,
    stopping: CancellationToken,
    stop: CancellationToken,
    /// Tasks that are no actors.
    tasks: TaskTracker,
    pools: Pools,
    started: Instant,
}

/// Where the wire puts what it brings.
struct Switch {
    node: OnceLock<Weak<Inner>>,
    directory: directory::Inlet,
    fates: Fates,
    actors: Table,
    office: Office,
    in_hand: Arc<InHand>,
    /// Whether messages from elsewhere are turned away, for the node leaves.
    leaving: AtomicBool,
}

impl Switch {
    fn node(&self) -> Option<Node> {
        self.node.get().and_then(Weak::upgrade).map(Node)
    }
}

impl Receive for Switch {
    fn on_up(&self, link: Link) {
        self.fates.on_up(self.node(), &link);
        self.directory.on_up(link);
    }

    fn on_down(&self, link: &Link, down: LinkDown) {
        self.fates.on_down(link, &down);
        self.directory.on_down(link, down);
    }

    fn on_post(&self, from: &Link, service: Service, body: Bytes) {
        self.directory.on_post(from, service, body);
    }

    fn on_datagram(&self, from: &Link, body: Bytes) {
        self.directory.on_datagram(from, body);
    }

    fn on_message(&self, mut message: Inbound) {
        let mut inlet = self.actors.get(message.to).filter(|inlet| inlet.exported(false));
        // The agent serves to the last, and whoever watches an actor by it waits for the very end.
        if message.to != AGENT {
            if self.leaving.load(Ordering::Acquire) {
                inlet = None;
            }
            message.kind.hold(self.in_hand.take());
        }
        let parcel = Parcel::inbound(message);
        if let Some(inlet) = inlet {
            return inlet.deliver(parcel, false);
        }
        let end = || parcel.end(FailureCode::Stopped, "there is no such actor (any more)");
        match self.node() {
            Some(node) => within(&node, end),
            None => end(),
        }
    }
}

impl Node {
    /// Starts a node in the default mesh folder; a mesh is made there where none is.
    ///
    /// # Errors
    /// [`NodeError`] says which folder or socket is not usable.
    pub async fn start() -> Result<Self, NodeError> {
        Self::start_with(NodeConfig::default()).await
    }

    /// Starts a node.
    ///
    /// # Errors
    /// [`NodeError`] says which folder or socket is not usable.
    pub async fn start_with(config: NodeConfig) -> Result<Self, NodeError> {
        Self::start_as(config, NodeId::random()).await
    }

    /// Starts a node whose identity a parent process has chosen.
    pub(crate) async fn start_as(mut config: NodeConfig, id: NodeId) -> Result<Self, NodeError> {
        if config.directory.group.is_none() {
            config.directory.group = Group::from_env()?;
        }
        let folder = match config.mesh {
            Some(folder) => folder,
            None => Mesh::default_folder()?,
        };
        let mesh = Mesh::open_or_init(&folder)?;
        let endpoint = EndpointConfig { mesh, node: id, carrier: config.carrier };
        let wire = |receive| Endpoint::start(endpoint, receive);
        Self::start_on(wire, config.directory)
    }

    /// Starts a node on a wire that is yet to be started.
    pub(crate) fn start_on(
        wire: impl FnOnce(Arc<dyn Receive>) -> Result<Endpoint, StartError>,
        config: DirectoryConfig,
    ) -> Result<Self, NodeError> {
        config.check()?;
        let (inlet, outlet) = directory::inlet();
        let switch = Arc::new(Switch {
            node: OnceLock::new(),
            directory: inlet,
            fates: Fates::default(),
            actors: Table::new(),
            office: Office::new(),
            in_hand: Arc::default(),
            leaving: AtomicBool::new(false),
        });
        let endpoint = wire(switch.clone())?;
        let directory = Directory::start(endpoint.clone(), outlet, config);
        let telling = switch.clone();
        directory.tell(move || telling.node().map(|node| node.story().told()).unwrap_or_default());
        let stop = CancellationToken::new();
        let deadlines = Arc::new(Deadlines::new());
        let (watch, until) = (deadlines.clone(), stop.clone());
        endpoint.spawn_io(async move {
            // What is asked of a closing node has its deadline too.
            let grace = async {
                until.cancelled().await;
                tokio::time::sleep(2 * STOP_GRACE).await;
            };
            tokio::select! {
                () = watch.keep() => {}
                () = grace => {}
            }
        });
        let inner = Inner {
            endpoint,
            directory,
            switch: switch.clone(),
            deadlines,
            serial: AtomicU64::new(AGENT),
            stopping: stop.child_token(),
            stop,
            tasks: TaskTracker::new(),
            pools: Pools::default(),
            started: clock::now(),
        };
        let node = Self(Arc::new(inner));
        let _ = switch.node.set(Arc::downgrade(&node.0));
        // The first actor has the number 0, and is known to all.
        if let Some(agent) = node.spawn(Agent::new()).inlet() {
            node.export(agent);
        }
        Ok(node)
    }

    /// Who this node is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0.endpoint.peer()
    }

    /// This node as others may reach it now.
    #[must_use]
    pub fn addr(&self) -> NodeAddr {
        self.0.endpoint.addr()
    }

    /// The mesh that it belongs to.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        self.0.endpoint.mesh()
    }

    /// The group that it belongs to, for [`Scope::Group`](directory::Scope::Group).
    #[must_use]
    pub fn group(&self) -> Option<&Group> {
        self.0.directory.group()
    }

    /// What puts a child process into the same group.
    pub(crate) fn group_variable(&self) -> Option<(&'static str, String)> {
        self.group().map(|group| (GROUP_VARIABLE, group.to_string()))
    }

    /// Its directory, for what the methods of the node do not cover.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Its wire.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Messages without an asker that could not be handled, since the start.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.0.switch.office.count()
    }

    /// Shows each dead letter from now on.
    #[must_use]
    pub fn watch_dead_letters(&self) -> DeadLetters {
        self.0.switch.office.watch()
    }

    pub(crate) fn dead_letter(&self, tag: Tag, name: Option<&'static str>, why: Why) {
        self.0.switch.office.take(tag, name, why);
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.0.deadlines
    }

    /// How many actors live in this node, its agent not counted.
    #[must_use]
    pub fn actors(&self) -> usize {
        self.0.switch.actors.len().saturating_sub(1)
    }

    /// Starts an actor on the present runtime: a type with handlers, a machine, or a function with an
    /// inbox.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<S, W>(&self, actor: S) -> Address<S::Takes>
    where
        S: Spawn<W>,
        W: 'static,
    {
        self.put_up(actor, None, None)
    }

    /// As [`spawn`](Self::spawn), to be joined for what the actor leaves.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn launch<S, W>(&self, actor: S) -> Running<S::Takes, S::Output>
    where
        S: Spawn<W>,
        W: 'static,
    {
        self.launch_under(actor, None)
    }

    /// Begins a supervisor, of which the node is the parent.
    pub fn supervise(&self, strategy: Strategy) -> SupervisorBuilder<'static> {
        SupervisorBuilder::new(self.clone(), strategy, None, None)
    }

    pub(crate) fn launch_under<S, W>(
        &self,
        actor: S,
        parent: Option<Arc<dyn Inlet>>,
    ) -> Running<S::Takes, S::Output>
    where
        S: Spawn<W>,
        W: 'static,
    {
        let (told, ended) = tokio::sync::oneshot::channel();
        let address = self.put_up(actor, parent, Some(told));
        let control = address.inlet().cloned();
        Running { address, ended, control }
    }

    fn put_up<S, W>(
        &self,
        actor: S,
        parent: Option<Arc<dyn Inlet>>,
        told: Option<Told<S::Output>>,
    ) -> Address<S::Takes>
    where
        S: Spawn<W>,
        W: 'static,
    {
        let (mailbox, run) = self.prepare(actor, parent, told);
        let task = tokio::spawn(run);
        mailbox.set_abort(task.abort_handle());
        Address::here(mailbox)
    }

    /// Starts an actor on a thread of its own, where a handler may block or burn CPU without delaying
    /// anybody else.
    ///
    /// # Errors
    /// When the system grants no further thread.
    pub fn spawn_thread<S, W>(&self, actor: S) -> std::io::Result<Address<S::Takes>>
    where
        S: Spawn<W>,
        W: 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mailbox, run) = self.prepare(actor, None, None);
        let started = std::thread::Builder::new()
            .name(format!("layercake-{}", S::kind()))
            .spawn(move || runtime.block_on(run));
        started.map(|_| Address::here(mailbox))
    }

    fn prepare<S, W>(
        &self,
        actor: S,
        parent: Option<Arc<dyn Inlet>>,
        told: Option<Told<S::Output>>,
    ) -> (Arc<Mailbox<S::Mail>>, Scoped<impl Future<Output = ()> + Send + use<S, W>>)
    where
        S: Spawn<W>,
        W: 'static,
    {
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox::new(serial, S::kind(), self.clone(), parent));
        self.0.switch.actors.insert(mailbox.clone());
        if self.0.stop.is_cancelled() {
            mailbox.stop();
        }
        let mut life = Life::new(mailbox.clone());
        let run = async move {
            let (exit, output) = actor.live(&mut life).await;
            life.conclude(exit.clone());
            if let Some(told) = told {
                let _ = told.send(output.ok_or(exit));
            }
        };
        (mailbox, Scoped::new(run, self.clone(), None).of_actor(serial))
    }

    /// Lets other nodes reach an actor: its address is about to leave this process.
    pub(crate) fn export(&self, inlet: &Arc<dyn Inlet>) {
        if !inlet.exported(true) {
            let messages = inlet.api().messages;
            // What only travels as JSON has no fingerprint.
            let fingerprints = messages.iter().map(|m| m.fingerprint);
            self.0.endpoint.announce(fingerprints.filter(|f| *f != Fingerprint::NONE));
        }
    }

    pub(crate) fn forget(&self, serial: ActorSerial) {
        self.0.switch.actors.remove(serial);
    }

    /// An actor that other nodes may reach.
    pub(crate) fn find(&self, serial: ActorSerial) -> Option<Arc<dyn Inlet>> {
        self.0.switch.actors.get(serial).filter(|inlet| inlet.exported(false))
    }

    /// Makes an address that was read outside of any node, from a file say, one of this node.
    #[must_use]
    pub fn bind<T: ?Sized>(&self, addr: ActorAddr) -> Address<T> {
        Address::bound(addr, Some(self), None)
    }

    /// Begins a pool of workers of one type.
    pub fn pool<A: Actor>(&self) -> PoolBuilder<A> {
        PoolBuilder::new(self.clone())
    }

    /// Becomes ready when the node has been asked to stop, by a signal or by
    /// [`begin_stop`](Self::begin_stop).
    pub async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Asks everything in this node to finish: front doors close, pools take no new work.
    pub fn begin_stop(&self) {
        self.0.stopping.cancel();
    }

    /// Cancelled when the node closes: what serves until then hangs from it.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Ends the node in order. Its names are withdrawn; it goes on until others have noticed that, which
    /// is over when nothing has come for a tenth of a second, and at most half a second; it finishes what
    /// it has from them, and answers the rest `Stopped`. Then its pools drain, its actors finish their
    /// present message and end, children before parents, and its links say goodbye. Up to here it takes
    /// [`STOP_GRACE`] at most. Other handles are of no use afterwards.
    pub async fn close(&self) {
        let deadline = clock::after(STOP_GRACE);
        self.begin_stop();
        self.0.directory.withdraw_all();
        self.finish_in_hand(deadline - LAST).await;
        self.0.stop.cancel();
        let actors = &self.0.switch.actors;
        // Children are their parents' to stop.
        let roots = actors.all().into_iter().filter(|inlet| inlet.parent().is_none());
        roots.filter(|inlet| inlet.serial() != AGENT).for_each(|inlet| inlet.stop());
        self.0.tasks.close();
        let ended = async {
            tokio::join!(actors.down_to(1), self.0.tasks.wait());
        };
        if tokio::time::timeout_at(deadline.into(), ended).await.is_err() {
            tracing::warn!(
                left = self.actors(),
                "actors did not end within {STOP_GRACE:?}; ending them"
            );
            for inlet in actors.all() {
                inlet.abort();
            }
        }
        // The agent last, for it tells others how the actors have ended.
        if let Some(agent) = actors.get(AGENT) {
            agent.stop();
            let _ = tokio::time::timeout(Duration::from_millis(100), actors.down_to(0)).await;
        }
        // Last, for worker processes say goodbye to the directory that may be in this node.
        self.0.directory.close().await;
        self.0.endpoint.close().await;
    }

    /// Serves on while those that know its names are told, and answers what has come until then.
    async fn finish_in_hand(&self, deadline: Instant) {
        let switch = &self.0.switch;
        let until = clock::after(LINGER);
        let mut known = switch.in_hand.arrivals();
        // Of whom nothing was ever asked, nothing will be.
        while known > 0 && clock::now() < until {
            tokio::time::sleep(QUIET).await;
            if std::mem::replace(&mut known, switch.in_hand.arrivals()) == known {
                break;
            }
        }
        switch.leaving.store(true, Ordering::Release);
        let finished = tokio::time::timeout_at(deadline.into(), switch.in_hand.none()).await;
        if finished.is_err() {
            let left = switch.in_hand.count();
            tracing::warn!(left, "messages from other nodes were still in hand at the end");
        }
    }

    /// Ends everything in the node in the middle of what it does, as the end of its process would.
    pub(crate) fn fall(&self) {
        self.begin_stop();
        self.0.stop.cancel();
        self.0.tasks.close();
        for inlet in self.0.switch.actors.all() {
            inlet.abort();
        }
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// What this node tells of its inside to those who look at the mesh.
    pub(crate) fn story(&self) -> NodeStory {
        let uptime = clock::now().saturating_duration_since(self.0.started);
        let looked_at = self.0.switch.actors.some(MAX_LOOKED_AT);
        let pools = self.0.pools.show();
        NodeStory::new(uptime, self.actors(), &looked_at, self.dead_letters(), pools)
    }

    pub(crate) fn pool_registry(&self) -> &Pools {
        &self.0.pools
    }

    pub(crate) fn fates(&self) -> &Fates {
        &self.0.switch.fates
    }
}

/// Where it is told what an actor has left.
type Told<R> = tokio::sync::oneshot::Sender<Result<R, Exit>>;

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.peer())
    }
}
