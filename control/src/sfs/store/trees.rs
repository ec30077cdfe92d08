//! A folder with everything below it, or a file alone: read, moved, copied and taken away.

use sqlx::{AnyConnection, Row, query, query_scalar};

use super::files::{self, below};
use super::{Connection, parsed};
use crate::sfs::model::{Entry, FilePath};

/// Rows that one statement adds.
const INSERTED_AT_ONCE: usize = 200;

/// Places of entries: what is at `path`, and below it.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    pub namespace: i64,
    pub path: &'a FilePath,
}

impl Tree<'_> {
    /// The folder that it is in, as the table has it.
    fn parent(self) -> String {
        self.path.parent().map(|parent| parent.as_str().to_owned()).unwrap_or_default()
    }

    /// How many characters its path has, and one.
    fn rest_at(self) -> i64 {
        i64::try_from(self.path.as_str().chars().count() + 1).unwrap_or(i64::MAX)
    }
}

/// At most `most` entries of it, by path: the one at its path first, and a folder before what is in it.
pub async fn entries(connection: &mut AnyConnection, tree: Tree<'_>, most: u32) -> sqlx::Result<Vec<Entry>> {
    let (first, end) = below(Some(tree.path));
    let statement = "SELECT path, content, media_type, created_at, modified_at, size, sha256 \
                     FROM files LEFT JOIN contents ON contents.number = files.content \
                     WHERE namespace = $1 AND (path = $2 OR (path > $3 AND path < $4)) ORDER BY path LIMIT $5";
    let select = query(statement).bind(tree.namespace).bind(tree.path.as_str()).bind(first).bind(end);
    select.bind(i64::from(most)).fetch_all(connection).await?.iter().map(files::read).collect()
}

/// Puts it elsewhere, where nothing is.
pub async fn rename(connection: impl Connection<'_>, from: Tree<'_>, to: Tree<'_>) -> sqlx::Result<()> {
    let statement = "UPDATE files SET namespace = $1, path = $2 || substr(path, CAST($3 AS INTEGER)), \
                     parent = CASE WHEN path = $4 THEN $5 ELSE $2 || substr(parent, CAST($3 AS INTEGER)) END \
                     WHERE namespace = $6 AND (path = $4 OR (path > $7 AND path < $8))";
    let (first, end) = below(Some(from.path));
    let update = query(statement).bind(to.namespace).bind(to.path.as_str()).bind(from.rest_at());
    let update = update.bind(from.path.as_str()).bind(to.parent()).bind(from.namespace).bind(first).bind(end);
    update.execute(connection).await?;
    Ok(())
}

/// Puts copies of `entries` into a namespace, where nothing is, and counts that they share their contents. False: some
/// of those are gone, and the transaction is to be dropped.
pub async fn copy(connection: &mut AnyConnection, to: Tree<'_>, entries: &[Entry]) -> sqlx::Result<bool> {
    for entries in entries.chunks(INSERTED_AT_ONCE) {
        files::insert(&mut *connection, to.namespace, entries).await?;
    }
    share(connection, to).await
}

/// Counts every file of it as one that has its content.
async fn share(connection: &mut AnyConnection, tree: Tree<'_>) -> sqlx::Result<bool> {
    const THERE: &str = "namespace = $1 AND (path = $2 OR (path > $3 AND path < $4)) AND content IS NOT NULL";
    let (first, end) = below(Some(tree.path));
    let statement = format!("SELECT COUNT(DISTINCT content) FROM files WHERE {THERE}");
    let count = query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement)).bind(tree.namespace).bind(tree.path.as_str());
    let contents = count.bind(first.clone()).bind(end.clone()).fetch_one(&mut *connection).await?;
    let statement = format!(
        "UPDATE contents SET refs = refs + (SELECT COUNT(*) FROM files WHERE {THERE} AND content = contents.number) \
         WHERE number IN (SELECT content FROM files WHERE {THERE})"
    );
    let update = query(sqlx::AssertSqlSafe(statement)).bind(tree.namespace).bind(tree.path.as_str());
    let shared = update.bind(first).bind(end).execute(connection).await?.rows_affected();
    Ok(i64::try_from(shared) == Ok(contents))
}

/// What was taken away.
#[derive(Clone, Debug)]
pub struct Removed {
    pub path: FilePath,
    /// Of a file.
    pub content: Option<i64>,
    pub size: i64,
}

/// Takes at most `most` entries of it away, the last first, so that no folder goes before what is in it. None without a
/// path means all of the namespace.
pub async fn remove_some(
    connection: &mut AnyConnection,
    namespace: i64,
    path: Option<&FilePath>,
    most: u32,
) -> sqlx::Result<Vec<Removed>> {
    let (first, end) = below(path);
    let statement = "DELETE FROM files WHERE namespace = $1 AND path IN (SELECT path FROM files WHERE namespace = $1 \
                     AND (path = $2 OR (path > $3 AND path < $4)) ORDER BY path DESC LIMIT $5) \
                     RETURNING path, content, \
                     COALESCE((SELECT size FROM contents WHERE contents.number = files.content), 0) AS size";
    let at = path.map(ToString::to_string).unwrap_or_default();
    let delete = query(statement).bind(namespace).bind(at).bind(first).bind(end).bind(i64::from(most));
    let read = |row: &sqlx::any::AnyRow| {
        Ok(Removed { path: parsed(row, "path")?, content: row.try_get("content")?, size: row.try_get("size")? })
    };
    delete.fetch_all(connection).await?.iter().map(read).collect()
}
