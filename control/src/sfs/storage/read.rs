//! The way out: a blob as a stream.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt};

use super::{BlobId, StorageError};

/// Largest piece, in bytes. On local disk each takes a thread for a moment: `object_store`'s own 8 KiB spend more time
/// on that than on reading.
const PIECE_BYTES: u64 = 256 * 1024;

type Pieces = BoxStream<'static, Result<Bytes, StorageError>>;

/// The bytes `range` of the blob `id`.
pub(super) fn pieces(
    objects: Arc<dyn ObjectStore>,
    id: BlobId,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static {
    stream::once(open(objects, id, range)).try_flatten()
}

async fn open(objects: Arc<dyn ObjectStore>, id: BlobId, range: Range<u64>) -> Result<Pieces, StorageError> {
    let wanted = range.end.saturating_sub(range.start);
    if wanted == 0 {
        return Ok(stream::empty().boxed());
    }
    if wanted <= PIECE_BYTES {
        // Most files are small: one trip to a thread instead of two.
        let piece = small(&*objects, id, range).await?;
        return Ok(stream::iter([Ok(piece)]).boxed());
    }
    let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
    let found = objects.get_opts(&id.key(), options).await.map_err(|error| StorageError::of(id, error))?;
    if found.range != range {
        return Err(StorageError::Short(id));
    }
    match found.payload {
        GetResultPayload::File(file, path) => Ok(of_file(id, file, path, range)),
        GetResultPayload::Stream(bytes) => Ok(of_network(id, bytes, wanted)),
    }
}

async fn small(objects: &dyn ObjectStore, id: BlobId, range: Range<u64>) -> Result<Bytes, StorageError> {
    let wanted = range.end - range.start;
    match objects.get_range(&id.key(), range.clone()).await {
        Ok(piece) => whole(id, piece, wanted),
        // That the range is too long is said by each kind of store in its own words.
        Err(error @ object_store::Error::Generic { .. }) => match objects.head(&id.key()).await {
            Ok(found) if found.size < range.end => Err(StorageError::Short(id)),
            _ => Err(StorageError::of(id, error)),
        },
        Err(error) => Err(StorageError::of(id, error)),
    }
}

fn whole(id: BlobId, piece: Bytes, wanted: u64) -> Result<Bytes, StorageError> {
    if piece.len() as u64 == wanted { Ok(piece) } else { Err(StorageError::Short(id)) }
}

/// Pieces of an open file, which stays readable when its name is gone.
fn of_file(id: BlobId, file: File, path: PathBuf, range: Range<u64>) -> Pieces {
    let next = move |(file, at): (Arc<(File, PathBuf)>, u64)| {
        let end = range.end;
        async move {
            if at == end {
                return Ok(None);
            }
            let read = file.clone();
            let piece = tokio::task::spawn_blocking(move || {
                let wanted = PIECE_BYTES.min(end - at);
                let mut piece = Vec::with_capacity(wanted as usize);
                let mut from = &read.0;
                from.seek(SeekFrom::Start(at)).and_then(|_| from.take(wanted).read_to_end(&mut piece)).map(|_| piece)
            });
            let piece = piece.await.map_err(|error| StorageError::Broken(Box::new(error)))?;
            let piece = Bytes::from(piece.map_err(|error| StorageError::disk(&file.1, &error))?);
            let piece = whole(id, piece, PIECE_BYTES.min(end - at))?;
            let at = at + piece.len() as u64;
            Ok(Some((piece, (file, at))))
        }
    };
    stream::try_unfold((Arc::new((file, path)), range.start), next).boxed()
}

/// Pieces as they arrive, cut where they are too large.
fn of_network(id: BlobId, bytes: BoxStream<'static, object_store::Result<Bytes>>, wanted: u64) -> Pieces {
    let next = move |(mut bytes, mut rest, missing): (BoxStream<'static, object_store::Result<Bytes>>, Bytes, u64)| async move {
        while rest.is_empty() {
            match bytes.next().await {
                Some(Ok(more)) => rest = more,
                Some(Err(error)) => return Err(StorageError::of(id, error)),
                None if missing == 0 => return Ok(None),
                None => return Err(StorageError::Short(id)),
            }
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES as usize));
        let missing = missing.saturating_sub(piece.len() as u64);
        Ok(Some((piece, (bytes, rest, missing))))
    };
    stream::try_unfold((bytes, Bytes::new(), wanted), next).boxed()
}
