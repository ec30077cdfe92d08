//! Resumable uploads. A row of one is locked after its namespace and before files and blobs.

use edd_events::clock::Micros;
use edd_events::database::Step;
use edd_proto::UserId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query, query_scalar};

use super::blobs::Piece;
use super::{Connection, count, parsed, signed, unknown};
use crate::sfs::model::{Owner, Upload, UploadId};
use crate::sfs::storage::BlobId;

pub(super) const STEP: Step = Step {
    version: 1210,
    name: "uploads",
    sql: "
CREATE TABLE uploads (
    id {key},
    namespace BIGINT NOT NULL,
    path {text} NOT NULL,
    user_id TEXT NOT NULL,
    user_number BIGINT NOT NULL,
    length BIGINT NOT NULL,
    received BIGINT NOT NULL,
    blobs BIGINT NOT NULL,
    media_type TEXT NOT NULL,
    overwrite BIGINT NOT NULL,
    -- An unfinished SHA-256.
    digest_state {bytes} NOT NULL,
    -- Who adds to it, until when.
    lease TEXT,
    leased_until BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- Set: it is a file.
    completed_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX uploads_user ON uploads (user_id) WHERE completed_at IS NULL;
CREATE INDEX uploads_namespace ON uploads (namespace);
CREATE INDEX uploads_expiry ON uploads (expires_at);
",
};

/// Whoever came last adds to one, and nobody is waited for: no time belongs to that.
pub(super) const LAST_COMER: Step =
    Step { version: 1211, name: "uploads_last_comer", sql: "ALTER TABLE uploads DROP COLUMN leased_until;" };

fn read(row: &AnyRow) -> sqlx::Result<Upload> {
    let blobs: i64 = row.try_get("blobs")?;
    Ok(Upload {
        id: parsed(row, "id")?,
        namespace: row.try_get("namespace")?,
        path: parsed(row, "path")?,
        uploader: Owner { user: parsed(row, "user_id")?, number: row.try_get("user_number")? },
        length: count(row, "length")?,
        received: count(row, "received")?,
        blobs: blobs.try_into().map_err(|_| unknown("blobs", blobs))?,
        media_type: parsed(row, "media_type")?,
        overwrite: row.try_get::<i64, _>("overwrite")? != 0,
        digest_state: row.try_get("digest_state")?,
        expires_at: row.try_get("expires_at")?,
        completed_at: row.try_get("completed_at")?,
        created_at: row.try_get("created_at")?,
    })
}

pub async fn insert(connection: impl Connection<'_>, new: &Upload) -> sqlx::Result<()> {
    let statement = "INSERT INTO uploads (id, namespace, path, user_id, user_number, length, received, blobs, \
                     media_type, overwrite, digest_state, expires_at, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, $8, $9, $10, $11)";
    let insert = query(statement).bind(new.id.to_string()).bind(new.namespace).bind(new.path.as_str());
    let insert = insert.bind(new.uploader.user.as_str()).bind(new.uploader.number).bind(signed(new.length));
    let insert = insert.bind(new.media_type.as_str()).bind(i64::from(new.overwrite)).bind(new.digest_state.clone());
    insert.bind(new.expires_at).bind(new.created_at).execute(connection).await?;
    Ok(())
}

pub async fn by_id(connection: impl Connection<'_>, id: UploadId) -> sqlx::Result<Option<Upload>> {
    let select = query("SELECT * FROM uploads WHERE id = $1").bind(id.to_string());
    select.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// The upload, locked until the transaction ends.
pub async fn lock(connection: &mut AnyConnection, id: UploadId) -> sqlx::Result<Option<Upload>> {
    let update = query("UPDATE uploads SET received = received WHERE id = $1 RETURNING *").bind(id.to_string());
    update.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// How many a user has begun and not finished.
pub async fn count_open(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<i64> {
    let statement = "SELECT count(*) FROM uploads WHERE user_id = $1 AND completed_at IS NULL";
    query_scalar(statement).bind(user.as_str()).fetch_one(connection).await
}

/// Lets `lease` alone add to an open upload that goes on at `offset`, whoever did so until now: the upload as it is then.
pub async fn take(
    connection: impl Connection<'_>,
    id: UploadId,
    offset: u64,
    lease: &str,
) -> sqlx::Result<Option<Upload>> {
    let statement = "UPDATE uploads SET lease = $1 \
                     WHERE id = $2 AND received = $3 AND completed_at IS NULL RETURNING *";
    let update = query(statement).bind(lease.to_owned()).bind(id.to_string()).bind(signed(offset));
    update.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// Puts off when it is given up. False: another adds to it by now.
pub async fn renew(
    connection: impl Connection<'_>,
    id: UploadId,
    lease: &str,
    expires_at: Micros,
) -> sqlx::Result<bool> {
    let statement = "UPDATE uploads SET expires_at = $1 WHERE id = $2 AND lease = $3";
    let update = query(statement).bind(expires_at).bind(id.to_string()).bind(lease.to_owned());
    Ok(update.execute(connection).await?.rows_affected() > 0)
}

/// What has come since.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    pub piece: Piece,
    /// How many there are before it.
    pub ordinal: u32,
    pub digest_state: &'a [u8],
    pub expires_at: Micros,
}

/// Writes down that a further piece is here for good. False: another adds to it by now, or the piece's time to be written
/// is over.
pub async fn append(
    connection: &mut AnyConnection,
    id: UploadId,
    lease: &str,
    arrival: &Arrival<'_>,
) -> sqlx::Result<bool> {
    let statement = "UPDATE uploads SET received = received + $1, blobs = blobs + 1, digest_state = $2, \
                     expires_at = $3 WHERE id = $4 AND lease = $5";
    let update = query(statement).bind(signed(arrival.piece.size)).bind(arrival.digest_state.to_vec());
    let update = update.bind(arrival.expires_at).bind(id.to_string()).bind(lease.to_owned());
    if update.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(false);
    }
    keep(connection, id, arrival).await
}

/// Makes a blob that is written one of the upload's, to be kept as long as that is.
async fn keep(connection: impl Connection<'_>, id: UploadId, arrival: &Arrival<'_>) -> sqlx::Result<bool> {
    let statement = "UPDATE blobs SET upload = $1, ordinal = $2, size = $3, due_at = NULL \
                     WHERE id = $4 AND upload IS NULL AND content IS NULL AND due_at > 0";
    let update = query(statement).bind(id.to_string()).bind(i64::from(arrival.ordinal));
    let update = update.bind(signed(arrival.piece.size)).bind(arrival.piece.id.to_string());
    Ok(update.execute(connection).await?.rows_affected() > 0)
}

/// The blobs of an upload that are here for good, in order.
pub async fn pieces(connection: impl Connection<'_>, id: UploadId, most: u32) -> sqlx::Result<Vec<Piece>> {
    let statement = "SELECT id, size FROM blobs WHERE upload = $1 AND due_at IS NULL ORDER BY ordinal LIMIT $2";
    let rows = query(statement).bind(id.to_string()).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Piece { id: parsed::<BlobId>(row, "id")?, size: count(row, "size")? })).collect()
}

/// Notes that the file is whole and where it belongs. False: another adds to it by now.
pub async fn complete(connection: impl Connection<'_>, id: UploadId, lease: &str, now: Micros) -> sqlx::Result<bool> {
    let update = query("UPDATE uploads SET completed_at = $1, lease = NULL WHERE id = $2 AND lease = $3");
    let update = update.bind(now).bind(id.to_string()).bind(lease.to_owned());
    Ok(update.execute(connection).await?.rows_affected() > 0)
}

/// Forgets an upload; what came of it, unless a file has it, is garbage from `now` on.
pub async fn delete(connection: &mut AnyConnection, id: UploadId, now: Micros) -> sqlx::Result<()> {
    // Its row first: whoever adds a blob at this moment waits for it, and finds that there is none.
    query("DELETE FROM uploads WHERE id = $1").bind(id.to_string()).execute(&mut *connection).await?;
    let update = query("UPDATE blobs SET due_at = $1, upload = NULL WHERE upload = $2").bind(now).bind(id.to_string());
    update.execute(connection).await?;
    Ok(())
}

/// Uploads whose time is over.
pub async fn expired(connection: impl Connection<'_>, now: Micros, most: u32) -> sqlx::Result<Vec<UploadId>> {
    let statement = "SELECT id FROM uploads WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2";
    let rows = query(statement).bind(now).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}

/// Bytes that open uploads into the namespaces of `owner` have set aside.
pub async fn reserved_bytes(connection: impl Connection<'_>, owner: UserId) -> sqlx::Result<u64> {
    let statement = "SELECT CAST(COALESCE(SUM(uploads.length), 0) AS BIGINT) AS bytes FROM uploads \
                     JOIN namespaces ON namespaces.number = uploads.namespace \
                     WHERE namespaces.user_id = $1 AND namespaces.deleted_at IS NULL AND uploads.completed_at IS NULL";
    count(&query(statement).bind(owner.as_str()).fetch_one(connection).await?, "bytes")
}

/// Bytes that open uploads into one namespace have set aside.
pub async fn reserved_in(connection: impl Connection<'_>, namespace: i64) -> sqlx::Result<u64> {
    let statement = "SELECT CAST(COALESCE(SUM(length), 0) AS BIGINT) AS bytes FROM uploads \
                     WHERE namespace = $1 AND completed_at IS NULL";
    count(&query(statement).bind(namespace).fetch_one(connection).await?, "bytes")
}

/// Forgets `most` uploads into a namespace that is gone. Whether there may be more.
pub async fn forget_some(connection: &mut AnyConnection, namespace: i64, most: u32, now: Micros) -> sqlx::Result<bool> {
    let select = query("SELECT id FROM uploads WHERE namespace = $1 ORDER BY id LIMIT $2");
    let rows = select.bind(namespace).bind(i64::from(most)).fetch_all(&mut *connection).await?;
    for row in &rows {
        delete(connection, parsed(row, "id")?, now).await?;
    }
    Ok(rows.len() == most as usize)
}
