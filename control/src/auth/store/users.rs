//! Users and their tombstones.

use edd_events::clock::Micros;
use edd_proto::UserId;
use sqlx::any::AnyRow;
use sqlx::{Row, query, query_scalar};

use super::{Connection, user_id};
use crate::auth::model::{DisplayName, User, Username};

/// A user to be. What the database adds comes back.
#[derive(Debug)]
pub struct NewUser<'a> {
    pub id: UserId,
    pub username: &'a Username,
    pub display_name: &'a DisplayName,
    pub password_hash: &'a str,
    pub is_admin: bool,
    pub created_at: Micros,
}

/// Adds a user; their number, or None if the name is taken.
pub async fn insert(connection: impl Connection<'_>, user: &NewUser<'_>) -> sqlx::Result<Option<i64>> {
    let statement = "INSERT INTO users (id, id_bytes, username, display_name, password_hash, is_admin, version, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, 0, $7) ON CONFLICT DO NOTHING RETURNING number";
    let insert = query_scalar(statement).bind(user.id.as_str()).bind(user.id.as_str().as_bytes().to_vec());
    let insert = insert.bind(user.username.as_str());
    let insert = insert.bind(user.display_name.as_str()).bind(user.password_hash);
    insert.bind(i64::from(user.is_admin)).bind(user.created_at).fetch_optional(connection).await
}

pub async fn set_version(connection: impl Connection<'_>, number: i64, version: i64) -> sqlx::Result<()> {
    query("UPDATE users SET version = $1 WHERE number = $2").bind(version).bind(number).execute(connection).await?;
    Ok(())
}

const COLUMNS: &str = "users.number AS user_number, users.id AS user_id, username, display_name, is_admin, version, \
     users.created_at AS user_created_at, deleted_at";

/// The columns that [`read`] reads, for a statement that joins the table.
pub(super) const fn columns() -> &'static str {
    COLUMNS
}

pub(super) fn read(row: &AnyRow) -> sqlx::Result<User> {
    Ok(User {
        number: row.try_get("user_number")?,
        id: user_id(row, "user_id")?,
        username: row.try_get("username")?,
        display_name: row.try_get("display_name")?,
        is_admin: row.try_get::<i64, _>("is_admin")? != 0,
        version: row.try_get("version")?,
        created_at: row.try_get("user_created_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// A user with what their password is compared with.
#[derive(Debug)]
pub struct WithPassword {
    pub user: User,
    pub password_hash: String,
}

fn read_with_password(row: &AnyRow) -> sqlx::Result<WithPassword> {
    Ok(WithPassword { user: read(row)?, password_hash: row.try_get("password_hash")? })
}

/// The user of that name who is not deleted.
pub async fn by_name(connection: impl Connection<'_>, username: &Username) -> sqlx::Result<Option<WithPassword>> {
    let statement = format!("SELECT {COLUMNS}, password_hash FROM users WHERE username = $1 AND deleted_at IS NULL");
    let row = query(sqlx::AssertSqlSafe(statement)).bind(username.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read_with_password).transpose()
}

/// The user of that id who is not deleted.
pub async fn by_id(connection: impl Connection<'_>, id: UserId) -> sqlx::Result<Option<WithPassword>> {
    let statement = format!("SELECT {COLUMNS}, password_hash FROM users WHERE id = $1 AND deleted_at IS NULL");
    let row = query(sqlx::AssertSqlSafe(statement)).bind(id.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read_with_password).transpose()
}

/// At most `most` users with ids after `after`, by the bytes of their ids.
pub async fn page(
    connection: impl Connection<'_>,
    after: Option<&str>,
    most: u32,
    with_deleted: bool,
) -> sqlx::Result<Vec<User>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM users WHERE id_bytes > $1 AND (deleted_at IS NULL OR $2 = 1) ORDER BY id_bytes LIMIT $3"
    );
    let select = query(sqlx::AssertSqlSafe(statement)).bind(after.unwrap_or_default().as_bytes().to_vec());
    let select = select.bind(i64::from(with_deleted)).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

/// Whether the user was there to be renamed.
pub async fn rename(connection: impl Connection<'_>, number: i64, name: &DisplayName) -> sqlx::Result<bool> {
    let update = query("UPDATE users SET display_name = $1 WHERE number = $2 AND deleted_at IS NULL");
    Ok(update.bind(name.as_str()).bind(number).execute(connection).await?.rows_affected() > 0)
}

/// Sets the password's hash if it is still `old`, and locks the user until the transaction ends. False: it changed
/// meanwhile, or the user is gone, and what was decided by `old` no longer holds.
pub async fn replace_password(
    connection: impl Connection<'_>,
    number: i64,
    old: &str,
    new: &str,
) -> sqlx::Result<bool> {
    let statement =
        "UPDATE users SET password_hash = $1 WHERE number = $2 AND password_hash = $3 AND deleted_at IS NULL";
    Ok(query(statement).bind(new).bind(number).bind(old).execute(connection).await?.rows_affected() > 0)
}

/// Locks the user until the transaction ends. False: they are gone.
pub async fn lock(connection: impl Connection<'_>, number: i64) -> sqlx::Result<bool> {
    let update = query("UPDATE users SET version = version WHERE number = $1 AND deleted_at IS NULL");
    Ok(update.bind(number).execute(connection).await?.rows_affected() > 0)
}

/// Makes a tombstone of the user. False: they are gone already.
pub async fn bury(connection: impl Connection<'_>, number: i64, now: Micros) -> sqlx::Result<bool> {
    let statement = "UPDATE users SET deleted_at = $1, username = '', display_name = '', password_hash = '' \
                     WHERE number = $2 AND deleted_at IS NULL";
    Ok(query(statement).bind(now).bind(number).execute(connection).await?.rows_affected() > 0)
}

/// Whether there was a first start.
pub async fn has_started(connection: impl Connection<'_>) -> sqlx::Result<bool> {
    Ok(query("SELECT at FROM first_start").fetch_optional(connection).await?.is_some())
}

/// Whether this is the first start: true for one caller only.
pub async fn claim_first_start(connection: impl Connection<'_>, now: Micros) -> sqlx::Result<bool> {
    let insert = query("INSERT INTO first_start (id, at) VALUES (1, $1) ON CONFLICT DO NOTHING").bind(now);
    Ok(insert.execute(connection).await?.rows_affected() > 0)
}
