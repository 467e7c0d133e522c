//! How many requests may be under way, and whose.
//!
//! The number follows from how long answers take. Each kind of request has a *base*, the time it takes
//! while few are under way; a request may take twice that, or the base and some time of waiting
//! ([`Settings::waiting`]), whichever is more. Where requests take longer on the whole, or the service
//! pushes back, the number falls; where it is made use of and answers come in time, it rises. As a base
//! cannot be seen while the service is full, the number is cut to its square root for a moment now and
//! then.
//!
//! At the limit, clients are treated alike: one that holds less than its share is let in as long as
//! another holds more than its own, which then waits until that is worked off; so there are twice as
//! many at most. Nothing is taken from whoever is in.
//!
//! Who is refused is told when to come back: one after the other, as fast as the service works, so that
//! they do not come back all at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::HashMap;
use layercake_node::AskError;

/// The least number of requests that may be under way.
const LEAST: f64 = 8.0;
/// The number at the beginning.
const FIRST: f64 = 256.0;
/// Requests and time from which the number is judged.
const WINDOW: (u32, Duration) = (16, Duration::from_millis(100));
/// How often the base is looked for while the limit is reached: after that time, and so many times the
/// time that it took.
const PROBE_INTERVAL: (Duration, u32) = (Duration::from_secs(10), 50);
/// For how long, at least and at most; else three times the mean time.
const PROBE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(1));
/// How many kinds of requests have a base. Beyond it all begin anew.
const MAX_BASES: usize = 4_096;
/// When to come back: at least, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What can be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// The most requests that the number may come to.
    pub(super) most: usize,
    /// How long requests may wait on average, on top of the time that they take.
    pub(super) waiting: Duration,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was answered, or took all of its time.
    Served,
    /// The service would not have it.
    PushedBack,
    /// Its client gave it up.
    GivenUp,
}

impl Ended {
    /// How a call ended.
    pub(crate) fn of<T>(outcome: &Result<T, AskError>) -> Self {
        match outcome {
            Err(AskError::Busy { .. } | AskError::Overloaded { .. }) => Self::PushedBack,
            // Over before it began, which is no sign of speed.
            Err(error) if !error.may_have_run() && !matches!(error, AskError::Deadline) => {
                Self::GivenUp
            }
            _ => Self::Served,
        }
    }
}

/// A refused request may come back after that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) retry_after: Duration,
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Ticket {
    client: u64,
    begun: Instant,
    /// How many were under way when it began, itself included.
    among: usize,
}

/// The requests that are under way, and how many may be.
pub(super) struct Admission {
    settings: Settings,
    limit: f64,
    in_flight: usize,
    holders: HashMap<u64, usize>,
    /// Who held the most when last looked at.
    greediest: (u64, usize),
    /// Seconds, for each kind of request.
    bases: HashMap<Arc<str>, f64>,
    window: Window,
    next_probe: Instant,
    probe_until: Option<Instant>,
    /// Requests answered per second.
    pace: f64,
    /// Who was refused and has not had its turn to come back, and when that was last brought up to date.
    refused: (f64, Instant),
}

/// What has happened since the number was last judged.
struct Window {
    begun: Instant,
    served: u32,
    /// Times taken, as parts of those allowed.
    stretch: f64,
    /// Seconds taken.
    taken: f64,
    most: usize,
    pushed_back: bool,
    shed: bool,
}

impl Window {
    const fn new(now: Instant) -> Self {
        Self {
            begun: now,
            served: 0,
            stretch: 0.0,
            taken: 0.0,
            most: 0,
            pushed_back: false,
            shed: false,
        }
    }
}

impl Admission {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let most = settings.most.max(1);
        Self {
            settings: Settings { most, ..settings },
            limit: FIRST.min(most as f64),
            in_flight: 0,
            holders: HashMap::default(),
            greediest: (0, 0),
            bases: HashMap::default(),
            window: Window::new(now),
            next_probe: now + PROBE_INTERVAL.0,
            probe_until: None,
            pace: 0.0,
            refused: (0.0, now),
        }
    }

    /// How many may be under way.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Whether a request would be let in. `weight` is its share of the number: 1, or more for one that
    /// matters more.
    pub(super) fn check(&mut self, client: u64, weight: f64, now: Instant) -> Result<(), Shed> {
        if self.has_room(client, weight, now) {
            return Ok(());
        }
        self.window.shed = true;
        Err(Shed { retry_after: self.turn(now) })
    }

    /// Lets a request in, or not.
    pub(super) fn enter(&mut self, client: u64, weight: f64, now: Instant) -> Result<Ticket, Shed> {
        self.check(client, weight, now)?;
        self.in_flight += 1;
        self.window.most = self.window.most.max(self.in_flight);
        let held = self.holders.entry(client).or_default();
        *held += 1;
        if *held > self.greediest.1 || client == self.greediest.0 {
            self.greediest = (client, *held);
        }
        Ok(Ticket { client, begun: now, among: self.in_flight })
    }

    fn has_room(&mut self, client: u64, weight: f64, now: Instant) -> bool {
        let most = (self.limit * weight).clamp(1.0, self.settings.most as f64);
        let in_flight = self.in_flight as f64;
        let probing = self.probe_until.is_some_and(|until| now < until);
        if in_flight < if probing { self.few() } else { most } {
            return true;
        }
        if in_flight >= most * 2.0 {
            return false;
        }
        let held = self.holders.get(&client).copied().unwrap_or_default();
        let clients = self.holders.len() + usize::from(held == 0);
        let share = (most / clients as f64).max(1.0);
        (held as f64) < share.floor() && self.greediest.1 as f64 > share
    }

    /// As many as tell the base: the service is not full of them.
    fn few(&self) -> f64 {
        self.limit.sqrt()
    }

    /// When a refused request has its turn to come back.
    fn turn(&mut self, now: Instant) -> Duration {
        let (refused, since) = self.refused;
        let worked_off = self.pace * now.saturating_duration_since(since).as_secs_f64();
        let refused = (refused - worked_off).max(0.0) + 1.0;
        let ahead = Duration::try_from_secs_f64(refused / self.pace).unwrap_or(RETRY.0);
        // Those beyond the longest time come then, whoever they are; to count them is of no use.
        let most = self.pace.max(1.0) * RETRY.1.as_secs_f64();
        self.refused = (refused.min(most), now);
        (RETRY.0 + ahead).min(RETRY.1)
    }

    /// A request has ended.
    pub(super) fn leave(&mut self, ticket: Ticket, kind: &Arc<str>, ended: Ended, now: Instant) {
        self.in_flight -= 1;
        if let Some(held) = self.holders.get_mut(&ticket.client) {
            *held -= 1;
            if ticket.client == self.greediest.0 {
                self.greediest.1 = *held;
            }
            if *held == 0 {
                self.holders.remove(&ticket.client);
            }
        }
        let taken = now.saturating_duration_since(ticket.begun).as_secs_f64();
        match ended {
            Ended::PushedBack => self.window.pushed_back = true,
            Ended::Served => self.served(&ticket, kind, taken),
            // Whoever gave up early says nothing about the service; after a long wait, a lot.
            Ended::GivenUp if taken > self.allowed(self.base(kind)) => {
                self.served(&ticket, kind, taken);
            }
            Ended::GivenUp => {}
        }
        self.judge(now);
    }

    fn served(&mut self, ticket: &Ticket, kind: &Arc<str>, taken: f64) {
        let few = ticket.among as f64 <= self.few();
        let base = match self.bases.get_mut(kind) {
            Some(base) => {
                if few {
                    *base += (taken - *base) / 8.0;
                }
                *base
            }
            None => {
                if self.bases.len() == MAX_BASES {
                    self.bases.clear();
                }
                self.bases.insert(kind.clone(), taken);
                taken
            }
        };
        self.window.served += 1;
        self.window.taken += taken;
        self.window.stretch += taken / self.allowed(base);
    }

    fn base(&self, kind: &str) -> f64 {
        self.bases.get(kind).copied().unwrap_or_default()
    }

    /// How long a request of that base may take, in seconds.
    fn allowed(&self, base: f64) -> f64 {
        (base + base.max(self.settings.waiting.as_secs_f64())).max(0.001)
    }

    /// Draws a conclusion from what has happened, if that is enough.
    fn judge(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.window.begun);
        let enough =
            self.window.served >= WINDOW.0 || self.window.pushed_back || age >= WINDOW.1 * 10;
        if age < WINDOW.1 || !enough {
            return;
        }
        let window = std::mem::replace(&mut self.window, Window::new(now));
        let served = f64::from(window.served);
        let pace = served / age.as_secs_f64();
        self.pace = if self.pace == 0.0 { pace } else { self.pace + (pace - self.pace) / 4.0 };

        if self.probe_until.take_if(|until| now >= *until).is_some() {
            return; // half of the window was of another kind
        }
        let stretch = if window.served == 0 { 0.0 } else { window.stretch / served };
        if window.pushed_back {
            self.limit *= 0.9;
        } else if stretch > 1.0 {
            self.limit *= 0.5 + 0.5 * (1.0 / stretch).max(0.5);
        } else if stretch < 0.8 && window.most as f64 >= self.limit * 0.8 {
            self.limit += self.limit.sqrt();
        }
        let most = self.settings.most as f64;
        self.limit = self.limit.clamp(LEAST.min(most), most);

        if window.shed && now >= self.next_probe && self.probe_until.is_none() {
            let mean = Duration::try_from_secs_f64(3.0 * window.taken / served).unwrap_or(PROBE.0);
            let probe = mean.clamp(PROBE.0, PROBE.1);
            self.probe_until = Some(now + probe);
            self.next_probe = now + PROBE_INTERVAL.0.max(probe * PROBE_INTERVAL.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cmp::Reverse,
        collections::{BinaryHeap, VecDeque},
    };

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A service of so many servers, each of which takes so long for a request, with a queue before them.
    struct Queue {
        servers: usize,
        takes: Duration,
        door: Admission,
        kind: Arc<str>,
        waiting: VecDeque<(Ticket, u64, Instant)>,
        busy: BinaryHeap<Reverse<(Instant, u64)>>,
        tickets: HashMap<u64, (Ticket, u64, Instant)>,
        begun: u64,
        served: Vec<(u64, Duration, Instant)>,
        refused: Vec<(u64, Duration)>,
    }

    impl Queue {
        fn new(servers: usize, takes: Duration, now: Instant) -> Self {
            let settings = Settings { most: 4_096, waiting: 100 * MS };
            Self {
                servers,
                takes,
                door: Admission::new(settings, now),
                kind: "Xy".into(),
                waiting: VecDeque::new(),
                busy: BinaryHeap::new(),
                tickets: HashMap::default(),
                begun: 0,
                served: Vec::new(),
                refused: Vec::new(),
            }
        }

        fn comes(&mut self, client: u64, weight: f64, now: Instant) -> Option<Shed> {
            self.until(now);
            match self.door.enter(client, weight, now) {
                Ok(ticket) => {
                    self.waiting.push_back((ticket, client, now));
                    self.fill(now);
                    None
                }
                Err(shed) => {
                    self.refused.push((client, shed.retry_after));
                    Some(shed)
                }
            }
        }

        fn fill(&mut self, now: Instant) {
            while self.busy.len() < self.servers
                && let Some(request) = self.waiting.pop_front()
            {
                self.begun += 1;
                self.busy.push(Reverse((now + self.takes, self.begun)));
                self.tickets.insert(self.begun, request);
            }
        }

        fn until(&mut self, now: Instant) {
            while let Some(Reverse((end, id))) = self.busy.peek().copied()
                && end <= now
            {
                self.busy.pop();
                let (ticket, client, came) = self.tickets.remove(&id).unwrap();
                self.door.leave(ticket, &self.kind, Ended::Served, end);
                self.served.push((client, end - came, end));
                self.fill(end);
            }
        }

        fn p99(&self, client: u64, after: Instant) -> Duration {
            let of = self.served.iter().filter(|(c, _, at)| *c == client && *at >= after);
            let mut times: Vec<_> = of.map(|(_, taken, _)| *taken).collect();
            times.sort_unstable();
            times[times.len() * 99 / 100]
        }
    }

    #[test]
    fn at_three_times_the_load_answers_come_in_time_and_nothing_is_wasted() {
        for (servers, takes) in [(4, 20 * MS), (4, 2 * MS), (16, 300 * MS)] {
            let start = Instant::now();
            let mut queue = Queue::new(servers, takes, start);
            let capacity = servers as f64 / takes.as_secs_f64();
            let gap = Duration::from_secs_f64(1.0 / (3.0 * capacity));
            let mut now = start;
            while now < start + 60_000 * MS {
                queue.comes(u64::from((now - start).subsec_micros() % 100), 1.0, now);
                now += gap;
            }
            let settled = start + 20_000 * MS;
            let served = queue.served.iter().filter(|(_, _, at)| *at >= settled).count() as f64;
            let taken: f64 =
                queue.served.iter().filter(|s| s.2 >= settled).map(|s| s.1.as_secs_f64()).sum();
            let mean = taken / served;
            let allowed = takes.as_secs_f64() + takes.as_secs_f64().max(0.1);
            assert!(mean < allowed * 1.3, "{servers} × {takes:?}: {mean} s, allowed {allowed}");
            let part = served / 40.0 / capacity;
            assert!(part > 0.95, "{servers} × {takes:?}: only {part} of the capacity is used");
        }
    }

    #[test]
    fn a_greedy_client_hurts_itself_alone() {
        let start = Instant::now();
        let mut queue = Queue::new(4, 20 * MS, start); // 200 per second
        let mut honest_refused = 0;
        for ms in 0..60_000 {
            let now = start + ms * MS;
            if ms % 2 == 0 {
                queue.comes(1, 1.0, now); // 500 per second
            }
            if ms % 20 == 0 {
                let refused = queue.comes(2, 1.0, now).is_some();
                honest_refused += u32::from(refused && ms > 10_000);
            }
        }
        let settled = start + 10_000 * MS;
        assert!(honest_refused <= 25, "{honest_refused} of 2,500");
        assert!(queue.p99(2, settled) < 300 * MS, "{:?}", queue.p99(2, settled));
        let greedy = queue.served.iter().filter(|s| s.0 == 1 && s.2 >= settled).count();
        assert!(greedy > 140 * 50, "what is left is the greedy one's: {greedy}");
    }

    #[test]
    fn a_fast_service_is_not_held_back() {
        let start = Instant::now();
        let mut queue = Queue::new(64, MS, start);
        for ms in 0..20_000 {
            for client in 0..60 {
                queue.comes(client, 1.0, start + ms * MS);
            }
        }
        assert_eq!(queue.refused.len(), 0);
    }

    #[test]
    fn what_matters_less_is_put_off_first() {
        let start = Instant::now();
        let mut queue = Queue::new(4, 20 * MS, start);
        let mut refused = [0; 3];
        for ms in 0..60_000 {
            for (n, weight) in [0.75, 1.0, 1.25].into_iter().enumerate() {
                if ms % 10 == 3 * n as u32 {
                    let put_off = queue.comes(n as u64, weight, start + ms * MS).is_some();
                    refused[n] += u32::from(put_off && ms > 10_000);
                }
            }
        }
        assert!(refused[0] > refused[1] && refused[1] > refused[2], "{refused:?}");
    }

    #[test]
    fn who_comes_back_when_told_is_served_in_the_end() {
        // Twice the load for twenty seconds; everybody comes back as told, eight times at most.
        let start = Instant::now();
        let mut queue = Queue::new(4, 20 * MS, start);
        let mut coming: BinaryHeap<_> =
            (0..8_000_u32).map(|n| Reverse((start + n * MS * 5 / 2, n, 0))).collect();
        let mut lost = 0;
        while let Some(Reverse((now, n, tries))) = coming.pop() {
            if let Some(shed) = queue.comes(u64::from(n), 1.0, now) {
                if tries == 8 {
                    lost += 1;
                } else {
                    let whole = Duration::from_secs(shed.retry_after.as_secs() + 1);
                    coming.push(Reverse((now + whole, n, tries + 1)));
                }
            }
        }
        assert!(lost <= 80, "{lost} of 8,000 never got in");
    }

    #[test]
    fn a_service_that_pushes_back_gets_less_and_recovers() {
        let start = Instant::now();
        let settings = Settings { most: 4_096, waiting: 100 * MS };
        let mut door = Admission::new(settings, start);
        let kind: Arc<str> = "Xy".into();
        let mut now = start;
        let mut round = |door: &mut Admission, ended| {
            let tickets: Vec<_> =
                (0..300).filter_map(|client| door.enter(client, 1.0, now).ok()).collect();
            now += 120 * MS;
            for ticket in tickets {
                door.leave(ticket, &kind, ended, now);
            }
        };
        for _ in 0..100 {
            round(&mut door, Ended::PushedBack);
        }
        let low = door.limit();
        assert!((8..40).contains(&low), "{low}");
        for _ in 0..100 {
            round(&mut door, Ended::Served);
        }
        assert!(door.limit() > 200, "{}", door.limit());
        assert_eq!((door.in_flight, door.holders.len()), (0, 0), "nothing is left behind");
    }
}
