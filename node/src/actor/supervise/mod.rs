//! Supervision: children that begin anew when they end, under a limit, and a failure further up when the
//! limit is passed.
//!
//! A child begins anew **in place**: its mailbox, its address and its names stay, so that who knows it
//! need not find it again, and messages that wait are handled by its successor. The message at which it
//! failed is answered with the failure. What is decided is in [`core`]; this module carries it out. When
//! several begin anew together, all have ended before the first begins, and they begin in the order in
//! which they were started.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::core::{Core, Verdict};
pub use self::core::{Restart, Strategy};
use super::{Brood, Life, Spawn};
use crate::{
    address::Address,
    clock,
    exit::Exit,
    mail::Mail,
    mailbox::{Asked, Inlet},
    message::Api,
    node::{Node, STOP_GRACE},
    packet::Parcel,
};

mod core;

/// Children of one supervisor.
pub const MAX_CHILDREN: usize = 1024;

/// Why a supervisor takes no child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// It has [`MAX_CHILDREN`]. Use a further supervisor, or a pool.
    #[error("the supervisor has {MAX_CHILDREN} children already")]
    TooMany,
    /// It has ended.
    #[error("the supervisor has ended")]
    Ended,
}

/// The settings of a supervisor.
#[derive(Debug, Clone, Copy)]
struct Settings {
    strategy: Strategy,
    intensity: usize,
    period: Duration,
    first: Duration,
}

type Adopt<'a> = Box<dyn FnOnce(Arc<dyn Inlet>) + 'a>;

/// A supervisor that is being described.
#[must_use = "a supervisor begins with `start`"]
pub struct SupervisorBuilder<'a> {
    node: Node,
    settings: Settings,
    parent: Option<Arc<dyn Inlet>>,
    adopt: Option<Adopt<'a>>,
}

impl<'a> SupervisorBuilder<'a> {
    pub(crate) fn new(
        node: Node,
        strategy: Strategy,
        parent: Option<Arc<dyn Inlet>>,
        adopt: Option<Adopt<'a>>,
    ) -> Self {
        let settings = Settings {
            strategy,
            intensity: 5,
            period: Duration::from_secs(30),
            first: Duration::from_millis(50),
        };
        Self { node, settings, parent, adopt }
    }

    /// How many restarts (5) within which time (30 s) are borne; one more, and the supervisor fails.
    /// With 0 the first failure is one too many.
    pub fn intensity(mut self, restarts: usize, period: Duration) -> Self {
        self.settings.intensity = restarts;
        self.settings.period = period;
        self
    }

    /// How long the first restart waits (50 ms ± a quarter); while a child fails again and again it
    /// doubles up to 30 s, and a life of 30 s forgives.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.settings.first = first;
        self
    }

    /// Starts it, without children yet.
    pub fn start(self) -> Supervisor {
        let shared = Shared::new(self.node.clone(), self.settings);
        let begin = Begin { shared: shared.clone(), setup: None };
        let running = self.node.launch_under(begin, self.parent);
        if let (Some(adopt), Some(inlet)) = (self.adopt, running.address.inlet()) {
            adopt(inlet.clone());
        }
        Supervisor { shared, address: running.address }
    }
}

/// A supervisor: keeps its children going. A clone is another handle. It lives until it is stopped,
/// gives up, or its parent ends. Its address takes no messages, and is there to be watched and stopped.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
    address: Address<Self>,
}

struct Shared {
    node: Node,
    settings: Settings,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    core: Core,
    children: Vec<Option<Arc<dyn Inlet>>>,
    brood: Brood,
    /// The supervisor's own mailbox, under which the children stand.
    own: Option<Arc<dyn Inlet>>,
    /// Who is to begin anew and has not yet; who of them has not ended yet; and not before when, for each
    /// that failed.
    to_begin: BTreeSet<usize>,
    to_end: HashSet<usize>,
    not_before: HashMap<usize, Instant>,
    failed: Option<String>,
    ended: bool,
}

impl Shared {
    fn new(node: Node, settings: Settings) -> Arc<Self> {
        let Settings { strategy, intensity, period, first } = settings;
        let state = State {
            core: Core::new(strategy, intensity, period, first),
            children: Vec::new(),
            brood: Brood::default(),
            own: None,
            to_begin: BTreeSet::new(),
            to_end: HashSet::new(),
            not_before: HashMap::new(),
            failed: None,
            ended: false,
        };
        Arc::new(Self { node, settings, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Takes note of a child's end; whether it begins anew.
    fn on_end(&self, child: usize, exit: &Exit, asked: Asked) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let anew = match asked {
            Asked::Stop => {
                state.core.on_stop(child);
                false
            }
            // Somebody else's end is the reason, and it was counted there; also where the child ended by
            // itself before it heard of that.
            Asked::Renew | Asked::Nothing if state.to_end.remove(&child) => true,
            Asked::Renew => true,
            Asked::Nothing => {
                let now = clock::now();
                match state.core.on_end(child, exit.is_failure(), now, rand::random()) {
                    Verdict::Anew { others, after } => {
                        state.to_begin.insert(child);
                        for other in others {
                            // One that waits for its turn to begin has ended already.
                            if state.to_begin.insert(other)
                                && let Some(Some(inlet)) = state.children.get(other)
                            {
                                state.to_end.insert(other);
                                inlet.renew();
                            }
                        }
                        state.not_before.insert(child, now + after);
                        true
                    }
                    Verdict::End => false,
                    Verdict::GiveUp => {
                        let many = self.settings.intensity;
                        let period = self.settings.period;
                        let why = format!("more than {many} restarts within {period:?}; {exit}");
                        state.failed.get_or_insert(why);
                        false
                    }
                }
            }
        };
        if !anew {
            state.to_begin.remove(&child);
            state.to_end.remove(&child);
            state.not_before.remove(&child);
            state.children[child] = None;
        }
        self.changed.notify_waiters();
        anew
    }

    /// Waits for a child's turn to begin anew; whether it comes.
    async fn turn(&self, child: usize, asked: impl Fn() -> Asked) -> bool {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let wait = {
                let mut state = self.state.lock();
                if asked() == Asked::Stop || state.ended || state.failed.is_some() {
                    return false;
                }
                let now = clock::now();
                let (turn, not_before) = match self.settings.strategy {
                    // They know nothing of each other.
                    Strategy::OneForOne => (true, state.not_before.get(&child).copied()),
                    Strategy::OneForAll | Strategy::RestForOne => {
                        let first = state.to_begin.first() == Some(&child);
                        let last = state.not_before.values().max().copied();
                        (state.to_end.is_empty() && first, last)
                    }
                };
                match not_before.filter(|at| *at > now) {
                    None if turn => {
                        state.to_begin.remove(&child);
                        state.not_before.remove(&child);
                        state.core.on_begin(child, now);
                        self.changed.notify_waiters();
                        return true;
                    }
                    at => at,
                }
            };
            match wait {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
                None => changed.await,
            }
        }
    }
}

impl Supervisor {
    /// Its address, to be watched, linked to and stopped.
    #[must_use]
    pub fn address(&self) -> &Address<Self> {
        &self.address
    }

    /// Starts a child from what the function makes, now and at each new beginning.
    ///
    /// # Errors
    /// [`SuperviseError`].
    pub fn child<S, W, F>(
        &self,
        restart: Restart,
        make: F,
    ) -> Result<Address<S::Takes>, SuperviseError>
    where
        S: Spawn<W>,
        W: 'static,
        F: FnMut() -> S + Send + 'static,
    {
        let (child, parent) = {
            let mut state = self.shared.state.lock();
            if state.ended || state.failed.is_some() {
                return Err(SuperviseError::Ended);
            }
            if state.core.len() >= MAX_CHILDREN {
                return Err(SuperviseError::TooMany);
            }
            let child = state.core.add(restart, clock::now());
            state.children.push(None);
            (child, state.own.clone().or_else(|| self.address.inlet().cloned()))
        };
        let way = std::marker::PhantomData;
        let supervised = Supervised { make, child, shared: self.shared.clone(), way };
        let running = self.shared.node.launch_under(supervised, parent);
        if let Some(inlet) = running.address.inlet() {
            let mut state = self.shared.state.lock();
            // It may have ended for good already.
            if !inlet.is_stopped() {
                state.children[child] = Some(inlet.clone());
            }
            state.brood.add(inlet.clone());
        }
        Ok(running.address)
    }

    /// Starts a supervisor below this one. The function gives it its children, now and whenever it
    /// begins anew after it has given up; they are new ones then.
    ///
    /// # Errors
    /// [`SuperviseError`].
    pub fn supervisor(
        &self,
        restart: Restart,
        strategy: Strategy,
        setup: impl Fn(&Self) + Send + Sync + 'static,
    ) -> Result<Address<Self>, SuperviseError> {
        let settings = Settings { strategy, ..self.shared.settings };
        let (node, setup): (_, Setup) = (self.shared.node.clone(), Arc::new(setup));
        self.child(restart, move || Begin {
            shared: Shared::new(node.clone(), settings),
            setup: Some(setup.clone()),
        })
    }

    /// Stops it with all its children.
    pub fn stop(&self) {
        self.address.stop();
    }
}

type Setup = Arc<dyn Fn(&Supervisor) + Send + Sync>;

/// The supervisor itself, as something that lives.
struct Begin {
    shared: Arc<Shared>,
    setup: Option<Setup>,
}

/// No message at all.
enum Nothing {}

impl Mail for Nothing {
    fn api() -> Api {
        Api { actor: "Supervisor".to_owned(), messages: Vec::new() }
    }

    fn accept(_: &mut dyn std::any::Any) -> Option<Self> {
        None
    }

    fn open(parcel: Parcel) -> Option<Self> {
        parcel.refuse();
        None
    }
}

/// Marks a supervisor.
struct BySetup(());

impl Spawn<BySetup> for Begin {
    type Mail = Nothing;
    type Takes = Supervisor;
    type Output = ();

    fn kind() -> &'static str {
        "Supervisor"
    }

    async fn live(self, life: &mut Life<Nothing>) -> (Exit, Option<()>) {
        let Self { shared, setup } = self;
        let own: Arc<dyn Inlet> = life.mailbox.clone();
        shared.state.lock().own = Some(own.clone());
        if let Some(setup) = setup {
            let address = Address::here(own);
            let supervisor = Supervisor { shared: shared.clone(), address };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| setup(&supervisor))) {
                shared.state.lock().failed = Some(Exit::panicked(&*panic).to_string());
            }
        }
        let exit = loop {
            let changed = shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(reason) = &shared.state.lock().failed {
                break Exit::Failed(reason.clone());
            }
            tokio::select! {
                _ = poll_fn(|cx| life.mailbox.poll_asked(cx)) => break Exit::Stopped,
                () = changed => {}
            }
        };
        let mut brood = {
            let mut state = shared.state.lock();
            state.ended = true;
            // Its own mailbox holds it through the children otherwise.
            state.own = None;
            std::mem::take(&mut state.brood)
        };
        shared.changed.notify_waiters();
        brood.stop(STOP_GRACE).await;
        (exit, None)
    }
}

/// A child that begins anew.
struct Supervised<S, W, F> {
    make: F,
    child: usize,
    shared: Arc<Shared>,
    way: std::marker::PhantomData<fn() -> (S, W)>,
}

/// Marks a child under supervision.
struct BySupervisor<W>(std::marker::PhantomData<fn() -> W>);

impl<S, W, F> Spawn<BySupervisor<W>> for Supervised<S, W, F>
where
    S: Spawn<W>,
    W: 'static,
    F: FnMut() -> S + Send + 'static,
{
    type Mail = S::Mail;
    type Takes = S::Takes;
    type Output = S::Output;

    fn kind() -> &'static str {
        S::kind()
    }

    async fn live(self, life: &mut Life<S::Mail>) -> (Exit, Option<S::Output>) {
        let Self { mut make, child, shared, .. } = self;
        loop {
            life.supervised = true;
            let (exit, output) = match catch_unwind(AssertUnwindSafe(&mut make)) {
                Ok(instance) => Box::pin(instance.live(life)).await,
                Err(panic) => (Exit::panicked(&*panic), None),
            };
            life.supervised = false;
            let asked = life.mailbox.asked();
            if !shared.on_end(child, &exit, asked) {
                return (exit, output);
            }
            if asked == Asked::Nothing && exit.is_failure() {
                tracing::warn!(
                    actor = crate::mailbox::path(&*life.mailbox),
                    "{exit}; it begins anew"
                );
            }
            life.mailbox.renewed();
            let mailbox = life.mailbox.clone();
            let stop = poll_fn(|cx| mailbox.poll_stop(cx));
            let turn = tokio::select! {
                () = stop => false,
                turn = shared.turn(child, || mailbox.asked()) => turn,
            };
            if !turn {
                shared.on_end(child, &Exit::Stopped, Asked::Stop);
                return (exit, output);
            }
        }
    }
}
