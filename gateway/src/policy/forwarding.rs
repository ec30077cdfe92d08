//! What the upstream is told about the client, and whose word for it counts.
//!
//! A client can send any header. The forwarding headers of one that is not a trusted proxy are
//! replaced, and so are spellings that a CGI-like upstream could mistake for them.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::decision::{HeaderOp, HeaderOps, Identity, Peer, RequestHead};
use crate::exchange::RequestId;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED: HeaderName = http::header::FORWARDED;

/// Most hops followed back through X-Forwarded-For.
const MAX_HOPS: usize = 32;

/// Headers whose meaning the gateway answers for; a name that differs from one only by `_` for `-`
/// arrives as the same variable in CGI, WSGI and PHP, and is dropped.
const GUARDED: [&str; 10] = [
    "content-length",
    "transfer-encoding",
    "content-type",
    "host",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "authorization",
    "remote-user",
    "connection",
];

fn is_guarded(name: &str) -> bool {
    GUARDED.contains(&name) || name.starts_with("x-forwarded-")
}

/// The client's address: the nearest hop that is not a trusted proxy.
pub fn client_ip(headers: &HeaderMap, peer: &Peer<'_>) -> IpAddr {
    if !peer.trusted {
        return peer.ip;
    }
    let mut nearest = peer.ip;
    let listed = headers.get_all(X_FORWARDED_FOR);
    let values: Vec<&str> = listed.iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')).take(MAX_HOPS) {
        let Some(ip) = parse_hop(hop.trim()) else { return nearest };
        nearest = ip;
        if !peer.trusted_proxies.iter().any(|network| network.contains(&ip)) {
            return nearest;
        }
    }
    nearest
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The id that a trusted proxy gave the request.
pub fn request_id(headers: &HeaderMap, peer: &Peer<'_>) -> Option<RequestId> {
    peer.trusted.then(|| headers.get(X_REQUEST_ID)).flatten().and_then(|value| RequestId::accept(value.as_bytes()))
}

/// The trace id of a W3C `traceparent`.
pub fn trace_id(headers: &HeaderMap) -> Option<Box<str>> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let id = value.split('-').nth(1)?;
    let valid = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    valid.then(|| id.into())
}

/// The scheme that the client used: a trusted proxy's word, or the connection's.
pub fn scheme(headers: &HeaderMap, peer: &Peer<'_>) -> &'static str {
    if peer.trusted
        && let Some(value) = headers.get(X_FORWARDED_PROTO)
    {
        return if value.as_bytes().eq_ignore_ascii_case(b"https") { "https" } else { "http" };
    }
    if peer.tls.is_some() { "https" } else { "http" }
}

/// Appends the changes to the request's forwarding headers.
pub fn apply(head: &RequestHead<'_>, peer: &Peer<'_>, identity: &Identity, ops: &mut HeaderOps) {
    for name in head.headers.keys() {
        let text = name.as_str();
        let alias = text.contains('_') && is_guarded(&text.replace('_', "-"));
        let spoofed = !peer.trusted && is_claim(text);
        if alias || spoofed {
            ops.push(HeaderOp::Remove(name.clone()));
        }
    }
    let mut chain = String::with_capacity(48);
    if peer.trusted {
        for value in head.headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
            chain.push_str(value);
            chain.push_str(", ");
        }
    }
    chain.push_str(&peer.ip.to_canonical().to_string());
    set(ops, X_FORWARDED_FOR, &chain);
    ops.push(HeaderOp::Set(X_FORWARDED_PROTO, HeaderValue::from_static(scheme(head.headers, peer))));
    if !(peer.trusted && head.headers.contains_key(X_FORWARDED_HOST)) {
        match head.authority {
            Some(authority) => set(ops, X_FORWARDED_HOST, authority),
            None => ops.push(HeaderOp::Remove(X_FORWARDED_HOST)),
        }
    }
    if peer.trusted && head.headers.contains_key(FORWARDED) {
        append_forwarded(head, peer, ops);
    }
    set(ops, X_REQUEST_ID, identity.id.as_str());
}

/// A header by which a client claims to be someone else's proxy; those that [`apply`] sets anew
/// need no removal.
fn is_claim(name: &str) -> bool {
    match name {
        "forwarded" | "x-real-ip" => true,
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" => false,
        _ => name.starts_with("x-forwarded-"),
    }
}

/// RFC 7239 §4: continue the chain that a trusted proxy began.
fn append_forwarded(head: &RequestHead<'_>, peer: &Peer<'_>, ops: &mut HeaderOps) {
    let node = match peer.ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let proto = if peer.tls.is_some() { "https" } else { "http" };
    let mut element = format!("for={node};proto={proto}");
    if let Some(authority) = head.authority {
        element.push_str(&format!(";host=\"{authority}\""));
    }
    if let Ok(value) = HeaderValue::try_from(element) {
        ops.push(HeaderOp::Append(FORWARDED, value));
    }
}

fn set(ops: &mut HeaderOps, name: HeaderName, value: &str) {
    // The values come from parsed headers and addresses, so they are valid; if one were not, the
    // client's own must still not pass.
    ops.push(match HeaderValue::from_str(value) {
        Ok(value) => HeaderOp::Set(name, value),
        Err(_) => HeaderOp::Remove(name),
    });
}
