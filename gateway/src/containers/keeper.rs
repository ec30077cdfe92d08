//! Who wakes containers and puts them to sleep: compute.

use std::fmt::Debug;

use async_trait::async_trait;
use edd_proto::ContainerId;

/// Containers told of in one call of [`Keeper::active`].
pub const MAX_ACTIVE: usize = 1000;

/// Why compute did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// Asking again may help.
    #[error("compute does not answer: {0}")]
    Unavailable(String),
    /// Asking again does not help: the container is gone, or its owner may not have it run.
    #[error("compute refuses: {0}")]
    Refused(String),
}

/// A gateway that was not told where compute is: containers that sleep stay asleep.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

#[async_trait]
impl Keeper for Nobody {
    async fn wake(&self, _id: ContainerId) -> Result<(), KeeperError> {
        Err(KeeperError::Refused("this gateway was not told where compute is".to_owned()))
    }

    async fn active(&self, _ids: &[ContainerId]) -> Result<Vec<ContainerId>, KeeperError> {
        Ok(Vec::new())
    }
}

/// Compute, in this process or over HTTP.
#[async_trait]
pub trait Keeper: Debug + Send + Sync {
    /// Asks for a container to be woken. Returns when compute has taken the order, which may be long before the
    /// container runs: events tell that. Asking for one that is awake changes nothing.
    async fn wake(&self, id: ContainerId) -> Result<(), KeeperError>;

    /// Tells that these containers, at most [`MAX_ACTIVE`], are in use. Which of them were being put to sleep just then:
    /// they are woken.
    async fn active(&self, ids: &[ContainerId]) -> Result<Vec<ContainerId>, KeeperError>;
}
