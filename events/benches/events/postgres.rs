//! A PostgreSQL database without us.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::bare::{BATCH, BareDatabase, PAYLOAD};
use crate::figures::WRITERS;

#[derive(Debug)]
pub struct BarePostgres {
    pool: PgPool,
    insert_batch: String,
}

impl BarePostgres {
    pub async fn open(url: &str) -> Self {
        let options = PgPoolOptions::new().max_connections(WRITERS as u32).test_before_acquire(false);
        let pool = options.connect(url).await.expect("a database");
        let table = "CREATE TABLE bare (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body BYTEA NOT NULL)";
        sqlx::raw_sql(table).execute(&pool).await.expect("a table");
        let insert_batch = format!("INSERT INTO bare (body) VALUES {}", vec!["($1)"; BATCH].join(", "));
        Self { pool, insert_batch }
    }
}

#[async_trait]
impl BareDatabase for BarePostgres {
    async fn commit(&self) {
        let insert = sqlx::query("INSERT INTO bare (body) VALUES ($1)").bind(&PAYLOAD[..]);
        insert.execute(&self.pool).await.expect("a row");
    }

    async fn commit_batch(&self) {
        let insert = sqlx::query(AssertSqlSafe(self.insert_batch.clone())).bind(&PAYLOAD[..]);
        insert.execute(&self.pool).await.expect("rows");
    }
}
