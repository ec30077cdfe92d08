//! A route with everything that a request would otherwise have to look up.

mod backend;
mod life;
mod peer;
mod ssh;

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use backend::{Backend, Common, Place, Status};
pub use life::{Ledger, LedgerReader, Life, Usage, Visit};
use pingora_core::upstreams::peer::HttpPeer;
use serde::Serialize;
pub use ssh::SshAccess;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::reason::Reason;
use crate::route::{Action, Protocol, Route};
use crate::route_metrics::RouteMetrics;
use crate::upstream::{Rotation, Upstream, Upstreams};

/// Longest pause of a client that is sending a body.
pub const CLIENT_PAUSE: Duration = Duration::from_secs(60);

/// A route in the published table.
#[derive(Debug)]
pub struct LiveRoute {
    pub route: Arc<Route>,
    pub metrics: Arc<RouteMetrics>,
    pub lead: Lead,
}

/// Where a route leads.
#[derive(Debug)]
pub enum Lead {
    /// To what the route itself says.
    Fixed(Box<Fixed>),
    Container(Backend),
}

/// What became of a route's own targets.
#[derive(Debug)]
pub struct Fixed {
    retired: CancellationToken,
    /// None for a redirect.
    forward: Option<Forwarding>,
}

/// What it takes to reach a route's targets.
#[derive(Debug)]
struct Forwarding {
    rotation: Rotation,
    /// One prepared peer per target, without its address.
    peers: Vec<HttpPeer>,
}

/// A target that was picked for a request.
#[derive(Clone, Debug)]
pub enum Hop {
    /// One of a route's targets, by index.
    Target(usize, Arc<Upstream>),
    Container(SocketAddr),
}

impl Hop {
    /// Which of the route's targets it is.
    pub fn index(&self) -> usize {
        match self {
            Self::Target(index, _) => *index,
            Self::Container(_) => 0,
        }
    }

    /// What is known of it besides its address.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        match self {
            Self::Target(_, upstream) => Some(upstream),
            Self::Container(_) => None,
        }
    }

    /// The address to connect to.
    ///
    /// # Errors
    /// Its name does not resolve.
    pub fn address(&self) -> Result<SocketAddr, Reason> {
        match self {
            Self::Target(_, upstream) => upstream.address(),
            Self::Container(address) => Ok(*address),
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(_, upstream) => upstream.authority().fmt(f),
            Self::Container(address) => address.fmt(f),
        }
    }
}

impl Serialize for Hop {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
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
                let options = peer::authenticated(peer::options(&route, protocol), &route, protocol)?;
                let group = peer::pool_group(&(route.id.as_str(), format!("{protocol:?}")));
                let peer = |target: &crate::route::Target| match protocol {
                    Protocol::Https(tls) => {
                        let name = tls.server_name.as_ref().map_or(&*target.authority.host, |name| name.as_str());
                        peer::unresolved_tls(options.clone(), group, name)
                    }
                    _ => peer::unresolved(options.clone(), group),
                };
                Some(Forwarding { rotation, peers: targets.iter().map(peer).collect() })
            }
        };
        let same_route = |old: &&Self| old.route.host == route.host && old.route.path == route.path;
        let retired = previous
            .filter(same_route)
            .filter(|old| leads_to_the_same(&old.route.action, &route.action))
            .map(|old| old.retired().clone())
            .unwrap_or_default();
        let metrics = metrics.route(route.id.as_str());
        Ok(Self { route: Arc::new(route), metrics, lead: Lead::Fixed(Box::new(Fixed { retired, forward })) })
    }

    /// Cancelled when the route's streams have to end.
    pub fn retired(&self) -> &CancellationToken {
        match &self.lead {
            Lead::Fixed(fixed) => &fixed.retired,
            Lead::Container(backend) => backend.life().retired(),
        }
    }

    /// The container that it leads to.
    pub fn backend(&self) -> Option<&Backend> {
        match &self.lead {
            Lead::Fixed(_) => None,
            Lead::Container(backend) => Some(backend),
        }
    }

    /// The target whose turn it is, if one is left that is not in `tried`, a bit set.
    pub fn pick(&self, tried: u64, now_ms: u64) -> Option<Hop> {
        match &self.lead {
            Lead::Fixed(fixed) => {
                let (index, upstream) = fixed.forward.as_ref()?.rotation.pick(tried, now_ms)?;
                Some(Hop::Target(index, Arc::clone(upstream)))
            }
            Lead::Container(backend) if tried == 0 => backend.hop(),
            Lead::Container(_) => None,
        }
    }

    /// What its upstream connections are pooled by, so that they are no other route's; none for a redirect.
    pub fn pool_group(&self) -> Option<u64> {
        match &self.lead {
            Lead::Fixed(fixed) => fixed.forward.as_ref()?.peers.first().map(|peer| peer.group_key),
            Lead::Container(backend) => Some(backend.pool_group()),
        }
    }

    /// The peer of `hop`, which was picked here, at `address`, for a request that upgrades, streams or neither; none
    /// for a redirect.
    pub fn peer(&self, hop: &Hop, address: SocketAddr, shape: Shape) -> Option<Box<HttpPeer>> {
        let peer = match &self.lead {
            Lead::Fixed(fixed) => Box::new(fixed.forward.as_ref()?.peers.get(hop.index())?.clone()),
            Lead::Container(backend) => backend.peer(),
        };
        Some(peer::shaped(peer, address, shape, &self.route))
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
