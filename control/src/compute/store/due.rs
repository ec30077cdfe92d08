//! Which containers the reconciler has to see to.

use edd_events::clock::Micros;
use edd_proto::{ContainerId, UserId};
use sqlx::{Row, query, query_scalar};

use super::{Connection, broken, parsed};

/// Containers that are due at `now`, the longest waiting first. One that seems to wait until after `latest` was put off
/// by a clock that was set back since.
pub async fn list(
    connection: impl Connection<'_>,
    now: Micros,
    latest: Micros,
    most: u32,
) -> sqlx::Result<Vec<ContainerId>> {
    let statement = "SELECT id FROM containers WHERE due_at <= $1 OR due_at > $2 ORDER BY due_at, id LIMIT $3";
    let select = query_scalar(statement).bind(now).bind(latest).bind(i64::from(most));
    let ids: Vec<String> = select.fetch_all(connection).await?;
    ids.iter().map(|id| id.parse().map_err(|error| broken("id", error))).collect()
}

/// When the next one is due after `now`.
pub async fn next(connection: impl Connection<'_>, now: Micros) -> sqlx::Result<Option<Micros>> {
    let statement = "SELECT due_at FROM containers WHERE due_at > $1 ORDER BY due_at LIMIT 1";
    query_scalar(statement).bind(now).fetch_optional(connection).await
}

/// Has a container seen to, unless that is to be done anyway. Whether it was not.
pub async fn mark(connection: impl Connection<'_>, id: ContainerId, now: Micros) -> sqlx::Result<bool> {
    let update = query("UPDATE containers SET due_at = $1 WHERE id = $2 AND due_at IS NULL");
    Ok(update.bind(now).bind(id.as_str()).execute(connection).await?.rows_affected() > 0)
}

/// Notes that a container is being made or started, for its owner to see. Whether that is news.
pub async fn begin(connection: impl Connection<'_>, id: ContainerId) -> sqlx::Result<bool> {
    let update =
        query("UPDATE containers SET is_starting = 1 WHERE id = $1 AND is_starting = 0 AND deleted_at IS NULL");
    Ok(update.bind(id.as_str()).execute(connection).await?.rows_affected() > 0)
}

/// How long containers are left alone, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Those that allow more were not watched for so long.
    pub watched: Micros,
    /// After a report of use, whatever they allow.
    pub report_holds: Micros,
}

/// Wants containers asleep that run and were not used for longer than they allow. Whose they are.
pub async fn put_idle_to_sleep(
    connection: impl Connection<'_>,
    now: Micros,
    patience: Patience,
    most: u32,
) -> sqlx::Result<Vec<UserId>> {
    let statement = "UPDATE containers SET wanted = 'idle', generation = generation + 1, attempts = 0, due_at = $1, \
                     correlation_id = '', trace_parent = '' \
                     WHERE id IN (SELECT id FROM containers WHERE deleted_at IS NULL AND wanted = 'running' \
                     AND status = $2 AND idle_timeout_s > 0 AND idle_timeout_s * 1000000 <= $1 - last_active_at \
                     AND idle_timeout_s * 1000000 <= $3 AND $4 <= $1 - last_active_at ORDER BY id LIMIT $5) \
                     AND wanted = 'running' RETURNING user_id";
    let running = i64::from(edd_proto::compute::ContainerStatus::Running as i32);
    let update = query(statement).bind(now).bind(running).bind(patience.watched).bind(patience.report_holds);
    update.bind(i64::from(most)).fetch_all(connection).await?.iter().map(|row| parsed(row, "user_id")).collect()
}

/// A container as far as a comparison with the platform needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub id: ContainerId,
    pub is_deleted: bool,
    pub is_due: bool,
}

/// Which of `ids` the database has.
pub async fn known(connection: impl Connection<'_>, ids: &[ContainerId]) -> sqlx::Result<Vec<Known>> {
    let places: Vec<String> = (1..=ids.len()).map(|number| format!("${number}")).collect();
    let statement = format!("SELECT id, deleted_at, due_at FROM containers WHERE id IN ({})", places.join(", "));
    let select = ids.iter().fold(query(sqlx::AssertSqlSafe(statement)), |select, id| select.bind(id.to_string()));
    let rows = select.fetch_all(connection).await?;
    let read = |row: &sqlx::any::AnyRow| {
        Ok(Known {
            id: parsed(row, "id")?,
            is_deleted: row.try_get::<Option<i64>, _>("deleted_at")?.is_some(),
            is_due: row.try_get::<Option<i64>, _>("due_at")?.is_some(),
        })
    };
    rows.iter().map(read).collect()
}
