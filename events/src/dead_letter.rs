//! Events that a consumer gave up on, kept in its service's own database until somebody decides, and told to others on
//! `dlq.<consumer>.<subject>`.

use edd_proto::{MAX_MESSAGE_BYTES, Subject};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::clock::Micros;
use crate::database::Database;
use crate::message::{Headers, Message};
use crate::{event_log, outbox};

/// Headers of a dead letter on the bus.
pub mod header {
    /// The stream that the event came from.
    pub const STREAM: &str = "Edd-Dead-Stream";
    /// Its sequence number there.
    pub const SEQUENCE: &str = "Edd-Dead-Sequence";
    /// The event's own id; the message's is that of the letter.
    pub const EVENT_ID: &str = "Edd-Dead-Event-Id";
    pub const ERROR: &str = "Edd-Dead-Error";
    /// How often it was tried.
    pub const ATTEMPTS: &str = "Edd-Dead-Attempts";
}

/// Longest error that is kept, bytes.
const MAX_ERROR_BYTES: usize = 2048;
/// Letters that change their state in one statement.
const CHANGE_ROWS: u32 = 500;

const COLUMNS: &str = "id, consumer, event_id, stream, stream_seq, subject, entity, version, content_type, payload, \
                       correlation_id, trace_parent, error, attempts, first_at, dead_at, state";

/// What has been decided about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    Dead,
    /// Its consumer is to try it again.
    Requeued,
    /// Its consumer tried again and did it.
    Handled,
    /// It is given up for good.
    Discarded,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Dead, Self::Requeued, Self::Handled, Self::Discarded];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Requeued => "requeued",
            Self::Handled => "handled",
            Self::Discarded => "discarded",
        }
    }

    fn of(name: &str) -> sqlx::Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| sqlx::Error::Decode(format!("dead_letters: `{name}` is no state").into()))
    }
}

/// One event that one consumer gave up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: i64,
    pub consumer: String,
    /// Where the event is, or was, kept.
    pub stream: String,
    pub stream_seq: u64,
    pub message: Message,
    pub error: String,
    pub attempts: i64,
    /// When it failed first, and when it was given up.
    pub first_at: Micros,
    pub dead_at: Micros,
    pub state: State,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    #[error("there is no dead letter {0}")]
    Unknown(i64),
    #[error("dead letter {id} is {}, and only one that is dead can be requeued or discarded", state.name())]
    Decided { id: i64, state: State },
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Which letters, of those in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'f> {
    pub consumer: Option<&'f str>,
    /// A consumer's name is that of its service, which may have one on several streams.
    pub stream: Option<&'f str>,
}

/// Why and where an event died.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death<'d> {
    pub stream: &'d str,
    pub stream_seq: u64,
    pub consumer: &'d str,
    pub error: &'d str,
    /// Tries since it was last requeued, if it was.
    pub attempts: i64,
    pub first_at: Micros,
    pub now: Micros,
}

/// Buries an event: letter, audit trail, and what the bus is told; one that was dead before is dead again.
pub(crate) async fn bury(connection: &mut AnyConnection, message: &Message, death: &Death<'_>) -> sqlx::Result<()> {
    let error = &death.error[..death.error.floor_char_boundary(MAX_ERROR_BYTES)];
    let insert = sqlx::query_scalar::<_, i64>(
        "INSERT INTO dead_letters (consumer, event_id, stream, stream_seq, subject, entity, version, content_type, \
         payload, correlation_id, trace_parent, error, attempts, first_at, dead_at, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'dead') \
         ON CONFLICT (consumer, event_id) DO UPDATE SET error = excluded.error, dead_at = excluded.dead_at, \
         attempts = dead_letters.attempts + excluded.attempts, state = 'dead' RETURNING attempts",
    );
    let insert = insert.bind(death.consumer).bind(&message.event_id).bind(death.stream).bind(death.stream_seq as i64);
    let insert = insert.bind(&message.subject).bind(&message.entity).bind(message.version).bind(&message.content_type);
    let insert = insert.bind(message.payload.to_vec()).bind(&message.correlation_id).bind(&message.trace_parent);
    let insert = insert.bind(error).bind(death.attempts).bind(death.first_at).bind(death.now);
    let attempts = insert.fetch_one(&mut *connection).await?;
    event_log::failed(connection, death.consumer, message, error, death.now).await?;
    match notice(message, &Death { attempts, error, ..*death }) {
        Some(notice) => outbox::send(connection, &notice, death.now).await,
        None => {
            let (event_id, subject) = (&message.event_id, &message.subject);
            tracing::warn!(event_id, subject, "a dead letter stays in the database alone: the bus would not take it");
            Ok(())
        }
    }
}

/// The letter as the bus keeps it; none if the bus would refuse it, which would hold up everything behind it.
fn notice(message: &Message, death: &Death<'_>) -> Option<Message> {
    let subject = Subject::new(message.subject.as_str()).ok()?.dead_letter(death.consumer).ok()?;
    if message.payload.len() > MAX_MESSAGE_BYTES {
        return None;
    }
    let mut headers = Headers::default();
    headers.set(header::STREAM, death.stream);
    headers.set(header::SEQUENCE, &death.stream_seq.to_string());
    headers.set(header::EVENT_ID, &message.event_id);
    headers.set(header::ERROR, death.error);
    headers.set(header::ATTEMPTS, &death.attempts.to_string());
    Some(Message {
        // An id of its own for every death, and the same one however often it is sent.
        event_id: format!("{}.{}.{}", message.event_id, death.consumer, death.attempts),
        subject: subject.to_string(),
        entity: format!("dlq.{}.{}", death.consumer, message.entity),
        headers,
        ..message.clone()
    })
}

/// Those in `state` with an id above `after`, the oldest first, `most` at most.
pub async fn list(
    database: &Database,
    state: State,
    filter: Filter<'_>,
    after: i64,
    most: u32,
) -> sqlx::Result<Vec<DeadLetter>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM dead_letters WHERE state = $1 AND ($2 = '' OR consumer = $2) \
         AND ($3 = '' OR stream = $3) AND id > $4 ORDER BY id LIMIT $5"
    );
    // Only our own column names vary.
    let select = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(state.name());
    let select = select.bind(filter.consumer.unwrap_or_default()).bind(filter.stream.unwrap_or_default());
    let rows = select.bind(after).bind(i64::from(most)).fetch_all(database.reader()).await?;
    rows.iter().map(letter).collect()
}

/// How many are dead and undecided, of one consumer.
pub async fn count(database: &Database, consumer: &str) -> sqlx::Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE state = 'dead' AND consumer = $1");
    count.bind(consumer).fetch_one(database.reader()).await
}

/// The letter with this id, in whatever state.
pub async fn find(database: &Database, id: i64) -> sqlx::Result<Option<DeadLetter>> {
    let statement = format!("SELECT {COLUMNS} FROM dead_letters WHERE id = $1");
    // Only our own column names vary.
    let select = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id);
    select.fetch_optional(database.reader()).await?.as_ref().map(letter).transpose()
}

/// Has its one consumer try a dead letter again, once.
///
/// # Errors
/// There is none with this id, or something else was decided about it.
pub async fn requeue(database: &Database, id: i64) -> Result<(), DecisionError> {
    decide(database, id, State::Requeued).await
}

/// Gives a dead letter up for good; it stays for the record.
///
/// # Errors
/// As of [`requeue`].
pub async fn discard(database: &Database, id: i64) -> Result<(), DecisionError> {
    decide(database, id, State::Discarded).await
}

/// Has `consumer` try all that are dead now again. How many those are.
pub async fn requeue_all(database: &Database, consumer: &str) -> sqlx::Result<u64> {
    let last = sqlx::query_scalar::<_, i64>("SELECT coalesce(max(id), 0) FROM dead_letters WHERE consumer = $1");
    let last = last.bind(consumer).fetch_one(database.reader()).await?;
    let statement = "UPDATE dead_letters SET state = 'requeued' WHERE state = 'dead' AND id IN (SELECT id FROM dead_letters \
                     WHERE state = 'dead' AND consumer = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4) RETURNING id";
    // By a cursor: what its consumer has tried and buried again meanwhile is not requeued twice.
    let (mut all, mut after) = (0, 0);
    loop {
        let mut transaction = database.begin().await?;
        let update = sqlx::query_scalar::<_, i64>(statement).bind(consumer).bind(after).bind(last);
        let changed = update.bind(i64::from(CHANGE_ROWS)).fetch_all(&mut *transaction).await?;
        database.commit(transaction).await?;
        let Some(furthest) = changed.iter().max() else { return Ok(all) };
        after = *furthest;
        all += changed.len() as u64;
    }
}

async fn decide(database: &Database, id: i64, state: State) -> Result<(), DecisionError> {
    let mut transaction = database.begin().await?;
    let update = sqlx::query("UPDATE dead_letters SET state = $1 WHERE id = $2 AND state = 'dead'");
    let changed = update.bind(state.name()).bind(id).execute(&mut *transaction).await?.rows_affected() > 0;
    database.commit(transaction).await?;
    if changed {
        return Ok(());
    }
    match find(database, id).await? {
        Some(letter) => Err(DecisionError::Decided { id, state: letter.state }),
        None => Err(DecisionError::Unknown(id)),
    }
}

/// Takes a requeued letter, for as long as the transaction lasts, and for good if it is committed. False if it is no
/// longer requeued.
pub(crate) async fn take(connection: &mut AnyConnection, id: i64) -> sqlx::Result<bool> {
    let update = sqlx::query("UPDATE dead_letters SET state = 'handled' WHERE id = $1 AND state = 'requeued'");
    Ok(update.bind(id).execute(connection).await?.rows_affected() > 0)
}

/// Removes at most `most` letters that were handled or discarded, and died before `before`. How many were removed.
pub async fn prune(database: &Database, before: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters \
                     WHERE state IN ('handled', 'discarded') AND dead_at < $1 ORDER BY id LIMIT $2)";
    let delete = sqlx::query(statement).bind(before).bind(i64::from(most));
    Ok(delete.execute(database.writer()).await?.rows_affected())
}

fn letter(row: &AnyRow) -> sqlx::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.try_get("id")?,
        consumer: row.try_get("consumer")?,
        stream: row.try_get("stream")?,
        stream_seq: row.try_get::<i64, _>("stream_seq")? as u64,
        message: outbox::message(row)?,
        error: row.try_get("error")?,
        attempts: row.try_get("attempts")?,
        first_at: row.try_get("first_at")?,
        dead_at: row.try_get("dead_at")?,
        state: State::of(row.try_get("state")?)?,
    })
}
