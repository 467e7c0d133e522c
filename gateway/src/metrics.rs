//! What is counted, and how it is shown to Prometheus.
//!
//! Labels come from a bounded set: messages of the API (`-` for every other path), methods that HTTP
//! defines (`other`), statuses of the problem table. A request that its client gave up counts under
//! status 499, as nginx has it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The status under which a request counts that nobody waited for.
const GIVEN_UP: u16 = 499;

/// How OpenMetrics ends.
const END: &str = "# EOF\n";

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    message: Arc<str>,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabel {
    message: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What the requests for one message count in, found once: looking it up by its labels costs as much as
/// all the rest of counting.
#[derive(Debug)]
pub(crate) struct MessageMetrics {
    /// The message, `-` for none.
    pub(crate) message: Arc<str>,
    durations: OnceLock<Histogram>,
    /// The counter of what was seen first, which is what is seen most.
    usual: OnceLock<(&'static str, u16, Counter<u64, AtomicU64>)>,
}

impl MessageMetrics {
    pub(crate) fn new(message: Arc<str>) -> Arc<Self> {
        Arc::new(Self { message, durations: OnceLock::new(), usual: OnceLock::new() })
    }
}

/// Adds to a text of metrics.
type More = Box<dyn Fn(&mut String) + Send + Sync>;

/// The counts of one gateway.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    no_message: Arc<MessageMetrics>,
    requests: Family<RequestLabels, Counter<u64, AtomicU64>>,
    durations: Family<MessageLabel, Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    pub(crate) connections: Gauge<i64, AtomicI64>,
    pub(crate) accept_errors: Counter<u64, AtomicU64>,
    shed: Family<ReasonLabel, Counter<u64, AtomicU64>>,
    pub(crate) concurrency_limit: Gauge<i64, AtomicI64>,
    pub(crate) log_dropped: Counter<u64, AtomicU64>,
    more: Vec<More>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            no_message: MessageMetrics::new("-".into()),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            accept_errors: Counter::default(),
            shed: Family::default(),
            concurrency_limit: Gauge::default(),
            log_dropped: Counter::default(),
            more: Vec::new(),
        };
        let registry = metrics.registry.sub_registry_with_prefix("layercake_http");
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from the head of a request to its answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        let in_flight = metrics.in_flight.clone();
        registry.register("requests_in_flight", "Requests under way", in_flight);
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "accept_errors",
            "Connections that could not be accepted",
            metrics.accept_errors.clone(),
        );
        registry.register(
            "requests_shed",
            "Requests refused before the service saw them, by what they were too many for",
            metrics.shed.clone(),
        );
        registry.register(
            "concurrency_limit",
            "Requests that may be under way in the service",
            metrics.concurrency_limit.clone(),
        );
        registry.register(
            "access_log_dropped",
            "Lines of the access log that found no room to be written",
            metrics.log_dropped.clone(),
        );
        metrics
    }

    /// Begins to observe a request.
    pub(crate) fn begin(&self, method: &Method, now: Instant) -> Observation<'_> {
        self.in_flight.inc();
        Observation {
            metrics: self,
            counted: self.no_message.clone(),
            method: method_label(method),
            begun: now,
            status: GIVEN_UP,
        }
    }

    /// A request was refused at the door.
    pub(crate) fn shed(&self, reason: &'static str) {
        self.shed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Shows what somebody else counts, too.
    pub(crate) fn add(&mut self, more: More) {
        self.more.push(more);
    }

    /// Everything, as OpenMetrics or in the older text format (0.0.4).
    pub(crate) fn encode(&self, open_metrics: bool) -> String {
        let mut text = String::new();
        // A `String` takes everything; the encoder has no error of its own.
        let _ = text::encode(&mut text, &self.registry);
        if !self.more.is_empty() {
            text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
            for more in &self.more {
                more(&mut text);
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
            }
            text.push_str(END);
        }
        if open_metrics { text } else { to_older_format(&text) }
    }
}

/// A request under way. Dropped, it is counted: with its status, or as given up.
pub(crate) struct Observation<'m> {
    metrics: &'m Metrics,
    counted: Arc<MessageMetrics>,
    method: &'static str,
    begun: Instant,
    status: u16,
}

impl<'m> Observation<'m> {
    /// The request is for that message.
    pub(crate) fn of_message(&mut self, counted: &Arc<MessageMetrics>) {
        self.counted = counted.clone();
    }

    /// What it is counted in.
    pub(crate) const fn metrics(&self) -> &'m Metrics {
        self.metrics
    }

    /// The message that it is for, `-` for none.
    pub(crate) fn message(&self) -> &Arc<str> {
        &self.counted.message
    }

    /// The status that it will count under.
    pub(crate) const fn status(&self) -> u16 {
        self.status
    }

    /// Since its head came.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The request was answered.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        let Self { metrics, counted, method, begun, status } = self;
        metrics.in_flight.dec();
        let message = &counted.message;
        let durations = counted.durations.get_or_init(|| {
            metrics.durations.get_or_create(&MessageLabel { message: message.clone() }).clone()
        });
        durations.observe(begun.elapsed().as_secs_f64());
        let requests = || {
            let (message, status) = (message.clone(), *status);
            let labels = RequestLabels { message, method, status };
            metrics.requests.get_or_create(&labels).clone()
        };
        match counted.usual.get_or_init(|| (*method, *status, requests())) {
            (of, with, usual) if (of, with) == (method, status) => _ = usual.inc(),
            _ => _ = requests().inc(),
        }
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Rewrites OpenMetrics text to the text format 0.0.4, in which the `TYPE` of a counter carries the
/// name with its suffix, and which knows no `UNIT`, no `EOF` and fewer types.
fn to_older_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "gauge" | "histogram" | "summary" => ("", kind),
                _ => ("", "untyped"),
            };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> Metrics {
        let metrics = Metrics::new();
        let mut seen = metrics.begin(&Method::GET, Instant::now());
        seen.of_message(&MessageMetrics::new("Xy".into()));
        seen.answered(StatusCode::OK);
        drop(seen);
        metrics
    }

    #[test]
    fn what_is_seen_less_often_counts_as_well() {
        let metrics = Metrics::new();
        let xy = MessageMetrics::new("Xy".into());
        for (method, status) in
            [(Method::GET, 200), (Method::POST, 200), (Method::GET, 503), (Method::GET, 200)]
        {
            let mut seen = metrics.begin(&method, Instant::now());
            seen.of_message(&xy);
            seen.answered(StatusCode::from_u16(status).unwrap());
        }
        // Of a table that was made anew.
        let mut seen = metrics.begin(&Method::GET, Instant::now());
        seen.of_message(&MessageMetrics::new("Xy".into()));
        seen.answered(StatusCode::OK);
        drop(seen);
        let text = metrics.encode(true);
        for (method, status, times) in [("GET", 200, 3), ("POST", 200, 1), ("GET", 503, 1)] {
            let line = format!(
                r#"requests_total{{message="Xy",method="{method}",status="{status}"}} {times}"#
            );
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains(r#"seconds_count{message="Xy"} 5"#), "{text}");
    }

    #[test]
    fn a_request_is_counted_once_by_message_method_and_status() {
        let text = counted().encode(true);
        let line = r#"layercake_http_requests_total{message="Xy",method="GET",status="200"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains("layercake_http_request_duration_seconds_count"), "{text}");
        assert!(text.contains("layercake_http_requests_in_flight 0"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_request_that_was_given_up_counts_as_499() {
        let metrics = Metrics::new();
        drop(metrics.begin(&Method::from_bytes(b"BREW").unwrap(), Instant::now()));
        let line = r#"requests_total{message="-",method="other",status="499"} 1"#;
        assert!(metrics.encode(true).contains(line));
    }

    #[test]
    fn what_others_count_is_shown_before_the_end() {
        let mut metrics = counted();
        metrics.add(Box::new(|text| text.push_str("# TYPE pool_waiting gauge\npool_waiting 3")));
        let text = metrics.encode(true);
        assert!(text.ends_with("pool_waiting 3\n# EOF\n"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(metrics.encode(false).ends_with("# TYPE pool_waiting gauge\npool_waiting 3\n"));
    }

    #[test]
    fn the_older_format_names_a_counter_as_its_samples_do() {
        let text = counted().encode(false);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines.contains(&"# HELP layercake_http_requests_total Requests answered."),
            "{text}"
        );
        assert!(lines.contains(&"# TYPE layercake_http_requests_total counter"), "{text}");
        assert!(
            lines.contains(&"# TYPE layercake_http_request_duration_seconds histogram"),
            "{text}"
        );
        assert!(!text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }
}
