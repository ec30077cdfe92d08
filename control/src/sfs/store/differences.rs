//! What a comparison of the tables with each other needs. Every statement is of one moment, so that a change that goes on
//! meanwhile is seen whole or not at all.

use edd_events::clock::Micros;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query, query_scalar};

use super::namespaces::Change;
use super::{Connection, blobs, count, parsed};
use crate::sfs::model::{Checksum, FilePath, NamespaceName};
use crate::sfs::storage::BlobId;

/// What is counted of a namespace, and what is there.
#[derive(Clone, Debug)]
pub struct Usage {
    pub number: i64,
    pub name: NamespaceName,
    pub counted: Change,
    pub actual: Change,
}

const USAGE: &str = "SELECT number, name, used_bytes, files, folders, \
     (SELECT CAST(COALESCE(SUM(contents.size), 0) AS BIGINT) FROM files AS f JOIN contents ON contents.number = f.content \
      WHERE f.namespace = namespaces.number) AS actual_bytes, \
     (SELECT COUNT(*) FROM files AS f WHERE f.namespace = namespaces.number AND f.content IS NOT NULL) AS actual_files, \
     (SELECT COUNT(*) FROM files AS f WHERE f.namespace = namespaces.number AND f.content IS NULL) AS actual_folders \
     FROM namespaces WHERE deleted_at IS NULL";

fn usage(row: &AnyRow) -> sqlx::Result<Usage> {
    let change = |bytes, files, folders| {
        let [bytes, files, folders] = [bytes, files, folders].map(|column| row.try_get::<i64, _>(column));
        Ok::<_, sqlx::Error>(Change { bytes: bytes?, files: files?, folders: folders? })
    };
    Ok(Usage {
        number: row.try_get("number")?,
        name: parsed(row, "name")?,
        counted: change("used_bytes", "files", "folders")?,
        actual: change("actual_bytes", "actual_files", "actual_folders")?,
    })
}

/// The namespace with the lowest number above `after`.
pub async fn next_usage(connection: impl Connection<'_>, after: i64) -> sqlx::Result<Option<Usage>> {
    let select = query(sqlx::AssertSqlSafe(format!("{USAGE} AND number > $1 ORDER BY number LIMIT 1")));
    select.bind(after).fetch_optional(connection).await?.as_ref().map(usage).transpose()
}

/// That of one namespace.
pub async fn usage_of(connection: impl Connection<'_>, number: i64) -> sqlx::Result<Option<Usage>> {
    let select = query(sqlx::AssertSqlSafe(format!("{USAGE} AND number = $1"))).bind(number);
    select.fetch_optional(connection).await?.as_ref().map(usage).transpose()
}

/// A content, what is counted of it, and what is there.
#[derive(Clone, Debug)]
pub struct Content {
    pub number: i64,
    pub size: u64,
    pub checksum: Checksum,
    pub refs: i64,
    pub files: i64,
    /// Of all its blobs.
    pub blob_bytes: u64,
}

/// At most `most` contents with numbers above `after`.
pub async fn contents(connection: impl Connection<'_>, after: i64, most: u32) -> sqlx::Result<Vec<Content>> {
    let statement = "SELECT number, size, sha256, refs, \
                     (SELECT COUNT(*) FROM files WHERE files.content = contents.number) AS files, \
                     (SELECT CAST(COALESCE(SUM(blobs.size), 0) AS BIGINT) FROM blobs \
                      WHERE blobs.content = contents.number) AS blob_bytes \
                     FROM contents WHERE number > $1 ORDER BY number LIMIT $2";
    let read = |row: &AnyRow| {
        let sha256: Vec<u8> = row.try_get("sha256")?;
        let wrong = |_| super::broken("sha256", std::io::Error::other("it has not 32 bytes"));
        Ok(Content {
            number: row.try_get("number")?,
            size: count(row, "size")?,
            checksum: Checksum(sha256.try_into().map_err(wrong)?),
            refs: row.try_get("refs")?,
            files: row.try_get("files")?,
            blob_bytes: count(row, "blob_bytes")?,
        })
    };
    query(statement).bind(after).bind(i64::from(most)).fetch_all(connection).await?.iter().map(read).collect()
}

/// Counts the files of a content again. The blobs of one that has none are garbage from `due_at` on.
pub async fn recount(connection: &mut AnyConnection, number: i64, due_at: Micros) -> sqlx::Result<()> {
    // Locks it, so that what is counted stays so.
    query("UPDATE contents SET refs = refs WHERE number = $1").bind(number).execute(&mut *connection).await?;
    let count = query_scalar::<_, i64>("SELECT COUNT(*) FROM files WHERE content = $1").bind(number);
    let files = count.fetch_one(&mut *connection).await?;
    if files > 0 {
        let update = query("UPDATE contents SET refs = $1 WHERE number = $2").bind(files).bind(number);
        update.execute(connection).await?;
        return Ok(());
    }
    query("DELETE FROM contents WHERE number = $1").bind(number).execute(&mut *connection).await?;
    blobs::detach(connection, number, due_at).await
}

/// The pieces of a content, in order.
pub async fn pieces(connection: impl Connection<'_>, content: i64) -> sqlx::Result<Vec<blobs::Piece>> {
    let statement = "SELECT id, size FROM blobs WHERE content = $1 ORDER BY ordinal LIMIT 100000";
    let read = |row: &AnyRow| Ok(blobs::Piece { id: parsed(row, "id")?, size: count(row, "size")? });
    query(statement).bind(content).fetch_all(connection).await?.iter().map(read).collect()
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub number: i64,
    pub namespace: NamespaceName,
    pub path: FilePath,
}

fn location(row: &AnyRow) -> sqlx::Result<Location> {
    Ok(Location { number: row.try_get("number")?, namespace: parsed(row, "name")?, path: parsed(row, "path")? })
}

/// Some of the files that have a content.
pub async fn files_of(connection: impl Connection<'_>, content: i64, most: u32) -> sqlx::Result<Vec<Location>> {
    let statement = "SELECT number, name, path FROM files JOIN namespaces ON number = namespace \
                     WHERE content = $1 AND deleted_at IS NULL ORDER BY number, path LIMIT $2";
    let select = query(statement).bind(content).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(location).collect()
}

/// Files of which the content is gone, after `after`.
pub async fn headless(
    connection: impl Connection<'_>,
    after: Option<&Location>,
    most: u32,
) -> sqlx::Result<Vec<Location>> {
    let missing = "content IS NOT NULL AND NOT EXISTS (SELECT 1 FROM contents WHERE contents.number = files.content)";
    page(connection, missing, after, most).await
}

/// Entries that are in a folder that is not there, after `after`.
pub async fn homeless(
    connection: impl Connection<'_>,
    after: Option<&Location>,
    most: u32,
) -> sqlx::Result<Vec<Location>> {
    let missing = "parent <> '' AND NOT EXISTS (SELECT 1 FROM files AS f WHERE f.namespace = files.namespace \
                   AND f.path = files.parent AND f.content IS NULL)";
    page(connection, missing, after, most).await
}

async fn page(
    connection: impl Connection<'_>,
    chosen: &str,
    after: Option<&Location>,
    most: u32,
) -> sqlx::Result<Vec<Location>> {
    let statement = format!(
        "SELECT namespaces.number AS number, name, path FROM files JOIN namespaces ON namespaces.number = namespace \
         WHERE deleted_at IS NULL AND (namespace > $1 OR (namespace = $1 AND path > $2)) AND {chosen} \
         ORDER BY namespace, path LIMIT $3"
    );
    let select = query(sqlx::AssertSqlSafe(statement)).bind(after.map_or(0, |after| after.number));
    let select = select.bind(after.map(|after| after.path.to_string()).unwrap_or_default()).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(location).collect()
}

/// Blobs that are kept for nothing: their content or their upload is gone, or they never had one.
pub async fn loose(connection: impl Connection<'_>, after: Option<BlobId>, most: u32) -> sqlx::Result<Vec<BlobId>> {
    let statement = "SELECT id FROM blobs WHERE id > $1 AND due_at IS NULL \
                     AND NOT EXISTS (SELECT 1 FROM contents WHERE contents.number = blobs.content) \
                     AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.id = blobs.upload) ORDER BY id LIMIT $2";
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let rows = query(statement).bind(after).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}

/// Makes such a blob garbage from `due_at` on.
pub async fn release(connection: impl Connection<'_>, id: BlobId, due_at: Micros) -> sqlx::Result<()> {
    let statement = "UPDATE blobs SET content = NULL, upload = NULL, due_at = $1 WHERE id = $2 AND due_at IS NULL \
                     AND NOT EXISTS (SELECT 1 FROM contents WHERE contents.number = blobs.content) \
                     AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.id = blobs.upload)";
    query(statement).bind(due_at).bind(id.to_string()).execute(connection).await?;
    Ok(())
}
