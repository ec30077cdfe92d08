//! What is known of each projection: where it stands, and what it lacks.

use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::clock::Micros;
use crate::database::{Database, Step};
use crate::projection::Shape;

/// Projections that one service has, at most.
const MAX_PROJECTIONS: i64 = 100;
/// What a projection lacks before its first snapshot.
const NEVER: &str = "it has never been filled from its owner";

pub(crate) const STEP: Step = Step {
    version: 20,
    name: "projections",
    sql: "
CREATE TABLE projections (
    name TEXT PRIMARY KEY,
    stream TEXT NOT NULL,
    -- Counts the snapshots and replays that began. A row carries the number of the one in which it was last touched.
    round BIGINT NOT NULL,
    -- The stream's, as the last snapshot found it.
    epoch BIGINT,
    synced_seq BIGINT NOT NULL,
    -- All messages up to here have had their effect, or are in the snapshot.
    covered_seq BIGINT NOT NULL,
    -- Why a snapshot is needed and since when; NULL if none is.
    needed TEXT,
    needed_since BIGINT,
    -- What kept the last attempt from it.
    failure TEXT,
    started_at BIGINT,
    finished_at BIGINT,
    ready_at BIGINT,
    reconciled_at BIGINT,
    -- How often the projection was found to differ from its owner's state.
    differences BIGINT NOT NULL,
    -- The table that a replay fills, and when that replay is dead unless it shows life.
    shadow TEXT,
    shadow_until BIGINT,
    shadows BIGINT NOT NULL
);
",
};

/// A projection as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub name: String,
    pub stream: String,
    /// The epoch of the stream when the last snapshot was taken.
    pub epoch: Option<i64>,
    /// The stream's last sequence before the last snapshot was read.
    pub synced_seq: u64,
    /// All messages of that epoch up to here have had their effect, or are in the snapshot. Where to follow the stream
    /// from for who has read the table.
    pub covered_seq: u64,
    /// Why a snapshot is needed; none if the projection follows its owner.
    pub needed: Option<String>,
    pub needed_since: Option<Micros>,
    /// What kept the last attempt from it.
    pub failure: Option<String>,
    /// When the last snapshot began, and when one was last complete.
    pub started_at: Option<Micros>,
    pub finished_at: Option<Micros>,
    /// When all of the first snapshot and the events before it were there. A projection that is ready stays so: old
    /// state is served until newer comes.
    pub ready_at: Option<Micros>,
    pub reconciled_at: Option<Micros>,
    pub differences: u64,
    /// The table that a replay fills.
    pub shadow: Option<String>,
    pub(crate) round: i64,
}

impl Status {
    /// Whether it has been complete once.
    pub fn is_ready(&self) -> bool {
        self.ready_at.is_some()
    }

    /// For how long it has been in need of a snapshot that it cannot get.
    pub fn stale_for(&self, now: Micros) -> Option<Duration> {
        let since = self.needed_since?;
        Some(Duration::from_micros(now.saturating_sub(since).max(0) as u64))
    }

    fn of(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            stream: row.try_get("stream")?,
            epoch: row.try_get("epoch")?,
            synced_seq: row.try_get::<i64, _>("synced_seq")? as u64,
            covered_seq: row.try_get::<i64, _>("covered_seq")? as u64,
            needed: row.try_get("needed")?,
            needed_since: row.try_get("needed_since")?,
            failure: row.try_get("failure")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            ready_at: row.try_get("ready_at")?,
            reconciled_at: row.try_get("reconciled_at")?,
            differences: row.try_get::<i64, _>("differences")? as u64,
            shadow: row.try_get("shadow")?,
            round: row.try_get("round")?,
        })
    }
}

/// All projections of a database.
///
/// # Errors
/// The database fails.
pub async fn list(database: &Database) -> sqlx::Result<Vec<Status>> {
    let select = sqlx::query("SELECT * FROM projections ORDER BY name LIMIT $1").bind(MAX_PROJECTIONS);
    select.fetch_all(database.reader()).await?.iter().map(Status::of).collect()
}

/// The status of one, which is noted if it is new.
pub(crate) async fn open(database: &Database, shape: &Shape, stream: &str, now: Micros) -> sqlx::Result<Status> {
    let select = || sqlx::query("SELECT * FROM projections WHERE name = $1").bind(shape.name);
    if let Some(row) = select().fetch_optional(database.reader()).await? {
        return Status::of(&row);
    }
    let insert = sqlx::query(
        "INSERT INTO projections (name, stream, round, synced_seq, covered_seq, needed, needed_since, differences, shadows) \
         VALUES ($1, $2, 1, 0, 0, $3, $4, 0, 0) ON CONFLICT DO NOTHING",
    );
    insert.bind(shape.name).bind(stream).bind(NEVER).bind(now).execute(database.writer()).await?;
    Status::of(&select().fetch_one(database.writer()).await?)
}

/// Begins a round, in which a snapshot is read: its number. What is touched by then carries a lower one.
pub(crate) async fn begin_round(database: &Database, name: &str, now: Micros) -> sqlx::Result<i64> {
    let update = "UPDATE projections SET round = round + 1, started_at = $1 WHERE name = $2 RETURNING round";
    sqlx::query_scalar(update).bind(now).bind(name).fetch_one(database.writer()).await
}

/// A snapshot is complete that was read after the stream stood at `seq`.
pub(crate) async fn finish_round(
    connection: &mut AnyConnection,
    name: &str,
    (epoch, seq): (i64, u64),
    now: Micros,
) -> sqlx::Result<()> {
    // Also downwards: in another epoch the numbers begin anew.
    let update = sqlx::query(
        "UPDATE projections SET epoch = $1, synced_seq = $2, covered_seq = $2, needed = NULL, needed_since = NULL, \
         failure = NULL, finished_at = $3 WHERE name = $4",
    );
    update.bind(epoch).bind(seq as i64).bind(now).bind(name).execute(connection).await?;
    Ok(())
}

/// Notes that a snapshot is needed. Stays until there is one: what showed the need may pass, the loss does not.
pub(crate) async fn need(database: &Database, name: &str, why: &str, now: Micros) -> sqlx::Result<()> {
    let update = "UPDATE projections SET needed = $1, needed_since = $2 WHERE name = $3 AND needed IS NULL";
    sqlx::query(update).bind(why).bind(now).bind(name).execute(database.writer()).await?;
    Ok(())
}

/// Notes how far the consumer has come; not while messages are known to be lost, nor after a snapshot of another epoch.
pub(crate) async fn cover(database: &Database, name: &str, (epoch, seq): (i64, u64)) -> sqlx::Result<()> {
    let update = "UPDATE projections SET covered_seq = $1 \
                  WHERE name = $2 AND covered_seq < $1 AND epoch = $3 AND needed IS NULL";
    sqlx::query(update).bind(seq as i64).bind(name).bind(epoch).execute(database.writer()).await?;
    Ok(())
}

pub(crate) async fn ready(database: &Database, name: &str, now: Micros) -> sqlx::Result<()> {
    let update = "UPDATE projections SET ready_at = $1 WHERE name = $2 AND ready_at IS NULL";
    sqlx::query(update).bind(now).bind(name).execute(database.writer()).await?;
    Ok(())
}

pub(crate) async fn fail(database: &Database, name: &str, failure: &str) -> sqlx::Result<()> {
    let update = "UPDATE projections SET failure = $1 WHERE name = $2";
    sqlx::query(update).bind(failure).bind(name).execute(database.writer()).await?;
    Ok(())
}

/// Notes that the projection was compared with its owner's state.
pub(crate) async fn reconciled(database: &Database, name: &str, differs: bool, now: Micros) -> sqlx::Result<()> {
    let update = "UPDATE projections SET reconciled_at = $1, differences = differences + $2 WHERE name = $3";
    sqlx::query(update).bind(now).bind(i64::from(differs)).bind(name).execute(database.writer()).await?;
    Ok(())
}
