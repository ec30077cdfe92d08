//! What happens to a request, decided without an engine: from its head, its peer and one snapshot.
//!
//! An engine (see [`crate::proxy`]) parses the request, calls [`decide`] and applies the
//! [`Decision`]; every rule lives here and in [`crate::policy`], one file per rule.

mod by_port;
mod lookup;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::exchange::RequestId;
use crate::live::{LiveRoute, Shape};
use crate::metrics::Listener;
use crate::path;
use crate::policy::{client_auth, container, cookies, forwarding, header_edits, limits, redirect, upgrade};
use crate::reason::Reason;
use crate::router::Snapshot;
use crate::table::{normalize_host, upstream_path};

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Bytes(u64),
    Chunked,
}

/// A request's head, as any engine can lend it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    pub method: &'a Method,
    /// From `:authority`, an absolute target or `Host`.
    pub authority: Option<&'a str>,
    /// The target's path as sent.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub body: BodyLength,
    /// It came over HTTP/1.
    pub http1: bool,
    /// A well-formed WebSocket handshake over HTTP/1.1.
    pub websocket: bool,
}

/// Who asks, and over what.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    pub listener: Listener,
    /// The port of containers that the connection came by, if it is one.
    pub dynamic_port: Option<u16>,
    /// The other end of the connection, or what a trusted PROXY header says it is.
    pub ip: IpAddr,
    /// Its forwarding headers count.
    pub trusted: bool,
    pub tls: Option<&'a TlsPeer>,
    /// The port of the gateway's HTTPS listener.
    pub https_port: u16,
    /// Networks of trusted proxies, for walking X-Forwarded-For.
    pub trusted_proxies: &'a [ipnet::IpNet],
}

/// What the TLS handshake established.
#[derive(Debug)]
pub struct TlsPeer {
    pub version: &'static str,
    /// The name that the client asked for, as the table compares it.
    pub server_name: Option<Box<str>>,
    /// The client proved a certificate that the host's authorities signed.
    pub client_certificate: bool,
}

/// The outcome of [`decide`].
#[derive(Debug)]
pub enum Decision {
    Forward(Forward),
    /// Wake the container that the route leads to, then take a new snapshot and decide again.
    Wake(Arc<LiveRoute>),
    Answer(Answer),
}

/// Send the request upstream.
#[derive(Debug)]
pub struct Forward {
    pub route: Arc<LiveRoute>,
    /// The target to send when it is not the one received: path and query.
    pub target: Option<String>,
    pub headers: HeaderOps,
    pub shape: Shape,
    pub max_body_bytes: Option<u64>,
}

/// Changes to a header block, in order.
pub type HeaderOps = Vec<HeaderOp>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderOp {
    Remove(HeaderName),
    Set(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
}

/// Answer without an upstream.
#[derive(Debug)]
pub struct Answer {
    pub reason: Reason,
    /// What exactly is wrong, for the person who sees it.
    pub detail: Cow<'static, str>,
    pub status: http::StatusCode,
    pub location: Option<String>,
    pub route: Option<Arc<LiveRoute>>,
}

impl Answer {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), status: reason.status(), location: None, route: None }
    }

    pub fn on(mut self, route: &Arc<LiveRoute>) -> Self {
        self.route = Some(Arc::clone(route));
        self
    }
}

/// What a request is called in the logs, whatever is decided.
#[derive(Debug)]
pub struct Identity {
    pub id: RequestId,
    pub client: IpAddr,
    pub host: Box<str>,
    pub trace_id: Option<Box<str>>,
}

/// Establishes who asks and what the request is called.
pub fn identify(head: &RequestHead<'_>, peer: &Peer<'_>, fresh: RequestId) -> Identity {
    Identity {
        id: forwarding::request_id(head.headers, peer).unwrap_or(fresh),
        client: forwarding::client_ip(head.headers, peer),
        host: head.authority.and_then(|a| normalize_host(a).ok()).map(|h| h.as_ref().into()).unwrap_or_default(),
        trace_id: forwarding::trace_id(head.headers),
    }
}

/// Decides. Pure: the same arguments give the same decision.
pub fn decide(head: &RequestHead<'_>, peer: &Peer<'_>, identity: &Identity, snapshot: &Snapshot) -> Decision {
    match try_forward(head, peer, identity, snapshot) {
        Ok(decision) => decision,
        Err(answer) => Decision::Answer(*answer),
    }
}

fn try_forward(
    head: &RequestHead<'_>,
    peer: &Peer<'_>,
    identity: &Identity,
    snapshot: &Snapshot,
) -> Result<Decision, Box<Answer>> {
    if matches!(*head.method, Method::CONNECT | Method::TRACE) {
        return Err(answer(Reason::MethodNotAllowed, "CONNECT and TRACE are not forwarded"));
    }
    let host = head.authority.map_or(Ok(Cow::Borrowed("")), normalize_host);
    let host = host.map_err(|_| answer(Reason::BadHost, "the host is not a valid name or address"))?;
    // `OPTIONS *` asks about the server as a whole: the route at the root answers for it.
    let asterisk = head.path == "*" && *head.method == Method::OPTIONS;
    let path = if asterisk { Ok(Cow::Borrowed("/")) } else { path::normalize(head.path) };
    let path = path.map_err(|error| answer(Reason::BadPath, error.explain()))?;
    let live = match peer.dynamic_port {
        Some(port) => by_port::find(snapshot, port, &host, peer.tls.is_some())?,
        None => lookup::find(snapshot, &host, &path)?,
    };
    let (route, backend) = (&live.route, live.backend());
    redirect::to_https(route, head, peer, &host, &path).map_err(|redirect| Box::new(redirect.on(live)))?;
    if let Some(backend) = backend {
        container::check_https(backend, head, peer).map_err(|refused| Box::new(refused.on(live)))?;
    }
    client_auth::check(route, peer, &host).map_err(|refused| Box::new(refused.on(live)))?;
    redirect::elsewhere(route, head, &path).map_err(|redirect| Box::new(redirect.on(live)))?;
    limits::check_length(route, head.body).map_err(|refused| Box::new(refused.on(live)))?;
    if let Some(backend) = backend
        && !container::is_awake(backend).map_err(|refused| Box::new(refused.on(live)))?
    {
        return Ok(Decision::Wake(Arc::clone(live)));
    }
    let shape = upgrade::shape(route, head);
    let mut headers = HeaderOps::with_capacity(8);
    upgrade::strip(shape, head, &mut headers);
    forwarding::apply(head, peer, identity, &mut headers);
    cookies::join(head.headers, &mut headers);
    header_edits::apply(&route.request_headers, &mut headers);
    let stripped = upstream_path(route, &path);
    let target = match stripped {
        _ if asterisk => None,
        Some(stripped) => Some(with_query(&stripped, head.query)),
        None if path != head.path => Some(with_query(&path, head.query)),
        None => None,
    };
    let (route, max_body_bytes) = (Arc::clone(live), route.max_body_bytes);
    Ok(Decision::Forward(Forward { route, target, headers, shape, max_body_bytes }))
}

fn answer(reason: Reason, detail: &'static str) -> Box<Answer> {
    Box::new(Answer::new(reason, detail))
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
