//! Containers and their tombstones.

use edd_events::clock::Micros;
use edd_events::publisher::Cause;
use edd_proto::{ContainerId, UserId};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row, query, query_scalar};

use super::{Connection, broken, flag, parsed, small, unknown};
use crate::compute::model::{Access, Container, MountPaths, Status, Wanted};
use crate::compute::platform::SshServer;

/// Keys that one container may be restricted to.
const MAX_KEYS: u32 = 1000;

/// The statement that reads containers, one row for each of their keys: those that `chosen`, what follows WHERE, finds.
/// One statement, so that a container and its keys are of one moment.
fn select(chosen: &str, order: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT containers.*, key_number FROM (SELECT * FROM containers WHERE {chosen}) AS containers \
         LEFT JOIN container_ssh_keys ON container_id = id AND ssh_keys_restricted = 1 ORDER BY {order}, key_number"
    ))
}

/// The containers of rows that are ordered by container.
fn fold(rows: &[AnyRow]) -> sqlx::Result<Vec<Container>> {
    let mut containers: Vec<Container> = Vec::new();
    for row in rows {
        let key: Option<i64> = row.try_get("key_number")?;
        let id: ContainerId = parsed(row, "id")?;
        if containers.last().is_none_or(|last| last.id != id) {
            containers.push(read(row, id)?);
        }
        let keys = containers.last_mut().and_then(|last| last.access.ssh_keys.as_mut());
        if let (Some(keys), Some(key)) = (keys, key) {
            keys.push(key);
        }
    }
    Ok(containers)
}

fn read(row: &AnyRow, id: ContainerId) -> sqlx::Result<Container> {
    let mount_paths: Vec<String> =
        serde_json::from_str(row.try_get("mount_paths")?).map_err(|error| broken("mount_paths", error))?;
    let address: &str = row.try_get("address")?;
    let (status, wanted): (i64, &str) = (row.try_get("status")?, row.try_get("wanted")?);
    let ssh = SshServer { port: small(row, "ssh_port")?, host_key: row.try_get("ssh_host_key")? };
    Ok(Container {
        id,
        owner: parsed(row, "user_id")?,
        owner_number: row.try_get("user_number")?,
        owner_name: row.try_get("user_name")?,
        name: row.try_get("name")?,
        image: row.try_get("image")?,
        pull: parsed(row, "pull_policy")?,
        instance_type: parsed(row, "instance_type")?,
        memory_mb: small(row, "memory_mb")?,
        storage_gb: small(row, "storage_gb")?,
        mount_paths: MountPaths::parse(mount_paths).map_err(|error| broken("mount_paths", error))?,
        access: Access {
            ssh_enabled: flag(row, "ssh_enabled")?,
            ssh_keys: flag(row, "ssh_keys_restricted")?.then(Vec::new),
            https_enabled: flag(row, "https_enabled")?,
            redirect_to_https: flag(row, "redirect_to_https")?,
        },
        idle_timeout_s: small(row, "idle_timeout_s")?,
        wanted: Wanted::read(wanted).ok_or_else(|| unknown("wanted", wanted))?,
        generation: row.try_get("generation")?,
        cause: Cause { correlation_id: row.try_get("correlation_id")?, trace_parent: row.try_get("trace_parent")? },
        status: Status::read(status).ok_or_else(|| unknown("status", status))?,
        status_at: row.try_get("status_at")?,
        reason: row.try_get("reason")?,
        is_starting: flag(row, "is_starting")?,
        address: if address.is_empty() { None } else { Some(parsed(row, "address")?) },
        http_port: small(row, "http_port")?,
        ssh: Some(ssh).filter(|ssh| ssh.port > 0),
        last_active_at: row.try_get("last_active_at")?,
        attempts: small(row, "attempts")?,
        due_at: row.try_get("due_at")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// The columns that change, in the order in which [`bind_changing`] binds them.
const CHANGING: [&str; 27] = [
    "name",
    "image",
    "pull_policy",
    "mount_paths",
    "ssh_enabled",
    "ssh_keys_restricted",
    "https_enabled",
    "redirect_to_https",
    "idle_timeout_s",
    "wanted",
    "generation",
    "status",
    "status_at",
    "reason",
    "is_starting",
    "address",
    "http_port",
    "ssh_port",
    "ssh_host_key",
    "last_active_at",
    "attempts",
    "due_at",
    "version",
    "deleted_at",
    "user_name",
    "correlation_id",
    "trace_parent",
];

type Statement<'q> = Query<'q, Any, AnyArguments>;

fn bind_changing<'q>(statement: Statement<'q>, container: &Container) -> sqlx::Result<Statement<'q>> {
    let Container { access, .. } = container;
    let mount_paths = serde_json::to_string(container.mount_paths.as_slice());
    let mount_paths = mount_paths.map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let statement = statement.bind(container.name.clone()).bind(container.image.clone());
    let statement = statement.bind(container.pull.as_str()).bind(mount_paths);
    let statement = statement.bind(i64::from(access.ssh_enabled)).bind(i64::from(access.ssh_keys.is_some()));
    let statement = statement.bind(i64::from(access.https_enabled)).bind(i64::from(access.redirect_to_https));
    let statement = statement.bind(i64::from(container.idle_timeout_s)).bind(container.wanted.as_str());
    let statement = statement.bind(container.generation).bind(i64::from(container.status.number() as i32));
    let statement = statement.bind(container.status_at).bind(container.reason.clone());
    let statement = statement.bind(i64::from(container.is_starting));
    let statement = statement.bind(container.address.map(|address| address.to_string()).unwrap_or_default());
    let statement = statement.bind(i64::from(container.http_port));
    let ssh = container.ssh.clone().unwrap_or(SshServer { port: 0, host_key: String::new() });
    let statement = statement.bind(i64::from(ssh.port)).bind(ssh.host_key);
    let statement = statement.bind(container.last_active_at).bind(i64::from(container.attempts));
    let statement = statement.bind(container.due_at).bind(container.version).bind(container.deleted_at);
    let statement = statement.bind(container.owner_name.clone());
    Ok(statement.bind(container.cause.correlation_id.clone()).bind(container.cause.trace_parent.clone()))
}

/// Adds a container with its keys. False: the id is taken.
pub async fn insert(connection: &mut AnyConnection, container: &Container) -> sqlx::Result<bool> {
    const FIXED: [&str; 7] = ["id", "user_id", "user_number", "instance_type", "memory_mb", "storage_gb", "created_at"];
    let columns = [&CHANGING[..], &FIXED[..]].concat();
    let places: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    let statement = format!(
        "INSERT INTO containers ({}) VALUES ({}) ON CONFLICT DO NOTHING",
        columns.join(", "),
        places.join(", ")
    );
    let insert = bind_changing(query(AssertSqlSafe(statement)), container)?;
    let insert = insert.bind(container.id.as_str()).bind(container.owner.as_str()).bind(container.owner_number);
    let insert = insert.bind(container.instance_type.as_str()).bind(i64::from(container.memory_mb));
    let insert = insert.bind(i64::from(container.storage_gb)).bind(container.created_at);
    if insert.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(false);
    }
    set_keys(connection, container).await?;
    Ok(true)
}

/// Writes what may have changed of a container that is locked. Its keys are written by [`set_keys`].
pub async fn save(connection: impl Connection<'_>, container: &Container) -> sqlx::Result<()> {
    let changes: Vec<String> =
        CHANGING.iter().enumerate().map(|(index, column)| format!("{column} = ${}", index + 1)).collect();
    let statement = format!("UPDATE containers SET {} WHERE id = ${}", changes.join(", "), CHANGING.len() + 1);
    let update = bind_changing(query(AssertSqlSafe(statement)), container)?;
    update.bind(container.id.as_str()).execute(connection).await?;
    Ok(())
}

/// Writes which keys may log in.
pub async fn set_keys(connection: &mut AnyConnection, container: &Container) -> sqlx::Result<()> {
    let id = container.id.as_str();
    query("DELETE FROM container_ssh_keys WHERE container_id = $1").bind(id).execute(&mut *connection).await?;
    let keys = container.access.ssh_keys.as_deref().unwrap_or_default();
    for key in keys.iter().take(MAX_KEYS as usize) {
        let insert = query("INSERT INTO container_ssh_keys (container_id, key_number) VALUES ($1, $2)");
        insert.bind(id).bind(*key).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The container, deleted or not, locked until the transaction ends.
pub async fn lock(connection: &mut AnyConnection, id: ContainerId) -> sqlx::Result<Option<Container>> {
    let update = query("UPDATE containers SET version = version WHERE id = $1").bind(id.as_str());
    if update.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(None);
    }
    by_id(connection, id).await
}

/// The container, deleted or not.
pub async fn by_id(connection: impl Connection<'_>, id: ContainerId) -> sqlx::Result<Option<Container>> {
    let rows = query(select("id = $1", "id")).bind(id.as_str()).fetch_all(connection).await?;
    Ok(fold(&rows)?.pop())
}

/// The live containers of a user, the oldest first.
pub async fn of_user(connection: impl Connection<'_>, user: UserId, most: u32) -> sqlx::Result<Vec<Container>> {
    let chosen = "user_id = $1 AND deleted_at IS NULL ORDER BY created_at, id LIMIT $2";
    let statement = query(select(chosen, "created_at, id")).bind(user.as_str()).bind(i64::from(most));
    fold(&statement.fetch_all(connection).await?)
}

/// How many live containers a user has.
pub async fn count(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<i64> {
    let statement = "SELECT count(*) FROM containers WHERE user_id = $1 AND deleted_at IS NULL";
    query_scalar(statement).bind(user.as_str()).fetch_one(connection).await
}

/// The live containers of one user that name a key.
pub async fn naming_key(connection: impl Connection<'_>, key: i64, most: u32) -> sqlx::Result<Vec<ContainerId>> {
    let statement = "SELECT id FROM containers WHERE deleted_at IS NULL AND id IN \
                     (SELECT container_id FROM container_ssh_keys WHERE key_number = $1) ORDER BY id LIMIT $2";
    let ids: Vec<String> = query_scalar(statement).bind(key).bind(i64::from(most)).fetch_all(connection).await?;
    ids.iter().map(|id| id.parse().map_err(|error| broken("id", error))).collect()
}

/// At most `most` containers with ids after `after`, by the bytes of their ids.
pub async fn page(
    connection: impl Connection<'_>,
    after: Option<&str>,
    most: u32,
    with_deleted: bool,
) -> sqlx::Result<Vec<Container>> {
    let chosen = "id > $1 AND (deleted_at IS NULL OR $2 = 1) ORDER BY id LIMIT $3";
    let statement = query(select(chosen, "id")).bind(after.unwrap_or_default());
    fold(&statement.bind(i64::from(with_deleted)).bind(i64::from(most)).fetch_all(connection).await?)
}

/// Notes that containers were used at `now`; who fell asleep for want of use is to run again. How many those are.
pub async fn mark_active(
    connection: &mut AnyConnection,
    ids: &[ContainerId],
    now: Micros,
) -> sqlx::Result<Vec<ContainerId>> {
    let places: Vec<String> = (2..2 + ids.len()).map(|number| format!("${number}")).collect();
    let places = places.join(", ");
    let statement = format!(
        "UPDATE containers SET last_active_at = $1 WHERE id IN ({places}) AND deleted_at IS NULL AND last_active_at < $1"
    );
    let update = ids.iter().fold(query(AssertSqlSafe(statement)).bind(now), |update, id| update.bind(id.to_string()));
    update.execute(&mut *connection).await?;
    let statement = format!(
        "UPDATE containers SET wanted = 'running', generation = generation + 1, attempts = 0, due_at = $1 \
         WHERE id IN ({places}) AND deleted_at IS NULL AND wanted = 'idle' RETURNING id"
    );
    let update = ids.iter().fold(query(AssertSqlSafe(statement)).bind(now), |update, id| update.bind(id.to_string()));
    update.fetch_all(connection).await?.iter().map(|row| parsed(row, "id")).collect()
}
