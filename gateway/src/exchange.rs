//! The record of one request, from its head to its last byte: what logs, metrics and `edd tap` tell.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use edd_proto::{ContainerId, UserId};
use http::{Method, StatusCode, Version};
use serde::Serialize;

use crate::live::{Backend, Hop, LiveRoute};
use crate::metrics::Listener;
use crate::reason::Reason;

/// Names a request across logs, error pages and upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Longest id taken over from a trusted proxy, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// A fresh UUID v7: sortable by time.
    pub fn generate() -> Self {
        use rand::Rng;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut random = [0u8; 10];
        rand::rng().fill_bytes(&mut random);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        Self(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).to_owned().into())
    }

    /// Takes an id from a trusted proxy, if it is one that can be logged and sent on.
    pub fn accept(text: &[u8]) -> Option<Self> {
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'=' | b'+'));
        valid.then(|| std::str::from_utf8(text).ok()).flatten().map(|text| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is known of a request so far.
#[derive(Debug)]
pub struct Exchange {
    pub id: RequestId,
    pub listener: Listener,
    pub started: Instant,
    pub client: IpAddr,
    pub method: Method,
    pub version: Version,
    /// A connection of bytes, which are no request of HTTP.
    pub is_raw: bool,
    /// As the table compares it; empty when the request named none.
    pub host: Box<str>,
    /// Without the query, which may hold secrets.
    pub path: Box<str>,
    pub tls_version: Option<&'static str>,
    pub trace_id: Option<Box<str>>,
    /// Revision of the table that decided.
    pub revision: u64,
    pub route: Option<Arc<LiveRoute>>,
    pub upstream: Option<Hop>,
    /// Until the upstream's answer began, in seconds.
    pub upstream_seconds: Option<f64>,
    pub status: Option<StatusCode>,
    pub reason: Option<Reason>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Exchange {
    pub fn new(listener: Listener, client: IpAddr) -> Self {
        Self {
            id: RequestId::generate(),
            listener,
            started: Instant::now(),
            client,
            method: Method::GET,
            version: Version::HTTP_11,
            is_raw: false,
            host: Box::default(),
            path: Box::default(),
            tls_version: None,
            trace_id: None,
            revision: 0,
            route: None,
            upstream: None,
            upstream_seconds: None,
            status: None,
            reason: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// The id of the route, or what stands in for it.
    pub fn route_label(&self) -> &str {
        self.route.as_ref().map_or("unmatched", |live| live.route.id.as_str())
    }

    /// The access line.
    pub fn line<'a>(&'a self, ts: &'a str) -> AccessLine<'a> {
        let backend = self.route.as_ref().and_then(|live| live.backend());
        AccessLine {
            ts,
            level: if self.reason.is_some_and(|r| r.status().is_server_error()) { "WARN" } else { "INFO" },
            target: "access",
            request_id: self.id.as_str(),
            trace_id: self.trace_id.as_deref(),
            listener: self.listener.as_str(),
            client_ip: self.client,
            host: &self.host,
            method: if self.is_raw { "" } else { self.method.as_str() },
            path: &self.path,
            proto: match self.version {
                _ if self.is_raw => "TCP",
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            status: self.status.map(|status| status.as_u16()),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: millis(self.started.elapsed().as_secs_f64()),
            upstream_ms: self.upstream_seconds.map(millis),
            route: self.route_label(),
            container: backend.map(Backend::container),
            user: backend.map(Backend::owner),
            revision: self.revision,
            upstream: self.upstream.as_ref(),
            reason: self.reason,
            tls_version: self.tls_version,
        }
    }
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

/// One line of the access log. No query string, no header: they hold secrets.
#[derive(Clone, Debug, Serialize)]
pub struct AccessLine<'a> {
    pub ts: &'a str,
    pub level: &'a str,
    pub target: &'a str,
    pub request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    pub listener: &'a str,
    pub client_ip: IpAddr,
    pub host: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub proto: &'a str,
    /// None when the client was gone before it could be told one.
    pub status: Option<u16>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    pub route: &'a str,
    /// The container that the route leads to, and its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    pub revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a Hop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_sort_by_time_and_differ() {
        let a = RequestId::generate();
        let b = RequestId::generate();
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 36);
        assert!(a.as_str()[..8] <= b.as_str()[..8]);
    }

    #[test]
    fn foreign_ids_are_checked() {
        assert!(RequestId::accept(b"abc-123").is_some());
        for bad in [&b""[..], b"a b", b"a\"b", b"a\n", &[b'a'; 200]] {
            assert_eq!(RequestId::accept(bad), None);
        }
    }

    #[test]
    fn a_line_is_json_without_absent_fields() {
        let exchange = Exchange::new(Listener::Http, IpAddr::from([127, 0, 0, 1]));
        let json = serde_json::to_value(exchange.line("now")).unwrap();
        assert_eq!(json["route"], "unmatched");
        assert_eq!(json["status"], serde_json::Value::Null);
        assert!(json.get("reason").is_none());
    }
}
