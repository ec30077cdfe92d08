//! The end of containers, rules and keys: tombstones and events. What the platform has of a container it removes later.

use edd_events::clock::Micros;
use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::compute::{ContainerDeleted, SshKeyDeleted};
use edd_proto::{ContainerId, UserId};
use sqlx::AnyConnection;

use super::Service;
use super::ingress::{MAX_RULES, taken_back};
use crate::caller::Permit;
use crate::compute::error::ComputeError;
use crate::compute::model::{Container, Rule, SshKey};
use crate::compute::store::{self, containers, ingress, ssh_keys};

/// Containers and keys of a deleted user that one transaction deletes.
const PIECE: u32 = 50;

impl Service {
    /// Deletes a container, with its rules.
    ///
    /// # Errors
    /// The caller has no such container.
    pub async fn delete(&self, permit: Permit, id: ContainerId, cause: &Cause) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        let mut container = self.lock(&mut transaction, permit.owner(), id).await?;
        bury(self.publisher(), &mut transaction, &mut container, self.now(), cause).await?;
        self.database().commit(transaction).await?;
        self.changed(permit.owner());
        Ok(())
    }
}

/// Makes a tombstone of a container that is locked, and of its rules, with their events.
pub(super) async fn bury(
    publisher: &Publisher,
    connection: &mut AnyConnection,
    container: &mut Container,
    now: Micros,
    cause: &Cause,
) -> Result<(), PublishError> {
    for rule in ingress::of_container(&mut *connection, container.id, MAX_RULES).await? {
        if let Some(rule) = ingress::bury(&mut *connection, container.id, rule.port, now).await? {
            take_back(publisher, connection, &rule, cause).await?;
        }
    }
    let event = ContainerDeleted {
        container_id: container.id.to_string(),
        user_id: container.owner_number,
        user_uid: container.owner.to_string(),
        ..Default::default()
    };
    container.version = publisher.add(connection, event, cause).await?;
    container.deleted_at = Some(now);
    container.generation += 1;
    (container.attempts, container.due_at, container.is_starting) = (0, Some(now), false);
    container.address = None;
    container.access.ssh_keys = None;
    containers::set_keys(connection, container).await?;
    Ok(containers::save(connection, container).await?)
}

/// Tells that a rule, which is a tombstone, is to go.
pub(super) async fn take_back(
    publisher: &Publisher,
    connection: &mut AnyConnection,
    rule: &Rule,
    cause: &Cause,
) -> Result<(), PublishError> {
    let version = publisher.add(connection, taken_back(rule), cause).await?;
    Ok(ingress::set_version(connection, rule.number, version).await?)
}

/// Tells that a key, which is a tombstone, is gone.
pub(super) async fn tell_key(
    publisher: &Publisher,
    connection: &mut AnyConnection,
    key: &SshKey,
    cause: &Cause,
) -> Result<(), PublishError> {
    let event = SshKeyDeleted {
        key_id: key.number,
        user_id: key.owner_number,
        user_uid: key.owner.to_string(),
        ..Default::default()
    };
    let version = publisher.add(connection, event, cause).await?;
    Ok(ssh_keys::set_version(connection, key.number, version).await?)
}

/// Deletes a piece of what a deleted user has, and notes that they are deleted. Whether that was all.
pub(super) async fn clear(
    publisher: &Publisher,
    connection: &mut AnyConnection,
    user: UserId,
    now: Micros,
    cause: &Cause,
) -> Result<bool, PublishError> {
    store::owners::bury(&mut *connection, user, now, false).await?;
    let containers = containers::of_user(&mut *connection, user, PIECE).await?;
    for container in &containers {
        if let Some(mut container) = containers::lock(connection, container.id).await?
            && container.deleted_at.is_none()
        {
            bury(publisher, connection, &mut container, now, cause).await?;
        }
    }
    let keys = ssh_keys::of_user(&mut *connection, user, PIECE).await?;
    for key in &keys {
        if let Some(key) = ssh_keys::bury(&mut *connection, user, key.number, now).await? {
            ssh_keys::forget(&mut *connection, key.number).await?;
            tell_key(publisher, connection, &key, cause).await?;
        }
    }
    let is_all = containers.len() < PIECE as usize && keys.len() < PIECE as usize;
    if is_all {
        store::owners::bury(connection, user, now, true).await?;
    }
    Ok(is_all)
}
