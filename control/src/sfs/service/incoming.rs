//! A file on its way in.

use bytes::Bytes;
use edd_events::clock::{Micros, micros};
use edd_events::publisher::Cause;
use sha2::{Digest, Sha256};

use super::reserve::Leased;
use super::{Admitted, Placed, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Checksum, Entry, Target};
use crate::sfs::storage::{BlobId, BlobWriter};
use crate::sfs::store::blobs::{self, Piece};

/// Bytes that are being written. Dropped at any point, it leaves garbage that goes when its lease is over; nobody has
/// seen anything of it until [`Incoming::finish`] says that the file is there.
#[derive(Debug)]
pub struct Incoming {
    service: Service,
    actor: Actor,
    cause: Cause,
    target: Target,
    admitted: Admitted,
    received: u64,
    digest: Sha256,
    /// Those that are whole.
    pieces: Vec<Piece>,
    /// The one that is being written.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    id: BlobId,
    writer: BlobWriter,
    size: u64,
    /// When its lease has to be extended.
    extend_at: Micros,
}

impl Service {
    /// Begins to write a file. Nothing is written before the first byte comes.
    ///
    /// # Errors
    /// The namespace is not the actor's, the file is there and not to be replaced, or is too large: whatever is known
    /// before the bytes are.
    pub async fn begin(&self, actor: &Actor, target: Target, cause: &Cause) -> Result<Incoming, SfsError> {
        let admitted = self.admit(actor, &target).await?;
        Ok(Incoming {
            service: self.clone(),
            actor: *actor,
            cause: cause.clone(),
            target,
            admitted,
            received: 0,
            digest: Sha256::new(),
            pieces: Vec::new(),
            open: None,
        })
    }

    async fn open_blob(&self) -> Result<Open, SfsError> {
        let Leased { id, extend_at } = self.lease_blob().await?;
        let writer = self.store().create(id).await?;
        Ok(Open { id, writer, size: 0, extend_at })
    }

    /// When a lease that begins now is to be extended.
    pub(super) fn extend_at(&self) -> Micros {
        self.now().saturating_add(micros(self.config().leases.write / 3))
    }
}

impl Incoming {
    /// Bytes so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// There is more than was announced, or than there is room for; the store fails. The rest is of no use then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), SfsError> {
        let received = self.received.saturating_add(bytes.len() as u64);
        if let Some(declared) = self.target.declared_bytes.filter(|declared| received > *declared) {
            return Err(SfsError::Length { declared, received });
        }
        self.admitted.check(received)?;
        self.received = received;
        self.digest.update(&bytes);
        while !bytes.is_empty() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.service.open_blob().await?,
            };
            self.keep(&mut open).await?;
            let room = self.service.store().max_blob_bytes() - open.size;
            let next = bytes.split_to(usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len())));
            open.size += next.len() as u64;
            open.writer.write(next).await?;
            if open.size < self.service.store().max_blob_bytes() {
                self.open = Some(open);
            } else {
                self.close(open).await?;
            }
        }
        Ok(())
    }

    /// Says that it is still being written, if it is time to, of all of its blobs.
    async fn keep(&mut self, open: &mut Open) -> Result<(), SfsError> {
        if self.service.now() < open.extend_at {
            return Ok(());
        }
        let (database, until) = (self.service.database(), self.service.write_lease());
        let ids: Vec<BlobId> = self.pieces.iter().map(|piece| piece.id).chain([open.id]).collect();
        for ids in ids.chunks(500) {
            if blobs::extend(database.writer(), ids, until).await? < ids.len() as u64 {
                return Err(SfsError::Stalled);
            }
        }
        open.extend_at = self.service.extend_at();
        Ok(())
    }

    async fn close(&mut self, open: Open) -> Result<(), SfsError> {
        let size = open.writer.finish().await?;
        self.pieces.push(Piece { id: open.id, size });
        Ok(())
    }

    /// Makes a file of it, if its bytes are those `expected`.
    ///
    /// # Errors
    /// There are fewer bytes than announced, or others than expected; what was true when it began is so no more. Nothing
    /// of it is kept then.
    pub async fn finish(mut self, expected: Option<Checksum>) -> Result<Entry, SfsError> {
        match self.complete(expected).await {
            Ok(entry) => Ok(entry),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self, expected: Option<Checksum>) -> Result<Entry, SfsError> {
        let received = self.received;
        if let Some(declared) = self.target.declared_bytes.filter(|declared| received != *declared) {
            return Err(SfsError::Length { declared, received });
        }
        let actual = Checksum(self.digest.finalize_reset().into());
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(SfsError::Checksum { expected, actual });
        }
        if let Some(open) = self.open.take() {
            self.close(open).await?;
        }
        let mut transaction = self.service.begin_change().await?;
        let placed = Placed {
            actor: &self.actor,
            cause: &self.cause,
            namespace: self.admitted.namespace.number,
            path: &self.target.path,
            replace: self.target.replace,
            media_type: &self.target.media_type,
            pieces: &self.pieces,
            checksum: actual,
        };
        let entry = self.service.place(&mut transaction, &placed).await?;
        self.service.commit(transaction).await?;
        // They are the file's now.
        self.pieces.clear();
        Ok(entry)
    }

    /// Gives it up: what was written goes at once, instead of when its lease is over.
    pub async fn abort(mut self) {
        let open = self.open.take();
        let ids = self.pieces.iter().map(|piece| piece.id).chain(open.as_ref().map(|open| open.id)).collect::<Vec<_>>();
        if let Some(open) = open {
            open.writer.abort().await;
        }
        for id in ids {
            if let Err(error) = self.service.discard(id).await {
                tracing::warn!(blob = %id, %error, "what is left of an upload goes when its lease is over");
            }
        }
    }
}

impl Service {
    /// Has a blob removed that was written for nothing.
    async fn discard(&self, id: BlobId) -> Result<(), SfsError> {
        if !blobs::expire(self.database().writer(), id, self.now()).await? {
            // Its row may be gone since before the object was there: nobody else knows of it.
            self.store().delete(id).await?;
        }
        Ok(())
    }
}
