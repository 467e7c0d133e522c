//! The directory as a node uses it: publish, subscribe, and who is there.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use layercake_wire::{
    Endpoint, INTERFACES_VARIABLE, Interfaces, StartError,
    id::{ActorSerial, PeerId},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::{
    agent::Draft,
    etcd::{Engine, EngineError},
    group::{GROUP_VARIABLE, Group},
    inlet::{Inlet, Input, Outlet},
    membership::PATIENCE,
    message::{HostView, Refusal},
    name::{Name, Pattern, Scope},
    network::NetworkEvent,
    overview::MAX_EVENTS,
    presence::NodeGone,
    publication::{Claim, Publication, Standing},
    queue::{Event, Queue},
    record::{MAX_META, MAX_RECORDS, MAX_SUBSCRIPTIONS, Record},
    seeds::{DEFAULT_PORT, SEEDS_VARIABLE, split_seeds},
    shell,
    trouble::{MAX_TROUBLES, Trouble, Troubles},
};

/// How long a claim waits for a host directory that says nothing. One is found or made within
/// milliseconds; beyond this something is broken.
pub const PUBLISH_TIME: Duration = Duration::from_secs(10);

/// How long the host directory may take to say what does not work.
const TROUBLES_TIME: Duration = Duration::from_secs(1);

/// The environment variable that says which ways of finding other hosts are used: some of `mdns`, `seeds`
/// (those of [`SEEDS_VARIABLE`](crate::SEEDS_VARIABLE) and of the mesh folder's file) and `peers`, with
/// commas between; `none` for none.
pub const DISCOVERY_VARIABLE: &str = "LAYERCAKE_DISCOVERY";

/// How a directory looks for other hosts. All ways are used at once; each can be switched off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectoryConfig {
    /// Where other hosts may be, `host[:port]`, for networks without multicast. A name that stands for
    /// several addresses stands for several hosts. At most [`MAX_SEEDS`](crate::MAX_SEEDS).
    pub seeds: Vec<String>,
    /// Whether the file [`seeds`](crate::SEEDS_FILE) of the mesh folder is used, too.
    pub seeds_file: bool,
    /// Whether to announce and browse by mDNS; in an in-memory network, by the network's own list.
    pub mdns: bool,
    /// Whether other hosts are remembered in the mesh folder and dialled after a restart.
    pub remember: bool,
    /// The UDP port that the host directory listens on, where it is free.
    pub port: u16,
    /// How the hosts know of each other. With etcd, seeds and mDNS are not used. Where it cannot be
    /// used, no node starts with it.
    pub engine: Result<Engine, EngineError>,
    /// The group that this node belongs to, for [`Scope::Group`]. `None`: in no group. (Where a whole
    /// node is started, what `LAYERCAKE_GROUP` says.)
    pub group: Option<Group>,
    /// The interfaces on which this host is announced and whose addresses others are told.
    pub interfaces: Interfaces,
    /// What of the settings was not understood; told among the [troubles](Directory::troubles).
    pub complaints: Vec<String>,
    /// Within this time a host that has failed is noticed: [`PATIENCE`](crate::PATIENCE) is for a LAN;
    /// more is for networks that break off for seconds, less for those who know theirs. The probes are
    /// as much rarer, or more frequent. At least [`MIN_PATIENCE`](crate::MIN_PATIENCE) and at most
    /// [`MAX_PATIENCE`](crate::MAX_PATIENCE). All hosts of a mesh should have the same. The end of a
    /// process whose host lives is noticed at once, whatever this is.
    pub patience: Duration,
}

impl DirectoryConfig {
    /// Whether a directory can be started with it.
    ///
    /// # Errors
    /// [`EngineError`] says which value cannot be used.
    pub fn check(&self) -> Result<(), EngineError> {
        self.engine.as_ref().map_err(Clone::clone)?.check()
    }

    /// What the environment says: `LAYERCAKE_SEEDS`, `LAYERCAKE_DISCOVERY`, `LAYERCAKE_INTERFACES`, and the
    /// engine that `LAYERCAKE_DIRECTORY` names. Otherwise everything is used, and the default port. What is not understood there is passed over and told.
    #[must_use]
    pub fn from_env() -> Self {
        let engine = Engine::from_env();
        Self { engine, ..Self::from_variables(|name| std::env::var(name).ok()) }
    }

    fn from_variables(read: impl Fn(&str) -> Option<String>) -> Self {
        let mut config = Self { seeds_file: true, remember: true, ..Self::in_memory() };
        let mut complaints = Vec::new();
        if let Some(seeds) = read(SEEDS_VARIABLE) {
            config.seeds = split_seeds(&seeds);
        }
        if let Some(text) = read(DISCOVERY_VARIABLE) {
            let words: Vec<_> = text.split([',', ' ']).filter(|word| !word.is_empty()).collect();
            let known = |word: &&str| ["mdns", "seeds", "peers", "none"].contains(word);
            if let Some(unknown) = words.iter().find(|word| !known(word)) {
                complaints.push(format!(
                    "`{unknown}` in {DISCOVERY_VARIABLE} is none of mdns, seeds, peers, none; the \
                     variable is passed over"
                ));
            } else if !words.is_empty() {
                config.mdns = words.contains(&"mdns");
                config.remember = words.contains(&"peers");
                config.seeds_file = words.contains(&"seeds");
                if !config.seeds_file {
                    config.seeds.clear();
                }
            }
        }
        if let Some(text) = read(INTERFACES_VARIABLE) {
            match text.parse() {
                Ok(interfaces) => config.interfaces = interfaces,
                Err(error) => complaints.push(format!("{INTERFACES_VARIABLE}: {error}")),
            }
        }
        config.complaints = complaints;
        config
    }

    /// For a node of an in-memory network: hosts find each other there, and nothing is asked of the
    /// environment, a folder or a resolver.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            seeds: Vec::new(),
            seeds_file: false,
            mdns: true,
            remember: false,
            port: DEFAULT_PORT,
            engine: Ok(Engine::Gossip),
            group: None,
            interfaces: Interfaces::default(),
            complaints: Vec::new(),
            patience: PATIENCE,
        }
    }
}

/// What to publish.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The name.
    pub name: Name,
    /// How far it is visible.
    pub scope: Scope,
    /// Whether nobody else may have the name in that scope.
    pub exclusive: bool,
    /// The actor of this node that is behind it.
    pub actor: ActorSerial,
    /// A description for those who find it; at most [`MAX_META`] bytes.
    pub meta: Bytes,
}

/// Why a name was not published. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotPublished {
    /// Somebody else has the name, or is about to have it: exclusively, or it was claimed exclusively
    /// here. Pick another name, publish it shared, or [`claim`](Directory::claim) it, which waits.
    #[error(
        "`{}` is held at scope {} by node {} on host {}",
        .0.name, .0.scope, .0.instance.node.short(), .0.instance.host.short()
    )]
    Held(Arc<Record>),
    /// The name is one of the system's: its first field is `layercake`. Pick another one.
    #[error("`{0}` belongs to the system; use another first field")]
    Reserved(Name),
    /// This node is in no group: it was started without one, and `LAYERCAKE_GROUP` is not set.
    #[error(
        "scope group needs a group, and this node is in none: set {GROUP_VARIABLE}, or use another scope"
    )]
    Group,
    /// The node has [`MAX_RECORDS`] publications.
    #[error("this node has {MAX_RECORDS} publications already; withdraw some")]
    TooMany,
    /// The description is larger than [`MAX_META`].
    #[error("the description of `{name}` has {size} bytes; at most {MAX_META} are allowed")]
    MetaTooLarge {
        /// The name.
        name: Name,
        /// The size of its description.
        size: usize,
    },
    /// With etcd: an exclusive name for the whole mesh is granted by etcd alone, and the directory of
    /// this host could not reach it for some seconds. Try again.
    #[error(
        "etcd cannot be reached, which alone grants exclusive names for the whole mesh; try again"
    )]
    NoLease,
    /// Other hosts could not reach this node.
    #[error("cannot be reached by other hosts")]
    Listen(#[source] StartError),
    /// There is no host directory and none can be made.
    #[error("no host directory after {PUBLISH_TIME:?}: {0}")]
    NoDirectory(String),
    /// The directory is closed.
    #[error("this node's directory is closed")]
    Closed,
}

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSubscribed {
    /// This node is in no group: it was started without one, and `LAYERCAKE_GROUP` is not set.
    #[error(
        "scope group needs a group, and this node is in none: set {GROUP_VARIABLE}, or use another scope"
    )]
    Group,
    /// The pattern is one of the system's own.
    #[error("the pattern belongs to the system")]
    Reserved,
    /// The node has [`MAX_SUBSCRIPTIONS`] subscriptions.
    #[error("this node has {MAX_SUBSCRIPTIONS} subscriptions already; drop some")]
    TooMany,
    /// The directory is closed.
    #[error("this node's directory is closed")]
    Closed,
}

pub(crate) type Granted = Result<watch::Receiver<Standing>, NotPublished>;

pub(crate) struct PublishCall {
    pub(crate) draft: Draft,
    /// Whether it is put in line while somebody else holds the name.
    pub(crate) waits: bool,
    pub(crate) answer: oneshot::Sender<Granted>,
}

pub(crate) struct SubscribeCall {
    pub(crate) id: u64,
    pub(crate) pattern: Pattern,
    pub(crate) scope: Scope,
    pub(crate) feed: Arc<Feed>,
    pub(crate) answer: oneshot::Sender<Result<(), NotSubscribed>>,
}

pub(crate) struct WatchCall {
    pub(crate) id: u64,
    pub(crate) peer: PeerId,
    pub(crate) answer: oneshot::Sender<NodeGone>,
}

/// What a subscription and the directory's task share.
#[derive(Default)]
pub(crate) struct Feed {
    queue: Mutex<Queue>,
    closed: AtomicBool,
    notify: Notify,
}

impl Feed {
    pub(crate) fn push(&self, event: Event) {
        self.queue().push(event);
        self.notify.notify_one();
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the task shows to everybody.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) holder: watch::Sender<bool>,
    /// Counts what the host directory says.
    pub(crate) progress: AtomicU64,
    /// Why there is no host directory.
    pub(crate) trouble: Mutex<String>,
    troubles: Mutex<Troubles>,
    /// What happens in the mesh.
    pub(crate) events: broadcast::Sender<NetworkEvent>,
    /// What the node tells of itself.
    story: OnceLock<Teller>,
}

/// Tells what a node tells of itself.
struct Teller(Box<dyn Fn() -> String + Send + Sync>);

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

impl Default for Status {
    fn default() -> Self {
        Self {
            holder: watch::Sender::default(),
            progress: AtomicU64::new(0),
            trouble: Mutex::default(),
            troubles: Mutex::default(),
            events: broadcast::Sender::new(MAX_EVENTS),
            story: OnceLock::new(),
        }
    }
}

impl Status {
    pub(crate) fn troubles(&self) -> std::sync::MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn story(&self) -> String {
        self.story.get().map(|Teller(tell)| tell()).unwrap_or_default()
    }
}

/// The directory of a node. A clone is another handle. Until something beyond this process is
/// published or asked for it does nothing at all: no socket, no multicast, no QUIC.
#[derive(Clone)]
pub struct Directory {
    pub(crate) endpoint: Endpoint,
    pub(crate) inlet: Inlet,
    config: Arc<DirectoryConfig>,
    pub(crate) status: Arc<Status>,
    next: Arc<AtomicU64>,
    _last: Arc<Last>,
}

/// Closes the directory with its last handle.
struct Last(Inlet);

impl Drop for Last {
    fn drop(&mut self) {
        let (answer, _) = oneshot::channel();
        self.0.send(Input::Close(answer));
    }
}

impl Directory {
    /// Starts the directory of a node. What the node's links bring must go into the [`Inlet`] that
    /// belongs to `outlet`. Ends with [`Self::close`], or when the last handle is dropped.
    #[must_use]
    pub fn start(endpoint: Endpoint, outlet: Outlet, config: DirectoryConfig) -> Self {
        let status = Arc::new(Status::default());
        endpoint.set_interfaces(config.interfaces.clone());
        let inlet = outlet.inlet.clone();
        let task = shell::run(endpoint.clone(), outlet, config.clone(), status.clone());
        endpoint.spawn_io(task);
        let last = Arc::new(Last(inlet.clone()));
        let config = Arc::new(config);
        Self { endpoint, inlet, config, status, next: Arc::default(), _last: last }
    }

    /// What this node tells of itself to whoever asks for the [network](Self::network), besides what the
    /// directory knows: a text of at most [`MAX_STORY`](crate::MAX_STORY) bytes, which only readers have to
    /// understand. It is asked for where the links are carried, and must be told at once. Only the first
    /// call counts.
    pub fn tell(&self, story: impl Fn() -> String + Send + Sync + 'static) {
        let _ = self.status.story.set(Teller(Box::new(story)));
    }

    /// The group that this node belongs to.
    #[must_use]
    pub fn group(&self) -> Option<&Group> {
        self.config.group.as_ref()
    }

    /// Claims a name for an actor of this node. A node that publishes and withdraws faster than its
    /// host directory allows (some thousand changes a second, see `docs/limits.md`) waits here.
    ///
    /// # Errors
    /// [`NotPublished`]; [`NotPublished::Held`] says who holds the name.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it withdraws the claim.
    pub async fn publish(&self, publish: Publish) -> Result<Publication, NotPublished> {
        self.put_up(publish, false).await
    }

    /// Claims a name exclusively, and gets in line where somebody else holds it. Whatever
    /// [`Publish::exclusive`] says, the claim is an exclusive one. Of those that wait, on all hosts, the
    /// one that claimed first is granted the name when its holder goes, and hears of it within
    /// milliseconds. (Claims of the same millisecond are served in the order of their instances.)
    ///
    /// With etcd: of those that wait on one host the first is next; between hosts it is whoever reaches
    /// etcd first.
    ///
    /// Returns as soon as the claim is granted or in line.
    ///
    /// # Errors
    /// [`NotPublished`], but for [`NotPublished::Held`].
    ///
    /// # Cancel safety
    /// Dropped before it is done, it withdraws the claim.
    pub async fn claim(&self, publish: Publish) -> Result<Claim, NotPublished> {
        let publication = self.put_up(Publish { exclusive: true, ..publish }, true).await?;
        Ok(Claim::new(publication))
    }

    async fn put_up(&self, publish: Publish, waits: bool) -> Result<Publication, NotPublished> {
        let Publish { name, scope, exclusive, actor, meta } = publish;
        // One that was read from somewhere: by hand it cannot be made.
        if name.is_reserved() {
            return Err(NotPublished::Reserved(name));
        }
        if scope == Scope::Group && self.config.group.is_none() {
            return Err(NotPublished::Group);
        }
        if meta.len() > MAX_META {
            return Err(NotPublished::MetaTooLarge { name, size: meta.len() });
        }
        if scope == Scope::Lan {
            self.endpoint.listen_quic(None).await.map_err(NotPublished::Listen)?;
        }
        let draft = Draft { name, scope, exclusive, actor, meta };
        let (answer, mut granted) = oneshot::channel();
        if !self.inlet.send(Input::Publish(PublishCall { draft, waits, answer })) {
            return Err(NotPublished::Closed);
        }
        let mut heard = self.status.progress.load(Ordering::Relaxed);
        // The task withdraws what nobody waits for any more.
        let standing = loop {
            if let Ok(answer) = tokio::time::timeout(PUBLISH_TIME, &mut granted).await {
                break answer.unwrap_or(Err(NotPublished::Closed))?;
            }
            // A directory that is busy with what this node has said before is there all the same.
            let now = self.status.progress.load(Ordering::Relaxed);
            if std::mem::replace(&mut heard, now) == now {
                return Err(NotPublished::NoDirectory(self.trouble()));
            }
        };
        Ok(Publication::new(standing, self.inlet.clone()))
    }

    /// Asks for every record whose name matches, up to a scope, now and later.
    ///
    /// # Errors
    /// [`NotSubscribed`].
    ///
    /// # Cancel safety
    /// Dropped before it is done, it leaves nothing behind.
    pub async fn subscribe(
        &self,
        pattern: Pattern,
        scope: Scope,
    ) -> Result<Subscription, NotSubscribed> {
        if pattern.is_reserved() {
            return Err(NotSubscribed::Reserved);
        }
        if scope == Scope::Group && self.config.group.is_none() {
            return Err(NotSubscribed::Group);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, done) = oneshot::channel();
        let feed = Arc::new(Feed::default());
        let subscription = Subscription { id, feed: feed.clone(), inlet: self.inlet.clone() };
        let call = SubscribeCall { id, pattern, scope, feed, answer };
        if !self.inlet.send(Input::Subscribe(call)) {
            return Err(NotSubscribed::Closed);
        }
        done.await.unwrap_or(Err(NotSubscribed::Closed))?;
        Ok(subscription)
    }

    /// Lets the directories of all hosts know that this node is there, from now on until it ends: whoever
    /// [watches](Self::watch_node) it is then told at once how it ended, for the directory of this host
    /// notices. Never waits, and says it once, however often it is called. Withdrawn by
    /// [`close`](Self::close).
    pub fn be_present(&self) {
        self.inlet.send(Input::Present);
    }

    /// Makes this node known to the directory of its host, as publishing a name does: from then on who looks
    /// at the [network](Self::network) sees it. One way: it stays so until the node closes.
    pub fn join(&self) {
        self.inlet.send(Input::Join);
    }

    /// Watches for the end of a node anywhere in the mesh, one that is [present](Self::be_present) now
    /// or will be within 5 s. All watches together cost one subscription, which is not counted; there
    /// may be [`MAX_WATCHES`](crate::MAX_WATCHES).
    #[must_use]
    pub fn watch_node(&self, peer: PeerId) -> NodeWatch {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, gone) = oneshot::channel();
        self.inlet.send(Input::Watch(WatchCall { id, peer, answer }));
        NodeWatch { id, gone: Ok(gone), inlet: self.inlet.clone() }
    }

    /// Makes this node the host's directory, with or without anything to publish: for a daemon. A process
    /// that only embeds the directory is asked to hand over, and does so within milliseconds and
    /// without anything changing for anybody. Where another daemon has it, it stays that, and this one
    /// waits its turn. From now on other hosts are looked for, too.
    ///
    /// Returns `false` when the directory was closed before its turn came.
    ///
    /// # Cancel safety
    /// The wish stands, whether or not somebody waits here.
    pub async fn serve_host(&self) -> bool {
        let mut holder = self.status.holder.subscribe();
        if !self.inlet.send(Input::Serve) {
            return false;
        }
        let task_ends = self.inlet.closed();
        tokio::select! {
            held = holder.wait_for(|held| *held) => held.is_ok(),
            () = task_ends => false,
        }
    }

    /// Whether this node embeds the directory of its host.
    #[must_use]
    pub fn is_host_directory(&self) -> bool {
        *self.status.holder.borrow()
    }

    /// The hosts that the host directory knows, this one first. Empty while there is none, as before
    /// anything beyond this process was published or asked for.
    pub async fn hosts(&self) -> Vec<HostView> {
        let (answer, hosts) = oneshot::channel();
        if !self.inlet.send(Input::Hosts(answer)) {
            return Vec::new();
        }
        tokio::time::timeout(PUBLISH_TIME, hosts)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    /// How other hosts are looked for: what [`start`](Self::start) was given.
    #[must_use]
    pub fn config(&self) -> &DirectoryConfig {
        &self.config
    }

    /// What does not work in finding other hosts, as this node and its host's directory know it; those of
    /// each the longest first. Without a directory that answers within 1 s, what this node knows.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = self.status.troubles().list(shell::wall_ms(&self.endpoint));
        let (answer, theirs) = oneshot::channel();
        if self.inlet.send(Input::Troubles(answer))
            && let Ok(Ok(theirs)) = tokio::time::timeout(TROUBLES_TIME, theirs).await
        {
            troubles.extend(theirs.into_iter().take(MAX_TROUBLES));
        }
        troubles
    }

    /// Why there is no host directory.
    pub(crate) fn trouble(&self) -> String {
        let trouble = self.status.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_empty() { "it does not answer".to_owned() } else { trouble.clone() }
    }

    /// Withdraws every name of this node at once, while everything else goes on: the first step of a
    /// node that stops, so that nobody new comes while it finishes what it has.
    pub fn withdraw_all(&self) {
        self.inlet.send(Input::WithdrawAll);
    }

    /// Withdraws everything, says goodbye, and ends: others see `Withdrawn`, and another process of
    /// the host takes over what this one embedded. Subscriptions end. To be called before the
    /// endpoint is closed.
    pub async fn close(&self) {
        let (answer, done) = oneshot::channel();
        if self.inlet.send(Input::Close(answer)) {
            let _ = done.await;
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({})", self.endpoint.peer())
    }
}

/// Records that match a pattern. Dropped, it ends.
pub struct Subscription {
    id: u64,
    feed: Arc<Feed>,
    inlet: Inlet,
}

impl Subscription {
    /// The next change; `None` once the directory is closed. A subscriber that reads slower than the
    /// mesh changes misses what came and went meanwhile, and nothing else (see
    /// [`MAX_QUEUE`](crate::MAX_QUEUE)).
    ///
    /// # Cancel safety
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.feed.closed.load(Ordering::Acquire) {
                return self.try_next();
            }
            self.feed.notify.notified().await;
        }
    }

    /// The next change, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.feed.queue().pop()
    }

    /// Ends the subscription, and waits until the host directory has taken it. While there is no host
    /// directory it waits for one.
    ///
    /// # Cancel safety
    /// The subscription ends, whether or not somebody waits here.
    pub async fn end(self) {
        let inlet = self.inlet.clone();
        drop(self);
        inlet.synced().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.inlet.send(Input::Unsubscribe(self.id));
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.id)
    }
}

/// A watch for the end of a node. Dropped, it ends.
pub struct NodeWatch {
    id: u64,
    gone: Result<oneshot::Receiver<NodeGone>, NodeGone>,
    inlet: Inlet,
}

impl NodeWatch {
    /// Waits until the node has gone, and says how, typically within milliseconds of its end.
    /// [`NodeGone::Unknown`] when it has not shown that it is there within 5 s of the start of the
    /// watch, and when the directory is closed.
    ///
    /// # Cancel safety
    /// Safe: called again, it waits on; once it has told, it tells the same.
    pub async fn gone(&mut self) -> NodeGone {
        match &mut self.gone {
            Ok(waiting) => {
                let gone = waiting.await.unwrap_or(NodeGone::Unknown);
                self.gone = Err(gone);
                gone
            }
            Err(gone) => *gone,
        }
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        if self.gone.is_ok() {
            self.inlet.send(Input::Unwatch(self.id));
        }
    }
}

impl fmt::Debug for NodeWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeWatch({})", self.id)
    }
}

impl From<Refusal> for NotPublished {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Held(holder) => Self::Held(holder),
            Refusal::TooMany => Self::TooMany,
            Refusal::NoLease => Self::NoLease,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> DirectoryConfig {
        DirectoryConfig::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_way_of_finding_hosts_can_be_switched_off() {
        let all = of(&[(SEEDS_VARIABLE, "rack1,rack2")]);
        assert!(all.mdns && all.remember && all.seeds_file && all.seeds == ["rack1", "rack2"]);
        let seeds = of(&[(SEEDS_VARIABLE, "rack1"), (DISCOVERY_VARIABLE, "seeds")]);
        assert!(!seeds.mdns && !seeds.remember && seeds.seeds_file && seeds.seeds == ["rack1"]);
        let others = of(&[(SEEDS_VARIABLE, "rack1"), (DISCOVERY_VARIABLE, "mdns, peers")]);
        assert!(others.mdns && others.remember && !others.seeds_file && others.seeds.is_empty());
        let none = of(&[(DISCOVERY_VARIABLE, "none")]);
        assert!(!none.mdns && !none.remember && !none.seeds_file);
        assert!(of(&[(DISCOVERY_VARIABLE, "")]).mdns, "empty is as if it were not there");
    }

    #[test]
    fn what_is_not_understood_is_passed_over_and_told() {
        let config = of(&[(DISCOVERY_VARIABLE, "mdsn"), (INTERFACES_VARIABLE, "eth*0")]);
        assert!(config.mdns && config.remember && config.interfaces == Interfaces::default());
        assert_eq!(config.complaints.len(), 2);
        assert!(config.complaints[0].contains("`mdsn`"), "{:?}", config.complaints);
        assert!(of(&[(INTERFACES_VARIABLE, "eth0")]).interfaces.admits("eth0"));
    }
}
