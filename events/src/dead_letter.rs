//! Events that a consumer gave up on, kept in its service's own database until somebody decides.

use sqlx::{AnyConnection, Row};

use crate::bus::Delivery;
use crate::clock::Micros;
use crate::database::Database;
use crate::message::Message;
use crate::outbox;

/// One event that one consumer gave up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: i64,
    pub consumer: String,
    pub message: Message,
    pub error: String,
    pub attempts: i64,
    pub dead_at: Micros,
}

/// Buries a delivery; one that was dead before is dead again.
pub async fn add(
    connection: &mut AnyConnection,
    (stream, consumer): (&str, &str),
    delivery: &Delivery,
    error: &str,
    attempts: i64,
    now: Micros,
) -> sqlx::Result<()> {
    let message = &delivery.message;
    let insert = sqlx::query(
        "INSERT INTO dead_letters (consumer, event_id, stream, stream_seq, subject, entity, version, content_type, \
         payload, correlation_id, trace_parent, error, attempts, first_at, dead_at, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, 'dead') \
         ON CONFLICT (consumer, event_id) DO UPDATE SET error = excluded.error, \
         attempts = dead_letters.attempts + excluded.attempts, dead_at = excluded.dead_at, state = 'dead'",
    );
    let insert = insert.bind(consumer).bind(&message.event_id).bind(stream).bind(delivery.seq as i64);
    let insert = insert.bind(&message.subject).bind(&message.entity).bind(message.version).bind(&message.content_type);
    let insert = insert.bind(message.payload.to_vec()).bind(&message.correlation_id).bind(&message.trace_parent);
    insert.bind(error).bind(attempts).bind(now).execute(connection).await?;
    Ok(())
}

/// Those in `state` with an id above `after`, of one consumer or of all, the oldest first, `most` at most.
pub async fn list(
    database: &Database,
    state: &str,
    consumer: Option<&str>,
    after: i64,
    most: u32,
) -> sqlx::Result<Vec<DeadLetter>> {
    let select = sqlx::query(
        "SELECT id, consumer, event_id, subject, entity, version, content_type, payload, correlation_id, trace_parent, \
         error, attempts, dead_at FROM dead_letters \
         WHERE state = $1 AND ($2 = '' OR consumer = $2) AND id > $3 ORDER BY id LIMIT $4",
    );
    let select = select.bind(state).bind(consumer.unwrap_or_default()).bind(after).bind(i64::from(most));
    let rows = select.fetch_all(database.reader()).await?;
    let letters = rows.iter().map(|row| {
        Ok(DeadLetter {
            id: row.try_get("id")?,
            consumer: row.try_get("consumer")?,
            message: outbox::message(row)?,
            error: row.try_get("error")?,
            attempts: row.try_get("attempts")?,
            dead_at: row.try_get("dead_at")?,
        })
    });
    letters.collect()
}

/// Has its one consumer try a dead letter again. False if there is none with this id.
pub async fn requeue(database: &Database, id: i64) -> sqlx::Result<bool> {
    change(database, id, "requeued").await
}

/// Gives a dead letter up for good; it stays for the record. False if there is none with this id.
pub async fn discard(database: &Database, id: i64) -> sqlx::Result<bool> {
    change(database, id, "discarded").await
}

async fn change(database: &Database, id: i64, state: &str) -> sqlx::Result<bool> {
    let mut transaction = database.begin().await?;
    let update = sqlx::query("UPDATE dead_letters SET state = $1 WHERE id = $2 AND state = 'dead'");
    let changed = update.bind(state).bind(id).execute(&mut *transaction).await?.rows_affected() > 0;
    database.commit(transaction).await?;
    Ok(changed)
}

/// The consumer has handled a requeued letter.
pub(crate) async fn handled(connection: &mut AnyConnection, id: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE dead_letters SET state = 'handled' WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}
