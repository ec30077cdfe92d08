//! One request inside the engine, from its head to its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edd_proto::ContainerId;
use http::header;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::access_log::AccessLog;
use crate::containers::Wakes;
use crate::decision::{self, Answer, BodyLength, Decision, Forward, Peer, RequestHead};
use crate::drain::Drain;
use crate::exchange::Exchange;
use crate::live::{Hop, Usage, Visit};
use crate::metrics::{Listener, Metrics};
use crate::proxy::scope::{ConnInfo, Scope};
use crate::reason::Reason;
use crate::route_metrics::RouteMetrics;
use crate::router::Router;
use crate::upstream::Upstreams;

/// What every request needs.
#[derive(Debug)]
pub struct Engine {
    pub router: Router,
    pub upstreams: Upstreams,
    pub metrics: Arc<Metrics>,
    pub unmatched: Arc<RouteMetrics>,
    pub access_log: AccessLog,
    pub drain: Drain,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// The port of the HTTPS listener, for redirects to it.
    pub https_port: u16,
    /// Who wakes containers; none where there are no containers.
    pub wakes: Option<Wakes>,
}

/// What was decided about a request before the engine that serves it saw it.
#[derive(Debug)]
pub struct Decided {
    pub exchange: Exchange,
    pub decision: Decision,
}

impl Engine {
    /// Decides about a request by the current snapshot, and notes in `exchange` what was asked by whom.
    pub fn decide(
        &self,
        head: &RequestHead<'_>,
        version: http::Version,
        conn: &ConnInfo,
        exchange: &mut Exchange,
    ) -> Decision {
        let peer = Peer {
            listener: conn.listener,
            dynamic_port: conn.dynamic_port,
            ip: conn.ip,
            trusted: conn.trusted,
            tls: conn.tls.as_ref(),
            https_port: self.https_port,
            trusted_proxies: &self.trusted_proxies,
        };
        let identity = decision::identify(head, &peer, exchange.id.clone());
        let snapshot = self.router.snapshot();
        exchange.method = head.method.clone();
        exchange.version = version;
        exchange.path = head.path.into();
        exchange.tls_version = conn.tls.as_ref().map(|tls| tls.version);
        exchange.revision = snapshot.revision;
        let decision = decision::decide(head, &peer, &identity, &snapshot);
        exchange.id = identity.id;
        exchange.client = identity.client;
        exchange.host = identity.host;
        exchange.trace_id = identity.trace_id;
        decision
    }

    /// Accounts for a finished request: metrics, access log, tap.
    pub fn record(&self, exchange: &Exchange) {
        let metrics = exchange.route.as_ref().map_or(&self.unmatched, |live| &live.metrics);
        let seconds = exchange.started.elapsed().as_secs_f64();
        if let Some(status) = exchange.status {
            metrics.answered(exchange.listener, &exchange.method, status, seconds);
        }
        if let Some(reason) = exchange.reason.filter(|reason| *reason != Reason::Redirected) {
            metrics.failed(reason);
        }
        if let Some(seconds) = exchange.upstream_seconds {
            metrics.upstream_answered(seconds);
        }
        self.access_log.record(exchange);
    }
}

/// One request inside the engine. Dropping it accounts for it, however it ended.
pub struct Context {
    engine: Arc<Engine>,
    pub scope: Option<Arc<Scope>>,
    pub exchange: Exchange,
    pub forward: Option<Forward>,
    /// The answer to give in place of what the engine's error would say.
    pub refusal: Option<Answer>,
    pub tried: u64,
    pub connect_attempts: u32,
    pub hop: Option<Hop>,
    pub upstream_since: Option<Instant>,
    /// Counts for the container that is being asked.
    pub visit: Option<Visit>,
    /// How long the request was held until its container was awake.
    pub held: Option<Duration>,
    /// The container did not take a connection and is waking up: wait for it before the next try.
    pub awaits: Option<ContainerId>,
}

impl Context {
    /// The context of a request that begins now.
    pub fn new(engine: Arc<Engine>) -> Self {
        let scope = Scope::current();
        let (listener, ip) = match &scope {
            Some(scope) => (scope.conn.listener, scope.conn.ip),
            // Only a request outside `Scope::run` has none; `request_filter` refuses it.
            None => (Listener::Http, std::net::IpAddr::from([0, 0, 0, 0])),
        };
        Self::of(engine, scope, Exchange::new(listener, ip))
    }

    /// The context of a request of which `exchange` knows already.
    pub fn of(engine: Arc<Engine>, scope: Option<Arc<Scope>>, exchange: Exchange) -> Self {
        engine.metrics.in_flight.get(exchange.listener).inc();
        Self {
            engine,
            exchange,
            scope,
            forward: None,
            refusal: None,
            tried: 0,
            connect_attempts: 0,
            hop: None,
            upstream_since: None,
            visit: None,
            held: None,
            awaits: None,
        }
    }

    pub fn live(&self) -> Option<&Forward> {
        self.forward.as_ref()
    }

    /// The container that is being asked, if it is on its way to be awake.
    pub fn waking(&self) -> Option<ContainerId> {
        let id = self.forward.as_ref()?.route.backend()?.container();
        self.engine.wakes.as_ref().filter(|wakes| wakes.is_waking(id)).map(|_| id)
    }

    pub fn note_failure(&mut self, reason: Reason) {
        self.exchange.reason.get_or_insert(reason);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(reason) = self.scope.as_ref().and_then(|scope| scope.ended()) {
            self.note_failure(reason);
        }
        if let Some(visit) = self.visit.take() {
            let Exchange { bytes_in, bytes_out, .. } = self.exchange;
            visit.count(Usage { requests: 1, bytes_in, bytes_out });
        }
        self.engine.metrics.in_flight.get(self.exchange.listener).dec();
        self.engine.record(&self.exchange);
    }
}

/// What the rules are asked about.
pub fn request_head<'a>(request: &'a RequestHeader, body: BodyLength, websocket: bool) -> RequestHead<'a> {
    let host = || request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    RequestHead {
        method: &request.method,
        authority: request.uri.authority().map(http::uri::Authority::as_str).or_else(host),
        path: if request.uri.path().is_empty() { "/" } else { request.uri.path() },
        query: request.uri.query(),
        headers: &request.headers,
        body,
        http1: request.version != http::Version::HTTP_2,
        websocket,
    }
}

/// The body of a request that came over HTTP/2, where frames delimit it.
pub fn h2_body(session: &mut Session) -> BodyLength {
    if session.is_body_empty() {
        return BodyLength::None;
    }
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    match length.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok()) {
        Some(length) => BodyLength::Bytes(length),
        None => BodyLength::Chunked,
    }
}
