//! What is in a store.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::{BlobId, Object, StorageError};

/// The blobs of `objects`. Only the folders of blobs are looked at: beside them may lie what is not ours to read.
pub(super) fn blobs(
    objects: Arc<dyn ObjectStore>,
) -> impl Stream<Item = Result<Object, StorageError>> + Send + 'static {
    stream::iter(BlobId::folders()).flat_map(move |folder| {
        let found = objects.list(Some(&Path::from(folder))).map_err(StorageError::general);
        found.try_filter_map(|object| async move { Ok(blob(&object)) })
    })
}

fn blob(object: &ObjectMeta) -> Option<Object> {
    let modified_at = object.last_modified.timestamp_micros();
    BlobId::of_key(&object.location).map(|id| Object { id, bytes: object.size, modified_at })
}
