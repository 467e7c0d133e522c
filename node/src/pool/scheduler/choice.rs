//! Which worker gets a request.

use std::time::{Duration, Instant};

use rand::Rng;

use super::{
    Scheduler,
    terms::{Distance, Request, WorkerId},
    worker::{Health, Room, Why},
};

/// A worker that has not answered for so many times the latency of the pool is taken for lost...
const SILENCE: f64 = 20.0;
/// ...but not before this.
const MIN_SILENCE: Duration = Duration::from_millis(250);
/// A worker that takes so many times as long as is usual may be left idle while others are faster...
const SLOW: f64 = 3.0;
/// ...but is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// When a worker is given the next request before it has answered: after so much of what it usually takes.
const AHEAD: (f64, f64) = (0.6, 1.5);
/// What a worker is given in a row may take it so long in all.
const ROW: Duration = Duration::from_millis(1);
/// A worker may always have so many requests of the keys that are its own.
const KEYED: usize = 2;

impl Scheduler {
    /// The worker for a request that has waited for so long, if one has room and will do.
    pub(super) fn pick(
        &mut self,
        request: &Request,
        waited: Duration,
        now: Instant,
    ) -> Option<u32> {
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
                None => match self.same_again() {
                    Some(same) if request.again.is_none() => (Some(same), Some(same)),
                    _ => self.soonest(request.again, now),
                },
            };
            let Some(best) = best else { return due };
            if let Some(seen) = seen.filter(|seen| self.is_silent(*seen, now))
                && self.eject(seen, Why::Silent, now)
            {
                continue;
            }
            let better = request.key.is_none() && self.is_worth_waiting(best, waited, now);
            return (!better).then_some(best);
        }
    }

    /// Whether a request would start at once.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.due.is_empty() || self.lists().any(|open| !open.is_empty())
    }

    /// The workers with room, the nearest first, of these the idle ones first; who may only be given
    /// something ahead counts while others have waited for some time.
    fn lists(&self) -> impl Iterator<Item = &Vec<u32>> {
        let rooms = if self.crowded { Room::COUNT } else { Room::COUNT - 1 };
        self.open.iter().flat_map(move |distance| &distance[..rooms])
    }

    /// Of two random workers among the nearest with room and two among all, the one with the least cost;
    /// and the one with the greatest, which is the one to be looked at.
    fn soonest(&mut self, avoid: Option<WorkerId>, now: Instant) -> (Option<u32>, Option<u32>) {
        let (mut count, mut near) = (0, 0);
        for open in self.lists() {
            count += open.len();
            if near == 0 {
                near = count;
            }
        }
        if count < 2 {
            let only = self.nth(0).filter(|only| !self.is_too_early(*only, now));
            return (only, only);
        }
        let first = self.dice.random_range(0..near);
        // Any but the first.
        let second =
            if near > 1 { (first + self.dice.random_range(1..near)) % near } else { first };
        let mut drawn = [first, second, first, second];
        if near < count {
            drawn[2] = self.dice.random_range(0..count);
            drawn[3] = self.dice.random_range(0..count);
        }
        let drawn = if near < count { &drawn[..] } else { &drawn[..2] };
        let mut best: Option<(f64, u32)> = None;
        let mut worst: Option<(f64, u32)> = None;
        for worker in drawn.iter().filter_map(|at| self.nth(*at)) {
            if self.worker(worker).is_none_or(|known| Some(known.id) == avoid)
                || self.is_too_early(worker, now)
            {
                continue;
            }
            let cost = self.cost(worker, now);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, worker));
            }
            if worst.is_none_or(|(most, _)| cost > most) {
                worst = Some((cost, worker));
            }
        }
        let is = |worker: u32, id| self.worker(worker).is_some_and(|known| Some(known.id) == id);
        let others = || {
            let mut all = (0..count).filter_map(|at| self.nth(at));
            all.find(|worker| !self.is_too_early(*worker, now) && !is(*worker, avoid)).or_else(
                || (0..count).filter_map(|at| self.nth(at)).find(|worker| is(*worker, avoid)),
            )
        };
        let best = best.map(|(_, worker)| worker);
        // Who is to be avoided is better than none.
        let best = if avoid.is_some() { best.or_else(others) } else { best };
        (best, worst.map(|(_, worker)| worker))
    }

    /// The worker that was given the last request, where it may have this one too. To wake a worker costs as
    /// much as many a short request; what it is given in a row, it reads, works off and answers at once. So
    /// it may have as much as takes it [`ROW`], and no more than its share, so that the others have something
    /// to do as well: all of them, or as many as there are processors for.
    fn same_again(&self) -> Option<u32> {
        let last = self.last?;
        let known = self.worker(last).filter(|known| known.room() == Some(Room::Some))?;
        let has = known.in_flight() as f64;
        let others = match known.distance {
            Distance::Lan => self.able,
            Distance::Process | Distance::Host => self.able.min(self.processors),
        };
        let share = self.in_flight as f64 / others.max(1) as f64;
        let is_short = known.step > 0.0 && (has + 1.0) * known.step <= ROW.as_secs_f64();
        let nearer = &self.open[..known.distance as usize];
        let is_nearest = || nearer.iter().flat_map(|open| &open[..2]).all(Vec::is_empty);
        (is_short && has < share && is_nearest()).then_some(last)
    }

    /// Whether a worker that may be given something ahead is in the middle of what it has, or has had it for
    /// so long that nobody knows when it ends: the next request is to wait here and not there.
    fn is_too_early(&self, worker: u32, now: Instant) -> bool {
        let Some(known) = self.worker(worker) else { return true };
        let (true, Some(oldest)) = (known.room() == Some(Room::Ahead), self.oldest(worker)) else {
            return false;
        };
        // It began with it when it had answered the one before.
        let begun = oldest.max(known.answered_at);
        let age = now.saturating_duration_since(begun).as_secs_f64();
        !(known.limit.usual() * AHEAD.0..known.limit.usual() * AHEAD.1).contains(&age)
    }

    /// Whether the best worker with room is so slow that a request is answered sooner if it waits for
    /// another one. Medians are compared: one slow answer makes no slow worker.
    fn is_worth_waiting(&mut self, best: u32, waited: Duration, now: Instant) -> bool {
        let Some(known) = self.worker(best) else { return false };
        let takes = known.limit.usual();
        let usual = self.pace.usual();
        let left = takes - waited.as_secs_f64();
        // Who waits waits for somebody; and now and then it is seen whether the slow one still is.
        let others = self.in_flight > known.in_flight();
        let stale = || now.saturating_duration_since(known.answered_at) > LOOK_AGAIN;
        let slow = usual > 0.0 && takes > usual * SLOW && others && !stale();
        if !slow || left < self.pace.wait(self.queue.len(), self.in_flight, now) + usual {
            return false;
        }
        let Ok(left) = Duration::try_from_secs_f64(left) else { return false };
        let at = now + left;
        self.reconsider = Some(self.reconsider.map_or(at, |known| known.min(at)));
        true
    }

    /// The worker that the key prefers, by rendezvous hashing: the greatest of a hash of both, so that
    /// only the keys of a worker that goes find another one. One that has more than its share is passed
    /// over (consistent hashing with bounded loads). In time proportional to the number of workers.
    fn of_key(&self, key: u64, avoid: Option<WorkerId>) -> Option<u32> {
        let share = (self.in_flight + 1) as f64 / self.able.max(1) as f64;
        let most = ((share * self.config.key_load).ceil() as usize).max(KEYED);
        let open = self.lists().flatten();
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
        for open in self.lists() {
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
