//! What runs inside a container for its owner: a shell, and its log.

use std::time::Duration;

use bytes::Bytes;
use edd_events::publisher::Cause;
use edd_proto::ContainerId;
use tokio::sync::mpsc;

use super::{Service, in_time};
use crate::caller::Permit;
use crate::compute::error::ComputeError;
use crate::compute::model::{Container, Status};
use crate::compute::platform::{Exec, LogQuery, PlatformError, Session, Size};
use crate::compute::store::containers;

/// How long a shell waits for its container to wake.
const WAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// As useradd(8) takes them.
const MAX_USER_NAME_BYTES: usize = 32;
/// Between two looks at one that wakes, besides those that changes cause.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Service {
    /// A shell on a terminal in a container, which is woken for it.
    ///
    /// # Errors
    /// The caller has no such container, it is not to run, or does not within a minute.
    pub async fn terminal(
        &self,
        permit: Permit,
        id: ContainerId,
        size: Size,
        cause: &Cause,
    ) -> Result<Session, ComputeError> {
        self.wake_own(permit, id, cause).await?;
        let running = tokio::time::timeout(WAKE_TIMEOUT, self.running(permit, id)).await;
        running.map_err(|_| ComputeError::Conflict("the container does not run yet: try again in a moment"))??;
        let environment = [("TERM".to_owned(), "xterm-256color".to_owned())].into();
        let exec = Exec { environment, terminal: Some(size), ..Exec::default() };
        in_time(self.platform().exec(id, exec)).await
    }

    /// Waits until a container runs.
    async fn running(&self, permit: Permit, id: ContainerId) -> Result<Container, ComputeError> {
        let mut changes = self.changes();
        loop {
            let container = self.container(permit, id).await?;
            match container.status {
                Status::Running => return Ok(container),
                Status::Failed => return Err(ComputeError::Conflict("the container failed: its status says why")),
                _ => {}
            }
            // One that was missed, or that another process made, is seen at the next look.
            let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
        }
    }

    /// Something that a gateway runs in a container, to which it let somebody in.
    ///
    /// # Errors
    /// There is no such container, or the platform cannot run it.
    pub async fn session(&self, id: ContainerId, exec: Exec) -> Result<Session, PlatformError> {
        if let Some(user) = exec.user.as_deref().filter(|user| !is_user_name(user)) {
            return Err(PlatformError::Impossible(format!("`{user}` cannot be the name of a user")));
        }
        let away = |error: &dyn std::fmt::Display| PlatformError::Unavailable(error.to_string());
        let found = containers::by_id(self.database().reader(), id).await.map_err(|error| away(&error))?;
        if found.is_none_or(|container| container.deleted_at.is_some()) {
            return Err(PlatformError::NotFound(id));
        }
        match in_time(self.platform().exec(id, exec)).await {
            Err(ComputeError::Platform(error)) => Err(error),
            session => session.map_err(|error| away(&error)),
        }
    }

    /// The log of a container.
    ///
    /// # Errors
    /// The caller has no such container, or the platform has none of it.
    pub async fn logs(
        &self,
        permit: Permit,
        id: ContainerId,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<Bytes>, ComputeError> {
        self.container(permit, id).await?;
        in_time(self.platform().logs(id, query)).await
    }
}

/// Whether an engine takes `text` for a name, and not for a number or a user with a group.
fn is_user_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first
        && text.len() <= MAX_USER_NAME_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
