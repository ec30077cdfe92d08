//! A container as a route's target. There may be a million: what they share is shared.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use edd_proto::compute::ContainerStatus;
use edd_proto::{ContainerId, UserId};
use pingora_core::upstreams::peer::HttpPeer;
use serde::{Deserialize, Serialize};

use crate::live::life::{Ledger, Life, Visit};
use crate::live::{Hop, SshAccess, peer};
use crate::route::{Authority, Protocol, Route};
use crate::upstream::Upstream;

/// What a container does, as far as requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, made or started: it will answer.
    Starting,
    Running,
    /// Its owner alone starts it.
    Stopped,
    /// A request wakes it.
    Hibernated,
    Failed,
}

impl Status {
    pub const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Stopped, Self::Hibernated, Self::Failed];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Hibernated => "hibernated",
            Self::Failed => "failed",
        }
    }
}

impl From<ContainerStatus> for Status {
    fn from(status: ContainerStatus) -> Self {
        match status {
            ContainerStatus::Unspecified | ContainerStatus::Pending | ContainerStatus::Initializing => Self::Starting,
            ContainerStatus::Running => Self::Running,
            ContainerStatus::Stopped => Self::Stopped,
            ContainerStatus::Hibernated => Self::Hibernated,
            ContainerStatus::Failed => Self::Failed,
        }
    }
}

/// Where a container's port is.
#[derive(Clone, Debug)]
pub enum Place {
    /// It has no address yet.
    Nowhere,
    Ip(IpAddr, u16),
    Name(Arc<Upstream>),
}

/// What the routes to all containers share.
#[derive(Debug)]
pub struct Common {
    peer: HttpPeer,
    ledger: Ledger,
}

impl Common {
    /// For routes whose timeouts and the like are those of `route`.
    pub fn new(route: &Route, ledger: Ledger) -> Self {
        let peer = peer::unresolved(peer::options(route, &Protocol::H1), 0);
        Self { peer, ledger }
    }
}

/// One port of a container.
#[derive(Debug)]
pub struct Backend {
    common: Arc<Common>,
    life: Arc<Life>,
    place: Place,
    /// Of the container, by its events.
    version: i64,
    status: Status,
    https_enabled: bool,
    ssh: Option<Arc<SshAccess>>,
}

impl Backend {
    pub fn new(common: &Arc<Common>, life: &Arc<Life>, place: Place, version: i64, status: Status) -> Self {
        let (common, life) = (Arc::clone(common), Arc::clone(life));
        Self { common, life, place, version, status, https_enabled: true, ssh: None }
    }

    /// Whether its host answers over HTTPS; it does unless told otherwise.
    #[must_use]
    pub fn with_https(self, https_enabled: bool) -> Self {
        Self { https_enabled, ..self }
    }

    /// Who may log in; nobody unless told otherwise.
    #[must_use]
    pub fn with_ssh(self, ssh: Option<Arc<SshAccess>>) -> Self {
        Self { ssh, ..self }
    }

    pub fn container(&self) -> ContainerId {
        self.life.container()
    }

    pub fn owner(&self) -> UserId {
        self.life.owner()
    }

    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn https_enabled(&self) -> bool {
        self.https_enabled
    }

    /// Who may log in and how; none: nobody.
    pub fn ssh(&self) -> Option<&SshAccess> {
        self.ssh.as_deref()
    }

    /// Where another of its ports is; none while it has no address.
    pub fn authority(&self, port: u16) -> Option<Authority> {
        let host = match &self.place {
            Place::Nowhere => return None,
            Place::Ip(ip, _) => return Some(Authority::of_ip(*ip, port)),
            Place::Name(upstream) => upstream.authority().host.clone(),
        };
        Some(Authority { host, port })
    }

    /// A request or a stream begins.
    pub fn visit(&self) -> Visit {
        self.common.ledger.visit(&self.life)
    }

    /// Where to go; none while it has no address.
    pub fn hop(&self) -> Option<Hop> {
        match &self.place {
            Place::Nowhere => None,
            Place::Ip(ip, port) => Some(Hop::Container(SocketAddr::new(*ip, *port))),
            Place::Name(upstream) => Some(Hop::Target(0, Arc::clone(upstream))),
        }
    }

    /// Connections go back to a pool of this container alone, whose address may be another's tomorrow.
    pub(super) fn pool_group(&self) -> u64 {
        peer::pool_group(&("container", self.container()))
    }

    pub(super) fn peer(&self) -> Box<HttpPeer> {
        let mut peer = Box::new(self.common.peer.clone());
        peer.group_key = self.pool_group();
        peer
    }
}
