//! A route with everything that a request would otherwise have to look up.

use std::borrow::Borrow;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, PeerOptions};
use pingora_core::utils::tls::WrappedX509;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::route::{Action, Protocol, Route};
use crate::route_metrics::RouteMetrics;
use crate::upgrade_socket;
use crate::upstream::{Rotation, Upstreams};

/// Streams to one HTTP/2 upstream connection.
const MAX_UPSTREAM_H2_STREAMS: usize = 100;

/// Longest pause of a client that is sending a body.
pub const CLIENT_PAUSE: Duration = Duration::from_secs(60);

/// A route in the published table.
#[derive(Debug)]
pub struct LiveRoute {
    pub route: Route,
    pub metrics: Arc<RouteMetrics>,
    /// Cancelled when the route's streams have to end.
    pub retired: CancellationToken,
    pub forward: Option<Forwarding>,
}

/// What it takes to reach a route's targets.
#[derive(Debug)]
pub struct Forwarding {
    pub rotation: Rotation,
    /// One prepared peer per target, without its address.
    peers: Vec<HttpPeer>,
}

impl Borrow<Route> for LiveRoute {
    fn borrow(&self) -> &Route {
        &self.route
    }
}

/// Why a valid route cannot go live.
#[derive(Debug, thiserror::Error)]
#[error("route `{route}`: {message}")]
pub struct LiveError {
    pub route: String,
    pub message: String,
}

impl LiveRoute {
    /// Resolves `route`, taking over from `previous`, an earlier version of the same route.
    ///
    /// Streams of the previous version live on if the route still leads to the same targets.
    pub fn new(
        route: Route,
        previous: Option<&Self>,
        upstreams: &Upstreams,
        metrics: &Metrics,
    ) -> Result<Self, LiveError> {
        let forward = match &route.action {
            Action::Redirect(_) => None,
            Action::Proxy { targets, protocol } => {
                let rotation = upstreams.rotation(targets);
                let options = peer_options(&route, protocol)?;
                let group = pool_group(&route, protocol);
                let peer = |target: &crate::route::Target| {
                    let unresolved = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
                    let (tls, name) = match protocol {
                        Protocol::Https(tls) => {
                            (true, tls.server_name.as_ref().map_or(&*target.authority.host, |name| name.as_str()))
                        }
                        _ => (false, ""),
                    };
                    let mut peer = HttpPeer::new(unresolved, tls, name.to_owned());
                    peer.options = options.clone();
                    peer.group_key = group;
                    peer
                };
                Some(Forwarding { rotation, peers: targets.iter().map(peer).collect() })
            }
        };
        let same_route = |old: &&Self| old.route.host == route.host && old.route.path == route.path;
        let retired = previous
            .filter(same_route)
            .filter(|old| leads_to_the_same(&old.route.action, &route.action))
            .map(|old| old.retired.clone())
            .unwrap_or_default();
        let metrics = metrics.route(route.id.as_str());
        Ok(Self { route, metrics, retired, forward })
    }
}

fn leads_to_the_same(old: &Action, new: &Action) -> bool {
    let authorities = |action: &Action| match action {
        Action::Proxy { targets, .. } => targets.iter().map(|t| t.authority.clone()).collect(),
        Action::Redirect(_) => Vec::new(),
    };
    let old = authorities(old);
    let new = authorities(new);
    old.iter().all(|authority| new.contains(authority))
}

impl Forwarding {
    /// The peer of target `index` at `address`, for a request that upgrades, streams or neither.
    pub fn peer(&self, index: usize, address: std::net::SocketAddr, shape: Shape, route: &Route) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peers[index].clone());
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
            Shape::Upload => {
                peer.options.read_timeout = Some(route.timeouts.read.max(CLIENT_PAUSE));
            }
            Shape::Stream => peer.options.read_timeout = Some(route.timeouts.stream_idle),
        }
        peer
    }
}

/// How a request and its answer may be expected to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Plain,
    /// A body over HTTP/1, which the client may be slow to send.
    Upload,
    /// A protocol switch, such as a WebSocket.
    Upgrade,
    /// Server-sent events or gRPC: long silences are normal.
    Stream,
}

fn peer_options(route: &Route, protocol: &Protocol) -> Result<PeerOptions, LiveError> {
    let mut options = PeerOptions::new();
    let timeouts = &route.timeouts;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(Duration::from_secs(60));
    options.max_h2_streams = MAX_UPSTREAM_H2_STREAMS;
    if !route.websocket {
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    }
    match protocol {
        Protocol::H1 => options.alpn = ALPN::H1,
        Protocol::H2c => options.alpn = ALPN::H2,
        Protocol::Https(tls) => {
            options.alpn = ALPN::H2H1;
            options.verify_cert = tls.verify;
            options.verify_hostname = tls.verify;
            if let Some(path) = &tls.ca_file {
                options.ca = Some(load_authorities(path).map_err(|message| LiveError {
                    route: route.id.to_string(),
                    message: format!("{}: {message}", path.display()),
                })?);
            }
        }
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
fn pool_group(route: &Route, protocol: &Protocol) -> u64 {
    let build = BuildHasherDefault::<DefaultHasher>::default();
    build.hash_one((route.id.as_str(), format!("{protocol:?}")))
}
