//! Pools that know no message type: payloads pass as bytes between whoever asks and whatever members
//! advertise the message.
//!
//! Members that advertise the very same API form a *class*, which is a [`Pool`] of its own, with its own
//! queue. Mostly there is one class; during a rolling upgrade there are two. A request goes to the class
//! with the least load for each member of those that advertise its message, and where it was turned away,
//! not begun, to the next.

use std::{collections::HashSet, fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use layercake_directory::{Event, Scope};
use layercake_wire::payload::{Fingerprint, Payload, Tag};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Pool, PoolBuilder, PoolError, PoolStatus,
    follow::{Change, Members, follow},
    scheduler::{Config, WorkerId},
    seats::{Place, SeatGuard},
};
use crate::{
    actor::{Actor, Context},
    error::AskError,
    mail::Mail,
    message::Api,
    node::Node,
    packet::Parcel,
    pools::Shown,
    service::{self, Call, Service},
};

/// Different APIs that the members of one pool may have; members with yet another one get no requests.
pub const MAX_APIS: usize = 64;

/// An actor of whatever type: what a pool that knows no type is made of. There is no value of it.
#[derive(Debug, Clone, Copy)]
pub enum Anything {}

impl Actor for Anything {
    const NAME: &'static str = "Anything";
    type Mail = Self;
    type Output = ();

    async fn handle(&mut self, mail: Self, _: &mut Context<Self>) {
        match mail {}
    }
}

impl Mail for Anything {
    fn api() -> Api {
        Api { actor: Self::NAME.to_owned(), messages: Vec::new() }
    }

    fn accept(_: &mut dyn std::any::Any) -> Option<Self> {
        None
    }

    fn open(parcel: Parcel) -> Option<Self> {
        parcel.refuse();
        None
    }
}

/// A pool of whatever publishes names that match a pattern, of whatever type. It passes requests on
/// without decoding them; its API is what its members advertise now. Made by [`Node::pool_of`]. A clone is
/// another handle; it lives until [`stop`](Self::stop), or until the node closes.
#[derive(Clone)]
pub struct AnyPool(Arc<Inner>);

struct Inner {
    node: Node,
    name: String,
    config: Config,
    classes: Mutex<Vec<Class>>,
    api: watch::Sender<Api>,
    size: watch::Sender<usize>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Members of one API.
#[derive(Clone)]
struct Class {
    /// The API as it was published.
    meta: Bytes,
    pool: Pool<Anything>,
    /// How many members belong to it, those included that are leaving.
    members: usize,
}

/// One member: its class, and its number there.
struct Member {
    meta: Bytes,
    worker: WorkerId,
    _seat: SeatGuard<Anything>,
}

impl AnyPool {
    pub(super) async fn start(
        node: &Node,
        name: String,
        pattern: &str,
        scope: Scope,
        config: Config,
    ) -> Result<Self, PoolError> {
        let subscription = node.subscribe(pattern, scope).await?;
        let pool = Self::empty(node, name, config);
        let follower = pool.clone();
        pool.run(async move {
            follow(subscription, &follower.0.stop, |change| follower.on_change(change)).await;
        });
        Ok(pool)
    }

    fn empty(node: &Node, name: String, config: Config) -> Self {
        Self(Arc::new(Inner {
            node: node.clone(),
            name,
            config,
            classes: Mutex::new(Vec::new()),
            api: watch::channel(union(&[])).0,
            size: watch::channel(0).0,
            stop: node.stop_token().child_token(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Lets members come and go as `membership` says, which ends when the pool is to stop; then stops.
    fn run(&self, membership: impl Future<Output = ()> + Send + 'static) {
        let pool = self.clone();
        self.0.tasks.spawn(async move {
            membership.await;
            let classes = pool.0.classes.lock().clone();
            // All at once: each may take its grace.
            let stopped = classes.iter().map(|class| async {
                class.pool.stop().await;
                class.pool.finish().await;
            });
            futures_util::future::join_all(stopped).await;
        });
        self.0.tasks.close();
        let shown: Arc<dyn Shown> = self.0.clone();
        self.0.node.pool_registry().add(Arc::downgrade(&shown));
        let tasks = self.0.tasks.clone();
        self.0.node.tasks().spawn(async move { tasks.wait().await });
    }

    /// How it is now, as operators see it: a pool for each API that its members have.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        self.0.show()
    }

    /// How many members there are now; those that are leaving are not counted.
    #[must_use]
    pub fn size(&self) -> usize {
        *self.0.size.borrow()
    }

    /// Waits until there are at least so many members.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn wait_for(&self, members: usize) {
        // The sender lives as long as the pool.
        let _ = self.0.size.subscribe().wait_for(|size| *size >= members).await;
    }

    /// What its members advertise, now and as it changes. Of a message that is advertised in several
    /// forms it is the one that was there first, until its last member has gone.
    #[must_use]
    pub fn watch_api(&self) -> watch::Receiver<Api> {
        self.0.api.subscribe()
    }

    /// Takes no new requests, and waits up to 10 s for those in flight. Its members live on.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.wait().await;
    }

    /// Sends an encoded message to a member that advertises it and waits for its encoded reply.
    ///
    /// # Errors
    /// [`AskError`]: `Unavailable` also where no member advertises the message.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request: what no worker has begun is not begun.
    pub async fn ask_encoded(
        &self,
        payload: Payload,
        accept: Fingerprint,
        deadline: Instant,
    ) -> Result<Payload, AskError> {
        self.answer(Call::new(payload, accept, deadline)).await
    }

    /// As [`ask_encoded`](Self::ask_encoded), with all that a call can say.
    async fn answer(&self, call: Call) -> Result<Payload, AskError> {
        self.of_a_class(call, |pool, call| async move { pool.answer(call).await }).await
    }

    /// Has a call answered by one class after the other, until one has surely taken it.
    async fn of_a_class<R, F>(
        &self,
        call: Call,
        ask: impl Fn(Pool<Anything>, Call) -> F + Send,
    ) -> Result<R, AskError>
    where
        F: Future<Output = Result<R, AskError>> + Send,
    {
        let mut tried = HashSet::new();
        let mut last = AskError::Unavailable;
        while let Some(Class { meta, pool, .. }) = self.pick(call.payload.tag, &tried) {
            match ask(pool, call.clone()).await {
                Err(error) if goes_on(&error) => last = error,
                answer => return answer,
            }
            tried.insert(meta);
        }
        Err(last)
    }

    /// The class with the least load of those that advertise a message.
    fn pick(&self, tag: Tag, tried: &HashSet<Bytes>) -> Option<Class> {
        let classes = self.0.classes.lock();
        let mut able = classes.iter().filter(|class| {
            class.pool.0.api.message(tag).is_some() && !tried.contains(&class.meta)
        });
        let first = able.next()?;
        let Some(second) = able.next() else { return Some(first.clone()) };
        let least = [first, second]
            .into_iter()
            .chain(able)
            .min_by(|one, other| one.load().total_cmp(&other.load()));
        least.cloned()
    }

    fn on_change(&self, change: Change<Member>) -> Option<Member> {
        match change {
            Change::Came(record) => {
                let address = self.0.node.bind(record.address.clone());
                let pool = self.class_of(&record.meta).inspect_err(|reason| {
                    tracing::warn!(name = %record.name, address = %record.address, reason,
                        "a member gets no requests");
                });
                let pool = pool.ok()?;
                let seat = pool.seat(Place::Member, Some(record.name.to_string()));
                let worker = seat.join(&address, None);
                let member = Member { worker, _seat: seat, meta: record.meta.clone() };
                self.update();
                Some(member)
            }
            Change::Leaves(Member { meta, worker, _seat: seat }) => {
                let pool = self.find(&meta)?;
                pool.drain(worker);
                self.update();
                let this = self.clone();
                self.0.node.tasks().spawn(async move {
                    pool.retire(worker).await;
                    drop(seat);
                    this.part(&meta);
                });
                None
            }
            Change::Gone(Member { meta, worker, .. }) => {
                let pool = self.find(&meta)?;
                pool.leave(worker);
                self.part(&meta);
                None
            }
        }
    }

    fn find(&self, meta: &Bytes) -> Option<Pool<Anything>> {
        let classes = self.0.classes.lock();
        classes.iter().find(|class| class.meta == meta).map(|class| class.pool.clone())
    }

    /// The class of those that publish that API, with one more member.
    fn class_of(&self, meta: &Bytes) -> Result<Pool<Anything>, String> {
        let mut classes = self.0.classes.lock();
        if let Some(class) = classes.iter_mut().find(|class| class.meta == meta) {
            class.members += 1;
            return Ok(class.pool.clone());
        }
        if classes.len() == MAX_APIS {
            return Err(format!("the members of this pool have {MAX_APIS} different APIs already"));
        }
        let api: Api = serde_json::from_slice(meta)
            .map_err(|error| format!("what it advertises is not understood: {error}"))?;
        let Inner { node, name, config, stop, .. } = &*self.0;
        let pool = Pool::empty(node, name.clone(), api, config.clone(), false, stop.child_token());
        classes.push(Class { meta: meta.clone(), pool: pool.clone(), members: 1 });
        Ok(pool)
    }

    /// One member less in a class; the last one takes it along.
    fn part(&self, meta: &Bytes) {
        let mut classes = self.0.classes.lock();
        if let Some(at) = classes.iter().position(|class| class.meta == meta) {
            classes[at].members -= 1;
            if classes[at].members == 0 {
                classes.remove(at).pool.0.stop.cancel();
            }
        }
        drop(classes);
        self.update();
    }

    /// Says how many members there are and what they advertise, where that has changed.
    fn update(&self) {
        let classes = self.0.classes.lock();
        let size = classes.iter().map(|class| class.pool.size()).sum();
        self.0.size.send_if_modified(|known| std::mem::replace(known, size) != size);
        let api = union(&classes);
        self.0.api.send_if_modified(|known| {
            let changed = *known != api;
            *known = api;
            changed
        });
    }
}

impl Class {
    /// Requests for each member.
    fn load(&self) -> f64 {
        let members = self.pool.size();
        if members == 0 {
            return f64::INFINITY;
        }
        let state = self.pool.0.state.lock();
        (state.scheduler.in_flight() + state.scheduler.pending()) as f64 / members as f64
    }
}

/// What all of them advertise; of several descriptions of a message the first.
fn union(classes: &[Class]) -> Api {
    let mut seen = HashSet::new();
    let mut actor = Anything::NAME.to_owned();
    let mut messages = Vec::new();
    for Class { pool, .. } in classes {
        if messages.is_empty() {
            actor.clone_from(&pool.0.api.actor);
        }
        messages.extend(pool.0.api.messages.iter().filter(|m| seen.insert(m.tag())).cloned());
    }
    Api { actor, messages }
}

/// Whether a request was surely not begun by members of one API, so that others may have it.
fn goes_on(error: &AskError) -> bool {
    matches!(
        error,
        AskError::Unavailable
            | AskError::Busy { .. }
            | AskError::Overloaded { .. }
            | AskError::Stopped { .. }
            | AskError::Unreachable { .. }
            // Another release may know it.
            | AskError::Malformed { .. }
            | AskError::NotHandled { .. }
    )
}

impl Shown for Inner {
    fn show(&self) -> Vec<PoolStatus> {
        if self.stop.is_cancelled() {
            return Vec::new();
        }
        let classes = self.classes.lock();
        classes.iter().map(|class| class.pool.status()).collect()
    }
}

impl Service for AnyPool {
    fn api(&self) -> Api {
        self.0.api.borrow().clone()
    }

    fn is_ready(&self) -> bool {
        self.size() > 0 && !self.0.stop.is_cancelled()
    }

    fn call(&self, call: Call) -> service::Reply<'_> {
        Box::pin(self.answer(call))
    }

    fn stream(&self, call: Call) -> service::Stream<'_> {
        let ask = |pool: Pool<Anything>, call| async move { pool.stream_call(call).await };
        Box::pin(self.of_a_class(call, ask))
    }
}

impl fmt::Debug for AnyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyPool({}, {} members)", self.0.api.borrow().actor, self.size())
    }
}

/// Tells a pool who its members are, event by event; dropped, it stops the pool. Made by
/// [`Node::pool_fed`].
pub struct AnyFeed {
    pool: AnyPool,
    members: Members<Member>,
}

impl AnyFeed {
    /// Takes in what a subscription says.
    pub fn event(&mut self, event: Event) {
        let pool = &self.pool;
        self.members.event(event, |change| pool.on_change(change));
    }
}

impl Drop for AnyFeed {
    fn drop(&mut self) {
        self.pool.0.stop.cancel();
    }
}

impl fmt::Debug for AnyFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyFeed({:?})", self.pool)
    }
}

impl Node {
    /// As [`pool_of`](Self::pool_of), for who has a subscription already: the pool has the members that
    /// it is told of, by events that concern it, in their order. Operators see it by the name given.
    #[must_use]
    pub fn pool_fed(&self, name: &str) -> (AnyPool, AnyFeed) {
        let pool = AnyPool::empty(self, name.to_owned(), Config::default());
        let stop = pool.0.stop.clone();
        pool.run(async move { stop.cancelled().await });
        let feed = AnyFeed { pool: pool.clone(), members: Members::default() };
        (pool, feed)
    }

    /// Begins a pool of whatever actors publish a name that matches the pattern, up to the scope: what a
    /// gateway needs that serves types which it does not know. A request for a message goes only to
    /// members that advertise it.
    ///
    /// ```
    /// # extern crate layercake_node as layercake;
    /// # use layercake::{Node, directory::Scope, service::Service};
    /// # async fn front(node: Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = node.pool_of("textures:.*", Scope::Lan).start().await?;
    /// pool.wait_for(1).await;
    /// for message in pool.api().messages {
    ///     println!("{}", message.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool_of(&self, pattern: &str, scope: Scope) -> PoolBuilder<Anything> {
        PoolBuilder::new(self.clone()).hosts(pattern, scope)
    }
}
