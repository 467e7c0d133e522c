//! What a pool tells of itself to those who look at the mesh.

use std::time::Duration;

use layercake_directory::{MAX_REPORTED_WORKERS, PoolReport, WorkerReport};

use super::Inner;
use crate::{actor::Actor, clock, report::ReportsPool};

impl<A: Actor> ReportsPool for Inner<A> {
    fn report(&self) -> PoolReport {
        let mut report = PoolReport::default();
        report.actor = A::NAME.to_owned();
        report.kind = self.kind.clone();
        report.restarts = self.restarts.load(std::sync::atomic::Ordering::Relaxed);
        let now = clock::now();
        let state = self.state.lock();
        let scheduler = &state.scheduler;
        let totals = scheduler.totals();
        (report.waiting, report.queue) = (scheduler.pending(), scheduler.config().queue);
        report.in_flight = scheduler.in_flight();
        (report.started, report.answered) = (totals.started, totals.answered);
        report.failed = totals.failed + totals.timed_out + totals.orphaned;
        report.given_up = totals.cancelled + totals.withdrawn + totals.expired;
        (report.busy, report.overloaded) = (totals.busy, totals.overloaded);
        report.unavailable = totals.unavailable;
        report.worker_count = state.workers.len();
        let limit = scheduler.config().concurrency;
        for stats in scheduler.workers(now).take(MAX_REPORTED_WORKERS) {
            let Some(address) = state.workers.get(&stats.worker) else { continue };
            let (peer, serial) = address.whereabouts();
            let mut worker = WorkerReport::new(stats.worker.0, peer.host, peer.node, serial);
            if stats.draining {
                worker.state = "draining".to_owned();
            }
            (worker.in_flight, worker.limit) = (stats.in_flight, Some(limit));
            worker.latency_us = micros(stats.latency);
            (worker.started, worker.answered) = (stats.started, stats.answered);
            report.workers.push(worker);
        }
        drop(state);
        report.workers.sort_unstable_by_key(|worker| worker.id);
        report
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
