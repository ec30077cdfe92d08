//! What goes wrong with bytes.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::BlobId;

/// Why a blob could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing of what was being written is kept.
    #[error("the disk that files are stored on is full")]
    Full,
    #[error("blob {0} is not in the store")]
    Missing(BlobId),
    #[error("blob {0} is shorter than it was when it was written")]
    Short(BlobId),
    #[error("a blob can hold {max_bytes} bytes and no more")]
    TooLarge { max_bytes: u64 },
    /// Where to look for the store makes no sense.
    #[error("{0}")]
    Settings(String),
    /// The store does not do its work now: out of reach, or broken.
    #[error("the store of files: {0}")]
    Away(#[source] Box<dyn Error + Send + Sync>),
}

impl StorageError {
    /// What an object store says of a blob.
    pub(super) fn of(id: BlobId, error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing(id),
            error => Self::general(error),
        }
    }

    /// What it says of itself.
    pub(super) fn general(error: object_store::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Away(Box::new(error)) }
    }

    /// What the local disk says of `path`.
    pub(super) fn disk(path: &Path, error: &io::Error) -> Self {
        let text = format!("{}: {error}", path.display());
        if no_room(error) { Self::Full } else { Self::Away(Box::new(io::Error::new(error.kind(), text))) }
    }
}

/// Whether the reason, however deep it is wrapped, is that there is no room.
fn is_full(error: &object_store::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.any(|cause| cause.downcast_ref().is_some_and(no_room))
        // A server's answer is no typed error outside of the crate. 507 is what MinIO says.
        || error.to_string().contains("507 Insufficient Storage")
}

/// A quota, or a limit on the size of files, is as final as a full disk.
fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn Error + Send + Sync>>) -> StorageError {
        StorageError::general(object_store::Error::Generic { store: "test", source: source.into() })
    }

    #[test]
    fn no_room_is_found_however_it_is_said() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
            let wrapped = object_store::Error::Generic { store: "test", source: Box::new(io::Error::from(kind)) };
            assert!(matches!(generic(wrapped), StorageError::Full), "{kind}");
            assert!(matches!(StorageError::disk(Path::new("/x"), &io::Error::from(kind)), StorageError::Full), "{kind}");
        }
        let answer = "Server returned non-2xx status code: 507 Insufficient Storage: ";
        assert!(matches!(generic(answer), StorageError::Full));
        let other = generic(io::Error::from(ErrorKind::PermissionDenied));
        assert!(matches!(&other, StorageError::Away(_)) && other.to_string().contains("permission denied"), "{other}");
    }
}
