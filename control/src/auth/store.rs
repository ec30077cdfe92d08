//! auth_db: the only place of the auth service that speaks SQL. Functions change one noun each and take the
//! transaction from their caller, who also adds the events.

pub mod keys;
pub mod refresh;
pub mod revocations;
pub mod sessions;
pub mod tokens;
pub mod users;

use edd_events::database::Step;
use edd_proto::UserId;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row};

use crate::auth::model::RecordId;

/// The tables. Times are microseconds since 1970, truth values 0 and 1.
pub const STEPS: [Step; 1] = [Step {
    version: 1000,
    name: "auth",
    sql: "
-- A deleted user stays as a tombstone; the name is free again.
CREATE TABLE users (
    number {serial},
    id TEXT NOT NULL UNIQUE,
    -- The id once more: text sorts by language in PostgreSQL, and pages of users go by bytes.
    id_bytes {bytes} NOT NULL UNIQUE,
    -- Both empty in a tombstone: of who is gone, only the ids stay.
    username TEXT NOT NULL,
    display_name TEXT NOT NULL,
    -- In the PHC string format; empty in a tombstone.
    password_hash TEXT NOT NULL,
    is_admin BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX users_name ON users (username) WHERE deleted_at IS NULL;

-- Its one row says that the first administrator was created.
CREATE TABLE first_start (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    at BIGINT NOT NULL
);

-- Sessions that have not ended. One that ends before its time leaves a revocation.
CREATE TABLE sessions (
    number {serial},
    id TEXT NOT NULL UNIQUE,
    user_number BIGINT NOT NULL REFERENCES users (number),
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    client_ip TEXT NOT NULL,
    client_network TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    is_refreshed BIGINT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_number, number);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- A session's refresh tokens: one that can be used, and those that were.
CREATE TABLE refresh_tokens (
    sha256 {bytes} NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    used_at BIGINT,
    successor {bytes}
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

CREATE TABLE api_tokens (
    number {serial},
    id TEXT NOT NULL UNIQUE,
    user_number BIGINT NOT NULL REFERENCES users (number),
    name TEXT NOT NULL,
    sha256 {bytes} NOT NULL UNIQUE,
    -- JSON
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- NULL: never
    expires_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX api_tokens_user ON api_tokens (user_number, number);
CREATE INDEX api_tokens_expiry ON api_tokens (expires_at);

-- What was ended before its time, for as long as somebody may still hold a token of it.
CREATE TABLE revocations (
    number {serial},
    record_id TEXT NOT NULL UNIQUE,
    -- session, api_token or user
    kind TEXT NOT NULL,
    user_number BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    -- auth.SessionEnd
    reason BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX revocations_expiry ON revocations (expires_at);

-- The keys that access tokens are signed with, one after the other: two replicas cannot both add the next.
CREATE TABLE signing_keys (
    generation BIGINT PRIMARY KEY,
    pkcs8 {bytes} NOT NULL,
    -- When it is signed with from; published long before.
    active_from BIGINT NOT NULL
);
",
}];

/// A connection, a transaction or a pool.
pub trait Connection<'c>: Executor<'c, Database = Any> {}

impl<'c, E: Executor<'c, Database = Any>> Connection<'c> for E {}

fn user_id(row: &AnyRow, column: &str) -> sqlx::Result<UserId> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error| broken(column, error))
}

fn record_id(row: &AnyRow, column: &str) -> sqlx::Result<RecordId> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error| broken(column, error))
}

/// A column holds what this service never wrote there.
fn broken(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}
