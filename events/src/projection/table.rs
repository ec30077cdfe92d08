//! A projection's table in SQL: the live one, or a shadow of the same shape.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use crate::clock::Micros;
use crate::database::{Database, Kind};
use crate::projection::{Entry, Key, Shape, Value};

/// Rows written by one statement.
const CHUNK_ROWS: usize = 64;
/// Rows that are looked at in one go.
pub(crate) const PAGE_ROWS: u32 = 512;
/// How long the exchange of tables waits for who reads the old one. Everybody else waits behind it.
const SWAP_WAIT: &str = "SET LOCAL lock_timeout = '2s'";

/// The statements of one table; clones share them.
#[derive(Clone, Debug)]
pub struct Table {
    shape: &'static Shape,
    name: Arc<str>,
    write_one: Arc<str>,
    write_chunk: Arc<str>,
}

impl Table {
    /// The one that everybody reads.
    pub fn live(shape: &'static Shape) -> Self {
        Self::named(shape, shape.name)
    }

    pub(crate) fn named(shape: &'static Shape, name: &str) -> Self {
        let write = |rows| Arc::from(write_statement(shape, name, rows));
        Self { shape, name: Arc::from(name), write_one: write(1), write_chunk: write(CHUNK_ROWS) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shape(&self) -> &'static Shape {
        self.shape
    }

    /// Writes the states that are newer than what is there. How many rows that changed.
    ///
    /// Entries of a snapshot come with the round that began before it was read. An entry of the version that is there
    /// then wins if the row was not touched since: it differs only if the row is wrong.
    pub(crate) async fn write(
        &self,
        connection: &mut AnyConnection,
        entries: &[Entry],
        snapshot_of: Option<i64>,
        now: Micros,
    ) -> sqlx::Result<u64> {
        let mut changed = 0;
        for chunk in entries.chunks(CHUNK_ROWS) {
            // PostgreSQL refuses a statement that writes a row twice.
            let distinct: HashSet<_> = chunk.iter().map(|entry| &entry.key).collect();
            let whole = chunk.len() == CHUNK_ROWS && distinct.len() == CHUNK_ROWS;
            let (statement, rows) = if whole { (&self.write_chunk, CHUNK_ROWS) } else { (&self.write_one, 1) };
            for written in chunk.chunks(rows) {
                let query = sqlx::query(AssertSqlSafe(Arc::clone(statement))).bind(snapshot_of.unwrap_or_default());
                let query = written.iter().fold(query, |query, entry| self.bind(query, entry, now));
                changed += query.execute(&mut *connection).await?.rows_affected();
            }
        }
        Ok(changed)
    }

    fn bind<'q>(
        &self,
        query: Query<'q, Any, AnyArguments>,
        entry: &Entry,
        now: Micros,
    ) -> Query<'q, Any, AnyArguments> {
        let query = query.bind(entry.key.clone()).bind(entry.version).bind(i64::from(entry.deleted)).bind(now);
        self.shape.columns.iter().zip(&entry.fields).fold(query, |query, (column, value)| match value {
            Value::Text(text) => query.bind(text.clone()),
            Value::Number(number) => query.bind(*number),
            Value::Null if column.is_text => query.bind(None::<String>),
            Value::Null => query.bind(None::<i64>),
        })
    }

    /// The entry with its key; none if no row tells it.
    pub(crate) async fn resolve(
        &self,
        connection: &mut AnyConnection,
        entry: Entry<Key>,
    ) -> sqlx::Result<Option<Entry>> {
        let key = match entry.key.clone() {
            Key::Is(key) => Some(key),
            Key::Of(column, number) => self.find(connection, column, number).await?,
        };
        Ok(key.map(|key| Entry { key, version: entry.version, deleted: entry.deleted, fields: entry.fields }))
    }

    async fn find(&self, connection: &mut AnyConnection, column: &str, number: i64) -> sqlx::Result<Option<String>> {
        let (key, table) = (self.shape.key, &self.name);
        let select = format!("SELECT {key} FROM {table} WHERE {column} = $1 ORDER BY {key} LIMIT 1");
        sqlx::query_scalar(AssertSqlSafe(select)).bind(number).fetch_optional(connection).await
    }

    /// At most `most` rows with keys after `after`, in the order of their bytes, tombstones included.
    ///
    /// # Errors
    /// The database fails.
    pub async fn page(&self, database: &Database, after: Option<&str>, most: u32) -> sqlx::Result<Vec<Entry>> {
        let (key, table) = (self.shape.key, &self.name);
        let columns: String = self.shape.columns.iter().map(|column| format!(", {}", column.name)).collect();
        // No key is empty.
        let select =
            format!("SELECT {key}, version, deleted{columns} FROM {table} WHERE {key} > $1 ORDER BY {key} LIMIT $2");
        let select = sqlx::query(AssertSqlSafe(select)).bind(after.unwrap_or_default()).bind(i64::from(most));
        let rows = select.fetch_all(database.reader()).await?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    fn entry(&self, row: &AnyRow) -> sqlx::Result<Entry> {
        let fields = self.shape.columns.iter().map(|column| {
            Ok(match column.is_text {
                true => row.try_get::<Option<String>, _>(column.name)?.map_or(Value::Null, Value::Text),
                false => row.try_get::<Option<i64>, _>(column.name)?.into(),
            })
        });
        Ok(Entry {
            key: row.try_get(self.shape.key)?,
            version: row.try_get("version")?,
            deleted: row.try_get::<i64, _>("deleted")? != 0,
            fields: fields.collect::<sqlx::Result<_>>()?,
        })
    }

    /// Removes the rows after `after`, and up to `upto` if there is a limit, that are not among `entries`, unless they
    /// were touched in `round` or later. How many.
    pub(crate) async fn remove_absent(
        &self,
        connection: &mut AnyConnection,
        (after, upto): (Option<&str>, Option<&str>),
        entries: &[Entry],
        round: i64,
    ) -> sqlx::Result<u64> {
        let (key, table) = (self.shape.key, &self.name);
        // Not one condition for both: only a plain one keeps the search within the range.
        let limit = if upto.is_some() { format!("AND {key} <= $4") } else { String::new() };
        let select: Arc<str> = Arc::from(format!(
            "SELECT {key} FROM {table} WHERE {key} > $1 AND round < $2 {limit} ORDER BY {key} LIMIT $3"
        ));
        let delete: Arc<str> = Arc::from(format!("DELETE FROM {table} WHERE {key} = $1 AND round < $2"));
        let present: HashSet<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let (mut after, mut removed) = (after.unwrap_or_default().to_owned(), 0);
        loop {
            let keys = sqlx::query_scalar::<_, String>(AssertSqlSafe(Arc::clone(&select)));
            let keys = keys.bind(after).bind(round).bind(i64::from(PAGE_ROWS));
            let keys = if let Some(upto) = upto { keys.bind(upto.to_owned()) } else { keys };
            let keys = keys.fetch_all(&mut *connection).await?;
            for absent in keys.iter().filter(|key| !present.contains(key.as_str())) {
                let delete = sqlx::query(AssertSqlSafe(Arc::clone(&delete))).bind(absent.clone()).bind(round);
                removed += delete.execute(&mut *connection).await?.rows_affected();
            }
            let is_all = keys.len() < PAGE_ROWS as usize;
            match keys.into_iter().next_back() {
                Some(last) if !is_all => after = last,
                _ => return Ok(removed),
            }
        }
    }

    pub(crate) async fn create(&self, database: &Database, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let sql = database.dialect(self.shape.sql, &self.name);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
        Ok(())
    }

    pub(crate) async fn drop(&self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let drop = format!("DROP TABLE IF EXISTS {}", self.name);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(connection).await?;
        Ok(())
    }

    /// Live rows of this table that `other` has no row for and that nobody touched since `round` began.
    pub(crate) async fn missing_in(&self, other: &Self, database: &Database, round: i64) -> sqlx::Result<i64> {
        let (key, table, other) = (self.shape.key, &self.name, &other.name);
        let count = format!(
            "SELECT count(*) FROM {table} WHERE deleted = 0 AND round < $1 \
             AND NOT EXISTS (SELECT 1 FROM {other} WHERE {other}.{key} = {table}.{key})"
        );
        sqlx::query_scalar(AssertSqlSafe(count)).bind(round).fetch_one(database.reader()).await
    }

    /// Puts `self` in the place of `live`, with what was written there in `round` or later. How many rows that were.
    /// Readers wait until the transaction ends, and then find the new table under the old name.
    pub(crate) async fn replace(
        &self,
        live: &Self,
        kind: Kind,
        connection: &mut AnyConnection,
        round: i64,
    ) -> sqlx::Result<u64> {
        let (from, to) = (&self.name, &live.name);
        if kind == Kind::Postgres {
            // At once in its strongest form: two that hold a weaker one and want this would wait for each other.
            let lock = format!("{SWAP_WAIT}; LOCK TABLE {to} IN ACCESS EXCLUSIVE MODE");
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *connection).await?;
        }
        let columns = column_names(self.shape);
        let carry = format!(
            "INSERT INTO {from} ({columns}) SELECT {columns} FROM {to} WHERE round >= $1 {}",
            on_conflict(self.shape, from, "FALSE", "FALSE")
        );
        let carried = sqlx::query(AssertSqlSafe(carry)).bind(round).execute(&mut *connection).await?.rows_affected();
        live.drop(connection).await?;
        let rename = format!("ALTER TABLE {from} RENAME TO {to}");
        sqlx::raw_sql(AssertSqlSafe(rename)).execute(connection).await?;
        Ok(carried)
    }
}

fn column_names(shape: &Shape) -> String {
    let columns: String = shape.columns.iter().map(|column| format!(", {}", column.name)).collect();
    format!("{}, version, deleted, synced_at{columns}, round", shape.key)
}

/// `$1` is the round that began before a snapshot was read, or 0 for what comes by event.
fn write_statement(shape: &Shape, table: &str, rows: usize) -> String {
    let width = 4 + shape.columns.len();
    let rows = (0..rows).map(|row| {
        let values: String = (0..width).map(|column| format!("${}, ", 2 + row * width + column)).collect();
        // The subquery is the price of a round that needs no clock and no lock.
        format!("({values}coalesce((SELECT round FROM projections WHERE name = '{}'), 0))", shape.name)
    });
    let (columns, rows) = (column_names(shape), rows.collect::<Vec<_>>().join(", "));
    // Only a wrong row differs from a snapshot that has its version.
    let corrects = format!("{table}.round < $1");
    // Whoever replays must know of the event, though its state is here already.
    let touches = format!("$1 = 0 AND excluded.version = {table}.version AND {table}.round < excluded.round");
    format!("INSERT INTO {table} ({columns}) VALUES {rows} {}", on_conflict(shape, table, &corrects, &touches))
}

/// The version gate. `corrects` says when an equal version wins if it differs, `touches` when a row is noted as seen
/// although nothing of it changes. A fixed column is filled in by any version and changed by none, so that its value
/// does not depend on which came first either.
fn on_conflict(shape: &Shape, table: &str, corrects: &str, touches: &str) -> String {
    let states = || shape.columns.iter().filter(|column| !column.is_fixed).map(|column| column.name);
    let fixed = || shape.columns.iter().filter(|column| column.is_fixed).map(|column| column.name);
    let differs = std::iter::once("deleted").chain(states());
    let differs = differs.map(|name| format!("excluded.{name} IS DISTINCT FROM {table}.{name}"));
    let differs = differs.collect::<Vec<_>>().join(" OR ");
    let wins = format!(
        "(excluded.version > {table}.version OR \
         (excluded.version = {table}.version AND {corrects} AND ({differs})))"
    );
    let taken = ["version", "deleted"].into_iter().chain(states());
    let taken = taken.map(|name| format!("{name} = CASE WHEN {wins} THEN excluded.{name} ELSE {table}.{name} END"));
    let kept = fixed().map(|name| format!("{name} = coalesce({table}.{name}, excluded.{name})"));
    let touched = ["synced_at", "round"].into_iter().map(|name| format!("{name} = excluded.{name}"));
    let sets = taken.chain(kept).chain(touched).collect::<Vec<_>>().join(", ");
    let fills = fixed().map(|name| format!(" OR ({table}.{name} IS NULL AND excluded.{name} IS NOT NULL)"));
    let fills: String = fills.collect();
    format!("ON CONFLICT ({}) DO UPDATE SET {sets} WHERE {wins} OR ({touches}){fills}", shape.key)
}
