//! The table that a replay fills beside the live one, and the right to be the one who does.

use std::time::Duration;

use sqlx::Row;

use crate::clock::{Clock, Micros, micros};
use crate::database::{Database, Transaction};
use crate::projection::{ReplayError, Shape, Table};

/// How long a replay may show no life before its table is dropped.
const LEASE: Duration = Duration::from_secs(60);
/// What a lease may have left by somebody else's clock. With more it is of a clock that was set back since, and over.
const LONGEST_LEASE: Duration = Duration::from_secs(2 * LEASE.as_secs());

/// A shadow table and the lease on it.
///
/// The lease is a time by the clock, which only decides when a dead replay's table goes. Who holds it is decided by
/// the table's name, which no other replay ever has: one that was taken for dead notices before it writes again.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub table: Table,
    /// The round that began with it.
    pub round: i64,
    database: Database,
}

impl Shadow {
    /// Creates an empty shadow. What a dead replay left is dropped.
    pub async fn create(database: &Database, shape: &'static Shape, now: Micros) -> Result<Self, ReplayError> {
        let mut transaction = database.begin().await?;
        let take = sqlx::query(
            "UPDATE projections SET round = round + 1, shadows = shadows + 1, shadow_until = $1 \
             WHERE name = $2 AND (shadow IS NULL OR shadow_until NOT BETWEEN $3 AND $4) RETURNING round, shadows, shadow",
        );
        let take = take.bind(now + micros(LEASE)).bind(shape.name).bind(now).bind(now + micros(LONGEST_LEASE));
        let take = take.fetch_optional(&mut *transaction).await?;
        let row = take.ok_or(ReplayError::Running { projection: shape.name, lease: LEASE })?;
        if let Some(stale) = row.try_get::<Option<String>, _>("shadow")? {
            Table::named(shape, &stale).drop(&mut transaction).await?;
        }
        // Numbered, because the names of its indexes outlive the exchange.
        let name = format!("{}_shadow_{}", shape.name, row.try_get::<i64, _>("shadows")?);
        let table = Table::named(shape, &name);
        table.create(database, &mut transaction).await?;
        let note = sqlx::query("UPDATE projections SET shadow = $1 WHERE name = $2").bind(name).bind(shape.name);
        note.execute(&mut *transaction).await?;
        let round = row.try_get("round")?;
        database.commit(transaction).await?;
        Ok(Self { table, round, database: database.clone() })
    }

    /// Begins a transaction in which the shadow is ours.
    pub async fn begin(&self, clock: &dyn Clock) -> Result<Transaction, ReplayError> {
        let mut transaction = self.database.begin().await?;
        let update = sqlx::query("UPDATE projections SET shadow_until = $1 WHERE shadow = $2");
        let update = update.bind(clock.now() + micros(LEASE)).bind(self.table.name().to_owned());
        match update.execute(&mut *transaction).await?.rows_affected() {
            0 => Err(ReplayError::Overtaken { projection: self.table.shape().name, lease: LEASE }),
            _ => Ok(transaction),
        }
    }

    /// Puts the shadow in the place of the live table. How many rows were carried over from there.
    pub async fn swap(&self, transaction: &mut Transaction) -> Result<u64, ReplayError> {
        let shape = self.table.shape();
        let live = Table::live(shape);
        let carried = self.table.replace(&live, self.database.kind(), transaction, self.round).await?;
        let release = sqlx::query("UPDATE projections SET shadow = NULL, shadow_until = NULL WHERE name = $1");
        release.bind(shape.name).execute(&mut **transaction).await?;
        Ok(carried)
    }

    /// Gives the shadow up.
    pub async fn discard(self) -> sqlx::Result<()> {
        let mut transaction = self.database.begin().await?;
        let name = self.table.name().to_owned();
        let release = sqlx::query("UPDATE projections SET shadow = NULL, shadow_until = NULL WHERE shadow = $1");
        if release.bind(name).execute(&mut *transaction).await?.rows_affected() > 0 {
            self.table.drop(&mut transaction).await?;
        }
        self.database.commit(transaction).await
    }
}

/// Drops what a dead replay left.
pub(crate) async fn clean(database: &Database, shape: &'static Shape, now: Micros) -> sqlx::Result<()> {
    let longest = now + micros(LONGEST_LEASE);
    let select = "SELECT shadow FROM projections WHERE name = $1 AND shadow IS NOT NULL \
                  AND shadow_until NOT BETWEEN $2 AND $3";
    let stale = sqlx::query_scalar::<_, String>(select).bind(shape.name).bind(now).bind(longest);
    let Some(name) = stale.fetch_optional(database.reader()).await? else { return Ok(()) };
    let mut transaction = database.begin().await?;
    let release = "UPDATE projections SET shadow = NULL, shadow_until = NULL \
                   WHERE shadow = $1 AND shadow_until NOT BETWEEN $2 AND $3";
    let release = sqlx::query(release).bind(name.clone()).bind(now).bind(longest);
    if release.execute(&mut *transaction).await?.rows_affected() > 0 {
        tracing::warn!(projection = shape.name, table = name, "dropped what a replay left that did not end");
        Table::named(shape, &name).drop(&mut transaction).await?;
    }
    database.commit(transaction).await
}
