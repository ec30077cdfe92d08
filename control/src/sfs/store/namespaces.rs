//! Namespaces. One that is deleted stays until nothing of it is left, and no function but those that say so finds it.

use edd_events::clock::Micros;
use edd_proto::UserId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row, query, query_scalar};

use super::{Connection, broken, count, parsed, signed, unknown};
use crate::sfs::model::{Namespace, NamespaceName, Owner, Visibility};

fn read(row: &AnyRow) -> sqlx::Result<Namespace> {
    let visibility: i64 = row.try_get("visibility")?;
    let (user, number): (Option<&str>, Option<i64>) = (row.try_get("user_id")?, row.try_get("user_number")?);
    let owner = |(user, number): (&str, i64)| {
        Ok::<_, sqlx::Error>(Owner { user: user.parse().map_err(|error| broken("user_id", error))?, number })
    };
    let quota: Option<i64> = row.try_get("quota_bytes")?;
    Ok(Namespace {
        number: row.try_get("number")?,
        name: parsed(row, "name")?,
        owner: user.zip(number).map(owner).transpose()?,
        visibility: Visibility::from_number(visibility).ok_or_else(|| unknown("visibility", visibility))?,
        is_hidden: row.try_get::<i64, _>("hidden")? != 0,
        used_bytes: count(row, "used_bytes")?,
        files: count(row, "files")?,
        folders: count(row, "folders")?,
        quota_bytes: quota.map(|bytes| u64::try_from(bytes).map_err(|e| broken("quota_bytes", e))).transpose()?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
    })
}

/// A namespace to be.
#[derive(Clone, Copy, Debug)]
pub struct NewRow<'a> {
    pub name: &'a NamespaceName,
    pub owner: Owner,
    pub visibility: Visibility,
    pub is_hidden: bool,
    pub created_at: Micros,
}

/// Adds a namespace. None: the name is taken.
pub async fn insert(connection: impl Connection<'_>, new: NewRow<'_>) -> sqlx::Result<Option<Namespace>> {
    let statement = "INSERT INTO namespaces \
                     (name, user_id, user_number, visibility, hidden, used_bytes, files, folders, version, created_at) \
                     VALUES ($1, $2, $3, $4, $5, 0, 0, 0, 0, $6) ON CONFLICT DO NOTHING RETURNING *";
    let insert = query(statement).bind(new.name.as_str()).bind(new.owner.user.as_str()).bind(new.owner.number);
    let insert = insert.bind(new.visibility.number()).bind(i64::from(new.is_hidden)).bind(new.created_at);
    insert.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

pub async fn by_name(connection: impl Connection<'_>, name: &NamespaceName) -> sqlx::Result<Option<Namespace>> {
    let statement = query("SELECT * FROM namespaces WHERE name = $1 AND deleted_at IS NULL").bind(name.as_str());
    statement.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

pub async fn by_number(connection: impl Connection<'_>, number: i64) -> sqlx::Result<Option<Namespace>> {
    let statement = query("SELECT * FROM namespaces WHERE number = $1 AND deleted_at IS NULL").bind(number);
    statement.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// The namespace, locked until the transaction ends. Its owner is locked before.
pub async fn lock(connection: &mut AnyConnection, number: i64) -> sqlx::Result<Option<Namespace>> {
    let update = "UPDATE namespaces SET version = version WHERE number = $1 AND deleted_at IS NULL RETURNING *";
    query(update).bind(number).fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// Writes what may have changed of a namespace that is locked, but for what is counted.
///
/// # Errors
/// Also if the name is taken: a violation of what is unique.
pub async fn save(connection: impl Connection<'_>, namespace: &Namespace) -> sqlx::Result<()> {
    let statement = "UPDATE namespaces SET name = $1, user_id = $2, user_number = $3, visibility = $4, hidden = $5, \
                     quota_bytes = $6, version = $7 WHERE number = $8";
    let owner = namespace.owner;
    let update = query(statement).bind(namespace.name.as_str()).bind(owner.map(|owner| owner.user.to_string()));
    let update = update.bind(owner.map(|owner| owner.number)).bind(namespace.visibility.number());
    let update = update.bind(i64::from(namespace.is_hidden)).bind(namespace.quota_bytes.map(signed));
    update.bind(namespace.version).bind(namespace.number).execute(connection).await?;
    Ok(())
}

/// What comes to a namespace, or goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub bytes: i64,
    pub files: i64,
    pub folders: i64,
}

impl Change {
    pub fn entries(self) -> i64 {
        self.files + self.folders
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        let (files, folders) = (self.files + other.files, self.folders + other.folders);
        Self { bytes: self.bytes + other.bytes, files, folders }
    }

    /// As much, the other way.
    pub fn reversed(self) -> Self {
        Self { bytes: -self.bytes, files: -self.files, folders: -self.folders }
    }
}

/// Counts what came or went.
pub async fn add(connection: impl Connection<'_>, number: i64, change: Change) -> sqlx::Result<()> {
    if change == Change::default() {
        return Ok(());
    }
    let statement = "UPDATE namespaces SET used_bytes = used_bytes + $1, files = files + $2, folders = folders + $3 \
                     WHERE number = $4";
    let update = query(statement).bind(change.bytes).bind(change.files).bind(change.folders).bind(number);
    update.execute(connection).await?;
    Ok(())
}

/// How many a user has.
pub async fn count_of(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<i64> {
    let statement = "SELECT count(*) FROM namespaces WHERE user_id = $1 AND deleted_at IS NULL";
    query_scalar(statement).bind(user.as_str()).fetch_one(connection).await
}

/// Those of a user, by name.
pub async fn of_user(
    connection: impl Connection<'_>,
    user: UserId,
    after: Option<&NamespaceName>,
    most: u32,
) -> sqlx::Result<Vec<Namespace>> {
    let statement = "SELECT * FROM namespaces WHERE user_id = $1 AND name > $2 AND deleted_at IS NULL \
                     ORDER BY name LIMIT $3";
    let select = query(statement).bind(user.as_str()).bind(cursor(after)).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

/// Those that are shown to whoever is not their owner and sees `least` and what is more public, and those of `user`.
pub async fn visible(
    connection: impl Connection<'_>,
    user: Option<UserId>,
    least: Visibility,
    after: Option<&NamespaceName>,
    most: u32,
) -> sqlx::Result<Vec<Namespace>> {
    let statement = "SELECT * FROM namespaces WHERE name > $1 AND deleted_at IS NULL \
                     AND (user_id = $2 OR (hidden = 0 AND visibility >= $3)) ORDER BY name LIMIT $4";
    let user = user.map(|user| user.to_string()).unwrap_or_default();
    let select = query(statement).bind(cursor(after)).bind(user).bind(least.number()).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

/// All of them, or those that are nobody's.
pub async fn page(
    connection: impl Connection<'_>,
    is_orphaned: bool,
    after: Option<&NamespaceName>,
    most: u32,
) -> sqlx::Result<Vec<Namespace>> {
    let orphaned = if is_orphaned { "AND user_id IS NULL" } else { "" };
    let statement =
        format!("SELECT * FROM namespaces WHERE name > $1 AND deleted_at IS NULL {orphaned} ORDER BY name LIMIT $2");
    let select = query(AssertSqlSafe(statement)).bind(cursor(after)).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

fn cursor(after: Option<&NamespaceName>) -> String {
    after.map(|name| name.as_str().to_owned()).unwrap_or_default()
}

/// Marks a namespace that is locked as deleted: its name is free, and nothing in it is found any more.
pub async fn bury(connection: impl Connection<'_>, number: i64, version: i64, now: Micros) -> sqlx::Result<()> {
    let update = query("UPDATE namespaces SET deleted_at = $1, version = $2 WHERE number = $3");
    update.bind(now).bind(version).bind(number).execute(connection).await?;
    Ok(())
}

/// Deleted ones of which something is left.
pub async fn deleted(connection: impl Connection<'_>, most: u32) -> sqlx::Result<Vec<i64>> {
    let statement = "SELECT number FROM namespaces WHERE deleted_at IS NOT NULL ORDER BY number LIMIT $1";
    query_scalar(statement).bind(i64::from(most)).fetch_all(connection).await
}

/// Forgets a deleted one of which nothing is left.
pub async fn forget(connection: impl Connection<'_>, number: i64) -> sqlx::Result<()> {
    let delete = query("DELETE FROM namespaces WHERE number = $1 AND deleted_at IS NOT NULL").bind(number);
    delete.execute(connection).await?;
    Ok(())
}
