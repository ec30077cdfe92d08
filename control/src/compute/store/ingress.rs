//! Requests for ports and their tombstones.

use edd_events::clock::Micros;
use edd_proto::ContainerId;
use edd_proto::compute::IngressProtocol;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row, query, query_scalar};

use super::{Connection, broken, parsed, small, unknown};
use crate::compute::model::{Rule, RuleState, WantedRule, place};

fn read(row: &AnyRow) -> sqlx::Result<Rule> {
    let state: &str = row.try_get("state")?;
    let protocol: i32 = small(row, "protocol")?;
    Ok(Rule {
        number: row.try_get("number")?,
        container: parsed(row, "container_id")?,
        port: small(row, "port")?,
        target_port: small(row, "target_port")?,
        protocol: IngressProtocol::try_from(protocol).map_err(|error| broken("protocol", error))?,
        state: RuleState::read(state).ok_or_else(|| unknown("state", state))?,
        reason: row.try_get("reason")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// Adds a request; its number, or None if the container has a rule for the port.
pub async fn insert(
    connection: &mut AnyConnection,
    container: ContainerId,
    rule: WantedRule,
    now: Micros,
) -> sqlx::Result<Option<i64>> {
    let place = place(container, rule.port).into_bytes();
    let forget = query("DELETE FROM ingress_requests WHERE place = $1 AND deleted_at IS NOT NULL");
    forget.bind(place.clone()).execute(&mut *connection).await?;
    let statement = "INSERT INTO ingress_requests \
                     (place, container_id, port, target_port, protocol, state, reason, version, created_at) \
                     VALUES ($1, $2, $3, $4, $5, 'pending', '', 0, $6) ON CONFLICT DO NOTHING RETURNING number";
    let insert = query_scalar(statement).bind(place).bind(container.as_str()).bind(i64::from(rule.port));
    let insert = insert.bind(i64::from(rule.target_port)).bind(i64::from(rule.protocol as i32)).bind(now);
    insert.fetch_optional(connection).await
}

pub async fn set_version(connection: impl Connection<'_>, number: i64, version: i64) -> sqlx::Result<()> {
    let update = query("UPDATE ingress_requests SET version = $1 WHERE number = $2").bind(version).bind(number);
    update.execute(connection).await?;
    Ok(())
}

/// The live rules of a container, by port.
pub async fn of_container(
    connection: impl Connection<'_>,
    container: ContainerId,
    most: u32,
) -> sqlx::Result<Vec<Rule>> {
    let statement =
        "SELECT * FROM ingress_requests WHERE container_id = $1 AND deleted_at IS NULL ORDER BY port LIMIT $2";
    let select = query(statement).bind(container.as_str()).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}

pub async fn count(connection: impl Connection<'_>, container: ContainerId) -> sqlx::Result<i64> {
    let statement = "SELECT count(*) FROM ingress_requests WHERE container_id = $1 AND deleted_at IS NULL";
    query_scalar(statement).bind(container.as_str()).fetch_one(connection).await
}

/// Makes a tombstone of a container's live rule for a port. What it was.
pub async fn bury(
    connection: impl Connection<'_>,
    container: ContainerId,
    port: u16,
    now: Micros,
) -> sqlx::Result<Option<Rule>> {
    let statement = "UPDATE ingress_requests SET deleted_at = $1 WHERE place = $2 AND deleted_at IS NULL RETURNING *";
    let update = query(statement).bind(now).bind(place(container, port).into_bytes());
    update.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// Notes what the gateway says to request `number`, if that is still the one for its port. Whether it is.
pub async fn answer(
    connection: impl Connection<'_>,
    container: ContainerId,
    number: i64,
    state: RuleState,
    reason: &str,
) -> sqlx::Result<bool> {
    let statement = "UPDATE ingress_requests SET state = $1, reason = $2 \
                     WHERE number = $3 AND container_id = $4 AND deleted_at IS NULL";
    let update = query(statement).bind(state.as_str()).bind(reason).bind(number).bind(container.as_str());
    Ok(update.execute(connection).await?.rows_affected() > 0)
}

/// At most `most` requests, tombstones included, with places after `after`, by their bytes.
pub async fn page(connection: impl Connection<'_>, after: Option<&str>, most: u32) -> sqlx::Result<Vec<Rule>> {
    let select = query("SELECT * FROM ingress_requests WHERE place > $1 ORDER BY place LIMIT $2");
    let select = select.bind(after.unwrap_or_default().as_bytes().to_vec()).bind(i64::from(most));
    select.fetch_all(connection).await?.iter().map(read).collect()
}
