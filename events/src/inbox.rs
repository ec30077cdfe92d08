//! Which events had their effect already: noted in the transaction of the effect.

use std::collections::BTreeSet;

use sqlx::{AnyConnection, AssertSqlSafe};

use crate::clock::Micros;
use crate::database::Database;
use crate::message::Message;
use crate::statement;

/// Notes that `consumer` is done with `messages`. The ids of those with which it was not before: as long as the
/// transaction lasts, nobody else is told so of them.
pub(crate) async fn note(
    connection: &mut AnyConnection,
    consumer: &str,
    messages: &[&Message],
    now: Micros,
) -> sqlx::Result<BTreeSet<String>> {
    let mut new = BTreeSet::new();
    for messages in statement::portions(messages) {
        let rows = statement::values(3, 1, messages.len(), ", $1, $2");
        let insert = format!(
            "INSERT INTO inbox (event_id, consumer, handled_at) VALUES {rows} ON CONFLICT DO NOTHING RETURNING event_id"
        );
        let insert = sqlx::query_scalar::<_, String>(AssertSqlSafe(insert)).bind(consumer).bind(now);
        let insert = messages.iter().fold(insert, |insert, message| insert.bind(&message.event_id));
        new.extend(insert.fetch_all(&mut *connection).await?);
    }
    Ok(new)
}

/// Takes back that `consumer` is done with the events of these ids.
pub(crate) async fn take_back(
    connection: &mut AnyConnection,
    consumer: &str,
    event_ids: &BTreeSet<String>,
) -> sqlx::Result<()> {
    let event_ids: Vec<_> = event_ids.iter().collect();
    for event_ids in statement::portions(&event_ids) {
        let ids = statement::parameters(2, event_ids.len());
        let delete = format!("DELETE FROM inbox WHERE consumer = $1 AND event_id IN ({ids})");
        let delete = sqlx::query(AssertSqlSafe(delete)).bind(consumer);
        let delete = event_ids.iter().fold(delete, |delete, event_id| delete.bind(event_id.as_str()));
        delete.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Removes at most `most` rows that were noted before `before`: what no stream keeps any more comes no second time.
/// How many were removed.
pub async fn prune(database: &Database, before: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM inbox WHERE (consumer, event_id) IN \
                     (SELECT consumer, event_id FROM inbox WHERE handled_at < $1 ORDER BY handled_at LIMIT $2)";
    let delete = sqlx::query(statement).bind(before).bind(i64::from(most));
    Ok(delete.execute(database.writer()).await?.rows_affected())
}
