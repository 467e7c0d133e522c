//! How large a pool should be: it grows when requests wait too long, shrinks when its workers idle, and
//! does neither in haste. A plain value; [`machine`] reads what the machine has to give.
//!
//! A worker handles one request after the other, so of the time that one takes which finds `q` others
//! there, `q` parts in `q + 1` are waiting. That is added to the time in the pool's own queue.

use std::time::{Duration, Instant};

/// How often a pool looks at itself.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A pool grows when requests have waited longer than this
const SLOW: Duration = Duration::from_millis(100);
/// for so long,
const SLOW_FOR: Duration = Duration::from_millis(750);
/// and then again only after so long, for the new workers have to show what they are good for.
const SETTLE: Duration = Duration::from_secs(2);
/// A worker is one too many when the others would be busy for less than this share of the time
const IDLE_SHARE: f64 = 0.6;
/// and were for so long.
const IDLE_FOR: Duration = Duration::from_secs(10);
/// Runnable threads for each processor above which more workers would only take turns.
pub(super) const MOST_LOAD: f64 = 1.5;
/// A new worker may take so much memory, which has to be there twice.
const WORKER_MEMORY: u64 = 64 << 20;

/// What a pool sees of itself and of its machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Workers that there are to be.
    pub(super) workers: usize,
    /// Those that take requests.
    pub(super) ready: usize,
    /// Requests that workers have.
    pub(super) in_flight: usize,
    /// Of these workers, those that have any.
    pub(super) busy: usize,
    /// How long a request would wait in the pool that came now; before the first answer, how long one has.
    pub(super) queued: Duration,
    /// How long a worker takes to answer, its own queue included.
    pub(super) latency: Duration,
    pub(super) machine: Machine,
}

/// What the machine has to give.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// Runnable threads of late.
    pub(super) load: f64,
    pub(super) processors: f64,
    /// Bytes that can be had, within the limits of the process.
    pub(super) memory: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    Stay,
    /// Have so many workers.
    Resize(usize),
}

/// How large a pool may be, and what else is asked of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: usize,
    pub(super) max: usize,
    /// Runnable threads for each processor above which it does not grow.
    pub(super) most_load: f64,
}

/// The judgement of one pool.
#[derive(Debug)]
pub(super) struct Sizer {
    min: usize,
    max: usize,
    most_load: f64,
    slow_since: Option<Instant>,
    idle_since: Option<Instant>,
    /// When it has changed last.
    changed: Option<Instant>,
}

impl Sizer {
    pub(super) fn new(Bounds { min, max, most_load }: Bounds) -> Self {
        Self { min, max, most_load, slow_since: None, idle_since: None, changed: None }
    }

    pub(super) fn step(&mut self, now: Instant, seen: &Seen) -> Advice {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let slow = seen.delay() > SLOW;
        self.slow_since = slow.then(|| self.slow_since.unwrap_or(now));
        let others = seen.ready.saturating_sub(1).max(1);
        let idle = !slow && (seen.busy as f64) < IDLE_SHARE * others as f64;
        self.idle_since = idle.then(|| self.idle_since.unwrap_or(now));
        if since(self.changed).is_some_and(|ago| ago < SETTLE) {
            return Advice::Stay;
        }
        // Those that are on their way may be what is missing.
        let all_there = seen.ready >= seen.workers;
        let wanted = if seen.workers > self.min && seen.machine.is_out_of_memory() {
            seen.workers - 1
        } else if seen.workers < self.max
            && all_there
            && since(self.slow_since).is_some_and(|long| long >= SLOW_FOR)
            && seen.machine.bears_another(self.most_load)
        {
            // By half: from one to a hundred in a dozen steps.
            (seen.workers + seen.workers.div_ceil(2)).min(self.max)
        } else if seen.workers > self.min
            && since(self.idle_since).is_some_and(|long| long >= IDLE_FOR)
        {
            seen.workers - 1
        } else {
            return Advice::Stay;
        };
        self.changed = Some(now);
        self.slow_since = None;
        Advice::Resize(wanted)
    }
}

impl Seen {
    /// How long requests wait, in the pool and at the workers.
    fn delay(&self) -> Duration {
        let each = self.in_flight as f64 / self.busy.max(1) as f64;
        let waiting = if each > 1.0 { 1.0 - 1.0 / each } else { 0.0 };
        self.queued + self.latency.mul_f64(waiting)
    }
}

impl Machine {
    fn bears_another(&self, most_load: f64) -> bool {
        self.load < most_load * self.processors && self.memory >= 2 * WORKER_MEMORY
    }

    fn is_out_of_memory(&self) -> bool {
        self.memory < WORKER_MEMORY / 2
    }
}

/// Reads what the machine has to give. What cannot be read counts as plenty.
pub(super) fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let own = read("/proc/self/cgroup").and_then(|text| own_group(&text));
    let group =
        |file: &str| read(&format!("/sys/fs/cgroup{}/{file}", own.as_deref().unwrap_or("")));
    let processors = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let granted = group("cpu.max").and_then(|text| quota(&text)).unwrap_or(f64::INFINITY);
    let available = read("/proc/meminfo").and_then(|text| available(&text)).unwrap_or(u64::MAX);
    let number = |file: &str| group(file)?.trim().parse::<u64>().ok();
    let left = number("memory.max")
        .map_or(u64::MAX, |max| max.saturating_sub(number("memory.current").unwrap_or(0)));
    Machine {
        load: read("/proc/loadavg").and_then(|text| load(&text)).unwrap_or(0.0),
        processors: processors.min(granted),
        memory: available.min(left),
    }
}

/// The path of this process's group, of `/proc/self/cgroup`.
fn own_group(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_end_matches('/');
    Some(path.to_owned())
}

/// Processors, of `cpu.max`: `max 100000` or `150000 100000`.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

/// Bytes, of `/proc/meminfo`.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

/// Threads that run or want to now, of `/proc/loadavg`: `0.20 0.18 0.12 1/80 11206`. The averages there are
/// over a minute and more: too slow by far.
fn load(text: &str) -> Option<f64> {
    let (running, _) = text.split(' ').nth(3)?.split_once('/')?;
    running.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Machine = Machine { load: 0.0, processors: 8.0, memory: u64::MAX };

    fn between(min: usize, max: usize) -> Sizer {
        Sizer::new(Bounds { min, max, most_load: MOST_LOAD })
    }

    fn seen(workers: usize) -> Seen {
        Seen {
            workers,
            ready: workers,
            in_flight: 0,
            busy: 0,
            queued: Duration::ZERO,
            latency: Duration::from_millis(10),
            machine: PLENTY,
        }
    }

    /// Every worker has ten requests of 50 ms each.
    fn loaded(workers: usize) -> Seen {
        let latency = Duration::from_millis(500);
        Seen { in_flight: 10 * workers, busy: workers, latency, ..seen(workers) }
    }

    /// Lets a pool that always looks alike live for so long, and says how large it was in the end.
    fn live(
        sizer: &mut Sizer,
        now: &mut Instant,
        long: Duration,
        look: impl Fn(usize) -> Seen,
        mut size: usize,
    ) -> usize {
        let until = *now + long;
        while *now < until {
            if let Advice::Resize(to) = sizer.step(*now, &look(size)) {
                size = to;
            }
            *now += TICK;
        }
        size
    }

    #[test]
    fn it_grows_when_requests_wait_and_shrinks_when_workers_idle_within_its_bounds() {
        let (mut sizer, mut now) = (between(2, 10), Instant::now());
        let secs = Duration::from_secs;
        assert_eq!(live(&mut sizer, &mut now, secs(5), |_| seen(2), 2), 2, "nothing to do");
        let size = live(&mut sizer, &mut now, Duration::from_millis(500), loaded, 2);
        assert_eq!(size, 2, "a moment is no reason");
        assert_eq!(live(&mut sizer, &mut now, secs(20), loaded, 2), 10);
        let size = live(&mut sizer, &mut now, secs(8), seen, 10);
        assert_eq!(size, 10, "a short rest is none");
        assert_eq!(live(&mut sizer, &mut now, secs(60), seen, 10), 2);
    }

    #[test]
    fn it_stays_as_it_is_under_a_load_that_fits() {
        let (mut sizer, mut now) = (between(1, 10), Instant::now());
        // Each has one request at a time, and most have one.
        let fits = |n: usize| Seen { in_flight: n - 1, busy: n - 1, ..seen(n) };
        assert_eq!(live(&mut sizer, &mut now, Duration::from_secs(600), fits, 4), 4);
    }

    #[test]
    fn it_does_not_grow_beyond_what_the_machine_bears() {
        let (mut sizer, mut now) = (between(1, 10), Instant::now());
        let minute = Duration::from_secs(60);
        let full = |n| Seen { machine: Machine { load: 12.0, ..PLENTY }, ..loaded(n) };
        assert_eq!(live(&mut sizer, &mut now, minute, full, 3), 3, "processors");
        let tight = |n| Seen { machine: Machine { memory: 100 << 20, ..PLENTY }, ..loaded(n) };
        assert_eq!(live(&mut sizer, &mut now, minute, tight, 3), 3, "memory");
        let none = |n| Seen { machine: Machine { memory: 1 << 20, ..PLENTY }, ..loaded(n) };
        assert_eq!(live(&mut sizer, &mut now, minute, none, 3), 1, "it gives memory back");
    }

    #[test]
    fn workers_on_their_way_are_waited_for() {
        let (mut sizer, mut now) = (between(1, 10), Instant::now());
        let starting = |n| Seen { ready: 1, ..loaded(n) };
        assert_eq!(live(&mut sizer, &mut now, Duration::from_secs(60), starting, 2), 2);
    }

    #[test]
    fn what_the_system_says_is_understood() {
        assert_eq!(load("0.20 0.18 0.12 3/80 11206\n"), Some(3.0));
        assert_eq!(available("MemTotal: 5 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(own_group("0::/\n").as_deref(), Some(""));
        assert_eq!(own_group("0::/user.slice/a\n").as_deref(), Some("/user.slice/a"));
        let machine = machine();
        assert!(machine.processors > 0.0 && machine.memory > 0, "{machine:?}");
    }
}
