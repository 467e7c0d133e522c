//! What a node tells of its inside to those who look at the mesh: its actors and its pools, with counts
//! since their beginning.
//!
//! The directory carries it as a text; it is asked for on the thread of the links, when somebody wants to see
//! the mesh, and never otherwise. It is JSON, so that one with more fields, or fewer, is understood as well
//! as possible. Nothing is kept for it but what is counted anyway, under locks that are taken anyway, and a
//! node of very many actors looks at some of them only. Who wants rates takes two stories:
//! [`NodeStory::uptime_us`] says how far apart they were told.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use layercake_directory::{MAX_STORY, NetworkNode};
use layercake_wire::id::ActorSerial;
use serde::{Deserialize, Serialize};

use crate::{agent::AGENT, mailbox::Inlet, pool::PoolStatus};

/// Actors that a node tells of one by one.
pub const MAX_ACTORS_TOLD: usize = 64;
/// Actors that are looked at for one story. Of a node with more it is any so many.
pub(crate) const MAX_LOOKED_AT: usize = 4096;
/// Workers of a pool that are told where all of them would be too much.
const FEW_WORKERS: usize = 32;

/// The inside of a node. One that did not answer has an empty one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NodeStory {
    /// Microseconds since the node was started, when this was told.
    pub uptime_us: u64,
    /// How many actors live in it, its agent not counted.
    pub actor_count: usize,
    /// Some of them, at most [`MAX_ACTORS_TOLD`]: those that others may reach and those with the longest
    /// mailboxes first.
    pub actors: Vec<ActorStatus>,
    /// Messages without an asker that could not be handled.
    pub dead_letters: u64,
    /// Its pools.
    pub pools: Vec<PoolStatus>,
}

/// An actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ActorStatus {
    /// Its number within the node.
    pub serial: ActorSerial,
    /// The name of its type.
    pub kind: String,
    /// The actor that started it; none where the node did.
    pub parent: Option<ActorSerial>,
    /// Messages in its mailbox.
    pub waiting: usize,
    /// Messages that it has taken from its mailbox so far.
    pub taken: u64,
}

/// What a node in a picture of the mesh tells of its inside, as far as it is understood.
#[must_use]
pub fn story_of(node: &NetworkNode) -> NodeStory {
    serde_json::from_str(&node.story).unwrap_or_default()
}

impl NodeStory {
    /// Puts it together.
    pub(crate) fn new(
        uptime: Duration,
        actor_count: usize,
        looked_at: &[Arc<dyn Inlet>],
        dead_letters: u64,
        pools: Vec<PoolStatus>,
    ) -> Self {
        let told = looked_at.iter().filter(|inlet| inlet.serial() != AGENT).map(|inlet| {
            let (waiting, taken) = inlet.load();
            let parent = inlet.parent().map(|parent| parent.serial());
            let (serial, kind) = (inlet.serial(), inlet.kind().to_owned());
            (inlet.exported(false), ActorStatus { serial, kind, parent, waiting, taken })
        });
        let mut actors: Vec<_> = told.collect();
        // Those that are busy or known to others are what somebody looks for.
        actors.sort_by_key(|(known, actor)| Reverse((*known, actor.waiting, actor.taken)));
        actors.truncate(MAX_ACTORS_TOLD);
        let actors = actors.into_iter().map(|(_, actor)| actor).collect();
        let uptime_us = u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX);
        Self { uptime_us, actor_count, actors, dead_letters, pools }
    }

    /// As it travels. Where it would be too long it goes into less detail.
    pub(crate) fn told(mut self) -> String {
        let text = |story: &Self| serde_json::to_string(story).unwrap_or_default();
        let whole = text(&self);
        if whole.len() <= MAX_STORY {
            return whole;
        }
        for pool in &mut self.pools {
            pool.omitted += pool.workers.len().saturating_sub(FEW_WORKERS);
            pool.workers.truncate(FEW_WORKERS);
        }
        let shorter = text(&self);
        if shorter.len() <= MAX_STORY {
            return shorter;
        }
        for pool in &mut self.pools {
            pool.omitted += std::mem::take(&mut pool.workers).len();
        }
        text(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_story_goes_into_less_detail() {
        let mut pool = PoolStatus { name: "p".to_owned(), ..PoolStatus::default() };
        let worker = serde_json::json!({
            "place": "task", "name": null, "at": "x".repeat(400), "pid": null, "state": "serving",
            "in_flight": 0, "limit": 1, "latency": {}, "started": 0, "answered": 0, "failed": 0,
            "refused": 0, "ejected": 0, "restarts": 0, "early_ends": 0, "last_end": null,
            "back_in_ms": null,
        });
        pool.workers = vec![serde_json::from_value(worker).expect("a worker"); 256];
        let told = |pools: usize| {
            let story = NodeStory { pools: vec![pool.clone(); pools], ..NodeStory::default() };
            let text = story.told();
            assert!(text.len() <= MAX_STORY, "{} bytes", text.len());
            let story: NodeStory = serde_json::from_str(&text).expect("JSON");
            assert_eq!(story.pools.len(), pools);
            let pool = &story.pools[0];
            assert_eq!(pool.workers.len() + pool.omitted, 256);
            pool.workers.len()
        };
        assert_eq!((told(1), told(4), told(64)), (256, FEW_WORKERS, 0));
    }
}
