//! Users that an owner keeps, their events, and a service that projects them.

mod order;
mod reconciling;
mod replaying;
mod syncing;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::auth::{UserCreated, UserDeleted, UserUpdated};
use edd_proto::{AnyEvent, Consumer as Spec, Encoding, Envelope, EventId, Stream, UserId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;

use super::*;
use crate::bus::Bus;
use crate::bus::local::LocalBus;
use crate::clock::ManualClock;
use crate::consumer::{Consumer, Outcome};
use crate::database::{Database, Kind};
use crate::message::Headers;
use crate::scratch::{Scratch, on_each_database};
use crate::user_cache::{self, UserCache};

/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
const SPEC: Spec = Spec { name: "sfs-service", stream: Stream::AUTH, filters: Stream::AUTH.subjects };
const TIMING: Timing = Timing {
    check_every: Duration::from_millis(5),
    poll_every: Duration::from_millis(1),
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(4),
};

fn uid(number: i64) -> UserId {
    format!("user-{number:016}").parse().expect("21 characters of the alphabet")
}

/// The service that owns the users.
#[derive(Debug)]
struct Auth {
    state: Mutex<AuthState>,
    /// Told when a page is held that was read already.
    held: Notify,
    /// Lets it go.
    go: Notify,
}

#[derive(Debug)]
struct AuthState {
    users: BTreeMap<String, Entry>,
    random: StdRng,
    /// Rows in a page at most.
    page_rows: usize,
    is_down: bool,
    /// How many pages are answered before one is held.
    hold_after: Option<usize>,
}

impl Auth {
    fn new() -> Arc<Self> {
        let state = AuthState {
            users: BTreeMap::new(),
            random: StdRng::seed_from_u64(1),
            page_rows: 3,
            is_down: false,
            hold_after: None,
        };
        Arc::new(Self { state: Mutex::new(state), held: Notify::new(), go: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, AuthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a user these names, or deletes them: the event that tells it. Encodings take turns.
    fn change(&self, number: i64, names: Option<(&str, &str)>) -> Message {
        let mut state = self.state();
        let id = uid(number);
        let version = state.users.get(id.as_str()).map_or(1, |entry| entry.version + 1);
        let names = names.map(|(username, display_name)| (username.to_owned(), display_name.to_owned()));
        let entry = user_cache::entry(id, version, Some(number), names.clone());
        state.users.insert(id.to_string(), entry);
        let event_id = EventId::new(std::time::UNIX_EPOCH, &mut state.random);
        let encoding = if version % 2 == 0 { Encoding::Json } else { Encoding::Protobuf };
        event(id, number, event_id, version, names, encoding)
    }

    fn named(&self, number: i64, name: &str) -> Message {
        self.change(number, Some((name, &name.to_uppercase())))
    }
}

#[async_trait]
impl Owner for Auth {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        let (page, is_held) = {
            let mut state = self.state();
            if state.is_down {
                return Err(OwnerError::Unavailable("connection refused".to_owned()));
            }
            let rows = state.users.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
            let most = state.page_rows.min(most as usize);
            let mut entries: Vec<_> = rows.map(|(_, entry)| entry.clone()).take(most + 1).collect();
            let more = entries.len() > most;
            entries.truncate(most);
            let is_held = state.hold_after == Some(0);
            state.hold_after = state.hold_after.and_then(|pages| pages.checked_sub(1));
            (Page { entries, more }, is_held)
        };
        if is_held {
            self.held.notify_one();
            self.go.notified().await;
        }
        Ok(page)
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let state = self.state();
        if state.is_down {
            return Err(OwnerError::Unavailable("connection refused".to_owned()));
        }
        let mut builder = DigestBuilder::default();
        for entry in state.users.values() {
            builder.add(entry).map_err(|error| OwnerError::Invalid(error.to_string()))?;
        }
        Ok(builder.finish())
    }
}

fn event(
    id: UserId,
    number: i64,
    event_id: EventId,
    version: i64,
    names: Option<(String, String)>,
    encoding: Encoding,
) -> Message {
    let envelope = Envelope {
        event_id,
        entity_id: id.to_string(),
        at: Some(std::time::UNIX_EPOCH + Duration::from_secs(version as u64)),
        source: "auth-service".to_owned(),
        version,
        correlation_id: String::new(),
        trace_id: String::new(),
    };
    let (metadata, user_uid, user_id) = (Some(envelope.into()), id.to_string(), number);
    let event: AnyEvent = match names {
        None => UserDeleted { metadata, user_id, username: "gone".to_owned(), user_uid }.into(),
        Some((username, display_name)) if version == 1 => {
            UserCreated { metadata, user_id, username, display_name, user_uid }.into()
        }
        Some((username, display_name)) => UserUpdated { metadata, user_id, username, display_name, user_uid }.into(),
    };
    message(&event, encoding)
}

fn message(event: &AnyEvent, encoding: Encoding) -> Message {
    let metadata = event.metadata().expect("metadata");
    let subject = event.subject().map_or_else(|_| "auth.user.42.updated".to_owned(), |subject| subject.to_string());
    Message {
        event_id: metadata.event_id.clone(),
        entity: subject.rsplit_once('.').expect("tokens").0.to_owned(),
        version: metadata.version,
        subject,
        content_type: encoding.content_type().to_owned(),
        payload: Bytes::from(event.encode(encoding).expect("a small event")),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: Headers::default(),
    }
}

/// A service's database with the projection, and the bus that feeds it.
struct Fixture {
    scratch: Scratch,
    clock: ManualClock,
    database: Database,
    bus: Arc<LocalBus>,
    auth: Arc<Auth>,
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        let scratch = Scratch::new(kind);
        let clock = ManualClock::at(1_000_000);
        let database = scratch.open(&[user_cache::STEP]).await;
        let bus = bus(&scratch, "bus.db", &clock).await;
        Self { scratch, clock, database, bus, auth: Auth::new() }
    }

    /// The same database as another process sees it.
    async fn other_process(&self) -> Database {
        self.scratch.open(&[user_cache::STEP]).await
    }

    /// A broker whose data are gone.
    async fn recreate_bus(&mut self, name: &str) {
        self.clock.advance(Duration::from_secs(1));
        self.bus = bus(&self.scratch, name, &self.clock).await;
    }

    async fn publish(&self, messages: &[Message]) {
        let (positions, failure) = self.bus.publish(messages).await;
        assert!(failure.is_none() && positions.len() == messages.len(), "{failure:?}");
    }

    fn parts(&self) -> (Database, Arc<dyn Bus>, Arc<dyn crate::clock::Clock>) {
        (self.database.clone(), self.bus.clone(), Arc::new(self.clock.clone()))
    }

    fn consumer(&self) -> Consumer {
        let (database, bus, clock) = self.parts();
        Consumer::new(SPEC, database, bus, clock.clone(), Arc::new(Projector::new(Arc::new(UserCache), clock)))
    }

    fn synchronizer(&self) -> Synchronizer {
        Synchronizer::new(Arc::new(UserCache), SPEC, self.auth.clone(), self.parts(), TIMING)
    }

    fn replay(&self) -> Replay {
        Replay::new(Arc::new(UserCache), Stream::AUTH, Some(self.auth.clone()), self.parts())
    }

    /// Handles everything that the bus has.
    async fn consume(&self) -> Vec<Outcome> {
        let (mut consumer, mut outcomes) = (self.consumer(), Vec::new());
        loop {
            let round = consumer.round(Duration::ZERO).await.expect("a bus");
            if round.is_empty() {
                return outcomes;
            }
            outcomes.extend(round);
        }
    }

    async fn rows(&self) -> Vec<Entry> {
        Table::live(&user_cache::SHAPE).page(&self.database, None, 10_000).await.expect("rows")
    }

    /// What is at the owner.
    fn owned(&self) -> Vec<Entry> {
        self.auth.state().users.values().cloned().collect()
    }

    /// The end of every test: nothing differs from what the owner has.
    async fn assert_converged(&self) {
        assert_eq!(self.rows().await, self.owned());
        assert!(self.synchronizer().converged().await.expect("digests"));
    }

    async fn status(&self) -> Status {
        self.synchronizer().status().await.expect("a status")
    }

    async fn execute(&self, sql: &'static str) -> u64 {
        sqlx::query(sql).execute(self.database.writer()).await.expect(sql).rows_affected()
    }

    /// Tables that replays have left.
    async fn shadows(&self) -> Vec<String> {
        let select = match self.database.kind() {
            Kind::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'user_cache_shadow%'",
            Kind::Postgres => "SELECT tablename::text FROM pg_tables WHERE tablename LIKE 'user_cache_shadow%'",
        };
        sqlx::query_scalar(select).fetch_all(self.database.reader()).await.expect("names")
    }
}

async fn bus(scratch: &Scratch, name: &str, clock: &ManualClock) -> Arc<LocalBus> {
    let bus = LocalBus::open(&scratch.file(name), Arc::new(clock.clone())).await.expect("a bus");
    bus.ensure(&[Stream::AUTH], &[SPEC]).await.expect("a stream");
    Arc::new(bus)
}
