//! The routes by API in gateway_db.

use edd_events::clock::Micros;
use edd_events::database::{Database, Step};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Creates the table.
pub const STEP: Step = Step {
    version: 1201,
    name: "static_routes",
    sql: "
CREATE TABLE static_routes (
    route_id {serial},
    host TEXT NOT NULL,
    path_prefix TEXT NOT NULL,
    -- The route as it was given: an entry of routes.yaml, in JSON.
    form TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (host, path_prefix)
);
",
};

/// What a database fails with.
pub type StoreError = sqlx::Error;

/// A route as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub route_id: i64,
    pub host: String,
    pub path_prefix: String,
    pub form: String,
}

/// Keeps a route, in the place of one with the same host and path. Its number.
pub async fn put(
    connection: &mut AnyConnection,
    (host, path_prefix): (&str, &str),
    form: &str,
    now: Micros,
) -> Result<i64, StoreError> {
    let statement = "INSERT INTO static_routes (host, path_prefix, form, created_at) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (host, path_prefix) DO UPDATE SET form = excluded.form RETURNING route_id";
    sqlx::query_scalar(statement).bind(host).bind(path_prefix).bind(form).bind(now).fetch_one(connection).await
}

/// Removes the route of a host and a path; none if there was none.
pub async fn remove(
    connection: &mut AnyConnection,
    (host, path_prefix): (&str, &str),
) -> Result<Option<i64>, StoreError> {
    let statement = "DELETE FROM static_routes WHERE host = $1 AND path_prefix = $2 RETURNING route_id";
    sqlx::query_scalar(statement).bind(host).bind(path_prefix).fetch_optional(connection).await
}

/// How many routes there are.
pub async fn count(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT count(*) FROM static_routes").fetch_one(connection).await
}

/// At most `most` routes, in the order of their numbers.
pub async fn all(database: &Database, most: u32) -> Result<Vec<Kept>, StoreError> {
    let statement = "SELECT route_id, host, path_prefix, form FROM static_routes ORDER BY route_id LIMIT $1";
    let rows = sqlx::query(statement).bind(i64::from(most)).fetch_all(database.reader()).await?;
    rows.iter().map(kept).collect()
}

fn kept(row: &AnyRow) -> Result<Kept, StoreError> {
    Ok(Kept {
        route_id: row.try_get("route_id")?,
        host: row.try_get("host")?,
        path_prefix: row.try_get("path_prefix")?,
        form: row.try_get("form")?,
    })
}
