//! The way in: one blob, being written.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, PutPayloadMut};
use tokio::task::JoinSet;

use super::{BlobId, BlobStore, StorageError};

/// Parts that are on their way at once, beside the one that is being filled.
const MAX_PARTS_IN_FLIGHT: usize = 2;
/// Bytes that come in smaller pieces are copied together: a client that sends them one by one must not have each cost
/// the buffer that it arrived in.
const SMALL_PIECE_BYTES: usize = 16 * 1024;

/// A blob that can be read once it is finished. Dropped before that, it leaves nothing; killed, what
/// [`BlobStore::delete`] and [`BlobStore::sweep`] remove.
pub struct BlobWriter {
    store: BlobStore,
    id: BlobId,
    part: PutPayloadMut,
    /// None while all of it fits into one part.
    upload: Option<Upload>,
    written_bytes: u64,
}

/// Parts of an object. Nobody locks it: the mutex lets what holds a writer be seen from several threads.
type Unlocked = Mutex<Box<dyn MultipartUpload>>;

/// What of a blob is gone to the store.
struct Upload {
    /// None once it is at its end.
    parts: Option<Unlocked>,
    in_flight: JoinSet<object_store::Result<()>>,
}

impl BlobWriter {
    pub(super) fn new(store: &BlobStore, id: BlobId) -> Self {
        let part = PutPayloadMut::new().with_block_size(SMALL_PIECE_BYTES);
        Self { store: store.clone(), id, part, upload: None, written_bytes: 0 }
    }

    /// Takes more bytes, and waits while the store is behind. After an error it can only be dropped.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StorageError> {
        let max_bytes = self.store.max_blob_bytes();
        self.written_bytes += bytes.len() as u64;
        if self.written_bytes > max_bytes {
            return Err(StorageError::TooLarge { max_bytes });
        }
        while !bytes.is_empty() {
            // Only when more comes: what fills a part exactly may be all that there is.
            if self.part.content_length() == self.store.part_bytes() {
                self.send_part().await?;
            }
            let room = self.store.part_bytes() - self.part.content_length();
            let piece = bytes.split_to(bytes.len().min(room));
            if piece.len() < SMALL_PIECE_BYTES {
                self.part.extend_from_slice(&piece);
            } else {
                self.part.push(piece);
            }
        }
        Ok(())
    }

    /// Makes it a blob: so many bytes. After an error nothing of it is left.
    pub async fn finish(mut self) -> Result<u64, StorageError> {
        if self.upload.is_none() {
            let all = self.take_part();
            self.store.objects.put(&self.id.key(), all).await.map_err(|error| StorageError::of(self.id, error))?;
            return Ok(self.written_bytes);
        }
        self.send_part().await?;
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.complete().await
        {
            upload.abort().await;
            // Not all stores take everything back themselves: the answer to a success may be what was lost.
            if let Err(error) = self.store.delete(self.id).await {
                tracing::debug!(%error, blob = %self.id, "an unfinished blob is left for the sweep");
            }
            return Err(StorageError::of(self.id, error));
        }
        Ok(self.written_bytes)
    }

    /// Gives up, and returns when nothing is left.
    pub async fn abort(mut self) {
        if let Some(mut upload) = self.upload.take() {
            upload.abort().await;
        }
    }

    async fn send_part(&mut self) -> Result<(), StorageError> {
        let part = self.take_part();
        let sent = async {
            if self.upload.is_none() {
                let parts = self.store.objects.put_multipart(&self.id.key()).await?;
                self.upload = Some(Upload { parts: Some(Unlocked::new(parts)), in_flight: JoinSet::new() });
            }
            match &mut self.upload {
                Some(upload) => upload.send(part).await,
                None => Ok(()),
            }
        };
        sent.await.map_err(|error| StorageError::of(self.id, error))
    }

    fn take_part(&mut self) -> PutPayload {
        let next = PutPayloadMut::new().with_block_size(SMALL_PIECE_BYTES);
        std::mem::replace(&mut self.part, next).freeze()
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter")
            .field("id", &self.id)
            .field("written_bytes", &self.written_bytes)
            .finish_non_exhaustive()
    }
}

impl Upload {
    async fn send(&mut self, part: PutPayload) -> object_store::Result<()> {
        self.wait(MAX_PARTS_IN_FLIGHT - 1).await?;
        if let Some(parts) = &mut self.parts {
            let sending = parts.get_mut().unwrap_or_else(PoisonError::into_inner).put_part(part);
            self.in_flight.spawn(sending);
        }
        Ok(())
    }

    /// Waits until at most `most` parts are on their way.
    async fn wait(&mut self, most: usize) -> object_store::Result<()> {
        while self.in_flight.len() > most {
            if let Some(part) = self.in_flight.join_next().await {
                part??;
            }
        }
        Ok(())
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        self.wait(0).await?;
        if let Some(parts) = &mut self.parts {
            parts.get_mut().unwrap_or_else(PoisonError::into_inner).complete().await?;
            self.parts = None;
        }
        Ok(())
    }

    async fn abort(&mut self) {
        self.in_flight.shutdown().await;
        if let Some(parts) = self.parts.take() {
            given_up(parts).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // A store in the network has to be told. Without a runtime nobody can, and the sweep finds it.
        if let (Some(parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(given_up(parts));
        }
    }
}

async fn given_up(parts: Unlocked) {
    let mut parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = parts.abort().await {
        // An upload whose completion failed half-way is at its end already.
        tracing::debug!(%error, "an unfinished blob is left for the sweep");
    }
}
