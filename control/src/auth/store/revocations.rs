//! What was ended before its time.

use edd_events::clock::Micros;
use edd_proto::auth::SessionEnd;
use sqlx::any::AnyRow;
use sqlx::{Row, query};

use super::{Connection, broken, record_id, user_id};
use crate::auth::model::{Revocation, RevokedKind};

pub async fn insert(connection: impl Connection<'_>, revocation: &Revocation) -> sqlx::Result<()> {
    let statement = "INSERT INTO revocations \
                     (record_id, kind, user_number, user_id, version, reason, revoked_at, expires_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let insert = query(statement).bind(revocation.record_id.as_str()).bind(revocation.kind.as_str());
    let insert = insert.bind(revocation.user_number).bind(revocation.user_id.as_str()).bind(revocation.version);
    let insert = insert.bind(i64::from(i32::from(revocation.reason)));
    insert.bind(revocation.revoked_at).bind(revocation.expires_at).execute(connection).await?;
    Ok(())
}

/// At most `most` revocations that hold at `now`, from the one after number `after` on, with their numbers.
pub async fn page(
    connection: impl Connection<'_>,
    after: i64,
    now: Micros,
    most: u32,
) -> sqlx::Result<Vec<(i64, Revocation)>> {
    let statement = "SELECT number, record_id, kind, user_number, user_id, version, reason, revoked_at, expires_at \
                     FROM revocations WHERE number > $1 AND expires_at > $2 ORDER BY number LIMIT $3";
    let rows = query(statement).bind(after).bind(now).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> sqlx::Result<(i64, Revocation)> {
    let kind = row.try_get::<&str, _>("kind")?;
    let reason = i32::try_from(row.try_get::<i64, _>("reason")?).map_err(|error| broken("reason", error))?;
    let revocation = Revocation {
        kind: RevokedKind::read(kind).ok_or_else(|| sqlx::Error::ColumnNotFound(format!("kind {kind}")))?,
        record_id: record_id(row, "record_id")?,
        user_number: row.try_get("user_number")?,
        user_id: user_id(row, "user_id")?,
        version: row.try_get("version")?,
        reason: SessionEnd::try_from(reason).unwrap_or(SessionEnd::Unspecified),
        revoked_at: row.try_get("revoked_at")?,
        expires_at: row.try_get("expires_at")?,
    };
    Ok((row.try_get("number")?, revocation))
}

/// Removes at most `most` that nobody need remember. How many.
pub async fn prune(connection: impl Connection<'_>, now: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM revocations WHERE number IN \
                     (SELECT number FROM revocations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    Ok(query(statement).bind(now).bind(i64::from(most)).execute(connection).await?.rows_affected())
}
