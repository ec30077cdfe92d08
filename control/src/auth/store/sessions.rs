//! Sessions that have not ended.

use edd_events::clock::Micros;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row, query};

use super::{Connection, record_id, users};
use crate::auth::model::{RecordId, Session, User};
use crate::limiter::Network;

const COLUMNS: &str = "sessions.id AS session_id, sessions.user_number AS user_number, \
                       sessions.created_at AS session_created_at, last_used_at, expires_at, client_ip, user_agent, \
                       is_refreshed";

fn read(row: &AnyRow) -> sqlx::Result<Session> {
    Ok(Session {
        id: record_id(row, "session_id")?,
        user_number: row.try_get("user_number")?,
        created_at: row.try_get("session_created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        expires_at: row.try_get("expires_at")?,
        client_ip: row.try_get("client_ip")?,
        user_agent: row.try_get("user_agent")?,
        is_refreshed: row.try_get::<i64, _>("is_refreshed")? != 0,
    })
}

pub async fn insert(connection: impl Connection<'_>, session: &Session, network: Network) -> sqlx::Result<()> {
    let statement = "INSERT INTO sessions (id, user_number, created_at, last_used_at, expires_at, client_ip, \
                     client_network, user_agent, is_refreshed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let insert = query(statement).bind(session.id.as_str()).bind(session.user_number).bind(session.created_at);
    let insert = insert.bind(session.last_used_at).bind(session.expires_at).bind(&session.client_ip);
    let insert = insert.bind(network.to_string()).bind(&session.user_agent).bind(i64::from(session.is_refreshed));
    insert.execute(connection).await?;
    Ok(())
}

/// A session that is good at `now`, and whose it is.
pub async fn live(
    connection: impl Connection<'_>,
    id: &RecordId,
    now: Micros,
) -> sqlx::Result<Option<(Session, User)>> {
    let statement = format!(
        "SELECT {COLUMNS}, {} FROM sessions JOIN users ON users.number = sessions.user_number \
         WHERE sessions.id = $1 AND expires_at > $2 AND deleted_at IS NULL",
        users::columns()
    );
    let row = query(AssertSqlSafe(statement)).bind(id.as_str()).bind(now).fetch_optional(connection).await?;
    row.map(|row| Ok((read(&row)?, users::read(&row)?))).transpose()
}

/// Notes that a session was used, and locks it until the transaction ends. False: it has ended.
pub async fn touch(connection: impl Connection<'_>, id: &RecordId, now: Micros) -> sqlx::Result<bool> {
    let update = query("UPDATE sessions SET last_used_at = $1 WHERE id = $2 AND expires_at > $1");
    Ok(update.bind(now).bind(id.as_str()).execute(connection).await?.rows_affected() > 0)
}

/// The sessions of a user that are good at `now`, the latest first.
pub async fn of_user(connection: impl Connection<'_>, user: i64, now: Micros, most: u32) -> sqlx::Result<Vec<Session>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM sessions WHERE user_number = $1 AND expires_at > $2 ORDER BY number DESC LIMIT $3"
    );
    let select = query(AssertSqlSafe(statement)).bind(user).bind(now).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

/// A session in a list of all: its place there, itself, and whose it is.
pub type Listed = (i64, Session, User);

/// At most `most` sessions that were begun before the one with number `before`, the latest first.
pub async fn page(connection: impl Connection<'_>, before: i64, now: Micros, most: u32) -> sqlx::Result<Vec<Listed>> {
    let statement = format!(
        "SELECT sessions.number AS place, {COLUMNS}, {} FROM sessions JOIN users ON users.number = sessions.user_number \
         WHERE sessions.number < $1 AND expires_at > $2 ORDER BY sessions.number DESC LIMIT $3",
        users::columns()
    );
    let select = query(AssertSqlSafe(statement)).bind(before).bind(now).bind(i64::from(most));
    let rows = select.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("place")?, read(row)?, users::read(row)?))).collect()
}

/// Whether the user has a session that was begun from there.
pub async fn knows(connection: impl Connection<'_>, user: i64, network: Network, now: Micros) -> sqlx::Result<bool> {
    let statement =
        "SELECT number FROM sessions WHERE user_number = $1 AND client_network = $2 AND expires_at > $3 LIMIT 1";
    let select = query(statement).bind(user).bind(network.to_string()).bind(now);
    Ok(select.fetch_optional(connection).await?.is_some())
}

/// Removes a session of any user; what it was.
pub async fn remove(connection: impl Connection<'_>, id: &RecordId) -> sqlx::Result<Option<Session>> {
    let statement = format!("DELETE FROM sessions WHERE id = $1 RETURNING {RETURNING}");
    let row = query(AssertSqlSafe(statement)).bind(id.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Removes all sessions of a user but one; what they were. A user has no more than the service lets them begin.
pub async fn remove_others(
    connection: impl Connection<'_>,
    user: i64,
    but: Option<&RecordId>,
) -> sqlx::Result<Vec<Session>> {
    let statement = format!("DELETE FROM sessions WHERE user_number = $1 AND id <> $2 RETURNING {RETURNING}");
    let delete = query(AssertSqlSafe(statement)).bind(user).bind(but.map_or("", RecordId::as_str));
    delete.fetch_all(connection).await?.iter().map(read).collect()
}

/// Removes a user's sessions but the latest `keep`; what they were.
pub async fn remove_oldest(connection: impl Connection<'_>, user: i64, keep: u32) -> sqlx::Result<Vec<Session>> {
    let statement = format!(
        "DELETE FROM sessions WHERE user_number = $1 AND number NOT IN \
         (SELECT number FROM sessions WHERE user_number = $1 ORDER BY number DESC LIMIT $2) RETURNING {RETURNING}"
    );
    let delete = query(AssertSqlSafe(statement)).bind(user).bind(i64::from(keep));
    delete.fetch_all(connection).await?.iter().map(read).collect()
}

/// [`COLUMNS`] as `RETURNING` may name them.
const RETURNING: &str = "id AS session_id, user_number, created_at AS session_created_at, last_used_at, expires_at, \
                         client_ip, user_agent, is_refreshed";

/// Removes at most `most` sessions that ended by themselves. How many.
pub async fn prune(connection: impl Connection<'_>, now: Micros, most: u32) -> sqlx::Result<u64> {
    let statement = "DELETE FROM sessions WHERE number IN \
                     (SELECT number FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    Ok(query(statement).bind(now).bind(i64::from(most)).execute(connection).await?.rows_affected())
}
