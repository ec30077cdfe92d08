//! Why the file share does not do what it is asked.

use std::borrow::Cow;

use edd_events::publisher::PublishError;

use crate::sfs::model::{Checksum, FilePath, Invalid};
use crate::sfs::storage::StorageError;

/// What is said to who asks; causes inside are for the log.
#[derive(Debug, thiserror::Error)]
pub enum SfsError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The same for what does not exist and what the caller may not see.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// They see it, and may not change it.
    #[error("this namespace is not yours: its owner and administrators alone change what is in it")]
    NotYours,
    /// Something is there already, which was not to be replaced.
    #[error("{path} exists: send ?overwrite=true to replace it")]
    Exists { path: FilePath },
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// What is there is not what `If-Match` expects.
    #[error("the file is not as you expect it to be: look at it again")]
    NotAsExpected,
    #[error("you have {most} {what}, which is the limit: delete one first")]
    Count { what: &'static str, most: u32 },
    #[error(transparent)]
    Quota(#[from] Quota),
    /// Of one file.
    #[error("a file has at most {most_bytes} bytes here, not {bytes}")]
    TooLarge { most_bytes: u64, bytes: u64 },
    /// The body is not as long as it was said to be. Nothing of it is kept.
    #[error("{declared} bytes were announced and {received} came: nothing is kept, send it again")]
    Length { declared: u64, received: u64 },
    /// Nothing of it is kept.
    #[error("the SHA-256 of what came is {actual}, not {expected}: nothing is kept, send it again")]
    Checksum { expected: Checksum, actual: Checksum },
    /// The lease ran out.
    #[error("the upload stood still for too long, and what had come is deleted: send it again")]
    Stalled,
    #[error("this account was deleted")]
    OwnerGone,
    #[error("too much is going on at once: try again later")]
    Busy,
    /// The disk, or whatever the bytes are on, not a quota.
    #[error("the file share has no room left: nothing of it is kept, and its operator has to see to it")]
    NoRoom,
    #[error("the store of bytes: {0}")]
    Storage(#[source] StorageError),
    #[error("an event could not be written: {0}")]
    Publish(#[from] PublishError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

impl SfsError {
    pub(crate) fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Conflict(message.into())
    }
}

impl From<StorageError> for SfsError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full => Self::NoRoom,
            error => Self::Storage(error),
        }
    }
}

/// What somebody may have is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{whose} may have {most} {unit}, {used} are used, and this needs {asked} more: delete something first")]
pub struct Quota {
    pub whose: Whose,
    pub unit: Unit,
    pub most: u64,
    pub used: u64,
    pub asked: u64,
}

/// Who has a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    User,
    Namespace,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "the namespace's owner",
            Self::Namespace => "this namespace",
        })
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Entries,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Entries => "files and folders",
        })
    }
}
