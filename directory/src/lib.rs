//! Names, scopes, registries, replication and discovery of layer-cake.
//!
//! A node [publishes](Directory::publish) names for its actors and [subscribes](Directory::subscribe)
//! to patterns of names; the directory introduces the one to the other, within the process, the host
//! or the mesh. Only introductions pass through it: messages go node to node.
//!
//! There is nothing to install. The first process of a host that needs more than itself embeds the
//! host's directory, and another one takes over when it ends; host directories find each other and
//! send each other what their hosts offer.
//!
//! # Map
//! Decisions, without clock, socket or task: `registry` (who sees what), `index` (which names a pattern
//! is about), `agent` (a node's side), `host` (a host's side; `host::grants` for exclusive names,
//! `host::view` for what operators see), `survey` and `journal` (asking everybody, and what happened),
//! `presence` (who waits for the end of which node), `membership` (which hosts are there), `dial` (whom to
//! dial when), `etcd` (the engine in place of the last two). Around them: `seat` (finding or becoming the
//! directory), `discovery`, `seeds` and `hints` (where other hosts may be), `trouble` (what of that does
//! not work), `shell` (the task that carries it all out) and `service`, `publication` and `overview`, the
//! interface.

mod agent;
mod dial;
mod discovery;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "it is asked by nobody"))]
mod etcd;
mod fence;
mod group;
mod hints;
mod host;
mod index;
mod inlet;
mod journal;
mod membership;
mod message;
mod name;
mod network;
mod overview;
mod presence;
mod publication;
mod queue;
mod record;
mod registry;
mod seat;
mod seeds;
mod service;
mod shell;
#[cfg(test)]
mod sim;
mod survey;
#[cfg(test)]
mod testing;
mod trouble;

pub use etcd::{
    DEFAULT_TTL, ENGINE_VARIABLE, ETCD_CA_VARIABLE, ETCD_CERT_VARIABLES, ETCD_TTL_VARIABLE,
    ETCD_VARIABLE, Engine, EngineError, EtcdConfig, EtcdTls, MAX_ENDPOINTS, TTL_RANGE,
};
pub use fence::{FENCES, FenceGuard, Fences, Stale};
pub use group::{GROUP_VARIABLE, Group, GroupError, MAX_GROUP};
pub use inlet::{Inlet, MAX_INBOX, Outlet, inlet};
pub use membership::{MAX_PATIENCE, MIN_PATIENCE, PATIENCE};
pub use message::HostView;
pub use name::{
    MAX_NAME, MAX_PATTERN, MAX_PATTERN_SIZE, Name, NameError, ParseScopeError, Pattern,
    PatternError, Scope,
};
pub use network::{
    About, HostState, MAX_ABOUT, MAX_ROUTES, MAX_STORY, Network, NetworkChange, NetworkEvent,
    NetworkHost, NetworkNode, NetworkRecord, NetworkSubscription, Route, Session, Transport,
};
pub use overview::{MAX_EVENTS, NETWORK_TIME, NetworkEvents, NoNetwork, NoPong, PING_TIME};
pub use presence::{MAX_WATCHES, NodeGone};
pub use publication::{Claim, Publication};
pub use queue::{Event, MAX_QUEUE};
pub use record::{DropReason, Instance, MAX_META, MAX_RECORDS, MAX_SUBSCRIPTIONS, Record};
pub use seeds::{DEFAULT_PORT, MAX_SEED_ADDRS, MAX_SEEDS, SEEDS_FILE, SEEDS_VARIABLE};
pub use service::{
    DISCOVERY_VARIABLE, Directory, DirectoryConfig, NodeWatch, NotPublished, NotSubscribed,
    PUBLISH_TIME, Publish, Subscription,
};
pub use trouble::{MAX_TROUBLES, Trouble, TroubleKind};
