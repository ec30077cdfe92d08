//! Carries the outbox to the bus: in order per entity, at least once, woken by commits.

use std::sync::Arc;
use std::time::Duration;

use edd_proto::Stream;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Position, StreamState};
use crate::clock::{Clock, Micros, micros};
use crate::database::{Database, Kind};
use crate::fail_point::fail_point;
use crate::metrics::Metrics;
use crate::outbox::{self, Pending};

/// Rows that are published in one go.
const BATCH_ROWS: u32 = 256;
/// Commits wake the relay; this only bounds how long a lost wake-up lasts.
const POLL: Duration = Duration::from_secs(1);
/// Pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The key of PostgreSQL's advisory lock that the one relay of a database holds.
const RELAY_LOCK: i64 = 0x6564_6452_656c_6179;

/// Why a round of the relay ended early.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub published: usize,
    /// Rows that are to be published again, because the broker has lost what it had.
    pub refilled: u64,
}

/// The relay of one database.
#[derive(Clone, Debug)]
pub struct Relay {
    database: Database,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    /// The streams that this database's events go to.
    streams: Vec<Stream>,
    poll: Duration,
    metrics: Option<Metrics>,
}

impl Relay {
    pub fn new(database: Database, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, streams: impl Into<Vec<Stream>>) -> Self {
        Self { database, bus, clock, streams: streams.into(), poll: POLL, metrics: None }
    }

    /// Counts what it publishes.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Publishes until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            // Registered before the outbox is read, so that no commit falls between.
            let committed = self.database.committed();
            let wait = match self.round().await {
                Ok(round) if round.published as u32 == BATCH_ROWS || round.refilled > 0 => continue,
                Ok(_) => {
                    pause = FIRST_PAUSE;
                    self.poll
                }
                Err(error) => {
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "events wait in the outbox");
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => continue,
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = committed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Publishes one batch. Another relay of the same database may be at it; then nothing is done.
    pub async fn round(&self) -> Result<Round, RelayError> {
        let mut lock = match self.database.kind() {
            // The file has one process; its writer would be blocked by a transaction held over the bus.
            Kind::Sqlite => None,
            Kind::Postgres => {
                let mut transaction = self.database.begin_relaxed().await?;
                let locked = sqlx::query_scalar::<_, i64>("SELECT pg_try_advisory_xact_lock($1)::int::bigint");
                if locked.bind(RELAY_LOCK).fetch_one(&mut *transaction).await? == 0 {
                    return Ok(Round::default());
                }
                Some(transaction)
            }
        };
        let mut rows = outbox::pending(&self.database, BATCH_ROWS).await?;
        let check = if rows.is_empty() { Check::Thorough } else { Check::Quick };
        let Look { mut refilled, marks } = self.look(check, &self.streams).await?;
        if refilled > 0 {
            rows = outbox::pending(&self.database, BATCH_ROWS).await?;
        }
        if rows.is_empty() {
            if let Some(lock) = lock {
                // Dropped, it would be held for a moment more, and the next round would take us for another relay.
                lock.rollback().await?;
            }
            return Ok(Round { published: 0, refilled });
        }
        let messages: Vec<_> = rows.iter().map(|row| row.message.clone()).collect();
        fail_point!("relay.read");
        let (positions, failure) = self.bus.publish(&messages).await;
        fail_point!("relay.published");
        let published = &rows[..positions.len().min(rows.len())];
        // Before it is noted: what the broker has lost meanwhile is hidden by what has come since.
        let is_used = |spec: &&Stream| positions.iter().any(|position| position.stream == spec.name);
        let used: Vec<_> = self.streams.iter().filter(is_used).copied().collect();
        refilled += self.look(Check::Thorough, &used).await?.refilled;
        let now = self.clock.now();
        let mut transaction = match lock.take() {
            Some(transaction) => transaction,
            None => self.database.begin_relaxed().await?,
        };
        let published = match note_positions(&mut transaction, &marks, published, &positions).await? {
            // Lost with a power failure, it is done again, and the bus knows what it has.
            true => {
                outbox::mark_published(&mut transaction, published, now).await?;
                transaction.commit().await?;
                published
            }
            // They may have gone with what the broker has lost since, and wait for the next round.
            false => {
                transaction.rollback().await?;
                &[]
            }
        };
        fail_point!("relay.marked");
        if let Some(metrics) = &self.metrics {
            published.iter().for_each(|row| metrics.published(&row.message.subject));
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Round { published: published.len(), refilled }),
        }
    }

    /// Compares each of `streams` with what was put there. If the broker lost data, everything that the stream
    /// would still keep goes out again; consumers know what they have seen.
    async fn look(&self, check: Check, streams: &[Stream]) -> Result<Look, RelayError> {
        let mut look = Look { refilled: 0, marks: Vec::with_capacity(streams.len()) };
        for spec in streams {
            let state = self.bus.stream(spec.name).await?;
            let mark = sqlx::query_as("SELECT epoch, last_seq, last_event FROM relayed_streams WHERE stream = $1");
            let mark: Option<Mark> = mark.bind(spec.name).fetch_optional(self.database.reader()).await?;
            if let Some(mark) = &mark
                && self.stands(mark, spec, &state, check).await?
            {
                look.marks.push((spec.name, mark.clone()));
                continue;
            }
            let mut transaction = self.database.begin().await?;
            if mark.is_some() {
                let kept_since: Micros = self.clock.now() - micros(spec.retention());
                let rows = outbox::publish_again(&mut transaction, spec.subjects, kept_since).await?;
                tracing::warn!(stream = spec.name, rows, "the broker has lost data; publishing again from the outbox");
                look.refilled += rows;
            }
            let upsert = "INSERT INTO relayed_streams (stream, epoch, last_seq, last_event) VALUES ($1, $2, 0, '') \
                          ON CONFLICT (stream) DO UPDATE SET epoch = excluded.epoch, last_seq = 0, last_event = ''";
            sqlx::query(upsert).bind(spec.name).bind(state.epoch).execute(&mut *transaction).await?;
            transaction.commit().await?;
            look.marks.push((spec.name, (state.epoch, 0, String::new())));
        }
        Ok(look)
    }

    /// Whether the last of what was put into a stream is still there, and so all that came before it.
    async fn stands(&self, mark: &Mark, spec: &Stream, state: &StreamState, check: Check) -> Result<bool, BusError> {
        let (epoch, seq, event) = (mark.0, mark.1 as u64, &mark.2);
        if epoch != state.epoch || state.last_seq < seq {
            return Ok(false);
        }
        if check == Check::Quick || event.is_empty() || state.first_seq > seq {
            return Ok(true);
        }
        // Others may publish there too, or another process of ours: enough to hide by their number what was lost.
        let kept = self.bus.read(spec.name, seq, spec.subjects, 1).await?;
        Ok(kept.first().is_some_and(|(at, message)| *at == seq && message.event_id == *event))
    }
}

/// Epoch, sequence and id of the last event that a stream is known to have.
type Mark = (i64, i64, String);

/// What a look at the streams brought.
struct Look {
    /// Rows that are to be published again.
    refilled: u64,
    /// How far each stream is filled, as the database has it now.
    marks: Vec<(&'static str, Mark)>,
}

/// Notes how far the streams are filled with what was published, if nobody has noted anything since the look at `marks`:
/// neither this relay, because the broker has lost data, nor another one of the same database. Says whether it did.
async fn note_positions(
    connection: &mut sqlx::AnyConnection,
    marks: &[(&'static str, Mark)],
    published: &[Pending],
    positions: &[Position],
) -> sqlx::Result<bool> {
    for (stream, (epoch, last_seq, last_event)) in marks {
        let of_it = published.iter().zip(positions).filter(|(_, position)| position.stream == *stream);
        let Some((row, position)) = of_it.max_by_key(|(_, position)| position.seq) else { continue };
        // What is published again stays where it was first.
        let (seq, event) = match position.seq as i64 > *last_seq {
            true => (position.seq as i64, &row.message.event_id),
            false => (*last_seq, last_event),
        };
        let update = "UPDATE relayed_streams SET last_seq = $1, last_event = $2 \
                      WHERE stream = $3 AND epoch = $4 AND last_seq = $5 AND last_event = $6";
        let update = sqlx::query(update).bind(seq).bind(event).bind(*stream);
        let update = update.bind(*epoch).bind(*last_seq).bind(last_event);
        if update.execute(&mut *connection).await?.rows_affected() == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How closely a stream is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// By its numbers: before something waits for it.
    Quick,
    /// By its content.
    Thorough,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{self, KEYS, USERS};
    use crate::bus::local::LocalBus;
    use crate::clock::ManualClock;
    use crate::message::Message;
    use crate::scratch::{Scratch, on_each_database};

    const STREAMS: &[Stream] = &[USERS, KEYS];
    const PATIENCE: Duration = Duration::from_secs(20);
    /// Longer than any test: a relay that polls so seldom is one that wake-ups alone move.
    const NEVER: Duration = Duration::from_secs(3600);

    on_each_database! {
        changes_go_out_in_order_and_once,
        what_is_rolled_back_is_never_told,
        events_wait_for_a_bus_that_does_not_take_them,
        a_crash_before_the_mark_publishes_again_and_the_bus_takes_it_once,
        a_broker_that_lost_its_data_is_filled_again,
        a_broker_restored_from_a_backup_is_filled_again,
        what_a_broker_lost_is_missed_although_others_have_filled_its_place,
        published_rows_are_kept_until_they_are_pruned,
        a_commit_wakes_the_relay_and_it_stops_when_told,
    }

    mod rivals;

    struct Fixture {
        scratch: Arc<Scratch>,
        clock: ManualClock,
        database: Database,
    }

    impl Fixture {
        async fn new(kind: Kind) -> Self {
            let scratch = Arc::new(Scratch::new(kind));
            let database = scratch.open(&[]).await;
            Self { scratch, clock: ManualClock::at(1_000_000), database }
        }

        /// Another process on the same database.
        async fn again(&self) -> Self {
            let (scratch, clock) = (self.scratch.clone(), self.clock.clone());
            let database = scratch.open(&[]).await;
            Self { scratch, clock, database }
        }

        /// A bus in a file of its own, with its streams.
        async fn bus(&self, name: &str) -> Arc<LocalBus> {
            let bus = LocalBus::open(&self.scratch.file(name), Arc::new(self.clock.clone())).await.expect("a bus");
            bus.ensure(STREAMS, &[]).await.expect("streams");
            Arc::new(bus)
        }

        fn relay(&self, bus: &Arc<LocalBus>) -> Relay {
            let relay = Relay::new(self.database.clone(), bus.clone(), Arc::new(self.clock.clone()), STREAMS);
            Relay { poll: NEVER, ..relay }
        }

        /// A change with its event, committed.
        async fn change(&self, id: &str, subject: &str) -> Message {
            let mut transaction = self.database.begin().await.expect("a transaction");
            let mut message = conformance::message(id, subject);
            message.version = outbox::next_version(&mut transaction, &message.entity).await.expect("a version");
            outbox::add(&mut transaction, &message, self.clock.now()).await.expect("a row");
            self.database.commit(transaction).await.expect("a commit");
            message
        }
    }

    async fn kept(bus: &LocalBus) -> Vec<Message> {
        let messages = bus.read("USERS", 1, &["user.>"], 1000).await.expect("messages");
        messages.into_iter().map(|(_, message)| message).collect()
    }

    async fn changes_go_out_in_order_and_once(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let bus = fixture.bus("bus.db").await;
        let relay = fixture.relay(&bus);
        let mut written = Vec::new();
        for number in 0..600 {
            let subject = format!("user.u{}.updated", number % 7);
            written.push(fixture.change(&number.to_string(), &subject).await);
        }
        assert_eq!(written[599].version, 86);
        let mut published = 0;
        for expected in [256, 256, 88, 0] {
            let round = relay.round().await.expect("a round");
            assert_eq!((round.published, round.refilled), (expected, 0));
            published += round.published as i64;
            let (waiting, oldest) = outbox::backlog(&fixture.database).await.expect("a count");
            assert_eq!((waiting, oldest.is_some()), (600 - published, published < 600));
        }
        assert_eq!(kept(&bus).await, written);
    }

    async fn what_is_rolled_back_is_never_told(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let bus = fixture.bus("bus.db").await;
        let mut transaction = fixture.database.begin().await.expect("a transaction");
        let message = conformance::message("1", "user.a.created");
        outbox::next_version(&mut transaction, &message.entity).await.expect("a version");
        outbox::add(&mut transaction, &message, 1).await.expect("a row");
        drop(transaction);
        let next = fixture.change("2", "user.a.created").await;
        assert_eq!(next.version, 1);
        fixture.relay(&bus).round().await.expect("a round");
        assert_eq!(kept(&bus).await, [next]);
    }

    async fn events_wait_for_a_bus_that_does_not_take_them(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let first = fixture.change("1", "user.a.created").await;
        fixture.change("2", "nobody.keeps.this").await;
        fixture.change("3", "user.a.updated").await;
        let bus = fixture.bus("bus.db").await;
        let relay = fixture.relay(&bus);
        for _ in 0..2 {
            let refused = relay.round().await.expect_err("a refusal");
            assert!(matches!(refused, RelayError::Bus(BusError::Refused(_))), "{refused}");
            assert_eq!(kept(&bus).await, std::slice::from_ref(&first), "what follows must wait its turn");
        }
        assert_eq!(outbox::backlog(&fixture.database).await.expect("a count").0, 2);
    }

    async fn a_crash_before_the_mark_publishes_again_and_the_bus_takes_it_once(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let bus = fixture.bus("bus.db").await;
        let message = fixture.change("1", "user.a.created").await;
        // As far as the first process came.
        bus.publish(std::slice::from_ref(&message)).await;
        let round = fixture.relay(&bus).round().await.expect("a round");
        assert_eq!(round.published, 1);
        assert_eq!(kept(&bus).await, [message]);
    }

    async fn a_broker_that_lost_its_data_is_filled_again(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let bus = fixture.bus("bus.db").await;
        let expired = fixture.change("0", "user.old.created").await;
        fixture.relay(&bus).round().await.expect("a round");
        fixture.clock.advance(USERS.retention() + Duration::from_secs(1));
        let written = [fixture.change("1", "user.a.created").await, fixture.change("2", "user.b.created").await];
        fixture.change("3", "key.k.created").await;
        fixture.relay(&bus).round().await.expect("a round");
        assert_eq!(kept(&bus).await, written, "{expired:?} is too old");
        fixture.clock.advance(Duration::from_secs(5));
        let empty = fixture.bus("another.db").await;
        let round = fixture.relay(&empty).round().await.expect("a round");
        assert_eq!((round.refilled, round.published), (3, 3));
        assert_eq!(kept(&empty).await, written);
        assert_eq!(fixture.relay(&empty).round().await.expect("a round"), Round::default());
    }

    /// The same stream by its epoch, with less in it.
    async fn a_broker_restored_from_a_backup_is_filled_again(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let (bus, backup) = (fixture.bus("bus.db").await, fixture.bus("backup.db").await);
        let first = fixture.change("1", "user.a.created").await;
        fixture.relay(&bus).round().await.expect("a round");
        backup.publish(std::slice::from_ref(&first)).await;
        let second = fixture.change("2", "user.a.updated").await;
        fixture.relay(&bus).round().await.expect("a round");
        let round = fixture.relay(&backup).round().await.expect("a round");
        assert_eq!((round.refilled, round.published), (2, 2));
        assert_eq!(kept(&backup).await, [first, second]);
    }

    async fn what_a_broker_lost_is_missed_although_others_have_filled_its_place(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let (bus, backup) = (fixture.bus("bus.db").await, fixture.bus("backup.db").await);
        let first = fixture.change("1", "user.a.created").await;
        let lost = fixture.change("2", "user.a.updated").await;
        fixture.relay(&bus).round().await.expect("a round");
        let of_another = conformance::message("x", "user.z.created");
        assert!(backup.publish(&[first.clone(), of_another.clone()]).await.1.is_none());
        let relay = fixture.relay(&backup);
        assert_eq!(relay.round().await.expect("a round"), Round { published: 2, refilled: 2 });
        assert_eq!(relay.round().await.expect("a round"), Round::default());
        assert_eq!(kept(&backup).await, [first.clone(), of_another.clone(), lost.clone()]);
        // With something to publish at the same time.
        let other = fixture.bus("other.db").await;
        let again = [first, of_another.clone(), Message { event_id: "y".to_owned(), ..of_another }];
        assert!(other.publish(&again).await.1.is_none());
        let third = fixture.change("3", "user.a.updated").await;
        let relay = fixture.relay(&other);
        assert_eq!(relay.round().await.expect("a round"), Round { published: 0, refilled: 2 });
        assert_eq!(relay.round().await.expect("a round"), Round { published: 3, refilled: 0 });
        assert_eq!(kept(&other).await[3..], [third, lost]);
        // What retention has taken is not missed.
        fixture.clock.advance(USERS.retention() + Duration::from_secs(1));
        assert!(other.publish(&[conformance::message("z", "user.z.updated")]).await.1.is_none());
        assert_eq!(relay.round().await.expect("a round"), Round::default());
    }

    async fn published_rows_are_kept_until_they_are_pruned(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let bus = fixture.bus("bus.db").await;
        for id in ["1", "2", "3"] {
            fixture.change(id, "user.a.updated").await;
        }
        fixture.relay(&bus).round().await.expect("a round");
        fixture.change("4", "user.a.updated").await;
        let now = fixture.clock.now();
        assert_eq!(outbox::prune(&fixture.database, USERS.subjects[0], now, 10).await.expect("a count"), 0);
        assert_eq!(outbox::prune(&fixture.database, USERS.subjects[0], now + 1, 2).await.expect("a count"), 2);
        assert_eq!(outbox::prune(&fixture.database, KEYS.subjects[0], now + 1, 10).await.expect("a count"), 0);
        assert_eq!(outbox::prune(&fixture.database, USERS.subjects[0], now + 1, 10).await.expect("a count"), 1);
        assert_eq!(outbox::backlog(&fixture.database).await.expect("a count").0, 1);
    }

    async fn a_commit_wakes_the_relay_and_it_stops_when_told(kind: Kind) {
        let fixture = Fixture::new(kind).await;
        let bus = fixture.bus("bus.db").await;
        let stop = CancellationToken::new();
        let running = tokio::spawn(fixture.relay(&bus).run(stop.clone()));
        for (seen, id) in ["1", "2", "3"].into_iter().enumerate() {
            fixture.change(id, "user.a.updated").await;
            while bus.stream("USERS").await.expect("a state").last_seq <= seen as u64 {
                bus.arrival("USERS", seen as u64, PATIENCE).await.expect("an arrival");
            }
        }
        stop.cancel();
        tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
    }
}
