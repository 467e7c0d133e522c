//! Which worker gets a request.

use std::time::{Duration, Instant};

use rand::Rng;

use super::{
    Scheduler,
    terms::{Request, WorkerId},
    worker::{Health, Why},
};

/// A worker that has not answered for so many times the latency of the pool is taken for lost...
const SILENCE: f64 = 20.0;
/// ...but not before this.
const MIN_SILENCE: Duration = Duration::from_millis(250);
/// A worker may always have so many requests of the keys that are its own.
const KEYED: usize = 2;

impl Scheduler {
    /// The worker for a request, if one has room.
    pub(super) fn pick(&mut self, request: &Request, now: Instant) -> Option<u32> {
        // Who was left out is tried with a request that was not lost before.
        let due = self.due.front().copied();
        if let (Some(due), None) = (due, request.again) {
            return Some(due);
        }
        loop {
            let (best, seen) = match request.key {
                Some(key) => {
                    let best = self.of_key(key, request.again);
                    (best, best)
                }
                None => self.soonest(request.again, now),
            };
            let Some(best) = best else { return due };
            if let Some(seen) = seen.filter(|seen| self.is_silent(*seen, now))
                && self.eject(seen, Why::Silent, now)
            {
                continue;
            }
            return Some(best);
        }
    }

    /// Whether a request would start at once.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.due.is_empty() || self.open.iter().any(|open| !open.is_empty())
    }

    /// Of two random workers among the nearest with room and two among all, the one with the least cost;
    /// and the one with the greatest, which is the one to be looked at.
    fn soonest(&mut self, avoid: Option<WorkerId>, now: Instant) -> (Option<u32>, Option<u32>) {
        let count: usize = self.open.iter().map(Vec::len).sum();
        let near = self.open.iter().map(Vec::len).find(|len| *len > 0).unwrap_or(0);
        if count < 2 {
            let only = self.nth(0);
            return (only, only);
        }
        let mut worst: Option<(f64, u32)> = None;
        let mut best: Option<(f64, u32)> = None;
        let mut consider = |pool: &Self, at: usize| {
            let Some(worker) = pool.nth(at) else { return };
            let avoided = pool.worker(worker).is_none_or(|known| Some(known.id) == avoid);
            let cost = if avoided { f64::MAX } else { pool.cost(worker, now) };
            if !avoided && worst.is_none_or(|(most, _)| cost > most) {
                worst = Some((cost, worker));
            }
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, worker));
            }
        };
        let first = self.dice.random_range(0..near);
        // Any but the first.
        let second =
            if near > 1 { (first + self.dice.random_range(1..near)) % near } else { first };
        consider(self, first);
        consider(self, second);
        if near < count {
            for _ in 0..2 {
                let any = self.dice.random_range(0..count);
                consider(self, any);
            }
        }
        let best = match best {
            Some((f64::MAX, _)) => (0..count)
                .filter_map(|at| self.nth(at))
                .find(|worker| self.worker(*worker).is_some_and(|known| Some(known.id) != avoid)),
            best => best.map(|(_, worker)| worker),
        };
        (best, worst.map(|(_, worker)| worker))
    }

    /// The worker that the key prefers, by rendezvous hashing: the greatest of a hash of both, so that
    /// only the keys of a worker that goes find another one. One that has more than its share is passed
    /// over (consistent hashing with bounded loads). In time proportional to the number of workers.
    fn of_key(&self, key: u64, avoid: Option<WorkerId>) -> Option<u32> {
        let share = (self.in_flight + 1) as f64 / self.able.max(1) as f64;
        let most = ((share * self.config.key_load).ceil() as usize).max(KEYED);
        let open = self.open.iter().flatten();
        let rank = |worker: &&u32| {
            let known = self.worker(**worker);
            known.map(|known| {
                let fits = known.in_flight() < most;
                (Some(known.id) != avoid, fits, mix(mix(key) ^ known.identity))
            })
        };
        open.max_by_key(rank).copied()
    }

    /// The `at`th of the workers with room, the nearest first.
    fn nth(&self, mut at: usize) -> Option<u32> {
        for open in &self.open {
            match open.get(at) {
                Some(worker) => return Some(*worker),
                None => at -= open.len(),
            }
        }
        None
    }

    fn oldest(&self, worker: u32) -> Option<Instant> {
        let oldest = self.worker(worker)?.requests.first()?;
        Some(self.slots[oldest].started)
    }

    fn cost(&self, worker: u32, now: Instant) -> f64 {
        let oldest = self.oldest(worker);
        let mean = self.mean();
        self.worker(worker)
            .map_or(f64::MAX, |known| known.cost(oldest, mean, self.config.slow_start, now))
    }

    /// Whether a worker has kept its requests for so long that it may never answer.
    fn is_silent(&self, worker: u32, now: Instant) -> bool {
        let Some(known) = self.worker(worker) else { return false };
        let silence = known.silence(self.oldest(worker), now);
        silence > (self.pace.last_latency() * SILENCE).max(MIN_SILENCE.as_secs_f64())
    }

    /// Leaves a worker out for a while, unless half of them would be.
    pub(super) fn eject(&mut self, worker: u32, why: Why, now: Instant) -> bool {
        if !self.config.ejection || (self.out + 1) * 2 > self.able {
            return false;
        }
        self.keep_out(worker, why, now);
        true
    }

    /// The same, of one that is out already.
    pub(super) fn keep_out(&mut self, worker: u32, why: Why, now: Instant) {
        let jitter = self.dice.random::<f64>();
        let Some(known) = self.worker_mut(worker) else { return };
        let health = known.eject(why, jitter, now);
        self.totals.ejected += 1;
        self.set_health(worker, health);
    }

    /// Looks at a worker that has failed once more.
    pub(super) fn judge(&mut self, worker: u32, now: Instant) {
        let Some(known) = self.worker(worker) else { return };
        if known.health == Health::Well && known.is_failing() {
            let others = self.workers.iter().flatten().filter(|other| other.id != known.id);
            let (sum, count) =
                others.fold((0.0, 0), |(sum, n), other| (sum + other.failing(), n + 1));
            if known.is_worse_than(sum / f64::from(count.max(1))) {
                self.eject(worker, Why::Fails, now);
            }
        }
    }
}

/// Spreads the bits of a number (the finaliser of splitmix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
