//! A service that consumes: its database, its connection to the bus, and the jobs of its process.

use std::sync::Arc;
use std::time::Duration;

use edd_proto::{Consumer as Spec, Stream};
use tokio::sync::Mutex;

use super::arena::Store;
use super::auth::Auth;
use super::broker::Broker;
use super::client::Client;
use super::ledger::{Ledger, Life};
use super::reactor::Reactor;
use super::world::{Job, World};
use crate::bus::Bus;
use crate::consumer::Consumer;
use crate::dead_letter;
use crate::projection::{Dispatcher, Projection, Projector, Reconciler, Replay, Source, Synchronizer, Timing};
use crate::relay::Relay;
use crate::user_cache::UserCache;

/// Nothing waits by the machine's clock.
const TIMING: Timing = Timing {
    check_every: Duration::ZERO,
    poll_every: Duration::ZERO,
    first_pause: Duration::ZERO,
    longest_pause: Duration::ZERO,
};

/// What every process of a schedule has to do with.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub world: Arc<World>,
    pub broker: Arc<Broker>,
    pub ledger: Arc<Ledger>,
    pub auth: Arc<Auth>,
}

/// A service, in one life of its process after another.
#[derive(Debug)]
pub(super) struct Service {
    around: Surroundings,
    pub store: Store,
    /// Streams that its outbox goes to.
    streams: Vec<Stream>,
    pub specs: Vec<Spec>,
    /// Where it keeps the users, if it does: behind this consumer.
    projecting: Option<Spec>,
    pub client: Arc<Client>,
    consumers: Vec<Arc<Mutex<Consumer>>>,
    life: Life,
}

impl Service {
    pub fn new(around: &Surroundings, store: &Store, streams: &[Stream], specs: &[Spec], is_projecting: bool) -> Self {
        let Surroundings { world, broker, ledger, .. } = around;
        let client = Client::new(world.clone(), broker.clone(), ledger.clone(), 0);
        let projecting = specs.first().filter(|_| is_projecting).copied();
        let mut service = Self {
            around: around.clone(),
            store: store.clone(),
            streams: streams.to_vec(),
            specs: specs.to_vec(),
            projecting,
            client,
            consumers: Vec::new(),
            life: 0,
        };
        service.start();
        service
    }

    /// A new life: what the process had in memory is gone.
    pub fn start(&mut self) {
        let Surroundings { world, broker, ledger, .. } = &self.around;
        self.life += 1;
        self.client = Client::new(world.clone(), broker.clone(), ledger.clone(), self.life);
        self.consumers = self.specs.iter().map(|spec| Arc::new(Mutex::new(self.consumer(spec)))).collect();
    }

    /// Has the ledger know what waits in the database since an earlier life: the bus had brought it before whatever it
    /// brings in this one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn note_waiting(&self) -> sqlx::Result<()> {
        let waiting = "SELECT event_id FROM retries WHERE consumer = $1 AND stream = $2 ORDER BY version, id";
        for spec in &self.specs {
            let waiting = sqlx::query_scalar::<_, String>(waiting).bind(spec.name).bind(spec.stream.name);
            for event_id in waiting.fetch_all(self.store.truth.reader()).await? {
                self.around.ledger.hand_over(spec, self.life, &event_id);
            }
        }
        Ok(())
    }

    fn consumer(&self, spec: &Spec) -> Consumer {
        let Surroundings { world, ledger, .. } = &self.around;
        let (clock, mut handler) = (Arc::new(world.clock.clone()), Dispatcher::default());
        if self.projecting == Some(*spec) {
            let filters = UserCache.shape().filters;
            handler = handler.with(filters, Arc::new(Projector::new(Arc::new(UserCache), clock.clone())));
        }
        let reactor = Reactor::new(world.clone(), ledger.clone(), spec, self.life);
        let handler = Arc::new(handler.with(spec.filters, reactor));
        Consumer::new(*spec, self.store.database.clone(), self.client.clone(), clock, handler)
    }

    /// Kinds of jobs that it has.
    pub fn jobs(&self) -> Vec<Kind> {
        let mut jobs = vec![Kind::Ensure, Kind::Relay];
        // What does most of the work has most of the turns.
        for _ in 0..3 {
            jobs.extend((0..self.specs.len()).map(Kind::Consume));
        }
        if self.projecting.is_some() {
            jobs.extend([Kind::Synchronize, Kind::Synchronize, Kind::Reconcile, Kind::Replay]);
        }
        jobs
    }

    pub fn begin(&self, kind: Kind) -> Job {
        match kind {
            Kind::Ensure => self.ensure(),
            Kind::Relay => self.relay(),
            Kind::Consume(index) => self.consume(index),
            Kind::Synchronize => self.synchronize(),
            Kind::Reconcile => self.reconcile(),
            Kind::Replay => self.replay(),
        }
    }

    /// As its watcher does.
    fn ensure(&self) -> Job {
        let (client, specs, mut streams) = (self.client.clone(), self.specs.clone(), self.streams.clone());
        streams.extend(specs.iter().map(|spec| spec.stream));
        Box::pin(async move { told(client.ensure(&streams, &specs).await) })
    }

    fn relay(&self) -> Job {
        let clock = Arc::new(self.around.world.clock.clone());
        let relay = Relay::new(self.store.database.clone(), self.client.clone(), clock, self.streams.clone());
        Box::pin(async move { told(relay.round().await) })
    }

    fn consume(&self, index: usize) -> Job {
        let consumer = self.consumers[index].clone();
        Box::pin(async move { told(consumer.lock().await.round(Duration::ZERO).await) })
    }

    pub fn synchronizer(&self) -> Option<Synchronizer> {
        let clock: Arc<dyn crate::clock::Clock> = Arc::new(self.around.world.clock.clone());
        let parts = (self.store.database.clone(), self.client.clone() as Arc<dyn Bus>, clock);
        Some(Synchronizer::new(Arc::new(UserCache), self.projecting?, self.around.auth.clone(), parts, TIMING))
    }

    pub fn reconciler(&self) -> Option<Reconciler> {
        Some(Reconciler::new(self.synchronizer()?, Duration::ZERO, Duration::ZERO))
    }

    fn synchronize(&self) -> Job {
        let synchronizer = self.synchronizer().expect("a projection");
        Box::pin(async move { told(synchronizer.round().await.map(|status| (status.covered_seq, status.needed))) })
    }

    fn reconcile(&self) -> Job {
        let reconciler = self.reconciler().expect("a projection");
        Box::pin(async move { told(reconciler.round().await) })
    }

    fn replay(&self) -> Job {
        let Synchronizer { projection, owner, database, bus, clock, .. } = self.synchronizer().expect("a projection");
        let replay = Replay::new(projection, Stream::AUTH, Some(owner), (database, bus, clock));
        let source = [None, Some(Source::Stream), Some(Source::Owner)][self.around.world.below(3)];
        Box::pin(async move { told(replay.run(source, &mut |_| {}).await) })
    }

    /// Has all of its dead letters tried again.
    pub async fn requeue(&self) -> String {
        let mut names: Vec<_> = self.specs.iter().map(|spec| spec.name).collect();
        names.dedup();
        let mut said = Vec::new();
        for name in names {
            said.push(told(dead_letter::requeue_all(&self.store.database, name).await));
        }
        said.join(", ")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Ensure,
    Relay,
    Consume(usize),
    Synchronize,
    Reconcile,
    Replay,
}

fn told<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| format!("failed: {error}"), |value| format!("{value:?}"))
}
