//! A container as clients read it.

use serde::Serialize;

use crate::compute::config::ComputeConfig;
use crate::compute::model;
use crate::error::Error;
use crate::moment::rfc3339;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Container {
    pub(super) id: String,
    name: String,
    /// pending, initializing, running, stopped, hibernated or failed
    pub(super) status: &'static str,
    /// Why it failed, or what it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    hostname: String,
    ssh_command: String,
    memory_mb: u32,
    storage_gb: u32,
    instance_type: &'static str,
    image: String,
    pull_policy: &'static str,
    mount_paths: Vec<String>,
    ssh_enabled: bool,
    /// null: all of the owner's keys
    ssh_key_ids: Option<Vec<i64>>,
    https_enabled: bool,
    redirect_to_https: bool,
    /// 0: never
    idle_timeout_s: u32,
    created_at: String,
}

impl Container {
    pub(super) fn of(container: model::Container, config: &ComputeConfig) -> Result<Self, Error> {
        let status = container.telling().as_str();
        let id = container.id.to_string();
        Ok(Self {
            hostname: config.hostname(&id),
            ssh_command: config.ssh_command(&id),
            id,
            name: container.name,
            status,
            reason: container.reason,
            memory_mb: container.memory_mb,
            storage_gb: container.storage_gb,
            instance_type: container.instance_type.as_str(),
            image: container.image,
            pull_policy: container.pull.as_str(),
            mount_paths: container.mount_paths.as_slice().to_vec(),
            ssh_enabled: container.access.ssh_enabled,
            ssh_key_ids: container.access.ssh_keys,
            https_enabled: container.access.https_enabled,
            redirect_to_https: container.access.redirect_to_https,
            idle_timeout_s: container.idle_timeout_s,
            created_at: rfc3339(container.created_at)?,
        })
    }
}
