//! What every service but auth does besides its own work: it keeps a copy of the users, by events. Those that have
//! callers also keep what is needed to verify them without asking.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edd_control::access_token::DEFAULT_ISSUER;
use edd_control::caller::{Keys, Verifier};
use edd_control::revocation;
use edd_control::revocation::feed::Feed;
use edd_events::compute_cache;
use edd_events::compute_cache::containers::Containers;
use edd_events::compute_cache::ingress_requests::IngressRequests;
use edd_events::compute_cache::ssh_keys::SshKeys;
use edd_events::consumer::Handler;
use edd_events::database::{Database, Step};
use edd_events::projection::{Dispatcher, Owner, Projection, Projector, Reconciler, Synchronizer, Timing};
use edd_events::publisher::Publisher;
use edd_events::service::{Running, Service};
use edd_events::user_cache::{self, UserCache};
use edd_gateway::containers::store;
use edd_gateway::{ingress, static_routes};
use edd_proto::{CONSUMERS, Consumer, Stream};
use prometheus::Registry;
use tokio::sync::watch;

use crate::auth_client::AuthClient;
use crate::databases::{Location, ServiceName, away};
use crate::exit::{Code, Failure};
use crate::fleet::ComputeOwners;
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

/// What the gateway has in its database besides what it projects.
const GATEWAY_STEPS: [Step; 3] = [store::STEP, ingress::STEP, static_routes::STEP];

/// Something of another service that is projected.
#[derive(Debug)]
pub struct Followed {
    consumer: Consumer,
    projection: Arc<dyn Projection>,
    /// Who has all of it.
    owner: Option<Arc<dyn Owner>>,
}

/// What a role stands on.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub plane: &'a Plane,
    pub location: &'a Location,
    pub auth: &'a AuthClient,
    pub registry: &'a Registry,
    /// Keeps the keys of access tokens over a restart. None: the auth service is as near as the file would be.
    pub keys_dir: Option<&'a Path>,
}

/// What a role does besides.
#[derive(Debug, Default)]
pub struct Besides {
    /// The tables that it has of its own.
    pub steps: Vec<Step>,
    /// What it does with events of users, once its copy has them: filters of subjects, and who handles those.
    pub on_users: Vec<(&'static [&'static str], Arc<dyn Handler>)>,
    /// What else it reads.
    pub consumers: Vec<(Consumer, Arc<dyn Handler>)>,
    /// What it keeps copies of, all by one consumer.
    pub copies: Vec<Followed>,
}

/// A service's copy of the users, kept up.
#[derive(Debug)]
pub struct Follower {
    pub running: Running,
    pub report: Arc<Report>,
    pub database: Database,
    pub publisher: Publisher,
}

impl Role {
    /// Its consumer of what happens to users and sessions.
    pub fn consumer(&self) -> Result<Consumer, Failure> {
        self.consumer_of(Stream::AUTH)
    }

    /// Its consumer of `stream`.
    pub fn consumer_of(&self, stream: Stream) -> Result<Consumer, Failure> {
        let found = CONSUMERS.iter().find(|consumer| consumer.name == self.source && consumer.stream == stream);
        let missing = || Failure::new(Code::Failure, format!("{} has no consumer of {}", self.source, stream.name));
        found.copied().ok_or_else(missing)
    }

    /// Who says what it tells.
    pub fn publisher(&self, plane: &Plane) -> Publisher {
        Publisher::new(self.source, plane.encoding, plane.clock.clone())
    }

    /// Opens its database, and follows the users and compute.
    pub async fn start_with_compute(
        &self,
        place: Place<'_>,
        owners: Option<&ComputeOwners>,
    ) -> Result<Follower, Failure> {
        let steps = [&[user_cache::STEP], &compute_cache::STEPS[..], &GATEWAY_STEPS].concat();
        let database = self.open(&place, &steps).await?;
        self.follow(&place, database, None, Besides { copies: self.compute(owners)?, ..Besides::default() })
    }

    /// The same, and knows callers by their tokens.
    pub async fn start_verifying(
        &self,
        place: Place<'_>,
        mut besides: Besides,
    ) -> Result<(Follower, Verifier), Failure> {
        besides.steps.extend([user_cache::STEP, revocation::STEP]);
        let database = self.open(&place, &besides.steps).await?;
        let (bus, clock) = (place.plane.bus.clone(), place.plane.clock.clone());
        let feed = Feed::open(database.clone(), bus.clone(), self.consumer()?, place.auth.revocations.clone());
        let mut feed = feed.await.map_err(away(self.service))?;
        feed.prepare().await;
        let keys = Keys::open(place.auth.keys.clone(), DEFAULT_ISSUER, self.keys_file(&place)).await;
        let verifier = Verifier::new(keys, feed.revocations().clone(), bus, clock);
        let mut follower = self.follow(&place, database.clone(), Some(&feed), besides)?;
        follower.running.spawn(|stop| feed.run(stop));
        follower.running.spawn(|stop| verifier.clone().run(database, stop));
        Ok((follower, verifier))
    }

    async fn open(&self, place: &Place<'_>, steps: &[Step]) -> Result<Database, Failure> {
        place.location.open(self.service, steps).await
    }

    fn keys_file(&self, place: &Place<'_>) -> Option<PathBuf> {
        place.keys_dir.map(|dir| dir.join(format!("{}-jwks.json", self.name)))
    }

    /// What it projects of compute.
    fn compute(&self, owners: Option<&ComputeOwners>) -> Result<Vec<Followed>, Failure> {
        let consumer = self.consumer_of(Stream::COMPUTE)?;
        let of = |projection: Arc<dyn Projection>, owner: Option<&Arc<dyn Owner>>| Followed {
            consumer,
            projection,
            owner: owner.cloned(),
        };
        Ok(vec![
            of(Arc::new(Containers), owners.map(|owners| &owners.containers)),
            of(Arc::new(SshKeys), owners.map(|owners| &owners.ssh_keys)),
            of(Arc::new(IngressRequests), owners.map(|owners| &owners.ingress_requests)),
        ])
    }

    /// Follows the users, and does what else there is.
    fn follow(
        &self,
        place: &Place<'_>,
        database: Database,
        feed: Option<&Feed>,
        besides: Besides,
    ) -> Result<Follower, Failure> {
        let Plane { bus, clock, .. } = place.plane.clone();
        let (consumer, users) = (self.consumer()?, Arc::new(UserCache));
        let projector = Projector::new(users.clone(), clock.clone());
        let mut handlers = Dispatcher::default().with(user_cache::SHAPE.filters, Arc::new(projector));
        if let Some(feed) = feed {
            handlers = handlers.with(revocation::SUBJECTS, Arc::new(feed.revocations().clone()));
        }
        for (filters, handler) in besides.on_users {
            handlers = handlers.with(filters, handler);
        }
        let publisher = self.publisher(place.plane);
        let service = Service {
            name: self.name,
            database: database.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            publisher: publisher.clone(),
        };
        let handlers: Arc<dyn Handler> = Arc::new(handlers);
        let mut consumers = vec![(consumer, handlers)];
        consumers.extend(besides.consumers);
        if let Some(Followed { consumer, .. }) = besides.copies.first() {
            let projector = |it: &Followed| Arc::new(Projector::new(it.projection.clone(), clock.clone()));
            let handlers = besides.copies.iter().fold(Dispatcher::default(), |handlers, followed| {
                handlers.with(followed.projection.shape().filters, projector(followed))
            });
            consumers.push((*consumer, Arc::new(handlers)));
        }
        let mut running = service.start(consumers, &[self.stream], place.registry)?;
        let users = Followed { consumer, projection: users, owner: place.auth.users.clone() };
        for Followed { consumer, projection, owner } in std::iter::once(users).chain(besides.copies) {
            let Some(owner) = owner else {
                tracing::warn!(
                    service = self.name,
                    projection = projection.shape().name,
                    "nobody was named who has all of it: what the stream still tells is all that is known"
                );
                continue;
            };
            let on = (database.clone(), bus.clone(), clock.clone());
            let synchronizer = Synchronizer::new(projection, consumer, owner, on, Timing::default());
            let reconciler = Reconciler::new(synchronizer.clone(), RECONCILE_EVERY, SETTLE);
            running.spawn(|stop| synchronizer.run(stop));
            running.spawn(|stop| reconciler.run(stop));
        }
        let (told, projections) = watch::channel(Vec::new());
        let looked_at = database.clone();
        running.spawn(|stop| report::projections(self.name, looked_at, clock, told, stop));
        let report = Report::new(self.name, running.watch(), projections);
        let report = match feed {
            Some(feed) => report.with_revocations(feed.watch()),
            None => report,
        };
        Ok(Follower { running, report: Arc::new(report), database, publisher })
    }
}
