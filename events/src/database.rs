//! A service's own database: SQLite in a file, or PostgreSQL, behind one handle.
//!
//! Both speak the SQL that the stores use: `$1` placeholders, `ON CONFLICT`, `RETURNING`. Columns are
//! `BIGINT`, `TEXT` and bytes, which is what the two have in common without loss; times are
//! microseconds, truth values 0 and 1.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Any, AnyPool, AssertSqlSafe, ConnectOptions, Connection, SqlSafeStr};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::schema;
use wake::Wake;

mod outage;
#[cfg(test)]
pub(crate) mod sabotage;
mod wake;

pub use outage::is_outage;

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
    #[error("cannot open the database {url}: {source}")]
    Open { url: String, source: sqlx::Error },
    #[error("it has no tables of a service: {0}")]
    NotOurs(#[source] sqlx::Error),
    #[error("cannot bring the database's tables up to date: {0}")]
    Migrate(#[from] MigrateError),
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
    /// None where no other process writes to the database.
    wake: Option<Arc<Wake>>,
    #[cfg(test)]
    sabotage: sabotage::Sabotage,
}

/// A step of a schema. Its SQL may say `{serial}` for a growing primary key, `{key}` for a primary key of text that sorts
/// by bytes, `{text}` for any other column of such text, `{bytes}` for a column of bytes, and `{table}` for the step's
/// name.
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
        let mut database = Self::connect(url).await?;
        database.migrate(steps).await?;
        if database.kind == Kind::Postgres {
            let wake = Wake::start(url, database.writer.clone(), database.committed.clone()).await;
            let wake = wake.map_err(|source| DatabaseError::Open { url: without_password(url), source })?;
            database.wake = Some(Arc::new(wake));
        }
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
        let wrong = || DatabaseError::Url(without_password(url));
        let kind = match url.split(':').next() {
            Some("sqlite") => Kind::Sqlite,
            Some("postgres" | "postgresql") => Kind::Postgres,
            _ => return Err(wrong()),
        };
        let options = url.parse::<AnyConnectOptions>().map_err(|_| wrong())?.disable_statement_logging();
        let failed = |source| DatabaseError::Open { url: without_password(url), source };
        let pool = |connections, repair| pool(kind, options.clone(), connections, repair);
        let (writer, reader) = match kind {
            Kind::Sqlite => (
                pool(1, Some(schema::SQLITE_DURABLE)).await.map_err(failed)?,
                pool(MAX_CONNECTIONS, None).await.map_err(failed)?,
            ),
            Kind::Postgres => {
                let pool = pool(MAX_CONNECTIONS, None).await.map_err(failed)?;
                (pool.clone(), pool)
            }
        };
        Ok(Self {
            kind,
            writer,
            reader,
            committed: Arc::default(),
            wake: None,
            #[cfg(test)]
            sabotage: sabotage::Sabotage::default(),
        })
    }

    async fn migrate(&self, steps: &[Step]) -> Result<(), DatabaseError> {
        let migrations = schema::STEPS.iter().chain(steps).map(|step| {
            let sql = AssertSqlSafe(self.dialect(step.sql, step.name)).into_sql_str();
            Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
        });
        let migrator = Migrator::with_migrations(migrations.collect());
        // Two processes may start at once.
        match self.kind {
            Kind::Postgres => migrator.run(&self.writer).await?,
            // The migrator knows no lock for it.
            Kind::Sqlite => {
                let mut transaction = self.begin().await.map_err(MigrateError::from)?;
                migrator.run(&mut *transaction).await?;
                transaction.commit().await.map_err(MigrateError::from)?;
            }
        }
        Ok(())
    }

    /// The SQL of a [`Step`] as this database has it.
    pub(crate) fn dialect(&self, sql: &str, table: &str) -> String {
        let (serial, key, text, bytes) = match self.kind {
            Kind::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT PRIMARY KEY NOT NULL", "TEXT", "BLOB"),
            Kind::Postgres => (
                "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
                "TEXT COLLATE \"C\" PRIMARY KEY",
                "TEXT COLLATE \"C\"",
                "BYTEA",
            ),
        };
        let sql = sql.replace("{serial}", serial).replace("{key}", key).replace("{text}", text);
        sql.replace("{bytes}", bytes).replace("{table}", table)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Begins a transaction that may write.
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        match self.kind {
            // A deferred one that turns into a writer later fails if another wrote meanwhile.
            Kind::Sqlite => self.writer().begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres => self.writer().begin().await,
        }
    }

    /// Begins a transaction whose commit does not wait for the disk. When the power fails, it may be lost as a whole,
    /// with all such before which nothing else was committed: for notes without which something is only done again.
    pub async fn begin_relaxed(&self) -> sqlx::Result<Transaction> {
        let begin = match self.kind {
            Kind::Sqlite => schema::SQLITE_BEGIN_RELAXED,
            Kind::Postgres => schema::POSTGRES_BEGIN_RELAXED,
        };
        self.writer.begin_with(begin).await
    }

    /// Commits, and wakes who waits for what was written: in this process and, for events in the outbox, in others.
    ///
    /// # Errors
    /// Also if a statement of the transaction failed, for then PostgreSQL has none of it. After an error of the
    /// connection it is unknown whether the transaction was committed.
    pub async fn commit(&self, mut transaction: Transaction) -> sqlx::Result<()> {
        if self.kind == Kind::Postgres {
            // COMMIT rolls a failed transaction back, and calls that a success. Any other statement fails.
            sqlx::query("SELECT 1").execute(&mut *transaction).await?;
        }
        #[cfg(test)]
        self.sabotage.before_commit()?;
        transaction.commit().await?;
        #[cfg(test)]
        self.sabotage.after_commit()?;
        self.committed.notify_waiters();
        if let Some(wake) = &self.wake {
            wake.tell();
        }
        Ok(())
    }

    /// Resolves after the next [`Database::commit`] here, or one elsewhere that left events to relay, counted from
    /// this call on. An optimisation: one that falls into an outage may be missed.
    pub fn committed(&self) -> Notified<'_> {
        self.committed.notified()
    }

    /// For reading outside a transaction.
    pub fn reader(&self) -> &AnyPool {
        #[cfg(test)]
        if let Some(closed) = self.sabotage.closed() {
            return closed;
        }
        &self.reader
    }

    /// For a single statement that writes.
    pub fn writer(&self) -> &AnyPool {
        #[cfg(test)]
        if let Some(closed) = self.sabotage.closed() {
            return closed;
        }
        &self.writer
    }

    pub async fn close(&self) {
        if let Some(wake) = &self.wake {
            wake.stop();
        }
        self.writer.close().await;
        self.reader.close().await;
    }
}

/// Connects, once at least. `repair` is executed whenever a connection comes back.
async fn pool(
    kind: Kind,
    options: AnyConnectOptions,
    connections: u32,
    repair: Option<&'static str>,
) -> sqlx::Result<AnyPool> {
    let settings = match kind {
        Kind::Sqlite => schema::SQLITE_SETTINGS,
        Kind::Postgres => schema::POSTGRES_SETTINGS,
    };
    let pool = AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
    let pool = pool.after_connect(move |connection, _| {
        Box::pin(async move { sqlx::raw_sql(settings).execute(connection).await.map(drop) })
    });
    let pool = pool.after_release(move |connection, _| {
        Box::pin(async move {
            let Some(repair) = repair else { return Ok(true) };
            sqlx::raw_sql(repair).execute(&mut *connection).await?;
            // SQLite rolls back by itself when its disk is full. sqlx does not know, and would refuse every further
            // transaction on the one connection that writes.
            Ok(!connection.is_in_transaction())
        })
    });
    match pool.connect_with(options.clone()).await {
        // It has tried again and again, and forgotten why. One more try tells.
        Err(sqlx::Error::PoolTimedOut) => match tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await {
            Ok(Err(reason)) => Err(reason),
            _ => Err(sqlx::Error::PoolTimedOut),
        },
        other => other,
    }
}

/// A URL fit for an error message: also `?password=` is one way to write one.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let place = rest.rfind('@').map_or(rest, |at| &rest[at..]);
    let shown = place.split_once('?').map_or(place, |(place, _)| place);
    let hidden = |is_hidden: bool| if is_hidden { "…" } else { "" };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}{}{shown}{}", hidden(place.len() < rest.len()), hidden(shown.len() < place.len()))
}

#[cfg(test)]
mod tests;
