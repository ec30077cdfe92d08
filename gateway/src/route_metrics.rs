//! What is counted for one route. A series begins when there is something to count, and goes with the
//! last user of its route: a stream may outlive the route by the drain time, and its end is counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::metrics::{Listener, PerListener};
use crate::reason::Reason;

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

/// The metrics that have a label `route`.
#[derive(Debug)]
pub struct Families {
    /// By listener, route, method and code.
    pub requests: IntCounterVec,
    /// By listener and route.
    pub duration: HistogramVec,
    /// By route.
    pub upstream_duration: HistogramVec,
    /// By route and reason.
    pub errors: IntCounterVec,
    in_use: Mutex<HashMap<String, Weak<RouteMetrics>>>,
}

impl Families {
    pub fn new(
        requests: IntCounterVec,
        duration: HistogramVec,
        upstream_duration: HistogramVec,
        errors: IntCounterVec,
    ) -> Self {
        Self { requests, duration, upstream_duration, errors, in_use: Mutex::default() }
    }

    /// The handles of `route`; whoever asks while they are in use gets the same ones.
    pub fn of(self: &Arc<Self>, route: &str) -> Arc<RouteMetrics> {
        let mut in_use = self.in_use();
        if let Some(metrics) = in_use.get(route).and_then(Weak::upgrade) {
            return metrics;
        }
        let metrics = Arc::new(RouteMetrics {
            route: route.to_owned(),
            families: Arc::clone(self),
            requests: Box::default(),
            duration: PerListener::default(),
            upstream_duration: OnceLock::new(),
            errors: OnceLock::new(),
        });
        in_use.insert(route.to_owned(), Arc::downgrade(&metrics));
        metrics
    }

    fn in_use(&self) -> MutexGuard<'_, HashMap<String, Weak<RouteMetrics>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Codes = [OnceLock<IntCounter>; CODES.len()];
type Reasons = [OnceLock<IntCounter>; Reason::ALL.len()];

/// Handles on the series of one route, each looked up once.
#[derive(Debug)]
pub struct RouteMetrics {
    route: String,
    families: Arc<Families>,
    /// By listener and method.
    requests: Box<[OnceLock<Box<Codes>>; Listener::OF_REQUESTS.len() * METHODS.len()]>,
    duration: PerListener<OnceLock<Histogram>>,
    upstream_duration: OnceLock<Histogram>,
    errors: OnceLock<Box<Reasons>>,
}

fn empty<T, const N: usize>() -> Box<[OnceLock<T>; N]> {
    Box::new(std::array::from_fn(|_| OnceLock::new()))
}

impl RouteMetrics {
    /// Counts one answered request.
    pub fn answered(&self, listener: Listener, method: &Method, status: StatusCode, seconds: f64) {
        let (method, code) = (method_index(method), code_index(status));
        let counter =
            self.requests[listener as usize * METHODS.len() + method].get_or_init(empty)[code].get_or_init(|| {
                let labels = [listener.as_str(), &self.route, METHODS[method], &code_label(code)];
                self.families.requests.with_label_values(&labels)
            });
        counter.inc();
        let duration = || self.families.duration.with_label_values(&[listener.as_str(), &self.route]);
        self.duration.get(listener).get_or_init(duration).observe(seconds);
    }

    /// Records how long the upstream took to begin its answer.
    pub fn upstream_answered(&self, seconds: f64) {
        let duration = || self.families.upstream_duration.with_label_values(&[&self.route]);
        self.upstream_duration.get_or_init(duration).observe(seconds);
    }

    /// Counts one failure.
    pub fn failed(&self, reason: Reason) {
        let counter = || self.families.errors.with_label_values(&[self.route.as_str(), reason.as_str()]);
        self.errors.get_or_init(empty)[reason as usize].get_or_init(counter).inc();
    }

    /// Removes every series that was begun. None of the removals can fail: nobody else does it.
    fn remove_series(&self) {
        let (families, route) = (&self.families, self.route.as_str());
        for (index, codes) in self.requests.iter().enumerate() {
            let (listener, method) = (Listener::OF_REQUESTS[index / METHODS.len()], METHODS[index % METHODS.len()]);
            for (code, _) in begun(codes.get().map(|codes| &codes[..])) {
                let labels = [listener.as_str(), route, method, &code_label(code)];
                let _ = families.requests.remove_label_values(&labels);
            }
        }
        for listener in
            Listener::OF_REQUESTS.into_iter().filter(|listener| self.duration.get(*listener).get().is_some())
        {
            let _ = families.duration.remove_label_values(&[listener.as_str(), route]);
        }
        if self.upstream_duration.get().is_some() {
            let _ = families.upstream_duration.remove_label_values(&[route]);
        }
        for (reason, _) in begun(self.errors.get().map(|reasons| &reasons[..])) {
            let _ = families.errors.remove_label_values(&[route, Reason::ALL[reason].as_str()]);
        }
    }
}

/// The cells that are filled, with their places.
fn begun(cells: Option<&[OnceLock<IntCounter>]>) -> impl Iterator<Item = (usize, &IntCounter)> {
    cells.into_iter().flatten().enumerate().filter_map(|(index, cell)| Some((index, cell.get()?)))
}

impl Drop for RouteMetrics {
    fn drop(&mut self) {
        let families = Arc::clone(&self.families);
        let mut in_use = families.in_use();
        // A route may be back under the same name since the last user left: then it counts on.
        if in_use.get(&self.route).is_some_and(|metrics| metrics.strong_count() == 0) {
            in_use.remove(&self.route);
            self.remove_series();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = String::from_utf8(metrics.render(Vec::new()).unwrap()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_removed_route_leaves_no_series() {
        let metrics = Metrics::new().unwrap();
        let before = series(&metrics).len();
        let [route, stream] = [(); 2].map(|()| metrics.route("a/b"));
        assert_eq!(series(&metrics).len(), before, "nothing was counted yet");
        route.answered(Listener::Https, &Method::GET, StatusCode::OK, 0.1);
        route.upstream_answered(0.1);
        drop(route);
        stream.failed(Reason::RouteRemoved);
        let text = series(&metrics).join("\n");
        for want in [
            r#"edd_http_requests_total{code="200",listener="https",method="GET",route="a/b"} 1"#,
            r#"edd_http_errors_total{reason="route_removed",route="a/b"} 1"#,
        ] {
            assert!(text.contains(want), "{text}");
        }
        drop(stream);
        assert_eq!(series(&metrics).len(), before);
    }

    #[test]
    fn strange_methods_and_codes_share_one_series() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("unmatched");
        for n in 0..50u16 {
            let method = Method::from_bytes(format!("X{n}").as_bytes()).unwrap();
            route.answered(Listener::Http, &method, StatusCode::from_u16(700 + n).unwrap(), 0.0);
        }
        let text = series(&metrics).join("\n");
        let want = r#"edd_http_requests_total{code="_OTHER",listener="http",method="_OTHER",route="unmatched"} 50"#;
        assert!(text.contains(want), "{text}");
    }
}
