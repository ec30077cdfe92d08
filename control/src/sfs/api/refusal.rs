//! What the share's own errors are in HTTP.

use std::time::Duration;

use http::StatusCode;

use crate::error::Error;
use crate::password::PasswordError;
use crate::sfs::error::SfsError;
use crate::sfs::model::Invalid;
use crate::sfs::service::{ShareError, UploadError};
use crate::sfs::storage::StorageError;

/// When to come back where too much goes on.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<SfsError> for Error {
    fn from(error: SfsError) -> Self {
        let message = error.to_string();
        match error {
            SfsError::Invalid(_) | SfsError::Length { .. } | SfsError::Checksum { .. } => Self::bad_request(message),
            SfsError::NotFound(_) => Self::not_found(message),
            SfsError::NotYours | SfsError::Count { .. } | SfsError::OwnerGone => Self::forbidden(message),
            SfsError::Exists { .. } | SfsError::Conflict(_) => Self::conflict(message),
            SfsError::NotAsExpected => Self::new(StatusCode::PRECONDITION_FAILED, message),
            SfsError::Quota(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, message),
            SfsError::NoRoom => Self::new(StatusCode::INSUFFICIENT_STORAGE, message).with_cause(error),
            SfsError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            SfsError::Stalled => Self::new(StatusCode::REQUEST_TIMEOUT, message),
            SfsError::Busy => Self::too_many_requests(message, BUSY_RETRY_AFTER),
            SfsError::Storage(StorageError::Away(_)) => Self::unavailable(error),
            SfsError::Storage(_) => Self::internal(error),
            SfsError::Publish(error) => error.into(),
            SfsError::Database(error) => error.into(),
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::bad_request(invalid.to_string())
    }
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            // Not 409 or 423, which clients of tus try again by themselves: two of them would overtake one another for ever.
            UploadError::Overtaken => Self::bad_request(message),
            UploadError::Offset { .. } => Self::conflict(message),
            UploadError::Expired => Self::new(StatusCode::GONE, message),
            UploadError::TooLong { .. } | UploadError::TooManyPieces { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            // What tus calls it.
            UploadError::Sfs(SfsError::Quota(_)) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            UploadError::Sfs(error) => error.into(),
        }
    }
}

impl From<ShareError> for Error {
    fn from(error: ShareError) -> Self {
        let message = error.to_string();
        match error {
            ShareError::NotFound => Self::not_found(message),
            ShareError::Password => Self::new(StatusCode::UNAUTHORIZED, message),
            ShareError::TooOften(too_often) => Self::too_many_requests(message, too_often.retry_after),
            ShareError::Hash(PasswordError::Busy) => Self::too_many_requests(message, BUSY_RETRY_AFTER),
            ShareError::Hash(error) => Self::internal(error),
            ShareError::Sfs(error) => error.into(),
        }
    }
}
