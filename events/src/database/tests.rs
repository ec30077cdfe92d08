//! What a service may count on, whichever database it has.

use edd_servers::postgres::{PASSWORD, Postgres, Settings};

use super::*;
use crate::message::Message;
use crate::outbox;
use crate::scratch::{Scratch, on_each_database};

on_each_database! {
    a_database_is_opened_again_with_what_was_committed,
    processes_that_start_together_find_the_tables_once,
    every_kind_of_column_comes_back_as_it_was,
    what_need_not_wait_for_the_disk_leaves_the_rest_waiting,
}

const PATIENCE: Duration = Duration::from_secs(20);
const NOTES: Step =
    Step { version: 1000, name: "notes", sql: "CREATE TABLE notes (id {serial}, body {bytes} NOT NULL, at BIGINT)" };

async fn execute(connection: &mut sqlx::AnyConnection, statement: &'static str) -> sqlx::Result<()> {
    sqlx::query(statement).execute(connection).await.map(drop)
}

#[test]
fn passwords_stay_out_of_errors() {
    let urls = [
        ("postgres://edd:se@cret@db/auth", "postgres://…@db/auth"),
        ("postgres://edd:se?cret@db/auth?sslmode=require", "postgres://…@db/auth…"),
        ("postgres://db/auth?user=edd&password=secret", "postgres://db/auth…"),
        ("postgres:edd:secret@db", "…@db"),
        ("sqlite:///var/lib/auth.db", "sqlite:///var/lib/auth.db"),
        ("auth.db", "auth.db"),
    ];
    for (url, shown) in urls {
        assert_eq!(without_password(url), shown, "{url}");
    }
}

#[tokio::test]
async fn what_is_no_url_of_a_database_is_refused_without_its_password() {
    for url in ["mysql://x:secret@y/z", "postgres://x:secret@y:port/z", "x:secret@y"] {
        let refused = Database::open(url, &[]).await.expect_err(url).to_string();
        assert!(refused.contains("write postgres://") && !refused.contains("secret"), "{refused}");
    }
}

async fn a_database_is_opened_again_with_what_was_committed(kind: Kind) {
    let scratch = Scratch::new(kind);
    for expected in [1_i64, 2] {
        let database = scratch.open(&[NOTES]).await;
        let mut transaction = database.begin().await.expect("a transaction");
        let insert = sqlx::query("INSERT INTO notes (body) VALUES ($1)").bind(vec![1_u8, 2]);
        insert.execute(&mut *transaction).await.expect("a row");
        database.commit(transaction).await.expect("a commit");
        let mut dropped = database.begin().await.expect("a transaction");
        execute(&mut dropped, "DELETE FROM notes").await.expect("a deletion");
        drop(dropped);
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notes").fetch_one(database.reader());
        assert_eq!(count.await.expect("a count"), expected);
        database.close().await;
    }
}

async fn processes_that_start_together_find_the_tables_once(kind: Kind) {
    let scratch = Scratch::new(kind);
    let steps = [NOTES];
    let (first, second) = tokio::join!(scratch.open(&steps), scratch.open(&steps));
    for database in [first, second] {
        execute(&mut database.begin().await.expect("a transaction"), "DELETE FROM notes").await.expect("a table");
    }
}

async fn every_kind_of_column_comes_back_as_it_was(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&[NOTES]).await;
    for (bytes, at) in [(vec![], None), ((0..=255).collect::<Vec<u8>>(), Some(i64::MAX)), (vec![0], Some(i64::MIN))] {
        let insert = "INSERT INTO notes (body, at) VALUES ($1, $2) RETURNING body, at, 'ä\u{1f980}' AS text";
        let insert = sqlx::query_as::<_, (Vec<u8>, Option<i64>, String)>(insert).bind(bytes.clone()).bind(at);
        let row = insert.fetch_one(database.writer()).await.expect("a row");
        assert_eq!(row, (bytes, at, "ä\u{1f980}".to_owned()));
    }
}

async fn what_need_not_wait_for_the_disk_leaves_the_rest_waiting(kind: Kind) {
    let (select, off, on) = match kind {
        Kind::Sqlite => ("SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous", "1", "2"),
        Kind::Postgres => ("SELECT current_setting('synchronous_commit')", "off", "on"),
    };
    let database = Scratch::new(kind).open(&[NOTES]).await;
    for ends in [true, false] {
        let mut relaxed = database.begin_relaxed().await.expect("a transaction");
        let setting = sqlx::query_scalar::<_, String>(select).fetch_one(&mut *relaxed).await;
        assert_eq!(setting.expect("a setting"), off);
        execute(&mut relaxed, "INSERT INTO notes (body) VALUES ('x')").await.expect("a row");
        if ends {
            relaxed.commit().await.expect("a commit");
        } else {
            drop(relaxed);
        }
        // All connections that there may be.
        for _ in 0..MAX_CONNECTIONS {
            let setting = sqlx::query_scalar::<_, String>(select).fetch_one(database.writer()).await;
            assert_eq!(setting.expect("a setting"), on, "after it has ended: {ends}");
        }
    }
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notes").fetch_one(database.reader());
    assert_eq!(count.await.expect("a count"), 1);
}

/// A COMMIT would answer it with a roll-back that looks like a success.
#[tokio::test]
async fn a_transaction_with_a_failed_statement_is_not_committed() {
    let database = Scratch::new(Kind::Postgres).open(&[NOTES]).await;
    let mut transaction = database.begin().await.expect("a transaction");
    execute(&mut transaction, "INSERT INTO notes (body) VALUES ('kept?')").await.expect("a row");
    execute(&mut transaction, "INSERT INTO nothing VALUES (1)").await.expect_err("no such table");
    let failure = database.commit(transaction).await.expect_err("a failure");
    assert_eq!(failure.as_database_error().and_then(|error| error.code()).as_deref(), Some("25P02"), "{failure}");
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notes").fetch_one(database.reader());
    assert_eq!(count.await.expect("a count"), 0);
}

/// Adds an event to the outbox.
async fn change(database: &Database, id: &str) {
    let message: Message = crate::bus::conformance::message(id, "user.a.updated");
    let mut transaction = database.begin().await.expect("a transaction");
    outbox::add(&mut transaction, &message, 1).await.expect("a row");
    database.commit(transaction).await.expect("a commit");
}

#[tokio::test]
async fn a_commit_with_events_is_heard_by_the_other_processes() {
    let scratch = Scratch::new(Kind::Postgres);
    let (here, there) = (scratch.open(&[]).await, scratch.open(&[]).await);
    for id in ["1", "2"] {
        let committed = there.committed();
        change(&here, id).await;
        tokio::time::timeout(PATIENCE, committed).await.expect("a wake-up");
    }
    // Nor does the listener's own connection outlive its server's, for good.
    let listeners = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity \
                     WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let reconnected = there.committed();
    assert_eq!(sqlx::query(listeners).execute(here.writer()).await.expect("an end").rows_affected(), 2);
    tokio::time::timeout(PATIENCE, reconnected).await.expect("a wake-up for what may have gone unheard");
    let committed = there.committed();
    change(&here, "3").await;
    tokio::time::timeout(PATIENCE, committed).await.expect("a wake-up");
    for database in [&here, &there] {
        database.close().await;
    }
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let witness = scratch.open(&[]).await;
    let left = async || sqlx::query_scalar::<_, i64>(left).fetch_one(witness.reader()).await.expect("a count");
    tokio::time::timeout(PATIENCE, async {
        // Its own listener.
        while left().await > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nobody listens when the databases are closed");
}

#[tokio::test]
async fn a_stuck_transaction_is_ended_by_the_server() {
    let database = Scratch::new(Kind::Postgres).open(&[]).await;
    let show = sqlx::query_scalar::<_, String>("SHOW idle_in_transaction_session_timeout");
    assert_eq!(show.fetch_one(database.reader()).await.expect("a setting"), "1min");
}

/// Also the errors of a server that is there, and of one that is not, keep the password to themselves.
#[tokio::test]
async fn a_database_is_reached_over_tls_with_a_password() {
    let cluster = Postgres::start(Settings { secured: true, ..Settings::default() });
    let url = cluster.database();
    let database = Database::open(&url, &[NOTES]).await.expect("a database");
    let tls = "SELECT ssl::int::bigint FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(sqlx::query_scalar::<_, i64>(tls).fetch_one(database.reader()).await.expect("a row"), 1);
    database.close().await;
    let wrong = url.replace("h2so4", "hunter2");
    let unknown_authority = url.split("&sslrootcert").next().expect("a URL").to_owned();
    for (url, reason) in [(wrong, "password authentication failed"), (unknown_authority, "certificate")] {
        let failure = Database::open(&url, &[]).await.expect_err(reason).to_string();
        assert!(failure.contains(reason) && failure.contains("@localhost:"), "{failure}");
        assert!(!failure.contains("hunter2") && !failure.contains(PASSWORD) && !failure.contains("h2so4"), "{failure}");
    }
    cluster.stop();
    let failure = Database::open(&url, &[]).await.expect_err("nobody listens").to_string();
    assert!(failure.contains("refused") && !failure.contains("h2so4"), "{failure}");
}
