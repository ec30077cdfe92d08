//! What every service but auth does besides its own work: it keeps a copy of the users, by events.

use std::sync::Arc;
use std::time::Duration;

use edd_events::consumer::Handler;
use edd_events::database::Step;
use edd_events::projection::{Dispatcher, Owner, Projector, Reconciler, Synchronizer, Timing};
use edd_events::publisher::Publisher;
use edd_events::service::{Running, Service};
use edd_events::user_cache::{self, UserCache};
use edd_proto::{CONSUMERS, Consumer, Stream};
use prometheus::Registry;
use tokio::sync::watch;

use crate::databases::{Location, ServiceName};
use crate::exit::{Code, Failure};
use crate::plane::Plane;
use crate::report::{self, Report};

/// Between two comparisons of a copy with the users' owner.
const RECONCILE_EVERY: Duration = Duration::from_secs(3600);
/// Between two looks at a difference.
const SETTLE: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    pub service: ServiceName,
    /// As in the metrics.
    name: &'static str,
    /// What it calls itself in its events; also the name of its consumers.
    source: &'static str,
    /// Where its own events go.
    stream: Stream,
}

pub const SFS: Role = Role { service: ServiceName::Sfs, name: "sfs", source: "sfs-service", stream: Stream::SFS };
pub const COMPUTE: Role =
    Role { service: ServiceName::Compute, name: "compute", source: "compute-service", stream: Stream::COMPUTE };
pub const GATEWAY: Role =
    Role { service: ServiceName::Gateway, name: "gateway", source: "gateway-service", stream: Stream::GATEWAY };

/// A service's copy of the users, kept up.
#[derive(Debug)]
pub struct Follower {
    pub running: Running,
    pub report: Arc<Report>,
}

impl Role {
    /// The steps of its database.
    const STEPS: [Step; 1] = [user_cache::STEP];

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its consumer of users.
    pub fn consumer(&self) -> Result<Consumer, Failure> {
        let found = CONSUMERS.iter().find(|consumer| consumer.name == self.source && consumer.stream == Stream::AUTH);
        found.copied().ok_or_else(|| Failure::new(Code::Failure, format!("{} has no consumer of users", self.source)))
    }

    /// Opens its database and follows the users; without `owner` from what the stream still has.
    pub async fn start(
        &self,
        plane: &Plane,
        location: &Location,
        owner: Option<Arc<dyn Owner>>,
        registry: &Registry,
    ) -> Result<Follower, Failure> {
        let database = location.open(self.service, &Self::STEPS).await?;
        let service = Service {
            name: self.name,
            database: database.clone(),
            bus: plane.bus.clone(),
            clock: plane.clock.clone(),
            publisher: Publisher::new(self.source, plane.encoding, plane.clock.clone()),
        };
        let consumer = self.consumer()?;
        let users = Arc::new(UserCache);
        let projector = Projector::new(users.clone(), plane.clock.clone());
        let handler: Arc<dyn Handler> =
            Arc::new(Dispatcher::default().with(user_cache::SHAPE.filters, Arc::new(projector)));
        let mut running = service.start(vec![(consumer, handler)], &[self.stream], registry)?;
        match owner {
            None => tracing::warn!(
                service = self.name,
                "no AUTH_SERVICE_URL and SERVICE_API_KEY: users are known by the events that the stream still has"
            ),
            Some(owner) => {
                let place = (database.clone(), plane.bus.clone(), plane.clock.clone());
                let synchronizer = Synchronizer::new(users, consumer, owner, place, Timing::default());
                let reconciler = Reconciler::new(synchronizer.clone(), RECONCILE_EVERY, SETTLE);
                running.spawn(|stop| synchronizer.run(stop));
                running.spawn(|stop| reconciler.run(stop));
            }
        }
        let (told, projections) = watch::channel(Vec::new());
        running.spawn(|stop| report::projections(self.name, database, plane.clock.clone(), told, stop));
        let report = Arc::new(Report::new(self.name, running.watch(), projections));
        Ok(Follower { running, report })
    }
}
