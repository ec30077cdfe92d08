//! What Prometheus scrapes. Handles are resolved when a route goes live, so a request touches
//! atomics alone; every label value comes from a bounded set.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::route::Source;
use crate::route_metrics::{Families, RouteMetrics};

/// OpenTelemetry's advice for HTTP server durations, in seconds.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Which of the gateway's listeners took a connection; the value of the label `listener`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    Http,
    Https,
    /// The ports of containers, whatever they speak.
    Dynamic,
    /// Connections, and no requests.
    Ssh,
}

impl Listener {
    /// Those that take requests.
    pub const OF_REQUESTS: [Self; 3] = [Self::Http, Self::Https, Self::Dynamic];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Dynamic => "dynamic",
            Self::Ssh => "ssh",
        }
    }
}

/// Every metric of the gateway, on one registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub reloads: IntCounterVec,
    pub reload_successful: IntGauge,
    routes: IntGaugeVec,
    of_routes: Arc<Families>,
    pub in_flight: PerListener<IntGauge>,
    pub connections: IntGaugeVec,
    pub connections_refused: IntCounterVec,
    pub accept_errors: IntCounter,
    pub upstream_up: GaugeVec,
    pub tls_handshakes: IntCounterVec,
    pub access_log_dropped: IntCounter,
}

/// One handle per [`Listener`].
#[derive(Debug, Default)]
pub struct PerListener<T>([T; Listener::OF_REQUESTS.len()]);

impl<T> PerListener<T> {
    fn new(make: impl FnMut(Listener) -> T) -> Self {
        Self(Listener::OF_REQUESTS.map(make))
    }

    pub fn get(&self, listener: Listener) -> &T {
        &self.0[listener as usize]
    }
}

impl Metrics {
    /// Registers every metric on a registry of their own.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::on(Registry::new())
    }

    /// Registers every metric on `registry`. Fails only for a programming error: two metrics of one name.
    pub fn on(registry: Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, GaugeVec::new(Opts::new(name, help), labels)?)
        };
        let int_gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec());
            register(&registry, HistogramVec::new(options, labels)?)
        };
        let of_routes = Families::new(
            counters("edd_http_requests_total", "Requests answered.", &["listener", "route", "method", "code"])?,
            histograms(
                "edd_http_request_duration_seconds",
                "From the request's head to the last byte of its answer.",
                &["listener", "route"],
            )?,
            histograms(
                "edd_http_upstream_duration_seconds",
                "From the upstream's choice to the head of its answer.",
                &["route"],
            )?,
            counters("edd_http_errors_total", "Requests that failed, by reason.", &["route", "reason"])?,
        );
        let in_flight = int_gauges("edd_http_requests_in_flight", "Requests being served.", &["listener"])?;
        let build = gauges("edd_build_info", "1, with the version as label.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let started = register(
            &registry,
            Gauge::new("edd_process_start_time_seconds", "When the process started, in Unix time.")?,
        )?;
        started.set(unix_seconds());
        let reloads = counters("edd_config_reloads_total", "Attempts to load routes, by result.", &["result"])?;
        // An alert on an increase does not see a series that begins with 1.
        ["success", "failure"].iter().for_each(|result| drop(reloads.with_label_values(&[result])));
        Ok(Self {
            reloads,
            reload_successful: register(
                &registry,
                IntGauge::new("edd_config_last_reload_successful", "1 if the last load of the routes succeeded.")?,
            )?,
            routes: int_gauges("edd_routes", "Routes in the table.", &["source"])?,
            of_routes: Arc::new(of_routes),
            in_flight: PerListener::new(|listener| in_flight.with_label_values(&[listener.as_str()])),
            connections: int_gauges("edd_connections_open", "Open connections.", &["listener", "protocol"])?,
            connections_refused: counters("edd_connections_refused_total", "Connections closed at once.", &["reason"])?,
            accept_errors: register(
                &registry,
                IntCounter::new("edd_accept_errors_total", "Failures to accept a connection.")?,
            )?,
            upstream_up: gauges("edd_upstream_up", "0 while a target is left out after failures.", &["upstream"])?,
            tls_handshakes: counters("edd_tls_handshakes_total", "TLS handshakes.", &["version", "result"])?,
            access_log_dropped: register(
                &registry,
                IntCounter::new("edd_access_log_dropped_total", "Access lines lost because the log was too slow.")?,
            )?,
            registry,
        })
    }

    /// The text exposition format; `others` follow what is counted here.
    pub fn render(&self, others: Vec<MetricFamily>) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(others);
        let mut out = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&families, &mut out)?;
        Ok(out)
    }

    /// Sets the number of routes by source.
    pub fn set_routes(&self, counts: impl IntoIterator<Item = (Source, usize)>) {
        self.routes.reset();
        for (source, count) in counts {
            self.routes.with_label_values(&[source.as_str()]).set(count as i64);
        }
    }

    /// The handles of a route, or of what stands in for one.
    pub fn route(&self, id: &str) -> Arc<RouteMetrics> {
        self.of_routes.of(id)
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn unix_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
