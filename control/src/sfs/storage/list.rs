//! What is in a store.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use super::{BlobId, StorageError};

/// The blobs of `objects`. Only the folders of blobs are looked at: beside them may lie what is not ours to read.
pub(super) fn blobs(
    objects: Arc<dyn ObjectStore>,
) -> impl Stream<Item = Result<(BlobId, u64), StorageError>> + Send + 'static {
    stream::iter(BlobId::folders()).flat_map(move |folder| {
        let found = objects.list(Some(&Path::from(folder))).map_err(StorageError::general);
        found.try_filter_map(|object| async move { Ok(BlobId::of_key(&object.location).map(|id| (id, object.size))) })
    })
}
