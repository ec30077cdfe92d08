//! Upstreams in the engine's terms.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, PeerOptions};
use pingora_core::utils::tls::WrappedX509;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::live::{CLIENT_PAUSE, LiveError, Shape};
use crate::route::{Protocol, Route};
use crate::upgrade_socket;

/// Streams to one HTTP/2 upstream connection.
const MAX_UPSTREAM_H2_STREAMS: usize = 100;

/// A peer in the clear that has no address yet.
pub fn unresolved(options: PeerOptions, group: u64) -> HttpPeer {
    prepared(HttpPeer::new(NO_ADDRESS, false, String::new()), options, group)
}

/// A peer over TLS that has no address yet; `name` is sent and verified.
pub fn unresolved_tls(options: PeerOptions, group: u64, name: &str) -> HttpPeer {
    prepared(HttpPeer::new(NO_ADDRESS, true, name.to_owned()), options, group)
}

const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn prepared(mut peer: HttpPeer, options: PeerOptions, group: u64) -> HttpPeer {
    peer.options = options;
    peer.group_key = group;
    peer
}

/// `peer` at `address`, for a request that upgrades, streams or neither.
pub fn shaped(mut peer: Box<HttpPeer>, address: SocketAddr, shape: Shape, route: &Route) -> Box<HttpPeer> {
    peer._address = address.into();
    match shape {
        Shape::Plain => {}
        // The gateway's own idle timer watches both directions of these.
        Shape::Upgrade => {
            peer.options.read_timeout = None;
            peer.options.alpn = ALPN::H1;
            upgrade_socket::prepare(&mut peer);
        }
        // Until the body is complete the target owes nothing; from then on a timer of ours runs.
        Shape::Upload => peer.options.read_timeout = Some(route.timeouts.read.max(CLIENT_PAUSE)),
        Shape::Stream => peer.options.read_timeout = Some(route.timeouts.stream_idle),
    }
    peer
}

/// What holds for all connections of a route.
pub fn options(route: &Route, protocol: &Protocol) -> PeerOptions {
    let mut options = PeerOptions::new();
    let timeouts = &route.timeouts;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(Duration::from_secs(60));
    options.max_h2_streams = MAX_UPSTREAM_H2_STREAMS;
    options.alpn = match protocol {
        Protocol::H1 => ALPN::H1,
        Protocol::H2c => ALPN::H2,
        Protocol::Https(_) => ALPN::H2H1,
    };
    if !route.websocket {
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    }
    options
}

/// `options` with what verifies the targets of `route`.
///
/// # Errors
/// The authorities that it names cannot be read.
pub fn authenticated(mut options: PeerOptions, route: &Route, protocol: &Protocol) -> Result<PeerOptions, LiveError> {
    let Protocol::Https(tls) = protocol else { return Ok(options) };
    options.verify_cert = tls.verify;
    options.verify_hostname = tls.verify;
    if let Some(path) = &tls.ca_file {
        let failed =
            |message| LiveError { route: route.id.to_string(), message: format!("{}: {message}", path.display()) };
        options.ca = Some(load_authorities(path).map_err(failed)?);
    }
    Ok(options)
}

fn load_authorities(path: &std::path::Path) -> Result<Arc<[WrappedX509]>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut authorities = Vec::new();
    for certificate in certificates {
        let der = certificate.map_err(|error| error.to_string())?.to_vec();
        // The wrapper panics on what it cannot parse, so it is parsed here first.
        x509_parser::parse_x509_certificate(&der).map_err(|error| format!("not a certificate: {error}"))?;
        authorities.push(WrappedX509::new(der, pingora_core::utils::tls::parse_x509));
    }
    if authorities.is_empty() {
        return Err("no certificate in it; a PEM file with authorities is expected".to_owned());
    }
    Ok(authorities.into())
}

/// Requests of different groups never share an upstream connection, so that what one route's
/// upstream does to a connection stays with that route.
pub fn pool_group(of: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}
