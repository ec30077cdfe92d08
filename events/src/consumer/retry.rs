//! Events that wait in the database for another try, in their entity's order.

use edd_proto::Consumer as Spec;
use sqlx::{AnyConnection, Row};

use crate::clock::Micros;
use crate::database::Database;
use crate::message::Message;
use crate::outbox;

/// An event that waits.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    pub id: i64,
    pub stream_seq: u64,
    pub message: Message,
    /// Failed tries; 0 for one that waited for another.
    pub attempts: i64,
    pub first_at: Micros,
    pub due_at: Micros,
}

/// Whether an earlier event of the same entity waits, or this very one.
pub(super) async fn holds_up(connection: &mut AnyConnection, spec: &Spec, message: &Message) -> sqlx::Result<bool> {
    let select = sqlx::query_scalar::<_, i64>(
        "SELECT id FROM retries WHERE consumer = $1 AND stream = $2 AND entity = $3 AND version <= $4 LIMIT 1",
    );
    let select = select.bind(spec.name).bind(spec.stream.name).bind(&message.entity).bind(message.version);
    Ok(select.fetch_optional(connection).await?.is_some())
}

/// Whether any event waits.
pub(super) async fn any(connection: &mut AnyConnection, spec: &Spec) -> sqlx::Result<bool> {
    let select = sqlx::query_scalar::<_, i64>("SELECT id FROM retries WHERE consumer = $1 AND stream = $2 LIMIT 1");
    let select = select.bind(spec.name).bind(spec.stream.name);
    Ok(select.fetch_optional(connection).await?.is_some())
}

/// Has an event wait; one that does already waits until `due_at` instead.
pub(super) async fn put(connection: &mut AnyConnection, spec: &Spec, retry: &Retry) -> sqlx::Result<()> {
    let message = &retry.message;
    let insert = sqlx::query(
        "INSERT INTO retries (consumer, event_id, stream, stream_seq, subject, entity, version, content_type, payload, \
         correlation_id, trace_parent, attempts, first_at, due_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (consumer, event_id) \
         DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at WHERE excluded.attempts > 0",
    );
    let insert = insert.bind(spec.name).bind(&message.event_id).bind(spec.stream.name).bind(retry.stream_seq as i64);
    let insert = insert.bind(&message.subject).bind(&message.entity).bind(message.version).bind(&message.content_type);
    let insert = insert.bind(message.payload.to_vec()).bind(&message.correlation_id).bind(&message.trace_parent);
    insert.bind(retry.attempts).bind(retry.first_at).bind(retry.due_at).execute(connection).await?;
    Ok(())
}

/// The first of every entity's waiting events, those that are due first; `most` at most.
pub(super) async fn heads(database: &Database, spec: &Spec, most: usize) -> sqlx::Result<Vec<Retry>> {
    let select = sqlx::query(
        "SELECT id, event_id, stream_seq, subject, entity, version, content_type, payload, correlation_id, \
         trace_parent, attempts, first_at, due_at FROM retries r WHERE consumer = $1 AND stream = $2 AND NOT EXISTS \
         (SELECT 1 FROM retries e WHERE e.consumer = r.consumer AND e.stream = r.stream AND e.entity = r.entity \
         AND (e.version < r.version OR (e.version = r.version AND e.id < r.id))) ORDER BY due_at, id LIMIT $3",
    );
    let rows = select.bind(spec.name).bind(spec.stream.name).bind(most as i64).fetch_all(database.reader()).await?;
    let retries = rows.iter().map(|row| {
        Ok(Retry {
            id: row.try_get("id")?,
            stream_seq: row.try_get::<i64, _>("stream_seq")? as u64,
            message: outbox::message(row)?,
            attempts: row.try_get("attempts")?,
            first_at: row.try_get("first_at")?,
            due_at: row.try_get("due_at")?,
        })
    });
    retries.collect()
}

/// The lowest sequence of the stream that an event of the consumer waits with.
pub(super) async fn lowest_seq(database: &Database, spec: &Spec) -> sqlx::Result<Option<u64>> {
    let select =
        sqlx::query_scalar::<_, Option<i64>>("SELECT min(stream_seq) FROM retries WHERE consumer = $1 AND stream = $2");
    let lowest = select.bind(spec.name).bind(spec.stream.name).fetch_one(database.reader()).await?;
    Ok(lowest.map(|seq| seq as u64))
}

/// Puts a due event off, unless another replica of the service was quicker: then false.
pub(super) async fn put_off(database: &Database, retry: &mut Retry, until: Micros) -> sqlx::Result<bool> {
    let update = sqlx::query("UPDATE retries SET due_at = $1 WHERE id = $2 AND due_at = $3");
    let update = update.bind(until).bind(retry.id).bind(retry.due_at).execute(database.writer()).await?;
    retry.due_at = until;
    Ok(update.rows_affected() > 0)
}

/// Takes an event, for as long as the transaction lasts, and for good if it is committed. False if it is gone.
pub(super) async fn take(connection: &mut AnyConnection, id: i64) -> sqlx::Result<bool> {
    let delete = sqlx::query("DELETE FROM retries WHERE id = $1").bind(id);
    Ok(delete.execute(connection).await?.rows_affected() > 0)
}
