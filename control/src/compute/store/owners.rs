//! Users who have something here.

use edd_events::clock::Micros;
use edd_proto::UserId;
use sqlx::{AnyConnection, query, query_scalar};

use super::{Connection, broken};

/// Locks a user until the transaction ends, whether they were known or not. False: they are deleted.
pub async fn lock(connection: &mut AnyConnection, user: UserId) -> sqlx::Result<bool> {
    let upsert = "INSERT INTO owners (user_id, cleared) VALUES ($1, 0) \
                  ON CONFLICT (user_id) DO UPDATE SET cleared = owners.cleared";
    query(upsert).bind(user.as_str()).execute(&mut *connection).await?;
    let select = query_scalar("SELECT deleted_at FROM owners WHERE user_id = $1").bind(user.as_str());
    select.fetch_one(connection).await.map(|at: Option<i64>| at.is_none())
}

/// Notes that a user is deleted, and whether all that was theirs is too.
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
