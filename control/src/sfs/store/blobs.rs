//! Objects in the store, and what may become of them.

use edd_events::clock::Micros;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row, query, query_scalar};

use super::{Connection, broken, count, parsed, places, signed};
use crate::sfs::storage::BlobId;

/// A piece of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub id: BlobId,
    pub size: u64,
}

/// Adds the rows of blobs that are soon to be written.
pub async fn insert(connection: impl Connection<'_>, ids: &[BlobId], due_at: Micros) -> sqlx::Result<()> {
    let rows: Vec<String> = (2..2 + ids.len()).map(|place| format!("(${place}, 0, 0, $1)")).collect();
    let statement = format!("INSERT INTO blobs (id, ordinal, size, due_at) VALUES {}", rows.join(", "));
    let insert = query(AssertSqlSafe(statement)).bind(due_at);
    ids.iter().fold(insert, |insert, id| insert.bind(id.to_string())).execute(connection).await?;
    Ok(())
}

/// Puts off when those of `ids` are garbage that are to be. How many are: none if they are kept, or being removed.
pub async fn extend(connection: impl Connection<'_>, ids: &[BlobId], due_at: Micros) -> sqlx::Result<u64> {
    let statement =
        format!("UPDATE blobs SET due_at = $1 WHERE id IN ({}) AND due_at > 0 AND due_at < $1", places(2, ids.len()));
    let update = query(AssertSqlSafe(statement)).bind(due_at);
    let update = ids.iter().fold(update, |update, id| update.bind(id.to_string()));
    Ok(update.execute(connection).await?.rows_affected())
}

/// Makes a blob that nobody will need garbage at once. False: its time is over already.
pub async fn expire(connection: impl Connection<'_>, id: BlobId, now: Micros) -> sqlx::Result<bool> {
    let update =
        query("UPDATE blobs SET due_at = $1 WHERE id = $2 AND content IS NULL AND upload IS NULL AND due_at > $1");
    Ok(update.bind(now).bind(id.to_string()).execute(connection).await?.rows_affected() > 0)
}

/// Gives a blob that was written to a content. False: the time to write it was over, and it is being removed, or gone.
pub async fn attach(connection: impl Connection<'_>, piece: Piece, content: i64, ordinal: usize) -> sqlx::Result<bool> {
    let statement = "UPDATE blobs SET content = $1, ordinal = $2, size = $3, upload = NULL, due_at = NULL \
                     WHERE id = $4 AND content IS NULL AND (due_at > 0 OR (due_at IS NULL AND upload IS NOT NULL))";
    let update = query(statement).bind(content).bind(signed(ordinal as u64)).bind(signed(piece.size));
    Ok(update.bind(piece.id.to_string()).execute(connection).await?.rows_affected() > 0)
}

/// Takes a content's blobs from it; they are garbage from `due_at` on.
pub async fn detach(connection: impl Connection<'_>, content: i64, due_at: Micros) -> sqlx::Result<()> {
    let update = query("UPDATE blobs SET content = NULL, due_at = $1 WHERE content = $2").bind(due_at).bind(content);
    update.execute(connection).await?;
    Ok(())
}

/// Condemns garbage: what this returns is removed from the store and then forgotten, and nobody can put that off.
pub async fn condemn(connection: impl Connection<'_>, now: Micros, most: u32) -> sqlx::Result<Vec<BlobId>> {
    let statement = "UPDATE blobs SET due_at = 0, upload = NULL WHERE id IN \
                     (SELECT id FROM blobs WHERE due_at <= $1 AND content IS NULL ORDER BY due_at, id LIMIT $2) \
                     AND due_at <= $1 AND content IS NULL RETURNING id";
    let ids: Vec<String> = query_scalar(statement).bind(now).bind(i64::from(most)).fetch_all(connection).await?;
    ids.iter().map(|id| id.parse().map_err(|error| broken("id", error))).collect()
}

/// Forgets condemned blobs that are not in the store any more.
pub async fn forget(connection: impl Connection<'_>, ids: &[BlobId]) -> sqlx::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let statement = format!("DELETE FROM blobs WHERE id IN ({}) AND due_at = 0", places(1, ids.len()));
    let delete = ids.iter().fold(query(AssertSqlSafe(statement)), |delete, id| delete.bind(id.to_string()));
    delete.execute(connection).await?;
    Ok(())
}

/// When the next one is garbage.
pub async fn next_due(connection: impl Connection<'_>) -> sqlx::Result<Option<Micros>> {
    let statement = "SELECT due_at FROM blobs WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1";
    query_scalar(statement).fetch_optional(connection).await
}

/// A blob as a comparison with the store needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub id: BlobId,
    pub size: u64,
    /// The content that it is a piece of.
    pub content: Option<i64>,
    /// Whether somebody needs it: a content, or an upload that has all of it.
    pub is_kept: bool,
}

fn known(row: &AnyRow) -> sqlx::Result<Known> {
    let due_at: Option<i64> = row.try_get("due_at")?;
    Ok(Known {
        id: parsed(row, "id")?,
        size: count(row, "size")?,
        content: row.try_get("content")?,
        is_kept: due_at.is_none(),
    })
}

/// At most `most` blobs with ids after `after`, by id.
pub async fn page(connection: impl Connection<'_>, after: Option<BlobId>, most: u32) -> sqlx::Result<Vec<Known>> {
    let statement = "SELECT id, size, content, due_at FROM blobs WHERE id > $1 ORDER BY id LIMIT $2";
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let select = query(statement).bind(after).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(known).collect()
}

/// Which of `ids` the database has.
pub async fn of_ids(connection: impl Connection<'_>, ids: &[BlobId]) -> sqlx::Result<Vec<Known>> {
    let statement = format!("SELECT id, size, content, due_at FROM blobs WHERE id IN ({})", places(1, ids.len()));
    let select = ids.iter().fold(query(AssertSqlSafe(statement)), |select, id| select.bind(id.to_string()));
    select.fetch_all(connection).await?.iter().map(known).collect()
}
