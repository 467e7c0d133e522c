//! What is simulated, and what is read from it.

use layercake_node::pool::scheduler::Config;

use super::{
    Report,
    balancers::{Ours, all},
    measure::quantile,
    plot::{Line, Plot},
    world::{self, Balancer, Clients, Fate, History, MILLI, Plan, Result, SECOND, Time, Work},
};

type Scenario = fn() -> Report;

pub(super) const ALL: [(&str, Scenario); 7] = [
    ("slow", slow),
    ("mixed", mixed),
    ("overload", overload),
    ("errors", errors),
    ("fairness", fairness),
    ("trouble", trouble),
    ("hedging", hedging),
];

const SEED: u64 = 20_26;

fn one_caller(rates: Vec<(Time, Time, f64)>) -> Vec<Clients> {
    vec![Clients { caller: 1, rates }]
}

/// How many requests a second so many workers can answer.
fn capacity(workers: usize, work: Work) -> f64 {
    workers as f64 * SECOND as f64 / work.mean() as f64
}

fn against_all(plan: &Plan, responsiveness: Time) -> Vec<(&'static str, History)> {
    let rivals = all(responsiveness).into_iter();
    rivals.map(|(name, mut rival)| (name, world::run(plan, &mut *rival))).collect()
}

fn ms(time: Time) -> String {
    let ms = time as f64 / MILLI as f64;
    match ms {
        100.0.. => format!("{ms:.0} ms"),
        10.0.. => format!("{ms:.1} ms"),
        _ => format!("{ms:.2} ms"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// The answers' times against the share of requests that were answered so fast.
fn tail(title: &'static str, histories: &[(&'static str, History)], span: (Time, Time)) -> Plot {
    let nines = |share: f64| -(1.0 - share).log10();
    let shares = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999];
    let line = |(name, history): &(&'static str, History)| {
        let times = history.within(span.0, span.1).accepted();
        let point = |share: f64| (nines(share), quantile(&times, share) as f64 / MILLI as f64);
        Line { name, points: shares.map(point).to_vec() }
    };
    let marks = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")];
    Plot {
        title,
        x: "share of the requests answered within that time",
        y: "ms",
        log: true,
        marks: marks.map(|(share, label)| (nines(share), label.to_owned())).to_vec(),
        lines: histories.iter().map(line).collect(),
    }
}

/// Something of each half second.
fn course(
    title: &'static str,
    y: &'static str,
    log: bool,
    end: Time,
    histories: &[(&'static str, History)],
    value: impl Fn(&History, Time, Time) -> f64,
) -> Plot {
    let step = SECOND / 2;
    let line = |(name, history): &(&'static str, History)| {
        let points = (0..end / step).map(|at| {
            let (from, to) = (at * step, (at + 1) * step);
            (from as f64 / SECOND as f64, value(history, from, to))
        });
        Line { name, points: points.collect() }
    };
    let every = if end > 40 * SECOND { 10 } else { 5 };
    Plot {
        title,
        x: "seconds",
        y,
        log,
        marks: (0..=end / SECOND).step_by(every).map(|s| (s as f64, s.to_string())).collect(),
        lines: histories.iter().map(line).collect(),
    }
}

fn latencies(histories: &[(&'static str, History)], span: (Time, Time)) -> Vec<Vec<String>> {
    let mut table = vec![row(&["", "p50", "p99", "p99.9", "answered"])];
    for (name, history) in histories {
        let requests = history.within(span.0, span.1);
        let times = requests.accepted();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| ms(quantile(&times, share)));
        table.push(row(&[name, &p50, &p99, &p999, &percent(requests.share(Result::Answered))]));
    }
    table
}

pub(super) fn slow_plan() -> Plan {
    let work = Work::Even { mean: 20 * MILLI };
    Plan {
        workers: 8,
        work,
        clients: one_caller(vec![(0, 60 * SECOND, 0.7 * capacity(8, work))]),
        patience: 10 * SECOND,
        fates: vec![(0, 3, Fate::Slow(10.0))],
        pauses: None,
        seed: SEED,
    }
}

fn slow() -> Report {
    let histories = against_all(&slow_plan(), 5 * SECOND);
    let span = (2 * SECOND, 58 * SECOND);
    Report {
        name: "slow",
        table: latencies(&histories, span),
        plot: tail("One of eight workers ten times slower, 70 % load", &histories, span),
    }
}

fn mixed() -> Report {
    let work = Work::Either { short: 5 * MILLI, long: 100 * MILLI, long_of_hundred: 10 };
    let plan = Plan {
        clients: one_caller(vec![(0, 60 * SECOND, 0.7 * capacity(8, work))]),
        work,
        fates: Vec::new(),
        ..slow_plan()
    };
    let histories = against_all(&plan, 5 * SECOND);
    let span = (2 * SECOND, 58 * SECOND);
    Report {
        name: "mixed",
        table: latencies(&histories, span),
        plot: tail("One request in ten takes twenty times longer, 70 % load", &histories, span),
    }
}

/// 70 % of the capacity, 200 % for a minute, and 70 % again.
pub(super) fn overload_plan() -> Plan {
    let work = Work::Even { mean: 20 * MILLI };
    let capacity = capacity(8, work);
    Plan {
        clients: one_caller(vec![
            (0, 10 * SECOND, 0.7 * capacity),
            (10 * SECOND, 70 * SECOND, 2.0 * capacity),
            (70 * SECOND, 90 * SECOND, 0.7 * capacity),
        ]),
        patience: 5 * SECOND,
        fates: Vec::new(),
        ..slow_plan()
    }
}

/// When all is well again after the load has dropped: from then on everything is answered, and fast.
pub(super) fn recovery(history: &History, drop: Time, end: Time) -> Option<Time> {
    let step = SECOND / 4;
    let well = |at: &Time| {
        let requests = history.within(*at, at + step);
        requests.share(Result::Answered) > 0.999
            && quantile(&requests.accepted(), 0.99) < 150 * MILLI
    };
    let steps: Vec<_> = (drop..end).step_by(step as usize).collect();
    let ill = steps.iter().rposition(|at| !well(at)).map_or(0, |at| at + 1);
    steps.get(ill).map(|at| at - drop)
}

fn overload() -> Report {
    let histories = against_all(&overload_plan(), SECOND / 2);
    let capacity = capacity(8, overload_plan().work);
    let mut table = vec![row(&[
        "",
        "goodput",
        "p99 of the accepted",
        "p99 of a rejection",
        "most held",
        "normal after",
    ])];
    for (name, history) in &histories {
        let during = history.within(12 * SECOND, 70 * SECOND);
        let rejected = during.rejected();
        let recovered = recovery(history, 70 * SECOND, 88 * SECOND);
        table.push(row(&[
            name,
            &percent(history.goodput(12 * SECOND, 70 * SECOND) / capacity),
            &ms(quantile(&during.accepted(), 0.99)),
            &if rejected.is_empty() { "none".to_owned() } else { ms(quantile(&rejected, 0.99)) },
            &history.most_held.to_string(),
            &recovered
                .map_or("not at all".to_owned(), |t| format!("{:.1} s", t as f64 / SECOND as f64)),
        ]));
    }
    let goodput = |history: &History, from, to| history.goodput(from, to) / capacity * 100.0;
    let title = "Twice the capacity from second 10 to 70";
    Report {
        name: "overload",
        table,
        plot: course(title, "goodput, % of capacity", false, 90 * SECOND, &histories, goodput),
    }
}

/// One of ten workers answers errors in a millisecond.
pub(super) fn errors_plan() -> Plan {
    let work = Work::Even { mean: 20 * MILLI };
    Plan {
        workers: 10,
        clients: one_caller(vec![(0, 30 * SECOND, 0.7 * capacity(10, work))]),
        fates: vec![(5 * SECOND, 4, Fate::Fails)],
        ..slow_plan()
    }
}

fn errors() -> Report {
    let histories = against_all(&errors_plan(), 5 * SECOND);
    let mut table = vec![row(&["", "its share in the first second", "later", "answered well"])];
    for (name, history) in &histories {
        let answered = history.within(5 * SECOND, 29 * SECOND).share(Result::Answered);
        table.push(row(&[
            name,
            &percent(history.share(4, 5 * SECOND, 6 * SECOND)),
            &percent(history.share(4, 6 * SECOND, 29 * SECOND)),
            &percent(answered),
        ]));
    }
    let share = |history: &History, from, to| history.share(4, from, to) * 100.0;
    let title = "One of ten workers answers errors at once, from second 5";
    Report {
        name: "errors",
        table,
        plot: course(title, "its share, %", false, 29 * SECOND, &histories, share),
    }
}

/// Caller 2 asks for a tenth of what the pool can do; caller 1, if any, for ten times as much.
pub(super) fn fairness_plan(loud: bool) -> Plan {
    let work = Work::Even { mean: 20 * MILLI };
    let rate = 0.1 * capacity(8, work);
    let quiet = Clients { caller: 2, rates: vec![(0, 60 * SECOND, rate)] };
    let other = Clients { caller: 1, rates: vec![(0, 60 * SECOND, 10.0 * rate)] };
    Plan {
        clients: if loud { vec![quiet, other] } else { vec![quiet] },
        patience: 5 * SECOND,
        fates: Vec::new(),
        ..slow_plan()
    }
}

fn fairness() -> Report {
    let span = (5 * SECOND, 58 * SECOND);
    let alone = against_all(&fairness_plan(false), SECOND / 2);
    let both = against_all(&fairness_plan(true), SECOND / 2);
    let mut table =
        vec![row(&["", "p99 of B alone", "p99 of B beside A", "B answered", "A answered"])];
    for ((name, alone), (_, both)) in alone.iter().zip(&both) {
        let b = both.within(span.0, span.1).of_caller(2);
        let a = both.within(span.0, span.1).of_caller(1);
        table.push(row(&[
            name,
            &ms(quantile(&alone.within(span.0, span.1).accepted(), 0.99)),
            &ms(quantile(&b.accepted(), 0.99)),
            &percent(b.share(Result::Answered)),
            &percent(a.share(Result::Answered)),
        ]));
    }
    let title = "p99 of caller B, beside A that asks for ten times as much";
    let p99 = |history: &History, from, to| {
        quantile(&history.within(from, to).of_caller(2).accepted(), 0.99) as f64 / MILLI as f64
    };
    Report { name: "fairness", table, plot: course(title, "ms", true, 59 * SECOND, &both, p99) }
}

/// One worker dies and comes back, another is stopped for ten seconds.
pub(super) fn trouble_plan() -> Plan {
    let work = Work::Even { mean: 20 * MILLI };
    Plan {
        clients: one_caller(vec![(0, 40 * SECOND, 0.6 * capacity(8, work))]),
        patience: 5 * SECOND,
        fates: vec![
            (5 * SECOND, 1, Fate::Dies),
            (7 * SECOND, 1, Fate::Returns),
            (15 * SECOND, 2, Fate::Stops),
            (25 * SECOND, 2, Fate::GoesOn),
        ],
        ..slow_plan()
    }
}

fn trouble() -> Report {
    let histories = against_all(&trouble_plan(), SECOND / 2);
    let mut table = vec![row(&["", "failed by the death", "failed by the stop", "p99", "p99.9"])];
    for (name, history) in &histories {
        let failed = |from: Time, to: Time| {
            let requests = history.within(from * SECOND, to * SECOND);
            let bad = requests.0.len() - requests.answered().len();
            bad.to_string()
        };
        let times = history.within(0, 39 * SECOND).accepted();
        table.push(row(&[
            name,
            &failed(4, 14),
            &failed(14, 39),
            &ms(quantile(&times, 0.99)),
            &ms(quantile(&times, 0.999)),
        ]));
    }
    let title = "A worker dies at 5 s and is back at 7 s; another is stopped from 15 s to 25 s";
    let p99 = |history: &History, from, to| {
        quantile(&history.within(from, to).accepted(), 0.99) as f64 / MILLI as f64
    };
    Report {
        name: "trouble",
        table,
        plot: course(title, "p99, ms", true, 39 * SECOND, &histories, p99),
    }
}

/// One request in eighty finds its worker paused for 300 ms.
pub(super) fn hedging_plan() -> Plan {
    let work = Work::Even { mean: 10 * MILLI };
    Plan {
        work,
        clients: one_caller(vec![(0, 60 * SECOND, 0.3 * capacity(8, work))]),
        fates: Vec::new(),
        pauses: Some((80, 300 * MILLI)),
        ..slow_plan()
    }
}

pub(super) fn hedging_balancers() -> [(&'static str, Ours); 2] {
    let hedged = Config { hedges: 0.05, ..Config::default() };
    [("without hedges", Ours::new(Config::default())), ("with hedges", Ours::new(hedged))]
}

fn hedging() -> Report {
    let histories = hedging_balancers().map(|(name, mut pool)| {
        let pool: &mut dyn Balancer = &mut pool;
        (name, world::run(&hedging_plan(), pool))
    });
    let span = (5 * SECOND, 58 * SECOND);
    let mut table = latencies(&histories, span);
    table[0].push("sent for each request".to_owned());
    for (row, (_, history)) in table.iter_mut().skip(1).zip(&histories) {
        row.push(format!("{:.3}", history.sent.len() as f64 / history.requests.len() as f64));
    }
    Report {
        name: "hedging",
        table,
        plot: tail("One request in eighty meets a pause of 300 ms", &histories, span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(plan: &Plan, responsiveness: Time) -> History {
        let mut rivals = all(responsiveness);
        assert_eq!(rivals[0].0, "layer-cake");
        world::run(plan, &mut *rivals[0].1)
    }

    #[test]
    fn under_twice_the_load_nothing_is_wasted_and_nobody_waits_long() {
        let history = ours(&overload_plan(), SECOND / 2);
        let during = history.within(12 * SECOND, 70 * SECOND);
        let capacity = capacity(8, overload_plan().work);
        assert!(history.goodput(12 * SECOND, 70 * SECOND) > 0.95 * capacity);
        assert!(quantile(&during.accepted(), 0.99) < SECOND / 2);
        assert!(quantile(&during.rejected(), 0.999) < 5 * MILLI);
        assert!(history.most_held < 300, "{}", history.most_held);
        assert!(recovery(&history, 70 * SECOND, 88 * SECOND).is_some_and(|t| t <= 2 * SECOND));
    }

    #[test]
    fn one_slow_worker_is_hardly_felt() {
        let histories = against_all(&slow_plan(), 5 * SECOND);
        let p99 =
            |at: usize| quantile(&histories[at].1.within(2 * SECOND, 58 * SECOND).accepted(), 0.99);
        assert!(p99(0) < 80 * MILLI && p99(0) < p99(4) / 2, "{} and {}", p99(0), p99(4));
    }

    #[test]
    fn a_worker_that_fails_at_once_attracts_nothing() {
        let history = ours(&errors_plan(), 5 * SECOND);
        assert!(history.share(4, 5 * SECOND, 6 * SECOND) <= 0.1);
        assert!(history.share(4, 6 * SECOND, 29 * SECOND) <= 0.02);
        assert!(history.within(5 * SECOND, 29 * SECOND).share(Result::Answered) >= 0.98);
    }

    #[test]
    fn a_greedy_caller_delays_another_by_less_than_a_service() {
        let p99 = |loud| {
            let history = ours(&fairness_plan(loud), SECOND / 2);
            quantile(&history.within(5 * SECOND, 58 * SECOND).of_caller(2).accepted(), 0.99)
        };
        assert!(p99(true) < 2 * p99(false));
    }
}
