//! Users who have something here.

use edd_events::clock::Micros;
use edd_proto::UserId;
use sqlx::{AnyConnection, Row, query, query_scalar};

use super::{Connection, broken, count, parsed};

/// Locks a user until the transaction ends, whether they were known or not. False: they are deleted.
pub async fn lock(connection: &mut AnyConnection, user: UserId) -> sqlx::Result<bool> {
    let upsert = "INSERT INTO owners (user_id, cleared) VALUES ($1, 0) \
                  ON CONFLICT (user_id) DO UPDATE SET cleared = owners.cleared RETURNING deleted_at";
    let at: Option<i64> = query_scalar(upsert).bind(user.as_str()).fetch_one(connection).await?;
    Ok(at.is_none())
}

/// The owner of a namespace, locked until the transaction ends.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    pub user: UserId,
    pub is_deleted: bool,
}

/// Locks the owner of a namespace; none if it has none, or is none.
pub async fn lock_of(connection: &mut AnyConnection, namespace: i64) -> sqlx::Result<Option<Locked>> {
    let update = "UPDATE owners SET cleared = cleared \
                  WHERE user_id = (SELECT user_id FROM namespaces WHERE number = $1) RETURNING user_id, deleted_at";
    let row = query(update).bind(namespace).fetch_optional(connection).await?;
    let read = |row: sqlx::any::AnyRow| {
        let is_deleted = row.try_get::<Option<i64>, _>("deleted_at")?.is_some();
        Ok(Locked { user: parsed(&row, "user_id")?, is_deleted })
    };
    row.map(read).transpose()
}

/// What a user has in all namespaces of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub bytes: u64,
    pub entries: u64,
}

pub async fn used(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<Used> {
    let statement = "SELECT CAST(COALESCE(SUM(used_bytes), 0) AS BIGINT) AS bytes, \
                     CAST(COALESCE(SUM(files + folders), 0) AS BIGINT) AS entries \
                     FROM namespaces WHERE user_id = $1 AND deleted_at IS NULL";
    let row = query(statement).bind(user.as_str()).fetch_one(connection).await?;
    Ok(Used { bytes: count(&row, "bytes")?, entries: count(&row, "entries")? })
}

/// Notes that a user is deleted, and whether all that was theirs was seen to.
pub async fn bury(connection: impl Connection<'_>, user: UserId, now: Micros, is_cleared: bool) -> sqlx::Result<()> {
    let upsert = "INSERT INTO owners (user_id, deleted_at, cleared) VALUES ($1, $2, $3) \
                  ON CONFLICT (user_id) DO UPDATE SET deleted_at = COALESCE(owners.deleted_at, excluded.deleted_at), \
                  cleared = excluded.cleared";
    query(upsert).bind(user.as_str()).bind(now).bind(i64::from(is_cleared)).execute(connection).await?;
    Ok(())
}

/// Deleted users of whom something is left.
pub async fn uncleared(connection: impl Connection<'_>, most: u32) -> sqlx::Result<Vec<UserId>> {
    let statement = "SELECT user_id FROM owners WHERE deleted_at IS NOT NULL AND cleared = 0 ORDER BY user_id LIMIT $1";
    let ids: Vec<String> = query_scalar(statement).bind(i64::from(most)).fetch_all(connection).await?;
    ids.iter().map(|id| id.parse().map_err(|error| broken("user_id", error))).collect()
}
