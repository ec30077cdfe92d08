//! Bytes on their way into blobs.

use bytes::Bytes;
use edd_events::clock::{Micros, micros};

use super::Service;
use super::reserve::Leased;
use crate::sfs::error::SfsError;
use crate::sfs::storage::{BlobId, BlobWriter};
use crate::sfs::store::blobs::{self, Piece};

/// Blobs that one statement extends.
const EXTENDED_AT_ONCE: usize = 500;

/// What is being written, in blobs of at most so many bytes. Dropped at any point, it leaves garbage that goes when its
/// lease is over.
#[derive(Debug)]
pub(super) struct Pieces {
    service: Service,
    most_bytes: u64,
    /// Those that are whole, in order.
    whole: Vec<Piece>,
    /// The one that is being written.
    open: Option<Open>,
    /// When the leases have to be extended.
    extend_at: Micros,
}

#[derive(Debug)]
struct Open {
    id: BlobId,
    writer: BlobWriter,
    size: u64,
}

impl Pieces {
    pub(super) fn new(service: &Service, most_bytes: u64) -> Self {
        let most_bytes = most_bytes.min(service.store().max_blob_bytes()).max(1);
        let extend_at = extends_at(service);
        Self { service: service.clone(), most_bytes, whole: Vec::new(), open: None, extend_at }
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// The store or the database fails. The rest is of no use then.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), SfsError> {
        while !bytes.is_empty() {
            self.extend().await?;
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.open_blob().await?,
            };
            let room = usize::try_from(self.most_bytes - open.size).unwrap_or(usize::MAX);
            let next = bytes.split_to(bytes.len().min(room));
            open.size += next.len() as u64;
            open.writer.write(next).await?;
            let is_full = open.size == self.most_bytes;
            self.open = Some(open);
            if is_full {
                self.close().await?;
            }
        }
        Ok(())
    }

    /// Ends the blob that is being written: all of what was written is whole then.
    pub(super) async fn close(&mut self) -> Result<(), SfsError> {
        if let Some(open) = self.open.take() {
            let size = open.writer.finish().await?;
            self.whole.push(Piece { id: open.id, size });
        }
        Ok(())
    }

    /// Those that are whole, in order; the rows are the caller's to make something of.
    pub(super) fn whole(&self) -> &[Piece] {
        &self.whole
    }

    /// Forgets those that are whole: they are somebody's now.
    pub(super) fn settle(&mut self) {
        self.whole.clear();
    }

    /// Gives up what nobody has: it goes at once, instead of when its lease is over.
    pub(super) async fn abort(mut self) {
        let open = self.open.take();
        let ids: Vec<BlobId> =
            self.whole.iter().map(|piece| piece.id).chain(open.as_ref().map(|open| open.id)).collect();
        if let Some(open) = open {
            open.writer.abort().await;
        }
        for id in ids {
            if let Err(error) = self.service.discard(id).await {
                tracing::warn!(blob = %id, %error, "what is left of an upload goes when its lease is over");
            }
        }
    }

    async fn open_blob(&mut self) -> Result<Open, SfsError> {
        let Leased { id, extend_at } = self.service.lease_blob().await?;
        self.extend_at = self.extend_at.min(extend_at);
        Ok(Open { id, writer: self.service.store().create(id).await?, size: 0 })
    }

    /// Says that all of them are still being written, if it is time to.
    ///
    /// # Errors
    /// It was for too long.
    async fn extend(&mut self) -> Result<(), SfsError> {
        if self.service.now() < self.extend_at {
            return Ok(());
        }
        let until = self.service.write_lease();
        let open = self.open.as_ref().map(|open| open.id);
        let ids: Vec<BlobId> = self.whole.iter().map(|piece| piece.id).chain(open).collect();
        for ids in ids.chunks(EXTENDED_AT_ONCE) {
            if blobs::extend(self.service.database().writer(), ids, until).await? < ids.len() as u64 {
                return Err(SfsError::Stalled);
            }
        }
        self.extend_at = extends_at(&self.service);
        Ok(())
    }
}

impl Service {
    /// Has a blob removed that was written for nothing.
    async fn discard(&self, id: BlobId) -> Result<(), SfsError> {
        if !blobs::expire(self.database().writer(), id, self.now()).await? {
            // Its row may have gone before the object was there: nobody else knows of it.
            self.store().delete(id).await?;
        }
        Ok(())
    }
}

/// When a lease that begins now is to be extended.
fn extends_at(service: &Service) -> Micros {
    service.now().saturating_add(micros(service.config().leases.write / 3))
}
