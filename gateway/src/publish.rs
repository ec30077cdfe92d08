//! From routes to the published table: what can be resolved is resolved here, once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

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

/// The routes of each source, in the order in which they win.
type Layers = BTreeMap<Source, Vec<Route>>;

/// All of `layers`. A route is known by its id, because metrics, streams and pools of two would be one: the first
/// source that has it wins.
fn merge(layers: &Layers) -> Vec<Route> {
    let mut taken: HashSet<RouteId> = HashSet::new();
    let mut merged = Vec::with_capacity(layers.values().map(Vec::len).sum());
    for routes in layers.values() {
        merged.extend(routes.iter().filter(|route| !taken.contains(&route.id)).cloned());
        taken.extend(routes.iter().map(|route| route.id.clone()));
    }
    merged
}

/// Puts the table of static routes together, layer by layer, and publishes it. Containers are none of its business.
#[derive(Clone)]
pub struct Publisher {
    router: Router,
    upstreams: Upstreams,
    metrics: Arc<Metrics>,
    certs: CertStore,
    /// What the streams of a removed route have to come to an end.
    route_drain: Duration,
    /// Held while a table is made of them.
    layers: Arc<Mutex<Layers>>,
}

impl Publisher {
    /// Nothing is published yet. `builtin` are the routes that every other source wins over; `route_drain` is what the
    /// streams of a removed route have to come to an end.
    pub fn new(
        builtin: Vec<Route>,
        router: Router,
        upstreams: Upstreams,
        metrics: Arc<Metrics>,
        certs: CertStore,
        route_drain: Duration,
    ) -> Self {
        let layers = Arc::new(Mutex::new(Layers::from([(Source::Builtin, builtin)])));
        Self { router, upstreams, metrics, certs, route_drain, layers }
    }

    /// Replaces the routes of `source` with `routes`, and none of the others'. Streams of routes that stay, or still
    /// lead to the same targets, live on; the others are drained.
    ///
    /// # Errors
    /// The routes cannot go live. All stays as it was.
    pub async fn publish(&self, source: Source, routes: Vec<Route>) -> Result<u64, PublishError> {
        let mut layers = self.layers.lock().await;
        let before = layers.insert(source, routes);
        let published = self.publish_all(merge(&layers)).await;
        if published.is_err() {
            match before {
                Some(before) => layers.insert(source, before),
                None => layers.remove(&source),
            };
        }
        published
    }

    /// Replaces the table with `routes`.
    async fn publish_all(&self, routes: Vec<Route>) -> Result<u64, PublishError> {
        let before: HashMap<RouteId, Arc<LiveRoute>> =
            self.router.snapshot().table.iter().map(|live| (live.route.id.clone(), Arc::clone(live))).collect();
        let client_auth = client_auth(&routes);
        let mut live = Vec::with_capacity(routes.len());
        for mut route in routes {
            route.client_auth = client_auth.get(&route.host).cloned().flatten();
            let previous = before.get(&route.id);
            live.push(match previous {
                Some(same) if *same.route == route => Arc::clone(same),
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
        let gone = |old: &Arc<LiveRoute>| kept.get(&old.route.id).is_none_or(|new| new.retired() != old.retired());
        let retired: Vec<Arc<LiveRoute>> = before.into_values().filter(gone).collect();
        let table = Table::build(live);
        let revision = self.router.update(|snapshot| snapshot.table = table);
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
            routes.iter().for_each(|old| old.retired().cancel());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::CertsConfig;
    use crate::route::{Action, Authority, PathPrefix, Protocol, Target};

    fn publisher(builtin: &[&str]) -> Publisher {
        let metrics = Arc::new(Metrics::new().unwrap());
        let upstreams = Upstreams::new(HashMap::new(), Arc::clone(&metrics));
        let certs = CertStore::open(CertsConfig::default()).unwrap();
        let builtin = builtin.iter().map(|host| route(Source::Builtin, host, 1)).collect();
        Publisher::new(builtin, Router::default(), upstreams, metrics, certs, Duration::ZERO)
    }

    fn route(source: Source, host: &str, port: u16) -> Route {
        let authority = Authority::parse(&format!("127.0.0.1:{port}")).unwrap();
        let action = Action::Proxy { targets: vec![Target { authority, weight: 1 }], protocol: Protocol::H1 };
        Route::new(HostPattern::parse(host).unwrap(), PathPrefix::parse("/").unwrap(), action, source)
    }

    fn seen(publisher: &Publisher, host: &str) -> Option<(Source, String)> {
        let snapshot = publisher.router.snapshot();
        let live = snapshot.table.match_http(host, "/")?;
        Some((live.route.source, live.route.describe_action()))
    }

    #[tokio::test]
    async fn a_layer_replaces_itself_alone_and_the_file_wins() {
        let publisher = publisher(&["a", "b"]);
        publisher.publish(Source::Api, vec![route(Source::Api, "b", 2), route(Source::Api, "c", 2)]).await.unwrap();
        publisher.publish(Source::File, vec![route(Source::File, "c", 3)]).await.unwrap();
        let on = |source, port: u16| Some((source, format!("127.0.0.1:{port}")));
        let all = |hosts: [&str; 3]| hosts.map(|host| seen(&publisher, host));
        assert_eq!(all(["a", "b", "c"]), [on(Source::Builtin, 1), on(Source::Api, 2), on(Source::File, 3)]);
        publisher.publish(Source::File, Vec::new()).await.unwrap();
        assert_eq!(all(["a", "b", "c"]), [on(Source::Builtin, 1), on(Source::Api, 2), on(Source::Api, 2)]);
        publisher.publish(Source::Api, Vec::new()).await.unwrap();
        assert_eq!(all(["a", "b", "c"]), [on(Source::Builtin, 1), on(Source::Builtin, 1), None]);
    }

    #[tokio::test]
    async fn a_layer_that_cannot_go_live_changes_nothing_also_later() {
        let publisher = publisher(&[]);
        publisher.publish(Source::File, vec![route(Source::File, "a", 1)]).await.unwrap();
        let mut bad = route(Source::Api, "b", 2);
        bad.client_auth = Some(ClientAuth { ca_file: "/nowhere/ca.pem".into(), required: true });
        publisher.publish(Source::Api, vec![bad]).await.unwrap_err();
        assert_eq!(publisher.router.snapshot().table.len(), 1);
        publisher.publish(Source::File, vec![route(Source::File, "a", 3)]).await.unwrap();
        assert_eq!(seen(&publisher, "a").unwrap().1, "127.0.0.1:3");
        assert_eq!(seen(&publisher, "b"), None);
    }
}
