//! What Prometheus learns of containers: sums, never one of them by name.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::live::Status;

/// Waking from a pause takes milliseconds, from a stop seconds, and nothing longer than a minute.
const WAKE_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0];

#[derive(Debug)]
pub struct Metrics {
    containers: IntGaugeVec,
    pub ports: IntGauge,
    pub as_of: IntGauge,
    pub reloads: IntCounterVec,
    pub wakes: IntCounterVec,
    pub wake_duration: Histogram,
    pub held: IntGauge,
    pub turned_away: IntCounter,
    pub usage_dropped: IntCounter,
}

impl Metrics {
    /// Fails only for a programming error: two metrics of one name.
    pub fn on(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let counters =
            |name: &str, help: &str, label| register(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let containers = Opts::new("edd_containers", "Containers that the gateway knows, by status.");
        let duration =
            HistogramOpts::new("edd_wake_duration_seconds", "From the first request to the first connection.");
        Ok(Self {
            containers: register(registry, IntGaugeVec::new(containers, &["status"])?)?,
            ports: gauge("edd_container_ports", "Ports that lead to containers.")?,
            as_of: gauge(
                "edd_containers_as_of_seconds",
                "Unix time at which the containers were last known to be all that compute had told.",
            )?,
            reloads: counters(
                "edd_containers_reloads_total",
                "Times that all containers were read, by source.",
                "source",
            )?,
            wakes: counters("edd_wakes_total", "Containers woken by requests, by outcome.", "outcome")?,
            wake_duration: register(registry, Histogram::with_opts(duration.buckets(WAKE_BUCKETS.to_vec()))?)?,
            held: gauge("edd_held_requests", "Requests that wait for a container to wake up.")?,
            turned_away: counter("edd_held_requests_refused_total", "Requests that found too many others waiting.")?,
            usage_dropped: counter(
                "edd_tenant_usage_dropped_total",
                "Rows of usage lost because the database was away for too long.",
            )?,
        })
    }

    /// Sets the number of containers in each status.
    pub fn set_containers(&self, count: impl Fn(Status) -> usize) {
        for status in Status::ALL {
            let count = i64::try_from(count(status)).unwrap_or(i64::MAX);
            self.containers.with_label_values(&[status.as_str()]).set(count);
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
