//! API tokens, by their SHA-256.

use edd_events::clock::Micros;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row, query, query_scalar};

use super::{Connection, broken, record_id, users};
use crate::auth::model::{ApiToken, RecordId, User};
use crate::entropy::Secret;

const COLUMNS: &str = "api_tokens.id AS token_id, api_tokens.user_number AS user_number, name, scopes, \
                       api_tokens.created_at AS token_created_at, expires_at, last_used_at";
/// [`COLUMNS`] as `RETURNING` may name them.
const RETURNING: &str =
    "id AS token_id, user_number, name, scopes, created_at AS token_created_at, expires_at, last_used_at";

fn read(row: &AnyRow) -> sqlx::Result<ApiToken> {
    Ok(ApiToken {
        id: record_id(row, "token_id")?,
        user_number: row.try_get("user_number")?,
        name: row.try_get("name")?,
        scopes: serde_json::from_str(row.try_get("scopes")?).map_err(|error| broken("scopes", error))?,
        created_at: row.try_get("token_created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

pub async fn insert(connection: impl Connection<'_>, token: &ApiToken, secret: &Secret) -> sqlx::Result<()> {
    let statement = "INSERT INTO api_tokens (id, user_number, name, sha256, scopes, created_at, expires_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let scopes = serde_json::to_string(&token.scopes).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let insert = query(statement).bind(token.id.as_str()).bind(token.user_number).bind(&token.name);
    let insert = insert.bind(secret.sha256()).bind(scopes).bind(token.created_at).bind(token.expires_at);
    insert.execute(connection).await?;
    Ok(())
}

/// The token that is good at `now`, and whose it is.
pub async fn live(
    connection: impl Connection<'_>,
    secret: &Secret,
    now: Micros,
) -> sqlx::Result<Option<(ApiToken, User)>> {
    let statement = format!(
        "SELECT {COLUMNS}, {} FROM api_tokens JOIN users ON users.number = api_tokens.user_number \
         WHERE sha256 = $1 AND (expires_at IS NULL OR expires_at > $2) AND deleted_at IS NULL",
        users::columns()
    );
    let row = query(AssertSqlSafe(statement)).bind(secret.sha256()).bind(now).fetch_optional(connection).await?;
    row.map(|row| Ok((read(&row)?, users::read(&row)?))).transpose()
}

/// Notes that a token was used, unless that was noted after `since`.
pub async fn touch(connection: impl Connection<'_>, id: &RecordId, now: Micros, since: Micros) -> sqlx::Result<()> {
    let update =
        query("UPDATE api_tokens SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $3)");
    update.bind(now).bind(id.as_str()).bind(since).execute(connection).await?;
    Ok(())
}

/// A user's tokens, the latest first.
pub async fn of_user(connection: impl Connection<'_>, user: i64, most: u32) -> sqlx::Result<Vec<ApiToken>> {
    let statement = format!("SELECT {COLUMNS} FROM api_tokens WHERE user_number = $1 ORDER BY number DESC LIMIT $2");
    let select = query(AssertSqlSafe(statement)).bind(user).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

pub async fn count(connection: impl Connection<'_>, user: i64) -> sqlx::Result<i64> {
    query_scalar("SELECT count(*) FROM api_tokens WHERE user_number = $1").bind(user).fetch_one(connection).await
}

/// Removes a user's token; what it was.
pub async fn remove(connection: impl Connection<'_>, user: i64, id: &RecordId) -> sqlx::Result<Option<ApiToken>> {
    let statement = format!("DELETE FROM api_tokens WHERE user_number = $1 AND id = $2 RETURNING {RETURNING}");
    let row = query(AssertSqlSafe(statement)).bind(user).bind(id.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Removes all tokens of a user; what they were. A user has no more than the service lets them have.
pub async fn remove_all(connection: impl Connection<'_>, user: i64) -> sqlx::Result<Vec<ApiToken>> {
    let statement = format!("DELETE FROM api_tokens WHERE user_number = $1 RETURNING {RETURNING}");
    query(AssertSqlSafe(statement)).bind(user).fetch_all(connection).await?.iter().map(read).collect()
}

/// Removes at most `most` tokens that have expired before `before`. How many.
pub async fn prune(connection: impl Connection<'_>, before: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM api_tokens WHERE number IN \
                     (SELECT number FROM api_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    Ok(query(statement).bind(before).bind(i64::from(most)).execute(connection).await?.rows_affected())
}
