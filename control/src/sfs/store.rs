//! sfs_db: the only place of the file share that speaks SQL. Functions change one noun each and take the transaction from
//! their caller, who also adds the events.
//!
//! Rows are locked in one order, so that no two transactions wait for each other: owner, namespace, file, content, blob.

pub mod blobs;
pub mod contents;
pub mod differences;
pub mod files;
pub mod namespaces;
pub mod owners;
pub mod shares;
pub mod trees;
pub mod uploads;
pub mod users;

use edd_events::database::Step;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row};

/// The tables. Times are microseconds since 1970, truth values 0 and 1.
pub const STEPS: [Step; 4] = [FILES, uploads::STEP, uploads::LAST_COMER, shares::STEP];

const FILES: Step = Step {
    version: 1200,
    name: "sfs",
    sql: "
-- Users who ever had something here: locked while it is counted what they have.
CREATE TABLE owners (
    user_id TEXT PRIMARY KEY,
    deleted_at BIGINT,
    -- Whether everything of a deleted user was seen to.
    cleared BIGINT NOT NULL
);
CREATE INDEX owners_uncleared ON owners (user_id) WHERE deleted_at IS NOT NULL AND cleared = 0;

CREATE TABLE namespaces (
    number {serial},
    name {text} NOT NULL,
    -- NULL: it was its user's who is deleted
    user_id TEXT,
    user_number BIGINT,
    -- 0 private, 1 internal, 2 public
    visibility BIGINT NOT NULL,
    hidden BIGINT NOT NULL,
    -- Sums over its rows in files.
    used_bytes BIGINT NOT NULL,
    files BIGINT NOT NULL,
    folders BIGINT NOT NULL,
    -- NULL: none but its owner's
    quota_bytes BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Set: it is gone, and what is left of it goes piece by piece.
    deleted_at BIGINT
);
CREATE UNIQUE INDEX namespaces_name ON namespaces (name) WHERE deleted_at IS NULL;
CREATE INDEX namespaces_user ON namespaces (user_id, name) WHERE deleted_at IS NULL;
CREATE INDEX namespaces_deleted ON namespaces (number) WHERE deleted_at IS NOT NULL;

-- Files and folders.
CREATE TABLE files (
    namespace BIGINT NOT NULL,
    path {text} NOT NULL,
    -- The path without its last part; empty at the top.
    parent {text} NOT NULL,
    -- NULL: a folder
    content BIGINT,
    media_type TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, path)
);
CREATE INDEX files_parent ON files (namespace, parent, path);
CREATE INDEX files_content ON files (content) WHERE content IS NOT NULL;

-- Immutable bytes: those of their blobs, in order.
CREATE TABLE contents (
    number {serial},
    size BIGINT NOT NULL,
    sha256 {bytes} NOT NULL,
    -- Files that have it. The row goes with the last.
    refs BIGINT NOT NULL
);

-- Objects in the store.
CREATE TABLE blobs (
    id {key},
    -- NULL: it is being written, or garbage, or an upload's
    content BIGINT,
    upload TEXT,
    ordinal BIGINT NOT NULL,
    size BIGINT NOT NULL,
    -- When it is garbage, unless whoever writes or reads it puts that off; 0: it is being removed, which nothing puts
    -- off. NULL: it is kept.
    due_at BIGINT
);
CREATE INDEX blobs_content ON blobs (content, ordinal) WHERE content IS NOT NULL;
CREATE INDEX blobs_upload ON blobs (upload, ordinal) WHERE upload IS NOT NULL;
CREATE INDEX blobs_due ON blobs (due_at) WHERE due_at IS NOT NULL;
",
};

/// A connection, a transaction or a pool.
pub trait Connection<'c>: Executor<'c, Database = Any> {}

impl<'c, E: Executor<'c, Database = Any>> Connection<'c> for E {}

/// Reads a column of text as what it stands for.
fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &AnyRow,
    column: &str,
) -> sqlx::Result<T> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error| broken(column, error))
}

/// Reads a column of numbers that are never negative.
fn count(row: &AnyRow, column: &str) -> sqlx::Result<u64> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| broken(column, error))
}

/// A size as the database has it. None is larger than what it can say.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// `$first, …` for `many` values.
fn places(first: usize, many: usize) -> String {
    (first..first + many).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

/// A column holds what this service never wrote there.
fn broken(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}

/// The same, where nothing but the value says so.
fn unknown(column: &str, value: impl std::fmt::Display) -> sqlx::Error {
    broken(column, std::io::Error::other(format!("{value} is none of the known values")))
}
