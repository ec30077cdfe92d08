//! SSH keys and their tombstones.

use edd_events::clock::Micros;
use edd_proto::UserId;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row, query, query_scalar};

use super::{Connection, parsed};
use crate::compute::model::{PublicKey, SshKey};

fn read(row: &AnyRow) -> sqlx::Result<SshKey> {
    Ok(SshKey {
        number: row.try_get("number")?,
        owner: parsed(row, "user_id")?,
        owner_number: row.try_get("user_number")?,
        name: row.try_get("name")?,
        fingerprint: row.try_get("fingerprint")?,
        public_key: row.try_get("public_key")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// A key to be.
#[derive(Debug)]
pub struct NewKey<'a> {
    pub owner: UserId,
    pub owner_number: i64,
    pub name: &'a str,
    pub key: &'a PublicKey,
    pub created_at: Micros,
}

/// Adds a key; its number, or None if its owner has it already.
pub async fn insert(connection: impl Connection<'_>, new: &NewKey<'_>) -> sqlx::Result<Option<i64>> {
    let statement = "INSERT INTO ssh_keys (user_id, user_number, name, fingerprint, public_key, version, created_at) \
                     VALUES ($1, $2, $3, $4, $5, 0, $6) ON CONFLICT DO NOTHING RETURNING number";
    let insert = query_scalar(statement).bind(new.owner.as_str()).bind(new.owner_number).bind(new.name);
    let insert = insert.bind(&new.key.fingerprint).bind(&new.key.line).bind(new.created_at);
    insert.fetch_optional(connection).await
}

/// Writes the version of a key's last event.
pub async fn set_version(connection: impl Connection<'_>, number: i64, version: i64) -> sqlx::Result<()> {
    let update = query("UPDATE ssh_keys SET version = $1, id_bytes = $2 WHERE number = $3");
    update.bind(version).bind(number.to_string().into_bytes()).bind(number).execute(connection).await?;
    Ok(())
}

/// The live keys of a user, the oldest first.
pub async fn of_user(connection: impl Connection<'_>, user: UserId, most: u32) -> sqlx::Result<Vec<SshKey>> {
    let statement = "SELECT * FROM ssh_keys WHERE user_id = $1 AND deleted_at IS NULL ORDER BY number LIMIT $2";
    let select = query(statement).bind(user.as_str()).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

pub async fn count(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<i64> {
    let statement = "SELECT count(*) FROM ssh_keys WHERE user_id = $1 AND deleted_at IS NULL";
    query_scalar(statement).bind(user.as_str()).fetch_one(connection).await
}

/// How many of `numbers`, which are distinct, are live keys of the user.
pub async fn count_of(connection: impl Connection<'_>, user: UserId, numbers: &[i64]) -> sqlx::Result<i64> {
    let places: Vec<String> = (2..2 + numbers.len()).map(|number| format!("${number}")).collect();
    let statement = format!(
        "SELECT count(*) FROM ssh_keys WHERE user_id = $1 AND deleted_at IS NULL AND number IN ({})",
        places.join(", ")
    );
    let select = query_scalar(AssertSqlSafe(statement)).bind(user.to_string());
    numbers.iter().fold(select, |select, number| select.bind(*number)).fetch_one(connection).await
}

/// Makes a tombstone of a user's live key, of which the number and the fingerprint stay. What it was.
pub async fn bury(
    connection: impl Connection<'_>,
    user: UserId,
    number: i64,
    now: Micros,
) -> sqlx::Result<Option<SshKey>> {
    let statement = "UPDATE ssh_keys SET deleted_at = $1, name = '', public_key = '' \
                     WHERE number = $2 AND user_id = $3 AND deleted_at IS NULL RETURNING *";
    let row = query(statement).bind(now).bind(number).bind(user.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Takes a key off every container that names it.
pub async fn forget(connection: impl Connection<'_>, number: i64) -> sqlx::Result<()> {
    query("DELETE FROM container_ssh_keys WHERE key_number = $1").bind(number).execute(connection).await?;
    Ok(())
}

/// At most `most` keys, tombstones included, with ids after `after`, by the bytes of their ids as text.
pub async fn page(connection: impl Connection<'_>, after: Option<&str>, most: u32) -> sqlx::Result<Vec<SshKey>> {
    let select = query("SELECT * FROM ssh_keys WHERE id_bytes > $1 ORDER BY id_bytes LIMIT $2");
    let select = select.bind(after.unwrap_or_default().as_bytes().to_vec()).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}
