//! Up to where a database knows what is revoked.

use edd_events::bus::StreamState;
use edd_events::database::Database;
use sqlx::{AnyConnection, Row};

/// What a database that has been complete once knows of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The stream's; none if nobody could tell where the stream was when the auth service was asked.
    pub epoch: Option<i64>,
    /// All revocations of that epoch up to here are in the tables.
    pub seq: u64,
    /// How often the auth service was asked for all. Another number: there is more in the tables than events brought.
    pub snapshots: i64,
}

/// None: the tables have never been complete.
pub(super) async fn read(database: &Database) -> sqlx::Result<Option<Mark>> {
    let select = sqlx::query("SELECT epoch, seq, snapshots FROM revocation_mark WHERE id = 1");
    let row = select.fetch_optional(database.reader()).await?;
    let read = |row: sqlx::any::AnyRow| {
        let seq: i64 = row.try_get("seq")?;
        Ok(Mark { epoch: row.try_get("epoch")?, seq: seq.unsigned_abs(), snapshots: row.try_get("snapshots")? })
    };
    row.map(read).transpose()
}

/// Notes that everything is there that was revoked before the stream stood at `position`.
pub(super) async fn complete(connection: &mut AnyConnection, position: Option<StreamState>) -> sqlx::Result<Mark> {
    let (epoch, seq) = position.map_or((None, 0), |stream| (Some(stream.epoch), stream.last_seq));
    // Also downwards: in another epoch the numbers begin anew.
    let upsert = sqlx::query_scalar(
        "INSERT INTO revocation_mark (id, epoch, seq, snapshots) VALUES (1, $1, $2, 1) ON CONFLICT (id) DO UPDATE \
         SET epoch = excluded.epoch, seq = excluded.seq, snapshots = revocation_mark.snapshots + 1 RETURNING snapshots",
    );
    let snapshots = upsert.bind(epoch).bind(seq.cast_signed()).fetch_one(connection).await?;
    Ok(Mark { epoch, seq, snapshots })
}

/// Notes how far the durable consumer has come since.
pub(super) async fn raise(database: &Database, epoch: i64, seq: u64) -> sqlx::Result<()> {
    let update = sqlx::query("UPDATE revocation_mark SET seq = $1 WHERE id = 1 AND epoch = $2 AND seq < $1");
    update.bind(seq.cast_signed()).bind(epoch).execute(database.writer()).await.map(drop)
}
