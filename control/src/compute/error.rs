//! Why the compute service does not do what it is asked.

use edd_events::publisher::PublishError;

use crate::compute::model::Invalid;
use crate::compute::platform::PlatformError;

/// What is said to who asks; causes inside are for the log.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The same for what does not exist and what is another user's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("{0}")]
    Conflict(&'static str),
    #[error("you have {most} {what}, which is the limit: delete one first")]
    Quota { what: &'static str, most: u32 },
    #[error("this account was deleted")]
    OwnerGone,
    #[error("too many connections are open: close one, or try again later")]
    Busy,
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error("the platform did not answer in time")]
    PlatformTimeout,
    #[error("an event could not be written: {0}")]
    Publish(#[from] PublishError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}
