//! Events, written in the transaction of the change that they tell of.

use bytes::Bytes;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use crate::clock::Micros;
use crate::database::Database;
use crate::message::{Headers, Message};
use crate::{event_log, statement};

/// The version that the next event of `entity` carries. Locks the entity until the transaction ends,
/// so that versions are committed in their own order.
pub async fn next_version(connection: &mut AnyConnection, entity: &str) -> sqlx::Result<i64> {
    let statement = "INSERT INTO entity_versions (entity, version) VALUES ($1, 1) \
                     ON CONFLICT (entity) DO UPDATE SET version = entity_versions.version + 1 RETURNING version";
    sqlx::query_scalar(statement).bind(entity).fetch_one(connection).await
}

/// Adds the event `message`, whose version [`next_version`] gave, to what the relay will publish, and to the audit trail.
pub async fn add(connection: &mut AnyConnection, message: &Message, now: Micros) -> sqlx::Result<()> {
    send(connection, message, now).await?;
    event_log::added(connection, message, now).await
}

/// Adds a message that is no event, such as a dead letter, to what the relay will publish.
pub(crate) async fn send(connection: &mut AnyConnection, message: &Message, now: Micros) -> sqlx::Result<()> {
    let statement = "INSERT INTO outbox \
                     (event_id, subject, entity, version, content_type, payload, correlation_id, trace_parent, \
                     headers, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let insert = sqlx::query(statement)
        .bind(&message.event_id)
        .bind(&message.subject)
        .bind(&message.entity)
        .bind(message.version)
        .bind(&message.content_type)
        .bind(message.payload.to_vec())
        .bind(&message.correlation_id)
        .bind(&message.trace_parent)
        .bind(message.headers.to_text())
        .bind(now);
    insert.execute(connection).await?;
    Ok(())
}

/// A row on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub seq: i64,
    pub message: Message,
}

/// Unpublished rows, the oldest first.
///
/// Found by what they lack and not by a cursor: in PostgreSQL a lower sequence number may be committed
/// after a higher one, and a cursor would have passed it. Per entity the order holds, because
/// [`next_version`] locks the entity until its row is committed.
pub async fn pending(database: &Database, most: u32) -> sqlx::Result<Vec<Pending>> {
    let statement = "SELECT seq, event_id, subject, entity, version, content_type, payload, correlation_id, trace_parent, \
                     headers FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT $1";
    let rows = sqlx::query(statement).bind(i64::from(most)).fetch_all(database.reader()).await?;
    rows.iter().map(|row| Ok(Pending { seq: row.try_get("seq")?, message: message_with_headers(row)? })).collect()
}

/// Notes that the bus has taken these rows.
pub async fn mark_published(connection: &mut AnyConnection, rows: &[Pending], now: Micros) -> sqlx::Result<()> {
    for rows in statement::portions(rows) {
        let seqs = statement::parameters(2, rows.len());
        let update = format!("UPDATE outbox SET published_at = $1 WHERE published_at IS NULL AND seq IN ({seqs})");
        let update = sqlx::query(AssertSqlSafe(update)).bind(now);
        let update = rows.iter().fold(update, |update, row| update.bind(row.seq));
        update.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Has everything for `subjects`, as a stream lists them, that was committed at `since` or later
/// published again. How many rows that is.
pub async fn publish_again(connection: &mut AnyConnection, subjects: &[&str], since: Micros) -> sqlx::Result<u64> {
    let statement = "UPDATE outbox SET published_at = NULL \
                     WHERE published_at IS NOT NULL AND created_at >= $1 AND (subject = $2 OR subject LIKE $3)";
    let mut rows = 0;
    for subject in subjects {
        let update = sqlx::query(statement).bind(since).bind(*subject).bind(like(subject));
        rows += update.execute(&mut *connection).await?.rows_affected();
    }
    Ok(rows)
}

/// Removes at most `most` rows for `subject`, as a stream lists it, that were published before `before`. How many were
/// removed.
pub async fn prune(database: &Database, subject: &str, before: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE published_at IS NOT NULL \
                     AND published_at < $1 AND (subject = $2 OR subject LIKE $3) ORDER BY published_at LIMIT $4)";
    let delete = sqlx::query(statement).bind(before).bind(subject).bind(like(subject)).bind(i64::from(most));
    Ok(delete.execute(database.writer()).await?.rows_affected())
}

/// Matches the subjects below one that ends in `>`, and nothing for any other. Tokens have no `%`; an underscore, which
/// matches any character, makes it match too much where another subject is as long and differs in nothing else.
fn like(subject: &str) -> String {
    subject.strip_suffix('>').map_or_else(String::new, |prefix| format!("{prefix}%"))
}

/// How many rows wait, and since when the oldest has.
pub async fn backlog(database: &Database) -> sqlx::Result<(i64, Option<Micros>)> {
    let statement = "SELECT count(*) AS waiting, min(created_at) AS oldest FROM outbox WHERE published_at IS NULL";
    let row = sqlx::query(statement).fetch_one(database.reader()).await?;
    Ok((row.try_get("waiting")?, row.try_get("oldest")?))
}

/// Reads the columns that every table of messages has.
pub(crate) fn message(row: &AnyRow) -> sqlx::Result<Message> {
    Ok(Message {
        event_id: row.try_get("event_id")?,
        subject: row.try_get("subject")?,
        entity: row.try_get("entity")?,
        version: row.try_get("version")?,
        content_type: row.try_get("content_type")?,
        payload: Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
        correlation_id: row.try_get("correlation_id")?,
        trace_parent: row.try_get("trace_parent")?,
        headers: Headers::default(),
    })
}

/// The same from a table that keeps headers too.
pub(crate) fn message_with_headers(row: &AnyRow) -> sqlx::Result<Message> {
    Ok(Message { headers: Headers::from_text(row.try_get("headers")?), ..message(row)? })
}
