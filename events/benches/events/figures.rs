//! What events cost from a commit to their effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use edd_events::database::Database;
use edd_events::projection::{Digest, Owner, OwnerError, Page, Replay, Source, Table};
use edd_events::publisher::Cause;
use edd_events::user_cache;
use edd_proto::auth::UserCreated;
use edd_proto::{Encoding, Envelope, Event, EventId, UserId};
use futures_util::future::join_all;
use sqlx::AssertSqlSafe;

use crate::stage::{STREAM, Stage};

/// Transactions that are open at once.
pub const WRITERS: usize = 4;
/// Between two changes while latency is measured: each has passed before the next.
pub const STEADY_PAUSE: Duration = Duration::from_millis(25);
/// Longest wait for one event.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A machine on which many events take longer than this is no use for measuring. What is not done then is not counted.
const SLOWEST_PER_SECOND: u32 = 200;
/// Between two looks at how much is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const EFFECTS: &str = "SELECT count(*) FROM inbox";
const UNPUBLISHED: &str = "SELECT count(*) FROM outbox WHERE published_at IS NULL";
/// Whether there are any, found without counting.
const IS_UNPUBLISHED: &str = "SELECT count(*) FROM (SELECT 1 FROM outbox WHERE published_at IS NULL LIMIT 1) AS first";
/// Rows of the backlog that one statement writes.
const FILL_ROWS: usize = 250;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Events in the backlog and in the replay.
    pub rows: usize,
    /// Time for each bare rate.
    pub bare: Duration,
    /// How long the writers write.
    pub load: Duration,
    pub latency_samples: usize,
}

/// A service that signs up users, with their event.
#[derive(Clone, Debug)]
struct Writer {
    database: Database,
    publisher: edd_events::publisher::Publisher,
}

impl Writer {
    fn of(stage: &Stage) -> Self {
        Self { database: stage.owner.clone(), publisher: stage.publisher.clone() }
    }

    /// Commits one change; the user's id.
    async fn write(&self) -> String {
        let id = UserId::random(&mut rand::rng()).to_string();
        let mut transaction = self.database.begin().await.expect("a transaction");
        self.publisher.add(&mut transaction, created(&id), &Cause::default()).await.expect("a row");
        self.database.commit(transaction).await.expect("a commit");
        id
    }
}

fn created(id: &str) -> UserCreated {
    let name = format!("user-{id}");
    UserCreated { user_uid: id.to_owned(), username: name.clone(), display_name: name, ..UserCreated::default() }
}

/// Events per second through outbox, relay, bus and inbox, while several transactions write all the time.
pub async fn throughput(stage: &Stage, sizes: &Sizes) -> f64 {
    let (owner, reader) = (stage.start_owner(), stage.start_reader());
    // Connected, and every statement prepared.
    Writer::of(stage).write().await;
    handled(&stage.reader, 1).await;
    let started = Instant::now();
    let writers = (0..WRITERS).map(|_| {
        let (writer, load) = (Writer::of(stage), sizes.load);
        tokio::spawn(async move {
            let mut written = 0;
            while started.elapsed() < load {
                writer.write().await;
                written += 1;
            }
            written
        })
    });
    let written: usize = join_all(writers).await.into_iter().map(|written| written.expect("a writer")).sum();
    let done = handled(&stage.reader, 1 + written).await - 1;
    let rate = done as f64 / started.elapsed().as_secs_f64();
    owner.stop().await;
    reader.stop().await;
    rate
}

/// How long an event takes from its commit to its effect, by one after the other; in ascending order.
pub async fn latency(stage: &Stage, sizes: &Sizes) -> Vec<Duration> {
    let (owner, reader, writer) = (stage.start_owner(), stage.start_reader(), Writer::of(stage));
    let mut samples = Vec::with_capacity(sizes.latency_samples);
    // The first one waits until all is connected.
    for sample in 0..=sizes.latency_samples {
        let id = writer.write().await;
        let committed = Instant::now();
        loop {
            let next = stage.reader.committed();
            let select = sqlx::query_scalar::<_, i64>("SELECT version FROM user_cache WHERE user_id = $1").bind(&id);
            if select.fetch_optional(stage.reader.reader()).await.expect("a row").is_some() {
                break;
            }
            tokio::time::timeout(LONGEST_WAIT, next).await.expect("an effect");
        }
        if sample > 0 {
            samples.push(committed.elapsed());
        }
        tokio::time::sleep(STEADY_PAUSE).await;
    }
    owner.stop().await;
    reader.stop().await;
    samples.sort_unstable();
    samples
}

/// Events per second of a backlog that was written while neither service ran: from the outbox to the bus, and from the
/// bus to their effect.
pub async fn drain(stage: &Stage, sizes: &Sizes) -> [f64; 2] {
    fill(&stage.owner, sizes.rows, stage.clock.now()).await;
    let started = Instant::now();
    let owner = stage.start_owner();
    let is_out = || async { number(&stage.owner, IS_UNPUBLISHED).await == 0 };
    let relayed = if reached(sizes.rows, is_out).await {
        sizes.rows
    } else {
        sizes.rows - number(&stage.owner, UNPUBLISHED).await
    };
    let relay = relayed as f64 / started.elapsed().as_secs_f64();
    owner.stop().await;
    let started = Instant::now();
    let reader = stage.start_reader();
    let done = handled(&stage.reader, relayed).await;
    let consumer = done as f64 / started.elapsed().as_secs_f64();
    reader.stop().await;
    [relay, consumer]
}

/// Events per second of a replay from the stream, and rows per second of one from the owner.
pub async fn replays(stage: &Stage, sizes: &Sizes) -> [f64; 2] {
    let place = (stage.reader.clone(), stage.bus.clone(), stage.clock.clone());
    let owner: Arc<dyn Owner> = Arc::new(OwnTable(stage.reader.clone()));
    let replay = Replay::new(Arc::new(user_cache::UserCache), STREAM, Some(owner), place);
    let mut rates = [0.0; 2];
    for (rate, source) in rates.iter_mut().zip([Source::Stream, Source::Owner]) {
        let started = Instant::now();
        let replayed = replay.run(Some(source), &mut |_| {}).await.expect("a replay");
        assert_eq!((replayed.read, replayed.skipped), (sizes.rows as u64, 0), "{replayed:?}");
        *rate = replayed.read as f64 / started.elapsed().as_secs_f64();
    }
    rates
}

/// Waits until `expected` events have had their effect; how many have in time.
async fn handled(reader: &Database, expected: usize) -> usize {
    // The newest number is found without counting, which would cost what is measured. Some numbers may be skipped.
    let is_done = || async {
        number(reader, "SELECT coalesce(max(id), 0) FROM event_log").await >= expected
            && number(reader, EFFECTS).await >= expected
    };
    if reached(expected, is_done).await { expected } else { number(reader, EFFECTS).await }
}

/// Waits until so many `events` are through, as `is_so` says; false if that takes too long.
async fn reached<F: Future<Output = bool>>(events: usize, is_so: impl Fn() -> F) -> bool {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let longest = LONGEST_WAIT + Duration::from_secs(events as u64) / SLOWEST_PER_SECOND;
    let is_reached = tokio::time::timeout(longest, wait).await.is_ok();
    if !is_reached {
        eprintln!("bench events: not all of {events} events were through within {} s", longest.as_secs());
    }
    is_reached
}

async fn number(database: &Database, select: &'static str) -> usize {
    let number = sqlx::query_scalar::<_, i64>(select).fetch_one(database.reader()).await.expect("a number");
    usize::try_from(number).expect("a count")
}

/// Puts `rows` events of as many users into the outbox, as if they had been committed one by one.
async fn fill(database: &Database, rows: usize, now: i64) {
    for from in (0..rows).step_by(FILL_ROWS) {
        let count = FILL_ROWS.min(rows - from);
        let values = (0..count).map(|row| {
            let bound: Vec<_> = (1..=5).map(|column| format!("${}", row * 5 + column)).collect();
            format!("({}, 1, '', '', '', {now})", bound.join(", "))
        });
        let insert = format!(
            "INSERT INTO outbox (event_id, subject, entity, content_type, payload, version, correlation_id, \
             trace_parent, headers, created_at) VALUES {}",
            values.collect::<Vec<_>>().join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(insert));
        for _ in 0..count {
            let (id, event_id) = (UserId::random(&mut rand::rng()).to_string(), event_id());
            let mut event = created(&id);
            let envelope = Envelope {
                event_id,
                entity_id: id.clone(),
                at: Some(std::time::SystemTime::now()),
                source: "auth-service".to_owned(),
                version: 1,
                correlation_id: String::new(),
                trace_id: String::new(),
            };
            *event.metadata_mut() = Some(envelope.into());
            let payload = Encoding::Protobuf.encode(&event).expect("a small event");
            let subject = event.subject().expect("a subject").to_string();
            query = query.bind(event_id.to_string()).bind(subject).bind(format!("auth.user.{id}"));
            query = query.bind(Encoding::Protobuf.content_type()).bind(payload);
        }
        query.execute(database.writer()).await.expect("rows");
    }
}

fn event_id() -> EventId {
    EventId::new(std::time::SystemTime::now(), &mut rand::rng())
}

/// An owner whose state is what the table has already: it answers as fast as a database can.
#[derive(Debug)]
struct OwnTable(Database);

#[async_trait]
impl Owner for OwnTable {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        let page = Table::live(&user_cache::SHAPE).page(&self.0, after.as_deref(), most).await;
        let entries = page.map_err(|error| OwnerError::Unavailable(error.to_string()))?;
        Ok(Page { more: entries.len() == most as usize, entries })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        Err(OwnerError::Unavailable("nobody asks for it".to_owned()))
    }
}
