//! What Prometheus scrapes. Handles are resolved when a route goes live, so a request touches
//! atomics alone; every label value comes from a bounded set.

use std::sync::OnceLock;

use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use crate::reason::Reason;
use crate::route::{RouteId, Source};

/// OpenTelemetry's advice for HTTP server durations, in seconds.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Which of the gateway's listeners took a connection; the value of the label `listener`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    Http,
    Https,
}

impl Listener {
    pub const ALL: [Self; 2] = [Self::Http, Self::Https];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The label `method`: RFC 9110's methods and PATCH, the rest is `_OTHER`.
const METHODS: [&str; 10] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "_OTHER"];

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// The status codes that get a series of their own; the rest is `_OTHER`.
const CODES: [u16; 64] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400,
    401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425,
    426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 0,
];

fn code_index(status: StatusCode) -> usize {
    CODES.iter().position(|code| *code == status.as_u16()).unwrap_or(CODES.len() - 1)
}

fn code_label(index: usize) -> String {
    match CODES[index] {
        0 => "_OTHER".to_owned(),
        code => code.to_string(),
    }
}

/// Every metric of the gateway, on one registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub reloads: IntCounterVec,
    pub reload_successful: IntGauge,
    routes: IntGaugeVec,
    requests: IntCounterVec,
    duration: HistogramVec,
    upstream_duration: HistogramVec,
    errors: IntCounterVec,
    pub in_flight: PerListener<IntGauge>,
    pub connections: IntGaugeVec,
    pub connections_refused: IntCounterVec,
    pub accept_errors: IntCounter,
    pub upstream_up: GaugeVec,
    pub tls_handshakes: IntCounterVec,
    pub access_log_dropped: IntCounter,
}

/// One handle per [`Listener`].
#[derive(Debug)]
pub struct PerListener<T>([T; 2]);

impl<T> PerListener<T> {
    fn new(make: impl FnMut(Listener) -> T) -> Self {
        Self(Listener::ALL.map(make))
    }

    pub fn get(&self, listener: Listener) -> &T {
        &self.0[listener as usize]
    }
}

impl Metrics {
    /// Registers every metric. Fails only for a programming error: two metrics of one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
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
            requests: counters(
                "edd_http_requests_total",
                "Requests answered.",
                &["listener", "route", "method", "code"],
            )?,
            duration: histograms(
                "edd_http_request_duration_seconds",
                "From the request's head to the last byte of its answer.",
                &["listener", "route"],
            )?,
            upstream_duration: histograms(
                "edd_http_upstream_duration_seconds",
                "From the upstream's choice to the head of its answer.",
                &["route"],
            )?,
            errors: counters("edd_http_errors_total", "Requests that failed, by reason.", &["route", "reason"])?,
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

    /// The handles of one route.
    pub fn route(&self, id: &RouteId) -> RouteMetrics {
        self.labelled(id.as_str())
    }

    /// The handles of requests that no route took.
    pub fn unmatched(&self) -> RouteMetrics {
        self.labelled("unmatched")
    }

    fn labelled(&self, route: &str) -> RouteMetrics {
        RouteMetrics {
            route: route.to_owned(),
            requests: self.requests.clone(),
            cells: Box::default(),
            duration: PerListener::new(|listener| self.duration.with_label_values(&[listener.as_str(), route])),
            upstream_duration: self.upstream_duration.with_label_values(&[route]),
            errors: self.errors.clone(),
        }
    }

    /// Forgets every series of a route that is gone.
    pub fn remove_route(&self, id: &RouteId) {
        remove_series(&self.requests, id, |labels| self.requests.remove_label_values(labels));
        remove_series(&self.duration, id, |labels| self.duration.remove_label_values(labels));
        remove_series(&self.upstream_duration, id, |labels| self.upstream_duration.remove_label_values(labels));
        remove_series(&self.errors, id, |labels| self.errors.remove_label_values(labels));
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn unix_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Removes the children of `vector` whose label `route` is `id`.
fn remove_series(vector: &impl Collector, id: &RouteId, remove: impl Fn(&[&str]) -> Result<(), prometheus::Error>) {
    let order: Vec<String> = vector.desc().first().map(|desc| desc.variable_labels.clone()).unwrap_or_default();
    for family in vector.collect() {
        for metric in family.get_metric() {
            let value = |name: &str| {
                metric.get_label().iter().find(|pair| pair.name() == name).map(|pair| pair.value().to_owned())
            };
            if value("route").as_deref() != Some(id.as_str()) {
                continue;
            }
            let labels: Vec<String> = order.iter().filter_map(|name| value(name)).collect();
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            // Only a race with another removal can fail, and then the series is gone as wished.
            let _ = remove(&labels);
        }
    }
}

type CodeCells = [OnceLock<IntCounter>; CODES.len()];

/// Handles on the series of one route, looked up once.
#[derive(Debug)]
pub struct RouteMetrics {
    route: String,
    requests: IntCounterVec,
    /// By listener and method; the codes under it are made when first seen.
    cells: Box<[OnceLock<Box<CodeCells>>; Listener::ALL.len() * METHODS.len()]>,
    duration: PerListener<Histogram>,
    upstream_duration: Histogram,
    errors: IntCounterVec,
}

impl RouteMetrics {
    /// Counts one answered request.
    pub fn answered(&self, listener: Listener, method: &Method, status: StatusCode, seconds: f64) {
        let (method, code) = (method_index(method), code_index(status));
        let cells = self.cells[listener as usize * METHODS.len() + method]
            .get_or_init(|| Box::new(std::array::from_fn(|_| OnceLock::new())));
        let counter = cells[code].get_or_init(|| {
            self.requests.with_label_values(&[listener.as_str(), &self.route, METHODS[method], &code_label(code)])
        });
        counter.inc();
        self.duration.get(listener).observe(seconds);
    }

    /// Records how long the upstream took to begin its answer.
    pub fn upstream_answered(&self, seconds: f64) {
        self.upstream_duration.observe(seconds);
    }

    /// Counts one failure.
    pub fn failed(&self, reason: Reason) {
        self.errors.with_label_values(&[self.route.as_str(), reason.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = String::from_utf8(metrics.render(Vec::new()).unwrap()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_removed_route_leaves_no_series() {
        let metrics = Metrics::new().unwrap();
        let before = series(&metrics).len();
        let id = RouteId::new("a/b");
        let route = metrics.route(&id);
        route.answered(Listener::Https, &Method::GET, StatusCode::OK, 0.1);
        route.failed(Reason::UpstreamRefused);
        route.upstream_answered(0.1);
        let text = series(&metrics).join("\n");
        assert!(
            text.contains(r#"edd_http_requests_total{code="200",listener="https",method="GET",route="a/b"} 1"#),
            "{text}"
        );
        metrics.remove_route(&id);
        assert_eq!(series(&metrics).len(), before);
    }

    #[test]
    fn strange_methods_and_codes_share_one_series() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.unmatched();
        for n in 0..50u16 {
            let method = Method::from_bytes(format!("X{n}").as_bytes()).unwrap();
            route.answered(Listener::Http, &method, StatusCode::from_u16(700 + n).unwrap(), 0.0);
        }
        let text = series(&metrics).join("\n");
        let want = r#"edd_http_requests_total{code="_OTHER",listener="http",method="_OTHER",route="unmatched"} 50"#;
        assert!(text.contains(want), "{text}");
    }
}
