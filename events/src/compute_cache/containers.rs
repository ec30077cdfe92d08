//! Every container as the gateway needs it: `containers`.

use edd_proto::compute::Container;
use edd_proto::{AnyEvent, ContainerId, NamesUser};

use super::{keyed, missing, number, owner, read, text};
use crate::consumer::{Failure, decode};
use crate::database::Step;
use crate::message::Message;
use crate::projection::{Column, Entry, Key, Projection, Shape, Value};

/// The table.
pub static SHAPE: Shape = Shape {
    name: STEP.name,
    sql: STEP.sql,
    key: "container_id",
    columns: &[
        Column::text("user_id"),
        Column::text("name"),
        Column::number("status"),
        Column::text("address"),
        Column::number("http_port"),
        Column::number("ssh_port"),
        Column::number("ssh_enabled"),
        Column::number("https_enabled"),
        Column::number("redirect_to_https"),
        Column::number("ssh_keys_restricted"),
        Column::text("ssh_key_ids"),
        Column::text("ssh_host_key_fingerprint"),
    ],
    filters: &["compute.container.>"],
};

/// Creates the table.
pub const STEP: Step = Step {
    version: 22,
    name: "containers",
    sql: "
CREATE TABLE {table} (
    container_id {key},
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- compute.ContainerStatus
    status BIGINT,
    address TEXT NOT NULL,
    http_port BIGINT,
    ssh_port BIGINT,
    ssh_enabled BIGINT,
    https_enabled BIGINT,
    redirect_to_https BIGINT,
    ssh_keys_restricted BIGINT,
    -- Numbers, separated by commas.
    ssh_key_ids TEXT NOT NULL,
    ssh_host_key_fingerprint TEXT NOT NULL,
    version BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    synced_at BIGINT NOT NULL,
    round BIGINT NOT NULL
);
CREATE INDEX {table}_user_id ON {table} (user_id);
",
};

/// The projection of containers: every event of a live one carries it whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Containers;

impl Projection for Containers {
    fn shape(&self) -> &'static Shape {
        &SHAPE
    }

    fn read(&self, message: &Message) -> Result<Option<Entry<Key>>, Failure> {
        let (event, envelope) = decode(message)?;
        let (id, container) = match event {
            AnyEvent::ContainerDeleted(event) => (event.container_id, None),
            AnyEvent::ContainerCreated(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerStarted(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerStopped(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerSshToggled(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerHttpsToggled(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerIpAssigned(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerHibernated(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerWoken(event) => (event.container_id, Some(event.container)),
            AnyEvent::ContainerFailed(event) => (event.container_id, Some(event.container)),
            _ => return Ok(None),
        };
        let id: ContainerId = id.parse().map_err(|error| Failure::Permanent(format!("container_id: {error}")))?;
        let container = container.map(|container| container.ok_or_else(|| missing("state of its container")));
        let container = container.transpose()?;
        if let Some(container) = &container {
            owner(container.user())?;
        }
        Ok(Some(read(id.to_string(), &envelope, &SHAPE, container.map(fields))))
    }
}

/// A container as a row of the projection; none of one that is gone. `version` is that of its last event.
pub fn entry(id: ContainerId, version: i64, container: Option<Container>) -> Entry {
    keyed(id.to_string(), version, &SHAPE, container.map(fields))
}

/// The container of a row; none of one that is gone, or has no id.
pub fn container(entry: &Entry) -> Option<(ContainerId, Container)> {
    let id: ContainerId = entry.key.parse().ok()?;
    if entry.deleted {
        return None;
    }
    let is_set = |index| number::<i64>(entry, index) != 0;
    let container = Container {
        container_id: entry.key.clone(),
        user_id: 0,
        user_uid: text(entry, 0),
        name: text(entry, 1),
        status: number(entry, 2),
        address: text(entry, 3),
        http_port: number(entry, 4),
        ssh_port: number(entry, 5),
        ssh_enabled: is_set(6),
        https_enabled: is_set(7),
        redirect_to_https: is_set(8),
        ssh_keys_restricted: is_set(9),
        ssh_key_ids: text(entry, 10).split(',').filter_map(|id| id.parse().ok()).collect(),
        ssh_host_key_fingerprint: text(entry, 11),
    };
    Some((id, container))
}

fn fields(container: Container) -> Vec<Value> {
    let flag = |flag: bool| Value::Number(flag.into());
    let keys: Vec<String> = container.ssh_key_ids.iter().map(i64::to_string).collect();
    vec![
        Value::Text(container.user_uid),
        Value::Text(container.name),
        Value::Number(container.status.into()),
        Value::Text(container.address),
        Value::Number(container.http_port.into()),
        Value::Number(container.ssh_port.into()),
        flag(container.ssh_enabled),
        flag(container.https_enabled),
        flag(container.redirect_to_https),
        flag(container.ssh_keys_restricted),
        Value::Text(keys.join(",")),
        Value::Text(container.ssh_host_key_fingerprint),
    ]
}
