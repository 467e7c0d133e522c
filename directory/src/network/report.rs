//! What a node tells of its inside: its actors and its pools, with counts since their beginning.
//!
//! The directory carries it and knows nothing of it: whoever owns the node installs a
//! [reporter](crate::Directory::report_with), which is asked when somebody wants to see the mesh, and
//! never otherwise. Between programs a report travels as JSON, so that one with more fields, or fewer, is
//! understood as well as possible. Who wants rates takes two reports: the counts only rise, and
//! [`NodeReport::uptime_us`] says how far apart they were taken.

use bytes::Bytes;
use layercake_wire::id::{ActorSerial, HostId, NodeId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text;

/// Actors that a node tells of one by one.
pub const MAX_REPORTED_ACTORS: usize = 64;
/// Pools that a node tells of.
pub const MAX_REPORTED_POOLS: usize = 32;
/// Workers of one pool that a node tells of one by one.
pub const MAX_REPORTED_WORKERS: usize = 256;
/// The longest text in a report, in bytes; the rest is cut.
const MAX_WORD: usize = 128;
/// A report of more bytes is not read.
const MAX_REPORT: usize = 256 << 10;

/// The inside of a node. One that did not answer, or knows nothing of this, has an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NodeReport {
    /// Microseconds since the node was started, when this was taken.
    pub uptime_us: u64,
    /// How many actors live in it.
    pub actor_count: usize,
    /// Some of them, at most [`MAX_REPORTED_ACTORS`]: those that others may reach and those with the
    /// longest mailboxes first.
    pub actors: Vec<ActorReport>,
    /// Messages without an asker that could not be handled.
    pub dead_letters: u64,
    /// Its pools, at most [`MAX_REPORTED_POOLS`].
    pub pools: Vec<PoolReport>,
}

/// An actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ActorReport {
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

/// A pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PoolReport {
    /// The number of the pool within its node.
    pub id: u64,
    /// The type of its workers.
    pub actor: String,
    /// Where they live: `4 processes`, `hosts textures:worker (lan)`.
    pub kind: String,
    /// Requests that wait for a worker.
    pub waiting: usize,
    /// How many may.
    pub queue: usize,
    /// Requests that workers have.
    pub in_flight: usize,
    /// Requests given to workers so far.
    pub started: u64,
    /// Of these, how many were answered.
    pub answered: u64,
    /// Of these, how many failed, ran into their deadline, or were with a worker that left.
    pub failed: u64,
    /// Requests that were given up by their askers, or whose deadline passed while they waited.
    pub given_up: u64,
    /// Requests turned away because the pool answers too slowly.
    pub busy: u64,
    /// Requests turned away because the queue was full.
    pub overloaded: u64,
    /// Requests turned away because there was no worker.
    pub unavailable: u64,
    /// Workers that were started anew because the one before had ended.
    pub restarts: u64,
    /// The latency that half of the answers of late stay below, in microseconds.
    pub p50_us: Option<u64>,
    /// The latency that 99 of 100 answers of late stay below, in microseconds.
    pub p99_us: Option<u64>,
    /// How many workers there are.
    pub worker_count: usize,
    /// Some of them, at most [`MAX_REPORTED_WORKERS`].
    pub workers: Vec<WorkerReport>,
}

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerReport {
    /// The number of the worker within its pool; one that comes back has a new one.
    pub id: u64,
    /// Its host.
    #[serde(with = "text")]
    pub host: HostId,
    /// Its node.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its number within that node.
    pub serial: ActorSerial,
    /// How the pool deals with it: `up`, `draining`, `ejected`, in words for people.
    pub state: String,
    /// Requests that it has.
    pub in_flight: usize,
    /// How many it may have; none where that is not limited.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Its latency of late as dispatch sees it, in microseconds.
    pub latency_us: u64,
    /// The latency that half of its answers of late stay below, in microseconds.
    #[serde(default)]
    pub p50_us: Option<u64>,
    /// The latency that 99 of 100 of its answers of late stay below, in microseconds.
    #[serde(default)]
    pub p99_us: Option<u64>,
    /// Requests given to it so far.
    pub started: u64,
    /// Of these, how many it answered.
    pub answered: u64,
}

impl WorkerReport {
    /// A worker of which only the identity is known.
    #[must_use]
    pub fn new(id: u64, host: HostId, node: NodeId, serial: ActorSerial) -> Self {
        Self {
            id,
            host,
            node,
            serial,
            state: "up".to_owned(),
            in_flight: 0,
            limit: None,
            latency_us: 0,
            p50_us: None,
            p99_us: None,
            started: 0,
            answered: 0,
        }
    }
}

impl NodeReport {
    /// Keeps to the limits, whoever says it.
    #[must_use]
    pub(crate) fn bounded(mut self) -> Self {
        self.actors.truncate(MAX_REPORTED_ACTORS);
        self.pools.truncate(MAX_REPORTED_POOLS);
        for actor in &mut self.actors {
            clip(&mut actor.kind);
        }
        for pool in &mut self.pools {
            pool.workers.truncate(MAX_REPORTED_WORKERS);
            clip(&mut pool.actor);
            clip(&mut pool.kind);
            for worker in &mut pool.workers {
                clip(&mut worker.state);
            }
        }
        self
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let actors = self.actors.iter().map(|actor| 80 + actor.kind.len()).sum::<usize>();
        let pool =
            |pool: &PoolReport| 400 + pool.actor.len() + pool.kind.len() + 240 * pool.workers.len();
        80 + actors + self.pools.iter().map(pool).sum::<usize>()
    }

    /// How many actors and pools are listed.
    pub(crate) fn listed(&self) -> usize {
        self.actors.len() + self.pools.len()
    }
}

/// Cuts a text, which is shown on terminals and pages.
fn clip(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_WORD));
    text.retain(|c| !c.is_control());
}

/// A report in a picture of the mesh: as it is where people read, else as the bytes of its JSON.
pub(super) mod carried {
    use serde::{de, ser};

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        report: &NodeReport,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return report.serialize(serializer);
        }
        let json = serde_json::to_vec(report).map_err(<S::Error as ser::Error>::custom)?;
        Bytes::from(json).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<NodeReport, D::Error> {
        if deserializer.is_human_readable() {
            return NodeReport::deserialize(deserializer);
        }
        let json = Bytes::deserialize(deserializer)?;
        if json.len() > MAX_REPORT {
            return Err(de::Error::custom(format_args!("a report of {} bytes", json.len())));
        }
        // What a later version says in another way is not worth the whole picture.
        Ok(serde_json::from_slice(&json).map(NodeReport::bounded).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use layercake_wire::payload::{self, Encoding};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Carrier(#[serde(with = "carried")] NodeReport);

    fn worker() -> WorkerReport {
        WorkerReport::new(1, HostId::from_bits(2), NodeId::from_bits(3), 4)
    }

    #[test]
    fn a_report_travels_as_json_and_comes_back_as_it_was() {
        let pool =
            PoolReport { actor: "Worker".into(), workers: vec![worker()], ..PoolReport::default() };
        let actor = ActorReport { kind: "Chef".into(), taken: 7, ..ActorReport::default() };
        let report = NodeReport { actors: vec![actor], pools: vec![pool], ..NodeReport::default() };
        for encoding in [Encoding::Bincode, Encoding::Json] {
            let bytes = payload::encode(encoding, &Carrier(report.clone())).unwrap();
            assert_eq!(
                payload::decode::<Carrier>(encoding, &bytes).unwrap(),
                Carrier(report.clone())
            );
        }
    }

    #[test]
    fn what_another_version_says_is_read_as_far_as_it_is_known() {
        let carried = |json: &str| {
            let bytes = payload::encode(Encoding::Bincode, &Bytes::from(json.to_owned())).unwrap();
            payload::decode::<Carrier>(Encoding::Bincode, &bytes).map(|carrier| carrier.0)
        };
        let more =
            carried(r#"{"uptime_us": 5, "weather": "fine", "actors": [{"kind": "A"}]}"#).unwrap();
        assert_eq!((more.uptime_us, &*more.actors[0].kind), (5, "A"));
        assert_eq!(carried(r#"{"uptime_us": "long"}"#).unwrap(), NodeReport::default());
        assert!(carried(&" ".repeat(MAX_REPORT + 1)).is_err());
    }

    #[test]
    fn a_report_keeps_to_its_limits_whoever_says_it() {
        let actor = ActorReport { kind: "ü\n".repeat(500), ..ActorReport::default() };
        let pool = PoolReport { workers: vec![worker(); 5_000], ..PoolReport::default() };
        let report = NodeReport {
            actors: vec![actor; 5_000],
            pools: vec![pool; 100],
            ..NodeReport::default()
        };
        let report = report.bounded();
        assert_eq!(
            (report.actors.len(), report.pools.len()),
            (MAX_REPORTED_ACTORS, MAX_REPORTED_POOLS)
        );
        assert_eq!(report.pools[0].workers.len(), MAX_REPORTED_WORKERS);
        assert!(report.actors[0].kind.len() <= MAX_WORD && !report.actors[0].kind.contains('\n'));
    }
}
