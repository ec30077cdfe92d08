//! Share links.

use edd_events::clock::Micros;
use edd_events::database::Step;
use edd_proto::UserId;
use sqlx::any::AnyRow;
use sqlx::{Row, query, query_scalar};

use super::{Connection, count, parsed, unknown};
use crate::sfs::model::{FilePath, NamespaceName, Owner, Share};

pub(super) const STEP: Step = Step {
    version: 1220,
    name: "shares",
    sql: "
CREATE TABLE shares (
    number {serial},
    -- SHA-256; the token itself is in the link alone.
    token {bytes} NOT NULL UNIQUE,
    namespace BIGINT NOT NULL,
    -- Empty: all of the namespace
    path {text} NOT NULL,
    user_id TEXT NOT NULL,
    user_number BIGINT NOT NULL,
    -- argon2id; NULL: none
    password TEXT,
    -- NULL: never
    expires_at BIGINT,
    -- NULL: as many as there may be
    downloads_left BIGINT,
    downloads BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX shares_user ON shares (user_id, number);
CREATE INDEX shares_namespace ON shares (namespace);
CREATE INDEX shares_expiry ON shares (expires_at) WHERE expires_at IS NOT NULL;
",
};

fn read(row: &AnyRow) -> sqlx::Result<Share> {
    let path: &str = row.try_get("path")?;
    let left: Option<i64> = row.try_get("downloads_left")?;
    Ok(Share {
        number: row.try_get("number")?,
        namespace: row.try_get("namespace")?,
        path: if path.is_empty() { None } else { Some(parsed::<FilePath>(row, "path")?) },
        made_by: Owner { user: parsed(row, "user_id")?, number: row.try_get("user_number")? },
        password: row.try_get("password")?,
        expires_at: row.try_get("expires_at")?,
        downloads_left: left
            .map(|left| u32::try_from(left).map_err(|_| unknown("downloads_left", left)))
            .transpose()?,
        downloads: count(row, "downloads")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Adds a link, which `token` is the SHA-256 of. Its number in `new` counts for nothing.
pub async fn insert(connection: impl Connection<'_>, token: Vec<u8>, new: &Share) -> sqlx::Result<Share> {
    let statement = "INSERT INTO shares (token, namespace, path, user_id, user_number, password, expires_at, \
                     downloads_left, downloads, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9) RETURNING *";
    let path = new.path.as_ref().map_or("", FilePath::as_str);
    let insert = query(statement).bind(token).bind(new.namespace).bind(path);
    let insert = insert.bind(new.made_by.user.as_str()).bind(new.made_by.number).bind(new.password.clone());
    let insert = insert.bind(new.expires_at).bind(new.downloads_left.map(i64::from)).bind(new.created_at);
    read(&insert.fetch_one(connection).await?)
}

pub async fn by_token(connection: impl Connection<'_>, token: Vec<u8>) -> sqlx::Result<Option<Share>> {
    let select = query("SELECT * FROM shares WHERE token = $1").bind(token);
    select.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// A user's links with the names of their namespaces, the oldest first, from beyond the number `after`. Those of
/// namespaces that are gone are left out.
pub async fn of_user(
    connection: impl Connection<'_>,
    user: UserId,
    after: i64,
    most: u32,
) -> sqlx::Result<Vec<(Share, NamespaceName)>> {
    let statement = "SELECT shares.*, namespaces.name AS namespace_name FROM shares \
                     JOIN namespaces ON namespaces.number = shares.namespace \
                     WHERE shares.user_id = $1 AND shares.number > $2 AND namespaces.deleted_at IS NULL \
                     ORDER BY shares.number LIMIT $3";
    let rows = query(statement).bind(user.as_str()).bind(after).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((read(row)?, parsed(row, "namespace_name")?))).collect()
}

pub async fn count_of(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<i64> {
    query_scalar("SELECT count(*) FROM shares WHERE user_id = $1").bind(user.as_str()).fetch_one(connection).await
}

/// Counts a download of a link that is still good. False: it is not, any more.
pub async fn use_once(connection: impl Connection<'_>, number: i64, now: Micros) -> sqlx::Result<bool> {
    let statement = "UPDATE shares SET downloads = downloads + 1, downloads_left = downloads_left - 1 \
                     WHERE number = $1 AND (downloads_left IS NULL OR downloads_left > 0) \
                     AND (expires_at IS NULL OR expires_at > $2)";
    Ok(query(statement).bind(number).bind(now).execute(connection).await?.rows_affected() > 0)
}

/// Revokes a link of the user's. False: they have no such one.
pub async fn delete(connection: impl Connection<'_>, user: UserId, number: i64) -> sqlx::Result<bool> {
    let delete = query("DELETE FROM shares WHERE number = $1 AND user_id = $2").bind(number).bind(user.as_str());
    Ok(delete.execute(connection).await?.rows_affected() > 0)
}

/// Forgets `most` links that have led to nothing since before `now`. Whether there may be more.
pub async fn forget_expired(connection: impl Connection<'_>, now: Micros, most: u32) -> sqlx::Result<bool> {
    let statement = "DELETE FROM shares WHERE number IN \
                     (SELECT number FROM shares WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    let delete = query(statement).bind(now).bind(i64::from(most));
    Ok(delete.execute(connection).await?.rows_affected() == u64::from(most))
}

/// Forgets `most` links into a namespace that is gone. Whether there may be more.
pub async fn forget_some(connection: impl Connection<'_>, namespace: i64, most: u32) -> sqlx::Result<bool> {
    let statement = "DELETE FROM shares WHERE number IN \
                     (SELECT number FROM shares WHERE namespace = $1 ORDER BY number LIMIT $2)";
    let delete = query(statement).bind(namespace).bind(i64::from(most));
    Ok(delete.execute(connection).await?.rows_affected() == u64::from(most))
}
