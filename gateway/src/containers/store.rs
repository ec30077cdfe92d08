//! What gateways keep of containers besides compute's projections: who was served how much.

use edd_events::database::{Database, Step};
use edd_proto::{ContainerId, UserId};
use sqlx::AnyConnection;

use crate::live::Usage;

/// The table of usage.
pub const STEP: Step = Step {
    version: 1100,
    name: "tenant_usage",
    sql: "
-- What each container was served with, by day: requests that reached it, bytes of bodies and streams.
CREATE TABLE tenant_usage (
    user_id TEXT NOT NULL,
    container_id TEXT NOT NULL,
    -- Since 1 January 1970, UTC.
    day BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    PRIMARY KEY (user_id, container_id, day)
);
CREATE INDEX tenant_usage_day ON tenant_usage (day);
",
};

/// What a database fails with.
pub type StoreError = sqlx::Error;

/// Rows that are read, or removed, in one go.
const PAGE_ROWS: i64 = 5000;

/// Whose usage of which day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    pub owner: UserId,
    pub container: ContainerId,
    /// Since 1 January 1970, UTC.
    pub day: i64,
}

/// Adds to what accounts have: all of it, or nothing.
///
/// # Errors
/// The database fails. It is unknown then whether it was added.
pub async fn add_all(database: &Database, usages: &[(Account, Usage)]) -> sqlx::Result<()> {
    let mut transaction = database.begin().await?;
    for (account, usage) in usages {
        add(&mut transaction, *account, *usage).await?;
    }
    database.commit(transaction).await
}

async fn add(connection: &mut AnyConnection, account: Account, usage: Usage) -> sqlx::Result<()> {
    let upsert = sqlx::query(
        "INSERT INTO tenant_usage (user_id, container_id, day, requests, bytes_in, bytes_out) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, container_id, day) DO UPDATE SET \
         requests = tenant_usage.requests + excluded.requests, \
         bytes_in = tenant_usage.bytes_in + excluded.bytes_in, \
         bytes_out = tenant_usage.bytes_out + excluded.bytes_out",
    );
    let upsert = upsert.bind(account.owner.to_string()).bind(account.container.to_string()).bind(account.day);
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let upsert = upsert.bind(count(usage.requests)).bind(count(usage.bytes_in)).bind(count(usage.bytes_out));
    upsert.execute(connection).await.map(drop)
}

/// Removes what is older than `day`. How many rows.
///
/// # Errors
/// The database fails.
pub async fn prune(database: &Database, day: i64) -> sqlx::Result<u64> {
    let mut removed = 0;
    loop {
        let delete = sqlx::query(
            "DELETE FROM tenant_usage WHERE (user_id, container_id, day) IN \
             (SELECT user_id, container_id, day FROM tenant_usage WHERE day < $1 LIMIT $2)",
        );
        let rows = delete.bind(day).bind(PAGE_ROWS).execute(database.writer()).await?.rows_affected();
        removed += rows;
        if rows == 0 {
            return Ok(removed);
        }
    }
}

/// At most a page of users who were deleted, after `after` in the order of their ids.
///
/// # Errors
/// The database fails, or holds something that is no id.
pub async fn deleted_users(database: &Database, after: Option<UserId>) -> sqlx::Result<Vec<UserId>> {
    let select = sqlx::query_scalar::<_, String>(
        "SELECT user_id FROM user_cache WHERE deleted <> 0 AND user_id > $1 ORDER BY user_id LIMIT $2",
    );
    let after = after.map(|user| user.to_string()).unwrap_or_default();
    let users = select.bind(after).bind(PAGE_ROWS).fetch_all(database.reader()).await?;
    users.iter().map(|user| user.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))).collect()
}
