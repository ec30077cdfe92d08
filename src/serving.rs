//! What needs both the gateway's database and the gateway that serves: ports for containers, routes by API.

use std::collections::BTreeSet;
use std::sync::Arc;

use edd_events::clock::Clock;
use edd_events::database::Database;
use edd_events::publisher::Publisher;
use edd_gateway::gateway::Gateway;
use edd_gateway::ingress::{Decider, PortPolicy, PortRange};
use edd_gateway::ports::ListenerSet;
use edd_gateway::publish;
use edd_gateway::static_routes::StaticRoutes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What of a gateway that serves others may use.
#[derive(Clone)]
pub struct Serving {
    ports: ListenerSet,
    own_ports: BTreeSet<u16>,
    ssh_port: Option<u16>,
    table: publish::Publisher,
}

impl Serving {
    pub fn of(gateway: &Gateway) -> Self {
        let (ports, own_ports) = (gateway.ports().clone(), gateway.addresses.ports());
        let ssh_port = gateway.addresses.ssh.map(|address| address.port());
        Self { ports, own_ports, ssh_port, table: gateway.publisher().clone() }
    }

    /// Where SSH is served.
    pub fn ssh_port(&self) -> Option<u16> {
        self.ssh_port
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// What the command line says of it.
#[derive(Debug)]
pub struct Wishes {
    /// The gateway, once it serves.
    pub serving: watch::Receiver<Option<Serving>>,
    /// Ports that containers may have.
    pub port_range: PortRange,
    /// Where the gateway looks for the routes by API.
    pub static_routes: watch::Sender<Option<StaticRoutes>>,
}

/// Decides who gets which port, and keeps the routes by API, from when the gateway serves until `stop`.
pub async fn run(
    wishes: Wishes,
    (database, events, clock): (Database, Publisher, Arc<dyn Clock>),
    stop: CancellationToken,
) {
    let Wishes { mut serving, port_range, static_routes } = wishes;
    let found = tokio::select! {
        () = stop.cancelled() => return,
        found = serving.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
    };
    // Without a gateway there are no ports to give.
    let Some(Serving { ports, own_ports, table, .. }) = found else { return };
    let routes = StaticRoutes::new(database.clone(), events.clone(), clock.clone(), table);
    static_routes.send_replace(Some(routes.clone()));
    let policy = PortPolicy { range: port_range, reserved: own_ports };
    let decider = Decider::new(database, events, clock, policy, Arc::new(ports));
    tokio::join!(decider.run(stop.clone()), routes.run(stop));
}
