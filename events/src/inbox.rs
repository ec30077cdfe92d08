//! Which events had their effect already: noted in the transaction of the effect.

use sqlx::AnyConnection;

use crate::clock::Micros;
use crate::database::Database;

/// Notes that `consumer` is done with an event. False if it was before.
pub(crate) async fn note(
    connection: &mut AnyConnection,
    consumer: &str,
    event_id: &str,
    now: Micros,
) -> sqlx::Result<bool> {
    let insert =
        sqlx::query("INSERT INTO inbox (consumer, event_id, handled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");
    let insert = insert.bind(consumer).bind(event_id).bind(now);
    Ok(insert.execute(connection).await?.rows_affected() > 0)
}

/// Removes at most `most` rows that were noted before `before`: what no stream keeps any more comes no second time.
/// How many were removed.
pub async fn prune(database: &Database, before: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM inbox WHERE (consumer, event_id) IN \
                     (SELECT consumer, event_id FROM inbox WHERE handled_at < $1 ORDER BY handled_at LIMIT $2)";
    let delete = sqlx::query(statement).bind(before).bind(i64::from(most));
    Ok(delete.execute(database.writer()).await?.rows_affected())
}
