//! From routes to the published table: what can be resolved is resolved here, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::certs::{CertStore, CertsConfig, CertsError};
use crate::live::{LiveError, LiveRoute};
use crate::metrics::Metrics;
use crate::route::{ClientAuth, HostPattern, Route, RouteId, Source};
use crate::router::{Router, Table};
use crate::upstream::Upstreams;

/// Why a valid set of routes could not be published. The table before it stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Route(#[from] LiveError),
    #[error(transparent)]
    ClientAuth(#[from] CertsError),
    #[error("metrics: {0}")]
    Metrics(prometheus::Error),
}

/// Whether `routes` could go live: reads the files that they name, and changes nothing.
pub fn rehearse(routes: &[Route]) -> Result<(), Vec<PublishError>> {
    let metrics = Arc::new(Metrics::new().map_err(|error| vec![PublishError::Metrics(error)])?);
    let upstreams = Upstreams::new(HashMap::new(), Arc::clone(&metrics));
    let live = |route: &Route| LiveRoute::new(route.clone(), None, &upstreams, &metrics);
    let mut errors: Vec<PublishError> =
        routes.iter().filter_map(|route| live(route).err()).map(PublishError::Route).collect();
    let certs = CertStore::open(CertsConfig::default()).map_err(|error| vec![PublishError::ClientAuth(error)])?;
    errors.extend(certs.set_client_auth(client_auth(routes).into_iter().collect()).err().map(PublishError::ClientAuth));
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The handshake knows the host alone, so what one route of a host asks for holds for all.
fn client_auth(routes: &[Route]) -> HashMap<HostPattern, Option<ClientAuth>> {
    let mut hosts: HashMap<HostPattern, Option<ClientAuth>> = HashMap::new();
    for route in routes {
        let asks = hosts.entry(route.host.clone()).or_default();
        if route.client_auth.is_some() {
            asks.clone_from(&route.client_auth);
        }
    }
    hosts
}

/// Puts tables together and publishes them.
#[derive(Clone)]
pub struct Publisher {
    pub router: Router,
    pub upstreams: Upstreams,
    pub metrics: Arc<Metrics>,
    pub certs: CertStore,
    /// What the streams of a removed route have to come to an end.
    pub route_drain: Duration,
}

impl Publisher {
    /// Replaces the table with `routes`. Streams of routes that stay, or still lead to the same
    /// targets, live on; the others are drained.
    pub async fn publish(&self, routes: Vec<Route>) -> Result<u64, PublishError> {
        let before: HashMap<RouteId, Arc<LiveRoute>> =
            self.router.snapshot().table.iter().map(|live| (live.route.id.clone(), Arc::clone(live))).collect();
        let client_auth = client_auth(&routes);
        let mut live = Vec::with_capacity(routes.len());
        for mut route in routes {
            route.client_auth = client_auth.get(&route.host).cloned().flatten();
            let previous = before.get(&route.id);
            live.push(match previous {
                Some(same) if same.route == route => Arc::clone(same),
                _ => {
                    let previous = previous.map(Arc::as_ref);
                    Arc::new(LiveRoute::new(route, previous, &self.upstreams, &self.metrics)?)
                }
            });
        }
        // Certificates first: a host must never be reachable without the check it asks for.
        self.certs.set_client_auth(client_auth.into_iter().collect())?;
        self.upstreams.resolve_new().await;
        let mut sources: HashMap<Source, usize> = HashMap::new();
        for live in &live {
            *sources.entry(live.route.source).or_default() += 1;
        }
        let kept: HashMap<RouteId, Arc<LiveRoute>> =
            live.iter().map(|live| (live.route.id.clone(), Arc::clone(live))).collect();
        // A token that lives on in the new table belongs to streams that do too.
        let gone = |old: &Arc<LiveRoute>| kept.get(&old.route.id).is_none_or(|new| new.retired != old.retired);
        let retired: Vec<Arc<LiveRoute>> = before.into_values().filter(gone).collect();
        let revision = self.router.publish(Table::build(live));
        self.metrics.set_routes(sources);
        self.retire(retired);
        Ok(revision)
    }

    fn retire(&self, routes: Vec<Arc<LiveRoute>>) {
        if routes.is_empty() {
            return;
        }
        let after = self.route_drain;
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            routes.iter().for_each(|old| old.retired.cancel());
        });
    }
}
