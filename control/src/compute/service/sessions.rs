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
use crate::compute::platform::{Exec, LogQuery, Session, Size};

/// How long a shell waits for its container to wake.
const WAKE_TIMEOUT: Duration = Duration::from_secs(60);
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
        let exec = Exec { command: Vec::new(), environment, terminal: Some(size) };
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
