//! What a node tells of its inside, when somebody looks at the mesh: its actors and its pools.
//!
//! Asked by the directory, on the thread of the links. Nothing is kept for it but what is counted anyway
//! under locks that are taken anyway; a node of many actors looks at some of them only.

use std::{
    cmp::Reverse,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use layercake_directory::{
    ActorReport, MAX_REPORTED_ACTORS, MAX_REPORTED_POOLS, NodeReport, PoolReport,
};
use parking_lot::Mutex;

use crate::{agent::AGENT, mailbox::Inlet};

/// Actors that are looked at for one report. Of a node with more it is any so many.
pub(crate) const MAX_LOOKED_AT: usize = 4096;

/// A pool, whatever its workers are.
pub(crate) trait ReportsPool: Send + Sync {
    fn report(&self) -> PoolReport;
}

/// The pools of a node, as long as they are there.
#[derive(Default)]
pub(crate) struct Pools {
    next: AtomicU64,
    all: Mutex<Vec<(u64, Weak<dyn ReportsPool>)>>,
}

impl Pools {
    pub(crate) fn note(&self, pool: Weak<dyn ReportsPool>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = self.all.lock();
        all.retain(|(_, pool)| pool.strong_count() > 0);
        all.push((id, pool));
    }

    fn report(&self) -> Vec<PoolReport> {
        let all: Vec<_> = {
            let all = self.all.lock();
            let there = all.iter().filter_map(|(id, pool)| Some((*id, pool.upgrade()?)));
            there.take(MAX_REPORTED_POOLS).collect()
        };
        // Without the lock: the last handle of a pool may be dropped here.
        let report = |(id, pool): (u64, Arc<dyn ReportsPool>)| {
            let mut report = pool.report();
            report.id = id;
            report
        };
        all.into_iter().map(report).collect()
    }
}

/// Puts a report together.
pub(crate) fn report(
    uptime: Duration,
    actor_count: usize,
    looked_at: Vec<Arc<dyn Inlet>>,
    dead_letters: u64,
    pools: &Pools,
) -> NodeReport {
    let mut actors: Vec<_> = looked_at
        .iter()
        .filter(|inlet| inlet.serial() != AGENT)
        .map(|inlet| {
            let (waiting, taken) = inlet.load();
            let parent = inlet.parent().map(|parent| parent.serial());
            let mut actor = ActorReport::default();
            (actor.serial, actor.kind) = (inlet.serial(), inlet.kind().to_owned());
            (actor.parent, actor.waiting, actor.taken) = (parent, waiting, taken);
            (inlet.exported(false), actor)
        })
        .collect();
    // Those that are busy or known to others are what somebody looks for.
    actors.sort_by_key(|(known, actor)| Reverse((*known, actor.waiting, actor.taken)));
    actors.truncate(MAX_REPORTED_ACTORS);
    let mut report = NodeReport::default();
    report.uptime_us = u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX);
    report.actor_count = actor_count;
    report.actors = actors.into_iter().map(|(_, actor)| actor).collect();
    report.dead_letters = dead_letters;
    report.pools = pools.report();
    report
}
