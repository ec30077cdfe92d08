//! Where the bytes are: blobs, immutable, in an object store. On local disk or in S3.
//!
//! A blob is written once, under an id that nobody guesses and no user chose, and is there whole or not at all. Who may
//! read it, and whether anybody still needs it, is for the database to say.

mod connector;
mod error;
mod id;
mod list;
mod local;
mod read;
mod s3;
#[cfg(test)]
mod tests;
mod uploads;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use object_store::{ObjectStore, ObjectStoreExt};

pub use error::StorageError;
pub use id::BlobId;
pub use s3::S3Settings;
pub use writer::BlobWriter;

/// A place for blobs; clones are the same place.
#[derive(Clone, Debug)]
pub struct BlobStore {
    objects: Arc<dyn ObjectStore>,
    medium: Medium,
}

/// A blob as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    pub id: BlobId,
    pub bytes: u64,
    /// When it came to be, in microseconds since 1970.
    pub modified_at: i64,
}

/// What an object store does not tell of itself.
#[derive(Clone, Debug)]
enum Medium {
    Local(local::Folder),
    S3(s3::Bucket),
}

impl BlobStore {
    /// A folder of the local disk, which is made if it is not there. What is written is on the disk, and not only on its
    /// way there, when [`BlobWriter::finish`] returns.
    pub fn local(folder: &Path) -> Result<Self, StorageError> {
        let (objects, folder) = local::open(folder)?;
        Ok(Self { objects, medium: Medium::Local(folder) })
    }

    /// A bucket, which must be there. Nothing is asked of it yet.
    pub fn s3(settings: &S3Settings) -> Result<Self, StorageError> {
        let (objects, bucket) = s3::open(settings)?;
        Ok(Self { objects, medium: Medium::S3(bucket) })
    }

    /// Begins to write the blob `id`, which no one else may write. Nothing of it can be read before it is whole.
    pub async fn create(&self, id: BlobId) -> Result<BlobWriter, StorageError> {
        Ok(BlobWriter::new(self, id))
    }

    /// The bytes `range` of a blob, in pieces of at most 256 KiB, of which one is in memory at a time. A range that
    /// exceeds the blob is [`StorageError::Short`].
    pub fn read(
        &self,
        id: BlobId,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static {
        read::pieces(self.objects.clone(), id, range)
    }

    /// Removes a blob, and on local disk what a writer that was killed has left of it. One that is not there is fine.
    pub async fn delete(&self, id: BlobId) -> Result<(), StorageError> {
        match self.objects.delete(&id.key()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(StorageError::of(id, error)),
        }
        match &self.medium {
            Medium::Local(folder) => folder.remove_staged(id).await,
            Medium::S3(_) => Ok(()),
        }
    }

    /// The length of a blob in bytes. None: it is not there.
    pub async fn size(&self, id: BlobId) -> Result<Option<u64>, StorageError> {
        match self.objects.head(&id.key()).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError::of(id, error)),
        }
    }

    /// All blobs, in constant memory and no order. What else lies there is passed over.
    pub fn list(&self) -> impl Stream<Item = Result<Object, StorageError>> + Send + 'static {
        list::blobs(self.objects.clone())
    }

    /// Removes what writers left that were killed, once nobody has written to it for `idle`, or in S3 begun it that long
    /// ago: so many. Blobs are not touched.
    pub async fn sweep(&self, idle: Duration) -> Result<u64, StorageError> {
        match &self.medium {
            Medium::Local(folder) => folder.sweep(idle).await,
            Medium::S3(bucket) => uploads::sweep(bucket, idle).await,
        }
    }

    /// What one blob can hold, in bytes. A longer content takes several.
    pub fn max_blob_bytes(&self) -> u64 {
        match &self.medium {
            Medium::Local(_) => u64::MAX,
            Medium::S3(_) => s3::MAX_BLOB_BYTES,
        }
    }

    /// What is written at once, in bytes. A blob that is no longer is written by one call.
    fn part_bytes(&self) -> usize {
        match &self.medium {
            Medium::Local(_) => local::PART_BYTES,
            Medium::S3(_) => s3::PART_BYTES,
        }
    }
}
