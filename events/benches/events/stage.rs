//! Two services' databases and the bus between them, empty, each thing that is acknowledged on disk.

use std::sync::Arc;

use edd_events::bus::Bus;
use edd_events::bus::jetstream::{JetStreamBus, JetStreamConfig};
use edd_events::bus::local::LocalBus;
use edd_events::clock::{Clock, SystemClock};
use edd_events::database::Database;
use edd_events::publisher::Publisher;
use edd_events::service::{Running, Service};
use edd_events::user_cache;
use edd_proto::{CONSUMERS, Consumer, Encoding, Stream};
use edd_servers::nats::Nats;
use edd_servers::postgres::{Postgres, Settings};
use prometheus::Registry;

/// Who reads what the owner publishes.
pub const CONSUMER: Consumer = CONSUMERS[0];
pub const STREAM: Stream = Stream::AUTH;
/// What NATS's documentation advises for data that must not be lost; its default is every two minutes.
const NATS_CONFIG: &str = "jetstream { sync_interval: always }";

/// What carries the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    SqliteLocal,
    PostgresJetStream,
}

impl Setup {
    pub const ALL: [Self; 2] = [Self::SqliteLocal, Self::PostgresJetStream];

    pub fn id(self) -> &'static str {
        match self {
            Self::SqliteLocal => "sqlite",
            Self::PostgresJetStream => "postgres",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::SqliteLocal => "SQLite + local bus",
            Self::PostgresJetStream => "PostgreSQL + JetStream",
        }
    }
}

/// What takes long to start and serves all rounds.
#[derive(Debug)]
pub struct Servers {
    postgres: Option<Postgres>,
}

impl Servers {
    pub fn for_setups(setups: &[Setup]) -> Self {
        let durable = Settings { durable: true, ..Settings::default() };
        let is_needed = setups.contains(&Setup::PostgresJetStream);
        Self { postgres: is_needed.then(|| Postgres::start(durable)) }
    }
}

/// One measurement's. The events are the users' of `edd control auth`, and what the reader makes of them is `user_cache`.
#[derive(Debug)]
pub struct Stage {
    pub setup: Setup,
    pub owner: Database,
    pub reader: Database,
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub publisher: Publisher,
    /// For what is measured without us.
    pub folder: tempfile::TempDir,
    pub nats: Option<Nats>,
    pub bare_url: Option<String>,
}

impl Stage {
    pub async fn new(setup: Setup, servers: &Servers) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (owner, reader, bus, nats, bare_url): (_, _, Arc<dyn Bus>, _, _) = match setup {
            Setup::SqliteLocal => {
                let file = |name: &str| format!("sqlite://{}?mode=rwc", folder.path().join(name).display());
                let bus = LocalBus::open(&folder.path().join("bus.db"), clock.clone()).await.expect("a bus");
                (file("owner.db"), file("reader.db"), Arc::new(bus), None, None)
            }
            Setup::PostgresJetStream => {
                let postgres = servers.postgres.as_ref().expect("it was started for this setup");
                let nats = Nats::with_config(NATS_CONFIG);
                let config =
                    JetStreamConfig { urls: nats.url(), name: "bench".to_owned(), ..JetStreamConfig::default() };
                let bus = JetStreamBus::connect(&config).await.expect("a bus");
                (postgres.database(), postgres.database(), Arc::new(bus), Some(nats), Some(postgres.database()))
            }
        };
        bus.ensure(&[STREAM, Stream::DLQ], &[CONSUMER]).await.expect("streams and a consumer");
        let owner = Database::open(&owner, &[]).await.expect("a database");
        let reader = Database::open(&reader, &[user_cache::STEP]).await.expect("a database");
        let publisher = Publisher::new("auth-service", Encoding::Protobuf, clock.clone());
        Self { setup, owner, reader, bus, clock, publisher, folder, nats, bare_url }
    }

    /// Starts the service that publishes, as `edd control auth` does.
    pub fn start_owner(&self) -> Running {
        let service = self.service("auth", self.owner.clone());
        service.start(Vec::new(), &[STREAM], &Registry::new()).expect("a registry of its own")
    }

    /// Starts the service that reads, with `user_cache` behind its consumer.
    pub fn start_reader(&self) -> Running {
        let projector = edd_events::projection::Projector::new(Arc::new(user_cache::UserCache), self.clock.clone());
        let service = self.service("sfs", self.reader.clone());
        service.start(vec![(CONSUMER, Arc::new(projector))], &[], &Registry::new()).expect("a registry of its own")
    }

    fn service(&self, name: &'static str, database: Database) -> Service {
        let (bus, clock, publisher) = (self.bus.clone(), self.clock.clone(), self.publisher.clone());
        Service { name, database, bus, clock, publisher }
    }
}
