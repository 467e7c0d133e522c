//! What the stories of directories share: a node that is a directory alone, and how they wait.
#![allow(dead_code, reason = "each story uses what it needs")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use layercake_directory::{
    Claim, Directory, DirectoryConfig, DropReason, Event, Inlet, Name, NotPublished, Pattern,
    Publication, Publish, Scope, Subscription, inlet,
};
use layercake_wire::{
    Carrier, Endpoint, EndpointConfig, Inbound, Link, LinkDown, Receive, Service,
    id::{HostId, NodeId},
    memory::Network,
    trust::Mesh,
};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

struct Forward(Inlet);

impl Receive for Forward {
    fn on_up(&self, link: Link) {
        self.0.on_up(link);
    }
    fn on_down(&self, link: &Link, down: LinkDown) {
        self.0.on_down(link, down);
    }
    fn on_post(&self, from: &Link, service: Service, body: Bytes) {
        self.0.on_post(from, service, body);
    }
    fn on_datagram(&self, from: &Link, body: Bytes) {
        self.0.on_datagram(from, body);
    }
    fn on_message(&self, _: Inbound) {}
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) directory: Directory,
}

impl Node {
    /// A node of the host to which a mesh folder belongs.
    pub(crate) fn of(mesh: &Mesh, config: DirectoryConfig) -> Self {
        let endpoint = EndpointConfig {
            mesh: mesh.clone(),
            node: NodeId::random(),
            carrier: Carrier::OwnThread,
        };
        Self::with(config, |receive| Endpoint::start(endpoint, receive).expect("starts"))
    }

    /// A node of a host in a network in memory.
    pub(crate) fn within(network: &Network, host: HostId) -> Self {
        let start =
            |receive| Endpoint::start_in(network, host, NodeId::random(), receive).expect("starts");
        Self::with(DirectoryConfig::in_memory(), start)
    }

    fn with(config: DirectoryConfig, start: impl FnOnce(Arc<dyn Receive>) -> Endpoint) -> Self {
        let (inlet, outlet) = inlet();
        let endpoint = start(Arc::new(Forward(inlet)));
        let directory = Directory::start(endpoint.clone(), outlet, config);
        Self { endpoint, directory }
    }

    pub(crate) async fn publish(&self, name: &str, scope: Scope) -> Publication {
        self.claim(name, scope, false).await.expect("publishes")
    }

    pub(crate) async fn claim(
        &self,
        name: &str,
        scope: Scope,
        exclusive: bool,
    ) -> Result<Publication, NotPublished> {
        self.directory.publish(described(name, scope, exclusive, Bytes::from_static(b"api"))).await
    }

    /// Gets in line for a name.
    pub(crate) async fn wait_for(&self, name: &str, scope: Scope) -> Claim {
        let claim = described(name, scope, true, Bytes::new());
        self.directory.claim(claim).await.expect("gets in line")
    }

    pub(crate) async fn subscribe(&self, pattern: &str, scope: Scope) -> Subscription {
        let pattern = Pattern::new(pattern).expect("a good pattern");
        self.directory.subscribe(pattern, scope).await.expect("subscribes")
    }

    pub(crate) async fn stop(self) {
        self.directory.close().await;
        self.endpoint.close().await;
    }
}

pub(crate) fn described(name: &str, scope: Scope, exclusive: bool, meta: Bytes) -> Publish {
    Publish { name: Name::new(name).expect("a good name"), scope, exclusive, actor: 1, meta }
}

pub(crate) async fn next(subscription: &mut Subscription) -> Event {
    tokio::time::timeout(SOON, subscription.next()).await.expect("in time").expect("not closed")
}

pub(crate) async fn available(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Event::Available(record) => record.name.to_string(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn dropped(subscription: &mut Subscription) -> (String, DropReason) {
    match next(subscription).await {
        Event::Dropped(record, reason) => (record.name.to_string(), reason),
        other => panic!("{other:?}"),
    }
}

/// Looks until there is something.
pub(crate) async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    found(what, async || is_so().then_some(())).await;
}

/// Waits until a claim made now is dated later than this one. Claims are dated by the millisecond.
pub(crate) async fn later_than(claim: &Claim) {
    let dated = u128::from(claim.record().claimed);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    eventually("a later date", || now() > dated + 1).await;
}
