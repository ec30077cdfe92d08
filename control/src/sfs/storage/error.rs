//! What goes wrong with bytes.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::BlobId;

/// What the store, or the disk under it, says itself.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What an object store in the network is called in its errors.
const NETWORK: &str = "S3";

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
    /// Out of reach, or not at work: the same may be tried again.
    #[error("the store of files is away: {0}")]
    Away(#[source] Cause),
    /// Trying again will not help: somebody has to look after it.
    #[error("the store of files is broken: {0}")]
    Broken(#[source] Cause),
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
        match error {
            error if is_full(&error) => Self::Full,
            object_store::Error::Generic { store: NETWORK, .. } => Self::Away(Box::new(error)),
            error => Self::Broken(Box::new(error)),
        }
    }

    /// What the way to a store in the network says.
    pub(super) fn away(cause: impl Into<Cause>) -> Self {
        Self::Away(cause.into())
    }

    /// What the local disk says of `path`.
    pub(super) fn disk(path: &Path, error: &io::Error) -> Self {
        let text = format!("{}: {error}", path.display());
        if no_room(error) { Self::Full } else { Self::Broken(Box::new(io::Error::new(error.kind(), text))) }
    }
}

/// Whether the reason, however deep it is wrapped, is that there is no room.
fn is_full(error: &object_store::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    if causes.any(|cause| cause.downcast_ref().is_some_and(no_room)) {
        return true;
    }
    // A server's answer is no typed error outside of the crate. This is how MinIO, and how Ceph, say it.
    let said = error.to_string();
    said.contains("507 Insufficient Storage") || said.contains("<Code>QuotaExceeded</Code>")
}

/// A quota, or a limit on the size of files, is as final as a full disk.
fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(store: &'static str, source: impl Into<Cause>) -> StorageError {
        StorageError::general(object_store::Error::Generic { store, source: source.into() })
    }

    #[test]
    fn no_room_is_found_however_it_is_said() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
            let wrapped = object_store::Error::Generic { store: "disk", source: Box::new(io::Error::from(kind)) };
            assert!(matches!(said("disk", wrapped), StorageError::Full), "{kind}");
            assert!(
                matches!(StorageError::disk(Path::new("/x"), &io::Error::from(kind)), StorageError::Full),
                "{kind}"
            );
        }
        for answer in
            ["status code: 507 Insufficient Storage: ", "status code: 403 Forbidden: <Code>QuotaExceeded</Code>"]
        {
            assert!(matches!(said("S3", answer), StorageError::Full), "{answer}");
        }
    }

    #[test]
    fn a_network_is_away_and_a_disk_is_broken() {
        assert!(matches!(said("S3", "status code: 503"), StorageError::Away(_)));
        let broken = said("disk", io::Error::from(ErrorKind::PermissionDenied));
        assert!(
            matches!(&broken, StorageError::Broken(_)) && broken.to_string().contains("permission denied"),
            "{broken}"
        );
    }
}
