//! What a service tells about its events in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use edd_proto::{Consumer, EventKind};
use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::consumer::Outcome;

/// From a row in memory to a call over a network, seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The type of what is no event of ours: the values of a label are bounded.
const OTHER: &str = "other";

/// The metrics of one service; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    published: IntCounterVec,
    processed: IntCounterVec,
    processing: HistogramVec,
    outbox_pending: IntGauge,
    outbox_oldest: Gauge,
    /// By stream and consumer.
    lag: BTreeMap<(&'static str, &'static str), IntGauge>,
    /// By consumer.
    dead_letters: BTreeMap<&'static str, IntGauge>,
}

impl Metrics {
    /// Registers those of `service` and its `consumers`. Several services may share a registry.
    ///
    /// # Errors
    /// The registry has metrics of this service already.
    pub fn register(service: &str, consumers: &[Consumer], registry: &Registry) -> prometheus::Result<Self> {
        let of_service = |name: &str, help: &str| Opts::new(name, help).const_label("service", service);
        let published = of_service("edd_events_published_total", "Events that the bus has taken.");
        let processed =
            of_service("edd_events_processed_total", "Events that consumers were given, by what became of them.");
        let processing = HistogramOpts::new("edd_event_processing_duration_seconds", "Time to handle an event, once.");
        let processing = processing.const_label("service", service).buckets(BUCKETS.to_vec());
        let pending = of_service("edd_outbox_pending", "Events that wait for the bus.");
        let oldest = of_service("edd_outbox_oldest_seconds", "How long the oldest event has waited for the bus.");
        let mut metrics = Self {
            published: IntCounterVec::new(published, &["event_type"])?,
            processed: IntCounterVec::new(processed, &["event_type", "status"])?,
            processing: HistogramVec::new(processing, &["event_type"])?,
            outbox_pending: IntGauge::with_opts(pending)?,
            outbox_oldest: Gauge::with_opts(oldest)?,
            lag: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
        };
        // A label that each of a service's gauges has fixed lets several services register the same name.
        for consumer in consumers {
            let lag = Opts::new("edd_events_consumer_lag", "Events that a consumer has not answered yet.");
            let lag = lag.const_label("stream", consumer.stream.name).const_label("consumer", consumer.name);
            metrics.lag.insert((consumer.stream.name, consumer.name), IntGauge::with_opts(lag)?);
            let dead = Opts::new("edd_dead_letters", "Events that a consumer gave up on and nobody has decided about.");
            let dead = IntGauge::with_opts(dead.const_label("consumer", consumer.name))?;
            metrics.dead_letters.insert(consumer.name, dead);
        }
        metrics.collectors().into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(self.published.clone()),
            Box::new(self.processed.clone()),
            Box::new(self.processing.clone()),
            Box::new(self.outbox_pending.clone()),
            Box::new(self.outbox_oldest.clone()),
        ];
        for gauge in self.lag.values().chain(self.dead_letters.values()) {
            collectors.push(Box::new(gauge.clone()));
        }
        collectors
    }

    /// Takes them out of `registry`, so that the service can be started again.
    pub(crate) fn unregister(&self, registry: &Registry) {
        for collector in self.collectors() {
            if let Err(error) = registry.unregister(collector) {
                tracing::debug!(%error, "a metric was not registered");
            }
        }
    }

    /// The bus has taken an event.
    pub(crate) fn published(&self, subject: &str) {
        self.published.with_label_values(&[event_type(subject)]).inc();
    }

    /// A consumer was given an event.
    pub(crate) fn processed(&self, subject: &str, outcome: Outcome, took: Duration) {
        let event_type = event_type(subject);
        self.processed.with_label_values(&[event_type, status(outcome)]).inc();
        // The others did not reach the handler, or not to its end.
        if matches!(outcome, Outcome::Handled | Outcome::Retried | Outcome::Dead) {
            let histogram: Histogram = self.processing.with_label_values(&[event_type]);
            histogram.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn set_outbox(&self, pending: i64, oldest: Duration) {
        self.outbox_pending.set(pending);
        self.outbox_oldest.set(oldest.as_secs_f64());
    }

    pub(crate) fn set_lag(&self, consumer: &Consumer, events: u64) {
        if let Some(gauge) = self.lag.get(&(consumer.stream.name, consumer.name)) {
            gauge.set(i64::try_from(events).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn set_dead_letters(&self, consumer: &Consumer, letters: i64) {
        if let Some(gauge) = self.dead_letters.get(consumer.name) {
            gauge.set(letters);
        }
    }
}

fn event_type(subject: &str) -> &'static str {
    EventKind::of(subject).map_or(OTHER, |(kind, _)| kind.name())
}

fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Handled => "completed",
        Outcome::Duplicate => "duplicate",
        Outcome::Retried => "retried",
        Outcome::Behind => "behind",
        Outcome::Dead => "dead",
        Outcome::Down => "down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTH: Consumer = edd_proto::CONSUMERS[0];
    const COMPUTE: Consumer = edd_proto::CONSUMERS[3];

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text")
    }

    #[test]
    fn services_share_a_registry_and_labels_are_bounded() {
        let registry = Registry::new();
        let auth = Metrics::register("auth", &[], &registry).expect("new");
        let sfs = Metrics::register("sfs", &[AUTH, COMPUTE], &registry).expect("new");
        auth.published("auth.user.x1.created");
        auth.published("auth.user.x2.created");
        auth.published("dlq.sfs-service.auth.user.x1.created");
        sfs.published("sfs.file.7.deleted");
        sfs.processed("auth.user.x1.created", Outcome::Handled, Duration::from_millis(20));
        sfs.processed("auth.user.x1.created", Outcome::Duplicate, Duration::from_millis(20));
        sfs.set_lag(&AUTH, 12);
        sfs.set_dead_letters(&COMPUTE, 3);
        auth.set_outbox(5, Duration::from_millis(1500));
        let text = text(&registry);
        for line in [
            "edd_events_published_total{event_type=\"auth.UserCreated\",service=\"auth\"} 2",
            "edd_events_published_total{event_type=\"other\",service=\"auth\"} 1",
            "edd_events_published_total{event_type=\"sfs.FileDeleted\",service=\"sfs\"} 1",
            "edd_events_processed_total{event_type=\"auth.UserCreated\",service=\"sfs\",status=\"completed\"} 1",
            "edd_events_processed_total{event_type=\"auth.UserCreated\",service=\"sfs\",status=\"duplicate\"} 1",
            "edd_event_processing_duration_seconds_bucket{event_type=\"auth.UserCreated\",service=\"sfs\",le=\"0.01\"} 0",
            "edd_event_processing_duration_seconds_bucket{event_type=\"auth.UserCreated\",service=\"sfs\",le=\"0.025\"} 1",
            "edd_event_processing_duration_seconds_count{event_type=\"auth.UserCreated\",service=\"sfs\"} 1",
            "edd_events_consumer_lag{consumer=\"sfs-service\",stream=\"AUTH\"} 12",
            "edd_dead_letters{consumer=\"gateway-service\"} 3",
            "edd_outbox_pending{service=\"auth\"} 5",
            "edd_outbox_oldest_seconds{service=\"auth\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("x1"), "an id in a label\n{text}");
    }

    #[test]
    fn a_service_that_ended_may_start_again() {
        let registry = Registry::new();
        let first = Metrics::register("sfs", &[AUTH], &registry).expect("new");
        assert!(Metrics::register("sfs", &[AUTH], &registry).is_err());
        first.unregister(&registry);
        Metrics::register("sfs", &[AUTH], &registry).expect("new again");
    }
}
