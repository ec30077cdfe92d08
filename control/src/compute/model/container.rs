//! A container: what its owner wants of it, and what is known of it.

use std::net::IpAddr;

use edd_events::clock::Micros;
use edd_events::publisher::Cause;
use edd_proto::compute::{Container as Told, ContainerStatus};
use edd_proto::{ContainerId, UserId};

use super::{InstanceType, MountPaths, Wanted};
use crate::compute::platform::{PullPolicy, SshServer};

/// What a container does, as the world is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Accepted, and not there yet.
    Pending,
    Running,
    Stopped,
    Hibernated,
    Failed,
}

impl Status {
    /// The number that the database and the events have for it.
    pub fn number(self) -> ContainerStatus {
        match self {
            Self::Pending => ContainerStatus::Pending,
            Self::Running => ContainerStatus::Running,
            Self::Stopped => ContainerStatus::Stopped,
            Self::Hibernated => ContainerStatus::Hibernated,
            Self::Failed => ContainerStatus::Failed,
        }
    }

    pub(crate) fn read(number: i64) -> Option<Self> {
        let all = [Self::Pending, Self::Running, Self::Stopped, Self::Hibernated, Self::Failed];
        all.into_iter().find(|status| i64::from(status.number() as i32) == number)
    }
}

/// Who is let in, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub ssh_enabled: bool,
    /// The keys that may log in, in order; none: all of the owner's. Nobody, if the list is empty.
    pub ssh_keys: Option<Vec<i64>>,
    pub https_enabled: bool,
    /// Plain HTTP is redirected.
    pub redirect_to_https: bool,
}

/// A container that the database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: ContainerId,
    pub owner: UserId,
    /// The owner's number in auth_db.
    pub owner_number: i64,
    /// The name that the owner logged in with when they made it.
    pub owner_name: String,
    pub name: String,
    pub image: String,
    pub pull: PullPolicy,
    pub instance_type: InstanceType,
    pub memory_mb: u32,
    pub storage_gb: u32,
    pub mount_paths: MountPaths,
    pub access: Access,
    /// Seconds without a request after which it is put to sleep; 0: never.
    pub idle_timeout_s: u32,
    pub wanted: Wanted,
    /// Grows whenever another state is wanted: what was learnt for an older one does not settle this one.
    pub generation: i64,
    /// The request that wanted it: what comes of it is told as its consequence.
    pub cause: Cause,
    pub status: Status,
    /// Since when.
    pub status_at: Micros,
    /// Why it failed, or what keeps it waiting, in words for its owner; empty if nothing does.
    pub reason: String,
    /// It is being made or started at this moment.
    pub is_starting: bool,
    pub address: Option<IpAddr>,
    pub http_port: u16,
    /// None: whoever logs in is let in by the platform.
    pub ssh: Option<SshServer>,
    /// Of the last request, or of the last time that it was to run.
    pub last_active_at: Micros,
    /// Failures since it last did what was wanted.
    pub attempts: u32,
    /// When the reconciler looks at it next; none: it is as it is wanted.
    pub due_at: Option<Micros>,
    /// Of its last event.
    pub version: i64,
    pub created_at: Micros,
    pub deleted_at: Option<Micros>,
}

/// What clients are told that a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling(&'static str);

impl Telling {
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl Container {
    /// What clients are told: as the world is, and that it is on its way.
    pub fn telling(&self) -> Telling {
        Telling(match self.status {
            Status::Pending | Status::Stopped if self.is_starting => "initializing",
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Hibernated => "hibernated",
            Status::Failed => "failed",
        })
    }

    /// Its state as events carry it.
    pub fn told(&self) -> Told {
        Told {
            container_id: self.id.to_string(),
            user_id: self.owner_number,
            user_uid: self.owner.to_string(),
            name: self.name.clone(),
            status: self.status.number().into(),
            address: self.address.map(|address| address.to_string()).unwrap_or_default(),
            http_port: self.http_port.into(),
            ssh_port: self.ssh.as_ref().map_or(0, |ssh| ssh.port).into(),
            ssh_enabled: self.access.ssh_enabled,
            https_enabled: self.access.https_enabled,
            redirect_to_https: self.access.redirect_to_https,
            ssh_keys_restricted: self.access.ssh_keys.is_some(),
            ssh_key_ids: self.access.ssh_keys.clone().unwrap_or_default(),
            ssh_host_key_fingerprint: self.ssh.as_ref().map(|ssh| ssh.host_key.clone()).unwrap_or_default(),
        }
    }

    /// Wants another state, to be seen to at once.
    pub fn want(&mut self, wanted: Wanted, now: Micros, cause: &Cause) {
        (self.wanted, self.cause) = (wanted, cause.clone());
        self.generation += 1;
        self.attempts = 0;
        self.due_at = Some(now);
        if wanted == Wanted::Running {
            self.last_active_at = now;
        }
    }
}
