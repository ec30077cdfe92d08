//! The rules in gateway_db, and what of them differs from what is asked for.

use edd_events::clock::Micros;
use edd_events::compute_cache::ingress_requests::IngressRequest;
use edd_events::database::{Database, Kind, Step, Transaction};
use edd_proto::ContainerId;
use edd_proto::compute::IngressProtocol;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::rule::{self, Refusal};
use crate::table::ports::{PortProtocol, PortRule};

/// What a database fails with.
pub type StoreError = sqlx::Error;

/// The key of PostgreSQL's advisory lock that the one decider of a database holds.
const DECIDER_LOCK: i64 = 0x6564_6450_6f72_7473;

/// Creates the table.
pub const STEP: Step = Step {
    version: 1200,
    name: "ingress_rules",
    sql: "
CREATE TABLE ingress_rules (
    rule_id {serial},
    -- Container and port, as in `abcdefghij/8000`.
    place TEXT NOT NULL UNIQUE,
    container_id TEXT NOT NULL,
    -- The gateway's, as asked for: of a rejected one it may be none.
    port BIGINT NOT NULL,
    target_port BIGINT NOT NULL,
    -- compute.IngressProtocol
    protocol BIGINT NOT NULL,
    -- compute's number for the request that was answered last.
    request_id BIGINT NOT NULL,
    -- created, rejected or deleted
    state TEXT NOT NULL,
    -- gateway.IngressRejection
    reason BIGINT NOT NULL,
    message TEXT NOT NULL,
    -- Grows with each change of any rule, in the order of commits: only one decides at a time.
    revision BIGINT NOT NULL UNIQUE,
    decided_at BIGINT NOT NULL
);
CREATE INDEX ingress_rules_port ON ingress_rules (port, state, protocol);
CREATE INDEX ingress_rules_held ON ingress_rules (place) WHERE state <> 'deleted';
",
};

/// A rule, or a refusal, that nothing asks for any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obsolete {
    pub rule_id: i64,
    pub container: ContainerId,
    pub port: i32,
    pub request_id: i64,
    /// It was given; otherwise it had been refused.
    pub was_created: bool,
}

/// Waits until this transaction is the one that decides. It is until it ends.
pub async fn lock(database: &Database, transaction: &mut Transaction) -> sqlx::Result<()> {
    // In SQLite a transaction that writes is alone.
    if database.kind() == Kind::Postgres {
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(DECIDER_LOCK);
        lock.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// What is to go, the oldest first: its request was taken back or replaced, or its container is gone.
pub async fn obsolete(connection: &mut AnyConnection, most: u32) -> sqlx::Result<Vec<Obsolete>> {
    let statement = "SELECT r.rule_id, r.container_id, r.port, r.request_id, r.state FROM ingress_rules r \
                     LEFT JOIN ingress_request_cache q ON q.place = r.place AND q.deleted = 0 \
                     LEFT JOIN containers c ON c.container_id = r.container_id AND c.deleted = 0 \
                     WHERE r.state <> 'deleted' \
                     AND (q.place IS NULL OR c.container_id IS NULL OR q.request_id <> r.request_id) \
                     ORDER BY r.rule_id LIMIT $1";
    let rows = sqlx::query(statement).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(Obsolete {
                rule_id: row.try_get("rule_id")?,
                container: container(row)?,
                port: number(row, "port")?,
                request_id: row.try_get("request_id")?,
                was_created: row.try_get::<String, _>("state")? == CREATED,
            })
        })
        .collect()
}

/// What was asked for and not answered, in the order of asking. A container that is not known yet has its requests wait
/// in their table: events of different kinds come in any order.
pub async fn unanswered(connection: &mut AnyConnection, most: u32) -> sqlx::Result<Vec<IngressRequest>> {
    let statement = "SELECT q.container_id, q.port, q.target_port, q.protocol, q.request_id \
                     FROM ingress_request_cache q \
                     JOIN containers c ON c.container_id = q.container_id AND c.deleted = 0 \
                     LEFT JOIN ingress_rules r ON r.place = q.place AND r.state <> 'deleted' \
                     WHERE q.deleted = 0 AND r.place IS NULL ORDER BY q.request_id, q.place LIMIT $1";
    let rows = sqlx::query(statement).bind(i64::from(most)).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(IngressRequest {
                container: container(row)?,
                port: number(row, "port")?,
                target_port: number(row, "target_port")?,
                protocol: asked_protocol(row)?,
                request_id: row.try_get("request_id")?,
            })
        })
        .collect()
}

/// Whether another container has a rule that leaves no room for `wanted`.
pub async fn is_taken(connection: &mut AnyConnection, wanted: &PortRule) -> sqlx::Result<bool> {
    // Beside raw TCP there is nothing, beside the others everything but raw TCP.
    let conflicting = match wanted.protocol {
        PortProtocol::Tcp => "",
        _ => "AND protocol = $3 ",
    };
    let statement = format!(
        "SELECT rule_id FROM ingress_rules WHERE port = $1 AND state = 'created' {conflicting}\
         AND container_id <> $2 LIMIT 1"
    );
    let select = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement));
    let select = select.bind(i64::from(wanted.port)).bind(wanted.container.to_string());
    let select = match wanted.protocol {
        PortProtocol::Tcp => select,
        _ => select.bind(i64::from(IngressProtocol::Tcp as i32)),
    };
    Ok(select.fetch_optional(connection).await?.is_some())
}

/// The highest revision there is; only the decider knows that it stays so.
pub async fn last_revision(connection: &mut AnyConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT coalesce(max(revision), 0) FROM ingress_rules").fetch_one(connection).await
}

/// Writes the answer to `request`. The rule's number.
pub async fn answer(
    connection: &mut AnyConnection,
    request: &IngressRequest,
    refusal: Option<&Refusal>,
    revision: i64,
    now: Micros,
) -> sqlx::Result<i64> {
    let statement = "INSERT INTO ingress_rules (place, container_id, port, target_port, protocol, request_id, state, \
                     reason, message, revision, decided_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                     ON CONFLICT (place) DO UPDATE SET target_port = excluded.target_port, \
                     protocol = excluded.protocol, request_id = excluded.request_id, state = excluded.state, \
                     reason = excluded.reason, message = excluded.message, revision = excluded.revision, \
                     decided_at = excluded.decided_at RETURNING rule_id";
    let insert = sqlx::query_scalar(statement)
        .bind(format!("{}/{}", request.container, request.port))
        .bind(request.container.to_string())
        .bind(i64::from(request.port))
        .bind(i64::from(request.target_port))
        .bind(i64::from(request.protocol as i32))
        .bind(request.request_id)
        .bind(if refusal.is_none() { CREATED } else { "rejected" })
        .bind(refusal.map_or(0, |refusal| i64::from(refusal.reason as i32)))
        .bind(refusal.map_or("", |refusal| refusal.message.as_str()))
        .bind(revision)
        .bind(now);
    insert.fetch_one(connection).await
}

/// Notes that a rule is gone. Its row stays, so that every replica learns of it.
pub async fn remove(connection: &mut AnyConnection, rule_id: i64, revision: i64, now: Micros) -> sqlx::Result<()> {
    let statement = "UPDATE ingress_rules SET state = 'deleted', reason = 0, message = '', revision = $2, \
                     decided_at = $3 WHERE rule_id = $1";
    sqlx::query(statement).bind(rule_id).bind(revision).bind(now).execute(connection).await?;
    Ok(())
}

/// A change of a rule, as replicas follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: i64,
    pub container: ContainerId,
    pub port: u16,
    /// None: there is no such rule.
    pub rule: Option<PortRule>,
}

/// The rules that changed after `revision`, as they are now.
pub async fn changes(database: &Database, revision: i64, most: u32) -> sqlx::Result<Vec<Change>> {
    let statement = "SELECT revision, container_id, port, target_port, protocol, state FROM ingress_rules \
                     WHERE revision > $1 ORDER BY revision LIMIT $2";
    let rows = sqlx::query(statement).bind(revision).bind(i64::from(most)).fetch_all(database.reader()).await?;
    rows.iter().map(change).collect()
}

fn change(row: &AnyRow) -> sqlx::Result<Change> {
    let (container, protocol) = (container(row)?, rule::protocol(asked_protocol(row)?));
    // What was refused may have had any number for a port. 0 is no rule's, and never was.
    let port = |name| row.try_get::<i64, _>(name).map(|port| u16::try_from(port).unwrap_or(0));
    let (revision, port, target_port) = (row.try_get("revision")?, port("port")?, port("target_port")?);
    let created = row.try_get::<String, _>("state")? == CREATED;
    let rule = created.then_some(PortRule { container, port, target_port, protocol });
    Ok(Change { revision, container, port, rule })
}

const CREATED: &str = "created";

fn container(row: &AnyRow) -> sqlx::Result<ContainerId> {
    let text: String = row.try_get("container_id")?;
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn number(row: &AnyRow, column: &str) -> sqlx::Result<i32> {
    i32::try_from(row.try_get::<i64, _>(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn asked_protocol(row: &AnyRow) -> sqlx::Result<IngressProtocol> {
    // One of a later release is told by its first bytes.
    Ok(IngressProtocol::try_from(number(row, "protocol")?).unwrap_or_default())
}
