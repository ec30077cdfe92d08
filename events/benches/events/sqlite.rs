//! A SQLite file without us: one connection that writes, with the settings that ours has.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::bare::{BATCH, BareBus, BareDatabase, PAYLOAD};

#[derive(Debug)]
pub struct BareSqlite {
    pool: SqlitePool,
    insert_batch: String,
    read: AtomicI64,
}

impl BareSqlite {
    pub async fn open(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false).connect_with(options);
        let pool = pool.await.expect("a database");
        let tables = "CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL); \
                      CREATE TABLE taken (upto INTEGER NOT NULL); INSERT INTO taken VALUES (0)";
        sqlx::raw_sql(tables).execute(&pool).await.expect("tables");
        let insert_batch = format!("INSERT INTO bare (body) VALUES {}", vec!["($1)"; BATCH].join(", "));
        Self { pool, insert_batch, read: AtomicI64::new(0) }
    }

    async fn after(&self, id: i64) -> Vec<(i64, Vec<u8>)> {
        let select = sqlx::query_as("SELECT id, body FROM bare WHERE id > $1 ORDER BY id LIMIT $2");
        select.bind(id).bind(BATCH as i64).fetch_all(&self.pool).await.expect("rows")
    }
}

#[async_trait]
impl BareDatabase for BareSqlite {
    async fn commit(&self) {
        let insert = sqlx::query("INSERT INTO bare (body) VALUES ($1)").bind(&PAYLOAD[..]);
        insert.execute(&self.pool).await.expect("a row");
    }

    async fn commit_batch(&self) {
        let insert = sqlx::query(AssertSqlSafe(self.insert_batch.clone())).bind(&PAYLOAD[..]);
        insert.execute(&self.pool).await.expect("rows");
    }
}

#[async_trait]
impl BareBus for BareSqlite {
    async fn publish(&self) {
        self.commit().await;
    }

    async fn publish_batch(&self) {
        self.commit_batch().await;
    }

    async fn take_batch(&self) -> usize {
        let taken: i64 = sqlx::query_scalar("SELECT upto FROM taken").fetch_one(&self.pool).await.expect("a number");
        let rows = self.after(taken).await;
        if let Some((last, _)) = rows.last() {
            sqlx::query("UPDATE taken SET upto = $1").bind(last).execute(&self.pool).await.expect("a row");
        }
        rows.len()
    }

    async fn read_batch(&self) -> usize {
        let rows = self.after(self.read.load(Ordering::Relaxed)).await;
        if let Some((last, _)) = rows.last() {
            self.read.store(*last, Ordering::Relaxed);
        }
        rows.len()
    }
}
