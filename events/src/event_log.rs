//! The audit trail: every event that this service published or handled, for as long as somebody may ask.
//!
//! A row is written in the transaction that adds an event to the outbox, and in the one in which a consumer is done with
//! an event. Whether the bus has it yet is not written again here: the outbox says so.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use edd_proto::covers;

use crate::clock::Micros;
use crate::database::Database;
use crate::message::Message;
use crate::{outbox, statement};

/// Rows looked at in one go.
const SCAN_ROWS: u32 = 512;
/// Row numbers that [`Tail`] looks at again: in PostgreSQL a lower one may be committed after a higher one.
const OVERLAP_ROWS: i64 = 256;
/// Longest error that is kept, bytes.
const MAX_ERROR_BYTES: usize = 2048;

/// How far an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Committed; the bus has not taken it yet.
    Pending,
    /// The bus has taken it.
    Published,
    /// A consumer of this service has handled it.
    Completed,
    /// A consumer of this service gave up on it; it is among the dead letters.
    Failed,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Published, Self::Completed, Self::Failed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Published => "published",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    fn of(name: &str) -> sqlx::Result<Self> {
        let found = Self::ALL.into_iter().find(|status| status.name() == name);
        found.ok_or_else(|| sqlx::Error::Decode(format!("event_log: `{name}` is no status").into()))
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Grows with every row.
    pub id: i64,
    /// Without its `trace_parent`: the trace's id is in the payload.
    pub message: Message,
    /// When the row was written.
    pub at: Micros,
    pub status: Status,
    /// The consumer that is done with it; none for an event of this service's own.
    pub processed_by: Option<String>,
    pub processed_at: Option<Micros>,
    pub error: Option<String>,
}

/// What to look for; all that is set has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub event_id: Option<String>,
    pub entity: Option<String>,
    pub correlation_id: Option<String>,
    /// As of a consumer: `*` is one token, `>` the rest.
    pub subject: Option<String>,
    pub since: Option<Micros>,
    pub before: Option<Micros>,
    pub status: Option<Status>,
}

/// Notes that `message` was added to the outbox.
pub(crate) async fn added(connection: &mut AnyConnection, message: &Message, now: Micros) -> sqlx::Result<()> {
    let insert = "INSERT INTO event_log (event_id, subject, entity, version, content_type, payload, correlation_id, \
                  published_at, processed_by, status) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', 'published')";
    bind(sqlx::query(insert), message).bind(now).execute(connection).await?;
    Ok(())
}

/// Notes that `consumer` has handled `messages`, none of which is among them twice.
pub(crate) async fn completed(
    connection: &mut AnyConnection,
    consumer: &str,
    messages: &[&Message],
    now: Micros,
) -> sqlx::Result<()> {
    done(connection, consumer, messages, Status::Completed, None, now).await
}

/// Notes that `consumer` has given `message` up.
pub(crate) async fn failed(
    connection: &mut AnyConnection,
    consumer: &str,
    message: &Message,
    error: &str,
    now: Micros,
) -> sqlx::Result<()> {
    let error = &error[..error.floor_char_boundary(MAX_ERROR_BYTES)];
    done(connection, consumer, &[message], Status::Failed, Some(error), now).await
}

async fn done(
    connection: &mut AnyConnection,
    consumer: &str,
    messages: &[&Message],
    status: Status,
    error: Option<&str>,
    now: Micros,
) -> sqlx::Result<()> {
    for messages in statement::portions(messages) {
        // A requeued dead letter is done with a second time.
        let insert = format!(
            "INSERT INTO event_log (event_id, subject, entity, version, content_type, payload, correlation_id, \
             published_at, processed_at, processed_by, status, error_message) VALUES {} \
             ON CONFLICT (event_id, processed_by) DO UPDATE SET processed_at = excluded.processed_at, \
             status = excluded.status, error_message = excluded.error_message",
            statement::values(5, 7, messages.len(), ", $1, $1, $2, $3, $4")
        );
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(now).bind(consumer.to_owned()).bind(status.name());
        let insert = insert.bind(error.map(str::to_owned));
        let insert = messages.iter().fold(insert, |insert, message| bind(insert, message));
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

type AnyQuery = Query<'static, Any, AnyArguments>;

fn bind(query: AnyQuery, message: &Message) -> AnyQuery {
    let query = query.bind(message.event_id.clone()).bind(message.subject.clone()).bind(message.entity.clone());
    let query = query.bind(message.version).bind(message.content_type.clone()).bind(message.payload.to_vec());
    query.bind(message.correlation_id.clone())
}

/// At most `most` rows with an id below `below`, or any, the newest first.
pub async fn newest(database: &Database, filter: &Filter, below: Option<i64>, most: usize) -> sqlx::Result<Vec<Entry>> {
    collect(database, filter, Order::NewestFirst, below.unwrap_or(i64::MAX), most).await
}

/// At most `most` rows with an id above `above`, the oldest first.
pub async fn after(database: &Database, filter: &Filter, above: i64, most: usize) -> sqlx::Result<Vec<Entry>> {
    collect(database, filter, Order::OldestFirst, above, most).await
}

/// Removes at most `most` rows that were written before `before`. How many were removed.
pub async fn prune(database: &Database, before: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM event_log WHERE id IN \
                     (SELECT id FROM event_log WHERE published_at < $1 ORDER BY published_at LIMIT $2)";
    let delete = sqlx::query(statement).bind(before).bind(i64::from(most));
    Ok(delete.execute(database.writer()).await?.rows_affected())
}

/// Follows the trail: each row once, in about the order in which they were written.
#[derive(Debug)]
pub struct Tail {
    filter: Filter,
    last: i64,
    /// Those within the overlap, in order.
    seen: Vec<i64>,
}

impl Tail {
    /// From now on, or from `filter.since` on if it is set.
    pub async fn start(database: &Database, filter: Filter) -> sqlx::Result<Self> {
        let last = match filter.since {
            Some(since) => {
                let first = "SELECT coalesce(min(id), 1) - 1 FROM event_log WHERE published_at >= $1";
                sqlx::query_scalar::<_, i64>(first).bind(since).fetch_one(database.reader()).await?
            }
            None => last_id(database).await?,
        };
        let overlap = after(database, &filter, last - OVERLAP_ROWS, OVERLAP_ROWS as usize).await?;
        let seen = overlap.iter().map(|entry| entry.id).filter(|id| *id <= last).collect();
        Ok(Self { filter, last, seen })
    }

    /// What has come since the last call; not all of it if that is much.
    pub async fn next(&mut self, database: &Database) -> sqlx::Result<Vec<Entry>> {
        let most = OVERLAP_ROWS as usize + SCAN_ROWS as usize;
        let end = last_id(database).await?;
        let mut entries = after(database, &self.filter, self.last - OVERLAP_ROWS, most).await?;
        // Further on only by what was looked at.
        let end = if entries.len() < most { end } else { entries[most - 1].id };
        entries.retain(|entry| self.seen.binary_search(&entry.id).is_err());
        self.seen.extend(entries.iter().map(|entry| entry.id));
        self.seen.sort_unstable();
        self.last = self.last.max(end);
        self.seen.retain(|id| *id > self.last - OVERLAP_ROWS);
        Ok(entries)
    }
}

async fn last_id(database: &Database) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM event_log").fetch_one(database.reader()).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

async fn collect(
    database: &Database,
    filter: &Filter,
    order: Order,
    mut from: i64,
    most: usize,
) -> sqlx::Result<Vec<Entry>> {
    let mut found = Vec::new();
    while found.len() < most {
        // Without a subject every row is wanted.
        let rows_wanted = if filter.subject.is_some() { SCAN_ROWS as usize } else { most - found.len() };
        let size = rows_wanted.min(SCAN_ROWS as usize);
        let rows = page(database, filter, order, from, size).await?;
        let is_last = rows.len() < size;
        for row in &rows {
            let entry = entry(row)?;
            from = entry.id;
            let wanted = filter.subject.as_ref().is_none_or(|subject| covers(subject, &entry.message.subject));
            if wanted && found.len() < most {
                found.push(entry);
            }
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// Rows that may be wanted: SQL narrows a subject down as far as `LIKE` does it.
async fn page(database: &Database, filter: &Filter, order: Order, from: i64, size: usize) -> sqlx::Result<Vec<AnyRow>> {
    let (compare, direction) = match order {
        Order::NewestFirst => ("<", "DESC"),
        Order::OldestFirst => (">", "ASC"),
    };
    // Every placeholder stands for a text or for a number, so that the two are bound by turns.
    let mut texts: Vec<String> = Vec::new();
    let mut conditions = String::new();
    let mut text = |condition: &str, value: Option<String>| {
        let Some(value) = value else { return };
        texts.push(value);
        conditions.push_str(&format!(" AND {} ${}", condition, texts.len() + 4));
    };
    text("l.event_id =", filter.event_id.clone());
    text("l.entity =", filter.entity.clone());
    text("l.correlation_id =", filter.correlation_id.clone());
    text("l.subject LIKE", filter.subject.as_deref().map(like));
    // `pending` and `published` are told apart by the outbox.
    conditions.push_str(match filter.status {
        None => "",
        Some(Status::Pending) => " AND l.status = 'published' AND o.seq IS NOT NULL AND o.published_at IS NULL",
        Some(Status::Published) => " AND l.status = 'published' AND (o.seq IS NULL OR o.published_at IS NOT NULL)",
        Some(Status::Completed) => " AND l.status = 'completed'",
        Some(Status::Failed) => " AND l.status = 'failed'",
    });
    let statement = format!(
        "SELECT l.id, l.event_id, l.subject, l.entity, l.version, l.content_type, l.payload, l.correlation_id, \
         '' AS trace_parent, l.published_at, l.processed_at, l.processed_by, l.error_message, \
         CASE WHEN l.status = 'published' AND o.seq IS NOT NULL AND o.published_at IS NULL \
         THEN 'pending' ELSE l.status END AS status \
         FROM event_log l LEFT JOIN outbox o ON o.event_id = l.event_id \
         WHERE l.id {compare} $1 AND l.published_at >= $2 AND l.published_at < $3{conditions} \
         ORDER BY l.id {direction} LIMIT $4"
    );
    // What varies in the statement is ours; what is asked for is bound.
    let mut query = sqlx::query(AssertSqlSafe(statement)).bind(from);
    query = query.bind(filter.since.unwrap_or(0)).bind(filter.before.unwrap_or(i64::MAX)).bind(size as i64);
    for text in texts {
        query = query.bind(text);
    }
    query.fetch_all(database.reader()).await
}

/// A pattern that matches all that `filter` covers, and some more.
fn like(filter: &str) -> String {
    filter.replace(['*', '>'], "%")
}

fn entry(row: &AnyRow) -> sqlx::Result<Entry> {
    let processed_by: String = row.try_get("processed_by")?;
    Ok(Entry {
        id: row.try_get("id")?,
        message: outbox::message(row)?,
        at: row.try_get("published_at")?,
        status: Status::of(row.try_get("status")?)?,
        processed_by: (!processed_by.is_empty()).then_some(processed_by),
        processed_at: row.try_get("processed_at")?,
        error: row.try_get("error_message")?,
    })
}

#[cfg(test)]
mod tests;
