//! The routes to containers: what is the same in all of them, and what is each one's own.

use std::sync::Arc;

use crate::containers::Record;
use crate::containers::layer::Ending;
use crate::live::{Backend, Common, Lead, Ledger, Life, LiveRoute, Place, SshAccess, Status};
use crate::metrics::Metrics as GatewayMetrics;
use crate::route::{Action, Authority, HostPattern, PathPrefix, Protocol, Route, RouteId, Source};
use crate::route_metrics::RouteMetrics;
use crate::table::containers::Zone;
use crate::table::ports::PortRule;
use crate::upstream::Upstreams;

/// What is the same in the routes of all containers.
#[derive(Debug)]
pub(super) struct Templates {
    plain: Template,
    https_only: Template,
    port: Template,
    common: Arc<Common>,
    /// What is the same in all containers that have no SSH server and take any key.
    plain_ssh: Arc<SshAccess>,
    names: Upstreams,
}

#[derive(Debug)]
struct Template {
    route: Arc<Route>,
    metrics: Arc<RouteMetrics>,
}

impl Template {
    fn new(route: Route, metrics: &GatewayMetrics) -> Self {
        let metrics = metrics.route(route.id.as_str());
        Self { route: Arc::new(route), metrics }
    }

    fn live(&self, backend: Backend) -> LiveRoute {
        let (route, metrics) = (Arc::clone(&self.route), Arc::clone(&self.metrics));
        LiveRoute { route, metrics, lead: Lead::Container(backend) }
    }
}

impl Templates {
    pub fn new(zone: &Zone, metrics: &GatewayMetrics, ledger: Ledger) -> Self {
        let host = HostPattern::Wildcard(zone.name().clone());
        // Where they lead is each container's own.
        let action = Action::Proxy { targets: Vec::new(), protocol: Protocol::H1 };
        let plain = Route::new(host, PathPrefix::root(), action, Source::Compute);
        let common = Arc::new(Common::new(&plain, ledger));
        let port_id = RouteId::new(format!("{}:*/", plain.host));
        Self {
            https_only: Template::new(Route { https_only: true, ..plain.clone() }, metrics),
            port: Template::new(Route { id: port_id, ..plain.clone() }, metrics),
            plain: Template::new(plain, metrics),
            common,
            plain_ssh: Arc::default(),
            names: Upstreams::of_containers(),
        }
    }

    /// Looks names of containers up. Runs until dropped.
    pub async fn resolve(&self) {
        self.names.clone().run().await;
    }

    /// The route to the container's host name. Takes over what goes on from `old`, or tells how it ends.
    pub fn host(&self, record: &Record, old: Option<&Backend>, ended: &mut Vec<Ending>) -> LiveRoute {
        let place = self.place(record);
        let life = match old {
            Some(old) if old.owner() == record.owner => {
                let lives = |status| matches!(status, Status::Running | Status::Hibernated);
                let ran = lives(old.status());
                let runs_on = lives(record.status) && is_same_machine(old.place(), &place);
                if ran && !runs_on {
                    ended.push(Ending::AfterDrain(Arc::clone(old.life())));
                } else if old.status() == Status::Running && record.status == Status::Hibernated {
                    ended.push(Ending::InSleep(Arc::clone(old.life())));
                }
                (!ran || runs_on).then(|| Arc::clone(old.life()))
            }
            Some(old) => {
                ended.push(Ending::AtOnce(Arc::clone(old.life())));
                None
            }
            None => None,
        };
        let life = life.unwrap_or_else(|| Arc::new(Life::new(record.id, record.owner)));
        let backend = Backend::new(&self.common, &life, place, record.version, record.status);
        // What answers no HTTPS must not send anybody there.
        let template = if record.redirect_to_https && record.https_enabled { &self.https_only } else { &self.plain };
        template.live(backend.with_https(record.https_enabled).with_ssh(self.ssh(record)))
    }

    fn ssh(&self, record: &Record) -> Option<Arc<SshAccess>> {
        record.ssh.as_ref().map(|access| match access {
            access if *access == *self.plain_ssh => Arc::clone(&self.plain_ssh),
            access => Arc::new(access.clone()),
        })
    }

    /// The route from a port of the gateway; none while the container has no address.
    pub fn port(&self, host: &Backend, rule: &PortRule) -> Option<Arc<LiveRoute>> {
        let place = match host.place() {
            Place::Nowhere => Place::Nowhere,
            Place::Ip(ip, _) => Place::Ip(*ip, rule.target_port),
            Place::Name(upstream) => {
                let host = upstream.authority().host.clone();
                self.name(Authority { host, port: rule.target_port })
            }
        };
        let backend = Backend::new(&self.common, host.life(), place, host.version(), host.status());
        Some(Arc::new(self.port.live(backend)))
    }

    fn place(&self, record: &Record) -> Place {
        match &record.address {
            None => Place::Nowhere,
            Some(authority) => match authority.ip() {
                Some(ip) => Place::Ip(ip, authority.port),
                None => self.name(authority.clone()),
            },
        }
    }

    fn name(&self, authority: Authority) -> Place {
        let upstream = self.names.upstream(&authority);
        self.names.look_up_soon();
        Place::Name(upstream)
    }
}

fn is_same_machine(old: &Place, new: &Place) -> bool {
    match (old, new) {
        (Place::Ip(old, _), Place::Ip(new, _)) => old == new,
        (Place::Name(old), Place::Name(new)) => old.authority().host == new.authority().host,
        _ => false,
    }
}
