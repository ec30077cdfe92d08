//! compute_db: the only place of the compute service that speaks SQL. Functions change one noun each and take the
//! transaction from their caller, who also adds the events.
//!
//! Rows are locked in one order, so that no two transactions wait for each other: owner, key, container.

pub mod containers;
pub mod due;
pub mod ingress;
pub mod owners;
pub mod ssh_keys;
pub mod turn;

use edd_events::database::Step;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row};

/// The tables. Times are microseconds since 1970, truth values 0 and 1. A row that is deleted stays as a tombstone,
/// because copies of these tables are made page by page.
pub const STEPS: [Step; 2] = [CONTAINERS, SSH_HOST_KEYS];

const CONTAINERS: Step = Step {
    version: 1100,
    name: "compute",
    sql: "
-- Users who ever had something here: locked while it is counted what they have.
CREATE TABLE owners (
    user_id TEXT PRIMARY KEY,
    deleted_at BIGINT,
    -- Whether everything of a deleted user is deleted.
    cleared BIGINT NOT NULL
);
CREATE INDEX owners_uncleared ON owners (user_id) WHERE deleted_at IS NOT NULL AND cleared = 0;

CREATE TABLE containers (
    id {key},
    user_id TEXT NOT NULL,
    user_number BIGINT NOT NULL,
    user_name TEXT NOT NULL,
    name TEXT NOT NULL,
    image TEXT NOT NULL,
    pull_policy TEXT NOT NULL,
    instance_type TEXT NOT NULL,
    memory_mb BIGINT NOT NULL,
    storage_gb BIGINT NOT NULL,
    -- JSON
    mount_paths TEXT NOT NULL,
    ssh_enabled BIGINT NOT NULL,
    -- 1: those of container_ssh_keys alone may log in, also when there are none left.
    ssh_keys_restricted BIGINT NOT NULL,
    https_enabled BIGINT NOT NULL,
    redirect_to_https BIGINT NOT NULL,
    -- 0: never
    idle_timeout_s BIGINT NOT NULL,
    -- What its owner wants: running, hibernated, idle or stopped
    wanted TEXT NOT NULL,
    generation BIGINT NOT NULL,
    -- The request that wanted it.
    correlation_id TEXT NOT NULL,
    trace_parent TEXT NOT NULL,
    -- What is known of it: compute.ContainerStatus
    status BIGINT NOT NULL,
    status_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    is_starting BIGINT NOT NULL,
    -- Empty: none
    address TEXT NOT NULL,
    http_port BIGINT NOT NULL,
    -- 0: none
    ssh_port BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    -- When it is seen to next; NULL: it is as it is wanted
    due_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX containers_user ON containers (user_id, created_at) WHERE deleted_at IS NULL;
CREATE INDEX containers_due ON containers (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE ssh_keys (
    number {serial},
    -- The number as text, by which copies are made; set at once.
    id_bytes {bytes} UNIQUE,
    user_id TEXT NOT NULL,
    user_number BIGINT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    public_key TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX ssh_keys_fingerprint ON ssh_keys (user_id, fingerprint) WHERE deleted_at IS NULL;

-- The keys that may log in to a container that is restricted to some.
CREATE TABLE container_ssh_keys (
    container_id TEXT NOT NULL,
    key_number BIGINT NOT NULL,
    PRIMARY KEY (container_id, key_number)
);
CREATE INDEX container_ssh_keys_key ON container_ssh_keys (key_number);

-- The ports that are asked for. A further request for the same place takes the place of the deleted one's row.
CREATE TABLE ingress_requests (
    number {serial},
    -- Container and port, as in `abcdefghij/8000`.
    place {bytes} NOT NULL UNIQUE,
    container_id TEXT NOT NULL,
    port BIGINT NOT NULL,
    target_port BIGINT NOT NULL,
    -- compute.IngressProtocol
    protocol BIGINT NOT NULL,
    -- pending, active or rejected
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX ingress_requests_container ON ingress_requests (container_id, port);
",
};

/// How a container's SSH server is known.
const SSH_HOST_KEYS: Step = Step {
    version: 1101,
    name: "ssh_host_keys",
    sql: "
-- Empty: none
ALTER TABLE containers ADD COLUMN ssh_host_key TEXT NOT NULL DEFAULT '';
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

/// Reads a column of numbers as one that is smaller.
fn small<T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>>(
    row: &AnyRow,
    column: &str,
) -> sqlx::Result<T> {
    T::try_from(row.try_get(column)?).map_err(|error| broken(column, error))
}

fn flag(row: &AnyRow, column: &str) -> sqlx::Result<bool> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

/// A column holds what this service never wrote there.
fn broken(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}

/// The same, where nothing but the value says so.
fn unknown(column: &str, value: impl std::fmt::Display) -> sqlx::Error {
    broken(column, std::io::Error::other(format!("{value} is none of the known values")))
}
