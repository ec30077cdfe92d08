//! Refresh tokens, by their SHA-256: one that can be used, and those that were, until their session ends.

use edd_events::clock::Micros;
use sqlx::{Row, query};

use super::{Connection, record_id};
use crate::auth::model::RecordId;
use crate::entropy::Secret;

/// What is known of a token.
#[derive(Debug)]
pub struct Known {
    pub session: RecordId,
    /// When it was used and by what it was replaced, if it was.
    pub used: Option<(Micros, Vec<u8>)>,
}

pub async fn insert(connection: impl Connection<'_>, token: &Secret, session: &RecordId) -> sqlx::Result<()> {
    let insert = query("INSERT INTO refresh_tokens (sha256, session_id) VALUES ($1, $2)");
    insert.bind(token.sha256()).bind(session.as_str()).execute(connection).await?;
    Ok(())
}

pub async fn find(connection: impl Connection<'_>, token: &Secret) -> sqlx::Result<Option<Known>> {
    let select = query("SELECT session_id, used_at, successor FROM refresh_tokens WHERE sha256 = $1");
    let Some(row) = select.bind(token.sha256()).fetch_optional(connection).await? else { return Ok(None) };
    let used_at = row.try_get::<Option<Micros>, _>("used_at")?;
    let successor = row.try_get::<Option<Vec<u8>>, _>("successor")?;
    Ok(Some(Known { session: record_id(&row, "session_id")?, used: used_at.zip(successor) }))
}

/// Marks the token with that SHA-256 as used and replaced. False: it had been used.
pub async fn replace(
    connection: impl Connection<'_>,
    sha256: &[u8],
    successor: &Secret,
    now: Micros,
) -> sqlx::Result<bool> {
    let update = query("UPDATE refresh_tokens SET used_at = $1, successor = $2 WHERE sha256 = $3 AND used_at IS NULL");
    let update = update.bind(now).bind(successor.sha256()).bind(sha256.to_vec());
    Ok(update.execute(connection).await?.rows_affected() > 0)
}

/// Notes that a used token was replaced once more.
pub async fn replace_again(connection: impl Connection<'_>, token: &Secret, successor: &Secret) -> sqlx::Result<()> {
    let update = query("UPDATE refresh_tokens SET successor = $1 WHERE sha256 = $2");
    update.bind(successor.sha256()).bind(token.sha256()).execute(connection).await?;
    Ok(())
}
