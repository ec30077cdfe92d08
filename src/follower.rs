//! What every service but auth does besides its own work: it keeps a copy of the users, by events. Those that have
//! callers also keep what is needed to verify them without asking.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edd_control::access_token::DEFAULT_ISSUER;
use edd_control::caller::{Keys, Verifier};
use edd_control::revocation;
use edd_control::revocation::feed::Feed;
use edd_events::consumer::Handler;
use edd_events::database::{Database, Step};
use edd_events::projection::{Dispatcher, Projector, Reconciler, Synchronizer, Timing};
use edd_events::publisher::Publisher;
use edd_events::service::{Running, Service};
use edd_events::user_cache::{self, UserCache};
use edd_proto::{CONSUMERS, Consumer, Stream};
use prometheus::Registry;
use tokio::sync::watch;

use crate::auth_client::AuthClient;
use crate::databases::{Location, ServiceName, away};
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
        let none = || Failure::new(Code::Failure, format!("{} has no consumer of {}", self.source, stream.name));
        found.copied().ok_or_else(none)
    }

    /// Who says what it tells.
    pub fn publisher(&self, plane: &Plane) -> Publisher {
        Publisher::new(self.source, plane.encoding, plane.clock.clone())
    }

    /// Opens its database and follows the users.
    pub async fn start(&self, place: Place<'_>) -> Result<Follower, Failure> {
        let database = self.open(&place, &[user_cache::STEP]).await?;
        self.follow(&place, database, None, Besides::default())
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
        let consumers = std::iter::once((consumer, handlers)).chain(besides.consumers).collect();
        let mut running = service.start(consumers, &[self.stream], place.registry)?;
        match place.auth.users.clone() {
            None => tracing::warn!(
                service = self.name,
                "no AUTH_SERVICE_URL and SERVICE_API_KEY: users are known by the events that the stream still has"
            ),
            Some(owner) => {
                let on = (database.clone(), bus, clock.clone());
                let synchronizer = Synchronizer::new(users, consumer, owner, on, Timing::default());
                let reconciler = Reconciler::new(synchronizer.clone(), RECONCILE_EVERY, SETTLE);
                running.spawn(|stop| synchronizer.run(stop));
                running.spawn(|stop| reconciler.run(stop));
            }
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
