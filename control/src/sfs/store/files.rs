//! Files and folders, one at a time or a page of them.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row, query};

use super::blobs::Piece;
use super::{Connection, broken, count, parsed, places};
use crate::sfs::model::{Checksum, Entry, File, FilePath};

const COLUMNS: &str = "path, content, media_type, created_at, modified_at, size, sha256";

/// What every statement that reads entries begins with.
fn select(rest: &str) -> AssertSqlSafe<String> {
    let from = "files LEFT JOIN contents ON contents.number = files.content";
    AssertSqlSafe(format!("SELECT {COLUMNS} FROM {from} {rest}"))
}

pub(super) fn read(row: &AnyRow) -> sqlx::Result<Entry> {
    let content: Option<i64> = row.try_get("content")?;
    let file = |content| {
        let sha256 = row.try_get::<Vec<u8>, _>("sha256")?;
        let sha256: [u8; 32] =
            sha256.try_into().map_err(|_| broken("sha256", std::io::Error::other("it has not 32 bytes")))?;
        Ok::<_, sqlx::Error>(File {
            content,
            size: count(row, "size")?,
            checksum: Checksum(sha256),
            media_type: parsed(row, "media_type")?,
        })
    };
    Ok(Entry {
        path: parsed(row, "path")?,
        file: content.map(file).transpose()?,
        created_at: row.try_get("created_at")?,
        modified_at: row.try_get("modified_at")?,
    })
}

fn parent_of(path: &FilePath) -> String {
    path.parent().map(|parent| parent.as_str().to_owned()).unwrap_or_default()
}

/// The bounds of what is below `folder`: paths greater than the first and smaller than the second. All of a namespace
/// without one.
pub(super) fn below(folder: Option<&FilePath>) -> (String, String) {
    match folder {
        // What follows / in ASCII.
        Some(folder) => (format!("{folder}/"), format!("{folder}0")),
        None => (String::new(), char::MAX.to_string()),
    }
}

pub async fn at(connection: impl Connection<'_>, namespace: i64, path: &FilePath) -> sqlx::Result<Option<Entry>> {
    let statement = query(select("WHERE namespace = $1 AND path = $2")).bind(namespace).bind(path.as_str());
    statement.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// An entry with the pieces of its content, in order. One statement, so that they are of one moment.
pub async fn with_pieces(
    connection: impl Connection<'_>,
    namespace: i64,
    path: &FilePath,
) -> sqlx::Result<Option<(Entry, Vec<Piece>)>> {
    let statement = "SELECT path, files.content, media_type, created_at, modified_at, contents.size AS size, sha256, \
                     blobs.id AS blob, blobs.size AS blob_size \
                     FROM files LEFT JOIN contents ON contents.number = files.content \
                     LEFT JOIN blobs ON blobs.content = files.content \
                     WHERE namespace = $1 AND path = $2 ORDER BY ordinal";
    let rows = query(statement).bind(namespace).bind(path.as_str()).fetch_all(connection).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mut pieces = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get::<Option<&str>, _>("blob")?.is_some() {
            pieces.push(Piece { id: parsed(row, "blob")?, size: count(row, "blob_size")? });
        }
    }
    Ok(Some((read(first)?, pieces)))
}

/// What some of `paths` are: the path, and whether it is a folder.
pub async fn kinds(
    connection: impl Connection<'_>,
    namespace: i64,
    paths: &[FilePath],
) -> sqlx::Result<Vec<(FilePath, bool)>> {
    let statement =
        format!("SELECT path, content FROM files WHERE namespace = $1 AND path IN ({})", places(2, paths.len()));
    let select = query(AssertSqlSafe(statement)).bind(namespace);
    let select = paths.iter().fold(select, |select, path| select.bind(path.to_string()));
    let read = |row: &AnyRow| Ok((parsed(row, "path")?, row.try_get::<Option<i64>, _>("content")?.is_none()));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

/// Writes an entry, new or in place of the one at its path.
pub async fn put(connection: impl Connection<'_>, namespace: i64, entry: &Entry) -> sqlx::Result<()> {
    let rest = "ON CONFLICT (namespace, path) DO UPDATE SET \
                content = excluded.content, media_type = excluded.media_type, modified_at = excluded.modified_at";
    write(connection, namespace, std::slice::from_ref(entry), rest).await
}

/// Adds entries where there are none.
pub async fn insert(connection: impl Connection<'_>, namespace: i64, entries: &[Entry]) -> sqlx::Result<()> {
    write(connection, namespace, entries, "").await
}

async fn write(connection: impl Connection<'_>, namespace: i64, entries: &[Entry], rest: &str) -> sqlx::Result<()> {
    const BOUND: usize = 6;
    let row = |index: usize| format!("($1, {})", places(2 + index * BOUND, BOUND));
    let rows: Vec<String> = (0..entries.len()).map(row).collect();
    let columns = "namespace, path, parent, content, media_type, created_at, modified_at";
    let statement = format!("INSERT INTO files ({columns}) VALUES {} {rest}", rows.join(", "));
    let mut insert = query(AssertSqlSafe(statement)).bind(namespace);
    for entry in entries {
        let media_type = entry.file.as_ref().map_or("", |file| file.media_type.as_str());
        insert = insert.bind(entry.path.as_str()).bind(parent_of(&entry.path));
        insert = insert.bind(entry.file.as_ref().map(|file| file.content)).bind(media_type);
        insert = insert.bind(entry.created_at).bind(entry.modified_at);
    }
    insert.execute(connection).await?;
    Ok(())
}

/// Takes an entry away. Whether it was there.
pub async fn remove(connection: impl Connection<'_>, namespace: i64, path: &FilePath) -> sqlx::Result<bool> {
    let delete = query("DELETE FROM files WHERE namespace = $1 AND path = $2").bind(namespace).bind(path.as_str());
    Ok(delete.execute(connection).await?.rows_affected() > 0)
}

/// What is in a folder, or at the top, by name.
pub async fn children(
    connection: impl Connection<'_>,
    namespace: i64,
    folder: Option<&FilePath>,
    after: Option<&FilePath>,
    most: u32,
) -> sqlx::Result<Vec<Entry>> {
    let statement = query(select("WHERE namespace = $1 AND parent = $2 AND path > $3 ORDER BY path LIMIT $4"));
    let statement = statement.bind(namespace).bind(folder.map(ToString::to_string).unwrap_or_default());
    let statement = statement.bind(after.map(ToString::to_string).unwrap_or_default()).bind(i64::from(most));
    statement.fetch_all(connection).await?.iter().map(read).collect()
}

/// The files below a folder, however deep, or of a namespace, by path.
pub async fn deep(
    connection: impl Connection<'_>,
    namespace: i64,
    folder: Option<&FilePath>,
    after: Option<&FilePath>,
    most: u32,
) -> sqlx::Result<Vec<Entry>> {
    let (first, end) = below(folder);
    let rest = "WHERE namespace = $1 AND path > $2 AND path < $3 AND content IS NOT NULL ORDER BY path LIMIT $4";
    let from = after.map_or(first.clone(), |after| first.max(after.to_string()));
    let statement = query(select(rest)).bind(namespace).bind(from).bind(end).bind(i64::from(most));
    statement.fetch_all(connection).await?.iter().map(read).collect()
}

/// Whether there is anything below a folder.
pub async fn is_empty(connection: impl Connection<'_>, namespace: i64, folder: &FilePath) -> sqlx::Result<bool> {
    let statement = "SELECT path FROM files WHERE namespace = $1 AND parent = $2 LIMIT 1";
    let found = query(statement).bind(namespace).bind(folder.as_str());
    Ok(found.fetch_optional(connection).await?.is_none())
}

/// Whether the file at a path has the content `number`; without one, whether its content is gone.
pub async fn has_content(
    connection: impl Connection<'_>,
    namespace: i64,
    path: &FilePath,
    number: Option<i64>,
) -> sqlx::Result<bool> {
    let chosen = match number {
        Some(_) => "content = $3",
        None => "content <> $3 AND NOT EXISTS (SELECT 1 FROM contents WHERE contents.number = files.content)",
    };
    let statement = format!("SELECT path FROM files WHERE namespace = $1 AND path = $2 AND {chosen}");
    let select = query(AssertSqlSafe(statement)).bind(namespace).bind(path.as_str()).bind(number.unwrap_or_default());
    Ok(select.fetch_optional(connection).await?.is_some())
}
