//! Which errors blame nobody: the database is away, or cannot work, and will be back.

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

/// SQLSTATE codes and classes (PostgreSQL's documentation, appendix A) of a server that cannot serve anybody now.
const POSTGRES: [&str; 11] = [
    "08",    // connection exceptions
    "25006", // read only: after a failover, of a server that is no longer, or not yet, the primary
    "28",    // who we are is not accepted: a password is being changed
    "3D000", // the database is not there: it is being restored
    "53",    // insufficient resources: disk full, out of memory, too many connections
    "57P01", // shut down by an administrator
    "57P02", // another process of the server has crashed
    "57P03", // starting up, or shutting down
    "57P05", // the session was idle for too long
    "58",    // errors of the system beneath, as when reading a file
    "F0",    // its configuration file is locked or broken
];

/// Primary result codes of SQLite for a file that cannot be worked with now.
const SQLITE: [i64; 9] = [
    5,  // busy: another process holds the file for longer than we wait
    6,  // locked
    7,  // out of memory
    8,  // read only
    10, // input or output failed
    11, // corrupt
    13, // disk full
    14, // cannot be opened
    26, // not a database
];

/// Whether no statement would have fared better: whoever meets it waits, and counts no attempt.
///
/// Everything else is about the statement or its transaction, also what PostgreSQL asks to try again: serialization
/// failures and deadlocks.
pub fn is_outage(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if error.try_downcast_ref::<PgDatabaseError>().is_some() {
                POSTGRES.iter().any(|known| code.starts_with(known))
            } else if error.try_downcast_ref::<SqliteError>().is_some() {
                // The second byte of an extended code only says more of the same.
                code.parse::<i64>().is_ok_and(|code| SQLITE.contains(&(code & 0xff)))
            } else {
                false
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AnyConnection, AssertSqlSafe};

    use super::*;
    use crate::database::{Database, Kind, Step};
    use crate::scratch::Scratch;

    const NOTES: Step = Step {
        version: 1000,
        name: "notes",
        sql: "CREATE TABLE notes (id BIGINT PRIMARY KEY, body TEXT); INSERT INTO notes (id) VALUES (1), (2);",
    };

    async fn execute(connection: &mut AnyConnection, statement: &str) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.map(drop)
    }

    async fn failure(connection: &mut AnyConnection, statement: &str) -> Error {
        execute(connection, statement).await.expect_err(statement)
    }

    #[tokio::test]
    async fn postgres_codes_are_told_apart() {
        let database = Scratch::new(Kind::Postgres).open(&[]).await;
        let mut connection = database.writer().acquire().await.expect("a connection");
        for (codes, expected) in [
            ("08006 25006 28P01 3D000 53100 53200 53300 57P01 57P02 57P03 58030 F0001", true),
            ("40001 40P01 23505 25P02 42P01 55P03 57014 22P02 XX000", false),
        ] {
            for code in codes.split(' ') {
                let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$");
                let error = failure(&mut connection, &raise).await;
                assert_eq!(is_outage(&error), expected, "{code}: {error:?}");
            }
        }
    }

    /// Two transactions that take two rows in opposite order.
    #[tokio::test]
    async fn a_deadlock_and_a_conflict_are_no_outage() {
        let database = Scratch::new(Kind::Postgres).open(&[NOTES]).await;
        let (mut first, mut second) = (database.begin().await.expect("one"), database.begin().await.expect("another"));
        let update = |id: i64| format!("UPDATE notes SET body = 'x' WHERE id = {id}");
        execute(&mut first, &update(1)).await.expect("a lock");
        execute(&mut second, &update(2)).await.expect("a lock");
        let (two, one) = (update(2), update(1));
        let (first_end, second_end) = tokio::join!(execute(&mut first, &two), async {
            let end = execute(&mut second, &one).await;
            // So that the other goes on.
            drop(second);
            end
        });
        let victim = first_end.and(second_end).expect_err("a deadlock");
        assert_eq!(victim.as_database_error().and_then(|error| error.code()).as_deref(), Some("40P01"));
        assert!(!is_outage(&victim), "{victim}");
        drop(first);
        let mut late = database.begin().await.expect("a transaction");
        execute(&mut late, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT * FROM notes")
            .await
            .expect("a snapshot");
        execute(&mut database.writer().acquire().await.expect("a connection"), &one).await.expect("a change");
        let conflict = failure(&mut late, &one).await;
        assert_eq!(conflict.as_database_error().and_then(|error| error.code()).as_deref(), Some("40001"));
        assert!(!is_outage(&conflict), "{conflict}");
    }

    #[tokio::test]
    async fn a_full_a_locked_and_a_read_only_file_are_outages() {
        let scratch = Scratch::new(Kind::Sqlite);
        let database: Database = scratch.open(&[NOTES]).await;
        let other = scratch.open(&[NOTES]).await;
        let mut connection = database.writer().acquire().await.expect("a connection");
        let blob = "INSERT INTO notes SELECT max(id) + 1, hex(zeroblob(100000)) FROM notes";
        execute(&mut connection, "PRAGMA max_page_count = 1").await.expect("a bound, as far as it goes");
        assert!(is_outage(&failure(&mut connection, blob).await), "full");
        execute(&mut connection, "PRAGMA max_page_count = 1000000; PRAGMA busy_timeout = 0").await.expect("settings");
        let writing = other.begin().await.expect("a transaction");
        assert!(is_outage(&failure(&mut connection, blob).await), "locked");
        drop(writing);
        execute(&mut connection, "PRAGMA query_only = 1").await.expect("a setting");
        assert!(is_outage(&failure(&mut connection, blob).await), "read only");
        execute(&mut connection, "PRAGMA query_only = 0; PRAGMA busy_timeout = 5000").await.expect("settings");
        assert!(!is_outage(&failure(&mut connection, "INSERT INTO notes (id) VALUES (1)").await), "taken");
        assert!(!is_outage(&failure(&mut connection, "SELECT * FROM nothing").await), "no such table");
    }
}
