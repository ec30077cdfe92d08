//! A service's own database: SQLite in a file, or PostgreSQL, behind one handle.
//!
//! Both speak the SQL that the stores use: `$1` placeholders, `ON CONFLICT`, `RETURNING`. Columns are
//! `BIGINT`, `TEXT` and bytes, which is what the two have in common without loss; times are
//! microseconds, truth values 0 and 1.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyPool, AssertSqlSafe, ConnectOptions, Connection, SqlSafeStr};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::schema;

/// Connections to PostgreSQL, and readers of SQLite, that one process holds at most.
const MAX_CONNECTIONS: u32 = 8;
/// How long a caller waits for one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A transaction that may write.
pub type Transaction = sqlx::Transaction<'static, Any>;

/// What keeps a database from being used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("`{0}` is not a database URL: write postgres://user@host/name or sqlite:///path/to/file")]
    Url(String),
    #[error("cannot open the database: {0}")]
    Open(#[source] sqlx::Error),
    #[error("it has no tables of a service: {0}")]
    NotOurs(#[source] sqlx::Error),
    #[error("cannot bring the database's tables up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A handle to the database; clones share its connections.
#[derive(Clone, Debug)]
pub struct Database {
    kind: Kind,
    /// SQLite has one writer; waiting for it here is fair, and never an error as `SQLITE_BUSY` is.
    writer: AnyPool,
    reader: AnyPool,
    committed: Arc<Notify>,
}

/// A step of a schema. Its SQL may say `{serial}` for a growing primary key and `{bytes}` for a column of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Unique in a database, and never changed once released. The event kernel's are below 1000.
    pub version: i64,
    pub name: &'static str,
    pub sql: &'static str,
}

impl Database {
    /// Opens, or creates, the SQLite database in `file` and brings it up to date: the kernel's tables and `steps`.
    pub async fn open_file(file: &Path, steps: &[Step]) -> Result<Self, DatabaseError> {
        Self::open(&format!("sqlite://{}?mode=rwc", file.display()), steps).await
    }

    /// Opens the database at `url` and brings it up to date: the kernel's tables and `steps`.
    pub async fn open(url: &str, steps: &[Step]) -> Result<Self, DatabaseError> {
        let database = Self::connect(url).await?;
        database.migrate(steps).await?;
        Ok(database)
    }

    /// Opens the SQLite database in `file`, which must be there, as it is: to look at a service's from outside.
    pub async fn attach_file(file: &Path) -> Result<Self, DatabaseError> {
        Self::attach(&format!("sqlite://{}?mode=rw", file.display())).await
    }

    /// Opens the database at `url` as it is: brings nothing up to date.
    pub async fn attach(url: &str) -> Result<Self, DatabaseError> {
        let database = Self::connect(url).await?;
        let row = sqlx::query("SELECT id FROM event_log LIMIT 1").fetch_optional(&database.reader).await;
        row.map_err(DatabaseError::NotOurs)?;
        Ok(database)
    }

    async fn connect(url: &str) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let kind = match url.split(':').next() {
            Some("sqlite") => Kind::Sqlite,
            Some("postgres" | "postgresql") => Kind::Postgres,
            _ => return Err(DatabaseError::Url(without_password(url))),
        };
        let options: AnyConnectOptions = url.parse().map_err(|_| DatabaseError::Url(without_password(url)))?;
        let options = options.disable_statement_logging();
        let pool = |connections: u32| {
            let pool = AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
            let pool = pool.after_connect(move |connection, _| {
                Box::pin(async move {
                    if kind == Kind::Sqlite {
                        sqlx::raw_sql(schema::SQLITE_SETTINGS).execute(connection).await?;
                    }
                    Ok(())
                })
            });
            // SQLite rolls back by itself when its disk is full. sqlx does not know, and would refuse every further
            // transaction on the one connection that writes.
            let pool = pool.after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            });
            let options = options.clone();
            async move { pool.connect_with(options).await.map_err(DatabaseError::Open) }
        };
        let (writer, reader) = match kind {
            Kind::Sqlite => (pool(1).await?, pool(MAX_CONNECTIONS).await?),
            Kind::Postgres => {
                let pool = pool(MAX_CONNECTIONS).await?;
                (pool.clone(), pool)
            }
        };
        Ok(Self { kind, writer, reader, committed: Arc::default() })
    }

    async fn migrate(&self, steps: &[Step]) -> Result<(), DatabaseError> {
        let migrations = schema::STEPS.iter().chain(steps).map(|step| {
            let sql = AssertSqlSafe(self.dialect(step.sql)).into_sql_str();
            Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
        });
        Ok(Migrator::with_migrations(migrations.collect()).run(&self.writer).await?)
    }

    fn dialect(&self, sql: &str) -> String {
        let (serial, bytes) = match self.kind {
            Kind::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB"),
            Kind::Postgres => ("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "BYTEA"),
        };
        sql.replace("{serial}", serial).replace("{bytes}", bytes)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Begins a transaction that may write.
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        match self.kind {
            // A deferred one that turns into a writer later fails if another wrote meanwhile.
            Kind::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres => self.writer.begin().await,
        }
    }

    /// Commits, and wakes who waits in this process for what was written.
    pub async fn commit(&self, transaction: Transaction) -> sqlx::Result<()> {
        transaction.commit().await?;
        self.committed.notify_waiters();
        Ok(())
    }

    /// Resolves after the next [`Database::commit`], counted from this call on.
    pub fn committed(&self) -> Notified<'_> {
        self.committed.notified()
    }

    /// For reading outside a transaction.
    pub fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// For a single statement that writes.
    pub fn writer(&self) -> &AnyPool {
        &self.writer
    }

    pub async fn close(&self) {
        self.writer.close().await;
        self.reader.close().await;
    }
}

/// A URL fit for an error message.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_errors() {
        assert_eq!(without_password("postgres://edd:se@cret@db/auth"), "postgres://…@db/auth");
        assert_eq!(without_password("auth.db"), "auth.db");
    }

    #[tokio::test]
    async fn a_database_is_opened_again_with_what_was_committed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a.db");
        let step =
            Step { version: 1000, name: "notes", sql: "CREATE TABLE notes (id {serial}, body {bytes} NOT NULL)" };
        for expected in [1_i64, 2] {
            let database = Database::open_file(&file, &[step]).await.expect("a database");
            let mut transaction = database.begin().await.expect("a transaction");
            let insert = sqlx::query("INSERT INTO notes (body) VALUES ($1)").bind(vec![1_u8, 2]);
            insert.execute(&mut *transaction).await.expect("a row");
            database.commit(transaction).await.expect("a commit");
            let mut dropped = database.begin().await.expect("a transaction");
            sqlx::query("DELETE FROM notes").execute(&mut *dropped).await.expect("a deletion");
            drop(dropped);
            let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notes").fetch_one(database.reader());
            assert_eq!(count.await.expect("a count"), expected);
            database.close().await;
        }
        let refused = Database::open("mysql://x:secret@y/z", &[]).await.expect_err("no such driver");
        assert!(refused.to_string().contains("postgres://") && !refused.to_string().contains("secret"), "{refused}");
    }
}
