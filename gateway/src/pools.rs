//! The pools of the gateway's process, for `/metrics`. Pools of one name count together. Labels come from a
//! bounded set: the names of a process's pools, and words.

use std::{collections::BTreeMap, fmt};

use layercake_node::pool::{BUCKETS_MS, PoolStatus, Times};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Shows pools as they are when they are asked for.
pub(crate) struct PoolMetrics<F>(F);

impl<F: Fn() -> Vec<PoolStatus> + Send + Sync + 'static> PoolMetrics<F> {
    /// Of the pools that are returned each time, as by `Node::own_pools`.
    pub(crate) fn new(pools: F) -> Self {
        Self(pools)
    }
}

impl<F> fmt::Debug for PoolMetrics<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolMetrics")
    }
}

/// What pools of one name have in common.
#[derive(Default)]
struct Sum {
    requests: BTreeMap<&'static str, u64>,
    rejections: BTreeMap<&'static str, u64>,
    repetitions: BTreeMap<&'static str, u64>,
    workers: BTreeMap<String, i64>,
    waiting: i64,
    in_flight: i64,
    ejections: u64,
    restarts: u64,
    latency: Buckets,
    queue_delay: Buckets,
}

/// Times in buckets, of which the last is the rest.
#[derive(Default)]
struct Buckets {
    counts: [u64; BUCKETS_MS.len() + 1],
    count: u64,
    seconds: f64,
}

impl Buckets {
    fn add(&mut self, times: &Times) {
        let mut below = 0;
        for (count, up_to) in self.counts.iter_mut().zip(&times.buckets) {
            *count += up_to.saturating_sub(below);
            below = *up_to;
        }
        self.counts[BUCKETS_MS.len()] += times.count.saturating_sub(below);
        self.count += times.count;
        self.seconds += times.sum_ms / 1e3;
    }

    fn bounds(&self) -> Vec<(f64, u64)> {
        let bounds = BUCKETS_MS.iter().map(|ms| ms / 1e3).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

impl Sum {
    fn add(&mut self, pool: &PoolStatus) {
        let sum = |into: &mut BTreeMap<&'static str, u64>, counts: &[(&'static str, u64)]| {
            counts.iter().for_each(|(word, n)| *into.entry(word).or_default() += n);
        };
        sum(&mut self.requests, &pool.totals.requests());
        sum(&mut self.rejections, &pool.totals.rejections());
        sum(&mut self.repetitions, &pool.totals.repetitions());
        for worker in &pool.workers {
            *self.workers.entry(worker.state.to_string().replace(' ', "_")).or_default() += 1;
        }
        self.waiting += gauge(pool.waiting);
        self.in_flight += gauge(pool.in_flight);
        self.ejections += pool.totals.ejected;
        self.restarts += pool.restarts;
        self.latency.add(&pool.latency);
        self.queue_delay.add(&pool.queue_delay);
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl<F: Fn() -> Vec<PoolStatus> + Send + Sync + 'static> Collector for PoolMetrics<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut pools: BTreeMap<String, Sum> = BTreeMap::new();
        for pool in (self.0)() {
            pools.entry(pool.name.clone()).or_default().add(&pool);
        }
        if pools.is_empty() {
            return Ok(());
        }
        let mut family = Family { encoder: &mut encoder, pools: &pools };
        family.counters("requests", "Requests given to workers", "outcome", |s| &s.requests)?;
        family.counters("rejections", "Requests that no worker was given", "reason", |s| {
            &s.rejections
        })?;
        family.counters(
            "second_tries",
            "Requests given to a second worker, and those not, for want of budget",
            "kind",
            |s| &s.repetitions,
        )?;
        family.counter("ejections", "Workers left out for a while", |s| s.ejections)?;
        family.counter("restarts", "Workers replaced", |s| s.restarts)?;
        family.gauge("requests_waiting", "Requests that wait for a worker", |s| s.waiting)?;
        family.gauge("requests_in_flight", "Requests that workers have", |s| s.in_flight)?;
        family.workers()?;
        family.times("latency", "Time from the start on a worker to its answer", |s| &s.latency)?;
        family
            .times("queue_delay", "Time from arrival to the start on a worker", |s| &s.queue_delay)
    }
}

/// Writes one metric of all pools at a time, as the format wants it.
struct Family<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    pools: &'a BTreeMap<String, Sum>,
}

impl Family<'_, '_> {
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        of: impl Fn(&Sum) -> &BTreeMap<&'static str, u64>,
    ) -> fmt::Result {
        let name = format!("layercake_pool_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (pool, sum) in self.pools {
            for (word, count) in of(sum) {
                let labels = [("pool", pool.as_str()), (label, *word)];
                ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, of: impl Fn(&Sum) -> u64) -> fmt::Result {
        let name = format!("layercake_pool_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (pool, sum) in self.pools {
            let labels = [("pool", pool.as_str())];
            ConstCounter::new(of(sum)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, of: impl Fn(&Sum) -> i64) -> fmt::Result {
        let name = format!("layercake_pool_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (pool, sum) in self.pools {
            let labels = [("pool", pool.as_str())];
            ConstGauge::new(of(sum)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn workers(&mut self) -> fmt::Result {
        let (name, help) = ("layercake_pool_workers", "Workers by state");
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (pool, sum) in self.pools {
            for (state, count) in &sum.workers {
                let labels = [("pool", pool.as_str()), ("state", state.as_str())];
                ConstGauge::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn times(&mut self, name: &str, help: &str, of: impl Fn(&Sum) -> &Buckets) -> fmt::Result {
        let (name, unit) = (format!("layercake_pool_{name}"), Unit::Seconds);
        let kind = MetricType::Histogram;
        let mut metric = self.encoder.encode_descriptor(&name, help, Some(&unit), kind)?;
        for (pool, sum) in self.pools {
            let labels = [("pool", pool.as_str())];
            let (times, mut metric) = (of(sum), metric.encode_family(&labels)?);
            metric.encode_histogram::<NoLabelSet>(
                times.seconds,
                times.count,
                &times.bounds(),
                None,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn pools_of_one_name_count_together_in_the_format_of_prometheus() {
        let mut pool = PoolStatus::default();
        pool.name = "textures".to_owned();
        pool.totals.answered = 3;
        pool.totals.busy = 2;
        pool.waiting = 4;
        pool.latency.count = 3;
        pool.latency.sum_ms = 60.0;
        pool.latency.buckets = BUCKETS_MS.iter().map(|ms| u64::from(*ms >= 25.0) * 2).collect();
        let mut registry = Registry::default();
        let pools = PoolMetrics::new(move || vec![pool.clone(), pool.clone()]);
        registry.register_collector(Box::new(pools));
        let mut encoded = String::new();
        text::encode(&mut encoded, &registry).expect("text");
        for line in [
            r#"layercake_pool_requests_total{pool="textures",outcome="answered"} 6"#,
            r#"layercake_pool_rejections_total{pool="textures",reason="busy"} 4"#,
            r#"layercake_pool_requests_waiting{pool="textures"} 8"#,
            r#"layercake_pool_latency_seconds_count{pool="textures"} 6"#,
            r#"layercake_pool_latency_seconds_sum{pool="textures"} 0.12"#,
            r#"layercake_pool_latency_seconds_bucket{le="0.01",pool="textures"} 0"#,
            r#"layercake_pool_latency_seconds_bucket{le="0.025",pool="textures"} 4"#,
            r#"layercake_pool_latency_seconds_bucket{le="+Inf",pool="textures"} 6"#,
        ] {
            assert!(encoded.lines().any(|other| other == line), "{line}\n{encoded}");
        }
        let families = encoded.lines().filter(|line| line.starts_with("# TYPE"));
        let mut names: Vec<_> = families.collect();
        let all = names.len();
        names.dedup();
        assert_eq!((names.len(), all), (10, 10), "each is described once: {encoded}");
    }
}
