//! What gateways ask: to wake a container, and to know which are in use.

use edd_events::clock::Micros;
use edd_events::publisher::Cause;
use edd_proto::ContainerId;

use super::{NO_CONTAINER, Service};
use crate::caller::Permit;
use crate::compute::error::ComputeError;
use crate::compute::model::{Container, Wanted};
use crate::compute::store;

/// Containers that one report of use names at most.
pub const MAX_ACTIVE: usize = 10_000;
/// Containers that one statement marks.
const PIECE: usize = 500;

impl Service {
    /// Has a container that sleeps run again, and returns at once. One that runs or is about to is left as it is.
    ///
    /// # Errors
    /// There is no such container, or its owner stopped it.
    pub async fn wake(&self, id: ContainerId, cause: &Cause) -> Result<(), ComputeError> {
        let found = store::containers::by_id(self.database().reader(), id).await?;
        if awake(found)? {
            return Ok(());
        }
        let mut transaction = self.database().begin().await?;
        let container = store::containers::lock(&mut transaction, id).await?;
        let Some(mut container) = container.filter(|it| it.deleted_at.is_none()) else { return Err(NO_CONTAINER) };
        if awake(Some(container.clone()))? {
            return Ok(());
        }
        container.want(Wanted::Running, self.now(), cause);
        self.commit(transaction, &container).await
    }

    /// The same for its owner.
    ///
    /// # Errors
    /// They have no such container, or it is stopped.
    pub async fn wake_own(&self, permit: Permit, id: ContainerId, cause: &Cause) -> Result<(), ComputeError> {
        self.container(permit, id).await?;
        self.wake(id, cause).await
    }

    /// Notes that containers are in use: at most [`MAX_ACTIVE`], unknown ones are skipped. One that was put to sleep
    /// because nobody used it is woken, for somebody came just then; which those are.
    ///
    /// # Errors
    /// The database fails.
    pub async fn active(&self, ids: &[ContainerId]) -> Result<Vec<ContainerId>, ComputeError> {
        let now: Micros = self.now();
        let mut ids: Vec<_> = ids.iter().copied().take(MAX_ACTIVE).collect();
        // Rows are locked in one order.
        ids.sort_unstable();
        ids.dedup();
        let mut woken = Vec::new();
        for piece in ids.chunks(PIECE) {
            let mut transaction = self.database().begin().await?;
            woken.extend(store::containers::mark_active(&mut transaction, piece, now).await?);
            self.database().commit(transaction).await?;
        }
        Ok(woken)
    }
}

/// Whether the container is to run.
fn awake(container: Option<Container>) -> Result<bool, ComputeError> {
    let container = container.filter(|container| container.deleted_at.is_none()).ok_or(NO_CONTAINER)?;
    match container.wanted {
        Wanted::Running => Ok(true),
        Wanted::Hibernated | Wanted::Idle => Ok(false),
        Wanted::Stopped => Err(ComputeError::Conflict("the container is stopped: its owner has to start it")),
    }
}
